"""Was this heard? The last so many things, eight bytes each.

In: digests. Out: whether one is among them. Keeps nothing of what they stand for, because servers choose how long
that is. Pure.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

from ..model import RequestId

BYTES: Final = 8


class Digester:
    """Keyed by chance, so that nobody can look for two things with one digest."""

    __slots__ = ("_secret",)

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(16)

    def of_bytes(self, text: bytes) -> bytes:
        return hashlib.blake2b(text, digest_size=BYTES, key=self._secret).digest()

    def of_id(self, id: RequestId) -> bytes:
        """With its type, because 1 and "1" are two ids."""
        if isinstance(id, str):
            return self.of_bytes(b"s" + id.encode("utf-8", "surrogatepass"))
        # Not its decimals: Python writes none for a number of 5,000 of them, and a server may choose one.
        return self.of_bytes(b"i" + id.to_bytes(id.bit_length() // 8 + 1, "little", signed=True))


class Digests:
    """The last `most` digests, oldest first."""

    __slots__ = ("_kept", "_most_bytes")

    def __init__(self, most: int) -> None:
        self._kept = bytearray()
        self._most_bytes = most * BYTES

    def add(self, digests: bytes) -> None:
        """One, or several one after the other."""
        self._kept += digests
        excess = len(self._kept) - self._most_bytes
        if excess > 0:
            del self._kept[:excess]

    def last(self, count: int) -> bytes:
        """The last ones, one after the other."""
        return bytes(self._kept[-count * BYTES :])

    def __contains__(self, digest: bytes) -> bool:
        # A search in C; what is found across two neighbours is none of them.
        at = self._kept.find(digest)
        while at >= 0 and at % BYTES:
            at = self._kept.find(digest, at + 1)
        return at >= 0

    @property
    def size_bytes(self) -> int:
        return len(self._kept)
