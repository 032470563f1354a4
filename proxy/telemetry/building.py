"""Settings → the room that hears what happened.

In: settings, and what outlives them. Out: a `Telemetry`, which opens the journey of each call and says who hears of it.
Order of those who hear the end of a call: what must not be lost before what may be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .journey import Journeys, Observers, Record, Sink
from .logs import Log
from .metrics import Metrics
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
        metrics: Metrics | None = None,
    ) -> None:
        """`report` hears of observers that fail; `sinks` hear of each call before its line is written. `metrics` count
        since before a reload."""
        self._settings = settings
        self._log = log
        self.metrics = metrics if settings.metrics else None
        """None where nothing is counted."""
        counted = [] if self.metrics is None else [self.metrics]
        unread = () if traces is None else (traces.unread,)
        observers = Observers(
            trace=None if traces is None else traces.opened,
            permitted=[each.permitted for each in counted],
            attempt_ended=[each.attempt_ended for each in counted],
            ended=(*unread, *sinks, *(each.ended for each in counted), log.call),
        )
        self._journeys = Journeys(observers, failed=report)

    def open(self, received: float) -> Record:
        """The journey of a request whose first byte came at `received` (seconds, monotonic)."""
        return self._journeys.open(received)

    def enter(self) -> None:
        """Calls pass by these settings from now on."""
        self._log.say_from(self._settings.log_level)
        if self.metrics is not None:
            self.metrics.allow_tenants(self._settings.metrics_tenants)
