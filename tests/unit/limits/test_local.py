"""All or nothing, exact waits, clocks that jump, and a table that floods cannot empty: arithmetic on two clocks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from proxy.limits.demand import Demand, Denied, Granted, Quota, Rate, Window
from proxy.limits.local import LONGEST_STEP_S, Local

NOON = 1_770_724_800.0
"""2026-02-10, 12:00 UTC."""
MIDNIGHT = NOON + 12 * 3600
DAY = Window("day")
HOUR = Window("sliding", sliding_s=3600)


def rate(
    cost: int = 1, *, per_s: float = 10, burst: int = 20, key: str = "k", holder: str = "", must: bool = False
) -> Demand:
    return Demand("rate", f"rate/{key}", Rate(per_s, burst), cost, must, holder)


def quota(
    cost: int = 1,
    *,
    units: int = 100,
    window: Window = DAY,
    key: str = "k",
    holder: str = "",
    must: bool = False,
) -> Demand:
    return Demand("quota", f"quota/{key}", Quota(units, window), cost, must, holder)


def passed(local: Local, *demands: Demand, now: float = 0.0, wall: float = NOON) -> bool:
    return isinstance(local.take(demands, now=now, wall=wall), Granted)


def granted(local: Local, demand: Demand, *, now: float = 0.0, wall: float = NOON, tries: int = 300) -> int:
    return sum(passed(local, demand, now=now, wall=wall) for _ in range(tries))


def wait_s(local: Local, *demands: Demand, now: float = 0.0, wall: float = NOON) -> float:
    decision = local.take(demands, now=now, wall=wall)
    assert isinstance(decision, Denied)
    return decision.retry_after_s


def test_a_burst_passes_and_the_rate_after_it() -> None:
    local = Local()
    assert granted(local, rate()) == 20
    assert [granted(local, rate(), now=second) for second in (0.05, 0.1, 1.0, 1.55, 100.0)] == [
        0,
        1,
        9,
        5,
        20,
    ]


def test_what_is_left_is_told() -> None:
    local = Local()
    assert local.take([rate(3), quota(40)], now=0, wall=NOON) == Granted((17, 60))
    assert local.take([rate(), quota(60)], now=0.05, wall=NOON) == Granted((16, 0))
    assert local.take([quota(2)], now=0.05, wall=NOON) == Denied(0, 0, 43_200)


@pytest.mark.parametrize("refusing", [rate(5, burst=4), quota(101), rate(per_s=0), quota(units=0)])
def test_a_refused_call_takes_of_no_limit(refusing: Demand) -> None:
    """Design 4: all or nothing over every limit that applies (LIM-008: no partial charge kept)."""
    local = Local()
    others = [rate(key="other"), quota(key="other"), quota(key="sliding", window=HOUR)]
    for _ in range(50):
        assert not passed(local, *others[:2], refusing, others[2])
    for other in others:
        most = 20 if other.limit == "rate" else 100
        assert granted(local, other) == most


def test_one_key_asked_twice_counts_twice() -> None:
    """Own promise: two demands of one call on one bucket are not judged alone, and are taken back together."""
    for demand in (rate(12), quota(60), quota(60, window=HOUR)):
        local = Local()
        assert not passed(local, demand, demand)
        assert passed(local, demand)


@pytest.mark.parametrize(
    ("demand", "expected"),
    [
        (rate(1), 0.1),
        (rate(7), 0.7),
        (rate(20), 2.0),
        (rate(21), math.inf),
        (rate(per_s=0), math.inf),
        (quota(1), 43_200),
        (quota(100), 43_200),
        (quota(101), math.inf),
        (quota(units=0), math.inf),
        (quota(window=Window("minute")), 60),
        (quota(window=Window("day", "Asia/Tokyo")), 3 * 3600),
    ],
)
def test_the_wait_is_exact(demand: Demand, expected: float) -> None:
    """Issue 5: exact retry-after; whoever comes back when told passes, a moment earlier is too early."""
    local = Local()
    full = rate(20, per_s=10) if demand.limit == "rate" else quota(100, window=_window(demand))
    assert passed(local, full)
    waits = wait_s(local, demand)
    assert waits == pytest.approx(expected)
    if waits < math.inf:
        early = waits - 0.001
        assert not passed(local, demand, now=early, wall=NOON + early)
        assert passed(local, demand, now=waits, wall=NOON + waits)


def _window(demand: Demand) -> Window:
    assert isinstance(demand.measure, Quota)
    return demand.measure.window


@pytest.mark.parametrize("per_s", [1e-6, 0.1, 1 / 3, 7.7, 1e6])
@pytest.mark.parametrize("now", [0.1, 12_345.678_9, 9e6])
def test_the_wait_is_exact_for_slow_and_fast_buckets_and_old_processes(per_s: float, now: float) -> None:
    local = Local()
    demand = rate(per_s=per_s, burst=3)
    for _ in range(50):
        while passed(local, demand, now=now):
            pass
        now += wait_s(local, demand, now=now)
        assert passed(local, demand, now=now)


def test_the_longest_wait_is_told() -> None:
    local = Local()
    slow, fast, daily = rate(per_s=0.1, burst=1, key="slow"), rate(burst=1, key="fast"), quota(units=1)
    assert passed(local, fast, slow)
    assert local.take([fast, slow, fast], now=0, wall=NOON) == Denied(1, 0, 10.0)
    assert passed(local, daily)
    assert local.take([fast, daily, slow], now=0, wall=NOON) == Denied(1, 0, 43_200)


def test_what_must_pass_takes_what_is_there() -> None:
    """Contract: never refused, and the bucket never goes below empty."""
    local = Local()
    for limited in (rate(15), quota(70), quota(70, window=HOUR, key="sliding")):
        must = Demand(limited.limit, limited.key, limited.measure, limited.cost, True)
        assert [local.take([must], now=0, wall=NOON) for _ in range(3)] == [
            Granted((5 if limited.limit == "rate" else 30,)),
            Granted((0,)),
            Granted((0,)),
        ]
        assert not passed(local, limited)
    assert passed(local, rate(1), now=0.1)
    blocked = rate(per_s=0, key="blocked", must=True)
    assert local.take([blocked], now=0, wall=NOON) == Granted((0,))


def test_what_is_free_passes_where_nothing_is_left_but_not_where_it_is_blocked() -> None:
    local = Local()
    assert passed(local, rate(20))
    assert passed(local, rate(0))
    assert not passed(local, rate(0, per_s=0, key="other"))


# Quotas


def test_a_day_begins_at_midnight_and_only_once() -> None:
    """LIM-022: no double quota in the overlap."""
    local = Local()
    assert granted(local, quota(), wall=MIDNIGHT - 0.001) == 100
    assert granted(local, quota(), wall=MIDNIGHT) == 100
    assert granted(local, quota(), wall=MIDNIGHT + 86_399) == 0


def test_a_sliding_window_never_holds_more_than_the_quota() -> None:
    local = Local()
    demand = quota(window=HOUR)
    passes = [second for second in range(0, 20_000, 7) if passed(local, demand, wall=NOON + second)]
    assert len(passes) > 450
    for start in passes:
        assert sum(start <= each < start + 3600 for each in passes) <= 100


def test_units_leave_a_sliding_window_a_sixtieth_late_at_most() -> None:
    local = Local()
    demand = quota(100, window=HOUR)
    assert passed(local, demand)
    waits = wait_s(local, demand)
    assert 3600 <= waits <= 3660.1
    assert not passed(local, demand, wall=NOON + waits - 0.001)
    assert passed(local, demand, wall=NOON + waits)


def test_a_sliding_wait_is_for_as_much_as_is_asked() -> None:
    local = Local()
    for minutes in range(10):
        assert passed(local, quota(10, window=HOUR), wall=NOON + 60 * minutes)
    at = NOON + 600
    assert [round(wait_s(local, quota(cost, window=HOUR), wall=at)) for cost in (1, 10, 11, 100)] == [
        3060,
        3060,
        3120,
        3600,
    ]
    assert wait_s(local, quota(101, window=HOUR), wall=at) == math.inf


@pytest.mark.parametrize("window", [DAY, HOUR])
def test_what_was_not_used_is_given_back(window: Window) -> None:
    local = Local()
    assert passed(local, quota(60, window=window))
    local.refund([quota(60, window=window)], wall=NOON)
    assert granted(local, quota(window=window)) == 100


@pytest.mark.parametrize("window", [DAY, HOUR])
def test_never_more_is_given_back_than_was_taken(window: Window) -> None:
    local = Local()
    assert passed(local, quota(5, window=window))
    for _ in range(10):
        local.refund([quota(5, window=window)], wall=NOON)
    assert granted(local, quota(window=window)) == 100


def test_nothing_is_given_back_into_another_window() -> None:
    """Own promise: a call of yesterday that never reached the server is no call more today."""
    local = Local()
    assert passed(local, quota(50), wall=MIDNIGHT - 1)
    assert granted(local, quota(), wall=MIDNIGHT) == 100
    local.refund([quota(50)], wall=MIDNIGHT - 1)
    assert granted(local, quota(), wall=MIDNIGHT) == 0


def test_nothing_is_given_back_into_another_step_of_a_sliding_window() -> None:
    local = Local()
    assert passed(local, quota(50, window=HOUR))
    assert passed(local, quota(50, window=HOUR), wall=NOON + 1800)
    local.refund([quota(80, window=HOUR)], wall=NOON + 1800)
    assert granted(local, quota(window=HOUR), wall=NOON + 1800) == 50
    local.refund([quota(50, window=HOUR)], wall=NOON + 900)
    assert not passed(local, quota(window=HOUR), wall=NOON + 1800)


@pytest.mark.parametrize("wall", [math.nan, math.inf, -math.inf, -1.0])
@pytest.mark.parametrize("window", [DAY, HOUR])
def test_what_was_taken_at_no_time_is_not_given_back(window: Window, wall: float) -> None:
    local = Local()
    assert passed(local, quota(60, window=window))
    local.refund([quota(60, window=window)], wall=wall)
    assert granted(local, quota(window=window)) == 40


def test_rates_and_what_must_pass_are_not_given_back() -> None:
    """Contract: never its rate token; and who took less than it asked has nothing to get."""
    local = Local()
    must = quota(60, must=True)
    assert passed(local, rate(20), quota(50))
    assert passed(local, must)
    local.refund([rate(20), must], wall=NOON)
    assert not passed(local, rate())
    assert not passed(local, quota())


# Clocks


@pytest.mark.parametrize("jump", [math.nan, math.inf, -math.inf, -1e18, 1e18, -5.0, 2 * LONGEST_STEP_S])
def test_a_jump_of_the_clock_gives_nothing_and_time_goes_on(jump: float) -> None:
    """Issue 5: clock jumps harmless."""
    local = Local()
    assert granted(local, rate(), now=1000.0) == 20
    for _ in range(5):
        assert not passed(local, rate(), now=1000.0 + jump)
        assert not passed(local, rate(), now=1000.0)
    # Wherever the clock is now, a second of it is a second.
    assert granted(local, rate(), now=1001.0) == 10


def test_a_clock_that_was_set_back_is_waited_for_or_followed() -> None:
    """Nobody is locked out for ever."""
    local = Local()
    assert granted(local, rate(), now=1e6) == 20
    assert granted(local, rate(), now=1e6 - 50) == 0
    assert granted(local, rate(), now=1e6 - 1) == 0
    assert granted(local, rate(), now=1e6 + 1) == 10
    assert granted(local, rate(), now=100.0) == 0
    assert granted(local, rate(), now=101.0) == 10


def test_a_first_look_at_a_broken_clock_is_survived() -> None:
    local = Local()
    assert granted(local, rate(), now=math.nan, wall=math.nan) == 20
    assert granted(local, rate(), now=7.0) == 0
    assert granted(local, rate(), now=8.0) == 10


@pytest.mark.parametrize("wall", [math.nan, math.inf, -math.inf, -1.0, 1e300])
@pytest.mark.parametrize("window", [DAY, HOUR, Window("month", "Europe/Berlin")])
def test_a_wall_that_shows_no_time_shows_the_last_one(wall: float, window: Window) -> None:
    local = Local()
    assert granted(local, quota(window=window)) == 100
    assert granted(local, quota(window=window), wall=wall) == 0
    assert 0 < wait_s(local, quota(window=window), wall=wall) < 32 * 86_400


@pytest.mark.parametrize("back_s", [0.5, 3600, 80_000])
def test_a_clock_set_back_over_midnight_gives_no_day_twice(back_s: float) -> None:
    local = Local()
    assert granted(local, quota(), wall=MIDNIGHT + 1) == 100
    assert granted(local, quota(), wall=MIDNIGHT + 1 - back_s) == 0
    assert granted(local, quota(), wall=MIDNIGHT + 2) == 0


@pytest.mark.parametrize("window", [DAY, HOUR])
def test_a_clock_that_showed_the_year_2100_locks_nobody_out_for_ever(window: Window) -> None:
    local = Local()
    assert granted(local, quota(window=window), wall=4_102_444_800.0) == 100
    assert granted(local, quota(window=window), wall=NOON) == 0
    assert granted(local, quota(window=window), wall=MIDNIGHT + 3700) == 100


def test_the_wait_follows_a_clock_that_was_set_back() -> None:
    local = Local()
    assert granted(local, quota(), wall=MIDNIGHT) == 100
    assert wait_s(local, quota(), wall=MIDNIGHT - 3600) == 86_400 + 3600


# The table


def flood(local: Local, count: int, holder: str, *, now: float = 0.0, name: str = "flood") -> list[bool]:
    return [passed(local, rate(20, key=f"{holder}-{name}-{n}", holder=holder), now=now) for n in range(count)]


def test_a_flood_of_keys_resets_nobody() -> None:
    """Issue 5: bounded tables in which flooding cannot reset anybody's bucket."""
    local = Local(places=100)
    victim = rate(key="victim", holder="quiet")
    assert granted(local, victim) == 20
    for holder in ("a", "b", "c"):
        flood(local, 500, holder)
    assert not passed(local, victim)
    assert len(local) <= 100


