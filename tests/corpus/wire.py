"""What did a peer say, taken strictly? Bytes → HTTP/1.1 messages, for the runner's client and fake upstream.

Deliberately its own parser: what a hostile request does to a parser is the question, so none of the sidecar's
libraries may be the one that answers it. Source: RFC 9112.
"""

import json
import re
from typing import Any

from msgspec import Struct

Fields = tuple[tuple[bytes, bytes], ...]

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2}) ?([^\r\n]*)")
_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([^\x00-\x20\x7f]+) HTTP/1\.1")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})(?:;[^\r\n]*)?")


class WireError(Exception):
    """The bytes are not the HTTP/1.1 a strict reader accepts."""


class Message(Struct, frozen=True, kw_only=True):
    """One request or answer, with the bytes it was made of."""

    start: bytes
    """The request line or status line."""
    fields: Fields
    """In wire order, repeated names included; values without outer blanks."""
    body: bytes
    trailers: Fields = ()
    raw: bytes
    complete: bool = True
    """False: the peer closed before the promised length."""

    def values(self, name: str) -> tuple[bytes, ...]:
        """Every value of a header, names compared without case."""
        wanted = name.lower().encode("latin-1")
        return tuple(value for field, value in self.fields if field.lower() == wanted)

    @property
    def status(self) -> int:
        """Status code of an answer, 0 for a request."""
        match = _STATUS_LINE.fullmatch(self.start)
        return int(match[1]) if match else 0

    @property
    def method(self) -> str:
        """Method of a request."""
        return self.start.split(b" ", 1)[0].decode("latin-1")

    @property
    def target(self) -> str:
        """Request target of a request."""
        return self.start.split(b" ", 2)[1].decode("latin-1")

    @property
    def json(self) -> Any:
        """The body as JSON, the last event's data where it is an event stream; None when it is neither."""
        text = self.body
        if self.values("content-type")[:1] and self.values("content-type")[0].startswith(
            b"text/event-stream"
        ):
            events = re.findall(rb"(?m)^data:[ ]?(.*?)\r?$", text)
            text = events[-1] if events else b""
        try:
            return json.loads(text)
        except ValueError:
            return None


class _Ended(Exception):
    """More bytes are needed."""


def read_head(data: bytes, *, answers: bool) -> tuple[bytes, Fields, int] | None:
    """Start line, fields and length of the head at the front of `data`; None while it is not complete.

    Raises WireError for anything but CRLF lines, a proper start line, token names and clean values.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    start, *lines = data[:end].split(b"\r\n")
    if not (_STATUS_LINE if answers else _REQUEST_LINE).fullmatch(start):
        raise WireError(f"start line {start[:60]!r}")
    return start, tuple(_field(line) for line in lines), end + 4


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if not colon or not _TOKEN.fullmatch(name):
        raise WireError(f"header line {line[:60]!r}")
    if re.search(rb"[\x00\r\n]", value):
        raise WireError(f"value of {name.decode()} holds a control character")
    return name, value.strip(b" \t")


def announced_bytes(data: bytes | bytearray) -> int:
    """How long the answer at the front of `data` will be as its Content-Length says; 0 where nothing says so."""
    end = data.find(b"\r\n\r\n")
    match = (
        re.search(rb"(?i)\r\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*\r\n", data[: end + 2])
        if end >= 0
        else None
    )
    return 0 if match is None else end + 4 + int(match[1])


def read_message(
    data: bytes, *, answers: bool, closed: bool = False, bodiless: bool = False
) -> Message | None:
    """The message at the front of `data`; None while it is not complete.

    With `closed` no more bytes will come: what is there is returned with `complete` as it is, None if the
    head is cut. `bodiless` is for the answer to HEAD or CONNECT. Raises WireError.
    """
    head = read_head(data, answers=answers)
    if head is None:
        return None
    start, fields, at = head
    names = [name.lower() for name, _ in fields]
    lengths = {value for name, value in fields if name.lower() == b"content-length"}
    chunked = b"transfer-encoding" in names
    if chunked and lengths:
        raise WireError("both Content-Length and Transfer-Encoding")
    status = int(_STATUS_LINE.fullmatch(start)[1]) if answers else 0  # type: ignore[index]  # read_head matched it
    body, complete = b"", True
    trailers: Fields = ()
    try:
        if answers and (bodiless or status < 200 or status in {204, 304}):
            end = at
        elif chunked:
            if [value.lower() for name, value in fields if name.lower() == b"transfer-encoding"] != [
                b"chunked"
            ]:
                raise WireError("a transfer coding other than chunked")
            body, trailers, end = _chunked(data, at)
        elif lengths:
            if len(lengths) > 1 or not re.fullmatch(rb"[0-9]{1,18}", next(iter(lengths))):
                raise WireError(f"Content-Length {sorted(lengths)}")
            end = at + int(next(iter(lengths)))
            if len(data) < end:
                raise _Ended
            body = data[at:end]
        elif answers:
            if not closed:
                return None
            body, end = data[at:], len(data)
        else:
            end = at
    except _Ended:
        if not closed:
            return None
        body, end, complete = data[at:], len(data), False
    return Message(
        start=start, fields=fields, body=body, trailers=trailers, raw=data[:end], complete=complete
    )


def _chunked(data: bytes, at: int) -> tuple[bytes, Fields, int]:
    parts: list[bytes] = []
    while True:
        size_end = data.find(b"\r\n", at)
        if size_end < 0:
            raise _Ended
        match = _CHUNK_SIZE.fullmatch(data[at:size_end])
        if not match:
            raise WireError(f"chunk size {data[at:size_end][:40]!r}")
        size, at = int(match[1], 16), size_end + 2
        if size == 0:
            break
        if len(data) < at + size + 2:
            raise _Ended
        if data[at + size : at + size + 2] != b"\r\n":
            raise WireError("chunk data longer than its size")
        parts.append(data[at : at + size])
        at += size + 2
    if data[at : at + 2] == b"\r\n":
        return b"".join(parts), (), at + 2
    end = data.find(b"\r\n\r\n", at)
    if end < 0:
        raise _Ended
    return b"".join(parts), tuple(_field(line) for line in data[at:end].split(b"\r\n")), end + 4


def read_answers(data: bytes, *, closed: bool, bodiless: bool = False) -> tuple[tuple[Message, ...], bytes]:
    """All answers in what a client received, interim ones included, and the bytes that make none yet."""
    found: list[Message] = []
    while data:
        try:
            message = read_message(data, answers=True, closed=closed, bodiless=bodiless)
        except WireError:
            break
        if message is None:
            break
        found.append(message)
        data = data[len(message.raw) :]
        if message.status == 101:
            break
    return tuple(found), data
