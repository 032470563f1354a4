"""The side that faces the client."""
