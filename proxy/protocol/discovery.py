"""Where is the document that says how to get a token? (RFC 9728 section 3.1). Pure."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"


def metadata_path(path: str) -> str:
    """The path of the document about the resource at `path`: the well-known part goes before it."""
    return WELL_KNOWN + path.rstrip("/")


def metadata_url(resource: str) -> str:
    """The URL of the document about `resource`."""
    parts = urlsplit(resource)
    return f"{parts.scheme}://{parts.netloc}{metadata_path(parts.path)}"
