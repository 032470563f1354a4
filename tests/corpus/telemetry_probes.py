"""What is asked beside a case about what is told: what every sink holds, which traces are recorded, whether the audit
file is as it was written. Stand → changes to Evidence.

Sentences are looked up in probes.py.
"""

import asyncio
import json
import secrets
import time
from collections.abc import Sequence
from typing import Any

from tests.corpus.cases import CorpusError
from tests.corpus.evidence import Claimed, Evidence
from tests.corpus.pressure import crowd_of
from tests.corpus.sidecar import environment
from tests.corpus.stand import Stand
from tests.corpus.telemetry_stand import (
    AUDIT,
    CLAIMS_PER_S,
    SHARE,
    SPANS,
    TelemetryStand,
    traces_of,
)

SPREAD = 100
"""Ids at equal distances."""
MOST_CHOSEN = 4_000
_LOWER_64 = 1 << 64
_VERIFY_S = 20.0


async def told(stand: Stand, _: Evidence) -> dict[str, Any]:
    """What every sink holds after the case."""
    assert isinstance(stand, TelemetryStand)
    return {"sinks": await stand.sinks(), "secrets": stand.secrets()}


async def claims(stand: Stand, e: Evidence) -> dict[str, Any]:
    """Calls in traces that are said to be recorded: with ids of every kind, and then with ids that were chosen to be in
    the share, more and more of them, until twice as many were sent as may be recorded."""
    assert isinstance(stand, TelemetryStand)
    # A trace's lower 64 bits decide, from 0 to all of them (OpenTelemetry, TraceIdRatioBased).
    spread = [_id((2 * step + 1) * _LOWER_64 // (2 * SPREAD)) for step in range(SPREAD)]
    asked = {"spread": await _claimed(stand, e, spread)}
    chosen: list[str] = []
    said: dict[str, bool] = {}
    began = time.monotonic()
    while len(chosen) < 2 * (most := _most(time.monotonic() - began)):
        if len(chosen) >= MOST_CHOSEN:
            raise CorpusError("calls are too slow to be more than may be recorded")
        more = [_id(secrets.randbelow(int(SHARE * _LOWER_64))) for _ in range(SPREAD)]
        said |= (await _claimed(stand, e, more))[1]
        chosen += more
    asked["chosen"] = chosen, said, most
    found = await told(stand, e)
    recorded = _traces_in(found["sinks"][SPANS])
    return {
        **found,
        "claims": {
            name: Claimed(
                inside=frozenset(each for each in ids if _is_inside(each)),
                outside=frozenset(each for each in ids if not _is_inside(each)),
                recorded=recorded & frozenset(ids),
                told=frozenset(each for each in ids if said.get(each)),
                most=most,
            )
            for name, (ids, said, most) in asked.items()
        },
    }


async def verified(stand: Stand, e: Evidence) -> dict[str, Any]:
    """What operators are told who ask whether the file is as it was written."""
    assert isinstance(stand, TelemetryStand)
    found = await told(stand, e)
    written: bytes = found["sinks"][AUDIT]
    copy = stand.audit_file.with_suffix(".copy")
    # It is written on: what has no end yet says nothing.
    copy.write_bytes(written[: written.rfind(b"\n") + 1])
    process = await asyncio.create_subprocess_exec(
        *(*stand.around.argv, "audit", "verify", str(copy)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        env=environment(),
    )
    try:
        async with asyncio.timeout(_VERIFY_S):
            code = await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise CorpusError("`audit verify` does not end") from None
    return {**found, "verified": code}


async def _claimed(
    stand: TelemetryStand, e: Evidence, ids: Sequence[str]
) -> tuple[list[str], dict[str, bool], float]:
    """The request of the case in each of these traces, by turns as HTTP and as the message says it: the ids, what the
    server was told of each, and how many may be recorded."""
    upstream, sent = stand.around.upstream, e.sent_value("traceparent")
    if not sent.endswith(b"-01"):
        raise CorpusError("the case does not say that its trace is recorded")
    requests = []
    for number, id in enumerate(ids):
        context = f"00-{id}-{secrets.token_hex(7)}01-01"
        if number % 2:
            requests.append(e.sent.replace(sent, context.encode()))
        else:
            bearer = e.sent_value("authorization").decode()
            call = json.loads(e.sent_body)
            call["params"]["_meta"] = {"traceparent": context}
            requests.append(stand.request(call, {"Authorization": bearer}))
    upstream.begin(None, sends_discover=False)
    began = time.monotonic()
    await crowd_of([stand.sidecar.data_port], requests)
    took_s = time.monotonic() - began
    return list(ids), traces_of(upstream.take()[0]), _most(took_s)


def _most(took_s: float) -> float:
    """Those of a second may come at once."""
    return CLAIMS_PER_S * (took_s + 1) + 1


def _id(lower: int) -> str:
    return f"{secrets.token_hex(8)}{lower:016x}"


def _is_inside(id: str) -> bool:
    return int(id[16:], 16) < SHARE * _LOWER_64


def _traces_in(spans: bytes) -> frozenset[str]:
    """Of spans as OpenTelemetry's console exporter writes them: one JSON object a line, ids as 0x…"""
    whole = spans[: spans.rfind(b"\n") + 1].splitlines()
    return frozenset(json.loads(line)["context"]["trace_id"].removeprefix("0x") for line in whole)
