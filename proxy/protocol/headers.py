"""Which header fields stop here, and what do the Mcp-* ones say?

In: `Headers` and single values. Out: filtered `Headers`, decoded values, or None where a value is malformed.
Keeps nothing. Sources: RFC 9110 sections 5.6, 7.6.1 and 8.3, MCP 2026-07-28 streamable-http (value encoding).
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # the settings use the lists below, and `check` must not pay for a runtime
    from ..model import Headers

HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-authentication-info",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Fields about one connection; each side has its own (RFC 9110, 7.6.1)."""

END_TO_END: Final = re.compile(
    r"authorization|cookie|host|content-.*|accept.*|origin|mcp-.*|last-event-id|x-principal|x-tenant",
    re.IGNORECASE,
)
"""What `Connection` may not name: removing it would change whom or what the other side sees."""

MIRRORS: Final = ("mcp-protocol-version", "mcp-method", "mcp-name")
PARAM_PREFIX: Final = "mcp-param-"

TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_SENTINEL: Final = re.compile(r"=\?base64\?(.*)\?=", re.DOTALL)
_BASE64: Final = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


def named_by_connection(headers: Headers) -> frozenset[bytes] | None:
    """Lower-case names the Connection field lists; None when it lists one that must reach the other side."""
    named = set()
    for value in headers.all("connection"):
        for option in value.split(","):
            name = option.strip().lower()
            if not name:
                continue
            if not TOKEN.fullmatch(name) or END_TO_END.fullmatch(name):
                return None
            named.add(name.encode("ascii"))
    return frozenset(named)


def end_to_end(headers: Headers, stops_here: Callable[[bytes], bool]) -> list[tuple[bytes, bytes]]:
    """The fields that go on: not hop-by-hop, not named by Connection, not `stops_here` (lower-case name)."""
    named: frozenset[bytes] = frozenset()
    if "connection" in headers:
        named = named_by_connection(headers) or named
    kept = []
    for pair in headers.pairs:
        name = pair[0].lower()
        if name not in HOP_BY_HOP and name not in named and not stops_here(name):
            kept.append(pair)
    return kept


def media_type(value: str | None) -> tuple[str, str | None]:
    """Lower-case type/subtype and charset of a Content-Type value; ("", None) when absent or not one."""
    if value is None:
        return "", None
    if ";" not in value:
        return value.strip().lower(), None
    essence, *parameters = value.split(";")
    charset = None
    for parameter in parameters:
        name, _, text = parameter.partition("=")
        if name.strip().lower() == "charset":
            text = text.strip().strip('"').lower()
            # Two readers, two charsets: then it is none.
            charset = text if charset in (None, text) else "ambiguous"
    return essence.strip().lower(), charset


def decode_value(value: str) -> str | None:
    """What a mirrored header value says, decoded once; None when its base64 sentinel is malformed.

    Visible ASCII stands for itself; anything else travels as `=?base64?…?=`, exact and lower case. A value
    that lacks the prefix or the suffix is a literal.
    """
    value = value.strip(" \t")
    sentinel = _SENTINEL.fullmatch(value)
    if sentinel is None:
        return value
    text = sentinel.group(1)
    # Strict: b64decode would skip blanks and accept what other readers refuse.
    if not _BASE64.fullmatch(text):
        return None
    try:
        return binascii.a2b_base64(text, strict_mode=True).decode("utf-8")
    except ValueError:
        return None
