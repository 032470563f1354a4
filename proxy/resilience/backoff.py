"""How long to wait before the next attempt? Pure: no clock, no chance of its own.

In: which attempt failed, chance, and what the server asked for. Out: seconds. Keeps nothing. Sources: full jitter
(waits spread evenly from nothing to the bound, so that those who failed together do not come back together);
RFC 9110 sections 10.2.3 (Retry-After) and 5.6.7 (dates).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

_SECONDS: Final = re.compile(r"[0-9]+")
_LONGEST: Final = 12
"""Digits: thirty thousand years."""
_LONGEST_DATE: Final = 64
_MOST_DOUBLINGS: Final = 60


def backoff_s(failed: int, chance: float, *, base_s: float, cap_s: float) -> float:
    """How long to wait when `failed` attempts, at least one, have failed; `chance` lies in [0, 1)."""
    return chance * min(cap_s, base_s * 2.0 ** min(failed - 1, _MOST_DOUBLINGS))


def asked_s(values: Sequence[str], wall: float) -> float | None:
    """What the fields Retry-After ask for, at the time `wall` (Unix seconds): the longest of several; None where they
    say nothing that can be understood."""
    asked = [seconds for value in values if (seconds := _seconds(value.strip(" \t"), wall)) is not None]
    return max(asked, default=None)


def _seconds(value: str, wall: float) -> float | None:
    if _SECONDS.fullmatch(value):
        return float(value) if len(value) <= _LONGEST else math.inf
    if len(value) > _LONGEST_DATE:
        return None
    try:
        date: datetime = parsedate_to_datetime(value)
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)  # the oldest of the three forms names no zone, and means this one
        return max(0.0, date.timestamp() - wall)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
