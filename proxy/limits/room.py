"""How much? A permit becomes a lease, or is refused in words. The thin stage around `rules` and the buckets.

In: a `Permit`. Out: a `Lease`, or None where only rates were asked, which come back by themselves; Refused
(rate_limited, quota_spent; overloaded where replicas share limits and may not decide alone). What was taken of quotas
is given back at the end of a call that never reached the server.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from ..model import Call, Ending, Journey, Lease, Outcome, Permit, Principal, Reason, Refused, Rule
from .continuations import Continuations, Open, says_continues
from .demand import Demand, Denied, Granted, Rate
from .local import Local
from .rules import Asked, Rules
from .words import refused

_NO_RULE: Final = Rule(id="")
_NOT_REACHED: Final = Outcome.NOT_REACHED


class Store(Protocol):
    """Limits that replicas share: `shared.Shared`."""

    async def take(self, demands: Sequence[Demand]) -> Granted | Denied: ...
    def refund(self, demands: Sequence[Demand], granted: Granted | None = None) -> None: ...


class Limits:
    """Fulfils `model.Limit`."""

    def __init__(
        self,
        rules: Rules,
        *,
        local: Local,
        shared: Store | None = None,
        continuations: Continuations | None = None,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float],
    ) -> None:
        """`local` decides where no store is shared. `now` is monotonic, `wall` counts seconds from 1970."""
        self._rules = rules
        self._local = local
        self._shared = shared
        self._continuations = continuations
        self._now = now
        self._wall = wall

    def __call__(self, permit: Permit) -> Lease | Awaitable[Lease | None] | None:
        asked = self._rules.of(permit)
        may_ease = asked.eased is not None and says_continues(permit.call)
        if may_ease or asked.reported or self._shared is not None:
            return self._held(permit, asked)
        # The same for nearly every call, in half the time.
        wall = self._wall()
        answer = self._local.take(asked.demands, now=self._now(), wall=wall)
        granted = _let_pass(asked, answer, permit.rule, wall)
        return _Held(self, permit.call.journey, asked.demands, granted, wall) if asked.settles else None

    async def denied(self, call: Call, principal: Principal) -> None:
        """As `model.Limit` has it: rates that count everything count what policy refuses, too."""
        asked = self._rules.of_denied(call, principal)
        if asked.demands:
            wall = self._wall()
            _let_pass(asked, await self._taken(asked.demands, wall), _NO_RULE, wall)

    async def _held(self, permit: Permit, asked: Asked) -> Lease:
        continued: Open | None = None
        if asked.eased is not None and self._continuations is not None:
            continued = self._continuations.use(permit)
            if continued is not None:
                asked = asked.eased
        wall = self._wall()
        try:
            granted = _let_pass(asked, await self._taken(asked.demands, wall), permit.rule, wall)
        except BaseException:
            self.restore(continued)
            raise
        held = _Held(self, permit.call.journey, asked.demands, granted, wall)
        held.continued = continued
        if asked.reported:
            try:
                await self._told(permit, asked, held)
            except BaseException as error:
                held.release(Ending.of(error))
                raise
        return held

    async def _told(self, permit: Permit, asked: Asked, held: _Held) -> None:
        """Ask the limits that only report, as if they were all there are."""
        try:
            answer = await self._taken(asked.reported, held.wall)
        except Refused:
            # A store that cannot be asked refuses what is limited, and this is not.
            return
        if isinstance(answer, Denied):
            demand = asked.reported[answer.index]
            asked.report_tallies[answer.index].reported += 1
            permit.call.journey.would_refuse(Rule(id=f"limit {demand.limit}"), _reason(demand))
            return
        for tally in asked.report_tallies:
            tally.granted += 1
        held.also = (asked.reported, answer)

    async def _taken(self, demands: tuple[Demand, ...], wall: float) -> Granted | Denied:
        if self._shared is None or not demands:
            return self._local.take(demands, now=self._now(), wall=wall)
        return await self._shared.take(demands)

    def refund(self, demands: tuple[Demand, ...], granted: Granted, wall: float) -> None:
        """Give back what `granted` took at `wall`: of quotas."""
        if self._shared is None:
            self._local.refund(demands, wall=wall)
        else:
            self._shared.refund(demands, granted)

    def restore(self, continued: Open | None) -> None:
        """It was not continued after all."""
        if continued is not None and self._continuations is not None:
            self._continuations.give(continued)


class _Held:
    """Fulfils `Lease`: what a call took and may have to give back."""

    __slots__ = ("_demands", "_granted", "_journey", "_room", "also", "continued", "wall")

    def __init__(
        self, room: Limits, journey: Journey, demands: tuple[Demand, ...], granted: Granted, wall: float
    ) -> None:
        self._room: Limits | None = room
        self._journey = journey
        self._demands = demands
        self._granted = granted
        self.wall = wall
        """When it took."""
        self.also: tuple[tuple[Demand, ...], Granted] | None = None
        """What limits took that only report."""
        self.continued: Open | None = None
        """What was spent to be free of quotas."""

    def release(self, ending: Ending) -> None:
        """Settle, once. How a stream stopped says nothing of what the server did: the journey does."""
        room, self._room = self._room, None
        if room is None or self._journey.outcome_at_server is not _NOT_REACHED:
            return
        room.refund(self._demands, self._granted, self.wall)
        if self.also is not None:
            room.refund(*self.also, self.wall)
        room.restore(self.continued)


def _let_pass(asked: Asked, answer: Granted | Denied, rule: Rule, wall: float) -> Granted:
    """Count what was decided. Raises Refused."""
    if isinstance(answer, Denied):
        asked.tallies[answer.index].refused += 1
        raise refused(asked.demands[answer.index], answer, rule, wall)
    for tally in asked.tallies:
        tally.granted += 1
    return answer


def _reason(demand: Demand) -> Reason:
    return Reason.RATE_LIMITED if isinstance(demand.measure, Rate) else Reason.QUOTA_SPENT
