"""How long to wait before the next attempt, and what servers may ask for."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import pytest

from proxy.resilience.backoff import asked_s, backoff_s

NOON = 1_800_000_000.0
"""Fri, 15 Jan 2027 08:00:00 GMT."""


@pytest.mark.parametrize(
    ("failed", "bound_s"), [(1, 0.1), (2, 0.2), (3, 0.4), (6, 3.2), (7, 5.0), (100, 5.0), (10**6, 5.0)]
)
def test_waits_double_up_to_a_bound_and_spread_from_nothing(failed: int, bound_s: float) -> None:
    """Full jitter."""
    waits = [backoff_s(failed, chance, base_s=0.1, cap_s=5) for chance in (0.0, 0.5, 1.0)]
    assert waits == [0.0, bound_s / 2, bound_s]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("3", 3.0),
        (" 3\t", 3.0),
        ("007", 7.0),
        ("999999999", 999_999_999.0),
        ("999999999999", 999_999_999_999.0),
        ("9" * 13, math.inf),
        ("9" * 8_000, math.inf),
        ("Fri, 15 Jan 2027 08:00:07 GMT", 7.0),
        ("Friday, 15-Jan-27 08:00:07 GMT", 7.0),
        ("Fri Jan 15 08:00:07 2027", 7.0),
        ("Fri, 15 Jan 2027 07:59:59 GMT", 0.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("", None),
        ("-1e9", None),
        ("-1", None),
        ("1.5", None),
        ("1e3", None),
        ("+3", None),
        ("٣", None),
        ("soon", None),
        ("Fri, 99 Jan 2027 08:00:07 GMT", None),
        ("Fri, 15 Jan 2027 08:00:07 GMT" + " " * 80 + "x", None),
        ("\ud800", None),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0.0),
    ],
)
def test_what_a_server_asks_for(value: str, seconds: float | None) -> None:
    """RFC 9110 section 10.2.3: seconds, or a date in one of three forms. Corpus UP-054 and UP-055."""
    assert asked_s([value], NOON) == seconds


@pytest.fixture
def far_from_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "XXX-9")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("far_from_greenwich")
def test_a_date_without_a_zone_does_not_mean_ours() -> None:
    """RFC 9110 section 5.6.7: all of them are in UTC."""
    assert time.timezone == -9 * 3_600
    assert asked_s(["Fri Jan 15 08:00:07 2027"], NOON) == 7.0


def test_of_several_the_longest_is_obeyed() -> None:
    assert asked_s([], NOON) is None
    assert asked_s(["1", "garbage", "5", "2"], NOON) == 5.0
