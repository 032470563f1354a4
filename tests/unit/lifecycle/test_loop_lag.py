"""How late the loop is: numbers for a metric, and a line that does not fill a disk. Source: issue 7, point 7."""

from __future__ import annotations

import asyncio

import pytest

from proxy.lifecycle.loop_lag import (
    BLOCKED_S,
    BOUNDS_S,
    EVERY_S,
    REMEMBERED,
    TELL_EVERY_S,
    Blocked,
    LoopLag,
)


def test_before_the_first_look_there_is_nothing() -> None:
    """A scrape may come first."""
    lag = LoopLag()
    assert (lag.max_s, lag.sum_s, sum(lag.counts), lag.quantile(0.99)) == (0.0, 0.0, 0, 0.0)


def test_looks_are_counted_by_how_late_they_were() -> None:
    """Prometheus: a bucket holds what is not above its bound. A timer that comes early was not late."""
    lag = LoopLag()
    for late_s in (-0.01, 0.001, 0.0011, 5.0, 6.0):
        lag.heard(late_s, 0.0)
    assert lag.counts == [2, 1, *[0] * (len(BOUNDS_S) - 3), 1, 1]
    assert lag.max_s == 6.0
    assert lag.sum_s == pytest.approx(11.0021)


def test_quantiles_are_of_the_last_minute_and_the_most_is_of_all_time() -> None:
    """Bounded: what is older is forgotten but for the counts."""
    lag = LoopLag()
    lag.heard(9.0, 0.0)
    for number in range(REMEMBERED):
        lag.heard(number / REMEMBERED, 0.0)
    assert [lag.quantile(share) for share in (0.0, 0.5, 0.99, 1.0)] == [
        pytest.approx(place / REMEMBERED) for place in (0, 299, 593, 599)
    ]
    assert lag.max_s == 9.0


def test_a_blocked_loop_is_told_at_once_and_then_seldom() -> None:
    """One line, and the next one says how often, and how long the longest was."""
    lag = LoopLag()
    assert lag.heard(BLOCKED_S, 0.0) is None
    assert lag.heard(0.2, 1.0, 0.1) == Blocked(lag_s=0.2, cpu_s=0.1, times=1)
    assert lag.heard(0.9, 2.0, 0.8) is None
    assert lag.heard(0.3, 1.0 + TELL_EVERY_S - 0.1, 0.3) is None
    assert lag.heard(0.0, 1.0 + TELL_EVERY_S) == Blocked(lag_s=0.9, cpu_s=0.8, times=2)
    assert lag.heard(0.0, 1.0 + 2 * TELL_EVERY_S) is None
    assert lag.heard(0.2, 1.0 + 2 * TELL_EVERY_S) == Blocked(lag_s=0.2, cpu_s=0.0, times=1)


def test_what_the_machine_took_is_told_apart_from_what_we_computed() -> None:
    """A quota of CPU that is used up, or a busy machine, is no mistake of a parser; what was computed while the loop
    was in time does not count."""
    lag = LoopLag()
    for late_s, cpu_s in ((0.5, 0.01), (0.0, 0.05), (0.08, 0.13)):
        lag.heard(late_s, 0.0, cpu_s)
    assert (lag.max_s, lag.max_cpu_s) == (0.5, 0.08)


async def test_a_timer_that_comes_late_is_the_lag() -> None:
    """What is measured is what was slept beyond what was asked for; each look is a beat."""
    lag, clock = LoopLag(), [100.0]
    told: list[Blocked] = []
    beats: list[float] = []
    late_s = iter((0.0, 0.25))
    used = iter((1.0, 1.01, 2.0, 2.2, 3.0))

    async def sleep(seconds: float) -> None:
        if (more := next(late_s, None)) is None:
            raise asyncio.CancelledError
        clock[0] += seconds + more

    with pytest.raises(asyncio.CancelledError):
        await lag.run(
            told.append,
            lambda: beats.append(clock[0]),
            now=lambda: clock[0],
            cpu=lambda: next(used),
            sleep=sleep,
        )
    assert lag.max_s == pytest.approx(0.25)
    assert sum(lag.counts) == 2
    (blocked,) = told
    assert (round(blocked.lag_s, 6), round(blocked.cpu_s, 6), blocked.times) == (0.25, 0.2, 1)
    assert beats == [pytest.approx(100 + EVERY_S), pytest.approx(100.25 + 2 * EVERY_S)]
