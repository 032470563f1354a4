"""How fast is an answer that is kept? `python -m tests.bench.cache_hits [--quick]`: the sidecar with policy on, over
sockets, beside a bare aiohttp server that answers the same bytes, in the same run.

In: nothing. Out: a table; exit code 0 whatever the numbers say. Each figure is the median of rounds that alternate.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from tests.conformance.processes import ProcessFailed, child, tail

from . import load
from .messages import REVISIONS
from .processes import Running, program, sidecar
from .report import Figure, table, this_machine
from .scenarios import FULL, QUICK, Size, _cpu, _median, _provider, _rates

CONNECTIONS: Final = 32
AIM: Final = 0.6
"""Of the rate of the bare server."""
BARE: Final = "bare aiohttp"
POLICY: Final = "kept, policy on"
KNOWN: Final = "kept, policy on, a token, a limit"
_RULES: Final = {
    "tools": [
        {"match": "search_*", "allow": ["*"], "class": "read", "cache": {"ttl_s": 3_600}},
        {"match": "delete_*", "allow": ["admin"], "class": "dangerous"},
        {"match": "*", "allow": ["*"]},
    ]
}
_LIMITS: Final = [{"name": "rate", "key": ["tenant"], "rate_per_s": 1_000_000, "burst": 1_000_000}]


def settings_of(rules: object, limits: object | None = None) -> tuple[str, ...]:
    """As `--set` takes them."""
    named = ["policy=" + msgspec.json.encode(rules).decode(), "cache={}"]
    if limits is not None:
        named.append("limits=" + msgspec.json.encode(limits).decode())
    return tuple(named)


async def hitting(size: Size, logs: Path) -> list[Figure]:
    """Rates and processor time of kept answers, and what they are of the bare server's."""
    modern = REVISIONS[-1]
    runs: dict[str, list[load.Outcome]] = {BARE: [], POLICY: [], KNOWN: []}
    async with (
        program("responder", logs=logs) as upstream,
        program("kept_server", logs=logs) as bare,
        _provider() as (token, identity),
        sidecar(upstream.port, logs, *settings_of(_RULES)) as plain,
        sidecar(upstream.port, logs, *settings_of(_RULES, _LIMITS), *identity) as known,
    ):
        ways = {BARE: (bare, ""), POLICY: (plain, ""), KNOWN: (known, token)}
        for running, has in (ways[POLICY], ways[KNOWN]):
            await load.answer_times(
                running.port, count=1, revision=modern, token=has
            )  # from now on it is kept
        for _ in range(size.rounds):
            for name, (running, has) in ways.items():
                runs[name].append(await _run(running, size.seconds, modern, logs, has))
    figures = []
    for name, outcomes in runs.items():
        figures.append(_median(f"{name}, at {CONNECTIONS} connections", _rates(outcomes), "calls/s"))
        figures.append(_median(f"{name}, CPU per call", _cpu(outcomes), "us"))
    for name in (POLICY, KNOWN):
        ratios = [bare / ours for ours, bare in zip(_rates(runs[name]), _rates(runs[BARE]), strict=True)]
        # The other way round, so that less is better, as in all tables here.
        figures.append(_median(f"bare over {name}, calls/s", ratios, "times", at_most=round(1 / AIM, 2)))
        cpu = [ours / bare for ours, bare in zip(_cpu(runs[name]), _cpu(runs[BARE]), strict=True)]
        figures.append(_median(f"{name} over bare, CPU per call", cpu, "times"))
    return figures


async def _run(running: Running, seconds: float, revision: str, logs: Path, token: str) -> load.Outcome:
    log = logs / "kept.log"
    words = ("--port", running.port, "--connections", CONNECTIONS, "--seconds", seconds)
    watched = ("--revision", revision, "--watch", running.pid, "--token", token)
    command = [sys.executable, "-m", "tests.bench.kept", *map(str, (*words, *watched))]
    async with child(command, log=log, piped=True) as process:
        assert process.stdout is not None
        try:
            async with asyncio.timeout(load.WARM_UP_S + seconds + load.ANSWER_TIMEOUT_S):
                line = await process.stdout.readline()
        except TimeoutError:
            line = b""
    if not line:
        raise ProcessFailed(f"a run of calls failed:\n{tail(log)}")
    return msgspec.json.decode(line, type=load.Outcome)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.cache_hits")
    parser.add_argument("--quick", action="store_true", help="one short round")
    size = QUICK if parser.parse_args().quick else FULL
    machine = this_machine()
    with tempfile.TemporaryDirectory(prefix="mcp-sidecar-bench-") as folder:
        try:
            figures = uvloop.run(hitting(size, Path(folder)))
        except (ProcessFailed, load.Wrong) as failed:
            print(failed, file=sys.stderr)
            return 1
    print(table(machine, figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
