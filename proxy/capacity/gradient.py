"""How many places should there be? From how long calls take compared with what is usual. Pure: no clock.

In: how long a call took, of which tool, with how many at once. Out: a number of places between two bounds. Keeps what
is usual for each tool, bounded, and the calls of the current window.

After each window of calls: where they took about as long as usual, and the places were used, there are some more (the
square root of their number); where they took longer than is tolerated, fewer, in proportion, but at least half as
many. Compared is each tool with itself: a slow tool is no slow server. What is usual is learnt while there is room, and
ten times more slowly while there is not: an overload must not become usual, and a server that has changed must. One
that is never at rest for tens of thousands of calls does become usual: the ceiling is what holds then.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final

MAX_TOOLS: Final = 256
"""Whose usual time is known; callers choose names, so the one that was called longest ago goes."""
MEMORY: Final = 1_000
"""Calls of a tool that make what is usual."""
FIRST: Final = 20
"""Calls of a tool that are believed in any case, or nothing would be known of it."""
WORST: Final = 10.0
"""One call counts for at most so many times as long as usual: a single outlier is no overload."""


class Gradient:
    """The places there should be."""

    def __init__(self, *, floor: int, ceiling: int, tolerance: float, window: int) -> None:
        """`window` is in calls, `tolerance` in times as long as usual. Begins half way, on the scale of factors."""
        self._floor = floor
        self._ceiling = ceiling
        self._tolerance = tolerance
        self._window = window
        self._limit = math.sqrt(floor * ceiling)
        self._usual: OrderedDict[str, tuple[float, int]] = OrderedDict()
        """Of each tool: seconds, and of how many calls."""
        self._is_slow = False
        self._begin()

    @property
    def limit(self) -> int:
        """At least the floor, at most the ceiling."""
        return min(max(int(self._limit), self._floor), self._ceiling)

    @property
    def tools(self) -> int:
        """How many tools' usual time is known."""
        return len(self._usual)

    def took(self, tool: str, seconds: float, at_once: int) -> None:
        """A call has its answer. `at_once` are the calls that were under way, this one included."""
        usual_s, calls = self._usual.pop(tool, (seconds, 0))
        times = min(seconds / usual_s, WORST) if usual_s > 0 else 1.0
        calls = min(calls + 1, MEMORY)
        is_at_rest = not self._is_slow and 2 * at_once < self.limit
        part = 1 / calls if is_at_rest or calls <= FIRST else 1 / (10 * calls)
        self._usual[tool] = usual_s + part * (seconds - usual_s), calls
        if len(self._usual) > MAX_TOOLS:
            self._usual.popitem(last=False)
        self._count(times, at_once)

    def broke(self, at_once: int) -> None:
        """The server failed a call: that counts as one that took twice what is tolerated."""
        self._count(2 * self._tolerance, at_once)

    def _begin(self) -> None:
        self._times = 0.0
        self._calls = 0
        self._most = 0

    def _count(self, times: float, at_once: int) -> None:
        self._times += times
        self._calls += 1
        self._most = max(self._most, at_once)
        if self._calls >= self._window:
            self._decide(self._times / self._calls)
            self._begin()

    def _decide(self, times: float) -> None:
        self._is_slow = times > self._tolerance
        if self._is_slow:
            self._limit *= max(0.5, self._tolerance / times)
        elif 2 * self._most >= self.limit:
            # Places that nobody used say nothing of whether there could be more.
            self._limit += math.sqrt(self._limit)
        self._limit = min(max(self._limit, self._floor), self._ceiling)
