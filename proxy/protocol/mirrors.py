"""Do the Mcp-Param-* headers of a tools/call say what its arguments say?

In: a tool's inputSchema, or a call. Out: which header mirrors which argument, or `Refused` (header_mismatch).
Keeps nothing. Source: 2026-07-28 basic/transports/streamable-http, "Custom headers from tool parameters".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, TypeAlias

from ..model import Call, Reason, Refused
from .headers import PARAM_PREFIX, TOKEN, decode_value

Mirrors: TypeAlias = Mapping[str, tuple[str, ...]]
"""Lower-case header name → path of the argument it mirrors."""

MAX_MIRRORS: Final = 64
MAX_NESTING: Final = 16
_TYPES: Final = frozenset({"integer", "string", "boolean"})
_INTEGER: Final = re.compile(r"(-?[0-9]{1,40})(?:\.0+)?")


def mirrors_of(input_schema: object) -> Mirrors:
    """The mirrors a tool declares; none when its declarations break the rules, as clients drop such tools."""
    found: dict[str, tuple[str, ...]] = {}
    if not _collect(input_schema, (), found) or len(found) > MAX_MIRRORS:
        return {}
    return found


def _collect(schema: object, path: tuple[str, ...], found: dict[str, tuple[str, ...]]) -> bool:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict):
        return True
    for name, inner in properties.items():
        if not isinstance(inner, dict):
            continue
        header = inner.get("x-mcp-header")
        if header is not None:
            if not isinstance(header, str) or not TOKEN.fullmatch(header) or inner.get("type") not in _TYPES:
                return False
            key = PARAM_PREFIX + header.lower()
            if key in found:
                return False
            found[key] = (*path, name)
        elif len(path) < MAX_NESTING and not _collect(inner, (*path, name), found):
            return False
    return True


def compare_params(call: Call, mirrors: Mirrors) -> None:
    """Raises Refused when a declared mirror is missing, or says something else than its argument."""
    for header, path in mirrors.items():
        value = _at(call.arguments, path)
        text = call.headers.get(header)
        if value is None:
            if text is not None:
                raise _mismatch("is present although its argument is not")
            continue
        if text is None:
            raise _mismatch("is missing")
        if not _says(decode_value(text), value):
            raise _mismatch("and its argument differ")


def _at(arguments: Mapping[str, object], path: tuple[str, ...]) -> object:
    value: object = arguments
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def _says(text: str | None, value: object) -> bool:
    if text is None:
        return False
    if isinstance(value, bool):
        return text == ("true" if value else "false")
    if isinstance(value, int | float):
        # 42 and 42.0 are one integer to the specification.
        number = _INTEGER.fullmatch(text)
        return number is not None and int(number.group(1)) == value
    if isinstance(value, str):
        return text == value
    return True  # not a type that can be mirrored: the server's schema has the word


def _mismatch(what: str) -> Refused:
    # Which one is left out: header names are the server's, but values and paths are the caller's.
    return Refused(Reason.HEADER_MISMATCH, f"A header Mcp-Param-* {what}; list the tools again.")
