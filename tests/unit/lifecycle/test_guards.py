"""Guards put together: which limit counts, and how often something is told. Source: issue 7, point 7."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.lifecycle.descriptors import REASON, open_limit
from proxy.lifecycle.guards import TELL_EVERY_S, Guards
from proxy.lifecycle.memory import Level

HUGE = 1 << 50


class Told:
    """Lines about the process."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, object]]] = []

    def __call__(self, msg: str, level: str = "info", **fields: object) -> None:
        self.lines.append((msg, level, fields))


def grouped(folder: Path, limit: str, used: int) -> Path:
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text("inactive_file 0\n")
    (folder / "own").write_text("0::/\n")
    return folder


@pytest.mark.parametrize(
    ("limit", "used", "own", "level", "shown"),
    [
        ("max", 0, None, Level.WELL, None),
        ("1000", 960, None, Level.SHORT, 1000),
        ("1000", 960, HUGE, Level.SHORT, 1000),
        ("1000", 10, 1, Level.SHORT, 1),
        ("max", 0, 1, Level.SHORT, 1),
        ("1000", 810, HUGE, Level.DEGRADED, 1000),
    ],
)
def test_the_scarcer_of_two_limits_counts(
    tmp_path: Path, limit: str, used: int, own: int | None, level: Level, shown: int | None
) -> None:
    """That of the control group, and `memory_limit_bytes` for what this process has resident."""
    mounted = grouped(tmp_path, limit, used)
    told = Told()
    guards = Guards(told, memory_limit_bytes=own, mounted=mounted, own=mounted / "own")
    guards.memory.look()
    assert guards.memory.level is level
    assert (guards.memory.usage.limit if guards.memory.usage else None) == shown
    assert [(msg, fields["state"]) for msg, _, fields in told.lines] == (
        [] if level is Level.WELL else [("memory", level.name.lower())]
    )


def test_a_limit_that_is_taken_away_is_told(tmp_path: Path) -> None:
    """Pods are resized in place."""
    mounted, told = grouped(tmp_path, "1000", 990), Told()
    guards = Guards(told, mounted=mounted, own=mounted / "own")
    guards.memory.look()
    grouped(tmp_path, "max", 990)
    guards.memory.look()
    assert told.lines == [
        ("memory", "warning", {"state": "short", "used_bytes": 990, "limit_bytes": 1000}),
        ("memory has no limit any more", "info", {}),
    ]


async def test_pauses_that_follow_each_other_are_one_line(tmp_path: Path) -> None:
    """Connections that come and go at the limit must not fill a disk."""
    clock, told = [100.0], Told()
    guards = Guards(told, mounted=tmp_path, own=tmp_path / "own", now=lambda: clock[0])
    for seconds in (0.0, 1.0, TELL_EVERY_S - 2, 1.0):
        clock[0] += seconds
        guards._tell_descriptors(False)
        guards._tell_descriptors(True)
    fields = {"descriptors": open_limit()}
    assert told.lines == [
        ("no connections are accepted", "warning", {**fields, "times": 1}),
        ("no connections are accepted", "warning", {**fields, "times": 3}),
    ]


def test_nothing_of_it_makes_unready(tmp_path: Path) -> None:
    """A sidecar that refuses calls answers them; taken out of service its server would be gone for everybody."""
    mounted = grouped(tmp_path, "1000", 990)
    guards = Guards(Told(), mounted=mounted, own=mounted / "own")
    guards.memory.look()
    guards.descriptors._are_short.set()
    assert guards.why_unready() is None
    assert guards.why_degraded() == ["memory is above 95% of its limit, and new calls are refused", REASON]
