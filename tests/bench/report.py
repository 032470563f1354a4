"""Figures, their aims, the machine they are true for, and a table of them. Aims are shown, never asserted."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from msgspec import Struct


class Figure(Struct, frozen=True, kw_only=True):
    """One number."""

    name: str
    value: float
    unit: str
    at_most: float | None = None
    """The aim, in the same unit; None where a number has none of its own."""
    runs: tuple[float, ...] = ()
    """What the value is the median of."""


class Machine(Struct, frozen=True, kw_only=True):
    """Where and with what it was measured."""

    cpu: str
    cores: int
    load_average: float
    """Of the minute before: what else ran here."""
    system: str
    python: str
    packages: dict[str, str]
    commit: str


class Results(Struct, frozen=True, kw_only=True):
    """What is written to out/bench/latest.json."""

    machine: Machine
    quick: bool
    figures: tuple[Figure, ...]


def this_machine() -> Machine:
    """The machine we run on. IO: reads /proc/cpuinfo and asks git."""
    return Machine(
        cpu=_cpu(Path("/proc/cpuinfo").read_text(encoding="utf-8")),
        cores=os.cpu_count() or 0,
        load_average=round(os.getloadavg()[0], 2),
        system=f"{platform.system()} {platform.release()}",
        python=f"{platform.python_version()} of {sys.base_prefix}",
        packages={name: version(name) for name in ("aiohttp", "uvloop", "msgspec", "jiter")},
        commit=_commit(),
    )


def _cpu(cpuinfo: str) -> str:
    names = [line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> str:
    """The revision of the sources, with a + when the working tree differs from it."""
    try:
        asked = subprocess.run(
            ["git", "describe", "--always", "--dirty=+"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return "unknown"
    return asked.stdout.strip() or "unknown"


def table(machine: Machine, figures: Sequence[Figure]) -> str:
    """Figures under the machine they are true for, one line each."""
    packages = ", ".join(f"{name} {number}" for name, number in machine.packages.items())
    lines = [
        f"mcp-sidecar {machine.commit} on {machine.cpu}, {machine.cores} cores, {machine.system}",
        f"Python {machine.python}, {packages}; load before: {machine.load_average}",
        "",
    ]
    width = max(len(figure.name) for figure in figures)
    lines += [
        f"{figure.name:<{width}}  {_number(figure.value):>8} {figure.unit:<6} {_aim(figure)}".rstrip()
        for figure in figures
    ]
    return "\n".join(lines)


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _aim(figure: Figure) -> str:
    if figure.at_most is None:
        return ""
    missed = "  MISSED" if figure.value > figure.at_most else ""
    return f"aim <= {figure.at_most:g}{missed}"
