"""Quotas survive a restart, a crash and a broken file; nobody else reads them."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from proxy.configuration.files import replace_file
from proxy.limits.demand import Demand, Granted, Quota, Rate, Window
from proxy.limits.local import Local
from proxy.limits.settings import LocalStateSettings
from proxy.limits.state_file import AT_ONCE, StateFile

NOON = 1_770_724_800.0
"""2026-02-10, 12:00 UTC."""
MIDNIGHT = NOON + 12 * 3600
WINDOWS = {
    "day": Window("day"),
    "month": Window("month", "Europe/Berlin"),
    "hour": Window("sliding", sliding_s=3600),
}


def quota(
    cost: int = 1, *, window: str = "day", key: str = "k", holder: str = "acme", units: int = 100
) -> Demand:
    return Demand(window, f"{window}/{key}", Quota(units, WINDOWS[window]), cost, holder=holder)


def left(local: Local, demand: Demand, wall: float = NOON) -> int:
    """What there is, by asking for more than there can be."""
    decision = local.take([msgspec.structs.replace(demand, cost=10**6)], now=0.0, wall=wall)
    assert not isinstance(decision, Granted)
    return decision.remaining


class Process:
    """One life of the process."""

    def __init__(self, path: Path, *, wall: float = NOON, local: Local | None = None) -> None:
        self.wall = wall
        self.local = Local() if local is None else local
        self.warnings: list[str] = []
        self.file = StateFile(
            LocalStateSettings(file=str(path)),
            self.local,
            wall=lambda: self.wall,
            warn=self.warnings.append,
        )
        self.found = self.file.load()

    def takes(self, *demands: Demand) -> None:
        assert isinstance(self.local.take(demands, now=0.0, wall=self.wall), Granted)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "limits.json"


async def test_what_was_used_stays_used(path: Path) -> None:
    first = Process(path)
    rate = Demand("rate", "rate/k", Rate(1, 5), 5)
    first.takes(rate, *(quota(60, window=each) for each in WINDOWS), quota(7, key="other", holder="b"))
    first.wall += 1800
    first.takes(quota(30, window="hour"))
    await first.file.save()
    second = Process(path, wall=NOON + 1800)
    assert (second.found, second.warnings) == (4, [])
    asked = [*(quota(window=each) for each in WINDOWS), quota(key="other", holder="b")]
    assert [left(second.local, each, second.wall) for each in asked] == [40, 40, 10, 93]
    # What slides goes on sliding; rates begin anew, full.
    assert left(second.local, quota(window="hour"), NOON + 3700) == 70
    second.takes(rate)


async def test_a_window_that_is_over_is_over_after_a_restart_too(path: Path) -> None:
    first = Process(path)
    first.takes(*(quota(60, window=each) for each in WINDOWS))
    await first.file.save()
    second = Process(path, wall=MIDNIGHT)
    assert second.found == 1
    assert [left(second.local, quota(window=each), MIDNIGHT) for each in WINDOWS] == [100, 40, 100]


async def test_a_clock_set_back_before_the_restart_gives_nothing(path: Path) -> None:
    first = Process(path, wall=MIDNIGHT + 1)
    first.takes(quota(60), quota(60, window="hour"))
    await first.file.save()
    second = Process(path, wall=MIDNIGHT - 600)
    assert [left(second.local, quota(window=each), MIDNIGHT - 600) for each in ("day", "hour")] == [40, 40]


async def test_a_clock_that_showed_the_year_2100_locks_nobody_out_after_a_restart(path: Path) -> None:
    first = Process(path, wall=4_102_444_800.0)
    first.takes(quota(60), quota(60, window="hour"))
    await first.file.save()
    assert Process(path).found == 0


async def test_the_settings_say_how_many_units_there_are_after_a_restart(path: Path) -> None:
    first = Process(path)
    first.takes(quota(60))
    await first.file.save()
    assert left(Process(path).local, quota(units=70)) == 10


async def test_the_file_is_ours_to_read_and_replaced_as_a_whole(path: Path) -> None:
    first = Process(path)
    first.takes(quota())
    await first.file.save()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.stat().st_ino
    first.takes(quota())
    await first.file.save()
    assert path.stat().st_ino != before
    assert os.listdir(path.parent) == ["limits.json"]


async def test_a_file_that_was_open_to_others_is_so_no_more(path: Path) -> None:
    path.write_text("")
    path.chmod(0o666)
    first = Process(path)
    first.takes(quota())
    await first.file.save()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_nothing_is_written_where_nothing_has_changed(path: Path) -> None:
    first = Process(path)
    await first.file.save()
    assert not path.exists()
    first.takes(quota())
    await first.file.save()
    before = path.stat().st_ino
    await first.file.save()
    assert path.stat().st_ino == before


async def test_what_a_killed_process_left_does_not_stop_the_next(path: Path) -> None:
    """In containers every process has the same number."""
    beside = path.with_name("limits.json.new")
    beside.write_text("half a fi")
    first = Process(path)
    first.takes(quota())
    await first.file.save()
    assert Process(path).found == 1
    assert not beside.exists()


async def test_a_link_beside_the_file_is_not_written_through(path: Path) -> None:
    elsewhere = path.with_name("elsewhere")
    elsewhere.write_text("mine")
    path.with_name("limits.json.new").symlink_to(elsewhere)
    first = Process(path)
    first.takes(quota())
    await first.file.save()
    assert elsewhere.read_text() == "mine"


def test_a_write_that_fails_leaves_the_old_file_and_no_other(path: Path) -> None:
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        replace_file(str(path), b"new")
    assert os.listdir(path.parent) == ["limits.json"]


def line(*values: object) -> bytes:
    return msgspec.json.encode(values)


DAY = line("day/k", "acme", 0, 60, NOON - 12 * 3600, MIDNIGHT)
HEAD = b'{"version":1,"entries":1,"windows":[{"kind":"day"}]}'
SLIDES = b'{"version":1,"entries":1,"windows":[{"kind":"sliding","sliding_s":3600}]}'


def test_a_file_as_we_write_it_is_read(path: Path) -> None:
    """What the broken ones below differ from."""
    for content in (
        HEAD + b"\n" + DAY,
        SLIDES + b"\n" + line("hour/k", "acme", 0, 7, 0, 0, [NOON / 60 - 1, 3, NOON / 60, 4]),
    ):
        path.write_bytes(content.replace(b".0", b""))
        process = Process(path)
        assert (process.found, process.warnings) == (1, [])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 100,
        b"\xff\xfe",
        b"[" * 100_000,
        b"null",
        HEAD,
        HEAD + b"\n" + DAY[: len(DAY) // 2],
        HEAD + b"\n" + DAY + b"\n" + DAY,
        HEAD.replace(b"1,", b"2,", 1) + b"\n" + DAY,
        HEAD.replace(b'"day"', b'"week"') + b"\n" + DAY,
        HEAD.replace(b'"day"', b'"day","timezone":"Europe/Atlantis"') + b"\n" + DAY,
        HEAD.replace(b'"day"', b'"day","timezone":"../../etc/passwd"') + b"\n" + DAY,
        HEAD.replace(b'"windows"', b'"window"') + b"\n" + DAY,
        HEAD + b"\n" + DAY.replace(b"60", b"-60", 1),
        HEAD + b"\n" + DAY.replace(b"60", b"0", 1),
        HEAD + b"\n" + DAY.replace(b"60", b"6.5", 1),
        HEAD + b"\n" + DAY.replace(b"60", b"1e300", 1),
        HEAD + b"\n" + line("day/k", "acme", 1, 60, NOON - 12 * 3600, MIDNIGHT),
        HEAD + b"\n" + line("day/k", "acme", 0, 60, NOON, MIDNIGHT),
        HEAD + b"\n" + line("day/k", "acme", 0, 60, NOON - 12 * 3600, 1e15),
        HEAD + b"\n" + line("day/k", "acme", 0, 60, MIDNIGHT, NOON - 12 * 3600),
        HEAD + b"\n" + line("", "acme", 0, 60, NOON - 12 * 3600, MIDNIGHT),
        HEAD + b"\n" + line("k" * 257, "acme", 0, 60, NOON - 12 * 3600, MIDNIGHT),
        SLIDES + b"\n" + line("k", "acme", 0, 60),
        SLIDES + b"\n" + line("k", "acme", 0, 60, 0, 0, [29_512_080, 59]),
        SLIDES + b"\n" + line("k", "acme", 0, 60, 0, 0, [29_512_080]),
        SLIDES + b"\n" + line("k", "acme", 0, 60, 0, 0, [29_512_080, 30, 29_512_079, 30]),
        SLIDES + b"\n" + line("k", "acme", 0, 60, 0, 0, [29_512_080, 80, 29_512_081, -20]),
        SLIDES + b"\n" + line("k", "acme", 0, 60, 0, 0, [2**63, 60]),
        SLIDES.replace(b"3600", b"0") + b"\n" + line("k", "acme", 0, 60, 0, 0, [29_512_080, 60]),
    ],
)
async def test_a_broken_file_is_a_warning_and_replaced(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    process = Process(path)
    assert process.found == 0
    (warning,) = process.warnings
    assert warning.startswith("quotas begin anew: the file of local_state ")
    process.takes(quota(60))
    await process.file.save()
    assert Process(path).found == 1


@pytest.mark.parametrize(
    "make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path)], ids=["folder", "fifo", "loop"]
)
def test_what_is_no_file_is_a_warning(path: Path, make: Callable[[Path], None]) -> None:
    make(path)
    process = Process(path)
    assert process.found == 0
    assert len(process.warnings) == 1


async def test_more_than_there_is_room_for_is_a_warning(path: Path) -> None:
    first = Process(path)
    for number in range(10):
        first.takes(quota(key=f"{number}"))
    await first.file.save()
    second = Process(path, local=Local(places=5))
    assert second.found == 4
    assert second.warnings == ["6 quotas begin anew: there is no room for so many"]


async def test_a_disk_that_fails_is_told_once_each_time(path: Path) -> None:
    first = Process(path.parent / "folder" / "limits.json")
    for _ in range(3):
        first.takes(quota())
        await first.file.save()
    (warning,) = first.warnings
    assert warning.startswith("quotas are not kept: ")
    (path.parent / "folder").mkdir()
    await first.file.save()
    assert (path.parent / "folder" / "limits.json").exists()
    assert len(first.warnings) == 1


async def test_calls_have_their_turns_while_many_counters_are_written(path: Path) -> None:
    """And what they take meanwhile is in the next file."""
    first = Process(path)
    for number in range(2 * AT_ONCE):
        first.takes(quota(key=f"{number}", holder=f"{number}"))
    save = asyncio.ensure_future(first.file.save())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not save.done()
    first.takes(quota(key="late"))
    await save
    await first.file.save()
    assert Process(path).found == 2 * AT_ONCE + 1


async def test_the_job_writes_again_and_again_and_survives_being_cancelled(path: Path) -> None:
    slept: list[float] = []
    again = asyncio.Event()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) > 2:
            again.set()
            await asyncio.Event().wait()

    local = Local()
    settings = LocalStateSettings(file=str(path), every_s=7.0)
    file = StateFile(settings, local, wall=lambda: NOON, warn=print, sleep=sleep)
    local.take([quota(5)], now=0.0, wall=NOON)
    job = asyncio.ensure_future(file.run())
    async with asyncio.timeout(5):
        await again.wait()
    assert slept == [7.0, 7.0, 7.0]
    assert Process(path).found == 1
    job.cancel()
    await asyncio.gather(job, return_exceptions=True)
    local.take([quota(5)], now=0.0, wall=NOON)
    await file.save()
    assert left(Process(path).local, quota()) == 90


def test_an_older_content_does_not_come_after_a_newer_one(path: Path) -> None:
    """A job that is cancelled leaves its thread behind."""
    first = Process(path)
    first.file._newest = 2
    first.file._replace(b"newer", 2)
    first.file._replace(b"older", 1)
    assert path.read_bytes() == b"newer"
