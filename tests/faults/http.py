"""As much of HTTP as the laboratory reads: where does a message end? Bytes in, a place out; no IO."""

from __future__ import annotations

from typing import Final

_END: Final = b"\r\n\r\n"
_LAST_CHUNK: Final = b"0\r\n\r\n"


def head_end(buffer: bytes | bytearray) -> int:
    """Where the body begins, or -1 while the head is not whole."""
    at = buffer.find(_END)
    return at if at < 0 else at + len(_END)


def field(head: bytes, name: str) -> str | None:
    """The first value of a field."""
    at = head.lower().find(b"\r\n" + name.encode() + b":")
    if at < 0:
        return None
    start = at + len(name) + 3
    return head[start : head.index(b"\r\n", start)].strip().decode("latin-1")


def whole_length(buffer: bytes | bytearray) -> int | None:
    """The length of the first message, or None while it is not whole.

    Good for what laboratory and sidecar write: a length, or chunks without trailers. An answer without either is
    whole when its connection ends, which is not seen here.
    """
    start = head_end(buffer)
    if start < 0:
        return None
    head = bytes(buffer[:start])
    if (field(head, "transfer-encoding") or "") == "chunked":
        return chunked_end(buffer, start)
    length = field(head, "content-length")
    if length is None:
        is_request = not head.startswith(b"HTTP/")
        bodiless = is_request or head[9:12] in (b"204", b"304")
        return start if bodiless else None
    if not length.isdecimal():
        return None
    end = start + int(length)
    return end if len(buffer) >= end else None


def chunked_end(buffer: bytes | bytearray, start: int) -> int | None:
    """Where a chunked body ends that begins at `start`."""
    while (line := buffer.find(b"\r\n", start)) >= 0:
        try:
            size = int(bytes(buffer[start:line]), 16)
        except ValueError:
            return None
        start = line + 2 + size + 2
        if len(buffer) < start:
            return None
        if not size:
            return start
    return None


def dechunked(body: bytes) -> bytes:
    """The bytes of the whole chunks of a body."""
    got, start = b"", 0
    while (line := body.find(b"\r\n", start)) >= 0:
        try:
            size = int(body[start:line], 16)
        except ValueError:
            return got
        if not size or len(body) < line + 2 + size:
            return got + body[line + 2 : line + 2 + size]
        got += body[line + 2 : line + 2 + size]
        start = line + 2 + size + 2
    return got
