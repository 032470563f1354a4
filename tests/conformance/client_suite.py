"""Runs the official client suite: its mock servers, our client, with or without a sidecar between them.

In: a way and a scenario. Out: its checks, and whether the suite was content. The suite has its own way to run
everything at once; that starts thirty clients and thirty sidecars in the same second, so here two run at a time.
"""

from __future__ import annotations

import asyncio
import enum
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tests.tools.node import NodeTools

from .compare import Checks, Difference, differences, read
from .processes import ProcessFailed, child, tail

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

AT_ONCE = 2
SCENARIO_TIMEOUT_S = 60
"""One takes 3 s on an idle machine, the sidecar's start included."""

CHECKS: Mapping[str, int] = MappingProxyType(
    {"2025-03-26": 19, "2025-06-18": 60, "2025-11-25": 247, "2026-07-28": 414}
)
"""How many checks the pinned suite passes per revision with our client. Fewer means that something was left out."""

QUICK: tuple[tuple[str, str], ...] = (
    ("2025-03-26", "auth/2025-03-26-oauth-metadata-backcompat"),
    ("2025-03-26", "auth/2025-03-26-oauth-endpoint-fallback"),
    ("2025-11-25", "auth/metadata-var3"),
    ("2025-11-25", "auth/scope-step-up"),
    ("2026-07-28", "auth/resource-mismatch"),
    ("2026-07-28", "auth/authorization-server-migration"),
)
"""(revision, scenario): a server that is its own authorization server, with and without metadata; a document at a
path of the server's choice; two challenges in one session; a document that clients must refuse; a document that
changes while it is used."""


class Way(enum.Enum):
    """How the client reaches the mock server."""

    DIRECT = "tests.conformance.client"
    THROUGH = "tests.conformance.client.through"

    @property
    def command(self) -> str:
        return shlex.join([sys.executable, "-m", self.value])


@dataclass(frozen=True)
class Result:
    """One scenario, one way."""

    checks: Checks
    is_content: bool
    """The suite's own verdict: no failure, no warning, and a client that ended as it should."""


Results = Mapping[str, Result]


async def run_scenario(tools: NodeTools, way: Way, revision: str, scenario: str, folder: Path) -> Result:
    """Run one scenario. ``folder`` must be fresh.

    Raises:
        ProcessFailed: it did not end in time, or left no result.
    """
    folder.mkdir(parents=True)
    log = folder / "suite.log"
    command: list[str | Path] = [tools.node, "--require", HERE / "bind_loopback.cjs"]
    command += [tools.bin / "conformance", "client", "--command", way.command, "--scenario", scenario]
    command += ["--spec-version", revision, "--timeout", str(SCENARIO_TIMEOUT_S * 1000), "-o", folder]
    async with child(command, log=log, cwd=ROOT) as process:
        try:
            async with asyncio.timeout(SCENARIO_TIMEOUT_S + 10):
                code = await process.wait()
        except TimeoutError:
            raise ProcessFailed(f"{scenario} at {revision} did not end:\n{tail(log)}") from None
    outcome = read(folder)
    if scenario not in outcome:
        raise ProcessFailed(f"{scenario} at {revision} left no result:\n{tail(log)}")
    return Result(outcome[scenario], is_content=code == 0)


async def run_scenarios(
    tools: NodeTools, way: Way, chosen: Iterable[tuple[str, str]], out: Path
) -> dict[tuple[str, str], Result]:
    """Run several (revision, scenario), a few at a time. Raises ProcessFailed."""
    turn = asyncio.Semaphore(AT_ONCE)
    results: dict[tuple[str, str], Result] = {}

    async def run(revision: str, scenario: str) -> None:
        async with turn:
            folder = out / revision / way.name.lower() / scenario
            results[revision, scenario] = await run_scenario(tools, way, revision, scenario, folder)

    try:
        async with asyncio.TaskGroup() as group:
            for revision, scenario in chosen:
                group.create_task(run(revision, scenario))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None  # one is enough: the others were cancelled
    return results


async def scenarios(tools: NodeTools, revision: str, log: Path) -> list[str]:
    """The scenarios the suite has for a revision."""
    command: list[str | Path] = [tools.node, tools.bin / "conformance", "list", "--client"]
    async with child([*command, "--spec-version", revision], log=log, piped=True) as process:
        async with asyncio.timeout(SCENARIO_TIMEOUT_S):
            said, _ = await process.communicate()
    return re.findall(r"^  - (\S+)", said.decode(), re.MULTILINE)


Artefacts = Mapping[str, Iterable[str]]
"""Per scenario the checks that the suite's look at its own address fails."""


def surprises(direct: Results, through: Results, artefacts: Artefacts) -> list[str]:
    """What is not as it must be, in words: everything passes directly, and through the sidecar the artefacts
    fail and nothing else differs."""
    listed = {(scenario, check) for scenario, checks in artefacts.items() for check in checks}
    found = [f"{name}: not clean directly" for name, result in direct.items() if not result.is_content]
    found += [
        f"{name}: the client did not end as it should through the sidecar"
        for name, result in through.items()
        if not result.is_content and name not in artefacts
    ]
    differing = differences(_checks(direct), _checks(through))
    found += [str(each) for each in differing if (each.scenario, each.check) not in listed]
    found += [str(each) for each in differing if _is_other(each) and (each.scenario, each.check) in listed]
    stale = listed - {(each.scenario, each.check) for each in differing}
    found += [f"{scenario}: {check} is listed as an artefact and passes" for scenario, check in stale]
    return sorted(found)


def _is_other(difference: Difference) -> bool:
    """Whether it is anything but what passed directly and failed through the sidecar."""
    kind = (difference.status, difference.direct > 0, difference.proxied > 0)
    return kind not in (("SUCCESS", True, False), ("FAILURE", False, True))


def _checks(results: Results) -> dict[str, Checks]:
    return {name: result.checks for name, result in results.items()}
