"""Whose signature was checked a moment ago? SHA-256 of a token → `Principal`.

In: the digest of the whole token. Out: who was proven by it. Keeps a bounded number of principals, each for at
most `LONGEST_S`, never beyond what proved them. A key made of a part of a token, or of a shorter hash, would let
one token pass for another.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from ..model import Principal

MOST: Final = 10_000
"""About 10 MB when full of different people."""
MOST_NAMES: Final = 100_000
"""Roles and scopes of all of them; about 12 MB. A token of 16 KB may hold 2,000, and some issuers grant whatever is
asked for: ten thousand of those would be 2.4 GB."""
LONGEST_S: Final = 60.0
"""How long a token that was good is not looked at again. Keys that are withdrawn empty the table at once."""


class Verified:
    """Principals by the digest of their token."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        # Ordered, because the first entry of a plain dict is found by searching where the older ones were.
        self._entries: OrderedDict[bytes, tuple[Principal, float]] = OrderedDict()
        self._names = 0

    def get(self, digest: bytes, now: float) -> Principal | None:
        """Who was proven by the token with this digest."""
        entry = self._entries.get(digest)
        if entry is None:
            return None
        principal, until = entry
        if now < until:
            return principal
        self._drop(digest)
        return None

    def put(self, digest: bytes, principal: Principal, now: float, until: float) -> None:
        """Remember the principal until then, for `LONGEST_S` at most. The oldest makes room."""
        until = min(until, now + LONGEST_S)
        if until <= now:
            return
        if digest in self._entries:
            self._drop(digest)
        self._entries[digest] = principal, until
        self._names += _names_of(principal)
        while len(self._entries) > self._most or self._names > MOST_NAMES:
            self._drop(next(iter(self._entries)))

    def clear(self) -> None:
        """Forget everybody: what they were proven by is gone."""
        self._entries.clear()
        self._names = 0

    def _drop(self, digest: bytes) -> None:
        principal, _ = self._entries.pop(digest)
        self._names -= _names_of(principal)

    def __len__(self) -> int:
        return len(self._entries)


def _names_of(principal: Principal) -> int:
    return len(principal.roles) + len(principal.scopes)