def test_who_floods_fills_a_share_and_others_find_room() -> None:
    local = Local(places=100)
    flood(local, 500, "a")
    assert len(local) == 80
    flood(local, 500, "b")
    assert len(local) == 96
    assert flood(local, 3, "quiet") == [True, True, True]


def test_keys_without_room_share_one_bucket() -> None:
    """Own promise: a full table is no pass; what does not fit is limited together, tenant by tenant."""
    local = Local(places=100)
    assert flood(local, 500, "a") == [True] * 81 + [False] * 419
    assert local.turned_away == 420
    # Their bucket fills like any other, with half of its tokens after a second.
    late = [rate(10, key=f"late-{number}", holder="a") for number in range(3)]
    assert [passed(local, each, now=1.0) for each in late] == [True, False, False]


def test_keys_without_room_share_one_quota() -> None:
    local = Local(places=10)
    got = [passed(local, quota(60, key=f"{n}", holder="a")) for n in range(30)]
    assert got == [True] * 9 + [False] * 21


def test_where_even_those_are_too_many_all_share_one() -> None:
    local = Local(places=2, shared=2)
    passes = sum(flood(local, 1, f"tenant-{n}")[0] for n in range(100))
    assert passes == 5


def test_a_key_that_finds_room_later_brings_along_what_it_used() -> None:
    """No double burst: first as one of many, then with a bucket of its own."""
    local = Local(places=10)
    flood(local, 8, "a")
    late = rate(20, key="late", holder="a")
    assert passed(local, late)
    # The others are full again and make room; whoever came late has a second behind it too.
    for number in range(8):
        passed(local, rate(20, key=f"new-{number}", holder="b"), now=1.9)
    assert granted(local, rate(key="late", holder="a"), now=1.9) == 19
    assert not passed(local, late, now=2.0)


