"""Was this heard? Bounded, whatever a server chooses for an id."""

import itertools

import pytest

from proxy.identity.digests import BYTES, Digester, Digests

IDS: list[int | str] = [
    0,
    1,
    -1,
    "",
    "0",
    "1",
    "s1",
    "i1",
    2**70,
    -(2**70),
    255,
    256,
    10**5_000,
    "1" * 5_000,
    "\ud800",
]


def test_ids_that_differ_have_digests_that_differ() -> None:
    """protocol.md 3.1: 1 is not "1"; a number of 5,000 digits and a lone surrogate are ids too."""
    digester = Digester()
    digests = {digester.of_id(each) for each in IDS}
    assert len(digests) == len(IDS)
    assert {len(each) for each in digests} == {BYTES}
    assert digester.of_id(7) == digester.of_id(7)


def test_nobody_can_know_a_digest() -> None:
    """Two of our processes, or an attacker's guess, do not share the key."""
    assert Digester().of_bytes(b"7") != Digester().of_bytes(b"7")


def number(value: int) -> bytes:
    return value.to_bytes(BYTES, "big")


def test_the_last_ones_are_kept() -> None:
    kept = Digests(3)
    for value in range(5):
        kept.add(number(value))
    assert [value for value in range(6) if number(value) in kept] == [2, 3, 4]
    assert kept.last(2) == number(3) + number(4)
    assert kept.last(9) == number(2) + number(3) + number(4)
    kept.add(b"".join(map(number, range(10, 15))))
    assert kept.last(9) == number(12) + number(13) + number(14)
    assert kept.size_bytes == 3 * BYTES


@pytest.mark.parametrize("shift", range(1, BYTES))
def test_what_lies_across_two_neighbours_is_none_of_them(shift: int) -> None:
    """Own promise: a search in bytes must not find what was never added."""
    kept = Digests(10)
    pieces = [bytes(range(8)), bytes(range(8, 16)), bytes(range(8))]
    for each in pieces:
        kept.add(each)
    text = b"".join(pieces)
    assert text[shift : shift + BYTES] not in kept
    kept.add(text[shift : shift + BYTES])
    assert text[shift : shift + BYTES] in kept


def test_nothing_is_in_an_empty_one() -> None:
    kept = Digests(2)
    assert number(0) not in kept
    assert (kept.last(3), kept.size_bytes) == (b"", 0)


def test_what_is_repeated_takes_its_place_again() -> None:
    kept = Digests(2)
    for value in itertools.chain([0], [1] * 2):
        kept.add(number(value))
    assert number(0) not in kept
