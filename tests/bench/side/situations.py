"""What is measured, in which order: peers, dress codes, situations, and the ratios between them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from tests.idp import AUDIENCE, Idp

from ..load import Wrong
from ..scenarios import holding_streams, starting
from ..wire import body_length
from . import peers, sessions
from .calls import ANSWERED, LEGACY, MODERN, Asked
from .contextforge import contextforge
from .offered import offered
from .peers import ROOT, Starts, program_on, python_program
from .report import AIMS, DIRECT
from .rounds import Bench, Measured, Plan, only, rounds, say, started
from .sidecars import KEPT, RULES, everything, guarded, setting, sidecar
from .streamer import EVENTS
from .wrk import LOAD_CORE

KB: Final = 1_024
MANY: Final = 32
FEW: Final = 8
"""Connections, where a call takes tens of milliseconds: 32 that begin together end together, after the run."""

NGINX: Final = "nginx proxy_pass"
ENVOY: Final = "Envoy, MCP filter + rule + local rate limit"
STATIC: Final = "bare aiohttp, static answer"
PASS: Final = "bare aiohttp, pass-through"
TRANSPARENT: Final = "mcp-sidecar, transparent"
GUARDED: Final = "mcp-sidecar, auth + policy + 3 limits + metrics"
EVERYTHING: Final = "mcp-sidecar, everything on"
HIT: Final = "mcp-sidecar, cache hit, policy on"
HIT_EVERYTHING: Final = "mcp-sidecar, cache hit, everything on"
AS_PYTHON: Final = ", not compiled"
"""Behind the name of a row whose sidecar is what the checkout holds, where the others are compiled."""
FASTMCP: Final = "FastMCP proxy"
FASTMCP_KEPT: Final = "FastMCP proxy, one session for all"
CHAIN: Final = "mcp-proxy chain"
CONTEXTFORGE: Final = "ContextForge, auth"

MAIN: Final = f"1 KB, {MANY} connections, {LEGACY}, unique arguments"
ALONE: Final = f"1 KB, 1 connection, {LEGACY}"
SESSIONS: Final = f"1 KB, {FEW} connections, a whole MCP server behind"
STREAMS: Final = f"streams of {EVENTS} events, {MANY} connections, {LEGACY}"
NGINX_STATIC: Final = "nginx, static answer"
NOT_QUICKLY: Final = frozenset({NGINX_STATIC, PASS, HIT_EVERYTHING, FASTMCP_KEPT, CHAIN, CONTEXTFORGE})
"""Whom a quick run leaves out."""
EC: Final = "ec"
"""The id of a key."""


class Known(Struct, frozen=True, kw_only=True):
    """Who calls, and the settings that believe it."""

    idp: Idp
    identity: tuple[str, ...]
    token: str
    exp: int
    """When tokens expire, in seconds since 1970."""
    place: Path = ROOT
    """Where the sidecar is."""

    @property
    def is_compiled(self) -> bool:
        return self.place != ROOT

    def as_python(self) -> Known:
        """The same before the sidecar that is not compiled."""
        return replace(self, place=ROOT)

    def of_tenant(self, number: int) -> str:
        tenant, user = f"tenant-{number}", f"user-{number}"
        return self.idp.token(kid=EC, alg="ES256", exp=self.exp, org_id=tenant, sub=user)

    def guarded(self) -> Starts:
        return sidecar(*guarded(self.identity), place=self.place, token=self.token)

    def transparent(self) -> Starts:
        return sidecar(place=self.place, refuses=False)

    def hit(self) -> Starts:
        return sidecar(setting("policy", KEPT), setting("cache", {}), place=self.place, unique=False)

    def everything(self, logs: Path, rules: object = None, audit: str = "audit") -> Starts:
        settings = everything(self.identity, logs, rules, audit)
        return sidecar(*settings, place=self.place, token=self.token)

    def kept(self, logs: Path) -> Starts:
        settings = everything(self.identity, logs, KEPT, "audit-kept")
        settings = [*settings, setting("cache", {})]
        return sidecar(*settings, place=self.place, token=self.token, unique=False)


async def measured(
    plan: Plan, logs: Path, names: Collection[str] | None = None, place: Path = ROOT
) -> Measured:
    """All of it, or only the named of SITUATIONS; `place` is where the sidecar is. Raises ProcessFailed and Wrong where
    something of ours fails; peers that cannot be had are left out."""
    bench = Bench(plan=plan, logs=logs)
    async with Idp() as idp:
        idp.publish(EC, alg="ES256")  # quickly signed: there are many tenants
        authenticator = {
            "kind": "jwt",
            "issuer": idp.issuer,
            "jwks_url": idp.jwks_url,
            "tenant_claim": "org_id",
        }
        exp = int(time.time()) + 7_200
        known = Known(
            idp=idp,
            identity=(f"identity.resource={AUDIENCE}", setting("identity.authenticators", [authenticator])),
            token=idp.token(exp=exp, org_id="acme"),
            exp=exp,
            place=place,
        )
        for name, situation in SITUATIONS.items():
            if names is None or name in names:
                say(name)
                await situation(bench, known)
    if names is None:
        await _of_the_house(bench, place)
    divide(bench.found)
    return bench.found


async def _of_the_house(bench: Bench, place: Path) -> None:
    say("start, memory, idle streams")
    size, logs = bench.plan.house, bench.logs
    for figure in (*await starting(size, logs, place), *await holding_streams(size, logs, place)):
        name = {"start to ready": "ready_s", "idle, resident": "idle_rss_mb"}.get(figure.name)
        if figure.name.endswith("streams, each"):
            name = "kb_per_idle_stream"
        if name is not None:
            bench.found.ratios[name] = figure.value


async def _beside(bench: Bench, known: Known) -> None:
    ways: dict[str, Starts] = {
        NGINX_STATIC: peers.nginx_static,
        NGINX: peers.nginx_proxy,
        ENVOY: peers.envoy,
        STATIC: python_program("side.static_server"),
        PASS: python_program("pass_through"),
        TRANSPARENT: known.transparent(),
        GUARDED: known.guarded(),
        EVERYTHING: known.everything(bench.logs),
        HIT: known.hit(),
        HIT_EVERYTHING: known.kept(bench.logs),
    }
    if known.is_compiled:
        python = known.as_python()
        ways[EVERYTHING + AS_PYTHON] = python.everything(bench.logs, audit="audit-as-python")
        ways[HIT + AS_PYTHON] = python.hit()
    async with started(bench, peers.server(bench.logs), _few(bench, ways)) as up:
        await rounds(bench, up, MAIN, MANY)
        modern = only(up, NGINX, ENVOY, TRANSPARENT, GUARDED, EVERYTHING, HIT)
        await rounds(bench, modern, f"1 KB, {MANY} connections, {MODERN}", MANY, revision=MODERN)
        some = only(up, DIRECT, NGINX, ENVOY, EVERYTHING)
        await rounds(bench, some, ALONE, 1)
        if not bench.plan.is_quick:
            await rounds(bench, some, f"1 KB, 256 connections, {LEGACY}", 256)
            same = f"1 KB, {MANY} connections, {LEGACY}, repeated arguments"
            await rounds(bench, some, same, MANY, unique=False)


def _few(bench: Bench, ways: Mapping[str, Starts]) -> dict[str, Starts]:
    return {name: start for name, start in ways.items() if not (bench.plan.is_quick and name in NOT_QUICKLY)}


async def _large(bench: Bench, known: Known) -> None:
    """Large calls and answers."""
    for size, name in () if bench.plan.is_quick else ((64 * KB, "64 KB"), (1_024 * KB, "1 MB")):
        ways: dict[str, Starts] = {
            NGINX: peers.nginx_proxy,
            TRANSPARENT: known.transparent(),
            EVERYTHING: known.everything(bench.logs),
        }
        async with started(bench, peers.server(bench.logs, size), ways) as up:
            situation = f"{name} each way, {MANY} connections, {LEGACY}"
            await rounds(bench, up, situation, MANY, seconds=bench.plan.slow_seconds, size=size)


async def _streams(bench: Bench, known: Known) -> None:
    """Answers that are streams: each event is one that was passed on by itself."""
    ways: dict[str, Starts] = {
        NGINX: peers.nginx_streams,
        ENVOY: peers.envoy,
        TRANSPARENT: known.transparent(),
        EVERYTHING: known.everything(bench.logs),
    }
    async with started(bench, program_on(LOAD_CORE, bench.logs, "side.streamer"), ways) as up:
        await rounds(bench, up, STREAMS, MANY, events=EVENTS)


async def _late(bench: Bench, known: Known) -> None:
    """How late answers are at loads that everybody can carry."""
    ways: dict[str, Starts] = {
        NGINX: peers.nginx_proxy,
        ENVOY: peers.envoy,
        EVERYTHING: known.everything(bench.logs),
    }
    async with started(bench, program_on(LOAD_CORE, bench.logs, "responder"), ways) as up:
        await offered(bench, up)


async def _in_sessions(bench: Bench, known: Known) -> None:
    """Peers that are MCP servers themselves, beside ours before the same server."""
    ways: dict[str, Starts] = {
        FASTMCP: sessions.fastmcp,
        FASTMCP_KEPT: sessions.fastmcp_kept,
        CHAIN: sessions.mcp_proxy,
        GUARDED: known.guarded(),
        EVERYTHING: known.everything(bench.logs),
        CONTEXTFORGE: contextforge,
    }
    server = program_on(LOAD_CORE, bench.logs, "side.speaker")
    async with started(bench, server, _few(bench, ways)) as up:
        await rounds(bench, up, SESSIONS, FEW, seconds=bench.plan.slow_seconds)


async def _grown(bench: Bench, known: Known) -> None:
    """Many tenants that have called, and many rules, beside one of each."""
    plan = bench.plan
    few = "mcp-sidecar, one tenant, three rules"
    many = f"mcp-sidecar, {plan.tenants:,} tenants, {plan.rules:,} rules"
    rules = {
        "tools": [{"match": f"tool_{n}_*", "allow": ["admin"]} for n in range(plan.rules)] + RULES["tools"]
    }
    ways = {
        few: known.everything(bench.logs),
        many: known.everything(bench.logs, rules, "audit-many"),
    }
    async with started(bench, peers.server(bench.logs), ways) as up:
        await _called_by(up[many].port, map(known.of_tenant, range(plan.tenants)))
        situation = "as many tenants as can be, and rules"
        await rounds(bench, only(up, few, many), situation, MANY)
    if (ratio := bench.found.over(many, few, situation)) is not None:
        bench.found.ratios["full_many_keys_vs_one"] = ratio


async def _called_by(port: int, tokens: Iterator[str]) -> None:
    """One call by each of these callers, 16 at a time. Raises Wrong."""

    async def caller() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for token in tokens:
            writer.write(Asked(token=token).request(port))
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(body_length(head))
            if not head.startswith(b"HTTP/1.1 200 ") or ANSWERED.encode() not in body:
                raise Wrong(f"a caller among many was answered {head[:40]!r} {body[:80]!r}")
        writer.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(16):
            group.create_task(caller())


def divide(found: Measured) -> None:
    """The ratios, in the order of the aims, and which are bounds only."""
    for name, ours, theirs, situation in (
        ("full_vs_envoy_mcp", EVERYTHING, ENVOY, MAIN),
        ("full_vs_nginx", EVERYTHING, NGINX, MAIN),
        ("hit_vs_aiohttp_static", HIT, STATIC, MAIN),
        ("full_vs_fastmcp", EVERYTHING, FASTMCP, SESSIONS),
    ):
        if (ratio := found.over(ours, theirs, situation)) is not None:
            found.ratios[name] = ratio
            if bound := found.bound(ours, theirs, situation):
                found.bounds[name] = bound
    direct, through = found.row(DIRECT, ALONE), found.row(EVERYTHING, ALONE)
    if direct is not None and through is not None:
        found.ratios["added_p50_ms"] = (through.p50_us - direct.p50_us) / 1e3
        found.ratios["added_p99_ms"] = (through.p99_us - direct.p99_us) / 1e3
    found.ratios = {name: found.ratios[name] for name in AIMS if name in found.ratios}


SITUATIONS: Final[Mapping[str, Callable[[Bench, Known], Awaitable[None]]]] = {
    "beside": _beside,
    "large": _large,
    "streams": _streams,
    "offered": _late,
    "sessions": _in_sessions,
    "grown": _grown,
}
