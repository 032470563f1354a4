"""What deploy/ asks for follows from what was measured, and covers it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from proxy.inject import sidecar as deployed
from tests.bench import resources
from tests.bench.arrivals import LOST, PASSED, Ran, Said
from tests.bench.resources import MB, Resources, Taken, advice, request_of, resources_of
from tests.conformance.processes import ProcessFailed


def taken(name: str = "idle", *, cores: float = 0.01, peak: int = 50 * MB, machine: float = 0.5) -> Taken:
    return Taken(name=name, cores=cores, rss=peak, peak=peak, machine=machine)


@pytest.mark.parametrize(
    ("cores", "asked"),
    [
        (0.0, "50m"),
        (0.001, "50m"),
        # Exactly a step: no float may make it the next one.
        (0.04, "50m"),
        (0.08, "100m"),
        (0.0801, "150m"),
        (1.0, "1250m"),
    ],
)
def test_a_request_has_headroom_and_whole_steps(cores: float, asked: str) -> None:
    """Issue 9: from measured figures."""
    assert request_of(cores) == asked


@pytest.mark.parametrize(
    ("peak", "memory", "limit"),
    [
        (50 * MB, "96Mi", "384Mi"),
        (64 * MB, "96Mi", "384Mi"),
        (64 * MB + 1, "128Mi", "384Mi"),
        (200 * MB, "320Mi", "512Mi"),
    ],
)
def test_memory_has_room_for_what_settings_allow(peak: int, memory: str, limit: str) -> None:
    """Own promise: kept answers and a crowd of long bodies fit below the level where memory is called short."""
    assert resources_of(0.08, peak) == Resources("100m", memory, limit)


def test_it_says_whether_deploy_says_the_same() -> None:
    """Who measures again is told what to change, and where."""
    same, more = (advice(taken(), taken(cores=cores), taken(cores=0.2), taken()) for cores in (0.08, 0.72))
    assert "deploy/ says the same." in same
    assert f"requests: {{cpu: {deployed.CPU}, memory: {deployed.MEMORY}}}" in same
    assert f"limits: {{memory: {deployed.MEMORY_LIMIT}}}" in same
    assert "requests: {cpu: 900m" in more
    assert "change proxy/inject/sidecar.py" in more


def test_it_says_when_others_had_the_machine() -> None:
    """A crowd of others made a call cost twice as much where this was written."""
    quiet, loud = (advice(taken(), taken(machine=busy), taken(), taken()) for busy in (0.5, 0.97))
    assert "quiet" not in quiet
    assert loud.endswith("The machine was 97% busy: measure again on a quiet one before you change it.")


@pytest.mark.parametrize("said", [[], [PASSED, LOST], ["rate_limited"], ["HTTP 503"]])
def test_a_run_with_a_call_that_did_not_pass_is_no_measurement(said: list[str]) -> None:
    """A no costs less than a call."""
    ran = Ran(said=[Said(0.0, 0.0, 1.0, what) for what in said], cpu_s=0, short_of_connections=0)
    with pytest.raises(ProcessFailed):
        resources._all_passed("100 calls/s", ran)


@pytest.mark.slow
async def test_all_four_are_measured(tmp_path: Path) -> None:
    """The whole of it, short: real processes, each call answered, each stream still open at the end."""
    async with asyncio.timeout(90):
        lines = await resources.measure(0.3, tmp_path)
    assert [each.name for each in lines] == ["idle", "100 calls/s", "1,000 calls/s", "100 open streams"]
    for each in lines:
        assert each.peak >= each.rss > 10 * MB
    assert lines[2].cores > 0
