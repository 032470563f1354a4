"""Which names stand in labels: never so many that whoever collects them runs out of memory. design section 6."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.telemetry.labels import LONGEST, MOST_SERIES, OTHER, Names, Series, is_fit

WORDS = [f"w{n}" for n in range(13)]
"""As many as there are statuses."""
names = st.integers(0, 400).map(str)
combinations = st.lists(st.tuples(names, names, st.sampled_from(WORDS)), max_size=300)
Combination = tuple[str, str, str]


@given(combinations, st.integers(30, 300), st.sampled_from([1, 3]))
def test_there_are_never_too_many_series(asked: list[Combination], most: int, each: int) -> None:
    """design section 6, for the product of all labels; also counting those that are kept free."""
    words = WORDS[:5]
    series = Series(words=len(words), each=each, most=most)
    placed = {series.place(row, tenant, words[int(row) % 5]) for row, tenant, _ in asked}
    assert len(placed) * each <= most
    assert len(series) * each <= most
    rows = {row for row, _, _ in placed} | {OTHER}
    # Every row may still fail in every way.
    everything = placed | {(row, OTHER, word) for row in rows for word in words}
    assert len(everything) * each <= most
    assert {series.place(row, OTHER, word) for row in rows for word in words} <= everything


@given(combinations)
def test_a_series_goes_on_to_count(asked: list[Combination]) -> None:
    """What has a series is never counted elsewhere later: a counter that stands still looks like an outage."""
    series = Series(words=13, most=150)
    own = [each for each in asked if series.place(*each) == each]
    assert [series.place(*each) for each in own] == own


@given(combinations)
def test_what_is_placed_stays_where_it_is(asked: list[Combination]) -> None:
    """`other` is no name among others: whatever comes out goes in again."""
    series = Series(words=13, most=150)
    for each in asked:
        placed = series.place(*each)
        assert series.place(*placed) == placed
        assert all(now in (was, OTHER) for now, was in zip(placed, each, strict=True))
        assert placed[2] == each[2], "words are of a closed set, and tell what became of a call"


def all_of(series: Series, rows: Iterable[str], tenants: Iterable[str]) -> list[Combination]:
    tenants = list(tenants)
    return [series.place(row, tenant, word) for row in rows for tenant in tenants for word in WORDS]


def test_tenants_collapse_before_tools() -> None:
    """design section 6: however many tenants came first, a server's tools are told apart."""
    series = Series(words=13)
    of_tenants = all_of(series, ["first"], map(str, range(1_000)))
    assert len({tenant for _, tenant, _ in of_tenants}) < 60
    later = all_of(series, (f"tool {n}" for n in range(30)), ["tenant"])
    assert {row for row, _, _ in later} == {f"tool {n}" for n in range(30)}
    assert {tenant for _, tenant, _ in later} == {OTHER}


def test_tools_collapse_when_there_is_no_room_for_them_alone() -> None:
    """design section 6: then tools. Those that have a series keep it."""
    series = Series(words=13)
    placed = all_of(series, map(str, range(1_000)), ["one"])
    rows = [row for row, _, _ in placed]
    assert rows[:130] == [str(n) for n in range(10) for _ in WORDS]
    assert set(rows[-13:]) == {OTHER}
    assert 38 <= len(set(rows)) <= 77


def test_a_histogram_counts_all_that_one_tool_has() -> None:
    """Every bucket is a series."""
    series = Series(each=17)
    placed = {series.place(str(n)) for n in range(1_000)}
    assert 17 * len(placed) <= MOST_SERIES
    assert len(placed) == MOST_SERIES // 17


@pytest.mark.parametrize(
    "name", ["", "a" * (LONGEST + 1), "a\nb", "\x00", "\ud800", "evil\u202ename", "a\u2028b"]
)
def test_a_name_that_harms_the_page_is_no_label(name: str) -> None:
    """A server lists it, or an issuer gives it to a tenant: half a surrogate pair cannot be written at all."""
    known = Names(10)
    assert not is_fit(name)
    assert (known.learn(name), known.label(name), len(known)) == (OTHER, OTHER, 0)


@given(st.text(max_size=LONGEST))
def test_a_name_that_is_let_in_can_be_written(name: str) -> None:
    if is_fit(name):
        name.encode("utf-8")
        assert "\n" not in name


def test_only_so_many_names_are_known() -> None:
    """Whoever comes first stays, also when fewer are allowed later: its series would be forgotten by nobody."""
    known = Names(2)
    assert [known.learn(name) for name in ("a", "b", "c", "a")] == ["a", "b", OTHER, "a"]
    known.most = 1
    assert [known.label(name) for name in ("a", "b", "c", None)] == ["a", "b", OTHER, OTHER]


def test_what_is_no_name_teaches_nothing() -> None:
    """Lists are the server's: names may be anything."""
    known = Names(10)
    known.learn_all(["a", None, 1, ["b"], {"c": 1}])
    assert len(known) == 1
    assert "a" in known
