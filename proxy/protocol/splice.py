"""Where does one member of a JSON object stand? For cutting something out of a text whose other bytes stay.

In: the bytes of a well-formed object. Out: a slice of it. Keeps nothing. The text was read strictly before, so each
member comes once, and a scan over strings, brackets, colons and commas is enough.
"""

from __future__ import annotations

import json
import re
from typing import Final

# Possessive, so that a long string costs no stack.
_MARK: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}:,]', re.DOTALL)


def member(text: bytes, name: str) -> slice | None:
    """Where the value of the member `name` stands in an object, blanks around it included; None without one."""
    depth = 0
    key = b""
    begin: int | None = None
    for match in _MARK.finditer(text):
        mark = text[match.start()]
        if mark == 0x22:
            key = match.group()
        elif mark in b"{[":
            depth += 1
        elif depth == 1 and mark == 0x3A:
            # Compared as read: a key may be spelt with escapes.
            begin = match.end() if json.loads(key) == name else None
        elif depth == 1 and begin is not None:
            return slice(begin, match.start())
        elif mark in b"}]":
            depth -= 1
    return None