@pytest.mark.parametrize("window", [DAY, HOUR])
def test_a_quota_that_finds_room_later_brings_along_what_was_used(window: Window) -> None:
    local = Local(places=50)
    # Buckets that are full again in two seconds, and hold every place until then.
    for number in range(50):
        passed(local, rate(20, key=f"a-{number}", holder="a"))
    late = quota(60, window=window, key="late", holder="a")
    assert passed(local, late)
    assert local.turned_away > 0
    for number in range(50):
        passed(local, rate(key=f"b-{number}", holder="b"), now=5.0)
    turned_away = local.turned_away
    assert not passed(local, late, now=5.0)
    assert granted(local, quota(window=window, key="late", holder="a"), now=5.0) == 40
    assert local.turned_away == turned_away


def test_who_was_with_all_the_others_brings_along_what_they_used() -> None:
    local = Local(places=1, shared=0)
    assert passed(local, rate(20, key="first", holder="a"))
    late = rate(20, key="late", holder="b", per_s=1)
    assert passed(local, late)
    # The first is full again and makes room.
    assert not passed(local, late, now=2.0)
    assert local.evictions == 1
    assert granted(local, rate(key="late", holder="b", per_s=1), now=2.0) == 2


@pytest.mark.parametrize("window", [DAY, HOUR])
def test_keys_without_room_are_given_back_to(window: Window) -> None:
    demand = quota(60, window=window, holder="a")
    local = Local(places=5)
    flood(local, 5, "a")
    assert passed(local, demand)
    local.refund([demand], wall=NOON)
    assert passed(local, quota(100, window=window, holder="a"))


