"""One script decides for all replicas, at the moment it is given: arithmetic, on the engine that runs it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from proxy.limits.demand import Demand, Denied, Quota, Rate, Window
from proxy.limits.valkey_script import DECIDE, SLICES, Asking, Elsewhen, Nonsense, Taken, said
from tests.valkey import Valkey

T0 = 1_790_000_000
US = 1_000_000
FRESH = (f"{{t}}:{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def store() -> Iterator[Valkey]:
    with Valkey() as store:
        yield store


Row = tuple[str, str, int, int, int, float, int]
"""Key, kind, most, cost, must pass, and the two numbers of its kind."""


def rate(burst: int, per_s: float, *, cost: int = 1, must: bool = False, key: str = "") -> Row:
    return key or next(FRESH), "rate", burst, cost, int(must), per_s, 0


def calendar(units: int, *, cost: int = 1, must: bool = False, key: str = "", start: int = T0 - 20) -> Row:
    return key or next(FRESH), "calendar", units, cost, int(must), start, start + 60


def sliding(units: int, *, cost: int = 1, must: bool = False, key: str = "", slice_us: int = US) -> Row:
    return key or next(FRESH), "sliding", units, cost, int(must), slice_us, 0


def run(store: Valkey, at_us: int, *rows: Row, verb: str = "take") -> list[int]:
    """The script's reply at a moment, counted from T0, without the time in it."""
    s, us = divmod(T0 * US + at_us, US)
    text = f"{DECIDE}\nreturn decide(tonumber(ARGV[#ARGV - 1]), tonumber(ARGV[#ARGV]))"
    values: list[str | int | float] = [verb]
    for row in rows:
        values += row[1:]
    reply = store.client.eval(text, len(rows), *(row[0] for row in rows), *values, s, us)
    if verb == "refund":
        assert isinstance(reply, int)
        return [reply]
    assert isinstance(reply, list)
    assert reply[1:3] == [s, us]
    return [reply[0], *reply[3:]]


def test_a_rate_gives_its_burst_and_then_says_exactly_when(store: Valkey) -> None:
    row = rate(2, 10.0)
    replies = [run(store, at, row) for at in (0, 0, 0, 99_999, 100_000)]
    assert replies == [
        [1, 0, 1, 1],
        [1, 0, 0, 1],
        [0, 0, 1, 0, 100_000],
        [0, 0, 1, 0, 1],
        [1, 0, 0, 1],
    ]


def test_nothing_is_taken_where_one_limit_refuses(store: Valkey) -> None:
    """Design 4: all or nothing; the one that refuses longest is named."""
    plenty, some, empty = rate(9, 1.0), sliding(5), calendar(0, cost=0)
    assert run(store, 0, plenty, some, empty) == [0, 0, 3, 0, -1]
    assert run(store, 0, plenty, some) == [1, 0, 8, 1, 4, 1]


def test_the_limit_that_refuses_longest_is_named(store: Valkey) -> None:
    soon, later = rate(1, 10.0), calendar(1)
    assert run(store, 0, soon, later)[0] == 1
    assert run(store, 0, soon, later) == [0, 0, 2, 0, 40 * US]
    assert run(store, 0, later, soon) == [0, 0, 1, 0, 40 * US]


@pytest.mark.parametrize("row", [rate(4, 1.0, cost=5), calendar(4, cost=5), sliding(4, cost=5)])
def test_what_is_more_than_there_ever_is_never_passes(store: Valkey, row: Row) -> None:
    assert run(store, 0, row) == [0, 0, 1, 4, -1]


@pytest.mark.parametrize(
    "row", [rate(0, 1.0), rate(5, 0.0), calendar(0), sliding(0), rate(5, 0.0, cost=0), calendar(0, cost=0)]
)
def test_zero_is_blocked(store: Valkey, row: Row) -> None:
    assert run(store, 0, row) == [0, 0, 1, 0, -1]


