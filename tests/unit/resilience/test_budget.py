"""How many attempts may be repeated, in every window of ten seconds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.resilience.budget import WINDOW_S, Budget
from tests.fuzz.bounded import FUZZ


def usual() -> Budget:
    return Budget(ratio=0.2, min_per_s=10)


def granted(budget: Budget, now: float, wanted: int) -> int:
    return sum(budget.repeat(now) for _ in range(wanted))


def test_ten_seconds_worth_may_come_at_once() -> None:
    """Issue 7: 10/s, whatever was called."""
    budget = usual()
    assert granted(budget, 0.0, 500) == 100
    assert granted(budget, 9.99, 500) == 0
    assert granted(budget, 10.01, 500) == 100


def test_one_more_may_be_repeated_for_each_five_calls() -> None:
    """Issue 7: 20 %."""
    budget = usual()
    assert granted(budget, 0.0, 500) == 100
    for _ in range(1_000):
        budget.called()
    assert granted(budget, 1.0, 500) == 100  # this window may also begin behind the calls
    assert granted(budget, 2.0, 500) == 0
    for _ in range(50):
        budget.called()
    assert granted(budget, 3.0, 500) == 10


def test_a_storm_is_not_paid_for_by_calls_that_are_over() -> None:
    """A window that begins behind them holds a hundred repeated attempts and no call."""
    budget = usual()
    for _ in range(100_000):
        budget.called()
    assert granted(budget, 0.001, 500) == 100


def test_where_little_is_repeated_in_any_case_calls_pay() -> None:
    budget = Budget(ratio=0.2, min_per_s=0.1)
    assert granted(budget, 0.0, 5) == 1
    for at in range(4):
        budget.called()
        assert not budget.repeat(0.1 + at)
    budget.called()
    assert granted(budget, 4.1, 5) == 1


def test_a_fifth_of_a_steady_stream_is_repeated_for_ever() -> None:
    budget = Budget(ratio=0.2, min_per_s=0.1)
    repeated = 0
    for at in range(100_000):
        budget.called()
        repeated += budget.repeat(at / 1_000)
    assert 20_000 <= repeated <= 20_011
    assert budget.kept < 10


def test_asking_takes_nothing() -> None:
    budget = Budget(ratio=0, min_per_s=0.1)
    assert [budget.may_repeat(0.0) for _ in range(3)] == [True, True, True]
    assert budget.repeat(0.0)
    assert not budget.may_repeat(0.0)
    assert not budget.may_repeat(10.0)
    assert budget.may_repeat(10.1)


def test_what_is_kept_is_bounded_by_what_was_repeated() -> None:
    budget = usual()
    for at in range(50_000):
        budget.called()
        budget.repeat(at / 10_000)
        budget.may_repeat(at / 10_000)
    assert budget.kept <= 500


events = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.0, 0.1, 1.0, 3.0, 9.9, 10.0, 10.5, 30.0]),
        st.sampled_from(["call", "call", "repeat"]),
        st.integers(1, 12),
    ),
    max_size=60,
)


@given(events=events, ratio=st.sampled_from([0.0, 0.2, 0.25, 1.0]), min_per_s=st.sampled_from([0.1, 0.25, 1]))
@FUZZ
def test_in_no_window_is_more_repeated(
    events: list[tuple[float, str, int]], ratio: float, min_per_s: float
) -> None:
    """Nor less than there is room for: a plain count of every window that ends now decides the same."""
    budget = Budget(ratio=ratio, min_per_s=min_per_s)
    past: list[tuple[float, str]] = []
    now = 0.0
    for step, what, times in events:
        now += step
        for _ in range(times):
            if what == "call":
                budget.called()
                past.append((now, "call"))
                continue
            over = excess = 1.0
            for at, word in reversed(past):
                if at < now - WINDOW_S:
                    break
                excess += 1 if word == "repeat" else -ratio
                over = max(over, excess)
            assert budget.repeat(now) == (over <= min_per_s * WINDOW_S + 1e-6)
            if over <= min_per_s * WINDOW_S + 1e-6:
                past.append((now, "repeat"))


def test_long_runs_lose_nothing_to_rounding() -> None:
    budget = Budget(ratio=0.1, min_per_s=0.1)
    calls = 1_000_000
    for _ in range(calls):
        budget.called()
    assert granted(budget, calls / 100_000, 5) == 1
    for _ in range(10):
        assert not budget.repeat(calls / 100_000)
        budget.called()
    assert granted(budget, calls / 100_000, 5) == 1
