"""Who holds a place, and who is next: bounds, turns, and that no place is ever lost."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from proxy.capacity.slots import Lack, Place, Pools, Slots, State
from tests.fuzz.bounded import FUZZ


def held(slots: Slots, tenant: str, pools: Pools = (), units: int = 1) -> Place:
    place = slots.take(tenant, pools, units)
    assert isinstance(place, Place)
    return place


def waiting(slots: Slots, tenant: str, pools: Pools = (), importance: int = 0) -> Place:
    """A call that has to wait, and displaces nobody."""
    assert isinstance(slots.take(tenant, pools), Lack)
    place, leaves = slots.queue(tenant, pools, importance)
    assert place is not None
    assert leaves is None
    return place


def turns(slots: Slots, first: Place, count: int) -> list[str]:
    """Whose turn comes, one place at a time."""
    order = []
    place = first
    for _ in range(count):
        (place,) = slots.give_back(place)
        order.append(place.flow.tenant)
    return order


def test_each_bound_holds_by_itself() -> None:
    """Issue 5, 4: places in all, of a tenant, of the tools of a pattern."""
    slots = Slots(4, per_tenant=2, pools=(1,))
    first = held(slots, "a", (0,))
    assert slots.take("b", (0,)) is Lack.POOL
    held(slots, "a")
    assert slots.take("a") is Lack.TENANT
    held(slots, "b")
    held(slots, "b")
    assert slots.take("c") is Lack.ALL
    assert (slots.in_flight, slots.of_tenant("a"), slots.of_pool(0)) == (4, (2, 0), 1)
    slots.give_back(first)
    assert (slots.in_flight, slots.of_tenant("a"), slots.of_pool(0)) == (3, (1, 0), 0)
    held(slots, "c", (0,))


def test_a_place_comes_back_once() -> None:
    slots = Slots(2)
    first, _ = held(slots, "a"), held(slots, "a")
    slots.give_back(first)
    slots.give_back(first)
    assert slots.in_flight == 1


def test_several_at_once_or_none() -> None:
    """A batch holds a place for each of its calls, and never some of them."""
    slots = Slots(4, per_tenant=3, pools=(2,))
    assert slots.take("a", (), 5) is Lack.ALL
    assert slots.take("a", (), 4) is Lack.TENANT
    assert slots.take("a", (0, 0, 0), 3) is Lack.POOL
    assert (slots.in_flight, slots.of_pool(0)) == (0, 0)
    batch = held(slots, "a", (0, 0), 3)
    assert (slots.in_flight, slots.of_tenant("a"), slots.of_pool(0)) == (3, (3, 0), 2)
    slots.give_back(batch)
    assert (slots.in_flight, slots.of_pool(0), slots.tenants) == (0, 0, 0)


def test_a_tenant_is_served_in_order() -> None:
    slots = Slots(1, depth=10)
    place = held(slots, "a")
    queue = [waiting(slots, "a") for _ in range(4)]
    for expected in queue:
        assert slots.give_back(place) == [expected]
        assert expected.state is State.HELD
        place = expected


def test_ten_thousand_waiting_calls_delay_a_single_one_by_one_turn() -> None:
    """The brief's example: another tenant's single call is next but one at most."""
    slots = Slots(1, depth=20_000)
    place = held(slots, "greedy")
    for _ in range(10_000):
        waiting(slots, "greedy")
    (place,) = slots.give_back(place)
    mine = waiting(slots, "polite")
    order: list[Place] = []
    while mine not in order:
        (place,) = slots.give_back(place)
        order.append(place)
    assert len(order) <= 2


@pytest.mark.parametrize("weights", [{"a": 1}, {"a": 4}, {"a": 2, "b": 3}, {"a": 0.5, "b": 10}])
def test_turns_follow_weights(weights: dict[str, float]) -> None:
    """Issue 5, 4: weighted fair. Everybody has calls waiting all the time."""
    tenants = {"a": 1.0, "b": 1.0, "c": 1.0} | weights
    slots = Slots(1, depth=10_000, weights=weights)
    first = held(slots, "x")
    for tenant, _ in itertools.product(tenants, range(1_000)):
        waiting(slots, tenant)
    rounds = 600
    counts = Counter(turns(slots, first, rounds))
    for tenant, weight in tenants.items():
        assert counts[tenant] == pytest.approx(rounds * weight / sum(tenants.values()), abs=3)


@given(
    weights=st.lists(st.sampled_from([0.1, 0.5, 1.0, 1.0, 2.0, 7.0]), min_size=2, max_size=6),
    places=st.integers(1, 5),
    rounds=st.integers(1, 400),
)
@FUZZ
def test_shares_are_within_a_turn_of_each(weights: list[float], places: int, rounds: int) -> None:
    """At every moment, not only in the long run: nobody is more turns off its share than there are tenants."""
    names = [f"t{number}" for number in range(len(weights))]
    slots = Slots(places, depth=10_000, weights=dict(zip(names, weights, strict=True)))
    holding = [held(slots, "x") for _ in range(places)]
    for name in names:
        for _ in range(rounds):
            waiting(slots, name)
    counts: Counter[str] = Counter()
    for total in range(1, rounds + 1):
        (place,) = slots.give_back(holding.pop(0))
        holding.append(place)
        counts[place.flow.tenant] += 1
        for name, weight in zip(names, weights, strict=True):
            assert abs(counts[name] - total * weight / sum(weights)) <= len(names)


@given(
    others=st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0.5, 1.0, 4.0])), min_size=1, max_size=40),
    served=st.integers(0, 30),
)
@FUZZ
def test_a_newcomer_waits_for_about_one_turn_of_each(others: list[tuple[int, float]], served: int) -> None:
    """Whatever went before, and however much others have waiting: one turn, and for those that weigh more what they
    are behind their own share."""
    weights = {f"t{number}": weight for number, (_, weight) in enumerate(others)}
    slots = Slots(1, depth=1_000, weights=weights)
    place = held(slots, "x")
    for number, (calls, _) in enumerate(others):
        for _ in range(calls):
            waiting(slots, f"t{number}")
    for _ in range(min(served, slots.waiting)):
        (place,) = slots.give_back(place)
    mine = waiting(slots, "mine")
    crowd = {name for name in weights if slots.of_tenant(name)[1]} | {"mine"}
    behind = len(crowd) / sum(weights.get(name, 1.0) for name in crowd)
    before: Counter[str] = Counter()
    while True:
        (place,) = slots.give_back(place)
        if place is mine:
            break
        before[place.flow.tenant] += 1
        # They are impatient: whoever had its turn asks again at once.
        waiting(slots, place.flow.tenant)
    assert all(count <= 1 + weights[name] * behind for name, count in before.items())


def test_one_call_at_a_time_is_no_way_around_the_share() -> None:
    """Leaving and coming back does not pay a debt: four with long queues, and one that asks again when served."""
    slots = Slots(1, depth=10_000)
    place = held(slots, "x")
    for name, _ in itertools.product("abcd", range(500)):
        waiting(slots, name)
    mine = waiting(slots, "sly")
    count = total = 0
    while total < 500:
        (given_,) = slots.give_back(place)
        total += 1
        if given_ is mine:
            count += 1
            total += 1
            (place,) = slots.give_back(mine)
            mine = waiting(slots, "sly")
        else:
            place = given_
    # A fifth, less the turns that came while it was away.
    assert 0.8 * total / 5 <= count <= total / 5 + 1


def test_leaving_pays_no_debt() -> None:
    """One with a tenth of the others' weight that always leaves between two calls: a turn in 41 is its own."""
    slots = Slots(1, depth=10_000, weights={"sly": 0.1})
    place = held(slots, "x")
    for name, _ in itertools.product("abcd", range(200)):
        waiting(slots, name)
    mine = waiting(slots, "sly")
    count = 0
    for _ in range(410):
        (place,) = slots.give_back(place)
        if place is mine:
            count += 1
            (place,) = slots.give_back(mine)
            mine = waiting(slots, "sly")
    assert 8 <= count <= 11


