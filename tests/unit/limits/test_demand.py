"""Calendar windows follow clocks as people there read them."""

from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest

from proxy.limits.demand import Window, WindowKind


def unix(text: str, timezone: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(timezone)).timestamp()


@pytest.mark.parametrize(
    ("kind", "timezone", "now", "start", "end"),
    [
        ("minute", "UTC", "2026-02-10T12:45:13", "2026-02-10T12:45", "2026-02-10T12:46"),
        ("hour", "UTC", "2026-02-10T12:45:13", "2026-02-10T12:00", "2026-02-10T13:00"),
        # Half hours east: the hour of the clock on the wall, not of Greenwich.
        ("hour", "Asia/Kolkata", "2026-02-10T12:45", "2026-02-10T12:00", "2026-02-10T13:00"),
        ("day", "UTC", "2026-02-10T23:59:59", "2026-02-10T00:00", "2026-02-11T00:00"),
        ("day", "UTC", "2026-02-11T00:00:00", "2026-02-11T00:00", "2026-02-12T00:00"),
        ("day", "Asia/Tokyo", "2026-02-11T08:00", "2026-02-11T00:00", "2026-02-12T00:00"),
        # 23 and 25 hours.
        ("day", "Europe/Berlin", "2026-03-29T12:00", "2026-03-29T00:00", "2026-03-30T00:00"),
        ("day", "Europe/Berlin", "2026-10-25T12:00", "2026-10-25T00:00", "2026-10-26T00:00"),
        # Midnight comes twice; the day begins with the first.
        ("day", "America/Havana", "2026-11-01T00:30", "2026-11-01T00:00", "2026-11-02T00:00"),
        # Midnight does not come: the day begins at one.
        ("day", "America/Sao_Paulo", "2018-11-04T12:00", "2018-11-04T01:00", "2018-11-05T00:00"),
        # A date that was left out.
        ("day", "Pacific/Apia", "2011-12-29T12:00", "2011-12-29T00:00", "2011-12-31T00:00"),
        ("month", "UTC", "2026-02-10T12:00", "2026-02-01T00:00", "2026-03-01T00:00"),
        ("month", "UTC", "2028-02-29T12:00", "2028-02-01T00:00", "2028-03-01T00:00"),
        ("month", "Europe/Berlin", "2026-12-31T23:59", "2026-12-01T00:00", "2027-01-01T00:00"),
    ],
)
def test_a_window_is_that_of_the_calendar(
    kind: WindowKind, timezone: str, now: str, start: str, end: str
) -> None:
    expected = unix(start, timezone), unix(end, timezone)
    assert Window(kind, timezone).at(unix(now, timezone)) == expected


def test_days_have_as_many_hours_as_the_clock_shows() -> None:
    window = Window("day", "Europe/Berlin")
    hours = {date: window.at(unix(f"{date}T12:00", "Europe/Berlin")) for date in ("2026-03-29", "2026-10-25")}
    assert {date: (end - start) / 3600 for date, (start, end) in hours.items()} == {
        "2026-03-29": 23,
        "2026-10-25": 25,
    }


@pytest.mark.parametrize("kind", ["minute", "hour", "day", "month"])
@pytest.mark.parametrize("timezone", ["UTC", "Europe/Berlin", "America/St_Johns", "America/Sao_Paulo"])
def test_every_moment_is_in_its_window_and_windows_do_not_overlap(kind: WindowKind, timezone: str) -> None:
    """Half an hour apart through a year with both changes; in St John's clocks then went back at 0:01."""
    window = Window(kind, timezone)
    last = (0.0, 0.0)
    for half_hours in range(2 * 24 * 366):
        now = 1_262_304_000 + half_hours * 1_800 + 30.5
        start, end = window.at(now)
        assert start <= now < end
        assert (start, end) == last or start >= last[1]
        last = start, end


def test_the_last_moment_of_a_day_is_in_that_day() -> None:
    """Calendars round to microseconds: 23:59:59.9999999 would be tomorrow."""
    assert Window("day").at(86_399.999_999_9) == (0.0, 86_400.0)


@pytest.mark.parametrize("now", [-1e18, -1.0, 1e18, float("inf")])
def test_a_broken_clock_has_windows_too(now: float) -> None:
    start, end = Window("month", "Europe/Berlin").at(now)
    assert 28 <= (end - start) / 86_400 <= 31.1


def test_a_sliding_window_has_no_edges() -> None:
    with pytest.raises(ValueError, match="no edges"):
        Window("sliding", sliding_s=60).at(0)


def test_a_zone_nobody_knows_is_said() -> None:
    with pytest.raises(ZoneInfoNotFoundError):
        Window("day", "Europe/Atlantis").at(0)


def test_the_default_zone_needs_no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Own promise: slim images have none, and a day of UTC is a day there too."""
    # clear_cache: what was read before would be found again.
    ZoneInfo.clear_cache()
    monkeypatch.setattr("zoneinfo._common.load_tzdata", _no_file)
    assert Window("day").at(86_400 * 1.5) == (86_400, 172_800)


def _no_file(key: str) -> None:
    raise ZoneInfoNotFoundError(key)
