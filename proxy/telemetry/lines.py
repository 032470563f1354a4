"""How does a line look? Fields and texts → bytes that stay one line, in a log viewer and in a terminal.

What strangers chose (names of tools, of methods, of callers) is bounded, whole Unicode, and without secrets. What a
viewer would break a line at, a terminal would obey, or what turns text around is escaped: controls (C0, DEL, C1),
U+2028, U+2029 and marks of direction. Keeps encoded texts, because the same few come with every call.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from typing import Final, TypeVar

import msgspec
from msgspec import Raw

from .redaction import Redactor

LONGEST_TEXT: Final = 256
"""Characters of one that a stranger may have chosen."""
LONGEST_LOOKED_THROUGH: Final = 4_096
"""Characters in which secrets are looked for, before the rest is cut off."""
MOST_REMEMBERED: Final = 1_024
_CUT: Final = "…"
_Key = TypeVar("_Key", bound=Hashable)
_Text = TypeVar("_Text")
_SURROGATES: Final = re.compile("[\ud800-\udfff]")
_OBEYED: Final = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_PLAIN: Final = re.compile(r"[\w./:@+,;%~()\[\]-]+", re.ASCII)


class Words:
    """Texts → what stands in a line for them, encoded."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self.known: dict[str, Raw] = {}
        """To be cleared when there is another secret."""

    def __call__(self, text: str) -> Raw:
        known = self.known.get(text)
        if known is not None:
            return known
        cut = whole(self._redactor.text(text[:LONGEST_LOOKED_THROUGH]))
        encoded = Raw(harmless(msgspec.json.encode(short(cut))))
        return remembered(self.known, text, encoded, len(text), longest=LONGEST_TEXT, most=MOST_REMEMBERED)


def remembered(
    known: dict[_Key, _Text], key: _Key, text: _Text, size: int, *, longest: int, most: int
) -> _Text:
    """The text, which `known` has from now on where it is not too long."""
    if size <= longest:
        if len(known) >= most:
            known.clear()  # somebody makes names up
        known[key] = text
    return text


def short(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + _CUT


def whole(text: str) -> str:
    """Without halves of characters, which no strict reader of a line would take."""
    return _SURROGATES.sub("\ufffd", text)


def harmless(encoded: bytes) -> bytes:
    """JSON as it is, but what viewers and terminals obey escaped."""
    if encoded.isascii() and b"\x7f" not in encoded:
        return encoded
    return _OBEYED.sub(lambda match: f"\\u{ord(match[0]):04x}", encoded.decode()).encode()


def as_json(line: Mapping[str, object]) -> bytes:
    """Of values as JSON has them, and others by the name of their type."""
    try:
        encoded = _ENCODER.encode(line)
    except UnicodeEncodeError:
        encoded = _ENCODER.encode(_whole(line))
    return harmless(encoded)


def as_text(line: Mapping[str, object]) -> bytes:
    """For people: when, how bad, what, and the rest as words."""
    rest = dict(line)
    time, level, msg = (str(rest.pop(name)) for name in ("time", "level", "msg"))
    words = [f"{name}={_shown(each)}" for name, each in rest.items()]
    text = "  ".join([f"{time[:19].replace('T', ' ')}Z {level.upper():7} {msg}", *words])
    return harmless(text.encode("utf-8", "replace"))


def _shown(value: object) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return value
    return as_json({"": value})[4:-1].decode()


def _whole(value: object) -> object:
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, Mapping):
        return {whole(str(name)): _whole(each) for name, each in value.items()}
    return [_whole(each) for each in value] if isinstance(value, list | tuple) else value


def _named(value: object) -> str:
    return type(value).__name__


_ENCODER: Final = msgspec.json.Encoder(enc_hook=_named)
