"""When is that? A date-time of RFC 3339 section 5.6 → seconds since 1970, or Unfit with the reason. Pure.

Read digit by digit and not by `fromisoformat`, which takes what no clock shows (an offset of +01:99; 24:00 from Python
3.14 on). A fraction of a second has any number of digits; beyond microseconds they are cut.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

from .mistakes import Unfit

_TIME: Final = r"[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d+))?"
_OFFSET: Final = r"(?:[Zz]|([+-])([01]\d|2[0-3]):([0-5]\d))"
_MOMENT: Final = re.compile(rf"(\d{{4}})-(\d\d)-(\d\d)(?:{_TIME}{_OFFSET})?", re.ASCII)


def moment_of(text: str) -> float:
    """When a date-time with offset is. Raises Unfit."""
    what, remedy = "is no moment", 'write for example "2026-11-21T15:00:00Z"'
    match = _MOMENT.fullmatch(text)
    if match is None or match[4] is None:
        raise Unfit(what, "a date, a time and an offset are needed (RFC 3339)", remedy)
    return _seconds(match, what, remedy)


def day_or_moment_of(text: str) -> float:
    """When a date or a date-time with offset is; a date is the beginning of its day in UTC. Raises Unfit."""
    what, remedy = "is no date", 'write for example "2027-06-30" or "2027-06-30T12:00:00Z"'
    match = _MOMENT.fullmatch(text)
    if match is None:
        raise Unfit(what, "RFC 3339 has dates, and dates with time and offset", remedy)
    return _seconds(match, what, remedy)


def _seconds(match: re.Match[str], what: str, remedy: str) -> float:
    year, month, day, hour, minute, second, hours, minutes = (
        int(each or 0) for each in match.group(1, 2, 3, 4, 5, 6, 9, 10)
    )
    micros = int((match[7] or "")[:6].ljust(6, "0"))
    offset = timedelta(hours=hours, minutes=minutes) * (-1 if match[8] == "-" else 1)
    try:
        there = datetime(year, month, day, hour, minute, second, micros, tzinfo=timezone(offset))
        return there.astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        raise Unfit(what, "no calendar or clock shows it", remedy) from None
