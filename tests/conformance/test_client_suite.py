"""When a run of the client suite counts as good, and what keeps its mock servers on this machine."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.conformance.client_run import listed_artefacts
from tests.conformance.client_suite import CHECKS, HERE, QUICK, Result, scenarios, surprises
from tests.tools.node import node_tools

LISTED = {"auth/a": ["own-address"]}


def result(own_address: str = "SUCCESS", other: str = "SUCCESS", *, is_content: bool = True) -> Result:
    return Result(Counter({("own-address", own_address): 1, ("other", other): 2}), is_content)


GOOD = result()
ARTEFACT = result("FAILURE", is_content=False)


def test_an_artefact_fails_and_nothing_else_differs() -> None:
    direct = {"auth/a": GOOD, "auth/b": GOOD}
    assert surprises(direct, {"auth/a": ARTEFACT, "auth/b": GOOD}, LISTED) == []


@pytest.mark.parametrize(
    ("direct", "through", "said"),
    [
        pytest.param(GOOD, GOOD, "own-address is listed as an artefact and passes", id="a stale line"),
        pytest.param(GOOD, result("WARNING"), "own-address WARNING: 0x direct, 1x proxied", id="otherwise"),
        pytest.param(GOOD, result("SKIPPED"), "own-address SKIPPED: 0x direct, 1x proxied", id="skipped"),
        pytest.param(
            GOOD, result("FAILURE", "FAILURE"), "other FAILURE: 0x direct, 2x proxied", id="one more failure"
        ),
        pytest.param(result(is_content=False), ARTEFACT, "not clean directly", id="direct failure"),
        pytest.param(
            result("FAILURE"), ARTEFACT, "is listed as an artefact and passes", id="fails both ways"
        ),
    ],
)
def test_everything_else_is_a_surprise(direct: Result, through: Result, said: str) -> None:
    assert any(said in each for each in surprises({"auth/a": direct}, {"auth/a": through}, LISTED))


def test_a_failure_that_is_not_listed_is_a_surprise() -> None:
    found = surprises({"auth/b": GOOD}, {"auth/b": ARTEFACT}, {})
    assert found == [
        "auth/b: own-address FAILURE: 0x direct, 1x proxied",
        "auth/b: own-address SUCCESS: 1x direct, 0x proxied",
        "auth/b: the client did not end as it should through the sidecar",
    ]


def test_a_client_that_fails_after_its_checks_is_a_surprise() -> None:
    """Checks that passed say nothing of what came after them."""
    found = surprises({"auth/b": GOOD}, {"auth/b": result(is_content=False)}, {})
    assert found == ["auth/b: the client did not end as it should through the sidecar"]


def test_a_scenario_that_was_not_run_is_a_surprise() -> None:
    assert surprises({"auth/b": GOOD}, {}, {}) != []


async def test_what_the_lists_name_is_in_the_suite(tmp_path: Path) -> None:
    """A new version of the suite may rename a scenario, and nobody would run it any more."""
    known = {revision: set(await scenarios(node_tools(), revision, tmp_path / "log")) for revision in CHECKS}
    assert all(scenario in known[revision] for revision, scenario in QUICK)
    for revision, listed in listed_artefacts().items():
        assert set(listed) <= known[revision]


@pytest.mark.parametrize("where", ["0", "0, '0.0.0.0'", "{port: 0, host: '::'}", "{port: 0}"])
def test_mock_servers_stay_on_this_machine(where: str) -> None:
    """The suite listens on every interface; its preload keeps it on 127.0.0.1, and at once."""
    program = (
        f"const s = require('net').createServer().listen({where});"
        "console.log(s.address() && s.address().address);"
        "s.on('listening', () => { console.log(s.address().address); s.close(); });"
    )
    done = subprocess.run(
        [node_tools().node, "--require", HERE / "bind_loopback.cjs", "-e", program],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.split()[-1] == "127.0.0.1"
    assert done.stdout.split()[0] in ("127.0.0.1", "null")


def test_other_listeners_are_left_alone(tmp_path: Path) -> None:
    """Pipes and chosen addresses are not what the preload is for."""
    program = (
        f"const n = require('net'); n.createServer().listen('{tmp_path}/s', function () {{"
        "console.log(this.address()); this.close(); });"
        "n.createServer().listen(0, '::1').on('listening', function () {"
        "console.log(this.address().address); this.close(); })"
        ".on('error', () => console.log('::1'));"  # a machine without IPv6
    )
    done = subprocess.run(
        [node_tools().node, "--require", HERE / "bind_loopback.cjs", "-e", program],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert sorted(done.stdout.split()) == sorted([f"{tmp_path}/s", "::1"])
