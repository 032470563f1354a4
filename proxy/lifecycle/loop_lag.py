"""How late is the loop? Every call waits that long for nothing.

In: how late a timer was. Out: numbers for the metric `loop_lag_seconds`, and when to tell that the loop was blocked.
Keeps counts, the most, and the last minute; all of it bounded. One timer measures, and what blocks the loop before it
is due is not seen: the most is up to `EVERY_S` less than it was, quantiles are those of calls that come at any moment.
"""

from __future__ import annotations

import asyncio
import math
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from msgspec import Struct

EVERY_S: Final = 0.1
"""Between two looks: 0.2 % of a core, all of it for waking up."""
BLOCKED_S: Final = 0.1
"""From here on it is told: the most that the caps of the settings are to allow."""
TELL_EVERY_S: Final = 10.0
"""Between two lines about it."""
REMEMBERED: Final = 600
"""Looks: the last minute."""
BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Of the buckets of the metric; one more is beyond the last."""


class Blocked(Struct, frozen=True, kw_only=True):
    """What there is to tell."""

    lag_s: float
    """The longest since it was told last."""
    cpu_s: float
    """How much of that this thread computed; for the rest the machine let others run, or a quota was used up."""
    times: int
    """How often it was blocked since then."""


class LoopLag:
    """Pure but for `run`: it is told how late the loop was."""

    def __init__(self) -> None:
        self.max_s = 0.0
        """The most since the start."""
        self.max_cpu_s = 0.0
        """The most since the start that the loop was late because this thread computed."""
        self.sum_s = 0.0
        self.counts = [0] * (len(BOUNDS_S) + 1)
        """Looks since the start, by `BOUNDS_S`: each in the first bucket whose bound is not below it."""
        self._recent: deque[float] = deque(maxlen=REMEMBERED)
        self._next_s = float("-inf")
        self._untold_s = self._untold_cpu_s = 0.0
        self._untold = 0

    def heard(self, lag_s: float, now: float, cpu_s: float = 0.0) -> Blocked | None:
        """The loop was so late, at `now` (seconds, monotonic), and its thread has computed for `cpu_s` since the look
        before. Returns what should be told now."""
        lag_s = max(0.0, lag_s)
        cpu_s = min(lag_s, cpu_s)
        self.max_s = max(self.max_s, lag_s)
        self.max_cpu_s = max(self.max_cpu_s, cpu_s)
        self.sum_s += lag_s
        self.counts[bisect_left(BOUNDS_S, lag_s)] += 1
        self._recent.append(lag_s)
        if lag_s > BLOCKED_S:
            self._untold += 1
            if lag_s > self._untold_s:
                self._untold_s, self._untold_cpu_s = lag_s, cpu_s
        if not self._untold or now < self._next_s:
            return None
        blocked = Blocked(lag_s=self._untold_s, cpu_s=self._untold_cpu_s, times=self._untold)
        self._next_s, self._untold_s, self._untold = now + TELL_EVERY_S, 0.0, 0
        return blocked

    def quantile(self, share: float) -> float:
        """The lag that so large a share of the last minute's looks did not exceed; 0.0 before the first."""
        ordered = sorted(self._recent)
        return ordered[max(0, math.ceil(len(ordered) * share) - 1)] if ordered else 0.0

    async def run(
        self,
        tell: Callable[[Blocked], None],
        beat: Callable[[], None] = lambda: None,
        *,
        now: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.thread_time,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """Measure until cancelled. `beat` hears each time that the loop turns."""
        while True:
            began, used_s = now(), cpu()
            await sleep(EVERY_S)
            ended = now()
            beat()
            blocked = self.heard(ended - began - EVERY_S, ended, cpu() - used_s)
            if blocked is not None:
                tell(blocked)