def test_a_new_rush_begins_without_the_debts_of_the_last() -> None:
    """Between them nobody waited, so nobody had anything at another's expense."""
    slots = Slots(2, depth=100)
    anchor, place = held(slots, "a"), held(slots, "a")
    for _ in range(20):
        waiting(slots, "a")
    last = waiting(slots, "b")
    while slots.waiting:
        (place,) = slots.give_back(place)
    slots.give_back(place)
    slots.give_back(last)
    place = held(slots, "c")
    for _ in range(3):
        waiting(slots, "a")
        waiting(slots, "b")
    assert turns(slots, place, 6) == ["a", "b", "a", "b", "a", "b"]
    slots.give_back(anchor)


def test_what_was_had_while_nobody_waited_is_not_held_against_anybody() -> None:
    slots = Slots(2, depth=100)
    for _ in range(1_000):
        slots.give_back(held(slots, "a"))
    first, _ = held(slots, "a"), held(slots, "a")
    for _ in range(3):
        waiting(slots, "a")
        waiting(slots, "b")
    assert turns(slots, first, 6) == ["a", "b", "a", "b", "a", "b"]


def counted(slots: Slots, place: Place, count: int) -> Counter[str]:
    return Counter(turns(slots, place, count))


def test_waiting_without_a_chance_saves_no_turns_up() -> None:
    """A tenant whose tools had no place is not owed, for its other calls, the turns it could not have."""
    slots = Slots(2, pools=(1,), depth=1_000)
    held(slots, "x", (0,))
    place = held(slots, "x")
    waiting(slots, "blocked", (0,))
    for name, _ in itertools.product("ab", range(200)):
        waiting(slots, name)
    for _ in range(100):
        (place,) = slots.give_back(place)
    for _ in range(60):
        waiting(slots, "blocked")
    assert counted(slots, place, 60)["blocked"] <= 60 / 3 + 3


