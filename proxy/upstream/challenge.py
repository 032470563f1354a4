"""What does a `WWW-Authenticate` value say, and where exactly? A strict reader that leaves every byte in place.

In: the value, and what to put in place of one parameter. Out: the value with only that changed; the very same one
where it is no list of challenges. Keeps nothing; pure. Source: RFC 9110 sections 5.6 and 11.6.1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from msgspec import Struct

_WORD: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED: Final = r'"(?:[\t \x21\x23-\x5B\x5D-\x7E\x80-\xFF]|\\[\t \x21-\x7E\x80-\xFF])*"'
_END: Final = r"(?=[ \t]*(?:,|\Z))"
_PARAM: Final = re.compile(rf"({_WORD})[ \t]*=[ \t]*({_QUOTED}|{_WORD}){_END}")
_SCHEME: Final = re.compile(rf"{_WORD}(?:{_END}| +(?=[^ \t,]))")
_TOKEN68: Final = re.compile(rf"[A-Za-z0-9\-._~+/]+=*{_END}")
_FIRST: Final = re.compile(r"[ \t,]*")
_NEXT: Final = re.compile(r"[ \t]*(?:,[ \t]*)+|[ \t]*\Z")
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)


class Param(Struct, frozen=True):
    """One parameter of a challenge."""

    name: str
    """In lower case."""
    value: str
    """Without quotes and escapes."""
    start: int
    end: int
    """Where the value stands, its quotes included."""


def params(text: str) -> list[Param] | None:
    """The parameters of all challenges, in order; None where the text is no list of challenges."""
    try:
        return list(_read(text))
    except ValueError:
        return None


def _read(text: str) -> Iterator[Param]:
    at = _skip(_FIRST, text, 0)
    has_scheme = False
    while at < len(text):
        param = _PARAM.match(text, at)
        if param is None:
            # `name=value` and `scheme name=value` begin alike; only what is no parameter begins a challenge.
            at = _skip(_SCHEME, text, at)
            has_scheme = True
            param = _PARAM.match(text, at)
        if param is not None:
            if not has_scheme:
                raise ValueError
            yield Param(param[1].lower(), _unquoted(param[2]), param.start(2), param.end(2))
            at = param.end()
        elif (token68 := _TOKEN68.match(text, at)) is not None:
            at = token68.end()
        at = _skip(_NEXT, text, at)


def _skip(pattern: re.Pattern[str], text: str, at: int) -> int:
    """The place behind the pattern. Raises ValueError where it does not stand."""
    match = pattern.match(text, at)
    if match is None:
        raise ValueError
    return match.end()


def _unquoted(text: str) -> str:
    return _ESCAPED.sub(r"\1", text[1:-1]) if text.startswith('"') else text


def with_param(value: bytes, name: str, change: Callable[[str], str]) -> bytes:
    """The value with every parameter `name` (lower case) changed; `change` returns what may stand in quotes."""
    text = value.decode("latin-1")
    pieces: list[str] = []
    done = 0
    for param in params(text) or ():
        if param.name != name:
            continue
        changed = change(param.value)
        if changed != param.value:
            pieces += text[done : param.start], f'"{changed}"'
            done = param.end
    return ("".join(pieces) + text[done:]).encode("latin-1")
