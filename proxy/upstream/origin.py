"""Where the server lives: its origin, its endpoint, and what we add to every request.

In: the `upstream` settings, and references the server gives. Out: request targets (path and query) within the
origin. Keeps our own fields. Source: RFC 9112 section 3.2 (origin-form), RFC 3986 section 5 (resolution).
"""

from __future__ import annotations

from urllib.parse import SplitResult, urljoin, urlsplit

from ..configuration.socket_urls import HOST, as_http, socket_of
from .credentials import OwnFields
from .settings import UpstreamSettings


class Origin:
    """One server. `target` is its endpoint, `host` its authority (localhost:80, where it listens on a file), `own` what
    we add to every request."""

    __slots__ = ("_base", "_bases", "host", "own", "target")

    def __init__(self, settings: UpstreamSettings) -> None:
        parts = urlsplit(as_http(settings.url))
        self._base = f"{parts.scheme}://{parts.netloc}"
        self._bases = {self._base}
        if socket_of(settings.url) is not None:
            self._bases.add(f"http://{HOST}")  # many leave out what the scheme says already
        self.host = parts.netloc.encode("ascii")
        self.target = _target_of(parts)
        self.own = OwnFields(settings.headers)

    def with_query(self, query: str) -> str:
        """The endpoint with a client's query behind its own."""
        if not query:
            return self.target
        return f"{self.target}{'&' if '?' in self.target else '?'}{query}"

    def resolve(self, target: str, reference: str) -> str | None:
        """What `reference` means at `target`; None on another origin. Raises ValueError when it is no URL."""
        where = urlsplit(urljoin(self._base + target, reference))
        return _target_of(where) if f"{where.scheme}://{where.netloc}" in self._bases else None


def _target_of(parts: SplitResult) -> str:
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
