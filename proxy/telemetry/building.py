"""Settings → the room that hears what happened.

In: settings, and what outlives them. Out: a `Telemetry`, which opens the journey of each call and says who hears of it.
Order of those who hear the end of a call: what must not be lost before what may be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .args_hash import ArgsHash
from .debugging import Debugging
from .journey import Journeys, Observers, Record, Sink, Try
from .logs import Log
from .metrics import Metrics
from .request_ids import RequestIds
from .settings import TelemetrySettings
from .traces import Traces

if TYPE_CHECKING:
    from .audit import Audit


class Telemetry:
    """The room as the house uses it."""

    def __init__(
        self,
        settings: TelemetrySettings,
        log: Log,
        *,
        report: Callable[[Exception], None],
        debugging: Debugging,
        traces: Traces | None = None,
        sinks: Sequence[Sink] = (),
        metrics: Metrics | None = None,
        audit: Audit | None = None,
        hash_args: ArgsHash | None = None,
    ) -> None:
        """`report` hears of observers that fail; `sinks` hear of each call before its line is written, and `audit`
        before them. `metrics` count since before a reload. `hash_args` is None where nobody wants to know arguments
        again."""
        self._settings = settings
        self._log = log
        self._debugging = debugging
        self._audit = audit
        self.metrics = metrics if settings.metrics else None
        """None where nothing is counted."""
        permitted: list[Sink] = []
        attempt_ended: list[Callable[[Try], None]] = []
        ended: list[Sink] = []
        if hash_args is not None:
            permitted.append(hash_args)
            ended.append(hash_args)
        if audit is not None:
            permitted.append(audit.permitted)
            ended.append(audit.ended)
        ended += sinks
        if self.metrics is not None:
            permitted.append(self.metrics.permitted)
            attempt_ended.append(self.metrics.attempt_ended)
            ended.append(self.metrics.ended)
        ended.append(log.call)
        if settings.debug:
            permitted.append(debugging.permitted)
            attempt_ended.append(debugging.attempt_ended)
            ended.append(debugging.ended)
        observers = Observers(
            trace=None if traces is None else traces.opened,
            unread=None if traces is None else traces.unread,
            permitted=permitted,
            attempt_ended=attempt_ended,
            ended=ended,
        )
        self._journeys = Journeys(observers, failed=report)
        self.open: Callable[[float], Record] = self._journeys.open
        """The journey of a request whose first byte came at that moment (seconds, monotonic)."""
        header = settings.request_id_header
        self.name_request = None if header is None else RequestIds(header)
        """How clients know the replies to their requests; None: they need not."""

    def enter(self) -> None:
        """Calls pass by these settings from now on, in the loop that runs."""
        self._journeys.soon = asyncio.get_running_loop().call_soon
        self._log.say_from(self._settings.log_level)
        self._log.say_life(self._settings.life)
        if self.metrics is not None:
            self.metrics.allow_tenants(self._settings.metrics_tenants)
        if self._audit is not None:
            self._audit.enter()
        self._debugging.event = self.event
        self._debugging.follow(self._settings.debug)

    def settle(self) -> None:
        """Tell of every call that has ended."""
        self._journeys.settle()

    def event(self, what: str, **fields: object) -> None:
        """An operator or the process did something that must be recorded, where anything is: what, and `by` whom where
        that is known. Never a secret."""
        if self._audit is not None:
            self._audit.event(what, **fields)