def test_who_has_no_chance_does_not_hold_up_the_common_time() -> None:
    """Otherwise newcomers would begin far behind those that had their turns, and be owed as many."""
    slots = Slots(2, pools=(1,), depth=1_000, weights={"blocked": 100.0})
    held(slots, "x", (0,))
    place = held(slots, "x")
    waiting(slots, "blocked", (0,))
    for name, _ in itertools.product("ab", range(200)):
        waiting(slots, name)
    for _ in range(100):
        (place,) = slots.give_back(place)
    for _ in range(60):
        waiting(slots, "new")
    assert counted(slots, place, 30)["new"] <= 30 / 3 + 3


def test_turns_are_fair_between_tools_of_different_patterns() -> None:
    slots = Slots(1, pools=(9,), depth=100)
    place = held(slots, "x")
    for _ in range(10):
        waiting(slots, "a")
    for _ in range(10):
        waiting(slots, "b", (0,))
    assert turns(slots, place, 6) == ["a", "b", "a", "b", "a", "b"]


def test_a_tenant_with_different_tools_waiting_gets_no_more_than_its_bound() -> None:
    slots = Slots(3, per_tenant=1, pools=(1,), depth=10)
    place = held(slots, "a")
    first, second = waiting(slots, "a"), waiting(slots, "a", (0,))
    assert slots.give_back(place) == [first]
    assert slots.give_back(first) == [second]


def test_a_turn_for_one_tool_counts_for_the_others() -> None:
    """Two tenants, each with both kinds waiting; one has just had its turn for the other kind."""
    slots = Slots(1, pools=(9,), depth=100)
    place = held(slots, "x")
    a, a_export = waiting(slots, "a"), waiting(slots, "a", (0,))
    b_export = waiting(slots, "b", (0,))
    assert slots.give_back(place) == [a]
    assert slots.give_back(a) == [b_export]
    assert slots.give_back(b_export) == [a_export]


@pytest.mark.parametrize("waits", [False, True])
def test_who_comes_back_with_a_debt_is_one_tenant(waits: bool) -> None:
    """Its debt runs out while it holds a place, or waits for one; what it holds still counts."""
    slots = Slots(4, per_tenant=1, pools=(1, 1), depth=100, weights={"poor": 0.1, "stuck": 5})
    stuck = held(slots, "stuck", (0,))
    waiting(slots, "other", (0,))
    slots.give_back(held(slots, "poor"))
    assert slots.tenants == 3
    if waits:
        other = held(slots, "more", (1,))
        waiting(slots, "poor", (1,))
    else:
        held(slots, "poor")
    for number in range(100):
        slots.give_back(held(slots, f"t{number}"))
    assert slots.of_tenant("poor") == ((0, 1) if waits else (1, 0))
    if waits:
        assert [each.flow.tenant for each in slots.give_back(other)] == ["poor"]
    assert slots.take("poor") is Lack.TENANT
    slots.give_back(stuck)