def test_full_buckets_make_room_for_new_keys() -> None:
    local = Local(places=100)
    flood(local, 80, "a")
    assert all(flood(local, 80, "a", now=10.0, name="next"))
    assert local.evictions >= 79
    assert len(local) <= 80


def test_counters_of_the_last_day_make_room_once_no_clock_can_be_set_back_to_it() -> None:
    local = Local(places=10)
    for number in range(8):
        assert passed(local, quota(100, key=f"{number}"))
    assert local.evictions == 0
    for number in range(8):
        assert passed(local, quota(100, key=f"new-{number}"), wall=MIDNIGHT + 3600)
    assert local.evictions == 8


def test_a_counter_that_is_over_is_there_when_the_clock_is_set_back() -> None:
    local = Local(places=100)
    assert passed(local, quota(100, key="mine"))
    for number in range(10):
        assert passed(local, quota(100, key=f"new-{number}"), wall=MIDNIGHT + 1)
    assert not passed(local, quota(key="mine"), wall=MIDNIGHT - 1)


def test_an_empty_counter_of_a_new_day_is_there_when_the_clock_is_set_back() -> None:
    """It is what keeps the day before from being begun again."""
    local = Local(places=100)
    assert passed(local, quota(100, key="mine"))
    assert not passed(local, quota(101, key="mine"), wall=MIDNIGHT + 1)
    for number in range(10):
        assert passed(local, quota(100, key=f"new-{number}"), wall=MIDNIGHT + 1)
    assert granted(local, quota(key="mine"), wall=MIDNIGHT - 1) == 100
    assert not passed(local, quota(key="mine"), wall=MIDNIGHT + 2)


