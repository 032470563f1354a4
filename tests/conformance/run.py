"""The official suite, direct and through the sidecar; a table of what came out, and what differs.

    python -m tests.conformance.run [--revision V ...] [--quick]

Exit 0: everything passed directly and nothing differs through the sidecar. Exit 1: something did not.
The suite's own output and the servers' logs stay in ``out/conformance/<time>-<process>``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.tools.node import NodeTools, ToolsUnavailable, node_tools

from .compare import Checks, Difference, Totals, differences, totals
from .processes import ProcessFailed
from .stand import SidecarCommand, Stand, sidecar_command, stand
from .suite import CHECKS, QUICK, run_suite

OUT = Path(__file__).parents[2] / "out" / "conformance"


@dataclass(frozen=True)
class Comparison:
    """One revision, both ways."""

    revision: str
    direct: Totals
    proxied: Totals
    differences: tuple[Difference, ...]
    missing: int
    """Checks that the pinned suite has and the direct run did not pass; not counted for a quick run."""

    @property
    def is_clean(self) -> bool:
        return not (self.differences or self.missing or self.direct.failed) and self.direct.passed > 0


async def compare_revision(
    tools: NodeTools, where: Stand, revision: str, out: Path, *, quick: bool
) -> Comparison:
    """Run one revision directly, then through the sidecar.

    One after the other: the server remembers things (a tool that comes and goes), and scenarios with time
    windows need a machine that is not busy with the other run.
    """
    scenarios: tuple[str | None, ...] = QUICK[revision] if quick else (None,)
    direct: dict[str, Checks] = {}
    proxied: dict[str, Checks] = {}
    for scenario in scenarios:
        folder = out / revision / (scenario or "all")
        direct |= await run_suite(tools, where.direct, revision, folder / "direct", scenario)
        proxied |= await run_suite(tools, where.proxied, revision, folder / "proxied", scenario)
    counted = totals(direct)
    return Comparison(
        revision,
        counted,
        totals(proxied),
        tuple(differences(direct, proxied)),
        missing=0 if quick else max(0, CHECKS[revision] - counted.passed),
    )


async def compare_all(
    revisions: Iterable[str], out: Path, *, quick: bool, command: SidecarCommand = sidecar_command
) -> list[Comparison]:
    """Compare several revisions on one pair of servers, printing a row as each is done."""
    tools = node_tools()
    out.mkdir(parents=True)
    print(ROW.format("revision", "direct", "proxied", "differences"))
    async with stand(out, command) as where:
        compared = []
        for revision in revisions:
            result = await compare_revision(tools, where, revision, out, quick=quick)
            print_comparison(result)
            compared.append(result)
        return compared


ROW = "{:<12}{:>18}{:>18}{:>14}"


def print_comparison(result: Comparison) -> None:
    direct, proxied = (f"{t.passed} ok, {t.failed} bad" for t in (result.direct, result.proxied))
    print(ROW.format(result.revision, direct, proxied, len(result.differences)))
    for difference in result.differences:
        print(f"  {difference}")
    if result.missing:
        print(f"  {result.missing} of {CHECKS[result.revision]} checks did not pass directly")
    sys.stdout.flush()


async def _until_told_to_stop(revisions: list[str], quick: bool, out: Path) -> list[Comparison]:
    """TERM unwinds like Ctrl-C, so that the servers are ended and not left behind."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await compare_all(revisions, out, quick=quick)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.run", description=__doc__)
    parser.add_argument(
        "--revision", action="append", choices=list(CHECKS), help="may be given several times"
    )
    parser.add_argument("--quick", action="store_true", help="a few scenarios per revision")
    options = parser.parse_args()
    out = OUT / f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}"
    try:
        compared = asyncio.run(_until_told_to_stop(options.revision or list(CHECKS), options.quick, out))
    except (ProcessFailed, ToolsUnavailable) as failed:
        print(failed, file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 1
    print(f"details: {out}")
    return 0 if all(result.is_clean for result in compared) else 1


if __name__ == "__main__":
    sys.exit(main())
