"""A short part of the official suite gives the same results through the sidecar as without it.

The whole of it is ``make conformance``. Source: design, "transparent unless a rule matched".
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.conformance.run import compare_revision
from tests.conformance.stand import Stand, stand
from tests.conformance.suite import QUICK
from tests.tools.node import node_tools

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def servers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stand]:
    async with stand(tmp_path_factory.mktemp("logs")) as where:
        yield where


@pytest.mark.parametrize("revision", QUICK)
async def test_the_sidecar_changes_no_result(servers: Stand, revision: str, tmp_path: Path) -> None:
    result = await compare_revision(node_tools(), servers, revision, tmp_path, quick=True)
    assert result.differences == ()
    assert result.direct.scenarios == len(QUICK[revision])
    assert result.direct.failed == 0
    assert result.is_clean