def test_what_must_pass_takes_what_is_there(store: Valkey) -> None:
    """Never below empty: the next one waits no longer because of it."""
    for kind, wait in ((rate(3, 1.0), US), (calendar(3), 40 * US), (sliding(3), 61 * US)):
        must = (*kind[:3], 2, 1, *kind[5:])
        blocked = (*kind[:2], 0, 2, 1, *kind[5:])
        replies = [run(store, 0, row) for row in (must, must, must, blocked, kind)]
        assert replies == [
            [1, 0, 1, 2],
            [1, 0, 0, 1],
            [1, 0, 0, 0],
            [1, 0, 0, 0],
            [0, 0, 1, 0, wait],
        ]


def test_a_calendar_quota_ends_with_its_window(store: Valkey) -> None:
    """LIM-022: neither before nor after it, by this server's clock."""
    row = calendar(1, start=T0)
    assert run(store, -1, row) == [2, 0]
    assert run(store, 0, row)[0] == 1
    assert run(store, 60 * US - 1, row) == [0, 0, 1, 0, 1]
    assert run(store, 60 * US, row) == [2, 0]
    assert run(store, 59 * US, row)[0] == 0, "a clock set back gives no window twice"
    assert math.ceil(int(str(store.client.pttl(row[0]))) / 1000) == 120


def test_every_key_expires_when_it_says_nothing_any_more(store: Valkey) -> None:
    rows = rate(10, 2.0, cost=10), calendar(9), sliding(9)
    run(store, 0, *rows)
    lives = [store.client.pttl(row[0]) for row in rows]
    assert [math.ceil(int(str(life)) / 1000) for life in lives] == [6, 100, 62]


def test_clocks_that_go_back_refill_nothing_and_block_nobody(store: Valkey) -> None:
    back = -3_600 * US
    bucket, window = rate(2, 1.0), sliding(2)
    assert [run(store, at, bucket, window)[0] for at in (0, 0, back, back + US - 1)] == [1, 1, 0, 0]
    assert run(store, back + US, bucket)[0] == 1
    assert run(store, back + 60 * US, window)[0] == 0
    assert run(store, back + 122 * US, window)[0] == 1


LONG = ",".join(f"{slice}:1" for slice in range(1_000, 1_999))
"""Slices that are over, as we would write them, but more than there can be; the first 2,001 characters are whole."""
POISON = [
    "",
    "nan",
    "inf",
    "-5",
    "1e999 5",
    "nan 5",
    "-1 0",
    "0x10 0",
    "9223372036854775807",
    "9" * 400,
    "pickle",
]


@pytest.mark.parametrize(
    "poison", [*POISON, "x" * 100_000, LONG, "1:2;2:2", "1:2,1:2", "5:1,4:1", "1:1,", b"\x80\x04\xff"]
)
@pytest.mark.parametrize("kind", [rate, calendar, sliding])
def test_what_is_not_ours_is_an_empty_bucket(store: Valkey, kind: object, poison: str | bytes) -> None:
    """LIM-023: no error, no free pass, and it fills again."""
    row = {rate: rate(3, 1.0), calendar: calendar(3), sliding: sliding(3)}[kind]  # type: ignore[index]  # of three
    store.client.set(row[0], poison)
    wait = {"rate": US, "calendar": 40 * US, "sliding": 61 * US}[row[1]]
    assert run(store, 0, row) == [0, 1, 1, 0, wait]
    assert run(store, 0, row) == [0, 0, 1, 0, wait], "it was put right"
    assert int(str(store.client.pttl(row[0]))) > 0
    if row[1] != "calendar":
        assert run(store, wait, row)[0] == 1


@pytest.mark.parametrize("row", [rate(3, 1.0), calendar(3), sliding(3)])
def test_a_value_of_another_type_is_an_empty_bucket(store: Valkey, row: Row) -> None:
    store.client.rpush(row[0], "a", "b")
    assert run(store, 0, row)[:2] == [0, 1]
    assert store.client.type(row[0]) == b"string"
    store.client.delete(row[0])
    store.client.hset(row[0], "a", "b")
    assert run(store, 0, row, verb="refund") == [0]


def test_fewer_units_than_were_used_are_spent(store: Valkey) -> None:
    """Settings changed meanwhile; the same for a smaller burst."""
    for row in (rate(9, 1.0, cost=9), calendar(9, cost=9), sliding(9, cost=9)):
        run(store, 0, row)
        wait = {"rate": US, "calendar": 40 * US, "sliding": 61 * US}[row[1]]
        assert run(store, 0, (*row[:2], 3, 1, *row[4:])) == [0, 0, 1, 0, wait], (
            "and no longer than from empty"
        )


