"""How much of a rate is left? A bucket as two numbers: tokens that are missing, and since when. Pure, given `now`.

Missing tokens come back at the rate, so that what is granted in T seconds is at most burst + rate · T. `now` must never
go back: `local.Local` sees to that.
"""

from __future__ import annotations

import math
from typing import ClassVar, Final

from msgspec import Struct

from .demand import Rate

GRAIN: Final = 1e-6
"""Of a token: rounding errors of doubles."""
INSTANT_S: Final = 1e-9
"""Doubles tell moments of a long run no finer; whoever comes back when told is not too early by that."""


class Bucket(Struct, gc=False):
    """The tokens of one holder."""

    places: ClassVar[int] = 1
    """Of the table."""

    measure: Rate
    holder: str
    used: float
    """Tokens that are missing."""
    at: float
    """Since when: seconds."""

    def left(self, now: float, wall: float) -> int:
        """Whole tokens there are at `now`; never less than 0."""
        rate = self.measure
        per_s = rate.per_s
        used = self.used - (now - self.at) * per_s
        self.at = now
        self.used = used if used > 0.0 else 0.0
        left = rate.burst - self.used + GRAIN + per_s * INSTANT_S
        return int(left) if left > 0.0 and per_s else 0

    def wait_s(self, cost: int, wall: float) -> float:
        """How long after the last look there are `cost` tokens; infinite where there never are so many."""
        rate = self.measure
        if not rate.per_s or cost > rate.burst:
            return math.inf
        return max(0.0, (self.used + cost - rate.burst) / rate.per_s)

    def is_idle(self, now: float, wall: float) -> bool:
        """Whether it is full, and says no more than one that does not exist."""
        return self.used <= (now - self.at) * self.measure.per_s

    def copied(self, holder: str) -> Bucket:
        return Bucket(self.measure, holder, self.used, self.at)
