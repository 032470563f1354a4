"""The side that faces the server."""
