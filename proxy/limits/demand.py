"""What one call asks of one limit, and what it is told: the words of this room. Pure values.

A call asks of all limits that apply at once, in one tuple of demands, and gets all or nothing: of this process
(`local.py`) or of the store that replicas share.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final, Literal, TypeAlias
from zoneinfo import ZoneInfo

from msgspec import Struct

WindowKind: TypeAlias = Literal["minute", "hour", "day", "month", "sliding"]

_LATEST_S: Final = 200_000_000_000
"""In the year 8307: calendars end at 9999, and a broken clock must not break us."""

_LENGTHS_S: Final = {"minute": 60, "hour": 3_600}


class Rate(Struct, frozen=True):
    """So many a second, and how many at once after a rest."""

    per_s: float
    """0: blocked."""
    burst: int


class Window(Struct, frozen=True):
    """How long a quota counts what was taken."""

    kind: WindowKind
    timezone: str = "UTC"
    """The calendar of minute, hour, day and month: an IANA name."""
    sliding_s: float = 0
    """The length of a sliding window."""

    def at(self, wall_s: float) -> tuple[float, float]:
        """The calendar window that holds `wall_s`: its first moment and that of the next one, in unix seconds.

        A day is from midnight to midnight as clocks there show it: 23 or 25 hours where they change. Raises ValueError
        for sliding windows, which have no edges, and ZoneInfoNotFoundError for a zone nobody knows.
        """
        # Slim images have no zone files, and the default must work there too.
        zone = UTC if self.timezone == "UTC" else ZoneInfo(self.timezone)
        # Whole seconds: the calendar rounds fractions, and would call the last moment of a day the next day.
        moment = math.floor(min(max(wall_s, 0), _LATEST_S))
        if self.kind == "sliding":
            raise ValueError("a sliding window has no edges")
        if self.kind == "day" or self.kind == "month":
            return _dates(moment, zone, _DAY if self.kind == "day" else _MONTH)
        length_s = _LENGTHS_S[self.kind]
        offset = datetime.fromtimestamp(moment, zone).utcoffset() or timedelta(0)
        shift_s = offset.total_seconds()
        start = (moment + shift_s) // length_s * length_s - shift_s
        return start, start + length_s


class Quota(Struct, frozen=True):
    """So many units in a window."""

    units: int
    """0: blocked."""
    window: Window


class Demand(Struct, frozen=True):
    """What one call asks of one limit."""

    limit: str
    """The name of the limit."""
    key: str
    """Whose bucket: printable, of bounded length, one for each holder; never a secret."""
    measure: Rate | Quota
    cost: int
    """At least 1, but for limits that are blocked."""
    must_pass: bool = False
    """It takes what is there and is never refused."""
    holder: str = ""
    """Whose share of a bounded table the key takes: the tenant, where the key names one."""


class Granted(Struct, frozen=True):
    """It passes, and has taken of every limit."""

    remaining: tuple[int, ...]
    """What is left, for each demand."""


class Denied(Struct, frozen=True):
    """It does not pass, and has taken nothing."""

    index: int
    """The demand that refuses longest."""
    remaining: int
    """What is left of that."""
    retry_after_s: float
    """Infinite where waiting does not help."""


_Step: TypeAlias = tuple[Callable[[datetime], datetime], Callable[[datetime], datetime]]


def _midnight(of: datetime) -> datetime:
    return of.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)


_DAY: Final[_Step] = (_midnight, lambda start: start + timedelta(days=1))
_MONTH: Final[_Step] = (
    lambda moment: _midnight(moment).replace(day=1),
    lambda start: (start + timedelta(days=32)).replace(day=1),
)


def _dates(moment: int, zone: tzinfo, step: _Step) -> tuple[float, float]:
    """The date window that holds `moment`. Sums are of dates: whatever clocks did between, midnight is midnight."""
    first, following = step
    start = first(datetime.fromtimestamp(moment, zone))
    end = following(start)
    # Where clocks go back a minute after midnight, the evening of a date comes after its end: that is the next day.
    while end.timestamp() <= moment:
        start, end = end, following(end)
    return start.timestamp(), end.timestamp()