def test_a_refund_gives_back_what_was_taken_in_the_same_window(store: Valkey) -> None:
    quota, window = calendar(5, cost=3), sliding(5, cost=3)
    run(store, 0, quota, window)
    taken_at = (*window[:6], T0 * US)
    assert run(store, 10 * US, quota, taken_at, verb="refund") == [2]
    assert run(store, 10 * US, quota, window) == [1, 0, 2, 3, 2, 3]
    assert run(store, 10 * US, (*quota[:3], 9, *quota[4:]), verb="refund") == [1], "never more than was used"
    assert run(store, 10 * US, quota) == [1, 0, 2, 3]


def test_a_refund_begins_no_window(store: Valkey) -> None:
    quota, window = calendar(5), sliding(5)
    assert run(store, 0, quota, window, verb="refund") == [0]
    assert store.client.exists(quota[0], window[0]) == 0
    run(store, 0, quota)
    assert run(store, 40 * US, quota, verb="refund") == [0], "it has ended"
    run(store, 0, window)
    other_slice = (*window[:6], (T0 + 5) * US)
    assert run(store, 5 * US, other_slice, verb="refund") == [0]


class Model:
    """What the script should say, in exact numbers: a bucket, a calendar window and a sliding one."""

    def __init__(self, burst: int, per_s: Fraction, units: int, slided: int) -> None:
        self.burst, self.per_s, self.units, self.slided = burst, per_s, units, slided
        self.missing, self.since = Fraction(0), 0
        self.used = 0
        self.slices: dict[int, int] = {}

    def free(self, at_us: int) -> tuple[Fraction, int, int]:
        missing = max(Fraction(0), self.missing - (at_us - self.since) * self.per_s / US)
        oldest = (T0 * US + at_us) // US - SLICES
        counted = sum(units for slice, units in self.slices.items() if slice >= oldest)
        return self.burst - missing, self.units - self.used, self.slided - counted

    def take(self, at_us: int, cost: int) -> tuple[int, int, int] | None:
        free = self.free(at_us)
        if any(cost > each for each in free):
            return None
        self.missing, self.since = self.burst - free[0] + cost, at_us
        self.used += cost
        slice = (T0 * US + at_us) // US
        self.slices[slice] = self.slices.get(slice, 0) + cost
        return math.floor(free[0] - cost), free[1] - cost, free[2] - cost


@settings(max_examples=60, deadline=None)
@given(
    burst=st.integers(1, 20),
    # Quarters are exact in both arithmetics, so that equal means equal.
    quarters=st.integers(1, 80),
    units=st.integers(1, 60),
    slided=st.integers(1, 40),
    steps=st.lists(st.tuples(st.integers(0, 6_000_000), st.integers(1, 6)), min_size=1, max_size=20),
)
def test_it_decides_as_exact_numbers_do(
    store: Valkey, burst: int, quarters: int, units: int, slided: int, steps: list[tuple[int, int]]
) -> None:
    """Never more than burst + rate·T, than the units of a window, or than those of any stretch of its length."""
    model = Model(burst, Fraction(quarters, 4), units, slided)
    rows = rate(burst, quarters / 4), calendar(units, start=T0 - 3_600), sliding(slided)
    at_us = 0
    granted: list[tuple[int, int]] = []
    for pause_us, cost in steps:
        at_us += pause_us
        bucket, window, stretch = ((*row[:3], cost, *row[4:]) for row in rows)
        reply = run(store, at_us, bucket, (*window[:6], T0 + 3_600), stretch)
        expected = model.take(at_us, cost)
        if expected is None:
            assert reply[0] == 0
            continue
        assert reply[0] == 1
        assert tuple(reply[2::2]) == expected
        granted.append((at_us, cost))
    assert sum(cost for _, cost in granted) <= min(
        units, math.floor(burst + Fraction(quarters, 4) * at_us / US)
    )
    for first, _ in granted:
        assert sum(cost for at, cost in granted if first <= at < first + 60 * US) <= slided


