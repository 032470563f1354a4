"""What does an audit record cost a call? `python -m tests.bench.audit_cost`. Numbers, never asserted.

The loop's part (two observers) and the thread's part (a line, its hash, the write; with one fsync for each group), each
the best of many short runs, because the machine is shared. With and without the hash of the arguments.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Callable

from proxy.model import Ending, Headers, Permit, Rule, Verdict
from proxy.telemetry.audit import Audit
from proxy.telemetry.audit_chain import Chain
from proxy.telemetry.audit_log import AuditLog
from proxy.telemetry.audit_scribe import Scribe, Ways
from proxy.telemetry.audit_settings import AuditSettings
from proxy.telemetry.journey import Journeys, Observers, Record

from .journeys import identified

CALLS = 500
RUNS = 200
RULE = Rule(id="delete_*", tool_class="dangerous")
ARGUMENTS = {"path": "/srv/data/reports", "force": True, "depth": 7}


def best(measure: Callable[[], float]) -> float:
    """µs a call."""
    return min(measure() for _ in range(RUNS)) / CALLS * 1e6


def calls(journeys: Journeys) -> list[tuple[Record, Permit]]:
    made = []
    for _ in range(CALLS):
        record, permit = identified(
            journeys, target="delete_report", arguments=ARGUMENTS, rule=RULE, headers=Headers()
        )
        record.verdict = Verdict.OK
        made.append((record, permit))
    return made


def loop_part(observers: Observers, log: AuditLog) -> float:
    made = calls(Journeys(observers))
    began = time.perf_counter()
    for record, permit in made:
        record.permitted(permit)
        record.ended(Ending.COMPLETE)
    took = time.perf_counter() - began
    log._queue.clear()
    return took


def thread_part(path: str, audit: Audit, log: AuditLog) -> float:
    """Without the thread: what it does with a group, but for the waiting."""
    for record, permit in calls(Journeys(Observers(permitted=(audit.permitted,), ended=(audit.ended,)))):
        record.permitted(permit)
        record.ended(Ending.COMPLETE)
    scribe = Scribe(path, Ways(), told=lambda *_: None, token=lambda: "a" * 32, wall=time.time)
    scribe._chain = Chain("a" * 32)
    entries = list(log._queue)
    log._queue.clear()
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    began = time.perf_counter()
    for entry in entries:
        scribe._add(*entry)
    os.write(descriptor, b"".join(scribe._lines))
    took = time.perf_counter() - began
    os.ftruncate(descriptor, 0)
    os.close(descriptor)
    return took


async def measured(folder: str) -> None:
    def tell(msg: str, level: str = "info", **fields: object) -> None:
        print(msg, fields)

    settings = AuditSettings(file=f"{folder}/audit.jsonl")
    log = AuditLog(settings, sign=None, life=tell, host="host", wall=time.time)
    audit = Audit(settings, log)
    on = Observers(permitted=(audit.permitted,), ended=(audit.ended,))
    hashed = best(lambda: loop_part(on, log))
    log.args_hash = lambda _: "0" * 64  # type: ignore[method-assign, assignment]  # to see what it costs
    plain = best(lambda: loop_part(on, log))
    off = best(lambda: loop_part(Observers(), log))
    thread = best(lambda: thread_part(f"{folder}/other.jsonl", audit, log))
    print(
        f"loop {plain - off:.2f} µs, thread {thread:.2f} µs, hash of arguments {hashed - plain:.2f} µs a call"
    )
    await log.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        asyncio.run(measured(temporary))
