"""Is the server left alone, and when is it tried again? Pure: given `now`.

In: what attempts said of the server. Out: a ticket for the next attempt, or none and how long to wait. Keeps how many
attempts failed in a row, how many of late, and whether one is under way that tries the server again.

Closed: everything passes; after some failures in a row, or too many of enough attempts within the window, it opens.
Open: nothing passes for a while, each time twice as long as the time before. Half open: one call at a time is let
through, and what becomes of it decides. What was sent before the breaker opened or closed says nothing afterwards:
calls that hung through an outage end long after it, and would begin it anew.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterator
from enum import Enum
from typing import Final

from .signals import Signal

SLICES: Final = 10
"""Of a window: attempts are forgotten a tenth of it at a time."""
ALIVE_S: Final = 1.0
"""An answer that has been coming for so long tells enough: streams may last for hours, and everybody else waits."""
PROBED_S: Final = 1.0
"""When to come back while one call tries the server."""


class State(Enum):
    """The states of the literature."""

    CLOSED = "closed"
    HALF_OPEN = "half_open"
    OPEN = "open"


_CLOSED: Final = State.CLOSED
_GOOD: Final = Signal.GOOD


class Breaker:
    """One server, or one part of it."""

    __slots__ = (
        "_alive_since",
        "_eras",
        "_failed_in_a_row",
        "_failure_ratio",
        "_failures",
        "_is_early",
        "_is_probed",
        "_length_s",
        "_max_open_s",
        "_min_calls",
        "_open_s",
        "_ticket",
        "_until",
        "_window",
        "opened",
        "state",
    )

    def __init__(
        self,
        *,
        failures: int | None,
        failure_ratio: float,
        min_calls: int,
        window_s: float,
        open_s: float,
        max_open_s: float,
        tickets: Iterator[int] | None = None,
    ) -> None:
        """`failures` in a row open it, None: however many do not; so does `failure_ratio` of at least `min_calls`
        attempts within `window_s`. `tickets` never repeat."""
        self._failures = math.inf if failures is None else failures
        self._failure_ratio = failure_ratio
        self._min_calls = min_calls
        self._open_s = open_s
        self._max_open_s = max_open_s
        self._eras = itertools.count(1) if tickets is None else tickets
        self._window = _Window(window_s)
        self._failed_in_a_row = 0
        self._length_s = 0.0
        """How long it is open, or was when it last was; 0 when that was before it last closed."""
        self._until = 0.0
        self._is_early = False
        """It is tried before its time."""
        self._is_probed = False
        self._alive_since: float | None = None
        """When the answer to the call that tries the server began."""
        self._ticket = next(self._eras)
        self.state = State.CLOSED
        """Open until somebody asks, also when its time is over."""
        self.opened = 0
        """How often it has opened, from closed or half open."""

    def admit(self, now: float) -> int | None:
        """A ticket for one attempt, to be handed back to `heard` once; None where there is to be none."""
        if self.state is _CLOSED:
            return self._ticket
        if self.state is State.OPEN:
            if now < self._until:
                return None
            self.state = State.HALF_OPEN
        if self._is_probed:
            if self._alive_since is None or now - self._alive_since < ALIVE_S:
                return None
            self._close()
            return self._ticket
        self._is_probed = True
        self._alive_since = None
        self._ticket = next(self._eras)
        return self._ticket

    def wait_s(self, now: float) -> float:
        """How long until it is worth asking again."""
        if self.state is State.OPEN:
            return max(0.0, self._until - now)
        return PROBED_S if self._is_probed else 0.0

    def heard(self, ticket: int, signal: Signal, now: float) -> None:
        """What became of an attempt. Of a silent one nothing is known, and another may try. While it is open nothing
        is heard, and who tries it has a ticket of its own."""
        if ticket != self._ticket:
            return
        if self.state is _CLOSED:
            self._count(signal, now)
        elif self._is_probed:
            self._is_probed = False
            if signal is Signal.GOOD:
                self._close()
            elif signal is Signal.BAD:
                self._open(now)

    def begun(self, ticket: int, now: float) -> None:
        """The answer to an attempt has begun to arrive."""
        if ticket == self._ticket and self._is_probed:
            self._alive_since = now

    def sign_of_life(self) -> None:
        """It is there again, as was found out otherwise: the next call tries it. If it fails, the time before the next
        one is not longer than it was."""
        if self.state is State.OPEN:
            self._until = -math.inf
            self._is_early = True

    def close(self) -> None:
        """Somebody knows better: everything passes."""
        if self.state is not State.CLOSED:
            self._close()

    def _count(self, signal: Signal, now: float) -> None:
        if signal is _GOOD:
            self._window.add(False, now)
            self._failed_in_a_row = 0
        elif signal is Signal.BAD:
            self._window.add(True, now)
            self._failed_in_a_row += 1
            if self._failed_in_a_row >= self._failures or self._is_too_much():
                self._open(now)

    def _is_too_much(self) -> bool:
        window = self._window
        return window.calls >= self._min_calls and window.failed >= self._failure_ratio * window.calls

    def _open(self, now: float) -> None:
        longer_s = self._length_s if self._is_early else 2 * self._length_s
        self._length_s = min(max(longer_s, self._open_s), self._max_open_s)
        self._until = now + self._length_s
        self._is_early = False
        self.state = State.OPEN
        self.opened += 1

    def _close(self) -> None:
        self._window.clear()
        self._failed_in_a_row = 0
        self._length_s = 0.0
        self._is_probed = False
        self._ticket = next(self._eras)
        self.state = State.CLOSED


class _Window:
    """How many attempts there were of late, and how many failed."""

    __slots__ = ("_slice_s", "_slices", "calls", "failed")

    def __init__(self, window_s: float) -> None:
        self._slice_s = window_s / SLICES
        self._slices: deque[list[int]] = deque()
        """Number, attempts, failures."""
        self.calls = 0
        self.failed = 0

    def add(self, failed: bool, now: float) -> None:
        number = math.floor(now / self._slice_s)
        slices = self._slices
        if not slices or slices[-1][0] < number:
            while slices and slices[0][0] <= number - SLICES:
                _, calls, failures = slices.popleft()
                self.calls -= calls
                self.failed -= failures
            slices.append([number, 0, 0])
        newest = slices[-1]
        newest[1] += 1
        self.calls += 1
        if failed:
            newest[2] += 1
            self.failed += 1

    def clear(self) -> None:
        self._slices.clear()
        self.calls = self.failed = 0
