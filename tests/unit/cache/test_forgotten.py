"""What was forgotten since: tables of what covers what, and bounds that err on the safe side."""

from __future__ import annotations

import pytest

from proxy.cache import forgotten
from proxy.cache.entry import Entry
from proxy.cache.forgotten import Forgotten
from proxy.cache.store import Forget
from tests.unit.cache.entries import make_entry

CALL = "tools/call"


@pytest.mark.parametrize(
    ("what", "entry", "is_covered"),
    [
        (Forget("a"), make_entry(tenant="a"), True),
        (Forget("a"), make_entry(tenant=""), True),
        (Forget("a"), make_entry(tenant="b"), False),
        (Forget(""), make_entry(tenant="a"), False),
        (Forget(""), make_entry(tenant=""), True),
        (Forget(None), make_entry(tenant="b"), True),
        (Forget(None), make_entry(tenant=""), True),
        (Forget("a", (CALL,)), make_entry(), True),
        (Forget("a", ("resources/read",)), make_entry(), False),
        (Forget("a", ("tools/list", CALL)), make_entry(), True),
        (Forget("a", (CALL,), ("search",)), make_entry(target="search"), True),
        (Forget("a", (CALL,), ("search",)), make_entry(target="Search"), False),
        (Forget("a", (), ("find_*", "search_*")), make_entry(target="search_it"), True),
        (Forget("a", (), ("find_*", "search_*")), make_entry(target="research_it"), False),
        (Forget("a", (), ("file:///a?b",)), make_entry(target="file:///a?b"), True),
        (Forget("a", (), ("*",)), make_entry(target="two\nlines"), True),
        (Forget(None, ("tools/list",), ("",)), make_entry(method="tools/list", target=""), True),
    ],
)
def test_what_covers_what(what: Forget, entry: Entry, is_covered: bool) -> None:
    """Contract: of one tenant, and what is shared by all; methods exactly, targets by globs."""
    book = Forgotten()
    before = book.last
    book.add(what)
    assert book.covers(entry, before) is is_covered
    assert not book.covers(entry, book.last)  # stored after it


def test_the_same_thing_again_counts_from_now() -> None:
    """A thousand writes of one tool are one line, with the number of the last."""
    book = Forgotten()
    for _ in range(1_000):
        book.add(Forget("a", (), ("x",)))
    book.add(Forget("a", (), ("y",)))
    between = book.last
    assert not book.covers(make_entry(target="x"), between)
    book.add(Forget("a", (), ("x",)))
    assert book.covers(make_entry(target="x"), between)
    assert not book.covers(make_entry(target="z"), 0)


def test_beyond_the_bound_of_a_tenant_it_forgets_too_much() -> None:
    """Own promise: never too little; and only of the tenant that asked for it, and of what is shared."""
    book = Forgotten()
    for number in range(forgotten.MOST_OF_ONE):
        book.add(Forget("a", (), (str(number),)))
    assert not book.covers(make_entry(tenant="a"), 0)
    book.add(Forget("a", (), ("one more",)))
    assert book.covers(make_entry(tenant="a"), 0)
    assert not book.covers(make_entry(tenant="a"), 1)
    assert book.covers(make_entry(tenant=""), 0)
    assert not book.covers(make_entry(tenant="b"), 0)


def test_beyond_the_bound_of_all_it_forgets_too_much() -> None:
    """A flood of tenants drops the lines of the one that forgot nothing for longest, and with it what is older."""
    book = Forgotten()
    for tenant in range(8):
        for number in range(forgotten.MOST_OF_ONE - 1):
            book.add(Forget(f"t{tenant}", (), (f"{tenant} {number}",)))
    first = forgotten.MOST_OF_ONE - 1
    assert book.covers(make_entry(tenant="nobody"), first - 1)
    assert not book.covers(make_entry(tenant="t7"), book.last - 1)
    assert not book.covers(make_entry(tenant="nobody"), book.last - 1)
    assert book.covers(make_entry(tenant="t7", target=f"7 {first - 1}"), book.last - 1)


def test_everything_is_everything_until_now() -> None:
    book = Forgotten()
    before = book.last
    book.everything()
    assert book.covers(make_entry(), before)
    assert not book.covers(make_entry(), book.last)
    book.add(Forget("b"))
    assert not book.covers(make_entry(tenant="a"), book.last - 1)
