"""When a server is left alone, and when it is tried again. Source: issue 7, item 4."""

from __future__ import annotations

import math
from typing import Any

import pytest

from proxy.resilience.breaker import ALIVE_S, PROBED_S, Breaker, State
from proxy.resilience.signals import Signal

GOOD, BAD, SILENT = Signal.GOOD, Signal.BAD, Signal.SILENT
CLOSED, HALF_OPEN, OPEN = State.CLOSED, State.HALF_OPEN, State.OPEN


def breaker(**settings: Any) -> Breaker:
    """As by default, but for what is said."""
    usual = {
        "failures": 5,
        "failure_ratio": 0.5,
        "min_calls": 20,
        "window_s": 10.0,
        "open_s": 5.0,
        "max_open_s": 60.0,
    }
    return Breaker(**{**usual, **settings})


def attempt(machine: Breaker, signal: Signal, now: float = 0.0) -> None:
    """One that passes and ends at once."""
    ticket = machine.admit(now)
    assert ticket is not None
    machine.heard(ticket, signal, now)


def opened(now: float = 0.0, **settings: Any) -> Breaker:
    """One that has just opened, by one failure."""
    machine = breaker(failures=1, **settings)
    attempt(machine, BAD, now)
    assert machine.state is OPEN
    return machine


@pytest.mark.parametrize(
    ("signals", "state"),
    [
        ([BAD] * 4, CLOSED),
        ([BAD] * 5, OPEN),
        ([GOOD] * 100 + [BAD] * 5, OPEN),
        ([BAD] * 4 + [GOOD] + [BAD] * 4, CLOSED),
        ([BAD] * 4 + [SILENT] * 9, CLOSED),
        ([BAD] * 4 + [SILENT] * 9 + [BAD], OPEN),
    ],
)
def test_failures_in_a_row_open_it(signals: list[Signal], state: State) -> None:
    """Five by default. What says nothing neither counts nor breaks the row."""
    machine = breaker()
    for signal in signals:
        attempt(machine, signal)
    assert machine.state is state


@pytest.mark.parametrize(
    ("signals", "state"),
    [
        ([BAD, GOOD] * 9 + [BAD], CLOSED),
        ([BAD, GOOD] * 9 + [GOOD, BAD], OPEN),
        ([GOOD, BAD] * 9 + [SILENT, SILENT], CLOSED),
        ([GOOD] * 11 + [BAD] * 4 + [GOOD] + [BAD] * 4, CLOSED),
        ([GOOD] * 11 + [BAD] * 4 + [GOOD] + [BAD] * 4 + [GOOD] + [BAD] * 4, CLOSED),
        ([GOOD] * 11 + [BAD] * 4 + [GOOD] + [BAD] * 4 + [GOOD] + [BAD] * 4 + [GOOD] + [BAD] * 2, OPEN),
    ],
)
def test_too_many_of_enough_attempts_open_it(signals: list[Signal], state: State) -> None:
    """Half of at least twenty within ten seconds."""
    machine = breaker()
    for signal in signals:
        attempt(machine, signal)
    assert machine.state is state


def test_a_success_never_opens_it() -> None:
    """The twentieth of a window of which half failed is a success: the failure after it opens."""
    machine = breaker()
    for signal in [BAD, GOOD] * 10:
        attempt(machine, signal)
    assert machine.state is CLOSED
    attempt(machine, BAD)
    assert machine.state is OPEN


@pytest.mark.parametrize(("later_s", "state"), [(8.9, OPEN), (10.0, CLOSED), (1e9, CLOSED)])
def test_what_was_long_ago_does_not_count(later_s: float, state: State) -> None:
    """A tenth of the window is forgotten at a time, so a call counts for nine to ten of ten seconds."""
    machine = breaker(failures=None)
    for signal in [BAD, GOOD] * 9 + [BAD]:
        attempt(machine, signal, 0.5)
    attempt(machine, BAD, 0.5 + later_s)
    assert machine.state is state


def test_failures_are_forgotten_with_the_calls_they_were_of() -> None:
    """A quarter then, and a quarter now, is not half."""
    machine = breaker(failures=None, min_calls=4)
    for now in (0.0, 20.0, 40.0):
        for signal in (GOOD, GOOD, GOOD, BAD):
            attempt(machine, signal, now)
    assert machine.state is CLOSED
    for now in (41.0, 42.0):
        attempt(machine, BAD, now)
    assert machine.state is OPEN


def test_an_old_row_of_failures_is_a_row() -> None:
    """A server that is asked once a minute and never answers is down all the same."""
    machine = breaker()
    for minute in range(5):
        attempt(machine, BAD, 60.0 * minute)
    assert machine.state is OPEN


