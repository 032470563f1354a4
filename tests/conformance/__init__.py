"""The official conformance suite, run against an MCP server directly and through the sidecar."""
