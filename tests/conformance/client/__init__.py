"""The client that the official suite judges: the Python SDK, doing what each scenario expects of a client."""
