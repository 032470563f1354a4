"""A call that is cancelled wherever it waits, and stages that raise: nothing is kept, and the next call is served."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.compiled import runs_here
from tests.faults.inside import STAGES, WAYS, Way, cancelled, raised

needs_python = pytest.mark.skipif(runs_here(), reason="debuggers do not see compiled functions")


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
async def test_a_call_may_be_cancelled_at_each_of_its_awaits(way: Way, tmp_path: Path) -> None:
    report = await cancelled(way, tmp_path, Random(1))
    assert report.broken == []
    assert report.injected > 0


@needs_python
async def test_a_stage_may_raise_what_nobody_expects(tmp_path: Path) -> None:
    report = await raised(tmp_path, Random(1))
    assert report.broken == []
    assert report.injected >= 2 * len(STAGES)


@needs_python
async def test_a_place_that_is_not_given_back_is_found(tmp_path: Path) -> None:
    """What gives a place back may not raise; where it does all the same, that is seen."""
    stages = ("proxy.capacity.stage:Roomy._give_back",)
    report = await raised(tmp_path, Random(1), stages=stages, patience_s=0.2)
    assert any("at rest" in each for each in report.broken)
