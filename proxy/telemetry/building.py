"""Settings → the room that hears what happened.

In: settings, and what outlives them. Out: a `Telemetry`, which opens the journey of each call and says who hears of it.
Order of those who hear the end of a call: what must not be lost before what may be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .audit import Audit
from .journey import Journeys, Observers, Record, Sink
from .logs import Log
from .settings import TelemetrySettings
from .traces import Traces


class Telemetry:
    """The room as the house uses it."""

    def __init__(
        self,
        settings: TelemetrySettings,
        log: Log,
        *,
        report: Callable[[Exception], None],
        traces: Traces | None = None,
        sinks: Sequence[Sink] = (),
        audit: Audit | None = None,
    ) -> None:
        """`report` hears of observers that fail; `sinks` hear of each call before its line is written, and `audit`
        before them."""
        self._settings = settings
        self._log = log
        self._audit = audit
        unread = () if traces is None else (traces.unread,)
        permitted = () if audit is None else (audit.permitted,)
        audited = () if audit is None else (audit.ended,)
        observers = Observers(
            trace=None if traces is None else traces.opened,
            permitted=permitted,
            ended=(*unread, *audited, *sinks, log.call),
        )
        self._journeys = Journeys(observers, failed=report)

    def open(self, received: float) -> Record:
        """The journey of a request whose first byte came at `received` (seconds, monotonic)."""
        return self._journeys.open(received)

    def enter(self) -> None:
        """Calls pass by these settings from now on."""
        self._log.say_from(self._settings.log_level)
        if self._audit is not None:
            self._audit.enter()

    def event(self, what: str, **fields: object) -> None:
        """An operator or the process did something that must be recorded, where anything is: what, and `by` whom where
        that is known. Never a secret."""
        if self._audit is not None:
            self._audit.event(what, **fields)
