"""Settings → the room that has patience with the server: deadlines, attempts, and when it is left alone.

In: settings, and how the server is spoken to. Out: a `Resilience`, which puts its stages before the server's side.

The order of the stages is that of what they count: one call has one deadline and several attempts (`Retrying`), each
attempt is one that the breaker hears of (`Guarding`), and what an attempt may take is part of it (`Timed`). Where rules
ask for it, a lost session is begun anew within an attempt (`Renewing`): the call that found out has not run. What came
of all that is put into words where it has none (`Worded`), around the places calls take: those learn from replies.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from ..model import Job, Shelve, Stage, shelve_nothing
from ..refusals import Form
from .breaker import Breaker
from .budget import Budget
from .deadlines import Cancel, Deadlines, Overdue, Timed
from .guarding import Guarding
from .handshakes import Handshakes
from .hedging import Hedging, Spare, free_places
from .quarantine import Quarantine
from .renewing import Renewing
from .retrying import Retrying
from .settings import ResilienceSettings
from .worded import Worded


class Resilience:
    """The room as the house uses it."""

    def __init__(
        self,
        settings: ResilienceSettings,
        *,
        form: Form,
        cancel: Cancel,
        overdue: Overdue | None,
        handshakes: Handshakes | None = None,
        connects: Callable[[], Awaitable[bool]],
        token: Callable[[], str],
        chance: Callable[[], float],
        wall: Callable[[], float],
        shelve: Shelve = shelve_nothing,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`cancel` and `overdue` are as `Timed` has them. `handshakes` hears how sessions begin; None: none is begun
        anew. `connects` tells whether the server takes connections, and
        sends nothing. `token` makes idempotency keys, `chance` lies in [0, 1), `wall` counts seconds from 1970, `now`
        is monotonic. `shelve` gives what is known of the server since before a reload."""
        self._settings = settings
        self._form = form
        self._cancel = cancel
        self._overdue = overdue
        self._handshakes = handshakes
        self._connects = connects
        self._token = token
        self._chance = chance
        self._wall = wall
        self._now = now
        self._sleep = sleep
        self.deadline = Deadlines(
            timeout_s=settings.timeout_s, client_may_shorten=settings.client_may_shorten
        )
        """When a call is over whatever happens."""
        self.budget = shelve("retry budget", settings.retry_budget, lambda: _budget(settings))
        self.breaker = shelve("breaker", settings.breaker, lambda: _breaker(settings))
        self._quarantine = shelve("quarantine", settings.quarantine, lambda: _quarantine(settings))
        self.guarding: Guarding | None = None
        self.retrying: Retrying | None = None
        self.hedging: Hedging | None = None
        self.renewing: Renewing | None = None
        self._timed: Timed | None = None

    def guarded(self, serve: Stage, spare: Spare = free_places) -> Stage:
        """The stages, before `serve`. `spare` gives second attempts their places."""
        settings = self._settings
        self._timed = Timed(
            serve,
            self.deadline,
            stream_idle_timeout_s=settings.stream_idle_timeout_s,
            stream_max_s=settings.stream_max_s,
            form=self._form,
            cancel=self._cancel,
            overdue=self._overdue,
            now=self._now,
        )
        self.guarding = Guarding(
            self._timed,
            self.breaker,
            self._quarantine,
            counts_internal_errors=settings.breaker.counts_internal_errors,
            now=self._now,
        )
        attempt: Stage = self.guarding
        if self._handshakes is not None:
            self.renewing = Renewing(attempt, self._handshakes, deadline=self.deadline, now=self._now)
            attempt = self.renewing
        if settings.attempts > 1:
            self.hedging = Hedging(attempt, self.budget, spare=spare, now=self._now)
        self.retrying = Retrying(
            attempt,
            settings,
            self.budget,
            deadline=self.deadline,
            token=self._token,
            chance=self._chance,
            wall=self._wall,
            hedging=self.hedging,
            now=self._now,
            sleep=self._sleep,
        )
        return self.retrying

    def worded(self, serve: Stage) -> Stage:
        """`serve`, whose errors without a word get some. Around everything that looks at replies."""
        return Worded(serve, wall=self._wall)

    @property
    def jobs(self) -> tuple[Job, ...]:
        """What runs beside the calls."""
        return (self._look_for_life,) if self._settings.breaker.enabled else ()

    def why_unready(self) -> str | None:
        return None if self.guarding is None else self.guarding.why_unready()

    def why_degraded(self) -> Sequence[str]:
        return () if self.guarding is None else self.guarding.why_degraded()

    async def close(self) -> None:
        """Tell the server nothing more."""
        if self.renewing is not None:
            await self.renewing.close()
        if self._timed is not None:
            await self._timed.close()

    async def _look_for_life(self) -> None:
        assert self.guarding is not None
        await self.guarding.look_for_life(self._connects)


def _budget(settings: ResilienceSettings) -> Budget:
    budget = settings.retry_budget
    return Budget(ratio=budget.ratio, min_per_s=budget.min_per_s)


def _breaker(settings: ResilienceSettings) -> Breaker | None:
    breaker = settings.breaker
    if not breaker.enabled:
        return None
    return Breaker(
        failures=breaker.failures,
        failure_ratio=breaker.failure_ratio,
        min_calls=breaker.min_calls,
        window_s=breaker.window_s,
        open_s=breaker.open_s,
        max_open_s=breaker.max_open_s,
    )


def _quarantine(settings: ResilienceSettings) -> Quarantine | None:
    quarantine = settings.quarantine
    if quarantine is None:
        return None
    return Quarantine(
        failure_ratio=quarantine.failure_ratio,
        min_calls=quarantine.min_calls,
        window_s=quarantine.window_s,
        for_s=quarantine.for_s,
    )
