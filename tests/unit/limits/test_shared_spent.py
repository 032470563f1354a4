"""A no of the store is repeated for a moment, and counted down."""

from __future__ import annotations

import math

import pytest

from proxy.limits.demand import Demand, Denied, Quota, Rate, Window
from proxy.limits.shared_spent import Spent

DAY = Window("day")


def rate(key: str = "r", *, cost: int = 1, must: bool = False) -> Demand:
    return Demand("rate", key, Rate(10.0, 20), cost, must)


def quota(key: str = "q", *, cost: int = 1) -> Demand:
    return Demand("quota", key, Quota(5, DAY), cost)


def test_what_nobody_refused_is_not_known() -> None:
    assert Spent().find((rate(), quota()), 0.0) is None


def test_tokens_come_back_while_it_is_repeated() -> None:
    spent = Spent()
    spent.note((quota(), rate(cost=6)), Denied(1, 2, 0.4), 100.0)
    seen = [spent.find((rate(cost=6),), 100.0 + after) for after in (0.0, 0.15, 0.35)]
    assert [(each.index, each.remaining, round(each.retry_after_s, 6)) for each in seen if each] == [
        (0, 2, 0.4),
        (0, 3, 0.25),
        (0, 5, 0.05),
    ]
    assert spent.find((rate(cost=6),), 100.4) is None, "it would pass now"
    assert len(spent) == 0


@pytest.mark.parametrize(
    ("demand", "wait_s", "believed_s"),
    [(rate(), 30.0, 1.0), (rate(), math.inf, 1.0), (quota(), 30.0, 0.25), (quota(), math.inf, 0.25)],
)
def test_it_is_believed_for_a_moment_only(demand: Demand, wait_s: float, believed_s: float) -> None:
    spent = Spent()
    spent.note((demand,), Denied(0, 0, wait_s), 0.0)
    just_before = believed_s - 0.001
    assert spent.find((demand,), just_before) == Denied(0, 0, wait_s - just_before)
    assert spent.find((demand,), believed_s) is None


def test_who_asks_for_less_or_must_pass_is_not_refused_by_it() -> None:
    spent = Spent()
    spent.note((rate(cost=6),), Denied(0, 2, 9.0), 0.0)
    for demand in (rate(cost=2), rate(cost=7), rate(cost=6, must=True), rate("other", cost=6)):
        assert spent.find((demand,), 0.0) is None


def test_of_several_noes_it_repeats_the_longest() -> None:
    spent = Spent()
    for demand, wait_s in ((rate("a"), 3.0), (rate("b"), 5.0), (rate("c"), 4.0)):
        spent.note((demand,), Denied(0, 0, wait_s), 0.0)
    assert spent.find((rate("a"), rate("b"), rate("c")), 0.0) == Denied(1, 0, 5.0)


def test_what_is_given_back_is_asked_for_again() -> None:
    spent = Spent()
    for demand in (quota("a"), quota("b"), quota("c")):
        spent.note((demand,), Denied(0, 0, 9.0), 0.0)
    spent.forget((quota("a"), rate()))
    assert [spent.find((quota(key),), 0.0) is None for key in "abc"] == [True, False, False]
    spent.clear()
    assert spent.find((quota("b"),), 0.0) is None


def test_a_flood_of_keys_fills_no_memory() -> None:
    spent = Spent(most=3)
    for key in "abcbde":
        spent.note((rate(key),), Denied(0, 0, 9.0), 0.0)
    assert [spent.find((rate(key),), 0.0) is not None for key in "abcde"] == [False, True, False, True, True]
