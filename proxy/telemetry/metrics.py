"""How often, how long, how many? Counts what journeys tell, for as long as the process lives.

In: journeys, attempts, and what the rooms count (`windows.py`). Out: a snapshot of every metric. Keeps cells: one
number for each series, bounded by `labels.py`. All of it happens on the event loop, so a cell is a plain number: a call
costs look-ups and additions. The page is made elsewhere (`exposition.py`), of snapshots.

A tool has a label of its own when a rule names it exactly, a list of the server has shown it, or the server has
answered a call of it well. What else is called is `other`: callers invent names.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from msgspec import Struct

from ..model import Call, Kind, Reason, Refused, Verdict
from .families import ALL, BY_NAME, METHODS, POLICY, Family
from .journey import Record, Try
from .labels import MOST_TOOLS, OTHER, Names, Series, is_fit
from .windows import (
    NO_LABELS,
    Labels,
    ProcessWindows,
    Totals,
    Windows,
    counts_of,
    levels_of,
    process_counts_of,
)

NONE: Final = "none"
"""The tenant of who did not prove to be anybody."""
UNREAD: Final = "unread"
"""The method of what could not be read."""
MOST_TENANTS: Final = 100
"""Until the settings say otherwise."""

_ANSWERED: Final = frozenset(
    {"ok", "tool_error", "rpc_error", "timeout", "upstream_error", "outcome_unknown"}
)
"""What becomes of calls that took their time; those refused here would make a slow tool look fast."""
_KINDS: Final = {Kind.LISTEN: "GET", Kind.END: "DELETE", Kind.ANSWER: "answer", Kind.BATCH: "batch"}
_ALL_METHODS: Final = METHODS | {*_KINDS.values(), UNREAD}


class Exemplar(Struct, frozen=True):
    """One call of a bucket, to be looked up."""

    trace_id: str
    value: float
    wall: float
    """Seconds from 1970."""


class Cells:
    """One histogram."""

    __slots__ = ("bounds", "counts", "exemplars", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """Not cumulative: each value in the first bucket whose bound is not below it."""
        self.sum = 0.0
        self.exemplars: dict[int, Exemplar] = {}
        """The newest of each bucket."""

    def observe(self, value: float) -> int:
        """The bucket it fell into."""
        bucket = bisect_left(self.bounds, value)
        self.counts[bucket] += 1
        self.sum += value
        return bucket

    def copy(self) -> Cells:
        """As it is now."""
        twin = Cells(self.bounds)
        twin.counts, twin.sum, twin.exemplars = self.counts.copy(), self.sum, self.exemplars.copy()
        return twin


class Shown(Struct, frozen=True):
    """A metric at one moment."""

    family: Family
    values: Sequence[tuple[Labels, float]] = ()
    histograms: Sequence[tuple[Labels, Cells]] = ()


class _Ways(Struct):
    """Where one kind of call is counted: found once, used often."""

    count: list[float]
    latency: Cells | None


class Metrics:
    """Of one process. `ended`, `permitted` and `attempt_ended` are observers of journeys."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:  # noqa: TID251  exemplars say when
        self._wall = wall
        self.tools = Names(MOST_TOOLS)
        """Tools with labels of their own."""
        self._tenants = Names(MOST_TENANTS)
        self._series = {family.name: Series(words=len(family.words), each=family.each) for family in ALL}
        self._counts: dict[str, dict[Labels, list[float]]] = {}
        self._histograms: dict[str, dict[Labels, Cells]] = {}
        for family in ALL:
            if family.kind == "histogram":
                self._histograms[family.name] = {}
            elif family.kind == "counter":
                self._counts[family.name] = {}
            if family.row is None and not family.has_tenant:
                self._begin(family)
        self._under_way: set[Record] = set()
        self._ways: dict[tuple[str | None, str, str], _Ways] = {}
        self._dangers: dict[str | None, list[float]] = {}
        self._upstream = self._histogram("outbound_latency_seconds", word="upstream")
        self._totals = Totals()
        self._process = Totals()

    def allow_tenants(self, most: int) -> None:
        """So many have labels of their own from now on."""
        self._tenants.most = most

    # What journeys tell.

    def permitted(self, record: Record) -> None:
        permit = record.permit
        if permit is not None and permit.call.method == "tools/call":
            self._under_way.add(record)

    def attempt_ended(self, attempt: Try) -> None:
        call = attempt.record.call
        if attempt.duration_s is None:
            return
        if call is None or call.method == "tools/call" or not call.is_open_ended:
            self._upstream.observe(attempt.duration_s)

    def ended(self, record: Record) -> None:
        call, principal = record.call, record.principal
        tenant = NONE if principal is None else principal.tenant
        if call is not None and call.method == "tools/call":
            self._under_way.discard(record)
            status = record.outcome
            ways = self._ways.get((call.target, tenant, status)) or self._way(
                record, call.target, tenant, status
            )
            ways.count[0] += 1
            if ways.latency is not None:
                bucket = ways.latency.observe(record.duration_s)
                # Whoever follows an exemplar wants to find the trace: one that nobody collects is none.
                if record.trace is not None and record.trace.is_recorded:
                    shown = Exemplar(record.trace.trace_id, record.duration_s, self._wall())
                    ways.latency.exemplars[bucket] = shown
            permit = record.permit
            rule = record.denied_by if permit is None else permit.rule
            if rule is not None and rule.tool_class == "dangerous":
                danger = self._dangers.get(call.target) or self._danger(call.target)
                danger[0] += 1
            if record.attempts > 1:
                self.add("tool_retries_total", record.attempts - 1, row=self.tools.label(call.target))
            if record.refusal is not None and _is_timeout(record.refusal, status):
                self.add("tool_timeouts_total", row=self.tools.label(call.target))
        else:
            self.add("mcp_requests_total", row=_method(call), word=record.outcome)
        if record.refusal is not None:
            self._refused(record, record.refusal, tenant)
        if record.cache is not None:
            self.add("cache_events_total", word=record.cache.value)
        if record.reported is not None:
            self.add("would_refuse_total", row=record.reported[0])
        for what in record.altered_by:
            self.add("message_alterations_total", row=what)

    # What others tell.

    def asked(self, dependency: str, seconds: float) -> None:
        """Somebody else than the server has answered, or has not, after so long."""
        self._histogram("outbound_latency_seconds", word=dependency).observe(seconds)

    def listed(self, names: Iterable[object]) -> None:
        """The server says that it has these tools."""
        self.tools.learn_all(names)

    def drifted(self, tool: str) -> None:
        """It is not as it was approved."""
        self.add("tool_drift_total", row=self.tools.label(tool))

    def add(
        self, name: str, amount: float = 1, *, row: str = OTHER, tenant: str = OTHER, word: str = ""
    ) -> None:
        """Count; what has no room is counted as `other`. A row that cannot stand in a label is `other`, too."""
        self._count(name, row, tenant, word)[0] += amount

    # What is read.

    def look(self, readings: Sequence[Windows], process: ProcessWindows) -> None:
        """Add up what the rooms of these readings have counted. Called before rooms go for good, too."""
        self._totals.look(count for windows in readings for count in counts_of(windows))
        self._process.look(process_counts_of(process))

    def snapshot(self, readings: Sequence[Windows], process: ProcessWindows) -> list[Shown]:
        """Every metric as it is now. The last of the readings is in force."""
        self.look(readings, process)
        counts = {
            name: {labels: cell[0] for labels, cell in cells.items()} for name, cells in self._counts.items()
        }
        for totals in (self._totals, self._process):
            for name, labels, value in totals.sums():
                self._add_to(counts[name], name, labels, value)
        levels: dict[str, dict[Labels, float]] = {}
        for record in self._under_way:
            target = None if record.call is None else record.call.target
            self._add_level(levels, "in_flight_tool_calls", (self.tools.label(target), OTHER, ""), 1)
        for level in levels_of(readings, process):
            labels = level.labels
            if level.name == "queue_depth":
                labels = (self.tools.label(labels[0]), OTHER, "")
            self._add_level(levels, level.name, labels, level.value)
        shown = []
        for family in ALL:
            if family.kind == "histogram":
                cells = [(labels, each.copy()) for labels, each in self._histograms[family.name].items()]
                shown.append(Shown(family, histograms=cells))
            else:
                values = counts if family.kind == "counter" else levels
                shown.append(Shown(family, values=list(values.get(family.name, {}).items())))
        lag = Cells(BY_NAME["loop_lag_seconds"].bounds)
        lag.counts, lag.sum = process.lag.counts.copy(), process.lag.sum_s
        return [
            Shown(each.family, histograms=[(NO_LABELS, lag)])
            if each.family.name == "loop_lag_seconds"
            else each
            for each in shown
        ]

    # Cells.

    def _begin(self, family: Family) -> None:
        """What has a closed set of series shows all of them from the start: a count that appears with 1 was never seen
        to rise."""
        if family.kind == "counter":
            for word in family.words:
                self._count(family.name, OTHER, OTHER, word)
        elif family.word is not None and family.kind == "histogram":
            for word in family.words:
                self._histogram(family.name, word=word)

    def _place(self, name: str, row: str, tenant: str, word: str) -> Labels:
        return self._series[name].place(row if is_fit(row) else OTHER, tenant, word)

    def _count(self, name: str, row: str, tenant: str, word: str) -> list[float]:
        cells = self._counts[name]
        labels = row, tenant, word
        cell = cells.get(labels)
        if cell is not None:
            return cell
        labels = self._place(name, *labels)
        return cells.setdefault(labels, [0])

    def _histogram(self, name: str, *, row: str = OTHER, word: str = "") -> Cells:
        labels = self._place(name, row, OTHER, word)
        found = self._histograms[name].get(labels)
        if found is None:
            found = self._histograms[name][labels] = Cells(BY_NAME[name].bounds)
        return found

    def _add_to(self, values: dict[Labels, float], name: str, labels: Labels, value: float) -> None:
        placed = self._place(name, *labels)
        values[placed] = values.get(placed, 0) + value

    def _add_level(
        self, levels: dict[str, dict[Labels, float]], name: str, labels: Labels, value: float
    ) -> None:
        self._add_to(levels.setdefault(name, {}), name, labels, value)

    # Calls.

    def _way(self, record: Record, target: str | None, tenant: str, status: str) -> _Ways:
        """Where such a call is counted. Remembered where its labels are its own: there are not many of these."""
        # Not of what got no answer: a server takes any name of whoever does not ask for one.
        if status == "ok" and target is not None and record.verdict is Verdict.OK:
            self.tools.learn(target)
        tool = self.tools.label(target)
        labelled = tenant if tenant == NONE else self._tenants.learn(tenant)
        placed = self._place("tool_calls_total", tool, labelled, status)
        latency = self._histogram("tool_latency_seconds", row=tool) if status in _ANSWERED else None
        ways = _Ways(self._counts["tool_calls_total"].setdefault(placed, [0]), latency)
        if placed == (target, tenant, status):
            self._ways[target, tenant, status] = ways
        return ways

    def _danger(self, target: str | None) -> list[float]:
        tool = self.tools.label(target)
        cell = self._count("danger_tool_attempt_total", tool, OTHER, "")
        if tool == target:
            self._dangers[target] = cell
        return cell

    def _refused(self, record: Record, refused: Refused, tenant: str) -> None:
        reason = refused.reason
        if record.denied_by is not None:
            self.add("policy_denied_total", row=record.denied_by.id)
        elif reason in POLICY and record.permit is not None:
            self.add("policy_denied_total", row=record.permit.rule.id)
        if reason is Reason.RATE_LIMITED:
            self.add("rate_limited_total", tenant=self._tenant(tenant))
        elif reason is Reason.QUOTA_SPENT:
            limit = str(refused.data.get("limit", OTHER))
            self.add("budget_exceeded_total", row=limit, tenant=self._tenant(tenant))
        elif record.outcome == "unauthenticated":
            self.add("auth_failures_total", word=reason.value)

    def _tenant(self, tenant: str) -> str:
        return tenant if tenant == NONE else self._tenants.learn(tenant)


def _is_timeout(refused: Refused, status: str) -> bool:
    """Also where its outcome is what there is to say."""
    return status == "timeout" or (refused.reason is Reason.OUTCOME_UNKNOWN and refused.status == 504)


def _method(call: Call | None) -> str:
    """A method of a closed set; of what has none, what it is."""
    if call is None:
        return UNREAD
    method = call.method or _KINDS.get(call.kind, UNREAD)
    return method if method in _ALL_METHODS else OTHER
