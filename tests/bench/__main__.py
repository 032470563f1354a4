"""`python -m tests.bench [--quick]`: runs every scenario, prints the table, writes out/bench/latest.json.

Exit code 0 whatever the numbers say; 1 when something could not be measured, because a process failed or a call
was not answered.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from tests.conformance.processes import ProcessFailed

from .load import Wrong
from .processes import raise_open_files
from .report import Figure, Results, table, this_machine
from .scenarios import FULL, QUICK, Size, calling, holding_connections, holding_streams, identifying, starting

LATEST: Final = Path(__file__).parents[2] / "out" / "bench" / "latest.json"
SCENARIOS: Final = {
    "starting": starting,
    "streams": holding_streams,
    "connections": holding_connections,
    "calls": calling,
    "identity": identifying,
}


async def measure(names: list[str], size: Size, logs: Path) -> list[Figure]:
    """The figures of the named scenarios, in the order of the register."""
    figures: list[Figure] = []
    for name, scenario in SCENARIOS.items():
        if name in names:
            print(f"measuring {name} ...", file=sys.stderr, flush=True)
            figures += await scenario(size, logs)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--quick", action="store_true", help="a fifth of the crowd, one short round")
    parser.add_argument(
        "--only", action="append", choices=list(SCENARIOS), help="this scenario; may be repeated"
    )
    parser.add_argument("--json", type=Path, default=LATEST, metavar="FILE", help="where the results go")
    options = parser.parse_args()
    machine = this_machine()
    size = QUICK if options.quick else FULL
    if raise_open_files() < 2 * size.connections:
        print("too few open files are allowed: raise the hard limit (ulimit -Hn)", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="mcp-sidecar-bench-") as folder:
        try:
            figures = uvloop.run(measure(options.only or list(SCENARIOS), size, Path(folder)))
        except (ProcessFailed, Wrong) as failed:
            print(failed, file=sys.stderr)
            return 1
    results = Results(machine=machine, quick=options.quick, figures=tuple(figures))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")
    print(table(machine, figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
