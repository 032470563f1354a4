"""Runs → figures, ratios and a table. Pure, but for writing the files."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from ..report import Machine
from .wrk import Outcome

DIRECT: Final = "direct"
"""No proxy: its core is that of the load."""


class Row(Struct, frozen=True, kw_only=True):
    """One peer in one situation: medians of its runs."""

    peer: str
    situation: str
    rate: float
    cpu_us: float
    p50_us: float
    p99_us: float
    is_saturated: bool
    """The proxy's core was the one that had no more to give; else the rate is a lower bound."""
    failed: int
    rates: tuple[float, ...]


class Aim(Struct, frozen=True, kw_only=True):
    value: float
    is_least: bool


AIMS: Final[Mapping[str, Aim]] = {
    "full_vs_envoy_mcp": Aim(value=1.0, is_least=True),
    "full_vs_nginx": Aim(value=0.22, is_least=True),
    "hit_vs_aiohttp_static": Aim(value=0.6, is_least=True),
    "full_vs_fastmcp": Aim(value=50, is_least=True),
    "added_p50_ms": Aim(value=0.25, is_least=False),
    "added_p99_ms": Aim(value=1.0, is_least=False),
    "idle_rss_mb": Aim(value=64, is_least=False),
    "ready_s": Aim(value=0.6, is_least=False),
    "kb_per_idle_stream": Aim(value=20, is_least=False),
    "full_many_keys_vs_one": Aim(value=0.9, is_least=True),
}
"""Shown, never asserted."""


class Results(Struct, frozen=True, kw_only=True):
    """What latest.json holds."""

    machine: Machine
    quick: bool
    rows: tuple[Row, ...]
    ratios: dict[str, float]
    left_out: tuple[str, ...]
    """Peers that could not be measured, and why."""


def row(peer: str, situation: str, runs: Sequence[Outcome]) -> Row:
    """The medians of several runs."""
    return Row(
        peer=peer,
        situation=situation,
        rate=statistics.median(each.rate for each in runs),
        cpu_us=statistics.median(each.cpu_us for each in runs),
        p50_us=statistics.median(each.p50_us for each in runs),
        p99_us=statistics.median(each.p99_us for each in runs),
        is_saturated=all(each.is_saturated for each in runs),
        failed=sum(each.failed for each in runs),
        rates=tuple(each.rate for each in runs),
    )


def is_met(name: str, value: float) -> bool:
    aim = AIMS[name]
    return value >= aim.value if aim.is_least else value <= aim.value


def markdown(results: Results) -> str:
    """The tables that the README quotes."""
    machine = results.machine
    packages = ", ".join(f"{name} {number}" for name, number in machine.packages.items())
    lines = [
        f"{machine.cpu}, {machine.cores} cores, {machine.system}, Python {machine.python}, {packages}; commit "
        f"{machine.commit}, load before {machine.load_average}{', quick' if results.quick else ''}.",
        "",
        "| ratio | value | aim | |",
        "|---|---|---|---|",
    ]
    for name, value in results.ratios.items():
        aim = AIMS[name]
        sign = ">=" if aim.is_least else "<="
        lines.append(
            f"| {name} | {value:.2f} | {sign} {aim.value:g} | {'' if is_met(name, value) else 'missed'} |"
        )
    for situation in dict.fromkeys(each.situation for each in results.rows):
        lines += [
            "",
            f"**{situation}**",
            "",
            "| peer | calls/s | CPU µs | p50 ms | p99 ms |",
            "|---|---|---|---|---|",
        ]
        for each in results.rows:
            if each.situation == situation:
                mark = "" if each.is_saturated or each.peer == DIRECT else " (at least)"
                broken = f", {each.failed} failed" if each.failed else ""
                lines.append(
                    f"| {each.peer} | {each.rate:,.0f}{mark}{broken} | {each.cpu_us:.0f} "
                    f"| {each.p50_us / 1e3:.2f} | {each.p99_us / 1e3:.2f} |"
                )
    lines += ["", *(f"Left out: {each}" for each in results.left_out)]
    return "\n".join(lines).rstrip() + "\n"


def write(results: Results, folder: Path) -> None:
    """latest.json and latest.md. IO: writes files."""
    folder.mkdir(parents=True, exist_ok=True)
    said = msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n"
    (folder / "latest.json").write_bytes(said)
    (folder / "latest.md").write_text(markdown(results), encoding="utf-8")
