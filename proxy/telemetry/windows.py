"""What do the rooms count by themselves? Windows into the rooms in force, and sums that outlive them.

In: rooms, as far as is read of them (Protocols: rooms never import each other; `metering.py` beside the house fills
them in). Out: counts and levels by the names of `families.py`. A reload begins new rooms, whose counts begin at 0:
`Totals` adds up what each counted, so that no metric ever falls. What outlives a reload is counted once, because a
count belongs to the thing that counts (`whose`), not to the room that holds it at the moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Final, Protocol

from msgspec import Struct

from .labels import OTHER

Labels = tuple[str, str, str]
"""Row, tenant, word: as `labels.Series` has them."""
NO_LABELS: Final[Labels] = (OTHER, OTHER, "")


class Count(Struct, frozen=True):
    """Something that only ever grows."""

    name: str
    labels: Labels
    whose: object
    """Who counts. While it lives, it never counts backwards."""
    value: float


class Level(Struct, frozen=True):
    """How something stands now."""

    name: str
    labels: Labels
    value: float


class Places(Protocol):
    """`capacity.stage.Roomy`."""

    @property
    def refused(self) -> Mapping[str, int]: ...

    @property
    def in_flight(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def limit(self) -> int: ...
    @property
    def queued(self) -> Sequence[str]:
        """The tools of those who wait; callers may have chosen the names."""
        ...


class Pace(Protocol):
    """`capacity.pace.Paced`."""

    refused: int


class Breaker(Protocol):
    """`resilience.breaker.Breaker`."""

    opened: int

    @property
    def state(self) -> Enum: ...


class Guarding(Protocol):
    """`resilience.guarding.Guarding`."""

    @property
    def refused(self) -> Mapping[str, int]: ...

    @property
    def quarantined(self) -> Sequence[str]: ...


class Retrying(Protocol):
    """`resilience.retrying.Retrying`."""

    @property
    def withheld(self) -> Mapping[str, int]: ...


class Hedging(Protocol):
    """`resilience.hedging.Hedging`."""

    sent: int
    won: int

    @property
    def withheld(self) -> Mapping[str, int]: ...


class Renewing(Protocol):
    """`resilience.renewing.Renewing`."""

    renewed: int
    given_up: int


class Store(Protocol):
    """`cache.store.Store`."""

    @property
    def counts(self) -> Mapping[str, int]: ...


class Tally(Protocol):
    """`limits.rules.Tally`."""

    granted: int
    refused: int
    reported: int


class Buckets(Protocol):
    """`limits.local.Local`."""

    turned_away: int

    @property
    def evictions(self) -> int: ...
    def __len__(self) -> int: ...


class Shared(Protocol):
    """`limits.shared.Shared`."""

    fallbacks: int
    late: int
    spared: int
    poisoned: int
    refunds_lost: int

    @property
    def is_up(self) -> bool: ...
    @property
    def outages(self) -> int: ...


class Records(Protocol):
    """`telemetry.audit_log.AuditLog`."""

    write_failures: int


class Spans(Protocol):
    """`telemetry.exports.Exports`."""

    exported: int
    failed: int
    dropped: int


class Lines(Protocol):
    """`telemetry.logs.Log`."""

    @property
    def dropped(self) -> int: ...


class Requests(Protocol):
    """`downstream.listener.Listener`."""

    @property
    def requests_under_way(self) -> int: ...
    @property
    def streams_open(self) -> int: ...


class Windows(Struct, frozen=True, kw_only=True):
    """Into the rooms of one reading of the settings. None: there is no such thing there."""

    requests: Requests
    places: Places | None = None
    pace: Pace | None = None
    breaker: Breaker | None = None
    guarding: Guarding | None = None
    retrying: Retrying | None = None
    hedging: Hedging | None = None
    renewing: Renewing | None = None
    store: Store | None = None
    store_bytes: Callable[[], float] = lambda: 0
    tallies: Mapping[str, Tally] = {}
    buckets: Buckets | None = None
    shared: Shared | None = None
    records: Records | None = None
    spans: Spans | None = None


class Reloads(Protocol):
    """`lifecycle.reloads.Reloads`."""

    succeeded: int
    failed: int
    is_current: bool


class Lag(Protocol):
    """`lifecycle.loop_lag.LoopLag`, by the bounds of the metric."""

    counts: list[int]
    sum_s: float


class Used(Protocol):
    """`lifecycle.cgroup.Usage`."""

    @property
    def used(self) -> int: ...
    @property
    def limit(self) -> int: ...


class Memory(Protocol):
    """`lifecycle.memory.Memory`."""

    @property
    def level(self) -> int: ...
    @property
    def usage(self) -> Used | None: ...


class Descriptors(Protocol):
    """`lifecycle.descriptors.Descriptors`."""

    refused: int
    paused: int


class ProcessWindows(Struct, frozen=True, kw_only=True):
    """Into what belongs to no reading of the settings."""

    reloads: Reloads
    lag: Lag
    memory: Memory
    descriptors: Descriptors
    lines: Lines
    connections: Callable[[], int]


_STATES: Final = {"closed": 0, "half_open": 1, "open": 2}


def counts_of(windows: Windows) -> Iterator[Count]:
    """What the rooms of one reading have counted since they began."""
    see = windows
    if see.places is not None:
        yield from _each("capacity_refused_total", see.places.refused, see.places.refused)
    if see.pace is not None:
        yield Count("capacity_refused_total", _word("pace"), see.pace, see.pace.refused)
    if see.breaker is not None:
        yield Count("breaker_opened_total", NO_LABELS, see.breaker, see.breaker.opened)
    if see.guarding is not None:
        yield from _each("breaker_refused_total", see.guarding, see.guarding.refused)
    if see.retrying is not None:
        yield from _each("retries_withheld_total", see.retrying, see.retrying.withheld)
    if (hedging := see.hedging) is not None:
        withheld = {f"withheld_{why}": count for why, count in hedging.withheld.items()}
        yield from _each("hedges_total", hedging, {"sent": hedging.sent, "won": hedging.won, **withheld})
    if (renewing := see.renewing) is not None:
        counted = {"renewed": renewing.renewed, "given_up": renewing.given_up}
        yield from _each("session_renewals_total", renewing, counted)
    if see.store is not None:
        yield from _each("cache_events_total", see.store, see.store.counts)
    for name, tally in see.tallies.items():
        decided = {"granted": tally.granted, "refused": tally.refused, "reported": tally.reported}
        for decision, count in decided.items():
            yield Count("limit_decisions_total", (name, OTHER, decision), tally, count)
    if (buckets := see.buckets) is not None:
        yield from _each(
            "limit_key_events_total",
            buckets,
            {"evicted": buckets.evictions, "turned_away": buckets.turned_away},
        )
    if (shared := see.shared) is not None:
        yield from _each(
            "shared_limits_events_total",
            shared,
            {
                "outage": shared.outages,
                "fallback": shared.fallbacks,
                "late": shared.late,
                "spared": shared.spared,
                "poisoned": shared.poisoned,
                "refund_lost": shared.refunds_lost,
            },
        )

    if see.records is not None:
        yield Count("audit_write_failures_total", NO_LABELS, see.records, see.records.write_failures)
    if (spans := see.spans) is not None:
        counted = {"exported": spans.exported, "failed": spans.failed, "dropped": spans.dropped}
        yield from _each("trace_spans_total", spans, counted)


def process_counts_of(see: ProcessWindows) -> Iterator[Count]:
    reloads, descriptors = see.reloads, see.descriptors
    ended = {"succeeded": reloads.succeeded, "failed": reloads.failed}
    yield from _each("config_reloads_total", reloads, ended)
    wanting = {"refused": descriptors.refused, "paused": descriptors.paused}
    yield from _each("descriptor_events_total", descriptors, wanting)
    yield Count("log_lines_dropped_total", NO_LABELS, see.lines, see.lines.dropped)


def levels_of(readings: Sequence[Windows], see: ProcessWindows) -> Iterator[Level]:
    """How it stands. The last of the readings is in force; in those before it calls are still under way."""
    now = readings[-1]
    places = {id(each.places.refused): each.places for each in readings if each.places is not None}
    for each in places.values():
        for tool in each.queued:
            yield Level("queue_depth", (tool, OTHER, ""), 1)
    if now.places is not None:
        yield Level("capacity_places", _word("limit"), now.places.limit)
        for each in places.values():
            yield Level("capacity_places", _word("taken"), each.in_flight)
            yield Level("capacity_places", _word("awaited"), each.waiting)
    yield Level("cache_bytes", NO_LABELS, now.store_bytes())
    state = 0 if now.breaker is None else _STATES[str(now.breaker.state.value)]
    yield Level("breaker_state", NO_LABELS, state)
    yield Level("quarantined_tools", NO_LABELS, 0 if now.guarding is None else len(now.guarding.quarantined))
    yield Level("limit_keys", NO_LABELS, 0 if now.buckets is None else len(now.buckets))
    if now.shared is not None:
        yield Level("shared_limits_up", NO_LABELS, now.shared.is_up)
    yield Level("requests_in_flight", NO_LABELS, sum(each.requests.requests_under_way for each in readings))
    yield Level("streams_open", NO_LABELS, sum(each.requests.streams_open for each in readings))
    yield Level("connections_open", NO_LABELS, see.connections())
    yield Level("config_last_reload_successful", NO_LABELS, see.reloads.is_current)
    yield Level("memory_level", NO_LABELS, see.memory.level)
    if see.memory.usage is not None:
        yield Level("memory_used_bytes", NO_LABELS, see.memory.usage.used)
        yield Level("memory_limit_bytes", NO_LABELS, see.memory.usage.limit)


def _each(name: str, whose: object, counts: Mapping[str, int]) -> Iterator[Count]:
    for word, count in counts.items():
        yield Count(name, _word(word), whose, count)


def _word(word: str) -> Labels:
    return OTHER, OTHER, word


class Totals:
    """Sums of counts whose counters come and go. Pure."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, Labels], float] = {}
        # By what counts; it is held, so that no other one gets its id.
        self._seen: dict[tuple[str, Labels, int], Count] = {}

    def look(self, counts: Iterable[Count]) -> None:
        """What all that count have counted at this moment. Who is not among them has been seen for the last time."""
        seen: dict[tuple[str, Labels, int], Count] = {}
        for count in counts:
            key = count.name, count.labels, id(count.whose)
            if key in seen:
                continue  # two readings hold it
            before = self._seen.get(key)
            grown = count.value - (0.0 if before is None else before.value)
            where = count.name, count.labels
            self._sums[where] = self._sums.get(where, 0.0) + max(0.0, grown)
            seen[key] = count
        self._seen = seen

    def sums(self) -> Iterator[tuple[str, Labels, float]]:
        for (name, labels), value in self._sums.items():
            yield name, labels, value
