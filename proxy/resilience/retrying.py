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

from ..model import Call, Deadline, Ending, Kind, Permit, Reason, Refused, Reply, Stage
from .backoff import asked_s, backoff_s
from .budget import Budget
from .idempotency import keyed
from .settings import ResilienceSettings
from .signals import Repeat, Signal, may_have_run, may_repeat, signal_of

LONGEST_WAIT_S: Final = 60.0
"""Whatever a server asks for: who waits holds a place. What is longer is for the caller to wait."""

_BROKE: Final = frozenset({Reason.UPSTREAM_BROKE, Reason.OUTCOME_UNKNOWN})
_NOT_NOW: Final = frozenset({Reason.BREAKER_OPEN, Reason.OVERLOADED, Reason.QUARANTINED})
"""What our own rooms say to an attempt."""
_COUNTED: Final = frozenset({Kind.REQUEST, Kind.BATCH})


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
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`token` makes idempotency keys, `chance` lies in [0, 1), `wall` is Unix time, `now` monotonic."""
        self._serve = serve
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
        sent = keyed(permit, self._token)
        if permit.call.kind in _COUNTED:
            self._budget.called(self._now())
        outcome = await self._outcome(sent)
        if isinstance(outcome, Reply):
            return outcome
        try:
            raise _told(permit, outcome)
        finally:
            del outcome  # or this frame would hold it, and it this frame

    async def _outcome(self, permit: Permit) -> Reply | Refused:
        """What became of the last attempt that was made."""
        repeat = may_repeat(permit.call, permit.rule)
        failure: Reply | Refused | None = None
        failed = 0
        while True:
            outcome = await self._attempt(permit)
            if failure is not None and isinstance(outcome, Refused) and outcome.reason in _NOT_NOW:
                # It was not sent this time, but it was before: that is what became of it.
                return failure
            if not _may_help(permit.call, outcome, repeat):
                return outcome
            failed += 1
            wait_s = self._wait_s(permit, outcome, failed)
            if wait_s is None:
                return outcome
            failure = _closed(outcome)
            await self._wait(wait_s)
            if not self._budget.repeat(self._now()):
                self.withheld["budget"] += 1
                return failure
            self.repeated += 1

    async def _attempt(self, permit: Permit) -> Reply | Refused:
        try:
            return await self._serve(permit)
        except Refused as refused:
            return refused

    def _wait_s(self, permit: Permit, outcome: Reply | Refused, failed: int) -> float | None:
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


def _may_help(call: Call, outcome: Reply | Refused, repeat: Repeat) -> bool:
    """Whether an attempt failed so that another one is allowed, and might do better."""
    if isinstance(outcome, Refused):
        if outcome.reason is Reason.UPSTREAM_UNREACHABLE:
            return repeat is not Repeat.NEVER
        return repeat is Repeat.ALWAYS and outcome.reason in _BROKE
    if repeat is not Repeat.ALWAYS or not isinstance(outcome.body, bytes):
        return False
    # A JSON-RPC error, -32603 too, is what the server had to say: it would say so again.
    return outcome.status == 429 or signal_of(call, outcome, counts_internal_errors=False) is Signal.BAD


def _closed(outcome: Reply | Refused) -> Reply | Refused:
    """What can still be given back when an attempt has ended for everybody behind us."""
    if isinstance(outcome, Refused):
        return outcome
    outcome.done(Ending.COMPLETE)
    return Reply(outcome.status, outcome.headers, outcome.body)


def _told(permit: Permit, refused: Refused) -> Refused:
    """In words that fit the rule: to check before repeating is good advice only where it matters."""
    call = permit.call
    is_unknown = refused.reason is Reason.OUTCOME_UNKNOWN and call.method == "tools/call"
    if not is_unknown or may_have_run(call, permit.rule):
        return refused
    return Refused(Reason.UPSTREAM_BROKE, _HARMLESS, data=refused.data)


_HARMLESS: Final = "The call can be repeated: doing it twice is as good as once."