def test_a_full_pool_holds_up_only_those_that_need_it() -> None:
    """Head-of-line: neither other tenants nor the same tenant's other tools wait behind it."""
    slots = Slots(2, pools=(1,), depth=10)
    export, plain = held(slots, "a", (0,)), held(slots, "a")
    first = waiting(slots, "a", (0,))
    second = waiting(slots, "a")
    third = waiting(slots, "b", (0,))
    assert slots.give_back(plain) == [second]
    assert slots.give_back(second) == []
    # The tenant whose other call went past it has had its turn.
    assert slots.give_back(export) == [third]
    assert slots.give_back(third) == [first]


def test_a_call_needs_a_place_in_each_pool_it_fits() -> None:
    slots = Slots(10, pools=(2, 1), depth=10)
    both = held(slots, "a", (0, 1))
    assert slots.take("a", (0, 1)) is Lack.POOL
    held(slots, "a", (0,))
    queued = waiting(slots, "a", (0, 1))
    other = waiting(slots, "b", (0,))
    assert slots.give_back(both) == [queued]
    assert slots.give_back(queued) == [other]


def test_a_tenant_at_its_bound_holds_up_nobody() -> None:
    slots = Slots(2, per_tenant=1, depth=10)
    first = held(slots, "a")
    queued = waiting(slots, "a")
    other = held(slots, "b")
    assert slots.give_back(other) == []
    assert slots.give_back(first) == [queued]


def test_who_leaves_the_queue_has_left_at_once() -> None:
    slots = Slots(1, depth=2)
    place = held(slots, "a")
    one, two = waiting(slots, "a"), waiting(slots, "b")
    slots.give_back(one)
    assert (slots.waiting, slots.of_tenant("a")) == (1, (1, 0))
    three = waiting(slots, "a")
    assert slots.give_back(place) == [two]
    assert slots.give_back(two) == [three]


@pytest.mark.parametrize("depth", [0, 3])
def test_a_full_queue_takes_nobody_of_the_same_tenant(depth: int) -> None:
    slots = Slots(1, depth=depth)
    held(slots, "a")
    for _ in range(depth):
        waiting(slots, "a")
    assert slots.queue("a") == (None, None)
    assert slots.waiting == depth


def test_a_full_queue_refuses_the_tenant_with_most_waiting() -> None:
    """Issue 5, 4: the depth is shared fairly; its newest call makes way."""
    slots = Slots(1, depth=4)
    held(slots, "x")
    greedy = [waiting(slots, "greedy") for _ in range(4)]
    mine, leaves = slots.queue("polite")
    assert mine is not None
    assert leaves is greedy[3]
    assert leaves.state is State.GONE
    again, leaves = slots.queue("polite")
    assert again is not None
    assert leaves is greedy[2]
    # Two and two: a third would be more than its share.
    assert slots.queue("polite") == (None, None)
    assert slots.queue("greedy") == (None, None)
    assert slots.waiting == 4


def test_nobody_makes_way_for_an_equal() -> None:
    slots = Slots(1, depth=2)
    held(slots, "x")
    waiting(slots, "a")
    waiting(slots, "b")
    assert slots.queue("c") == (None, None)


def test_room_in_the_queue_follows_weights() -> None:
    slots = Slots(1, depth=10, weights={"heavy": 4})
    held(slots, "x")
    for _ in range(10):
        slots.queue("light")
    for _ in range(20):
        slots.queue("heavy")
    assert (slots.of_tenant("heavy"), slots.of_tenant("light")) == ((0, 8), (0, 2))


def test_of_the_same_tenant_what_matters_less_makes_way() -> None:
    """shed: reads first, dangerous calls last; among equals the newest, which would wait longest."""
    slots = Slots(1, depth=4)
    held(slots, "a")
    read, write, other_read, danger = (waiting(slots, "a", importance=each) for each in (0, 2, 0, 3))
    assert slots.queue("a", (), 0) == (None, None)
    assert slots.queue("a", (), 2)[1] is other_read
    assert slots.queue("a", (), 3)[1] is read
    assert slots.queue("a", (), 2) == (None, None)
    leaves = slots.queue("a", (), 3)[1]
    assert leaves is not None
    assert leaves.importance == 2
    assert leaves is not write
    assert danger.state is State.WAITS


