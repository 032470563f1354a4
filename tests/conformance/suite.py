"""Runs the official suite against one URL and reads what it found.

The suite is npm ``@modelcontextprotocol/conformance``, pinned in ``tests/tools``. It has no scenarios for
2024-11-05.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from tests.tools.node import NodeTools

from .compare import Checks, read
from .processes import ProcessFailed, child, tail

SCENARIO_TIMEOUT_MS = 15_000
"""The longest scenario takes 3 s. A proxy that buffers streams makes several hang, each for this long."""

RUN_TIMEOUT_S = 600
"""As long as 40 scenarios that all hang; a whole revision takes about 5 s."""

CHECKS: Mapping[str, int] = MappingProxyType(
    {"2025-03-26": 3, "2025-06-18": 56, "2025-11-25": 84, "2026-07-28": 152}
)
"""How many checks each revision has in the pinned suite. Fewer means that something was left out."""

QUICK: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "2025-03-26": ("server-session-lifecycle",),
        "2025-06-18": ("tools-call-sampling",),
        "2025-11-25": (
            "server-initialize",
            "server-sse-polling",
            "tools-call-elicitation",
            "dns-rebinding-protection",
        ),
        "2026-07-28": (
            "tools-call-with-progress",
            "http-header-validation",
            "http-custom-header-server-validation",
            "input-required-result-multi-round",
            "caching",
        ),
    }
)
"""A few per revision that a careless proxy fails: sessions, a stream cut and resumed, requests from the
server in the middle of a call, mirrored headers, questions and retries. None of them measures time."""


async def run_suite(
    tools: NodeTools, url: str, revision: str, folder: Path, scenario: str | None = None
) -> dict[str, Checks]:
    """Run the suite, or one ``scenario`` of it, and return its checks. ``folder`` must be fresh.

    The suite's exit code is not looked at: it says no more than the checks do, and a suite that crashed
    leaves none.

    Raises:
        ProcessFailed: it did not end in time, or wrote no checks at all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "suite.log"
    what = ["--suite", "all"] if scenario is None else ["--scenario", scenario]
    command: list[str | Path] = [tools.node, tools.bin / "conformance", "server"]
    command += ["--url", url, "--spec-version", revision, "-o", folder, *what]
    command += ["--timeout", str(SCENARIO_TIMEOUT_MS)]
    async with child(command, log=log) as process:
        try:
            async with asyncio.timeout(RUN_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            raise ProcessFailed(
                f"the suite for {revision} did not end within {RUN_TIMEOUT_S} s:\n{tail(log)}"
            ) from None
    outcome = read(folder)
    if not outcome:
        raise ProcessFailed(f"the suite for {revision} checked nothing:\n{tail(log)}")
    return outcome
