"""Is memory running out? Better a call is refused than all of them killed.

In: what is used of the limit, twice a second. Out: a `Level`: above 0.80 of the limit this process is degraded, and
what can be given back is; above 0.95 new calls are refused as well. Keeps the level. It falls only well below where it
rose, or every second call would change it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from enum import IntEnum
from typing import Final

from .cgroup import Usage

LOOK_EVERY_S: Final = 0.5
DEGRADED_ABOVE: Final = 0.80
SHORT_ABOVE: Final = 0.95
FALLS_BY: Final = 0.05
"""Of the limit, below where a level begins: only there it ends."""
FREE_EVERY_S: Final = 10.0
"""Between two attempts to give memory back while it is short."""


class Level(IntEnum):
    """How it stands."""

    WELL = 0
    DEGRADED = 1
    SHORT = 2


_SHORT: Final = Level.SHORT  # each call asks, and an enumeration takes calls to be asked for its members
_BEGINS: Final = {Level.DEGRADED: DEGRADED_ABOVE, Level.SHORT: SHORT_ABOVE}
_REASONS: Final = {
    Level.DEGRADED: f"memory is above {DEGRADED_ABOVE:.0%} of its limit",
    Level.SHORT: f"memory is above {SHORT_ABOVE:.0%} of its limit, and new calls are refused",
}


def next_level(level: Level, ratio: float) -> Level:
    """The level after a look that saw so much of the limit used. Pure."""
    for above in (Level.SHORT, Level.DEGRADED):
        begins = _BEGINS[above]
        if ratio > (begins - FALLS_BY if level >= above else begins):
            return above
    return Level.WELL


Free = Callable[[Level], Awaitable[None]]
"""Gives back what can be given back."""


class Memory:
    """Looks, and says how it stands."""

    def __init__(
        self,
        usage: Callable[[], Usage | None],
        changed: Callable[[Level, Usage | None], None] = lambda level, usage: None,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """`usage` is what is used now, None without a limit. `changed` hears of each new level."""
        self._usage = usage
        self._changed = changed
        self._sleep = sleep
        self._frees: list[Free] = []
        self.level = Level.WELL
        self.usage: Usage | None = None
        """As the last look saw it."""

    def frees(self, free: Free) -> None:
        """Let `free` give memory back when it runs out, and again and again while it stays short."""
        self._frees.append(free)

    def is_short(self) -> bool:
        """Whether new calls are to be refused."""
        return self.level is _SHORT

    def why_degraded(self) -> Sequence[str]:
        return () if self.level is Level.WELL else (_REASONS[self.level],)

    def look(self) -> bool:
        """One look. Whether it has become worse."""
        usage = self.usage = self._usage()
        before = self.level
        # A limit that was taken away is no reason to refuse anybody.
        self.level = Level.WELL if usage is None else next_level(before, usage.ratio)
        if self.level is not before:
            self._changed(self.level, usage)
        return self.level > before

    async def run(self) -> None:
        """Look until cancelled."""
        since_freed_s = 0.0
        while True:
            is_worse = self.look()
            since_freed_s += LOOK_EVERY_S
            if is_worse or (self.level is Level.SHORT and since_freed_s >= FREE_EVERY_S):
                since_freed_s = 0.0
                for free in self._frees:
                    await free(self.level)
            await self._sleep(LOOK_EVERY_S)
