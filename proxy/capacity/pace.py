"""Calls leave for the server one after another, so many a second: a stage around aiolimiter.

In: a `Permit`. Out: the `Reply` of the next stage, when its moment has come, or `Refused` (overloaded) where that does
not come in time: at once where so many wait already that it cannot. Keeps how many wait.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from aiolimiter import AsyncLimiter

from ..alarm import Alarm
from ..model import Deadline, Kind, Permit, Reason, Refused, Reply, Stage, never_ends
from .stage import takes_place


def limiter_of(rate_per_s: float, burst: int) -> AsyncLimiter:
    """So many at once, and so many a second."""
    return AsyncLimiter(burst, burst / rate_per_s)


class Paced:
    """Fulfils `Stage`. Used inside one running loop."""

    def __init__(
        self,
        serve: Stage,
        *,
        rate_per_s: float,
        burst: int,
        max_wait_s: float,
        deadline: Deadline = never_ends,
        limiter: AsyncLimiter | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`limiter` is one of the same pace that others use, too."""
        self._serve = serve
        self._limiter = limiter or limiter_of(rate_per_s, burst)
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._max_wait_s = max_wait_s
        self._deadline = deadline
        self._now = now
        self.waiting = 0
        """Calls whose moment is still to come."""
        self.refused = 0
        """Calls whose moment would have come too late."""

    async def __call__(self, permit: Permit) -> Reply:
        call = permit.call
        calls = sum(map(takes_place, call.parts)) if call.kind is Kind.BATCH else int(takes_place(call))
        if calls:
            await self._moment(permit, calls)
        return await self._serve(permit)

    async def _moment(self, permit: Permit, calls: int) -> None:
        """Wait for it. Whoever leaves meanwhile has taken nothing."""
        left_s = min(self._max_wait_s, self._deadline(permit) - self._now())
        # Those before it leave first.
        if self.waiting / self._rate_per_s >= left_s:
            raise self._too_late(permit, calls)
        self.waiting += calls
        alarm = Alarm(left_s)
        try:
            # More at once than ever may leave at once: they leave when the bucket is full.
            await self._limiter.acquire(min(calls, self._burst))
        except asyncio.CancelledError:
            if not alarm.off():
                raise
            raise self._too_late(permit, calls) from None
        finally:
            alarm.off()
            self.waiting -= calls

    def _too_late(self, permit: Permit, calls: int) -> Refused:
        self.refused += calls
        told = (
            "More calls a second than it can take. Nothing was sent to the server: the call can be repeated."
        )
        if permit.rule.instead:
            told = f"{told} {permit.rule.instead}"
        wait_s = (self.waiting + calls) / self._rate_per_s
        return Refused(Reason.OVERLOADED, told, data={"limit": "capacity.pace"}, retry_after_s=wait_s)
