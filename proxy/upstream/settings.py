"""Which server is guarded, and how is it reached? The `upstream` section.

Sources: RFC 9110 section 5.1 (field names), 5.5 (field values), 7.6.1 (hop-by-hop fields).
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct, field

from ..configuration.globs import fits
from ..configuration.mistakes import Unfit
from ..configuration.socket_urls import as_http, check_server_url
from ..configuration.values import fit, url_path
from ..protocol.headers import HOP_BY_HOP, TOKEN
from ..secret import Secret

_FIELD_VALUE: Final = re.compile(r"[\t\x20-\x7e]*", re.ASCII)
_FRAMING: Final = frozenset(("content-encoding", "content-length", "content-type", "expect", "host"))


def check_header_name(name: str) -> None:
    """Raise Unfit unless a header of this name may be added to every request."""
    remedy = "remove it"
    if not TOKEN.fullmatch(name):
        raise Unfit("is no header name", "RFC 9110 allows letters, digits and !#$%&'*+-.^_`|~", "rename it")
    if name.lower().encode() in HOP_BY_HOP:
        raise Unfit("cannot be set", "this header belongs to one connection, not to the request", remedy)
    if name.lower() in _FRAMING:
        raise Unfit("cannot be set", "this header frames or routes the message", remedy)
    if name.lower().startswith("mcp-") or name.lower() == "last-event-id":
        raise Unfit("cannot be set", "this header must agree with each message", remedy)


def check_header_value(value: Secret) -> None:
    """Raise Unfit where a value would end its line early or reach the server changed."""
    text = value.reveal()
    if not _FIELD_VALUE.fullmatch(text):
        raise Unfit(
            "is no header value", "only printable ASCII may stand in it", "remove line breaks and the like"
        )
    if text != text.strip():
        raise Unfit("is no header value", "spaces at its ends are not sent", "remove them")


def check_headers(headers: Mapping[str, Secret]) -> None:
    """Raise Unfit where two names differ in case only: HTTP would send both, and servers pick one."""
    seen: set[str] = set()
    for name in headers:
        if name.lower() in seen:
            raise Unfit("is there twice", "header names ignore case", "keep one", key=name)
        seen.add(name.lower())


def check_hidden_field(name: str) -> None:
    """Raise Unfit unless answers may lose the fields that `name`, or a pattern, fits."""
    if not TOKEN.fullmatch(name.replace("?", "x")):
        raise Unfit(
            "is no header name",
            "RFC 9110 allows letters, digits and !#$%&'*+-.^_`|~; * is any text, ? one character",
            "rename it",
        )
    folded = name.lower()
    needed = next((each for each in NEEDED_FIELDS if fits(folded, each.lower())), None)
    if needed is not None:
        raise Unfit("cannot be hidden", f"clients need {needed}, which it fits", "name less")
    if folded.startswith("mcp-"):
        raise Unfit("cannot be hidden", "clients need what the protocol has", "remove it")


NEEDED_FIELDS: Final = (
    "Allow",
    "Cache-Control",
    "Content-Encoding",
    "Content-Length",
    "Content-Type",
    "Location",
    "MCP-Protocol-Version",
    "Mcp-Session-Id",
    "Retry-After",
    "WWW-Authenticate",
)
"""Of an answer: without one of these a client reads it wrongly, or does not know how to go on."""

HiddenField = Annotated[str, Meta(max_length=256), fit(check_hidden_field)]
HeaderName = Annotated[str, fit(check_header_name)]
HeaderValue = Annotated[Secret, Meta(extra={"fit": check_header_value})]
Headers = Annotated[Mapping[HeaderName, HeaderValue], Meta(extra={"fit": check_headers})]


class UpstreamSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The one server beside us."""

    url: Annotated[str, fit(check_server_url, pattern="^http[a-z+]*://")]
    """Absolute URL of the MCP endpoint, without credentials. A server that listens on a unix socket:
    http+unix://%2Frun%2Fmcp.sock/mcp."""

    transport: Literal["auto", "streamable_http", "http_sse"] = "auto"
    """auto: http_sse (2024-11-05) where the URL's path ends in /sse, else streamable_http."""

    connect_timeout_s: Annotated[float, Meta(gt=0, le=300)] = 1.0
    """How long a connection may take; the server is in the same pod."""

    headers: Headers = field(default_factory=lambda: MappingProxyType({}))
    """Added to every request, the proxy's own credential for example. Never shown."""

    forward_client_authorization: bool = False
    """true: the client's Authorization header goes upstream. false: it stops here."""

    hide_headers: tuple[HiddenField, ...] = ()
    """Header fields of answers that clients do not get: names, or patterns of them, in any case."""

    max_answer_bytes: Annotated[int, Meta(ge=1, le=4_294_967_296)] = 67_108_864
    """Longest answer that is not a stream."""

    max_event_bytes: Annotated[int, Meta(ge=1, le=1_073_741_824)] = 16_777_216
    """Longest single event of a stream."""

    @property
    def is_http_sse(self) -> bool:
        """Whether the server speaks 2024-11-05 HTTP+SSE."""
        if self.transport == "auto":
            return url_path(as_http(self.url)).endswith("/sse")
        return self.transport == "http_sse"
