"""Calls leave for the server one after another, so many a second: a small machine and the stage around it.

In: a `Permit`. Out: the `Reply` of the next stage, when its moment has come, or `Refused` (overloaded) at once where
that would be too late. Keeps the next free moment, and a future for each call that waits for one, in order.

Ours, because a limiter that makes everybody sleep for a moment of their own (aiolimiter) can neither refuse who would
sleep too long nor give the moments of those who leave to others.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable

from ..model import Kind, Permit, Reason, Refused, Reply, Stage
from .stage import Deadline, never_ends, takes_place


class Pace:
    """So many a second, and so many at once after a rest. Pure, given `now`. Source: the generic cell rate algorithm
    (ITU-T I.371)."""

    __slots__ = ("_busy_until", "_grace_s", "interval_s")

    def __init__(self, per_s: float, burst: int) -> None:
        self.interval_s = 1 / per_s
        self._grace_s = (burst - 1) / per_s
        self._busy_until = 0.0

    def wait_s(self, now: float) -> float:
        """How long until the next may leave; 0: now."""
        return max(0.0, self._busy_until - self._grace_s - now)

    def leave(self, now: float, calls: int) -> None:
        """These leave now. Several at once are several: the next wait for them."""
        self._busy_until = max(self._busy_until, now) + calls * self.interval_s

    def stay(self, calls: int) -> None:
        """These have not left after all."""
        self._busy_until -= calls * self.interval_s


class Paced:
    """Fulfils `Stage`."""

    def __init__(
        self,
        serve: Stage,
        pace: Pace,
        *,
        max_wait_s: float,
        deadline: Deadline = never_ends,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._serve = serve
        self._pace = pace
        self._max_wait_s = max_wait_s
        self._deadline = deadline
        self._now = now
        self._queue: OrderedDict[asyncio.Future[None], int] = OrderedDict()
        """Whose moment is still to come, and how many calls each is."""
        self._queued = 0
        self._timer: asyncio.TimerHandle | None = None
        self.refused = 0
        """Calls whose moment would have come too late."""

    async def __call__(self, permit: Permit) -> Reply:
        call = permit.call
        calls = sum(map(takes_place, call.parts)) if call.kind is Kind.BATCH else int(takes_place(call))
        if calls:
            await self._moment(permit, calls)
        return await self._serve(permit)

    @property
    def waiting(self) -> int:
        """Calls whose moment is still to come."""
        return self._queued

    async def _moment(self, permit: Permit, calls: int) -> None:
        now = self._now()
        wait_s = self._pace.wait_s(now) + self._queued * self._pace.interval_s
        if wait_s == 0.0:
            self._pace.leave(now, calls)
            return
        if wait_s > min(self._max_wait_s, self._deadline(permit) - now):
            self.refused += calls
            told = "More calls a second than it can take. Nothing was sent to the server: the call can be repeated."
            if permit.rule.instead:
                told = f"{told} {permit.rule.instead}"
            raise Refused(Reason.OVERLOADED, told, data={"limit": "capacity.pace"}, retry_after_s=wait_s)
        moment: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue[moment] = calls
        self._queued += calls
        self._wake(now)
        try:
            await moment
        except BaseException:
            if moment in self._queue:
                self._dequeue(moment)
            elif not moment.cancelled():
                # Its moment had come, and its caller left in the same one: another may have it.
                self._pace.stay(calls)
            self._wake(self._now())
            raise

    def _dequeue(self, moment: asyncio.Future[None]) -> int:
        calls = self._queue.pop(moment)
        self._queued -= calls
        return calls

    def _wake(self, now: float) -> None:
        """Have one timer, for whoever is next, and none where nobody waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._queue:
            self._timer = asyncio.get_running_loop().call_later(self._pace.wait_s(now), self._is_due)

    def _is_due(self) -> None:
        now = self._now()
        while self._queue and self._pace.wait_s(now) == 0.0:
            moment = next(iter(self._queue))
            calls = self._dequeue(moment)
            if not moment.done():  # else its caller has left, and is about to say so
                self._pace.leave(now, calls)
                moment.set_result(None)
        self._wake(now)
