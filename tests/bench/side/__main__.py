"""`python -m tests.bench.side [--quick]`: everything in one run, on a Python that was built as the image's; writes
results/latest.json and latest.md, prints the tables, and brings the pages that quote them up to date.

Exit code 0 whatever the numbers say; 1 when something of ours could not be measured.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

import uvloop

from tests.compiled import tree
from tests.conformance.processes import ProcessFailed

from ..load import Wrong
from ..processes import raise_open_files
from ..report import this_machine
from . import peers
from .interpreter import go_on_with, optimised
from .quote import FOLDER, quote
from .report import Results, markdown, write
from .rounds import FULL, QUICK, Measured
from .situations import SITUATIONS, measured


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.side")
    parser.add_argument("--quick", action="store_true", help="fewer peers and shorter rounds: two minutes")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the results go")
    parser.add_argument(
        "--only",
        action="append",
        choices=list(SITUATIONS),
        help="print this alone, write nothing; may be repeated",
    )
    parser.add_argument(
        "--as-python", action="store_true", help="measure the sidecar that is not compiled alone"
    )
    parser.add_argument("--this-python", action="store_true", help="the one that runs this, as it was built")
    options = parser.parse_args()
    try:
        python = None if options.this_python else optimised()
    except RuntimeError as failed:
        print(
            f"{failed}\nno environment for the system's Python; --this-python does without", file=sys.stderr
        )
        return 1
    if python is not None:
        go_on_with(python, "tests.bench.side")
    if lacks := peers.missing():
        print(f"not here: {', '.join(lacks)}; see tests/system/packages.txt", file=sys.stderr)
        return 1
    raise_open_files()
    compiled = None if options.as_python else asyncio.run(tree())
    machine = this_machine()
    with tempfile.TemporaryDirectory(prefix="mcp-sidecar-bench-") as folder:
        try:
            plan = QUICK if options.quick else FULL
            found: Measured = uvloop.run(measured(plan, Path(folder), options.only, compiled or peers.ROOT))
        except (ProcessFailed, Wrong) as failed:
            print(failed, file=sys.stderr)
            return 1
    results = Results(
        machine=machine,
        quick=options.quick,
        rows=tuple(found.rows),
        late=tuple(found.late),
        ratios=found.ratios,
        bounds=found.bounds,
        left_out=tuple(found.left_out),
        is_compiled=compiled is not None,
    )
    if not options.only:
        write(results, options.folder)
        if options.folder == FOLDER:
            quote()
    print(markdown(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