def test_importance_is_no_way_to_push_others_out() -> None:
    """Fairness between tenants comes first: a flood of dangerous calls costs nobody else a read."""
    slots = Slots(1, depth=4)
    held(slots, "x")
    reads = [waiting(slots, "polite") for _ in range(2)]
    for _ in range(10):
        slots.queue("greedy", (), 3)
    assert all(each.state is State.WAITS for each in reads)
    assert slots.of_tenant("greedy") == (0, 2)


def test_more_places_are_given_at_once_and_fewer_take_none_away() -> None:
    slots = Slots(1, depth=10)
    first = held(slots, "a")
    queued = [waiting(slots, "a") for _ in range(3)]
    assert slots.resize(3) == queued[:2]
    assert slots.resize(1) == []
    assert slots.in_flight == 3
    assert slots.give_back(first) == []
    assert slots.give_back(queued[0]) == []
    assert slots.give_back(queued[1]) == [queued[2]]


def test_ten_thousand_that_came_and_left_are_forgotten() -> None:
    """Issue 5: every gauge is at its start value, and so is the memory."""
    slots = Slots(1, depth=100)
    place = held(slots, "stays")
    for number in range(10_000):
        slots.give_back(waiting(slots, f"t{number}"))
    assert (slots.in_flight, slots.waiting, slots.tenants) == (1, 0, 1)
    slots.give_back(place)
    assert (slots.in_flight, slots.waiting, slots.tenants) == (0, 0, 0)


def test_debts_of_those_that_never_come_back_are_forgotten() -> None:
    """While somebody waits for hours, ten thousand tenants pass by, each once."""
    slots = Slots(2, depth=10, pools=(1,), weights={"stuck": 10.0})
    stuck = held(slots, "stuck", (0,))
    waiting(slots, "stuck", (0,))
    most = 0
    for number in range(10_000):
        slots.give_back(held(slots, f"t{number}"))
        most = max(most, slots.tenants)
    assert 5 <= most <= 20
    assert len(slots.give_back(stuck)) == 1
    assert slots.tenants == 1


def test_how_many_turns_it_will_be() -> None:
    slots = Slots(1, depth=100, weights={"heavy": 3})
    assert slots.turns_before("a") == 0
    held(slots, "x")
    for _ in range(10):
        waiting(slots, "a")
    assert (slots.turns_before("a"), slots.turns_before("new")) == (10, 1)
    heavy = waiting(slots, "heavy")
    assert slots.turns_before("heavy") == pytest.approx(4 / 3)
    assert slots.turns_before("a") == 11
    slots.give_back(heavy)
    waiting(slots, "b")
    assert slots.turns_before("b") == 2


TENANTS = ("a", "b", "c", "d")
POOLS: tuple[Pools, ...] = ((), (0,), (1,), (0, 1))


