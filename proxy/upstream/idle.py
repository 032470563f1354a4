"""Which connection is used next? A machine that keeps those between two requests. Pure.

In: connections and the time. Out: the one that was used last, and those that were kept long enough. Keeps them in the
order in which they came: whoever is used seldom is found at the beginning, and ends.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

One = TypeVar("One")


class Idle(Generic[One]):
    """At most `most` of them, each for `keep_s` seconds."""

    __slots__ = ("_keep_s", "_kept", "_most")

    def __init__(self, keep_s: float, most: int) -> None:
        self._keep_s = keep_s
        self._most = most
        self._kept: deque[tuple[One, float]] = deque()

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, one: One, now: float) -> One | None:
        """Keep it from now on. Returns one that there is no room for any more: the one that waited longest."""
        self._kept.append((one, now + self._keep_s))
        return self._kept.popleft()[0] if len(self._kept) > self._most else None

    def take(self, now: float) -> One | None:
        """The one that was used last; None when there is none, or none of them is fresh."""
        if not self._kept or self._kept[-1][1] <= now:
            return None
        return self._kept.pop()[0]

    def ended(self, now: float) -> list[One]:
        """Those that were kept long enough, and no more."""
        over = []
        while self._kept and self._kept[0][1] <= now:
            over.append(self._kept.popleft()[0])
        return over

    def first_end(self) -> float | None:
        """When the next one will have been kept long enough; None when there is none."""
        return self._kept[0][1] if self._kept else None
