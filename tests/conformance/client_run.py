"""The official client suite, direct and through the sidecar; a table of what came out, and what should not have.

    python -m tests.conformance.client_run [--revision V ...] [--only WORD]

Exit 0: everything passed directly, and through the sidecar everything but the listed artefacts. Exit 1: it did not.
The suite's own output stays in ``out/conformance-client/<time>-<process>``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import yaml

from tests.tools.node import NodeTools, ToolsUnavailable, node_tools

from .client_suite import CHECKS, HERE, Result, Way, run_scenarios, scenarios, surprises
from .compare import Totals, totals
from .processes import ProcessFailed

OUT = Path(__file__).parents[2] / "out" / "conformance-client"
ROW = "{:<12}{:>10}{:>18}{:>18}{:>11}{:>11}"


def listed_artefacts() -> dict[str, dict[str, list[str]]]:
    """Per revision and scenario the checks that cannot pass through a proxy."""
    text = (HERE / "client" / "artefacts.yaml").read_text(encoding="utf-8")
    artefacts: dict[str, dict[str, list[str]]] = {
        str(key): value for key, value in yaml.safe_load(text).items()
    }
    return artefacts


async def run_revision(tools: NodeTools, revision: str, only: str, out: Path) -> bool:
    """Run a revision both ways and print its row. True when it is as it must be."""
    out.mkdir(parents=True, exist_ok=True)
    names = [name for name in await scenarios(tools, revision, out / "list.log") if only in name]
    chosen = [(revision, name) for name in names]
    direct = _named(await run_scenarios(tools, Way.DIRECT, chosen, out))
    through = _named(await run_scenarios(tools, Way.THROUGH, chosen, out))
    artefacts = {name: listed_artefacts().get(revision, {}).get(name, []) for name in names}
    found = surprises(direct, through, {name: checks for name, checks in artefacts.items() if checks})
    counted = _totals(direct)
    if not only and counted.passed < CHECKS[revision]:
        found.append(
            f"{CHECKS[revision] - counted.passed} of {CHECKS[revision]} checks did not pass directly"
        )
    ways = (f"{t.passed} ok, {t.failed} bad" for t in (counted, _totals(through)))
    print(ROW.format(revision, len(names), *ways, sum(map(len, artefacts.values())), len(found)))
    for each in found:
        print(f"  {each}")
    sys.stdout.flush()
    return bool(names) and not found


def _named(results: Mapping[tuple[str, str], Result]) -> dict[str, Result]:
    return {name: result for (_, name), result in results.items()}


def _totals(results: Mapping[str, Result]) -> Totals:
    return totals({name: result.checks for name, result in results.items()})


async def run_all(revisions: list[str], only: str, out: Path) -> bool:
    """TERM unwinds like Ctrl-C, so that nothing is left behind."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    tools = node_tools()
    print(ROW.format("revision", "scenarios", "direct", "through", "artefacts", "surprises"))
    return all([await run_revision(tools, revision, only, out) for revision in revisions])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.client_run", description=__doc__)
    parser.add_argument(
        "--revision", action="append", choices=list(CHECKS), help="may be given several times"
    )
    parser.add_argument("--only", default="", help="scenarios whose name has this in it")
    options = parser.parse_args()
    out = OUT / f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}"
    try:
        is_good = asyncio.run(run_all(options.revision or list(CHECKS), options.only, out))
    except (ProcessFailed, ToolsUnavailable) as failed:
        print(failed, file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 1
    print(f"details: {out}")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
