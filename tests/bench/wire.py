"""How much of HTTP the benchmark reads: where an answer of known length ends. Bytes in, a place out; no IO."""

from __future__ import annotations

from typing import Final

_END_OF_HEAD: Final = b"\r\n\r\n"
_LENGTH: Final = b"\r\ncontent-length:"


def head_end(buffer: bytes) -> int:
    """Where the body begins, or -1 while the head is not whole."""
    at = buffer.find(_END_OF_HEAD)
    return at if at < 0 else at + len(_END_OF_HEAD)


def body_length(head: bytes) -> int:
    """The announced length of the body, 0 where none is announced."""
    lower = head.lower()
    at = lower.find(_LENGTH)
    if at < 0:
        return 0
    at += len(_LENGTH)
    return int(lower[at : lower.index(b"\r\n", at)])
