"""Where do clients find what the server says lives at its own address? Its URLs → ours, our paths → its. Pure.

In: the server's URL and the resource (the URL clients use). Out: URLs and paths of the other side. A server next to
us calls itself by an address nobody else can reach. Sources: RFC 9728 section 3.1 and RFC 8414 section 3.1 (where
the documents lie), RFC 9728 section 3.3 (what `resource` must be).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, TypeAlias
from urllib.parse import urlsplit

RESOURCE: Final = "/.well-known/oauth-protected-resource"
ISSUER: Final = "/.well-known/oauth-authorization-server"
OPENID: Final = "/.well-known/openid-configuration"

_ORIGIN: Final = re.compile(r"https?://[^/?#]*", re.IGNORECASE)
_URL_TEXT: Final = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")
_SELF: Final = frozenset({"localhost", "127.0.0.1", "::1"})
"""Names of one's own machine. To a client each of them means the client's, so none is a server of its own."""
_PORTS: Final = {"http": 80, "https": 443}

OriginKey: TypeAlias = tuple[str, str, int]


class PublicView:
    """One server, seen from where we are and from where its clients are."""

    def __init__(self, server_url: str, resource: str) -> None:
        self.resource = resource
        self._server = _key(server_url)
        self._public = _key(resource)
        self._public_origin = _written_origin(resource)
        self._server_path = urlsplit(server_url).path.rstrip("/")
        self._public_path = urlsplit(resource).path.rstrip("/")

    def url(self, url: str) -> str:
        """The same thing at our public origin; unchanged where it is not the server's own."""
        if _key(url) != self._server:
            return url
        return self._public_origin + url[len(_written_origin(url)) :]

    def metadata_url(self, url: str) -> str:
        """Where clients find the document that the server announces at `url`."""
        if _key(url) != self._server:
            return url
        origin, path = _written_origin(url), urlsplit(url).path
        return self._public_origin + self.path_here(path) + url[len(origin) + len(path) :]

    def own_path(self, url: str) -> str | None:
        """The path of a URL at the server or at our public origin, which may be the only one the server knows."""
        return (urlsplit(url).path or "/") if _key(url) in (self._server, self._public) else None

    def is_resource(self, url: str) -> bool:
        """Whether clients of the server would take `url` for its resource: its origin, and its path or above."""
        if _key(url) != self._server:
            return False
        return f"{self._server_path}/".startswith(urlsplit(url).path.rstrip("/") + "/")

    def path_there(self, path: str) -> str:
        """Where the server has what clients ask us for at the well-known `path`."""
        return _moved(path, self._public_path, self._server_path)

    def path_here(self, path: str) -> str:
        """Where clients ask us for what the server has at `path`."""
        return _moved(path, self._server_path, self._public_path)

    @property
    def resource_paths(self) -> frozenset[str]:
        """Where clients look for the protected-resource document when nobody tells them."""
        return frozenset((RESOURCE, RESOURCE + self._public_path))

    def document(self, document: Mapping[str, object]) -> dict[str, object]:
        """A metadata document as clients may read it: what is at the server's origin is at ours.

        A `resource` that clients of the server would refuse stays as it is, so that ours refuse it too.
        """
        seen = {name: self._seen(name, value) for name, value in document.items()}
        if seen != document:
            # Its claims take precedence over what stands beside it (RFC 9728, 2.2), and name the server.
            seen.pop("signed_metadata", None)
        return seen

    def _seen(self, name: str, value: object) -> object:
        if name == "resource":
            return self.resource if isinstance(value, str) and self.is_resource(value) else value
        if isinstance(value, list):
            return [self.url(each) if isinstance(each, str) else each for each in value]
        return self.url(value) if isinstance(value, str) else value


def is_about_issuer(path: str) -> bool:
    """Whether an authorization server has its metadata at such a path (RFC 8414 section 3, OpenID discovery)."""
    return path in (ISSUER, OPENID) or path.startswith((f"{ISSUER}/", f"{OPENID}/")) or path.endswith(OPENID)


def _moved(path: str, origin: str, destination: str) -> str:
    for known in (RESOURCE, ISSUER, OPENID):
        if path == known + origin:
            return known + destination
    return destination + OPENID if path == origin + OPENID else path


def _key(url: str) -> OriginKey | None:
    """What makes two origins one; None for what is no http(s) URL without credentials."""
    if not _URL_TEXT.fullmatch(url):
        return None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    scheme = parts.scheme.lower()
    if scheme not in _PORTS or not host or "@" in parts.netloc:
        return None
    return scheme, "localhost" if host in _SELF else host, _PORTS[scheme] if port is None else port


def _written_origin(url: str) -> str:
    match = _ORIGIN.match(url)
    return match[0] if match else ""
