"""Server-sent events: bytes split into whole events, events written as bytes.

In: chunks as they arrive. Out: `Event`s that keep their own bytes, so that what was judged is what is released.
Keeps the unfinished event, up to a cap. Source: WHATWG HTML, 9.2 "Server-sent events". Lines end in CRLF, LF
or CR and in nothing else: `str.splitlines` would also split at U+0085 and U+2028, and judge other events than
the client sees.
"""

from __future__ import annotations

import re
from typing import Final

from msgspec import Struct

_BOM: Final = b"\xef\xbb\xbf"
_COLON: Final = ord(":")
_LF: Final = ord("\n")
_BLANK_LINES: Final = re.compile(rb"[\r\n]*")
_LINE: Final = re.compile(rb"([^\r\n]*)(\r\n|\r|\n|\Z)")


class TooLong(Exception):
    """An event is beyond the cap."""


class Event(Struct, frozen=True, kw_only=True):
    """One event, or what stands between two of them."""

    raw: bytes
    """Exactly the bytes of the wire, the blank line included."""
    name: str = ""
    """The `event` field; empty means "message"."""
    data: bytes | None = None
    """The `data` lines joined by LF; None when there is none (a comment, a lone `retry`)."""
    id: bytes | None = None
    """The `id` field, also when empty; None when there is none."""


class Splitter:
    """A pure machine: `feed` takes bytes however they were cut, and returns the events they complete."""

    __slots__ = ("_at_start", "_buffer", "_lf", "_line", "_max_bytes", "_scanned", "is_full")

    def __init__(self, max_bytes: int) -> None:
        self._buffer = bytearray()
        self._line = 0  # where the line under way begins
        self._scanned = 0  # no line end before this position, from `_line` on
        self._lf = 0  # no LF before this position, from `_scanned` on
        self._max_bytes = max_bytes
        self._at_start = True
        self.is_full = False
        """An event beyond the cap came behind the events last returned; feeding more raises TooLong."""

    def feed(self, chunk: bytes) -> list[Event]:
        """The events completed by `chunk`. Raises TooLong when the next one exceeds the cap."""
        if self.is_full:
            raise TooLong
        self._buffer += chunk
        events: list[Event] = []
        begin = 0
        while (end := self._line_end()) is not None:
            stop, after = end
            is_comment = begin == self._line and self._buffer[begin] == _COLON
            # A blank line dispatches. A comment between two events is a keep-alive: it waits for nothing.
            if stop == self._line or is_comment:
                if after - begin > self._max_bytes:
                    break
                # Blank lines behind it say nothing: 65,536 events of one byte would block the loop.
                after = _BLANK_LINES.match(self._buffer, after).end()  # type: ignore[union-attr]  # always matches
                events.append(self._event(bytes(self._buffer[begin:after])))
                begin = after
            self._line = self._scanned = after
        if begin:
            del self._buffer[:begin]
            self._line -= begin
            self._scanned -= begin
            self._lf -= begin
        self.is_full = len(self._buffer) > self._max_bytes
        if self.is_full and not events:
            raise TooLong
        return events

    def rest(self) -> Event | None:
        """What is left when the stream has ended: an event without its blank line, or nothing."""
        if not self._buffer:
            return None
        raw = bytes(self._buffer)
        self._buffer.clear()
        self._line = self._scanned = self._lf = 0
        return self._event(raw)

    def _line_end(self) -> tuple[int, int] | None:
        """Where the line under way stops and the next begins; None when that is not known yet."""
        buffer = self._buffer
        lf = self._next_lf()
        cr = buffer.find(b"\r", self._scanned, lf)
        if cr >= 0:
            if cr + 1 == len(buffer):
                if cr != self._line:
                    self._scanned = cr
                    return None
                # A CR on an otherwise empty line completes the event whether or not an LF follows, and
                # waiting for that would hold back a whole event. The LF is released by itself when it comes.
                return cr, cr + 1
            return cr, cr + (2 if buffer[cr + 1] == 0x0A else 1)
        if lf < len(buffer):
            return lf, lf + 1
        self._scanned = len(buffer)
        return None

    def _next_lf(self) -> int:
        """Where the next LF stands, or the end of the buffer; every byte is looked at once."""
        buffer = self._buffer
        lf = max(self._lf, self._scanned)
        if lf < len(buffer) and buffer[lf] != _LF:
            lf = buffer.find(b"\n", lf)
        self._lf = lf if 0 <= lf < len(buffer) else len(buffer)
        return self._lf

    def _event(self, raw: bytes) -> Event:
        text = raw
        if self._at_start:
            self._at_start = False
            text = raw.removeprefix(_BOM)
        name, id = "", None
        lines: list[bytes] = []
        for line in text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"):
            field, colon, value = line.partition(b":")
            if not field:
                continue  # blank, or a comment
            if colon and value[:1] == b" ":
                value = value[1:]
            if field == b"data":
                lines.append(value)
            elif field == b"event":
                name = value.decode("utf-8", "replace")
            elif field == b"id" and b"\0" not in value:
                id = value
        return Event(raw=raw, name=name, data=b"\n".join(lines) if lines else None, id=id)


def message(data: bytes) -> bytes:
    """One `message` event that carries `data`, which holds no line breaks."""
    return b"event: message\ndata: " + data + b"\n\n"


def with_data(event: Event, data: bytes) -> bytes:
    """The bytes of an event that says `data` instead of its own, which it has. Other lines stay as they are, but for
    comments where what it said stands on several lines, or twice: one of them could say it too."""
    old = event.data or b""
    if b"\n" not in old + data and event.raw.count(old) == 1:
        return event.raw.replace(old, data)
    lines = _LINE.findall(event.raw)
    # A mark of order is none but at the very start of a stream: then one line of data fewer is seen without it.
    mark = _BOM if sum(map(_is_data, lines)) <= old.count(b"\n") else b""
    pieces: list[bytes] = []
    is_said = False
    for line, end in lines:
        if not _is_data((line.removeprefix(mark), end)):
            pieces += () if line.startswith(b":") else (line, end)
        elif not is_said:
            is_said = True
            said = (end or b"\n").join(b"data: " + each for each in data.split(b"\n"))
            pieces.append((mark if line.startswith(mark) else b"") + said + end)
    return b"".join(pieces)


def _is_data(line: tuple[bytes, bytes]) -> bool:
    return line[0].partition(b":")[0] == b"data"
