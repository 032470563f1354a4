"""May this HTTP request come in at all? Asked before a byte of its body is read.

In: request line and header fields. Out: which endpoint is meant, or `Refused`. Keeps nothing; pure.
Sources: RFC 9110, RFC 9112, MCP transports ("Servers MUST validate the Origin header"), DNS rebinding advisories.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import chain
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from msgspec import Struct

from ..model import Headers, Reason, Refused
from ..protocol.headers import PARAM_PREFIX, TOKEN, media_type, named_by_connection

LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})

MAX_KNOWN_HOSTS: Final = 256
"""Ports and cases in which callers write the names that are listed."""

_LENGTH: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_AUTHORITY: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\x00-\x20:\[\]/?#@\\]+)(?::[0-9]{0,5})?")
_TARGET: Final = re.compile(r"[!$-;=?-Z_a-z~%\[\]]+")
_ONCE: Final = (
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "expect",
    "origin",
)
_ALLOWED_HEADERS: Final = (
    b"authorization, content-type, accept, mcp-protocol-version, mcp-method, mcp-name, mcp-session-id, "
    b"last-event-id"
)
_EXPOSED: Final = b"Mcp-Session-Id, WWW-Authenticate"


class Target(Struct, frozen=True):
    """What a request line names."""

    path: str
    query: str


class Gate:
    """Host and Origin lists, and what every request must look like."""

    def __init__(
        self,
        *,
        hosts: Iterable[str],
        origins: Iterable[str],
        address_host: str,
        is_tls: bool = False,
        keys: Iterable[str] = (),
    ) -> None:
        """`keys` are headers in which callers prove themselves. They end here, and odd bytes in them are a bad
        credential, not a bad request."""
        listed = {_bare(host) for host in hosts}
        self._hosts = listed or {*LOOPBACK_NAMES, _bare(address_host)}
        self._known_hosts: set[str] = set()
        self._origins = frozenset(origins)
        self._keys = frozenset(key.lower().encode("ascii") for key in keys)
        self._scheme = "https" if is_tls else "http"
        # A plain port may stand behind somebody who speaks TLS for it; pages before a TLS port came over TLS.
        self._own_schemes = ("https",) if is_tls else ("http", "https")

    def target(self, request_target: str, headers: Headers, version: tuple[int, int]) -> Target:
        """The endpoint a request means. Host and Origin come first, whatever the path."""
        if version not in ((1, 1), (1, 0)):
            raise _malformed("Only HTTP/1.1 and HTTP/1.0 are spoken here.")
        repeated = headers.repeated()
        for name in _ONCE if repeated else ():
            if name in repeated:
                raise _malformed(f"The header {name} is repeated.")
        host = headers.get("host")
        if host is None:
            raise _malformed("The header Host is missing.")
        if not request_target.startswith("/"):
            request_target = _origin_form(request_target, self._scheme, host)
        if host not in self._known_hosts:
            self._check_host(host)
        origin = headers.get("origin")
        if origin is not None and origin not in self._origins and not self._is_same(origin, host):
            raise Refused(Reason.ORIGIN_NOT_ALLOWED, "The operator lists them in listen.allowed_origins.")
        if not _TARGET.fullmatch(request_target):
            raise _malformed("The request target has characters that RFC 3986 does not allow.")
        if not b"".join(chain.from_iterable(headers.pairs)).isascii():
            for field, value in headers.pairs:
                if field.lower() not in self._keys:
                    _check_field(field, value)
        if "connection" in headers and named_by_connection(headers) is None:
            raise _malformed("The header Connection names a field that must reach the other side.")
        path, _, query = request_target.partition("?")
        if query and any(name == "access_token" for name, _ in parse_qsl(query, keep_blank_values=True)):
            raise _malformed("Tokens belong into the Authorization header, not into the query.")
        return Target(path, query)

    def _check_host(self, host: str) -> None:
        """Raises Refused. A Host that is good is known from now on: callers say the same in each request."""
        named = _AUTHORITY.fullmatch(host)
        if named is None or ".." in host:
            raise _malformed("The header Host is not a host and a port.")
        if _bare(named.group(1)) not in self._hosts:
            raise Refused(Reason.HOST_NOT_ALLOWED, "The operator lists the names in listen.allowed_hosts.")
        if len(self._known_hosts) < MAX_KNOWN_HOSTS:
            self._known_hosts.add(host)

    def check_keys(self, headers: Headers) -> None:
        """Where they are passed on after all: a page of the server itself."""
        for field, value in headers.pairs:
            if field.lower() in self._keys:
                _check_field(field, value)

    def no_body(self, headers: Headers) -> None:
        """A GET or DELETE has none: what nobody reads, nobody judges."""
        if headers.get("content-length") not in (None, "0") or "transfer-encoding" in headers:
            raise _malformed("This method carries no body.")
        if (headers.get("upgrade") or "").lower() == "websocket":
            raise _malformed("There is no WebSocket here.")

    def is_json(self, headers: Headers) -> None:
        """What a message is written in."""
        kind, charset = media_type(headers.get("content-type"))
        if kind != "application/json" or charset not in (None, "utf-8", "utf8"):
            raise Refused(Reason.MEDIA_TYPE)

    def body(self, headers: Headers, version: tuple[int, int], limit: int) -> int | None:
        """Framing and coding of a body that is about to be read. Returns its announced length."""
        coding, length = headers.get("transfer-encoding"), headers.get("content-length")
        if coding is not None:
            if coding.strip().lower() != "chunked" or version != (1, 1) or length is not None:
                raise _malformed(
                    "The only transfer coding is chunked, once, in HTTP/1.1, without Content-Length."
                )
        elif length is None:
            raise _malformed("The body has neither Content-Length nor Transfer-Encoding.")
        elif not _LENGTH.fullmatch(length):
            raise _malformed("Content-Length is not a plain decimal number.")
        if length is not None and int(length) > limit:
            raise too_large(limit)
        if (headers.get("content-encoding") or "identity").strip().lower() != "identity":
            raise Refused(Reason.MEDIA_TYPE, "Content codings are not decoded here.")
        expect = headers.get("expect")
        if expect is not None and expect.lower() != "100-continue":
            raise Refused(Reason.EXPECTATION_FAILED)
        return int(length) if length is not None else None

    def cors(self, headers: Headers) -> list[tuple[bytes, bytes]]:
        """What a listed origin needs to read the answer; nothing for anybody else."""
        origin = headers.get("origin")
        if origin is None or origin not in self._origins:
            return []
        return [
            (b"Access-Control-Allow-Origin", origin.encode()),
            (b"Access-Control-Expose-Headers", _EXPOSED),
            (b"Vary", b"Origin"),
        ]

    def preflight(self, headers: Headers, methods: bytes) -> list[tuple[bytes, bytes]] | None:
        """The answer to a browser that asks first, without credentials; None when it did not ask."""
        if "origin" not in headers or "access-control-request-method" not in headers:
            return None
        asked = headers.get("access-control-request-headers") or ""
        params = b"".join(
            b", " + name.strip().encode("ascii", "ignore")
            for name in asked.lower().split(",")
            if name.strip().startswith(PARAM_PREFIX) and TOKEN.fullmatch(name.strip())
        )
        return [
            *self.cors(headers),
            (b"Access-Control-Allow-Methods", methods),
            (b"Access-Control-Allow-Headers", _ALLOWED_HEADERS + params),
            (b"Access-Control-Max-Age", b"600"),
        ]

    def _is_same(self, origin: str, host: str) -> bool:
        """A page of the very authority that is asked; its Host was on the list, so no rebinding stands behind it."""
        scheme, _, authority = origin.partition("://")
        return scheme in self._own_schemes and authority.lower() == host.lower()


def too_large(limit: int) -> Refused:
    return Refused(Reason.TOO_LARGE, f"A body may have {limit} bytes.")


def _check_field(name: bytes, value: bytes) -> None:
    """Values that two readers would decode differently are not passed on."""
    if not value.isascii():
        try:
            value.decode("utf-8")
        except UnicodeDecodeError:
            raise _malformed("A header value is not UTF-8.") from None
    if not name.isascii():
        raise _malformed("A header name is not ASCII.")


def _origin_form(request_target: str, scheme: str, host: str) -> str:
    """Path and query of an absolute-form target, which must name this very origin (RFC 9112, 3.2.2)."""
    try:
        parts = urlsplit(request_target)
    except ValueError:
        raise _malformed("The request target is not a URL.") from None
    if parts.scheme.lower() != scheme or parts.netloc.lower() != host.lower() or parts.fragment:
        raise Refused(Reason.HOST_NOT_ALLOWED, "The request target names another authority.")
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _bare(host: str) -> str:
    return host.lower().rstrip(".").strip("[]")


def _malformed(why: str) -> Refused:
    return Refused(Reason.MALFORMED, why)
