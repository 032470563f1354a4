"""Which texts does a JSON message hold, and where do they stand? For replacing a part of one where the rest stays.

In: the bytes of a JSON text. Out: what its strings say, and where in the bytes each part of that was written. Keeps
nothing. Works on bytes as they are: what makes a message long costs a pass in C, not a step of Python.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Final, NamedTuple

from .redaction_patterns import Span

_ESCAPE: Final = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\.", re.DOTALL
)

# Possessive, so that a long string costs no stack.
_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_MEMBER: Final = re.compile(rb"(%b)(?:\s*+:\s*+(%b)|(\s*+:))?+" % (_STRING, _STRING), re.DOTALL)
_RUNS: Final = tuple(
    re.compile(rb'(?:[^"]*+%b(?:\s*+:(?:\s*+%b)?+)?+){1,%d}+' % (_STRING, _STRING, most), re.DOTALL)
    for most in (64, 8)
)


def decoded(raw: bytes) -> bytes:
    """`raw` in UTF-8 with the escapes of its strings decoded: each of them stands in it, between its quotes. Lone
    surrogates become U+FFFD; what is no JSON stays as it is."""
    if b"\\" not in raw:
        return raw
    text = raw
    if b"\\/" in text:
        # The one escape of JSON that Python does not know. Two backslashes and a slash are not it.
        text = text.replace(b"\\\\", rb"\x5c").replace(b"\\/", b"/")
    try:
        # Python's decoder takes one pass in C. It reads bytes as Latin-1, and so they come out again.
        if b"\\u" not in text:
            return text.decode("unicode_escape").encode("latin-1")
        if not text.isascii():
            text = text.decode("utf-8").encode("ascii", "backslashreplace")
        return utf8(text.decode("unicode_escape"))
    except (UnicodeError, DeprecationWarning):  # the latter where warnings are errors
        return raw


def utf8(text: str) -> bytes:
    """Halves of characters are joined, or become U+FFFD."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


@lru_cache(maxsize=1024)
def _size(escape: bytes) -> int:
    return len(decoded(escape))


class Places:
    """Where the parts of one decoded string were written."""

    def __init__(self, raw: bytes) -> None:
        """`raw`: the string without its quotes."""
        # Pairs of beginnings: of a stretch without escapes, then of the escape behind it.
        self._meant = [0]
        self._written = [0]
        size = at = 0
        for match in _ESCAPE.finditer(raw):
            size += match.start() - at
            at = match.end()
            self._meant.append(size)
            self._written.append(match.start())
            size += _size(match.group())
            self._meant.append(size)
            self._written.append(at)

    def __call__(self, offset: int) -> int:
        """The offset in the raw string of an offset in the decoded one, which does not part a character."""
        nearest = bisect_right(self._meant, offset) - 1
        return self._written[nearest] + offset - self._meant[nearest]


class Member(NamedTuple):
    """One string that stands alone, or the name of a member, or both name and string. Spans are without quotes."""

    key: Span | None
    value: Span | None


def members(raw: bytes, may_matter: Callable[[bytes], bool]) -> Iterator[Member]:
    """The strings of a well-formed JSON text that matters, in order, but for stretches of it that do not."""
    for begin, end in _stretches(raw, may_matter):
        for match in _MEMBER.finditer(raw, begin, end):
            first = match.start(1) + 1, match.end(1) - 1
            if match.group(2) is not None:
                yield Member(first, (match.start(2) + 1, match.end(2) - 1))
            elif match.group(3) is not None:
                yield Member(first, None)
            else:
                yield Member(None, first)


def _stretches(raw: bytes, may_matter: Callable[[bytes], bool]) -> Iterator[Span]:
    """Stretches of a few strings, where one of them may matter: to ask for each of them would cost 3 us a string."""
    many, few = _RUNS
    last = raw.rfind(b'"')
    for outer in many.finditer(raw):
        is_all = outer.start() == 0 and outer.end() > last
        if not is_all and not may_matter(decoded(outer.group())):
            continue
        for inner in few.finditer(raw, outer.start(), outer.end()):
            if inner.span() == outer.span() or may_matter(decoded(inner.group())):
                yield inner.span()
