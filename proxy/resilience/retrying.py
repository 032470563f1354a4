"""A call is sent again where that is harmless, and may help: a stage around attempts.

In: a `Permit`. Out: the `Reply` of the first attempt that answers, or what became of the last one. Keeps how many were
repeated; of a call nothing but its last failure, while it waits.

What is repeated: a connection that could not be made, for nearly every call; what broke off, or came back as 429, 502,
503, 504 or a 500 that is no JSON-RPC, only where doing it twice is as good as once (`signals.may_repeat`). A reply that
was given is final, whatever becomes of its stream: its first bytes may have been passed on. Before the next attempt the
old one is closed, because servers of older revisions mix up two requests of one id.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from ..model import Deadline, Kind, Permit, Reason, Refused, Reply, Stage
from .attempts import FAILS_FROM, NOT_NOW, Outcome, attempted, closed, may_help
from .backoff import asked_s, backoff_s
from .budget import Budget
from .hedging import Hedging, hedged_after_s
from .idempotency import keyed
from .settings import ResilienceSettings
from .signals import may_have_run, may_repeat

LONGEST_WAIT_S: Final = 60.0
"""Whatever a server asks for: who waits holds a place. What is longer is for the caller to wait."""

_REQUEST: Final = Kind.REQUEST
_SEVERAL: Final = Kind.BATCH


class Retrying:
    """Fulfils `Stage`."""

    def __init__(
        self,
        serve: Stage,
        settings: ResilienceSettings,
        budget: Budget,
        *,
        deadline: Deadline,
        token: Callable[[], str],
        chance: Callable[[], float],
        wall: Callable[[], float],
        hedging: Hedging | None = None,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`token` makes idempotency keys, `chance` lies in [0, 1), `wall` is Unix time, `now` monotonic. `hedging`
        sends second attempts while the first is under way; None: nobody does."""
        self._serve = serve
        self._hedging = hedging
        self._attempts = settings.attempts
        self._base_s = settings.backoff_s
        self._cap_s = settings.backoff_cap_s
        self._budget = budget
        self._deadline = deadline
        self._token = token
        self._chance = chance
        self._wall = wall
        self._now = now
        self._sleep = sleep
        self.repeated = 0
        """Attempts that were repeated since the start."""
        self.withheld = Counter[str]()
        """Attempts that could have been repeated and were not, by why: "budget", "deadline"."""
        self.waiting = 0
        """Calls that wait for their next attempt."""

    async def __call__(self, permit: Permit) -> Reply:
        sent, rule, kind = permit, permit.rule, permit.call.kind
        if rule.idempotency_key:
            sent = keyed(permit, self._token)
        if kind is _REQUEST or kind is _SEVERAL:
            self._budget.called()
        after_s = None
        if self._hedging is not None and rule.hedge_after_s is not None:
            after_s = hedged_after_s(sent)
        outcome: Outcome | None = None
        try:
            if self._hedging is not None and after_s is not None:
                outcome, was_hedged = await self._hedging(sent, after_s)
                if not was_hedged:
                    outcome = await self._last(sent, outcome)
            else:
                # As `attempted` does; but nearly every call ends here, and is asked nothing.
                try:
                    outcome = await self._serve(sent)
                except Refused as refused:
                    outcome = refused
                if isinstance(outcome, Refused) or outcome.status >= FAILS_FROM:
                    outcome = await self._last(sent, outcome)
            if isinstance(outcome, Reply):
                return outcome
            raise _told(permit, outcome)
        finally:
            del outcome  # or this frame would hold it, and it this frame

    async def _last(self, permit: Permit, outcome: Outcome) -> Outcome:
        """What became of the last attempt that was made, after the first one came to this."""
        repeat = may_repeat(permit.call, permit.rule)
        failed = 0
        while may_help(permit.call, outcome, repeat):
            failed += 1
            wait_s = self._wait_s(permit, outcome, failed)
            if wait_s is None:
                return outcome
            failure = closed(outcome)
            await self._wait(wait_s)
            if not self._budget.repeat(self._now()):
                self.withheld["budget"] += 1
                return failure
            self.repeated += 1
            outcome = await attempted(self._serve, permit)
            if isinstance(outcome, Refused) and outcome.reason in NOT_NOW:
                # It was not sent this time, but it was before: that is what became of it.
                return failure
        return outcome

    def _wait_s(self, permit: Permit, outcome: Outcome, failed: int) -> float | None:
        """How long to wait for the next attempt; None where there is none."""
        if failed >= self._attempts:
            return None
        now = self._now()
        if not self._budget.may_repeat(now):
            self.withheld["budget"] += 1
            return None
        wait_s = backoff_s(failed, self._chance(), base_s=self._base_s, cap_s=self._cap_s)
        if isinstance(outcome, Reply):
            wait_s += asked_s(outcome.headers.all("retry-after"), self._wall()) or 0.0
        if wait_s > LONGEST_WAIT_S or now + wait_s >= self._deadline(permit):
            self.withheld["deadline"] += 1
            return None
        return wait_s

    async def _wait(self, seconds: float) -> None:
        self.waiting += 1
        try:
            await self._sleep(seconds)
        finally:
            self.waiting -= 1


def _told(permit: Permit, refused: Refused) -> Refused:
    """In words that fit the rule: to check before repeating is good advice only where it matters."""
    call = permit.call
    is_unknown = refused.reason is Reason.OUTCOME_UNKNOWN and call.method == "tools/call"
    if not is_unknown or may_have_run(call, permit.rule):
        return refused
    return Refused(Reason.UPSTREAM_BROKE, _HARMLESS, data=refused.data)


_HARMLESS: Final = "The call can be repeated: doing it twice is as good as once."
