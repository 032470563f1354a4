"""SIGKILL at random moments: what reached the server is in the audit. By hand: `python -m tests.faults.audit_kills`."""

from pathlib import Path

import pytest

from tests.faults.audit_kills import run


@pytest.mark.slow
async def test_what_reached_the_server_is_recorded_whenever_the_process_is_killed(tmp_path: Path) -> None:
    """Issue 8, done when: kill -9 at random moments; here a few, fifty by hand."""
    tally = await run(3, 8, tmp_path)
    assert tally.broken == []
    assert tally.rounds == 3


@pytest.mark.slow
async def test_a_batch_that_loses_what_it_may_lose_is_found(tmp_path: Path) -> None:
    """The test above must be able to fail."""
    assert any("without an intent" in said for said in (await run(1, 8, tmp_path, mode="batch")).broken)
