"""Too many bad credentials from one address: arithmetic on a sliding window."""

import pytest

from proxy.identity.attempts import MAX_SOURCES, Attempts, source_of

SOURCE = "192.0.2.1"


def failing(attempts: Attempts, count: int, now: float, source: str = SOURCE) -> None:
    for _ in range(count):
        attempts.failed(source, now)


def test_below_the_limit_everybody_is_listened_to() -> None:
    """Own promise: a few wrong credentials cost nothing."""
    attempts = Attempts(3, 60)
    failing(attempts, 2, 0.0)
    assert attempts.wait_s(SOURCE, 1.0) == 0


def test_at_the_limit_the_wait_is_exact() -> None:
    """Whoever comes back when told is listened to; a moment earlier is too early."""
    attempts = Attempts(3, 60)
    failing(attempts, 3, 10.0)
    wait_s = attempts.wait_s(SOURCE, 10.0)
    assert wait_s == pytest.approx(50.0)
    assert attempts.wait_s(SOURCE, 10.0 + wait_s - 0.01) > 0
    assert attempts.wait_s(SOURCE, 10.0 + wait_s + 0.01) == 0


@pytest.mark.parametrize(("count", "now"), [(4, 0.0), (10, 59.0), (6, 30.0), (100, 61.5)])
def test_every_wait_ends_when_it_says(count: int, now: float) -> None:
    """The window slides: what failed before counts less and less."""
    attempts = Attempts(3, 60)
    failing(attempts, count, now)
    wait_s = attempts.wait_s(SOURCE, now)
    assert attempts.wait_s(SOURCE, now + wait_s - 0.01) > 0
    assert attempts.wait_s(SOURCE, now + wait_s + 0.01) == 0


def test_failures_of_the_window_before_weigh_what_still_lies_inside() -> None:
    """A burst on both sides of a boundary is one burst."""
    attempts = Attempts(4, 60)
    failing(attempts, 3, 59.0)
    failing(attempts, 2, 61.0)
    assert attempts.wait_s(SOURCE, 61.0) == pytest.approx(19.0)  # 3 of them weigh 2/3 at 80
    assert attempts.wait_s(SOURCE, 80.5) == 0
    assert attempts.wait_s(SOURCE, 1000.0) == 0


def test_a_valid_credential_starts_anew() -> None:
    """Issue 3: reset on success."""
    attempts = Attempts(2, 60)
    failing(attempts, 5, 0.0)
    attempts.succeeded(SOURCE)
    assert attempts.wait_s(SOURCE, 0.0) == 0
    failing(attempts, 1, 0.0)
    assert attempts.wait_s(SOURCE, 0.0) == 0


def test_one_address_does_not_answer_for_another() -> None:
    """Own promise."""
    attempts = Attempts(1, 60)
    failing(attempts, 1, 0.0)
    assert attempts.wait_s("192.0.2.2", 0.0) == 0
    attempts.succeeded("192.0.2.2")
    assert attempts.wait_s(SOURCE, 0.0) > 0


def test_many_addresses_are_bounded_and_the_oldest_goes_first() -> None:
    """Style guide 8: every table that a client can grow is bounded."""
    attempts = Attempts(1, 60)
    for number in range(MAX_SOURCES + 1):
        attempts.failed(f"s{number}", 0.0)
    assert attempts.wait_s("s0", 0.0) == 0
    assert attempts.wait_s("s1", 0.0) > 0
    assert attempts.wait_s(f"s{MAX_SOURCES}", 0.0) > 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::2:1", True),
        ("2001:db8::1", "2001:db8:0:0:ffff::", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("", "", True),
        ("no:address", "no:address", True),
    ],
)
def test_a_host_cannot_hide_in_its_own_network(one: str, other: str, same: bool) -> None:
    """One host may have all of an IPv6 /64."""
    assert (source_of(one) == source_of(other)) is same
