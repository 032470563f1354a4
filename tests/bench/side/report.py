"""Runs → figures, ratios and a table. Pure, but for writing the files."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from ..arrivals import PASSED, Ran, Said
from ..load import WARM_UP_S, quantile
from ..report import Machine
from .wrk import Outcome

DIRECT: Final = "direct"
"""No proxy: its core is that of the load."""


class Row(Struct, frozen=True, kw_only=True):
    """One peer in one situation: medians of its runs."""

    peer: str
    situation: str
    unit: str
    """What is counted: calls or events."""
    rate: float
    cpu_us: float
    p50_us: float
    p99_us: float
    is_saturated: bool
    """The proxy's core was the one that had no more to give; else the rate is a lower bound."""
    failed: int
    idle_mb: float
    """Resident before anybody called."""
    loaded_mb: float
    """The most that was resident in the middle of a run."""
    rates: tuple[float, ...]


class Late(Struct, frozen=True, kw_only=True):
    """One peer under an offered load: medians of its runs, in microseconds since calls were due."""

    peer: str
    situation: str
    p50_us: float
    p95_us: float
    p99_us: float
    p999_us: float
    failed: int
    """Answered otherwise than by the server, or not at all."""
    queued: int
    """Calls that were due while every connection was in use."""
    caller_share: float
    """Of the core that the caller has in common with the server."""


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
    late: tuple[Late, ...]
    ratios: dict[str, float]
    bounds: dict[str, str]
    """Of ratios that are none but bounds: `at least` and the like, because a core was not saturated."""
    left_out: tuple[str, ...]
    """Peers that could not be measured, and why."""
    is_compiled: bool = False
    """The sidecars are as in the image, but for those whose row says otherwise."""


def row(peer: str, situation: str, runs: Sequence[Outcome], *, idle_mb: float, unit: str = "calls") -> Row:
    """The medians of several runs."""
    return Row(
        peer=peer,
        situation=situation,
        unit=unit,
        rate=statistics.median(each.rate for each in runs),
        cpu_us=statistics.median(each.cpu_us for each in runs),
        p50_us=statistics.median(each.p50_us for each in runs),
        p99_us=statistics.median(each.p99_us for each in runs),
        is_saturated=all(each.is_saturated for each in runs),
        failed=sum(each.failed for each in runs),
        idle_mb=idle_mb,
        loaded_mb=max(each.rss_mb for each in runs),
        rates=tuple(each.rate for each in runs),
    )


def late(peer: str, situation: str, runs: Sequence[Ran], seconds: float) -> Late:
    """The medians of several runs of so many seconds, without what came while everything was cold."""
    took_us = [sorted(each.took_s * 1e6 for each in _warm(ran.said)) for ran in runs]
    p50, p95, p99, p999 = (
        statistics.median(quantile(each, share) for each in took_us) for share in (0.5, 0.95, 0.99, 0.999)
    )
    return Late(
        peer=peer,
        situation=situation,
        p50_us=p50,
        p95_us=p95,
        p99_us=p99,
        p999_us=p999,
        failed=sum(each.what != PASSED for ran in runs for each in ran.said),
        queued=sum(ran.short_of_connections for ran in runs),
        caller_share=statistics.median(ran.cpu_s / seconds for ran in runs),
    )


def _warm(said: Sequence[Said]) -> list[Said]:
    begin_s = min(each.due_s for each in said) + WARM_UP_S
    return [each for each in said if each.due_s >= begin_s]


def is_met(name: str, value: float) -> bool:
    aim = AIMS[name]
    return value >= aim.value if aim.is_least else value <= aim.value


def markdown(results: Results) -> str:
    """All tables, each a block of its own."""
    tables = [summary(results)]
    tables += [_rates(results.rows, each) for each in _situations(results.rows)]
    tables += [_lateness(results.late, each) for each in _situations(results.late)]
    tables += [f"Left out: {_one_line(each)}" for each in results.left_out]
    return "\n\n".join(tables) + "\n"


def summary(results: Results) -> str:
    """The machine and the ratios."""
    machine = results.machine
    packages = ", ".join(f"{name} {number}" for name, number in machine.packages.items())
    lines = [
        f"{machine.cpu}, {machine.cores} cores, {machine.system}, Python {machine.python}, {packages}; commit "
        f"{machine.commit}, load before {machine.load_average}{', quick' if results.quick else ''}. mcp-sidecar is "
        f"{'compiled, as in the image' if results.is_compiled else 'not compiled'}.",
        "",
        "| ratio | value | aim | |",
        "|---|---|---|---|",
    ]
    for name, value in results.ratios.items():
        aim = AIMS[name]
        sign = ">=" if aim.is_least else "<="
        bound = f"{results.bounds[name]} " if name in results.bounds else ""
        missed = "" if is_met(name, value) else "missed"
        lines.append(f"| {name} | {bound}{value:.2f} | {sign} {aim.value:g} | {missed} |")
    return "\n".join(lines)


def _situations(rows: Iterable[Row | Late]) -> list[str]:
    return list(dict.fromkeys(each.situation for each in rows))


def _rates(rows: Iterable[Row], situation: str) -> str:
    those = [each for each in rows if each.situation == situation]
    unit = those[0].unit
    return "\n".join(
        [
            f"**{situation}**",
            "",
            f"| peer | {unit}/s | CPU µs of one | p50 ms | p99 ms | MB idle | MB under load |",
            "|---|---|---|---|---|---|---|",
            *(
                f"| {each.peer} | {each.rate:,.0f}{_remarks(each)} | {each.cpu_us:,.0f} | {each.p50_us / 1e3:.2f} "
                f"| {each.p99_us / 1e3:.2f} | {each.idle_mb:.0f} | {each.loaded_mb:.0f} |"
                for each in those
            ),
        ]
    )


def _remarks(row: Row) -> str:
    bound = "" if row.is_saturated or row.peer == DIRECT else " (at least)"
    return bound + (f", {row.failed} failed" if row.failed else "")


def _lateness(rows: Iterable[Late], situation: str) -> str:
    """Each percentile, and what the peer adds to that of the server alone."""
    those = [each for each in rows if each.situation == situation]
    direct = next((each for each in those if each.peer == DIRECT), None)
    lines = [
        f"**{situation}**",
        "",
        "| peer | p50 ms | p95 ms | p99 ms | p99.9 ms |",
        "|---|---|---|---|---|",
    ]
    for each in those:
        cells = []
        for name in ("p50_us", "p95_us", "p99_us", "p999_us"):
            value = getattr(each, name)
            added = "" if direct in (None, each) else f" ({(value - getattr(direct, name)) / 1e3:+.2f})"
            cells.append(f"{value / 1e3:.2f}{added}")
        failed = f", {each.failed} failed" if each.failed else ""
        lines.append(f"| {each.peer}{failed} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _one_line(said: str) -> str:
    return " ".join(said.split())


def write(results: Results, folder: Path) -> None:
    """latest.json and latest.md. IO: writes files."""
    folder.mkdir(parents=True, exist_ok=True)
    said = msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n"
    (folder / "latest.json").write_bytes(said)
    (folder / "latest.md").write_text(markdown(results), encoding="utf-8")
