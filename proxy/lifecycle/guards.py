"""What keeps this process alive where its callers, or its machine, leave it too little: loop, memory, descriptors.

In: settings, and whom to tell. Out: a `Guards`, which looks beside the calls, says how it stands, and answers the
questions of whoever takes memory or descriptors. Keeps what its parts keep.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from ..model import Job
from .cgroup import MOUNTED, OWN, Cgroup, Usage, own_bytes
from .descriptors import Descriptors, open_limit
from .loop_lag import Blocked, LoopLag
from .loop_watch import LoopWatch
from .memory import DEGRADED_ABOVE, Level, Memory

TELL_EVERY_S: Final = 10.0
"""Between two lines about connections that are not accepted."""
KEPT: Final = {Level.DEGRADED: 0.5, Level.SHORT: 0.0}
"""The share of kept answers that stays when memory runs out."""


class Life(Protocol):
    """Lines about the process."""

    def __call__(self, msg: str, level: str = "info", **fields: object) -> None: ...


class Guards:
    """The guards as the house uses them; one of the parts that probes ask."""

    def __init__(
        self,
        life: Life,
        *,
        memory_limit_bytes: int | None = None,
        mounted: Path = MOUNTED,
        own: Path = OWN,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`memory_limit_bytes` bounds the resident memory of this process beside what its control group allows.
        `mounted` is where control groups are, `own` says which one is ours."""
        self._life = life
        self._limit = memory_limit_bytes
        self._cgroup = Cgroup(mounted, own)
        self._now = now
        self._resume: Callable[[], Awaitable[None]] | None = None
        self._watch = LoopWatch(self._tell_where)
        self._next_s = float("-inf")
        self._pauses = 0
        self.lag = LoopLag()
        self.memory = Memory(self._usage, self._tell_memory)
        self.descriptors = Descriptors()

    def bound_memory(self, limit_bytes: int | None) -> None:
        """Another bound of the settings."""
        self._limit = limit_bytes

    def resumes(self, resume: Callable[[], Awaitable[None]]) -> None:
        """Call `resume` when clients may be accepted again."""
        self._resume = resume

    def frees(self, shrink: Callable[[float], Awaitable[None]]) -> None:
        """Call `shrink` with the share of what is kept that may stay, when memory runs out."""

        async def free(level: Level) -> None:
            await shrink(KEPT[level])
            await asyncio.to_thread(_give_back)

        self.memory.frees(free)

    @property
    def jobs(self) -> tuple[Job, ...]:
        """What runs beside the calls."""
        return self._measure, self.memory.run, self._mind_descriptors

    def why_unready(self) -> str | None:
        """None: whoever comes is answered, if only by a no."""
        return None

    def why_degraded(self) -> Sequence[str]:
        return [*self.memory.why_degraded(), *self.descriptors.why_degraded()]

    async def _measure(self) -> None:
        self._watch.start()
        try:
            await self.lag.run(self._tell_blocked, self._watch.beat)
        finally:
            self._watch.close()

    async def _mind_descriptors(self) -> None:
        if self._resume is not None:
            await self.descriptors.run(self._resume, self._tell_descriptors)

    def _usage(self) -> Usage | None:
        """The scarcer of the two."""
        usages = [] if self._limit is None else [Usage(own_bytes(), self._limit)]
        group = self._cgroup.usage(exact_above=DEGRADED_ABOVE - 0.1)
        if group is not None:
            usages.append(group)
        return max(usages, key=lambda each: each.ratio, default=None)

    def _tell_blocked(self, blocked: Blocked) -> None:
        self._life(
            "loop was blocked",
            "warning",
            lag_s=round(blocked.lag_s, 3),
            cpu_s=round(blocked.cpu_s, 3),
            times=blocked.times,
        )

    def _tell_where(self, silent_s: float, where: Sequence[str]) -> None:
        self._life("loop is blocked", "error", for_s=round(silent_s, 3), where=list(where))

    def _tell_memory(self, level: Level, usage: Usage | None) -> None:
        if usage is None:
            self._life("memory has no limit any more")
            return
        told = "info" if level is Level.WELL else "warning"
        self._life("memory", told, state=level.name.lower(), used_bytes=usage.used, limit_bytes=usage.limit)

    def _tell_descriptors(self, are_back: bool) -> None:
        """Connections that come and go at the limit must not fill a disk; how it stands now is told by the health."""
        if are_back:
            return
        self._pauses += 1
        now = self._now()
        if now >= self._next_s:
            self._next_s = now + TELL_EVERY_S
            self._life("no connections are accepted", "warning", descriptors=open_limit(), times=self._pauses)
            self._pauses = 0


def _give_back() -> None:
    """What was freed goes back to the system: else the limit counts it as used. glibc only."""
    import ctypes  # seldom needed

    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
