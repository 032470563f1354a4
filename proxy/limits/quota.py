"""How much of a quota is left? Counters of calendar windows and of sliding ones. Pure, given the time of the wall.

Clocks on the wall are set. One that goes back a little keeps counting in the window it came from, or a correction at
midnight would give a day twice; one that goes back by more than a window takes the count along, or whoever was told
2100 for a moment would wait until then.
"""

from __future__ import annotations

import math
from array import array
from typing import ClassVar, Final, TypeAlias

from msgspec import Struct

from .demand import Quota

SLICES: Final = 60
"""A sliding window moves in steps of a sixtieth, and units count until their step has left it as a whole: never more
than the quota in any window, at the price of a sixtieth longer."""
ROUNDING_S: Final = 1e-6
"""Doubles tell moments of these years no finer; whoever comes back when told must not be too early."""
SET_BACK_S: Final = 3_600.0
"""A counter that is over is kept so long (a short window: once more), should the clock be set back into it; one that is
empty, too, because it may be that of a window that has just begun."""
_STEPS_HELD: Final = SLICES + 1


class Count(Struct, gc=False):
    """The units that one holder used in a calendar window."""

    places: ClassVar[int] = 1
    """Of the table."""

    measure: Quota
    holder: str
    used: int
    start: float
    end: float

    def left(self, now: float, wall: float) -> int:
        """Units there are at `wall`; never less than 0."""
        if not self.start <= wall < self.end:
            self._turn(wall)
        left = self.measure.units - self.used
        return left if left > 0 else 0

    def wait_s(self, cost: int, wall: float) -> float:
        """How long until there are `cost` units; infinite where there never are so many."""
        return math.inf if cost > self.measure.units else max(0.0, self.end - wall)

    def is_idle(self, now: float, wall: float) -> bool:
        """Whether it says no more than one that does not exist."""
        since = self.end if self.used else self.start
        return wall >= since + min(self.end - self.start, SET_BACK_S)

    def give_back(self, units: int, taken: float) -> None:
        """Units that were taken at `taken` were not used after all."""
        if self.start <= taken < self.end:
            self.used = max(0, self.used - units)

    def copied(self, holder: str) -> Count:
        return Count(self.measure, holder, self.used, self.start, self.end)

    def _turn(self, wall: float) -> None:
        is_over = wall >= self.end
        if is_over or self.start - wall > self.end - self.start:
            self.start, self.end = self.measure.window.at(wall)
            self.used = 0 if is_over else self.used


class Slices(Struct, gc=False):
    """The units that one holder used in a sliding window, by steps of it."""

    places: ClassVar[int] = 5
    """Of the table: sixty steps are larger than two numbers."""

    measure: Quota
    holder: str
    used: int
    """In all. What is more than `steps` say was taken in the step of the last look."""
    steps: array[int]
    """Number of the step, units, number of the next, units, … in order; only steps with units."""
    last: int
    """The step of the last look."""

    @property
    def step_s(self) -> float:
        return self.measure.window.sliding_s / SLICES

    def left(self, now: float, wall: float) -> int:
        """Units there are at `wall`; never less than 0."""
        self.noted()
        current = math.floor(wall / self.step_s)
        if current < self.last - SLICES:
            self._move(current - self.last)
        # A clock that went back a little: what is taken now counts as long as what was taken last.
        self.last = max(current, self.last)
        self._drop(current)
        left = self.measure.units - self.used
        return left if left > 0 else 0

    def wait_s(self, cost: int, wall: float) -> float:
        """How long until there are `cost` units; infinite where there never are so many."""
        if cost > self.measure.units:
            return math.inf
        lacking = self.used + cost - self.measure.units
        steps = self.steps
        for at in range(0, len(steps), 2):
            lacking -= steps[at + 1]
            if lacking <= 0:
                return self._end_of(steps[at]) - wall + ROUNDING_S
        return self._end_of(self.last) - wall + ROUNDING_S

    def is_idle(self, now: float, wall: float) -> bool:
        """Whether it says no more than one that does not exist."""
        since = self._end_of(self.last) if self.used else self.last * self.step_s
        return wall >= since + min(self.measure.window.sliding_s, SET_BACK_S)

    def give_back(self, units: int, taken: float) -> None:
        """Units that were taken at `taken` were not used after all."""
        step = math.floor(taken / self.step_s)
        steps = self.noted()
        for at in range(0, len(steps), 2):
            if steps[at] == step:
                units = min(units, steps[at + 1])
                self.used -= units
                steps[at + 1] -= units
                if not steps[at + 1]:
                    del steps[at : at + 2]
                return

    def copied(self, holder: str) -> Slices:
        return Slices(self.measure, holder, self.used, self.steps[:], self.last)

    def noted(self) -> array[int]:
        """The steps, with what was taken since the last look in the step of that look."""
        steps = self.steps
        new = self.used - sum(steps[1::2])
        if not new:
            return steps
        # Less than was noted: the last take did not pass after all.
        if steps and steps[-2] == self.last:
            steps[-1] += new
        else:
            steps.extend((self.last, new))
        return steps

    def _drop(self, current: int) -> None:
        steps = self.steps
        gone = 0
        while gone < len(steps) and steps[gone] + _STEPS_HELD <= current:
            self.used -= steps[gone + 1]
            gone += 2
        del steps[:gone]

    def _move(self, by: int) -> None:
        """Take all steps along with a clock that went back by more than a window."""
        for at in range(0, len(self.steps), 2):
            self.steps[at] += by
        self.last += by

    def _end_of(self, step: int) -> float:
        """When units of this step count no more."""
        return (step + _STEPS_HELD) * self.step_s


Counter: TypeAlias = Count | Slices


def fresh(measure: Quota, holder: str, wall: float) -> Counter:
    """The counter of somebody who has used nothing."""
    window = measure.window
    if window.kind != "sliding":
        start, end = window.at(wall)
        return Count(measure, holder, 0, start, end)
    counter = Slices(measure, holder, 0, array("q"), 0)
    counter.left(0.0, wall)
    return counter
