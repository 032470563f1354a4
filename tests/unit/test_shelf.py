"""What belongs to whom: a share for each, a total for all, and who fills it pays."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.model import Identity
from proxy.shelf import Shelf

ANN: Identity = ("iss", "ann", "acme")
BOB: Identity = ("iss", "bob", "acme")
CAROL: Identity = ("iss", "carol", "other")

Dropped = list[tuple[Identity, str, int]]


def shelf(*, share: int = 3, total: int = 5) -> tuple[Shelf[str, int], Dropped]:
    dropped: Dropped = []
    kept: Shelf[str, int] = Shelf(share=share, total=total, dropped=lambda *each: dropped.append(each))
    return kept, dropped


def test_a_thing_is_its_owners_only() -> None:
    """Promise 3: nobody sees another's; what is foreign is found no more than what is unknown."""
    kept, _ = shelf()
    kept.put(ANN, "a", 1)
    assert (kept.get(ANN, "a"), kept.get(BOB, "a"), kept.get(ANN, "b")) == (1, None, None)
    assert (kept.owner("a"), kept.owner("b"), len(kept)) == (ANN, None, 1)
    assert (kept.take(BOB, "a"), len(kept)) == (None, 1)
    assert (kept.take(ANN, "a"), kept.take(ANN, "a"), len(kept)) == (1, None, 0)
    assert kept.owner("a") is None


def test_beyond_its_share_an_owner_loses_its_own_oldest() -> None:
    """Own promise: flooding evicts nobody but the flooder."""
    kept, dropped = shelf()
    kept.put(BOB, "b", 0)
    for number in range(5):
        kept.put(ANN, f"a{number}", number)
    assert dropped == [(ANN, "a0", 0), (ANN, "a1", 1)]
    assert kept.get(BOB, "b") == 0


def test_what_is_used_is_not_the_oldest() -> None:
    kept, dropped = shelf()
    for number in range(3):
        kept.put(ANN, f"a{number}", number)
    kept.get(ANN, "a0")
    kept.put(ANN, "a3", 3)
    assert dropped == [(ANN, "a1", 1)]


def test_where_there_is_no_room_for_anybody_who_adds_pays() -> None:
    """Own promise: an owner within its share pays too, before anybody else does."""
    kept, dropped = shelf()
    kept.put(BOB, "b0", 0)
    for number in range(3):
        kept.put(ANN, f"a{number}", number)
    kept.put(BOB, "b1", 1)
    assert dropped == []
    kept.put(BOB, "b2", 2)
    assert dropped == [(BOB, "b0", 0)]


def test_whoever_has_nothing_gets_room_from_the_oldest_of_all() -> None:
    kept, dropped = shelf()
    kept.put(BOB, "b0", 0)
    for number in range(3):
        kept.put(ANN, f"a{number}", number)
    kept.put(BOB, "b1", 1)
    kept.get(BOB, "b0")
    kept.put(CAROL, "c0", 0)
    assert dropped == [(ANN, "a0", 0)]
    assert kept.get(CAROL, "c0") == 0


def test_weights_are_counted_and_not_things() -> None:
    kept: Shelf[str, bytes] = Shelf(share=10, total=100, weigh=len)
    kept.put(ANN, "a", b"1234")
    kept.put(ANN, "b", b"1234")
    kept.put(ANN, "c", b"123")
    assert (kept.weight, kept.get(ANN, "a"), kept.get(ANN, "b")) == (7, None, b"1234")
    kept.put(BOB, "d", b"x" * 40)  # more than its share, and the only thing it has
    assert (kept.weight, kept.get(BOB, "d")) == (47, b"x" * 40)


def test_a_key_belongs_to_one_owner() -> None:
    kept, _ = shelf()
    kept.put(ANN, "a", 1)
    with pytest.raises(AssertionError):
        kept.put(BOB, "a", 1)


STEPS = st.lists(st.tuples(st.sampled_from([ANN, BOB, CAROL]), st.integers(0, 9), st.booleans()), max_size=60)


@given(steps=STEPS, weights=st.lists(st.integers(0, 4), min_size=1, max_size=5))
def test_it_never_keeps_more_than_it_may(steps: list[tuple[Identity, int, bool]], weights: list[int]) -> None:
    """Every table that a client can grow is bounded; what was just added is there."""
    weigh = itertools.cycle(weights)
    dropped: list[str] = []
    kept: Shelf[str, int] = Shelf(
        share=8, total=16, weigh=lambda value: value, dropped=lambda _who, key, _value: dropped.append(key)
    )
    there: dict[str, tuple[Identity, int]] = {}
    for who, number, adds in steps:
        key = f"{who[1]}{number}"
        if adds and key not in there:
            value = next(weigh)
            kept.put(who, key, value)
            there[key] = (who, value)
            assert key not in dropped
        else:
            kept.take(who, key)
            there.pop(key, None)
        for gone in dropped:
            del there[gone]
        dropped.clear()
        assert {each for each in there if kept.owner(each) == there[each][0]} == set(there)
        assert (len(kept), kept.weight) == (len(there), sum(value for _, value in there.values()))
        assert kept.weight <= 16
        for each in (ANN, BOB, CAROL):
            assert sum(value for owner, value in there.values() if owner == each) <= 8
