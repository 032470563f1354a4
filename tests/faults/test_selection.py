"""A selection of the laboratory that takes seconds, with whole processes; `make faults` runs all of it.

All of them run at the same time, because they mostly wait: for idle connections to be closed, or for callers that have
patience. Some have a mistake in them, without which nobody would know that the others can fail.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.compiled import runs_here
from tests.faults.__main__ import known, one
from tests.faults.lab import Lab, Report

AT_ONCE = 8
SEED = 7
UNDER_LOAD = "100 reloads under load"
UNDER_WAY = "reloads under 200 calls and 20 streams"
SOUND = {
    "reset at every byte of an answer": 0.01,
    "reset at every byte of a modern stream": 0.1,
    "every bit of an answer flipped": 0.1,
    "an unasked answer on an idle connection": 0.2,
    "keep-alive race, closed 0.5 ms after an answer": 0.05,
    "kept connections that die with the call": 0.04,
    "nobody listens": 0.05,
    "the server is killed": 0.1,
    "cancel storm, 2025-11-25": 0.1,
    UNDER_LOAD: 0.1,
    UNDER_WAY: 0.4,
    "reloads while the server is left alone": 0.2,
    "reloads while the server is killed": 0.1,
    "SIGTERM amid a reload": 0.1,
}
"""Faults, and how much of each."""
DYING = "kept connections that die with the call", 0.02
MISTAKES: dict[str, tuple[tuple[str, float], str]] = {
    "double_send": (DYING, "ran more than once"),
    "leaked_slot": (DYING, "not as at rest after 6 s: places"),
    "unknown_as_success": (DYING, "wrong answer"),
    "unknown_written_as_success": (DYING, "written down as success, and its answer was broken off"),
    "leaked_task": (DYING, "not as at rest after 6 s: tasks"),
    "forgotten_places": ((UNDER_WAY, 0.4), "calls found a place where all are held"),
    "impatient_reload": ((UNDER_WAY, 0.4), "calls were lost"),
    "forgiving_reload": ((UNDER_LOAD, 0.1), "denied calls"),
    "told_credential": (DYING, "wrote its credential down"),
}
"""What is planted, under which fault, and what it is found by."""


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Report]:
    """Every fault, and every mistake under one of them."""

    async def run_all() -> dict[str, Report]:
        gate = asyncio.Semaphore(AT_ONCE)
        runs = known()

        async def run(key: str, fault: str, scale: float, module: tuple[str, ...]) -> tuple[str, Report]:
            folder: Path = tmp_path_factory.mktemp("fault")
            lab = Lab(seed=SEED, scale=scale, module=module, folder=folder, settle_s=6 if module else 20)
            async with gate:
                return key, await one(fault, runs[fault][0], lab)

        # What waits longest goes first.
        work = [
            run(mistake, *under, ("tests.faults.planted", mistake))
            for mistake, (under, _) in MISTAKES.items()
        ]
        work += [run(fault, fault, scale, ()) for fault, scale in SOUND.items()]
        return dict(await asyncio.gather(*work))

    return asyncio.run(run_all())


@pytest.mark.parametrize("fault", SOUND)
def test_a_fault_breaks_no_promise(reports: dict[str, Report], fault: str) -> None:
    """0 duplicates, 0 wrong answers, no hang, the log tells what callers were told, and everything is as at rest."""
    report = reports[fault]
    assert report.broken == []
    assert report.injected > 0


@pytest.mark.skipif(
    runs_here(), reason="mistakes are planted in classes, and compiled ones cannot be changed"
)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_found(reports: dict[str, Report], mistake: str) -> None:
    """Own promise: a laboratory that never found anything has proven nothing."""
    report = reports[mistake]
    assert any(MISTAKES[mistake][1] in each for each in report.broken), report.broken
    assert not report.is_good
