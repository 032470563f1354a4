"""Whoever asks, releases, rejects, waits and calls again, in any order: a gated call runs if, and only if, a person
has agreed to exactly it, and once."""

from __future__ import annotations

import itertools

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from proxy.model import Identity, Principal, Refused
from proxy.policy.approvals import Approvals, Bounds, wanted
from tests.fakes import make_call
from tests.fuzz.bounded import FUZZ, examples

TTL_S = 100
BOUNDS = Bounds(subject=2, tenant=3, total=4)
WHO = [
    Principal(issuer="i", subject="ann", tenant="a"),
    Principal(issuer="i", subject="bob", tenant="a"),
    Principal(issuer="j", subject="ann", tenant="a"),
    Principal(issuer="i", subject="ann", tenant="b"),
]
WHAT: list[dict[str, object]] = [{"n": 1}, {"n": 1.0}, {"n": "1"}, {"n": True}, {}]

people = st.integers(0, len(WHO) - 1)
things = st.integers(0, len(WHAT) - 1)
numbers = st.sampled_from([1, 1, 1, 1, 2, 2, 3, 4, 8, 0])
"""1 is what was asked last, 0 what nobody has asked."""
later = st.sampled_from([0, 0, 0, 1, 1, TTL_S // 2, TTL_S - 1])


class Plain:
    """One challenge, as one would write it down."""

    def __init__(self, who: int, what: int, ends: int) -> None:
        self.who, self.what, self.ends = who, what, ends
        self.state = "waiting"

    @property
    def key(self) -> tuple[int, int]:
        return self.who, self.what

    @property
    def identity(self) -> Identity:
        return WHO[self.who].identity


class AnyApproval(RuleBasedStateMachine):
    """The table beside a plain list: ids in the order of their opening, looked through from the front each time."""

    @initialize()
    def begin(self) -> None:
        self.now = 0
        self.generation = 1
        count = itertools.count(1)
        self.table = Approvals(TTL_S, "g1", lambda: f"id-{next(count)}", BOUNDS)
        self.plain: dict[str, Plain] = {}
        self.calls: list[tuple[int, int]] = []
        """What each id was opened for."""

    def open_now(self) -> dict[str, Plain]:
        return {id: each for id, each in self.plain.items() if self.now < each.ends}

    def meant(self, number: int) -> str:
        return f"id-{len(self.calls) + 1 - number}"

    @rule(who=people, what=things)
    def call(self, who: int, what: int) -> None:
        """A caller sends a gated call: it runs, or learns what it waits for."""
        wants = wanted(make_call(target="t", params={"name": "t", "arguments": WHAT[what]}), WHO[who])
        alive = self.open_now()
        expected = next((id for id, each in alive.items() if each.key == (who, what)), None)
        try:
            found = self.table.ask(wants, f"g{self.generation}", self.now)
        except Refused:
            assert expected is None
            subject = sum(each.identity == WHO[who].identity for each in alive.values())
            tenant = sum(each.identity[2] == WHO[who].tenant for each in alive.values())
            assert subject >= BOUNDS.subject or tenant >= BOUNDS.tenant or len(alive) >= BOUNDS.total
            return
        if expected is None:
            self.calls.append((who, what))
            expected = f"id-{len(self.calls)}"
            alive[expected] = self.plain[expected] = Plain(who, what, self.now + TTL_S)
            assert sum(each.identity == WHO[who].identity for each in alive.values()) <= BOUNDS.subject
            assert sum(each.identity[2] == WHO[who].tenant for each in alive.values()) <= BOUNDS.tenant
        known = alive[expected]
        assert (found.id, found.state, found.expires) == (expected, known.state, known.ends)
        runs = self.table.use([found.id], self.now) is not None
        assert runs == (known.state == "released")
        if runs:
            del self.plain[expected]

    @rule(number=numbers, seconds=later)
    def call_again(self, number: int, seconds: int) -> None:
        """Most callers come back with what they asked lately."""
        self.now += seconds
        if 0 < number <= len(self.calls):
            self.call(*self.calls[-number])

    @rule(who=people, what=things)
    def call_of_the_last_policy(self, who: int, what: int) -> None:
        wants = wanted(make_call(target="t", params={"arguments": WHAT[what]}), WHO[who])
        try:
            self.table.ask(wants, f"g{self.generation - 1}", self.now)
        except Refused:
            return
        raise AssertionError("judged by a policy that is no longer in force")

    @rule(number=numbers, seconds=later)
    def release(self, number: int, seconds: int) -> None:
        self.now += seconds
        id = self.meant(number)
        known = self.open_now().get(id)
        decided = self.table.release(id, "olga", self.now)
        assert (decided is not None) == (known is not None and known.state == "waiting")
        if known is not None and decided is not None:
            known.state, known.ends = "released", self.now + TTL_S

    @rule(number=numbers, seconds=later)
    def reject(self, number: int, seconds: int) -> None:
        self.now += seconds
        id = self.meant(number)
        known = self.open_now().get(id)
        decided = self.table.reject(id, "olga", self.now)
        assert (decided is not None) == (known is not None and known.state != "rejected")
        if known is not None and decided is not None:
            known.state = "rejected"

    @rule(one=numbers, other=numbers)
    def run_together(self, one: int, other: int) -> None:
        """A batch: both are released, or nothing is spent."""
        ids = [self.meant(one), self.meant(other)]
        alive = self.open_now()
        ready = all(id in alive and alive[id].state == "released" for id in ids) and one != other
        assert (self.table.use(ids, self.now) is not None) == ready
        if ready:
            for id in ids:
                del self.plain[id]

    @rule(seconds=st.sampled_from([1, TTL_S // 2, TTL_S, 3 * TTL_S]))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule(is_other=st.sampled_from([False, False, True]))
    def reload(self, is_other: bool) -> None:
        if not is_other:
            self.table.begin(TTL_S, f"g{self.generation}")
            return
        self.generation += 1
        self.table.begin(TTL_S, f"g{self.generation}")
        self.plain.clear()

    @invariant()
    def what_waits_is_what_was_asked(self) -> None:
        if not hasattr(self, "plain"):
            return
        alive = self.open_now()
        waiting = {id for id, each in alive.items() if each.state == "waiting"}
        assert {each.id for each in self.table.pending(self.now)} == waiting
        for who in WHO:
            found = {each.id for each in self.table.pending(self.now, who.tenant)}
            assert found == {id for id in waiting if alive[id].identity[2] == who.tenant}
        assert len(self.table) <= BOUNDS.total


test_any_order_of_asking_deciding_and_calling = AnyApproval.TestCase
AnyApproval.TestCase.settings = settings(FUZZ, max_examples=examples(200), stateful_step_count=40)
