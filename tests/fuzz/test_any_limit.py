"""Whoever takes, leaves and gets back, whatever the clocks do: never more than burst + rate · t passes in any time, no
window gives more than its quota, and a call that is refused has taken nothing."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Final, TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from proxy.limits.demand import Demand, Denied, Granted, Quota, Rate, Window
from proxy.limits.local import LONGEST_REST_S, LONGEST_STEP_S, Local
from proxy.limits.quota import SLICES
from tests.fuzz.bounded import FUZZ, examples

START: Final = 1_770_724_800
LENGTH_S: Final = 60
MEASURES: Final[Mapping[str, Rate | Quota]] = {
    "fast": Rate(4, 5),
    "slow": Rate(0.25, 3),
    "minute": Quota(6, Window("minute")),
    "sliding": Quota(7, Window("sliding", sliding_s=LENGTH_S)),
}
NONE: Final = Rate(0, 1)

names = st.lists(st.sampled_from([*MEASURES]), min_size=1, max_size=4)
holders = st.sampled_from("aab")
costs = st.sampled_from([1, 1, 1, 2, 3, 5, 8])
eighths = st.sampled_from([0, 0, 1, 2, 4, 8, 8, 40, 240, 480, 481])
"""Of a second, so that sums are exact."""


def demand(name: str, key: str, cost: int = 1, *, must: bool = False, holder: str = "") -> Demand:
    return Demand(name, f"{name}/{key}", MEASURES[name], cost, must, holder)


Refusal: TypeAlias = tuple[int, int, Fraction | None]
"""Which demand refuses, what is left of it, and for how long: None is for ever."""
AS_LONG_S: Final = 1e-5
"""Two waits that differ by less are one: in binary fractions either may be the longer one."""


def seconds(wait: Fraction | None) -> float:
    return math.inf if wait is None else float(wait)


class Plain:
    """The same limits, as one would write them down: exact numbers, and nothing is ever forgotten."""

    def __init__(self) -> None:
        self.now: float | None = None
        self.clock = Fraction(0)
        self.missing: dict[str, tuple[Fraction, Fraction]] = {}
        self.used: dict[str, tuple[int, int]] = {}
        """By the number of the minute."""
        self.steps: dict[str, tuple[int, dict[int, int]]] = {}

    def look(self, now: float) -> None:
        if math.isnan(now):
            return
        moved = 0.0 if self.now is None else now - self.now
        if 0 < moved <= LONGEST_STEP_S:
            self.clock += Fraction(moved)
        if self.now is None or not -LONGEST_REST_S <= moved <= 0:
            self.now = now

    def take(self, demands: list[Demand], wall: float) -> list[int] | tuple[Refusal, ...]:
        """What is left, or which demands refuse."""
        after = copy.deepcopy((self.missing, self.used, self.steps))
        refusals: list[Refusal] = []
        remaining: list[int] = []
        for index, each in enumerate(demands):
            left, wait = self._left(each, Fraction(wall))
            if each.cost > left and not each.must_pass:
                refusals.append((index, left, wait))
                continue
            taken = min(each.cost, left)
            self._add(each, taken)
            remaining.append(left - taken)
        if not refusals:
            return remaining
        # What was looked at stays looked at; what was taken is not.
        self.missing, self.used, self.steps = after
        for each in demands:
            self._left(each, Fraction(wall))
        return tuple(refusals)

    def _left(self, asked: Demand, wall: Fraction) -> tuple[int, Fraction | None]:
        measure, key = asked.measure, asked.key
        if isinstance(measure, Rate):
            missing, at = self.missing.get(key, (Fraction(0), self.clock))
            missing = max(Fraction(0), missing - (self.clock - at) * Fraction(measure.per_s))
            self.missing[key] = missing, self.clock
            wait = (missing + asked.cost - measure.burst) / Fraction(measure.per_s)
            return math.floor(measure.burst - missing), wait if asked.cost <= measure.burst else None
        if measure.window.kind == "minute":
            minute = wall // LENGTH_S
            start, used = self.used.get(key, (minute, 0))
            start, used = (minute, 0) if minute > start else (start, used)
            self.used[key] = start, used
            wait = (start + 1) * LENGTH_S - wall
            return measure.units - used, wait if asked.cost <= measure.units else None
        step = math.floor(wall * SLICES / LENGTH_S)
        last, steps = self.steps.get(key, (step, {}))
        last = max(last, step)
        steps = {each: units for each, units in steps.items() if each + SLICES >= step}
        self.steps[key] = last, steps
        left = measure.units - sum(steps.values())
        lacking, end = asked.cost - left, last
        for each in sorted(steps):
            if lacking > 0:
                lacking, end = lacking - steps[each], each
        wait = Fraction(end + SLICES + 1) * LENGTH_S / SLICES - wall
        return left, wait if asked.cost <= measure.units else None

    def _add(self, asked: Demand, units: int) -> None:
        key = asked.key
        if isinstance(asked.measure, Rate):
            missing, at = self.missing[key]
            self.missing[key] = missing + units, at
        elif asked.measure.window.kind == "minute":
            start, used = self.used[key]
            self.used[key] = start, used + units
        elif units:
            last, steps = self.steps[key]
            steps[last] = steps.get(last, 0) + units

    def refund(self, asked: Demand, wall: float) -> None:
        key = asked.key
        if asked.limit == "minute" and key in self.used:
            start, used = self.used[key]
            if wall // LENGTH_S == start:
                self.used[key] = start, max(0, used - asked.cost)
        if asked.limit == "sliding" and key in self.steps:
            _, steps = self.steps[key]
            step = math.floor(Fraction(wall) * SLICES / LENGTH_S)
            if step in steps:
                steps[step] = max(0, steps[step] - asked.cost)


class AnyLimit(RuleBasedStateMachine):
    """Beside the plain book: every decision, what is left, and each wait are the same."""

    @initialize()
    def begin(self) -> None:
        self.local = Local()
        self.plain = Plain()
        self.now = 100.0
        self.wall = float(START)
        self.set_back = 0.0
        self.granted: list[tuple[Demand, float]] = []

    def take(self, demands: list[Demand], now: float | None = None) -> Granted | Denied:
        now = self.now if now is None else now
        wall = self.wall - self.set_back
        self.plain.look(now)
        expected = self.plain.take(demands, wall)
        found = self.local.take(demands, now=now, wall=wall)
        if isinstance(expected, list):
            assert found == Granted(tuple(expected))
            self.granted.extend((each, wall) for each in demands if not each.must_pass)
        else:
            assert isinstance(found, Denied)
            longest = max(seconds(wait) for _, _, wait in expected)
            assert math.isclose(found.retry_after_s, longest, abs_tol=AS_LONG_S)
            assert (demands[found.index].limit, found.remaining) in [
                (demands[index].limit, left)
                for index, left, wait in expected
                if math.isclose(seconds(wait), longest, abs_tol=AS_LONG_S)
            ]
        return found

    @rule(chosen=names, key=holders, cost=costs, must=st.sampled_from([False, False, False, True]))
    def call(self, chosen: list[str], key: str, cost: int, must: bool) -> None:
        self.take([demand(name, key, cost, must=must) for name in chosen])

    @rule(chosen=names, key=holders, cost=st.sampled_from([1, 2, 3]))
    def call_and_come_back_when_told(self, chosen: list[str], key: str, cost: int) -> None:
        demands = [demand(name, key, cost) for name in dict.fromkeys(chosen)]
        found = self.take(demands)
        if isinstance(found, Denied):
            # Whole eighths later: the plain book stays exact. A clock that was set back has to catch up first.
            behind_s = max(0.0, (self.plain.now or 0.0) - self.now)
            wait_s = math.ceil(found.retry_after_s * 8) / 8 + behind_s
            self.now += wait_s
            self.wall += wait_s
            assert isinstance(self.take(demands), Granted)

    @rule(chosen=names, key=holders)
    def blocked(self, chosen: list[str], key: str) -> None:
        """Takes nothing of the others, whichever comes first."""
        demands = [*(demand(name, key) for name in chosen), Demand("none", "none/k", NONE, 1)]
        for asked in (demands, demands[::-1]):
            found = self.local.take(asked, now=self.now, wall=self.wall - self.set_back)
            assert isinstance(found, Denied)
            assert math.isinf(found.retry_after_s)
        self.plain.look(self.now)
        for each in demands[:-1]:
            self.plain._left(each, Fraction(self.wall - self.set_back))

    @rule(number=st.integers(1, 5))
    def refund(self, number: int) -> None:
        if number <= len(self.granted):
            asked, wall = self.granted.pop(-number)
            self.local.refund([asked], wall=wall)
            self.plain.refund(asked, wall)

    @rule(step=eighths)
    def wait(self, step: int) -> None:
        self.now += step / 8
        self.wall += step / 8

    @rule(seconds=st.sampled_from([0.0, 0.125, 7.5, 30.0]))
    def set_the_wall_back(self, seconds: float) -> None:
        self.set_back = seconds

    @rule(
        jump=st.sampled_from([math.nan, -0.5, -59.0, -61.0, -1e5, 1e9, -1e9]),
        stays=st.booleans(),
        key=holders,
    )
    def the_clock_jumps(self, jump: float, stays: bool, key: str) -> None:
        self.take([demand("fast", key)], now=self.now + jump)
        if stays and not math.isnan(jump):
            self.now += jump

    @invariant()
    def nobody_is_forgotten(self) -> None:
        if hasattr(self, "local"):
            assert len(self.local) <= 9


class FullTable(RuleBasedStateMachine):
    """More keys than there is room for: what a key is granted is bounded all the same, and waiting helps everybody."""

    @initialize(places=st.sampled_from([1, 4, 12]), shared=st.sampled_from([0, 1, 3]))
    def begin(self, places: int, shared: int) -> None:
        self.local = Local(places=places, shared=shared)
        self.now = 0.0
        self.granted: dict[str, list[tuple[float, int]]] = {}
        self.held: list[tuple[Demand, float]] = []

    @rule(chosen=names, holder=st.sampled_from("abcd"), key=st.integers(0, 5), cost=costs)
    def call(self, chosen: list[str], holder: str, key: int, cost: int) -> None:
        demands = [demand(name, f"{holder}/{key}", cost, holder=holder) for name in dict.fromkeys(chosen)]
        if isinstance(self.local.take(demands, now=self.now, wall=START + self.now), Granted):
            for each in demands:
                self.granted.setdefault(each.key, []).append((self.now, cost))
                self.held.append((each, self.now))

    @rule(number=st.integers(1, 5))
    def refund(self, number: int) -> None:
        if number > len(self.held):
            return
        asked, at = self.held.pop(-number)
        self.local.refund([asked], wall=START + at)
        if isinstance(asked.measure, Quota):
            self.granted[asked.key].remove((at, asked.cost))

    @rule(step=eighths)
    def wait(self, step: int) -> None:
        self.now += step / 8

    @rule(holder=st.sampled_from("abcd"), name=st.sampled_from([*MEASURES]))
    def wait_long(self, holder: str, name: str) -> None:
        """Nobody is locked out for ever."""
        self.now += 4 * LENGTH_S
        asked = demand(name, f"{holder}/0", 3, holder=holder)
        assert isinstance(self.local.take([asked], now=self.now, wall=START + self.now), Granted)
        self.granted.setdefault(asked.key, []).append((self.now, 3))

    @invariant()
    def nobody_got_more_than_there_is(self) -> None:
        for key, takes in getattr(self, "granted", {}).items():
            measure = MEASURES[key.partition("/")[0]]
            for since, _ in takes:
                assert got(takes, since, measure, self.now) <= most(measure, since, self.now)


def got(takes: list[tuple[float, int]], since: float, measure: Rate | Quota, now: float) -> int:
    """Units since a moment: for a quota, within a window that begins then."""
    if isinstance(measure, Quota):
        end = since + LENGTH_S
        if measure.window.kind == "minute":
            end = since // LENGTH_S * LENGTH_S + LENGTH_S
        return sum(cost for at, cost in takes if since <= at < end)
    return sum(cost for at, cost in takes if at >= since)


def most(measure: Rate | Quota, since: float, now: float) -> float:
    return (
        measure.units if isinstance(measure, Quota) else measure.burst + measure.per_s * (now - since) + 1e-3
    )


test_any_order_of_calls_refunds_and_clocks = AnyLimit.TestCase
AnyLimit.TestCase.settings = settings(FUZZ, max_examples=examples(200), stateful_step_count=40)
test_any_order_of_calls_where_there_is_no_room = FullTable.TestCase
FullTable.TestCase.settings = settings(FUZZ, max_examples=examples(200), stateful_step_count=40)


@given(
    walls=st.lists(
        st.floats(allow_nan=True, allow_infinity=True) | st.floats(START - 1e6, START + 1e6), max_size=20
    ),
    nows=st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=20, max_size=20),
    name=st.sampled_from([*MEASURES]),
)
@FUZZ
def test_no_clock_breaks_a_limit_or_locks_anybody_out(
    walls: list[float], nows: list[float], name: str
) -> None:
    """Whatever clocks have shown, an hour of a clock that works is enough for a call."""
    local = Local()
    for wall, now in zip(walls, nows, strict=False):
        found = local.take([demand(name, "k", 2)], now=now, wall=wall)
        assert isinstance(found, Granted) or found.retry_after_s >= 0
    for second in (0.0, 3_600.0):
        found = local.take([demand(name, "k", 2)], now=1e6 + second, wall=START + second)
    assert isinstance(found, Granted)