class AnySlots(RuleBasedStateMachine):
    """Calls come, wait, leave, end and are displaced in any order. The truth is two plain lists."""

    @initialize(
        limit=st.integers(1, 4),
        per_tenant=st.none() | st.integers(1, 3),
        bounds=st.tuples(st.integers(1, 2), st.integers(1, 3)),
        depth=st.integers(0, 6),
        weights=st.dictionaries(st.sampled_from(TENANTS), st.sampled_from([0.5, 2.0, 5.0])),
    )
    def begin(
        self,
        limit: int,
        per_tenant: int | None,
        bounds: tuple[int, int],
        depth: int,
        weights: dict[str, float],
    ) -> None:
        self.bounds = bounds
        self.per_tenant = per_tenant or 99
        self.depth = depth
        self.weights = weights
        self.slots = Slots(limit, per_tenant=per_tenant, pools=bounds, depth=depth, weights=weights)
        self.held: list[Place] = []
        self.queued: list[Place] = []

    def room(self, tenant: str, pools: Pools, units: int) -> bool:
        """Whether no bound forbids it."""
        total = sum(place.units for place in self.held)
        own = sum(place.units for place in self.held if place.flow.tenant == tenant)
        used = Counter(pool for place in self.held for pool in place.pools)
        return (
            total + units <= self.slots.limit
            and own + units <= self.per_tenant
            and all(used[pool] + count <= self.bounds[pool] for pool, count in Counter(pools).items())
        )

    @rule(tenant=st.sampled_from(TENANTS), pools=st.sampled_from(POOLS), importance=st.integers(0, 2))
    def a_call_comes(self, tenant: str, pools: Pools, importance: int) -> None:
        fits = self.room(tenant, pools, 1)
        place = self.slots.take(tenant, pools)
        assert isinstance(place, Place) is fits
        if isinstance(place, Place):
            self.held.append(place)
            return
        queued, leaves = self.slots.queue(tenant, pools, importance)
        if queued is None:
            assert len(self.queued) == self.depth
            assert leaves is None
            return
        if leaves is not None:
            assert len(self.queued) == self.depth
            assert leaves.flow.tenant != tenant or leaves.importance < importance
            self.queued.remove(leaves)
        self.queued.append(queued)

    @rule(tenant=st.sampled_from(TENANTS), parts=st.lists(st.sampled_from(POOLS), min_size=1, max_size=4))
    def a_batch_comes(self, tenant: str, parts: list[Pools]) -> None:
        pools = tuple(pool for part in parts for pool in part)
        place = self.slots.take(tenant, pools, len(parts))
        assert isinstance(place, Place) is self.room(tenant, pools, len(parts))
        if isinstance(place, Place):
            self.held.append(place)

    def granted(self, places: Sequence[Place]) -> None:
        for place in places:
            assert place.state is State.HELD
            # First come, first served, of those of a tenant that need the same.
            lane = [
                each
                for each in self.queued
                if each.flow.tenant == place.flow.tenant and each.pools == place.pools
            ]
            assert lane[0] is place
            assert self.room(place.flow.tenant, place.pools, 1)
            self.queued.remove(place)
            self.held.append(place)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def a_call_ends(self, data: st.DataObject) -> None:
        place = data.draw(st.sampled_from(self.held))
        self.held.remove(place)
        self.granted(self.slots.give_back(place))

    @precondition(lambda self: self.queued)
    @rule(data=st.data())
    def a_caller_leaves(self, data: st.DataObject) -> None:
        place = data.draw(st.sampled_from(self.queued))
        self.queued.remove(place)
        assert self.slots.give_back(place) == ()
        assert place.state is State.GONE

    @rule(limit=st.integers(1, 5))
    def places_change(self, limit: int) -> None:
        self.granted(self.slots.resize(limit))

    @invariant()
    def every_gauge_is_true(self) -> None:
        slots = self.slots
        assert slots.in_flight == sum(place.units for place in self.held)
        assert slots.waiting == len(self.queued) <= self.depth
        used = Counter(pool for place in self.held for pool in place.pools)
        for pool, bound in enumerate(self.bounds):
            assert slots.of_pool(pool) == used[pool] <= bound
        for tenant in TENANTS:
            own = sum(place.units for place in self.held if place.flow.tenant == tenant)
            own_waiting = sum(place.flow.tenant == tenant for place in self.queued)
            assert slots.of_tenant(tenant) == (own, own_waiting)
            assert own <= self.per_tenant

    @invariant()
    def nobody_waits_for_what_is_free(self) -> None:
        assert not any(self.room(place.flow.tenant, place.pools, 1) for place in self.queued)

    def teardown(self) -> None:
        """No place is lost: when everybody has gone, everything is as it was."""
        if not hasattr(self, "slots"):
            return
        while self.held:
            self.granted(self.slots.give_back(self.held.pop()))
        for place in self.queued:
            self.slots.give_back(place)
        assert (self.slots.in_flight, self.slots.waiting, self.slots.tenants) == (0, 0, 0)


@pytest.mark.parametrize("steps", [15, 60])
def test_any_story_of_calls_ends_well(steps: int) -> None:
    """Issue 5, 4: never more than may be, and every place comes back, whatever happens in between."""
    run_state_machine_as_test(
        AnySlots, settings=settings(max_examples=80, stateful_step_count=steps, deadline=None)
    )
