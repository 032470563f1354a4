"""Who comes first, while keys change."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.capacity.ranking import SPARE, Ranking
from tests.fuzz.bounded import FUZZ

ITEMS = st.sampled_from("abcdef")
KEYS = st.tuples(st.integers(-3, 3).map(float), st.integers(0, 2))


@given(steps=st.lists(st.tuples(ITEMS, st.none() | KEYS), max_size=200))
@FUZZ
def test_the_least_key_of_now_is_first(steps: list[tuple[str, tuple[float, int] | None]]) -> None:
    """Against a plain dictionary: keys go up, down, away and come back."""
    ranking: Ranking[str] = Ranking()
    truth: dict[str, tuple[float, int]] = {}
    for item, key in steps:
        if key is None:
            ranking.remove(item)
            truth.pop(item, None)
        else:
            ranking.put(item, key)
            truth[item] = key
        first = ranking.first()
        assert (first is None) is (not truth)
        assert first is None or truth[first] == min(truth.values())
        assert set(ranking) == set(truth)
        assert len(ranking) == len(truth)


def test_coming_and_going_does_not_make_it_grow() -> None:
    """Own promise: bounded by what is ranked, not by what happened."""
    ranking: Ranking[int] = Ranking()
    ranking.put(-1, (0.0, 0))
    for number in range(10_000):
        ranking.put(number % 7, (float(number), 0))
        ranking.remove((number * 3) % 7)
    assert ranking.entries <= 2 * 8 + SPARE + 1
