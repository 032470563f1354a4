"""What a caller is told that a limit refuses: words, numbers, and the fields of the draft."""

from __future__ import annotations

import math
import re

import pytest

from proxy.limits.demand import Demand, Denied, Quota, Rate, Window
from proxy.limits.words import refused
from proxy.model import Reason, Refused, Rule

NOON = 1_770_724_800.0
"""2026-02-10, 12:00 UTC."""
RULE = Rule(id="r")


def no(
    measure: Rate | Quota, *, cost: int = 1, left: int = 0, wait_s: float = math.inf, rule: Rule = RULE
) -> Refused:
    return refused(Demand("daily", "daily/acme", measure, cost), Denied(0, left, wait_s), rule, NOON)


@pytest.mark.parametrize(
    ("refusal", "why"),
    [
        (
            no(Rate(10, 20), wait_s=0.1),
            "Limit daily allows 10 a second and 20 at once. Nothing is left. Call again in 0.1 seconds, not before.",
        ),
        (
            no(Rate(0.1, 1), cost=50, left=1),
            "Limit daily allows 6 a minute and 1 at once. 1 is left, and this call costs 50. It never allows so much: "
            "waiting does not help, ask for less.",
        ),
        (
            no(Rate(0.01, 1), wait_s=100),
            "Limit daily allows 36 an hour and 1 at once. Nothing is left. Call again in 100 "
            "seconds, not before.",
        ),
        (
            no(Rate(1_000_000, 1), wait_s=1e-6),
            "Limit daily allows 1000000 a second and 1 at once. Nothing is left. Call again in 0.1 "
            "seconds, not before.",
        ),
        (
            no(Rate(999_999.5, 1), wait_s=1e-6),
            "Limit daily allows 1000000 a second and 1 at once. Nothing is left. Call again in 0.1 "
            "seconds, not before.",
        ),
        (
            no(Rate(1e-6, 1), wait_s=1e6),
            "Limit daily allows 0.0864 a day and 1 at once. Nothing is left. Call again in 12 days, not before.",
        ),
        (
            no(Quota(100, Window("hour")), wait_s=60),
            "Limit daily allows 100 an hour (UTC). Nothing is left. Call again in 60 seconds; until then do without "
            "it, or tell your user.",
        ),
        (
            no(Rate(1 / 7200, 3), left=2, cost=3, wait_s=7200),
            "Limit daily allows 12 a day and 3 at once. 2 are left, and this call costs 3. Call again in 120 minutes, "
            "not before.",
        ),
        (no(Rate(0, 1)), "Limit daily allows nothing. Waiting does not help; tell your user."),
        (
            no(Quota(100, Window("day", "Asia/Tokyo")), cost=50, left=49, wait_s=10_800),
            "Limit daily allows 100 a day (Asia/Tokyo). 49 are left, and this call costs 50. Call again in 3 hours; "
            "until then do without it, or tell your user.",
        ),
        (
            no(Quota(100, Window("sliding", sliding_s=3600)), wait_s=61),
            "Limit daily allows 100 in any 60 minutes. Nothing is left. Call again in 61 seconds; until then do "
            "without it, or tell your user.",
        ),
        (no(Quota(0, Window("month"))), "Limit daily allows nothing. Waiting does not help; tell your user."),
        (
            no(Rate(1, 1), wait_s=1, rule=Rule(id="r", instead="use search_index, it costs 1.")),
            "Limit daily allows 1 a second and 1 at once. Nothing is left. Call again in 1 second, not before. "
            "Instead: use search_index, it costs 1.",
        ),
    ],
)
def test_the_words_say_what_is_left_and_what_to_do(refusal: Refused, why: str) -> None:
    """Issue 5: which limit, how much is left, when to come back, which cheaper thing is possible."""
    assert refusal.why == why


@pytest.mark.parametrize(
    ("refusal", "reason", "data", "retry_after_s"),
    [
        (no(Rate(10, 20), wait_s=0.25), Reason.RATE_LIMITED, {"limit": "daily", "remaining": 0}, 0.25),
        (
            no(Rate(10, 20), cost=50, left=7),
            Reason.RATE_LIMITED,
            {"limit": "daily", "remaining": 7, "cost": 50},
            None,
        ),
        (
            no(Quota(100, Window("day")), wait_s=43_200),
            Reason.QUOTA_SPENT,
            {"limit": "daily", "remaining": 0, "resetsAt": "2026-02-11T00:00:00Z"},
            43_200,
        ),
        (
            no(Quota(100, Window("sliding", sliding_s=9)), wait_s=1.25),
            Reason.QUOTA_SPENT,
            {"limit": "daily", "remaining": 0, "resetsAt": "2026-02-10T12:00:02Z"},
            1.25,
        ),
        (no(Quota(0, Window("day"))), Reason.QUOTA_SPENT, {"limit": "daily", "remaining": 0}, None),
    ],
)
def test_programs_get_the_same_as_data(
    refusal: Refused, reason: Reason, data: dict[str, object], retry_after_s: float | None
) -> None:
    assert (refusal.reason, refusal.data, refusal.retry_after_s) == (reason, data, retry_after_s)


@pytest.mark.parametrize(
    ("refusal", "policy", "limit"),
    [
        (no(Rate(10, 20), wait_s=0.1), '"daily";q=20;w=2', '"daily";r=0;t=1'),
        (no(Rate(0.1, 1), cost=2, left=1), '"daily";q=1;w=10', '"daily";r=1'),
        # A window is whole seconds: a bucket that fills in less gives more in one.
        (no(Rate(1000, 20), wait_s=0.001), '"daily";q=1000;w=1', '"daily";r=0;t=1'),
        (
            no(Rate(1e-6, 10**9), wait_s=1e6),
            '"daily";q=1000000000;w=999999999999999',
            '"daily";r=0;t=1000000',
        ),
        (no(Rate(0, 1)), '"daily";q=0', '"daily";r=0'),
        (no(Quota(100, Window("day")), wait_s=43_200), '"daily";q=100;w=86400', '"daily";r=0;t=43200'),
        (no(Quota(100, Window("month")), wait_s=1), '"daily";q=100;w=2419200', '"daily";r=0;t=1'),
        (
            no(Quota(9, Window("sliding", sliding_s=1.5)), cost=8, left=7, wait_s=0.2),
            '"daily";q=9;w=2',
            '"daily";r=7;t=1',
        ),
        (no(Quota(0, Window("day"))), '"daily";q=0', '"daily";r=0'),
    ],
)
def test_header_fields_are_those_of_the_draft(refusal: Refused, policy: str, limit: str) -> None:
    """draft-ietf-httpapi-ratelimit-headers-11, 3.1 and 4.1: a String, q and r Integers, w not zero, t not after
    Retry-After."""
    assert refusal.headers == ((b"RateLimit-Policy", policy.encode()), (b"RateLimit", limit.encode()))
    for number in re.findall(r"=(\d+)", policy + limit):
        assert len(number) <= 15


@pytest.mark.parametrize(
    ("wait_s", "said"),
    [
        (1e-9, "0.1 seconds"),
        (0.11, "0.2 seconds"),
        (0.91, "1 second"),
        (1.0, "1 second"),
        (9.95, "10 seconds"),
        (10.2, "11 seconds"),
        (119.5, "120 seconds"),
        (121, "3 minutes"),
        (7_201, "3 hours"),
        (172_801, "3 days"),
        (2_678_400, "31 days"),
    ],
)
def test_no_wait_is_told_shorter_than_it_is(wait_s: float, said: str) -> None:
    assert f"again in {said}," in no(Rate(10, 20), wait_s=wait_s).why
