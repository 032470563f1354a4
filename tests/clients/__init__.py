"""Do real clients notice that we are there? Every behaviour is asked for directly and through the sidecar."""