@settings(max_examples=60, deadline=None)
@given(
    burst=st.integers(1, 1_000_000),
    per_s=st.floats(1e-4, 1e6),
    cost=st.integers(1, 1_000_000),
    first=st.integers(1, 1_000_000),
    pause_us=st.integers(0, 10_000_000),
)
def test_whoever_waits_as_told_passes(
    store: Valkey, burst: int, per_s: float, cost: int, first: int, pause_us: int
) -> None:
    """Whatever the numbers: the wait is never too short, and too long by a rounded microsecond at most. Thirty years
    is the longest it says."""
    assume(burst / per_s < 9e8)
    key = next(FRESH)
    run(store, 0, rate(burst, per_s, cost=min(first, burst), key=key))
    row = rate(burst, per_s, cost=min(cost, burst), key=key)
    reply = run(store, pause_us, row)
    if reply[0] == 0:
        wait_us = reply[4]
        grain_us = math.ceil(2e-6 * US / per_s) + 2
        if wait_us > grain_us:
            assert run(store, pause_us + wait_us - grain_us, row)[0] == 0
        assert run(store, pause_us + wait_us, row)[0] == 1


# What goes over the wire.

DAY = Window("day")


def demand(measure: Rate | Quota, key: str = "k", cost: int = 1, must: bool = False) -> Demand:
    return Demand(limit="l", key=key, measure=measure, cost=cost, must_pass=must)


def test_keys_have_one_hash_tag_a_version_and_their_window() -> None:
    """One tag: a cluster keeps them on one slot. Another window, or length of one, is another key."""
    demands = (
        demand(Rate(10.0, 20)),
        demand(Quota(5, DAY)),
        demand(Quota(5, Window("month"))),
        demand(Quota(5, Window("sliding", sliding_s=3_600))),
    )
    command = Asking("house").take(demands, 86_400.0 * 31 + 5)
    assert [word for word in command.split(b"\r\n") if word.startswith(b"{")] == [
        b"{mcp-sidecar:house}:1:rate:k",
        b"{mcp-sidecar:house}:1:day:2678400:k",
        b"{mcp-sidecar:house}:1:month:2678400:k",
        b"{mcp-sidecar:house}:1:sliding:60000000:k",
    ]


def test_a_window_is_looked_up_again_when_it_has_ended() -> None:
    asking = Asking("h")
    days = [b":day:86400:", b":day:0:", b":day:172800:"]
    for now_s, day in zip((86_400.0, 86_399.9, 172_800.5), days, strict=True):
        assert day in asking.take((demand(Quota(5, DAY)),), now_s)


def test_refunds_are_for_quotas_only() -> None:
    asking = Asking("h")
    assert asking.refund((demand(Rate(1.0, 1)), demand(Quota(5, DAY))), (1, 0), 5.0) is None
    command = asking.refund((demand(Rate(1.0, 1), "r"), demand(Quota(5, DAY), "q")), (1, 1), 5.0)
    assert command is not None
    assert b"rate" not in command


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ([1, 50, 500_000, 0, 7, 1, 3, 0], Taken((7, 3), (1, 0), 50.5)),
        ([0, 50, 500_000, 1, 2, 4, 1_500_000], Denied(1, 4, 1.5)),
        ([0, 50, 500_000, 1, 1, 4, -1], Denied(0, 4, math.inf)),
        ([2, 50, 500_000, 0], Elsewhen(50.5)),
    ],
)
def test_replies_are_read(reply: list[int], answer: object) -> None:
    assert said(reply, 2).answer == answer


@pytest.mark.parametrize(
    "reply",
    [
        *(None, b"OK", 1, [], [1, 2, 3], [1, 2, 3, 0], [1, 2, 3, 0, 5, 1], [1, 2, 3, 0, b"5", 1, 1, 1]),
        *([0, 2, 3, 0], [0, 2, 3, 0, 3, 0, 5], [0, 2, 3, 0, 0, 0, 5], [2, 2, 3, 0, 1], [3, 2, 3, 0]),
        [True, 2, 3, 0, 7, 1, 3, 0],
    ],
)
def test_another_reply_is_nonsense(reply: object) -> None:
    """Never an answer that somebody else's command was given."""
    with pytest.raises(Nonsense):
        said(reply, 2)
