"""The same thing over and over: arithmetic on a sliding window, and who pays for a full table."""

import pytest

from proxy.policy.guard_settings import RepetitionSettings
from proxy.policy.repetition import Key, Repetition, refused

ANN: Key = (("iss", "ann", "acme"), b"search")


def key(what: str, subject: str = "ann", tenant: str = "acme") -> Key:
    return ("iss", subject, tenant), what.encode()


def repetition(most: int = 3, window_s: float = 60.0, **bounds: int) -> Repetition:
    return Repetition(RepetitionSettings(most=most, window_s=window_s), **bounds)


def passing(guard: Repetition, moments: list[float], who: Key = ANN) -> list[bool]:
    """Which of the calls at these moments pass; those that do are counted."""
    passed = []
    for now in moments:
        passed.append(not guard.wait_s([who], now))
        if passed[-1]:
            guard.count([who], now)
    return passed


@pytest.mark.parametrize(
    ("moments", "passed"),
    [
        ([0, 1, 2, 3], [1, 1, 1, 0]),
        ([0, 1, 2, 59.9, 60, 60.5, 61], [1, 1, 1, 0, 1, 0, 1]),
        ([0, 30, 59, 61, 62, 89, 90], [1, 1, 1, 1, 0, 0, 1]),
        # What is refused does not prolong the refusal.
        ([0, 0, 0, *range(1, 60), 60], [1, 1, 1, *[0] * 59, 1]),
        ([0, 100, 200, 300, 400], [1, 1, 1, 1, 1]),
    ],
)
def test_the_window_slides(moments: list[float], passed: list[int]) -> None:
    """Issue 4: the same identity, tool and arguments n times in a window; then no more."""
    assert passing(repetition(), moments) == [bool(each) for each in passed]


@pytest.mark.parametrize("moments", [[0.0, 0.0, 0.0], [0.0, 10.0, 20.0], [5.5, 7.25, 64.0]])
def test_the_wait_is_exact(moments: list[float]) -> None:
    """Whoever comes back when told passes; a moment earlier is too early."""
    guard = repetition()
    passing(guard, moments)
    wait_s = guard.wait_s([ANN], moments[-1])
    assert wait_s == pytest.approx(moments[0] + 60 - moments[-1])
    assert guard.wait_s([ANN], moments[-1] + wait_s - 0.01) > 0
    assert guard.wait_s([ANN], moments[-1] + wait_s) == 0


@pytest.mark.parametrize(
    "other",
    [key("other"), key("search", subject="bob"), key("search", tenant="b"), (("x", *ANN[0][1:]), ANN[1])],
)
def test_others_and_other_calls_are_not_meant(other: Key) -> None:
    """Issue 4: by identity, tool and arguments; a colleague in a loop refuses nobody else."""
    guard = repetition(most=1)
    passing(guard, [0.0, 0.0], ANN)
    assert guard.wait_s([ANN], 1.0) > 0
    assert guard.wait_s([other], 1.0) == 0


def test_a_batch_counts_each_of_its_calls() -> None:
    """Own promise: what is refused one by one does not pass together."""
    guard = repetition()
    assert guard.wait_s([ANN] * 3, 0.0) == 0
    assert guard.wait_s([ANN] * 4, 0.0) > 0
    assert guard.wait_s([ANN] * 4, 1e9) > 0
    guard.count([ANN, ANN, key("other")], 0.0)
    guard.count([ANN], 10.0)
    assert guard.wait_s([key("other")] * 2, 10.0) == 0
    assert guard.wait_s([ANN], 10.0) == 50
    assert guard.wait_s([ANN, key("other"), ANN], 10.0) == 50
    assert guard.wait_s([ANN] * 3, 10.0) == 60
    assert guard.wait_s([], 10.0) == 0


def test_what_no_longer_counts_is_not_kept() -> None:
    """Memory follows what happens within a window."""
    guard = repetition()
    for number in range(100):
        guard.count([key(str(number))], float(number))
    assert len(guard) == 60
    guard.count([ANN], 1_000.0)
    assert len(guard) == 1
    # Whoever never stops keeps nobody else's entries.
    for number in range(1_000):
        guard.count([ANN, key(str(number), tenant=str(number))], 1_001.0 + number)
    assert len(guard) == len(guard._of_tenant) == 61


def test_a_flood_of_one_tenant_costs_the_others_nothing() -> None:
    """Style guide 8: bounded, and who floods pays, within its share and where there is no room for anybody."""
    guard = repetition(most=1, share=4, total=8)
    quiet = [key(str(number), tenant="quiet") for number in range(3)]
    guard.count(quiet, 0.0)
    for number in range(1_000):
        guard.count([key(f"flood {number}")], 1.0)
        assert len(guard) <= 8
    assert all(guard.wait_s([each], 2.0) for each in quiet)
    assert [number for number in range(1_000) if guard.wait_s([key(f"flood {number}")], 2.0)] == list(
        range(996, 1_000)
    )
    for number in range(20):
        guard.count([key("one", tenant="quiet"), key("two", tenant="quiet")], 1.0 + number / 100)
        guard.count([key(str(number), tenant=f"t{number}")], 1.0)
        assert len(guard) <= 8


def test_what_was_called_last_is_forgotten_last() -> None:
    """A loop is not hidden by a few other calls in between."""
    guard = repetition(most=2, share=2)
    for now, what in enumerate(["a", "b", "a", "c"]):
        guard.count([key(what)], float(now))
    assert [bool(guard.wait_s([key(what)] * 2, 5.0)) for what in "abc"] == [True, False, True]


def test_only_who_has_nothing_else_takes_the_oldest_place() -> None:
    """Precedent: `shelf.py`. A newcomer is counted too, or many tenants would switch the guard off."""
    guard = repetition(most=1, share=2, total=2)
    guard.count([key("1", tenant="a")], 0.0)
    guard.count([key("1", tenant="b")], 1.0)
    guard.count([key("1", tenant="c")], 2.0)
    assert [bool(guard.wait_s([key("1", tenant=each)], 3.0)) for each in "abc"] == [False, True, True]


def test_the_refusal_tells_a_model_to_stop() -> None:
    """Issue 4: the words say that repeating will not help."""
    refusal = refused(12.5)
    assert "Repeating will not help" in refusal.why
    assert (refusal.retry_after_s, refusal.data) == (12.5, {"limit": "repetition"})
