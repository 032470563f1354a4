"""What does it cost to tell what happened? `python -m tests.bench.telemetry_cost [--here]`: the room as the house
builds it, each part by itself and all together, beside journeys that nobody hears of. First compiled, as in the image,
where there is a C compiler; then, or with `--here` alone, as it is here.

In: nothing. Out: figures: processor time of the whole process, threads included, a call; the least of several rounds,
because other processes only add to it. Standard error goes to a file while it is measured, as in a pod.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop

from proxy.model import Ending, Headers, Rule, Verdict
from proxy.telemetry.audit import Audit
from proxy.telemetry.audit_log import AuditLog
from proxy.telemetry.building import Telemetry
from proxy.telemetry.debugging import Debugging
from proxy.telemetry.journey import Journeys, Observers
from proxy.telemetry.logs import Log
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.settings import TelemetrySettings
from proxy.telemetry.traces import Traces
from tests.compiled import run_in_copy, tree

from . import standard_error
from .journeys import identified
from .report import Figure, table, this_machine

ROUNDS: Final = 60
CALLS: Final = 2_000
TURN: Final = 16
"""Calls that end in one turn of the loop: their lines are written together."""
AIM_US: Final = 10.0

OFF: Final[Mapping[str, Any]] = {"log_level": "error", "metrics": False}
LINE: Final[Mapping[str, Any]] = {"log_level": "info", "metrics": False}
COUNTED: Final[Mapping[str, Any]] = {"log_level": "error", "metrics": True}
TRACED: Final[Mapping[str, Any]] = {**OFF, "traces": {"exporter": "none", "sample": 0}}
AUDITED: Final[Mapping[str, Any]] = {**OFF, "audit": {"file": "", "mode": "batch", "classes": ["read"]}}
ALL: Final[Mapping[str, Any]] = {
    "log_level": "info",
    "metrics": True,
    "traces": TRACED["traces"],
    "audit": AUDITED["audit"],
}
WAYS: Final[Mapping[str, Mapping[str, Any]]] = {
    "all off": OFF,
    "a log line": LINE,
    "metrics": COUNTED,
    "a trace that is sampled out": TRACED,
    "a batched audit line, arguments hashed": AUDITED,
    "all of it": ALL,
}

RULE: Final = Rule(id="search_*", tool_class="read")
HEADERS: Final = Headers(
    [
        (b"Host", b"mcp.example.com"),
        (b"Accept", b"application/json, text/event-stream"),
        (b"Content-Type", b"application/json"),
        (b"Content-Length", b"211"),
        (b"Mcp-Session-Id", b"0123456789abcdef0123456789abcdef"),
        (b"Mcp-Protocol-Version", b"2025-11-25"),
        (b"User-Agent", b"python-httpx/0.28.1"),
    ]
)
"""A head that comes again is known: its names were looked at before."""
ARGUMENTS: Final = {"query": "reports of the last quarter", "limit": 10, "tags": ["one", "two"]}


def _call(journeys: Journeys | Telemetry) -> None:
    """All that a journey is told of a call that goes well."""
    record, permit = identified(
        journeys, target="search_documents", arguments=ARGUMENTS, rule=RULE, headers=HEADERS
    )
    record.permitted(permit)
    attempt = record.attempted()
    attempt.answered(200)
    record.answered(Verdict.OK)
    attempt.ended()
    record.ended(Ending.COMPLETE)


def _failed(error: Exception) -> None:
    raise error


class _Room:
    """The room by these settings, and who writes for it."""

    def __init__(self, way: Mapping[str, Any], folder: Path) -> None:
        settings = msgspec.convert(
            {**way, "audit": {**way["audit"], "file": str(folder / "audit.jsonl")}}
            if "audit" in way
            else way,
            TelemetrySettings,
        )
        log = Log()
        self.records = None
        audit = None
        if settings.audit is not None:
            self.records = AuditLog(settings.audit, sign=None, life=log.life, host="host", wall=time.time)
            audit = Audit(settings.audit, self.records)
        self.telemetry = Telemetry(
            settings,
            log,
            report=_failed,
            debugging=Debugging(log, time.time),
            traces=None if settings.traces is None else Traces(settings.traces, bits=random.getrandbits),
            metrics=Metrics(),
            audit=audit,
        )
        self.telemetry.enter()


async def _us(journeys: Journeys | Telemetry, room: _Room | None) -> float:
    """Processor time a call, in µs, until all is written."""
    began = time.process_time()
    for _ in range(CALLS // TURN):
        for _ in range(TURN):
            _call(journeys)
        await asyncio.sleep(0)
    if room is not None and room.records is not None:
        await room.records.written([room.records._put], 10)
    return (time.process_time() - began) / (CALLS // TURN * TURN) * 1e6


async def figures(rounds: int = ROUNDS) -> list[Figure]:
    """What each part adds to a call."""
    with tempfile.TemporaryDirectory(prefix="mcp-sidecar-bench-") as name:
        folder = Path(name)
        rooms = {}
        for number, (what, way) in enumerate(WAYS.items()):
            (folder / str(number)).mkdir()
            rooms[what] = _Room(way, folder / str(number))
        jobs: list[asyncio.Task[None]] = [
            asyncio.get_running_loop().create_task(job())  # type: ignore[arg-type]  # a job is a coroutine function
            for room in rooms.values()
            if room.records is not None
            for job in room.records.jobs
        ]
        nothing: list[float] = []
        found: dict[str, list[float]] = {what: [] for what in WAYS}
        for _ in range(rounds):
            nothing.append(await _us(Journeys(Observers()), None))
            for what, room in rooms.items():
                found[what].append(await _us(room.telemetry, room))
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        for room in rooms.values():
            if room.records is not None:
                await room.records.close()
    base = min(nothing)
    noise = sorted(nothing)[len(nothing) // 2] - base
    return [
        Figure(name="nobody hears of it", value=base, unit="µs"),
        Figure(name="noise of that: median over least", value=noise, unit="µs"),
        *(
            Figure(
                name=what, value=min(each) - base, unit="µs", at_most=AIM_US if what == "all of it" else None
            )
            for what, each in found.items()
        ),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.telemetry_cost")
    parser.add_argument("--here", action="store_true", help="only the modules that are imported here")
    is_here = parser.parse_args().here
    place = None if is_here else asyncio.run(tree())
    if place is not None:
        print("compiled, as in the image:", flush=True)
        if code := run_in_copy(place, ["tests.bench.telemetry_cost", "--here"]):
            return code
        print("\nas Python:")
    machine = this_machine()
    with standard_error.into_a_file():
        measured = uvloop.run(figures())
    print(table(machine, measured))
    return 0


if __name__ == "__main__":
    sys.exit(main())
