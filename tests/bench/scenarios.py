"""What is measured, step by step. In: how much of it. Out: figures. Each scenario starts its own processes.

Rounds alternate between the things compared, so that whatever else the machine does falls on all of them; the
figure is the median of the rounds.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from tests.conformance.processes import ProcessFailed, child, tail
from tests.idp import AUDIENCE, Idp

from . import load
from .messages import REVISIONS
from .processes import Running, holding, program, rss_bytes, sidecar
from .report import Figure

KB: Final = 1024
MB: Final = 1024 * 1024
SETTLED_S: Final = 5.0
"""How long memory must stand still before it counts: longer than idle connections to the server are kept."""
SETTLED_WITHIN: Final = 0.002
"""Of the whole: noise, not growth."""
SETTLE_LIMIT_S: Final = 30.0
WARM_UP_S: Final = 1.0
MEANWHILE: Final = 200
"""Calls made before the crowd comes, and again while it is held."""
MANY: Final = 32
DIRECT: Final = "direct"
BARE: Final = "bare aiohttp"
SIDECAR: Final = "sidecar"

Runs: TypeAlias = dict[tuple[str, int, str], list[load.Outcome]]
"""By way, number of connections and revision."""


class Size(Struct, frozen=True, kw_only=True):
    """How much is measured."""

    starts: int
    streams: int
    connections: int
    rounds: int
    seconds: float
    """Of one run of calls."""


FULL: Final = Size(starts=5, streams=1_000, connections=5_000, rounds=5, seconds=3.0)
QUICK: Final = Size(starts=2, streams=200, connections=1_000, rounds=1, seconds=1.0)


async def starting(size: Size, logs: Path, place: Path | None = None) -> list[Figure]:
    """How long until it is ready, and what it weighs then. `place` is where proxy/ is, if not here."""
    ready: list[float] = []
    resident: list[float] = []
    async with program("responder", logs=logs) as upstream:
        for _ in range(size.starts):
            async with sidecar(upstream.port, logs, place=place) as one:
                ready.append(one.ready_s)
                resident.append(await _settled(one.pid) / MB)
    return [
        _median("start to ready", ready, "s", at_most=0.6),
        _median("idle, resident", resident, "MB", at_most=64),
    ]


async def holding_streams(size: Size, logs: Path, place: Path | None = None) -> list[Figure]:
    """What an open stream that says nothing weighs: two connections and all that remembers them."""
    return await _held("streams", "stream", size.streams, 20, logs, place=place)


async def holding_connections(size: Size, logs: Path) -> list[Figure]:
    """What a client weighs that called once and keeps its connection."""
    return await _held("connections", "connection", size.connections, 12, logs)


async def identifying(size: Size, logs: Path) -> list[Figure]:
    """What it costs to know who calls: a token that is known already, beside nobody in particular."""
    modern = REVISIONS[-1]
    async with program("responder", logs=logs) as upstream, _provider() as (token, settings):
        anonymous: list[load.Outcome] = []
        known: list[load.Outcome] = []
        async with (
            sidecar(upstream.port, logs) as nobody,
            sidecar(upstream.port, logs, *settings) as somebody,
        ):
            resident = await _settled(somebody.pid) / MB
            for _ in range(size.rounds):
                anonymous.append(await _run(nobody, MANY, size.seconds, modern, logs))
                known.append(await _run(somebody, MANY, size.seconds, modern, logs, token))
        streams = await _held("streams", "stream", size.streams, 20, logs, token, settings)
    added = [after - before for after, before in zip(_cpu(known), _cpu(anonymous), strict=True)]
    return [
        _median(f"token known, at {MANY} connections, {modern}", _rates(known), "calls/s"),
        _median("token known over anonymous, CPU per call", added, "us"),
        Figure(name="with a jwt authenticator, idle, resident", value=resident, unit="MB", at_most=64),
        *streams,
    ]


@asynccontextmanager
async def _provider() -> AsyncIterator[tuple[str, tuple[str, ...]]]:
    """An identity provider of this process: a token of its, and the settings that believe it."""
    async with Idp() as idp:
        authenticator = {"kind": "jwt", "issuer": idp.issuer, "jwks_url": idp.jwks_url}
        authenticators = msgspec.json.encode([authenticator]).decode()
        named = ("identity.resource=" + AUDIENCE, "identity.authenticators=" + authenticators)
        yield idp.token(exp=int(time.time()) + 7_200), named


async def _held(
    kind: str,
    one: str,
    count: int,
    at_most_kb: float,
    logs: Path,
    token: str = "",
    settings: tuple[str, ...] = (),
    place: Path | None = None,
) -> list[Figure]:
    legacy = REVISIONS[0]
    async with (
        program("responder", logs=logs) as upstream,
        sidecar(upstream.port, logs, *settings, place=place) as proxy,
    ):
        # What the first calls leave behind is not the crowd's.
        await _run(proxy, MANY, WARM_UP_S, legacy, logs, token)
        alone = await load.answer_times(proxy.port, count=MEANWHILE, revision=legacy, token=token)
        before = await _settled(proxy.pid)
        async with holding(proxy.port, kind, count, logs, token):
            held = await _settled(proxy.pid)
            meanwhile = await load.answer_times(proxy.port, count=MEANWHILE, revision=legacy, token=token)
        left = await _settled(proxy.pid)
    name = f"{count:,} idle {kind}{' of a known caller' if token else ''}"
    return [
        Figure(name=f"{name}, each", value=(held - before) / count / KB, unit="KB", at_most=at_most_kb),
        Figure(name=f"{name}, resident", value=held / MB, unit="MB"),
        Figure(name=f"{name}, a call before, p50", value=statistics.median(alone) * 1e3, unit="ms"),
        Figure(name=f"{name}, a call meanwhile, p50", value=statistics.median(meanwhile) * 1e3, unit="ms"),
        Figure(name=f"{name}, resident when they left", value=left / MB, unit="MB"),
    ]


async def calling(size: Size, logs: Path) -> list[Figure]:
    """What a call costs: direct, through a bare aiohttp, through the sidecar."""
    runs: Runs = {}
    legacy, modern = REVISIONS
    async with (
        program("responder", logs=logs) as upstream,
        program("pass_through", str(upstream.port), logs=logs) as bare,
        sidecar(upstream.port, logs) as proxy,
    ):
        ways = {DIRECT: upstream, BARE: bare, SIDECAR: proxy}
        for _ in range(size.rounds):
            for connections in (1, MANY):
                for way, running in ways.items():
                    outcome = await _run(running, connections, size.seconds, legacy, logs)
                    runs.setdefault((way, connections, legacy), []).append(outcome)
            outcome = await _run(proxy, MANY, size.seconds, modern, logs)
            runs.setdefault((SIDECAR, MANY, modern), []).append(outcome)
    return _call_figures(runs)


def _call_figures(runs: Runs) -> list[Figure]:
    legacy, modern = REVISIONS
    figures = []
    for connections in (1, MANY):
        at = f"at {connections} connection{'s' if connections > 1 else ''}"
        for way in (DIRECT, BARE, SIDECAR):
            outcomes = runs[way, connections, legacy]
            figures.append(_median(f"{way}, {at}", _rates(outcomes), "calls/s"))
            if way != DIRECT:
                figures.append(_median(f"{way}, {at}, CPU per call", _cpu(outcomes), "us"))
        ratio = [
            ours / bare
            for ours, bare in zip(
                _cpu(runs[SIDECAR, connections, legacy]), _cpu(runs[BARE, connections, legacy]), strict=True
            )
        ]
        figures.append(_median(f"sidecar over bare aiohttp, {at}, CPU", ratio, "times"))
    in_modern = runs[SIDECAR, MANY, modern]
    figures.append(_median(f"sidecar, at {MANY} connections, {modern}", _rates(in_modern), "calls/s"))
    figures.append(_median(f"sidecar, at {MANY} connections, {modern}, CPU per call", _cpu(in_modern), "us"))
    direct, ours = runs[DIRECT, 1, legacy], runs[SIDECAR, 1, legacy]
    p50 = [(a.p50_us - b.p50_us) / 1e3 for a, b in zip(ours, direct, strict=True)]
    p99 = [(a.p99_us - b.p99_us) / 1e3 for a, b in zip(ours, direct, strict=True)]
    figures.append(_median("added at 1 connection, p50", p50, "ms", at_most=0.25))
    figures.append(_median("added at 1 connection, p99", p99, "ms", at_most=1))
    return figures


def _rates(outcomes: Sequence[load.Outcome]) -> list[float]:
    return [each.calls / each.seconds for each in outcomes]


def _cpu(outcomes: Sequence[load.Outcome]) -> list[float]:
    return [each.cpu_us_per_call for each in outcomes]


def _median(name: str, runs: Sequence[float], unit: str, *, at_most: float | None = None) -> Figure:
    return Figure(name=name, value=statistics.median(runs), unit=unit, at_most=at_most, runs=tuple(runs))


async def _run(
    running: Running, connections: int, seconds: float, revision: str, logs: Path, token: str = ""
) -> load.Outcome:
    """One run of calls, by a process of its own. Raises ProcessFailed when a call was not answered rightly."""
    log = logs / "load.log"
    words = ("--port", running.port, "--connections", connections, "--seconds", seconds)
    watched = ("--revision", revision, "--watch", running.pid, "--token", token)
    command = [sys.executable, "-m", "tests.bench.load", *map(str, (*words, *watched))]
    async with child(command, log=log, piped=True) as process:
        assert process.stdout is not None
        try:
            async with asyncio.timeout(load.WARM_UP_S + seconds + load.ANSWER_TIMEOUT_S):
                line = await process.stdout.readline()
        except TimeoutError:
            line = b""
    if not line:
        raise ProcessFailed(f"a run of calls failed:\n{tail(log)}")
    return msgspec.json.decode(line, type=load.Outcome)


async def _settled(pid: int) -> int:
    """Resident bytes of a process, when they have stood still for a while."""
    smallest = largest = rss_bytes(pid)
    since = started = time.monotonic()
    while time.monotonic() - since < SETTLED_S and time.monotonic() - started < SETTLE_LIMIT_S:
        await asyncio.sleep(0.25)
        now = rss_bytes(pid)
        smallest, largest = min(smallest, now), max(largest, now)
        if largest - smallest > SETTLED_WITHIN * largest:
            smallest = largest = now
            since = time.monotonic()
    return rss_bytes(pid)
