"""Moments that end keys and debug windows: one reader of RFC 3339, and which of the two takes a date alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from proxy.configuration.mistakes import Unfit
from proxy.configuration.moments import day_or_moment_of, moment_of

Read = Callable[[str], float]


@pytest.mark.parametrize("read", [moment_of, day_or_moment_of])
@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1970-01-02T00:00:00Z", 86_400.0),
        ("1970-01-01t01:00:00z", 3_600.0),
        ("1970-01-01T01:00:00+01:00", 0.0),
        ("1970-01-01T00:00:00-00:30", 1_800.0),
        ("1970-01-01T00:00:00-00:00", 0.0),
        ("1970-01-01T23:59:00+23:59", 0.0),
        ("1970-01-01T00:00:01.9Z", 1.9),
        ("1970-01-01T00:00:01.05Z", 1.05),
        ("1970-01-01T00:00:01.999999Z", 1.999999),
        ("1970-01-01T00:00:01.9999999999Z", 1.999999),
        ("9999-12-31T23:59:59Z", 253_402_300_799.0),
    ],
)
def test_a_moment_is_read_to_the_microsecond(read: Read, text: str, moment: float) -> None:
    """RFC 3339 section 5.6: a fraction has any number of digits; beyond microseconds what ends then ends sooner."""
    assert read(text) == moment


@pytest.mark.parametrize(("text", "moment"), [("1970-01-01", 0.0), ("9999-12-31", 253_402_214_400.0)])
def test_a_day_is_its_beginning_where_a_day_may_stand(text: str, moment: float) -> None:
    """A key ends with a day, and in doubt sooner; a debug window of hours names its moment."""
    assert day_or_moment_of(text) == moment
    with pytest.raises(Unfit, match="is no moment"):
        moment_of(text)


@pytest.mark.parametrize("read", [moment_of, day_or_moment_of])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "2027-6-30",
        "2027-06-30 ",
        "2027-06-30\n",
        "20270630",
        "2027-W01-1",
        "2027-06-31",
        "2027-02-29T00:00:00Z",
        "0000-01-01",
        "2027-06-30T12:00:00",
        "2027-06-30 12:00:00Z",
        "2027-06-30T12:00Z",
        "2027-06-30T12Z",
        # Python 3.14 reads this one as the next day.
        "2027-06-30T24:00:00Z",
        "2027-06-30T12:60:00Z",
        "2027-06-30T12:00:60Z",
        "2027-06-30T12:00:00+0200",
        "2027-06-30T12:00:00+02",
        "2027-06-30T12:00:00+25:00",
        "2027-06-30T12:00:00+24:00",
        # Python reads this one as +02:39.
        "2027-06-30T12:00:00+01:99",
        "2027-06-30T12:00:00+01:60",
        "2027-06-30T12:00:00+01:00:30",
        "2027-06-30T12:00:00.Z",
        "2027-06-30T12:00:00,5Z",
        "2027-06-30T12:00:00Z\n",
        "2027-06-30T12:00:00ZZ",
        "2027-06-30Z",
        "9999-12-31T23:59:59-01:00",
        "0001-01-01T00:00:00+01:00",
        "٢٠٢٧-٠٦-٣٠",
        "never",
    ],
)
def test_what_could_be_read_two_ways_is_no_moment(read: Read, text: str) -> None:
    """A time without offset is another moment in each time zone; a leap second is none of this clock."""
    with pytest.raises(Unfit, match=r"is no (date|moment)"):
        read(text)
