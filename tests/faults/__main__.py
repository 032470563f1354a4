"""Runs the laboratory: `python -m tests.faults [--only TEXT] [--scale 1] [--seed N] [--soak-hours H]`.

Out: a table (fault, how often injected, invariants, figures), each line as soon as it is known; exit code 1 when a
promise was broken or a fault was not really there. `--mistake NAME` plants one of planted.py, and must make it fail.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from functools import partial
from random import Random
from typing import Final, TypeAlias

import uvloop

from . import reloads, scripts, wire
from .catalog import FAULTS
from .lab import Lab, Report
from .planted import MISTAKES
from .wired import WIRED

Run: TypeAlias = Callable[[Lab], Awaitable[Report]]

LONGEST_S: Final = 600.0
"""For one fault, whatever happens: a laboratory that hangs finds nothing."""
SOAK_SCALES: Final = (0.05, 0.5)


def known() -> dict[str, tuple[Run, frozenset[str], frozenset[str]]]:
    """Every fault by name: how it runs, what it needs, and until what is wired."""
    runs: dict[str, tuple[Run, frozenset[str], frozenset[str]]] = {
        fault.name: (partial(wire.run, fault), fault.needs, fault.until) for fault in FAULTS
    }
    for script in (*scripts.SCRIPTS, *reloads.SCRIPTS):
        runs[script.name] = (script.run, script.needs, script.until)
    return runs


async def one(name: str, run: Run, lab: Lab) -> Report:
    """Its report; what the laboratory itself cannot do is broken too."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(LONGEST_S):
            report = await run(lab)
    except Exception as error:
        trace = "".join(traceback.format_exception(error)).strip().splitlines()
        report = Report(fault=name, broken=[f"the laboratory failed: {error!r}", *trace[-8:]])
    report.took_s = time.monotonic() - began
    return report


def row(report: Report) -> str:
    verdict = "holds" if report.is_good else "BROKEN" if report.broken else "NOT INJECTED"
    line = (
        f"{report.fault:<52} {report.injected:>8,} {report.calls:>8,}  {verdict:<13}"
        f"{report.settled_s:>5.1f} s {report.took_s:>6.1f} s  {report.figures}"
    )
    return "\n".join([line, *(f"    {each}" for each in report.broken)])


HEAD: Final = (
    f"{'fault':<52} {'injected':>8} {'calls':>8}  {'invariants':<13}{'at rest':>7} {'took':>8}  figures"
)


async def once(lab: Lab, only: str, wired: frozenset[str]) -> list[Report]:
    """Every fault that fits, one after the other."""
    reports = []
    print(HEAD, flush=True)
    for name, (run, needs, until) in known().items():
        if only not in name:
            continue
        if not needs <= wired:
            print(f"{name:<52} waits for {', '.join(sorted(needs - wired))}", flush=True)
            continue
        if until and until <= wired:
            continue
        reports.append(await one(name, run, lab))
        print(row(reports[-1]), flush=True)
    return reports


async def soak(hours: float, seed: int, module: list[str], wired: frozenset[str]) -> bool:
    """Faults in any order and size, for hours. Whether all held."""
    random, until = Random(seed), time.monotonic() + hours * 3_600
    is_good, rounds = True, 0
    print(f"seed {seed}\n{HEAD}", flush=True)
    fits = [
        (name, run) for name, (run, needs, till) in known().items() if needs <= wired and not till & wired
    ]
    while time.monotonic() < until:
        name, run = random.choice(fits)
        lab = Lab(seed=random.getrandbits(32), module=module, scale=random.uniform(*SOAK_SCALES))
        report = await one(name, run, lab)
        rounds += 1
        print(row(report), flush=True)
        is_good = is_good and report.is_good
    print(f"{rounds} rounds, seed {seed}: {'all held' if is_good else 'BROKEN'}", flush=True)
    return is_good


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--only", default="", help="faults whose name contains this")
    parser.add_argument("--scale", type=float, default=1.0, help="so many times as many calls")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--soak-hours", type=float, default=None)
    parser.add_argument("--mistake", choices=sorted(MISTAKES), help="plant it: the run must fail")
    parser.add_argument("--wired", default=",".join(sorted(WIRED)), help="what the sidecar can do")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    if options.list:
        print("\n".join(known()))
        return 0
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    seed = options.seed if options.seed is not None else Random().getrandbits(32)
    module = ["tests.faults.planted", options.mistake] if options.mistake else []
    wired = frozenset(word for word in options.wired.split(",") if word)
    if options.soak_hours is not None:
        return 0 if uvloop.run(soak(options.soak_hours, seed, module, wired)) else 1
    began = time.monotonic()
    lab = Lab(seed=seed, module=module, scale=options.scale)
    reports = uvloop.run(once(lab, options.only, wired))
    bad = [report.fault for report in reports if not report.is_good]
    print(
        f"\n{len(reports)} faults, {sum(each.calls for each in reports):,} calls, "
        f"{sum(each.injected for each in reports):,} injected, {time.monotonic() - began:.0f} s, seed {seed}: "
        + (f"BROKEN: {', '.join(bad)}" if bad else "all promises held")
    )
    return 0 if reports and not bad else 1


if __name__ == "__main__":
    sys.exit(main())
