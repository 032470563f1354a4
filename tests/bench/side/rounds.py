"""The order of what is measured. Rounds alternate between the peers, so that whatever else the machine does falls on
all of them; each number is the median of its rounds.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from msgspec import Struct, field

from proxy.demo.environment import SetUpFailed
from tests.conformance.processes import ProcessFailed
from tests.idp import AUDIENCE, Idp

from ..load import Wrong
from ..messages import REVISIONS, Calls
from ..processes import cpu_s
from ..scenarios import FULL as FULL_SIZE
from ..scenarios import QUICK as QUICK_SIZE
from ..scenarios import Size, holding_streams, starting
from ..wire import body_length
from . import peers, sessions
from .peers import KEPT, LIMITS, RULES, Peer, Starts, python_program, setting, sidecar
from .report import AIMS, DIRECT, Row, row
from .wrk import LEGACY, MODERN, Asked, Outcome, load

KB: Final = 1_024
MANY: Final = 32


class Plan(Struct, frozen=True, kw_only=True):
    """How much is measured."""

    is_quick: bool
    rounds: int
    seconds: int
    """Of one run; wrk takes whole ones."""
    tenants: int
    rules: int
    singles: int
    """Calls one after the other, for added latency."""
    house: Size


FULL: Final = Plan(
    is_quick=False, rounds=3, seconds=3, tenants=100_000, rules=1_000, singles=3_000, house=FULL_SIZE
)
QUICK: Final = Plan(
    is_quick=True, rounds=1, seconds=1, tenants=5_000, rules=1_000, singles=500, house=QUICK_SIZE
)


class Measured(Struct, kw_only=True):
    rows: list[Row] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def row(self, peer: str, situation: str) -> Row | None:
        return next((each for each in self.rows if (each.peer, each.situation) == (peer, situation)), None)

    def over(self, ours: str, theirs: str, situation: str) -> float | None:
        """How many times the rate of the one is that of the other."""
        a, b = self.row(ours, situation), self.row(theirs, situation)
        return a.rate / b.rate if a is not None and b is not None and b.rate else None


NGINX: Final = "nginx proxy_pass"
ENVOY: Final = "Envoy, MCP filter + rule + local rate limit"
STATIC: Final = "bare aiohttp, static answer"
PASS: Final = "bare aiohttp, pass-through"
TRANSPARENT: Final = "mcp-sidecar, transparent"
GUARDED: Final = "mcp-sidecar, policy + 3 limits + metrics"
EVERYTHING: Final = "mcp-sidecar, everything on"
HIT: Final = "mcp-sidecar, cache hit, policy on"
FASTMCP: Final = "FastMCP proxy"
CHAIN: Final = "mcp-proxy chain"

ALONE: Final = f"1 KB, 1 connection, {LEGACY}"
SESSIONS: Final = "1 KB, 32 connections, a whole MCP server behind"
REST_S: Final = 0.2
RESTS_AT: Final = 0.2
"""Of a core: probes and timers go on."""
REST_LOOKS: Final = 50
EC: Final = "ec"
"""The id of a key."""
MAIN: Final = "1 KB, 32 connections, 2025-11-25, unique arguments"


def everything(
    identity: Sequence[str], logs: Path, rules: object = None, audit_name: str = "audit"
) -> list[str]:
    """The dress code with everything on: token, policy, three limits, metrics, a trace that is sampled out, a line and
    an audit line of each call."""
    audit = {
        "file": str(logs / f"{audit_name}.jsonl"),
        "mode": "batch",
        "classes": ["read", "write", "dangerous"],
    }
    telemetry = {"audit": audit, "traces": {"exporter": "none", "sample": 0}}
    return [
        *identity,
        setting("policy", rules or RULES),
        setting("limits", LIMITS),
        setting("telemetry", telemetry),
    ]


async def measured(plan: Plan, logs: Path) -> Measured:
    """All of it. Raises ProcessFailed where something of ours fails; peers that cannot be had are left out."""
    found = Measured()
    async with Idp() as idp:
        idp.publish(EC, alg="ES256")  # quickly signed: there are many tenants
        authenticator = {
            "kind": "jwt",
            "issuer": idp.issuer,
            "jwks_url": idp.jwks_url,
            "tenant_claim": "org_id",
        }
        identity = (f"identity.resource={AUDIENCE}", setting("identity.authenticators", [authenticator]))
        token = idp.token(exp=int(time.time()) + 7_200, org_id="acme")
        say("side by side")
        await _beside(plan, logs, found, identity, token)
        say("peers that hold sessions")
        await _in_sessions(plan, logs, found)
        say(f"{plan.tenants:,} tenants, {plan.rules:,} rules")
        await _grown(plan, logs, found, identity, idp)
    say("start, memory, streams")
    for figure in (*await starting(plan.house, logs), *await holding_streams(plan.house, logs)):
        name = {"start to ready": "ready_s", "idle, resident": "idle_rss_mb"}.get(figure.name)
        if figure.name.endswith("streams, each"):
            name = "kb_per_idle_stream"
        if name is not None:
            found.ratios[name] = figure.value
    divide(found)
    return found


async def _beside(plan: Plan, logs: Path, found: Measured, identity: Sequence[str], token: str) -> None:
    ways: dict[str, Starts] = {
        "nginx, static answer": peers.nginx_static,
        NGINX: peers.nginx_proxy,
        ENVOY: peers.envoy,
        STATIC: python_program("side.static_server"),
        PASS: python_program("pass_through"),
        TRANSPARENT: sidecar(refuses=False),
        GUARDED: sidecar(setting("policy", RULES), setting("limits", LIMITS)),
        EVERYTHING: sidecar(*everything(identity, logs), token=token),
        HIT: sidecar(setting("policy", KEPT), setting("cache", {})),
    }
    async with _started(ways, logs, found) as up:
        unique = {name: Asked(token=token if name == EVERYTHING else "", unique=name != HIT) for name in up}
        await _rounds(plan, logs, found, up, unique, MAIN, MANY)
        modern = {NGINX, ENVOY, TRANSPARENT, GUARDED, EVERYTHING, HIT} & up.keys()
        asked = {
            name: Asked(token=unique[name].token, unique=unique[name].unique, revision=MODERN)
            for name in modern
        }
        await _rounds(plan, logs, found, _only(up, modern), asked, f"1 KB, 32 connections, {MODERN}", MANY)
        some = {DIRECT, NGINX, ENVOY, EVERYTHING} & up.keys()
        await _rounds(plan, logs, found, _only(up, some), unique, ALONE, 1)
        if not plan.is_quick:
            repeated = {name: Asked(token=unique[name].token, unique=False) for name in some}
            await _rounds(plan, logs, found, _only(up, some), unique, f"1 KB, 256 connections, {LEGACY}", 256)
            same = f"1 KB, 32 connections, {LEGACY}, repeated arguments"
            await _rounds(plan, logs, found, _only(up, some), repeated, same, MANY)
    if not plan.is_quick:
        for size, name in ((64 * KB, "64 KB"), (1_024 * KB, "1 MB")):
            await _large(plan, logs, found, identity, token, size, name)


async def _large(
    plan: Plan, logs: Path, found: Measured, identity: Sequence[str], token: str, size: int, name: str
) -> None:
    """Large calls and answers."""
    ways: dict[str, Starts] = {
        NGINX: peers.nginx_proxy,
        TRANSPARENT: sidecar(refuses=False),
        EVERYTHING: sidecar(*everything(identity, logs), token=token),
    }
    async with _started(ways, logs, found, size) as up:
        asked = {each: Asked(token=token if each == EVERYTHING else "", size=size) for each in up}
        await _rounds(plan, logs, found, up, asked, f"{name} each way, 32 connections, {LEGACY}", MANY)


async def _in_sessions(plan: Plan, logs: Path, found: Measured) -> None:
    """Peers that are MCP servers themselves, beside ours before the same server."""
    async with AsyncExitStack() as stack:
        behind = await stack.enter_async_context(sessions.speaker(logs))
        ways: dict[str, Starts] = {
            FASTMCP: sessions.fastmcp,
            CHAIN: sessions.mcp_proxy,
            GUARDED: sidecar(setting("policy", RULES), setting("limits", LIMITS)),
        }
        up = await _entered(stack, ways, behind.port, logs, found)
        await _rounds(plan, logs, found, up, dict.fromkeys(up, Asked()), SESSIONS, MANY)


async def _grown(plan: Plan, logs: Path, found: Measured, identity: Sequence[str], idp: Idp) -> None:
    """Many tenants that have called, and many rules, beside one of each."""
    few, many = (
        "mcp-sidecar, one tenant, three rules",
        f"mcp-sidecar, {plan.tenants:,} tenants, {plan.rules:,} rules",
    )
    rules = {
        "tools": [{"match": f"tool_{n}_*", "allow": ["admin"]} for n in range(plan.rules)] + RULES["tools"]
    }
    situation = "as many tenants as can be, and rules"
    exp = int(time.time()) + 7_200
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(peers.server(logs))
        own = idp.token(exp=exp, org_id="acme")
        ways = {
            few: sidecar(*everything(identity, logs), token=own),
            many: sidecar(*everything(identity, logs, rules, "audit-many"), token=own),
        }
        up = await _entered(stack, ways, upstream.port, logs, found)
        tokens = (_of_tenant(idp, exp, n) for n in range(plan.tenants))
        await _called_by(up[many].port, tokens)
        asked = {name: Asked(token=own) for name in up}
        await _rounds(plan, logs, found, up, asked, situation, MANY)
    if (ratio := found.over(many, few, situation)) is not None:
        found.ratios["full_many_keys_vs_one"] = ratio


def _of_tenant(idp: Idp, exp: int, number: int) -> str:
    return idp.token(kid=EC, alg="ES256", exp=exp, org_id=f"tenant-{number}", sub=f"user-{number}")


async def _called_by(port: int, tokens: Iterable[str]) -> None:
    """One call by each of these callers, 16 at a time. Raises Wrong."""
    queue = iter(tokens)

    async def caller() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for token, number in zip(queue, itertools.count(1_000_000)):
            writer.write(Calls(REVISIONS[0], port, token).request(b"%d" % number))
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200 "):
                raise Wrong(f"a caller among many was answered {head[:40]!r}")
            await reader.readexactly(body_length(head))
        writer.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(16):
            group.create_task(caller())


@asynccontextmanager
async def _started(
    ways: Mapping[str, Starts], logs: Path, found: Measured, size: int = KB
) -> AsyncIterator[dict[str, Peer]]:
    """The server, and every peer that can be had before it."""
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(peers.server(logs, size))
        up = {DIRECT: upstream}
        up |= await _entered(stack, ways, upstream.port, logs, found)
        yield up


async def _entered(
    stack: AsyncExitStack, ways: Mapping[str, Starts], upstream: int, logs: Path, found: Measured
) -> dict[str, Peer]:
    up = {}
    for name, start in ways.items():
        try:
            up[name] = await stack.enter_async_context(start(upstream, logs))
        except (SetUpFailed, ProcessFailed, OSError) as failed:
            if name.startswith("mcp-sidecar"):
                raise
            found.left_out.append(f"{name}: {failed}")
    return up


async def _rounds(
    plan: Plan,
    logs: Path,
    found: Measured,
    up: Mapping[str, Peer],
    asked: Mapping[str, Asked],
    situation: str,
    connections: int,
) -> None:
    say(f"  {situation}")
    runs: dict[str, list[Outcome]] = {name: [] for name in up}
    for _ in range(plan.rounds):
        for name, peer in up.items():
            await _at_rest(up.values())
            outcome = await load(
                peer.port,
                asked[name],
                connections=connections,
                seconds=plan.seconds,
                pids=peer.pids,
                logs=logs,
            )
            if name.startswith("mcp-sidecar") and outcome.failed:
                raise ProcessFailed(f"{name}: {outcome.failed} calls were not answered with 200")
            runs[name].append(outcome)
    found.rows += [row(name, situation, each) for name, each in runs.items()]


async def _at_rest(up: Iterable[Peer]) -> None:
    """Wait until nobody works off what the last run left behind, for a while."""
    pids = [pid for peer in up for pid in peer.pids]
    for _ in range(REST_LOOKS):
        before = sum(map(cpu_s, pids))
        await asyncio.sleep(REST_S)
        if sum(map(cpu_s, pids)) - before <= RESTS_AT * REST_S:
            break


def _only(up: Mapping[str, Peer], names: Iterable[str]) -> dict[str, Peer]:
    return {name: peer for name, peer in up.items() if name in names}


def divide(found: Measured) -> None:
    """The ratios, in the order of the aims."""
    for name, ours, theirs, situation in (
        ("full_vs_envoy_mcp", EVERYTHING, ENVOY, MAIN),
        ("full_vs_nginx", EVERYTHING, NGINX, MAIN),
        ("hit_vs_aiohttp_static", HIT, STATIC, MAIN),
        ("full_vs_fastmcp", GUARDED, FASTMCP, SESSIONS),
    ):
        if (ratio := found.over(ours, theirs, situation)) is not None:
            found.ratios[name] = ratio
    direct, through = found.row(DIRECT, ALONE), found.row(EVERYTHING, ALONE)
    if direct is not None and through is not None:
        found.ratios["added_p50_ms"] = (through.p50_us - direct.p50_us) / 1e3
        found.ratios["added_p99_ms"] = (through.p99_us - direct.p99_us) / 1e3
    found.ratios = {name: found.ratios[name] for name in AIMS if name in found.ratios}


def say(what: str) -> None:
    print(f"measuring {what} ...", file=sys.stderr, flush=True)