def test_without_a_row_only_the_part_counts() -> None:
    machine = breaker(failures=None)
    for _ in range(19):
        attempt(machine, BAD)
    assert machine.state is CLOSED
    attempt(machine, BAD)
    assert machine.state is OPEN


def test_nothing_passes_while_it_is_open() -> None:
    machine = opened(100.0)
    assert [machine.admit(now) for now in (100.0, 104.999)] == [None, None]
    assert machine.wait_s(104.0) == 1.0
    assert machine.admit(105.0) is not None
    assert machine.state is HALF_OPEN


def test_one_call_at_a_time_tries_it() -> None:
    machine = opened()
    ticket = machine.admit(5.0)
    assert ticket is not None
    assert [machine.admit(now) for now in (5.0, 6.0, 1e6)] == [None] * 3
    assert machine.wait_s(6.0) == PROBED_S
    machine.heard(ticket, GOOD, 7.0)
    assert machine.state is CLOSED
    assert machine.admit(7.0) == machine.admit(7.0) is not None


def test_it_is_left_alone_twice_as_long_each_time() -> None:
    """5, 10, 20, 40, 60 and 60 seconds; a success begins anew."""
    machine = opened()
    now, waited = 0.0, []
    for _ in range(6):
        waited.append(machine.wait_s(now))
        now += waited[-1]
        attempt(machine, BAD, now)
    assert waited == [5, 10, 20, 40, 60, 60]
    now += 60
    attempt(machine, GOOD, now)
    attempt(machine, BAD, now)
    assert (machine.state, machine.wait_s(now), machine.opened) == (OPEN, 5, 8)


def test_however_often_it_fails_it_is_tried_again() -> None:
    """Doubling without end would be no number at last."""
    machine = opened(max_open_s=60)
    for minute in range(1, 3_000):
        attempt(machine, BAD, 60.0 * minute)
    assert machine.wait_s(60.0 * 2_999) == 60


def test_whoever_tries_it_and_leaves_lets_the_next_one_try() -> None:
    """Issue 7: a cancelled probe releases; it says nothing of the server."""
    machine = opened()
    attempt(machine, SILENT, 5.0)
    assert (machine.state, machine.wait_s(5.0)) == (HALF_OPEN, 0.0)
    attempt(machine, BAD, 5.0)
    assert (machine.state, machine.wait_s(5.0)) == (OPEN, 10)


def test_one_that_left_is_heard_no_more() -> None:
    """Its place is another's: what it says twice, or too late, is not what that one says."""
    machine = opened()
    first = machine.admit(5.0)
    assert first is not None
    machine.heard(first, SILENT, 5.0)
    machine.heard(first, GOOD, 5.0)
    assert machine.state is HALF_OPEN
    second = machine.admit(5.0)
    machine.heard(first, BAD, 5.0)
    machine.begun(first, 5.0)
    assert second is not None
    assert machine.admit(5.0 + 2 * ALIVE_S) is None
    machine.heard(second, GOOD, 5.0)
    assert machine.state is CLOSED


@pytest.mark.parametrize("signal", list(Signal))
def test_what_was_sent_before_it_opened_says_nothing_afterwards(signal: Signal) -> None:
    """A hundred calls that hung through an outage end long after it, and must not begin it anew, or end it."""
    machine = breaker(failures=1)
    early = [machine.admit(0.0) for _ in range(100)]
    attempt(machine, BAD)
    assert None not in early
    hung = [ticket for ticket in early if ticket is not None]
    machine.heard(hung[0], signal, 1.0)
    assert (machine.state, machine.wait_s(0.0)) == (OPEN, 5)
    probe = machine.admit(5.0)
    machine.heard(hung[1], signal, 5.0)
    assert machine.state is HALF_OPEN
    assert probe is not None
    machine.heard(probe, GOOD, 5.0)
    for ticket in hung[2:]:
        machine.heard(ticket, signal, 6.0)
    assert machine.state is CLOSED


def test_an_old_row_ends_with_the_outage() -> None:
    """After it has closed it takes as many failures as ever."""
    machine = breaker()
    for _ in range(5):
        attempt(machine, BAD)
    attempt(machine, GOOD, 5.0)
    for _ in range(4):
        attempt(machine, BAD, 5.0)
    assert machine.state is CLOSED


def test_an_old_window_ends_with_the_outage() -> None:
    machine = breaker(failures=None, open_s=1.0)
    for _ in range(20):
        attempt(machine, BAD)
    attempt(machine, GOOD, 1.0)
    for _ in range(19):
        attempt(machine, BAD, 1.0)
    assert machine.state is CLOSED
    attempt(machine, GOOD, 20.0)
    for _ in range(18):
        attempt(machine, BAD, 20.0)
    assert machine.state is CLOSED
    attempt(machine, BAD, 20.0)
    assert machine.state is OPEN


