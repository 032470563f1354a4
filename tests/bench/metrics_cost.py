"""What do metrics cost? `python -m tests.bench.metrics_cost` prints it: time of this process, and bytes.

In: nothing. Out: figures; a time is the least of several rounds, because other processes only add to it. Keeps nothing.
"""

from __future__ import annotations

import functools
import sys
import time
import timeit
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import structs

from proxy.model import Call, Ending, Permit, Verdict
from proxy.telemetry.exposition import rendered
from proxy.telemetry.journey import Journeys, Observers
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.windows import Windows
from tests.fakes import PRINCIPAL, RULE, make_call
from tests.unit.telemetry.metered import Requests, process

from .report import Figure, table, this_machine

ROUNDS: Final = 25
CALLS: Final = 5_000
"""In a round."""


def main() -> int:
    print(table(this_machine(), figures()))
    return 0


def figures() -> list[Figure]:
    """Every figure of this file."""
    return [*_calls(), *_pages()]


def _permits(names: Sequence[str]) -> list[Permit]:
    calls = [make_call(target=name) for name in names]
    return [Permit(call=call, principal=PRINCIPAL, rule=RULE) for call in calls]


def _journeys(metrics: Metrics | None) -> Journeys:
    if metrics is None:
        return Journeys(Observers())
    return Journeys(
        Observers(permitted=[metrics.permitted], attempt_ended=[metrics.attempt_ended], ended=[metrics.ended])
    )


def _told(journeys: Journeys, permit: Permit, verdict: Verdict) -> None:
    call: Call = permit.call
    record = journeys.open(0.0)
    record.read(call)
    record.identified(permit.principal)
    record.permitted(permit)
    attempt = record.attempted()
    attempt.answered(200)
    record.answered(verdict)
    attempt.ended()
    record.ended(Ending.COMPLETE)


def _calls() -> list[Figure]:
    """Beside a journey that nobody hears of."""
    found = []
    for what, names, verdict in (
        ("a call of a known tool", ["echo"], Verdict.OK),
        ("a call of a made-up one", [f"x{n}" for n in range(CALLS)], Verdict.TOOL_ERROR),
    ):
        permits = _permits(names) * (CALLS // len(names))
        alone = _least_us(functools.partial(_all, None, permits, verdict))
        heard = _least_us(functools.partial(_all, Metrics(), permits, verdict))
        found.append(Figure(name=f"metrics: {what}", value=heard - alone, unit="µs", at_most=3.0))
    return found


def _all(metrics: Metrics | None, permits: Sequence[Permit], verdict: Verdict) -> None:
    journeys = _journeys(metrics)
    for permit in permits:
        _told(journeys, permit, verdict)


def _least_us(act: Callable[[], None]) -> float:
    return min(timeit.repeat(act, timer=time.thread_time, number=1, repeat=ROUNDS)) / CALLS * 1e6


def _pages() -> list[Figure]:
    """As full as they can be: every metric with all the series it may have."""
    metrics = Metrics()
    metrics.allow_tenants(900)
    journeys = _journeys(metrics)
    for number in range(20_000):
        (permit,) = _permits([f"tool-{number % 997}"])
        principal = structs.replace(PRINCIPAL, tenant=f"tenant-{number % 503}")
        _told(journeys, structs.replace(permit, principal=principal), Verdict.OK)
    windows = [Windows(requests=Requests())]
    shown = metrics.snapshot(windows, process())
    page, _ = rendered(shown, is_open=True)
    on_loop = min(timeit.repeat(lambda: metrics.snapshot(windows, process()), number=1, repeat=ROUNDS))
    in_thread = min(timeit.repeat(lambda: rendered(shown, is_open=True), number=1, repeat=ROUNDS))
    return [
        Figure(name="metrics: a full page, on the loop", value=on_loop * 1e3, unit="ms"),
        Figure(name="metrics: a full page, in a thread", value=in_thread * 1e3, unit="ms"),
        Figure(name="metrics: a full page", value=len(page) / 1024, unit="KiB"),
    ]


if __name__ == "__main__":
    sys.exit(main())
