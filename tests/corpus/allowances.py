"""How much may the caller of each case have? Case id → allowance, and the settings that say so.

Cases share sidecars: each has a client of its own (`client_id` in its token), whose buckets nobody else touches, once
for each time it may be tried. Everybody else has more than any case uses.
"""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

TRIES = 3
"""How often a case may be tried against one sidecar."""
SLOW = 0.001
"""A second: nothing comes back while a case runs."""
PER_TENANT = 10
"""Calls of one tenant at the server at once."""
LOCAL_SHARE = 0.5
"""Of each limit, what one replica grants by itself while the store is down."""
RATE, QUOTA = "pace", "daily"
"""Names of the limits."""

_FASTEST, _BIGGEST_BURST, _BIGGEST_QUOTA = 1_000_000, 1_000_000_000, 1_000_000_000_000


class Allowance(Struct, frozen=True, kw_only=True):
    """What is absent has no end."""

    burst: int | None = None
    rate_per_s: float = SLOW
    """Said where there is a burst."""
    quota: int | None = None
    """Units a day, in UTC."""


ALLOWED: Mapping[str, Allowance] = {
    "RPC-120": Allowance(burst=1_000),
    "LIM-003": Allowance(burst=20, rate_per_s=10),
    # One is for the call of the case itself.
    "LIM-004": Allowance(burst=11),
    "LIM-007": Allowance(burst=21, rate_per_s=0.5),
    # After one heavy call 49 units are left of the quota, and one more in the bucket: the quota alone refuses.
    "LIM-008": Allowance(burst=100, quota=99),
    "LIM-010": Allowance(quota=10),
    "LIM-015": Allowance(burst=20),
    "LIM-017": Allowance(quota=4),
    # The next token comes after 1.43 s: a Retry-After that is always 1, or 0, is too early.
    "LIM-019": Allowance(burst=2, rate_per_s=0.7),
    "LIM-020": Allowance(burst=500),
    "LIM-021": Allowance(burst=500),
    "LIM-022": Allowance(quota=5),
    "LIM-023": Allowance(quota=100),
    "LIM-026": Allowance(quota=10),
}
"""By case."""


TENANTS = ("A", "a ", "ａ")
"""Other spellings of the tenant `a`."""


class Moment(Struct, frozen=True, kw_only=True):
    """When calls of LIM-022 are sent, and how many of them a day of UTC has left."""

    at: str
    """ISO 8601."""
    granted: int


OVERLAP = (
    # The case itself has taken one of five.
    Moment(at="2026-03-28T23:59:59.900+00:00", granted=4),
    Moment(at="2026-03-29T00:00:00+00:00", granted=5),
    # The clock is put right, backwards.
    Moment(at="2026-03-28T23:59:59.950+00:00", granted=0),
    Moment(at="2026-03-29T00:00:01+00:00", granted=0),
)
LOCAL = (
    # Clocks went forward: midnight there is at 22 h, and would be at 23 h by the time of winter.
    Moment(at="2026-03-29T21:59:59+00:00", granted=0),
    Moment(at="2026-03-29T22:00:00+00:00", granted=0),
    Moment(at="2026-03-29T23:00:00+00:00", granted=0),
    Moment(at="2026-03-30T00:00:00+00:00", granted=5),
    # And back: the other way round.
    Moment(at="2026-10-25T00:00:00+00:00", granted=5),
    Moment(at="2026-10-25T22:00:00+00:00", granted=0),
    Moment(at="2026-10-25T23:00:00+00:00", granted=0),
    Moment(at="2026-10-26T00:00:00+00:00", granted=5),
)
DAYS = OVERLAP + LOCAL
"""In this order, before a sidecar whose local time is that of elsewhere.ZONE."""


def client_of(case: str, turn: int) -> str:
    """The client that calls when a case is tried the `turn`th time, from 1."""
    return f"{case.lower()}.{turn}"


def limits() -> list[dict[str, Any]]:
    """The `limits` section: a rate by client, and a quota by tenant and client."""
    rates, quotas = {}, {}
    for case, allowed in ALLOWED.items():
        for turn in range(1, TRIES + 1):
            client = client_of(case, turn)
            if allowed.burst is not None:
                rates[client] = {"rate_per_s": allowed.rate_per_s, "burst": allowed.burst}
            if allowed.quota is not None:
                quotas[f"a/{client}"] = {"quota": allowed.quota}
    rate = {"rate_per_s": _FASTEST, "burst": _BIGGEST_BURST, "overrides": rates}
    quota = {"quota": _BIGGEST_QUOTA, "window": "day", "timezone": "UTC", "overrides": quotas}
    return [
        {"name": RATE, "key": ["client"], **rate},
        {"name": QUOTA, "key": ["tenant", "client"], **quota},
    ]
