"""mcp-sidecar: a transparent, JSON-RPC-aware reverse proxy beside one MCP server."""

__version__ = "0.1.0"
"""The one place where it stands: packages, images and `--version` have it from here."""