def test_an_answer_that_keeps_coming_tells_enough() -> None:
    """A stream may last for hours. Its breaking off afterwards is not counted."""
    machine = opened()
    probe = machine.admit(5.0)
    assert probe is not None
    machine.begun(probe, 20.0)
    assert machine.admit(20.0 + ALIVE_S - 0.001) is None
    assert machine.admit(20.0 + ALIVE_S) is not None
    assert machine.state is CLOSED
    for _ in range(9):
        machine.heard(probe, BAD, 21.0)
    assert machine.state is CLOSED


def test_an_answer_that_breaks_off_before_that_has_failed() -> None:
    machine = opened()
    probe = machine.admit(5.0)
    assert probe is not None
    machine.begun(probe, 5.0)
    machine.heard(probe, BAD, 5.5)
    assert (machine.state, machine.wait_s(5.5)) == (OPEN, 10)


def test_the_answer_to_one_that_left_is_not_that_of_the_next() -> None:
    machine = opened()
    first = machine.admit(5.0)
    assert first is not None
    machine.begun(first, 5.0)
    machine.heard(first, SILENT, 5.5)
    assert machine.admit(5.5) is not None
    assert machine.admit(5.5 + 2 * ALIVE_S) is None


def test_an_answer_begins_in_closed_and_open_times_without_effect() -> None:
    machine = breaker(failures=1)
    ticket = machine.admit(0.0)
    assert ticket is not None
    machine.begun(ticket, 0.0)
    machine.heard(ticket, BAD, 0.0)
    machine.begun(ticket, 0.0)
    assert machine.admit(4.0) is None


def test_a_sign_of_life_lets_the_next_call_try_it() -> None:
    """Corpus UP-090: calls succeed within two seconds of recovery, however long it was to be left alone."""
    machine = opened(open_s=40)
    machine.sign_of_life()
    assert machine.wait_s(1.0) == 0
    probe = machine.admit(1.0)
    assert (machine.admit(1.0), machine.state) == (None, HALF_OPEN)
    assert probe is not None
    machine.heard(probe, GOOD, 1.0)
    assert machine.state is CLOSED


def test_a_try_before_its_time_makes_no_time_longer() -> None:
    """The port is open before the server can answer: that must not cost another doubling. The next one does."""
    machine = opened()
    machine.sign_of_life()
    attempt(machine, SILENT, 1.0)
    attempt(machine, BAD, 1.0)
    assert machine.wait_s(1.0) == 5
    attempt(machine, BAD, 6.0)
    assert machine.wait_s(6.0) == 10


def test_a_sign_of_life_means_nothing_when_it_is_closed_or_tried() -> None:
    machine = breaker(failures=1)
    machine.sign_of_life()
    attempt(machine, BAD)
    assert machine.wait_s(0.0) == 5
    probe = machine.admit(5.0)
    machine.sign_of_life()
    assert machine.admit(5.0) is None
    assert probe is not None
    machine.heard(probe, BAD, 5.0)
    assert machine.wait_s(5.0) == 10


def test_an_early_try_that_succeeds_is_forgotten() -> None:
    """The next outage doubles as ever."""
    machine = opened()
    machine.sign_of_life()
    attempt(machine, GOOD, 1.0)
    attempt(machine, BAD, 1.0)
    attempt(machine, BAD, 6.0)
    assert machine.wait_s(6.0) == 10


@pytest.mark.parametrize("is_tried", [True, False])
def test_somebody_who_knows_better_closes_it(is_tried: bool) -> None:
    """An operator's lever. Who tries it at that moment is heard no more."""
    machine = opened()
    probe = machine.admit(5.0) if is_tried else None
    machine.close()
    assert machine.state is CLOSED
    if probe is not None:
        machine.heard(probe, BAD, 5.0)
    assert machine.state is CLOSED
    attempt(machine, BAD, 5.0)
    assert machine.wait_s(5.0) == 5
    assert machine.admit(10.0) is not None


def test_closing_what_is_closed_forgets_nothing() -> None:
    machine = breaker()
    tickets = [machine.admit(0.0) for _ in range(5)]
    machine.close()
    for ticket in tickets:
        assert ticket is not None
        machine.heard(ticket, BAD, 0.0)
    assert machine.state is OPEN


def test_it_is_open_for_no_longer_than_the_longest() -> None:
    assert opened(open_s=90, max_open_s=60).wait_s(0.0) == 60


def test_a_million_attempts_are_kept_as_a_few_numbers() -> None:
    machine = breaker(window_s=1.0)
    for number in range(100_000):
        attempt(machine, GOOD, number / 10_000)
    assert len(machine._window._slices) <= 10
    assert math.isclose(machine._window.calls, 10_000, rel_tol=0.1)