def test_an_empty_sliding_counter_is_there_when_the_clock_is_set_back() -> None:
    """What is taken on a clock that was set back counts from when it was ahead."""
    local = Local(places=1000)
    assert passed(local, quota(100, key="mine", window=HOUR))
    local.refund([quota(100, key="mine", window=HOUR)], wall=NOON)
    for number in range(10):
        passed(local, quota(key=f"new-{number}", window=HOUR))
    assert passed(local, quota(100, key="mine", window=HOUR), wall=NOON - 1800)
    assert not passed(local, quota(key="mine", window=HOUR), wall=NOON + 2000)


def test_sliding_counters_take_the_places_they_need() -> None:
    local = Local(places=100)
    for number in range(50):
        passed(local, quota(100, key=f"{number}", window=HOUR))
    assert len(local) == 16
    few = Local(places=12)
    for number in range(5):
        passed(few, quota(100, key=f"{number}", holder=f"{number}", window=HOUR))
    assert len(few) == 2


# Other settings


def test_a_change_of_the_measure_keeps_what_was_used() -> None:
    local = Local()
    assert passed(local, rate(20), quota(100), quota(100, key="s", window=HOUR))
    changed = [rate(burst=25), quota(units=105), quota(units=105, key="s", window=HOUR)]
    assert [granted(local, each) for each in changed] == [5, 5, 5]


@pytest.mark.parametrize(
    "other",
    [quota(key="k", window=HOUR), quota(window=Window("month")), quota(window=Window("day", "Asia/Tokyo"))],
)
def test_another_window_begins_anew(other: Demand) -> None:
    local = Local()
    assert passed(local, quota(100))
    assert granted(local, other) == 100
    assert len(local) == 1


def test_a_key_may_become_one_of_another_kind() -> None:
    local = Local()
    for measure in (Rate(10, 20), Quota(100, DAY), Rate(10, 20), Quota(100, HOUR)):
        demands: Sequence[Demand] = [Demand("l", "l/k", measure, 20)]
        assert isinstance(local.take(demands, now=0, wall=NOON), Granted)
    assert len(local) == 1
