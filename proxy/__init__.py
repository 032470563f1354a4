"""mcp-sidecar: a transparent, JSON-RPC-aware reverse proxy beside one MCP server."""
