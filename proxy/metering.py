"""What is read of the rooms for metrics, and the page that shows it.

In: the rooms in force, those in which calls are still under way, and the process around them. Out: `/metrics`. Keeps
the page of the last second. The room `telemetry` says what it wants to see (`windows.py`); here is where to look.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .assemble import Rooms
from .lifecycle.guards import Guards
from .lifecycle.reloads import Reloads
from .telemetry.exposition import Exposition, Page
from .telemetry.metrics import Shown
from .telemetry.windows import Lines, ProcessWindows, Windows


class Metering:
    """Used inside one running loop."""

    def __init__(
        self,
        rooms: Callable[[], Sequence[Rooms]],
        *,
        reloads: Reloads,
        guards: Guards,
        lines: Lines,
        connections: Callable[[], int],
    ) -> None:
        """`rooms` are all in which calls are, the last of them in force. `connections` is how many clients have."""
        self._rooms = rooms
        self._process = ProcessWindows(
            reloads=reloads,
            lag=guards.lag,
            memory=guards.memory,
            descriptors=guards.descriptors,
            lines=lines,
            connections=connections,
        )
        self._exposition = Exposition(self._snapshot)

    async def page(self, accept: str) -> Page | None:
        """For a scraper that accepts this; None where nothing is counted."""
        return await self._exposition(accept) if self._is_on else None

    def reloaded(self) -> None:
        """Whoever changes settings looks at once whether they are in force."""
        self._exposition.forget()

    def look(self) -> None:
        """Before some of the rooms go: what they have counted is not forgotten."""
        readings = self._rooms()
        metrics = readings[-1].telemetry.metrics
        if metrics is not None:
            metrics.look(self._windows(), self._process)

    @property
    def _is_on(self) -> bool:
        return self._rooms()[-1].telemetry.metrics is not None

    def _snapshot(self) -> Sequence[Shown]:
        metrics = self._rooms()[-1].telemetry.metrics
        assert metrics is not None
        return metrics.snapshot(self._windows(), self._process)

    def _windows(self) -> list[Windows]:
        return [windows_of(each) for each in self._rooms()]


def windows_of(rooms: Rooms) -> Windows:
    """Into the rooms of one reading of the settings."""
    capacity, resilience, limiting = rooms.capacity, rooms.resilience, rooms.limiting
    return Windows(
        requests=rooms.listener,
        places=capacity.places,
        pace=capacity.pace,
        breaker=resilience.breaker,
        guarding=resilience.guarding,
        retrying=resilience.retrying,
        hedging=resilience.hedging,
        renewing=resilience.renewing,
        store=rooms.caching.store,
        store_bytes=lambda: rooms.caching.bytes_held,
        tallies=limiting.tallies,
        buckets=limiting.local,
        shared=rooms.shared,
        records=None if rooms.audit is None else rooms.audit.log,
        spans=None if rooms.tracing is None else rooms.tracing.exports,
    )
