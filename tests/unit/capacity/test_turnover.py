"""How long will it be until places have come free: arithmetic on moments."""

import pytest

from proxy.capacity.turnover import ENOUGH, Turnover


def after(moments: list[float]) -> Turnover:
    turnover = Turnover()
    for now in moments:
        turnover.freed(now)
    return turnover


def test_nobody_knows_before_it_was_seen_a_few_times() -> None:
    assert after([float(each) for each in range(ENOUGH)]).wait_s(1, ENOUGH - 1) is None
    assert after([float(each) for each in range(ENOUGH + 1)]).wait_s(1, ENOUGH) == 1.0


def test_so_many_places_take_so_many_times_as_long() -> None:
    turnover = after([each * 0.25 for each in range(50)])
    assert turnover.wait_s(8, 49 * 0.25) == pytest.approx(2.0)


def test_the_newest_counts_most() -> None:
    """A server that has become ten times as slow is believed within thirty calls."""
    moments = [each * 0.1 for each in range(50)]
    moments += [moments[-1] + each for each in range(1, 31)]
    assert after(moments).wait_s(1, moments[-1]) == pytest.approx(1.0, rel=0.1)


def test_silence_tells_too() -> None:
    """Nothing has come free for a minute: it is no longer a matter of 100 ms."""
    turnover = after([each * 0.1 for each in range(50)])
    assert turnover.wait_s(2, 4.9 + 60) == pytest.approx(120)


def test_times_without_need_do_not_count() -> None:
    """While there are enough places, the time between two that come free says how often calls come."""
    turnover = after([each * 0.1 for each in range(50)])
    turnover.rest()
    turnover.freed(1_000.0)
    turnover.freed(1_000.1)
    assert turnover.wait_s(1, 1_000.1) == pytest.approx(0.1)
