"""Is this a whole HTTP message whose head was read before? Heads that differ in the digits of Content-Length alone
count as one: bodies are seldom of one length. Pure.

In: a head that a parser has read, and bytes that came. Out: what is known of them. Keeps nothing. Whatever is unusual
(a sign, a leading zero, blanks behind the number, a body that is not whole) is a case for the parser. Source: RFC 9112
sections 2.1 and 6.2.
"""

from __future__ import annotations

import re
from typing import Final, Self

from msgspec import Struct

MOST_DIGITS: Final = 7
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([1-9][0-9]*)\r\n", re.IGNORECASE)


class KnownHead(Struct, frozen=True, kw_only=True, eq=False):
    """A head that may come again."""

    head: bytes = b""
    """Its bytes; empty where they do not tell how many bytes the whole message has."""
    whole_bytes: int = -1
    """Of head and body; of no message where the head is empty."""
    length_begin: int = 0
    length_end: int = 0
    """Where the digits of Content-Length stand in the head; 0 where only this length is known."""

    def said_by(self, data: bytes) -> Self | None:
        """What is known of `data`; None where it is no whole message with this head."""
        if len(data) == self.whole_bytes and data.startswith(self.head):
            return self
        found = _of_other_length(self.head, self.length_begin, self.length_end, data)
        return None if found is None else self.of_length(*found)

    def of_length(self, digits: bytes, head: bytes) -> Self | None:
        """The same for a body of another length, whose head is `head`. None: somebody must think about that."""
        return None


def digits_in(head: bytes) -> tuple[int, int]:
    """Where the digits of Content-Length begin and end; (0, 0) where they may not differ. `head` says it once."""
    found = _LENGTH.search(head)
    return (0, 0) if found is None else found.span(1)


def _of_other_length(head: bytes, begin: int, end: int, data: bytes) -> tuple[bytes, bytes] | None:
    """The digits and the head of the message that `data` is; None where it is not whole, or has another head than
    `head`, but for the digits between `begin` and `end`."""
    if not begin or data[:begin] != head[:begin]:
        return None
    stop = data.find(b"\r", begin, begin + MOST_DIGITS + 1)
    digits = data[begin:stop]
    if stop < 0 or not digits.isdigit() or digits.startswith(b"0"):
        return None
    rest = head[end:]
    head_bytes = stop + len(rest)
    if not data.startswith(rest, stop) or len(data) != head_bytes + int(digits):
        return None
    return digits, data[:head_bytes]
