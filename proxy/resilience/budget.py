"""How many attempts may be repeated? Pure: no clock.

In: calls, and repeated attempts with the time. Out: whether one more may be repeated. Keeps what was repeated more
than earned, and its lows of the last ten seconds; bounded, because whoever may not repeat changes nothing.

In every window of ten seconds, wherever it begins, what is repeated is at most `ratio` of the calls in it and ten
times `min_per_s`. A sum goes up by one with each repeated attempt and down by `ratio` with each call: what a window
that ends now has too much is the sum less what it was when the window began, so only the lowest beginning counts: that
is just before an attempt is repeated, or now, because calls only lower the sum. So a call costs one subtraction.
Calls before a window earn nothing in it: a burst of calls that is over must not pay for a storm of repeats.
"""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW_S: Final = 10.0
GRAIN: Final = 1e-6
"""Of an attempt: rounding errors of doubles."""


class Budget:
    """What may be repeated, of all calls of a process."""

    def __init__(self, *, ratio: float, min_per_s: float) -> None:
        self._ratio = ratio
        self._most = min_per_s * WINDOW_S + GRAIN
        self._sum = 0.0
        self._lows: deque[tuple[float, float]] = deque()
        """When a window may have begun, and the sum then: the lowest first, each later one higher."""

    @property
    def kept(self) -> int:
        """Entries."""
        return len(self._lows)

    def called(self) -> None:
        """A call is sent for the first time."""
        self._sum -= self._ratio

    def may_repeat(self, now: float) -> bool:
        """Whether one more attempt may be repeated now. `now` never goes back."""
        self._begin_window(now)
        return self._sum + 1 - self._lows[0][1] <= self._most

    def repeat(self, now: float) -> bool:
        """The same, and it is."""
        may = self.may_repeat(now)
        if may:
            self._sum += 1
        return may

    def _begin_window(self, now: float) -> None:
        lows, low = self._lows, self._sum
        while lows and lows[-1][1] >= low:
            lows.pop()
        if lows:
            oldest = now - WINDOW_S
            while lows and lows[0][0] < oldest:
                lows.popleft()
        lows.append((now, low))
