"""A short part of the official client suite passes through the sidecar, whoever issues the tokens.

The whole of it, and the comparison with a run without the sidecar, is ``make conformance-client``. Source: MCP
basic/authorization; design, identity: "clients see one consistent resource".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping

import pytest
import pytest_asyncio

from tests.conformance.client_run import listed_artefacts
from tests.conformance.client_suite import QUICK, Result, Way, run_scenarios
from tests.tools.node import node_tools

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def results(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Mapping[tuple[str, str], Result]]:
    """Run together, because two at once take half the time."""
    yield await run_scenarios(node_tools(), Way.THROUGH, QUICK, tmp_path_factory.mktemp("suite"))


@pytest.mark.parametrize(("revision", "scenario"), QUICK)
async def test_clients_sign_in_through_the_sidecar(
    results: Mapping[tuple[str, str], Result], revision: str, scenario: str
) -> None:
    result = results[revision, scenario]
    artefacts = listed_artefacts().get(revision, {}).get(scenario, [])
    failed = Counter(
        {each: times for each, times in result.checks.items() if each[1] in ("FAILURE", "WARNING")}
    )
    assert failed == Counter((check, "FAILURE") for check in artefacts)
    assert sum(result.checks.values()) > len(artefacts)
    assert result.is_content is not bool(artefacts)
