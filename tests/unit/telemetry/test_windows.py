"""What rooms count is read through windows, and no metric falls when they are replaced."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from proxy.lifecycle.loop_lag import BOUNDS_S, LoopLag
from proxy.lifecycle.reloads import Reloads
from proxy.telemetry.families import BY_NAME
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.windows import NO_LABELS, Count, Totals, Windows
from tests.unit.telemetry.metered import Breaker, Page, Requests, process

counted = st.lists(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=6), max_size=20)
"""At each look: which counters there are, and by how much each has grown since it was last seen."""


class Thing:
    """Counts."""

    def __init__(self) -> None:
        self.count = 0


@given(counted)
def test_a_sum_never_falls_and_misses_nothing_that_was_seen(looks: list[list[tuple[int, int]]]) -> None:
    """Own promise: a reload never makes a counter go down; who counts in two readings is counted once."""
    totals = Totals()
    things: dict[int, Thing] = {}
    expected = 0
    for look in looks:
        present = {which for which, _ in look}
        for which in set(things) - present:
            del things[which]  # it is gone for good; another one of its kind begins at 0
        for which, grown in look:
            thing = things.setdefault(which, Thing())
            thing.count += grown
            expected += grown
        before = sum(value for _, _, value in totals.sums())
        twice = [*things.values(), *things.values()]
        totals.look(Count("x", NO_LABELS, thing, thing.count) for thing in twice)
        after = sum(value for _, _, value in totals.sums())
        assert before <= after == expected


class Tally(Struct):
    granted: int = 0
    refused: int = 0
    reported: int = 0


class Store(Struct):
    counts: Mapping[str, int] = {}


class Guarding(Struct):
    refused: Mapping[str, int] = {}
    quarantined: tuple[str, ...] = ("a", "b")


def test_rooms_that_are_replaced_leave_their_counts() -> None:
    metrics = Metrics()
    kept = Store({"stored": 5})
    breaker = Breaker(opened=2)

    def reading(refused: int) -> Windows:
        return Windows(
            requests=Requests(2, 1),
            breaker=breaker,
            guarding=Guarding({"breaker": refused}),
            store=kept,
            store_bytes=lambda: 77,
            tallies={"daily": Tally(refused=refused)},
        )

    old, new = reading(3), reading(0)
    assert Page(metrics, old)("breaker_refused_total", why="breaker") == 3
    page = Page(metrics, old, new)
    assert page("breaker_refused_total", why="breaker") == 3
    assert page("limit_decisions_total", limit="daily", decision="refused") == 3
    assert page("cache_events_total", event="stored") == 5
    assert page("breaker_opened_total") == 2
    assert page("requests_in_flight") == 4
    assert page("streams_open") == 2
    assert (page("cache_bytes"), page("breaker_state"), page("quarantined_tools")) == (77, 2, 2)
    later = Page(metrics, reading(1))
    assert later("breaker_refused_total", why="breaker") == 4
    assert later("breaker_opened_total") == 2


def test_the_process_tells_of_reloads_and_of_the_loop() -> None:
    reloads, lag = Reloads(), LoopLag()
    for seconds in (0.0005, 0.003, 7.0):
        lag.heard(seconds, 0.0)
    windows = process(reloads, lag)
    page = Page(Metrics(), windows=windows)
    assert page("config_last_reload_successful") == 1
    assert page("loop_lag_seconds_count") == 3
    assert page("loop_lag_seconds_bucket", le="0.005") == 2
    assert page("loop_lag_seconds_bucket", le="+Inf") == 3
    reloads.ended(well=False)
    page = Page(Metrics(), windows=windows)
    assert page("config_last_reload_successful") == 0
    assert page("config_reloads_total", result="failed") == 1


def test_the_bounds_of_the_lag_are_those_it_is_counted_by() -> None:
    """Else every bucket of the metric would be wrong."""
    assert BY_NAME["loop_lag_seconds"].bounds == BOUNDS_S


def test_many_limits_leave_few_series() -> None:
    """Settings may hold any number of them, and change."""
    metrics = Metrics()
    for generation in range(3):
        tallies = {f"limit {generation} {n}": Tally(granted=1) for n in range(1_000)}
        page = Page(metrics, Windows(requests=Requests(), tallies=tallies))
        assert page.series["limit_decisions"] <= 1_000
    assert sum(page.all("limit_decisions_total").values()) == 3_000


class Records(Struct):
    write_failures: int = 0


class Spans(Struct):
    exported: int = 0
    failed: int = 0
    dropped: int = 0


def test_what_no_sink_took_is_counted() -> None:
    """Design section 6, audit_write_failures_total; lines that were dropped, spans that did not arrive."""
    reading = Windows(requests=Requests(), records=Records(3), spans=Spans(7, 2, 1))
    page = Page(Metrics(), reading, windows=process(dropped=5))
    assert page("audit_write_failures_total") == 3
    assert page("log_lines_dropped_total") == 5
    events = ("exported", "failed", "dropped")
    assert [page("trace_spans_total", event=each) for each in events] == [7, 2, 1]
