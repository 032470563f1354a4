"""The sidecar in its dress codes: how each is started, and with which settings."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from proxy.demo.ports import free_ports

from .calls import Asked
from .peers import ROOT, Starts, on_core, running
from .proving import must_refuse
from .wrk import PROXY_CORE, Peer

RULES: Final = {
    "tools": [
        {"match": "search_*", "allow": ["*"], "class": "read"},
        {"match": "delete_*", "allow": ["admin"], "class": "dangerous"},
        {"match": "*", "allow": ["*"]},
    ]
}
KEPT: Final = {"tools": [{**RULES["tools"][0], "cache": {"ttl_s": 3_600}}, *RULES["tools"][1:]]}
LIMITS: Final = [
    {"name": "tenant", "key": ["tenant"], "rate_per_s": 1_000_000, "burst": 1_000_000},
    {"name": "user", "key": ["tenant", "subject"], "rate_per_s": 1_000_000, "burst": 1_000_000},
    {"name": "tool", "key": ["tenant", "tool"], "rate_per_s": 1_000_000, "burst": 1_000_000},
]


def setting(name: str, value: object) -> str:
    """As `--set` takes it."""
    return f"{name}={msgspec.json.encode(value).decode()}"


def guarded(identity: Sequence[str], rules: object = None) -> list[str]:
    """Token, policy, three limits; metrics are always on."""
    return [*identity, setting("policy", rules or RULES), setting("limits", LIMITS)]


def everything(
    identity: Sequence[str], logs: Path, rules: object = None, audit_name: str = "audit"
) -> list[str]:
    """The same with a trace that is sampled out and an audit line of each call."""
    audit = {
        "file": str(logs / f"{audit_name}.jsonl"),
        "mode": "batch",
        "classes": ["read", "write", "dangerous"],
    }
    telemetry = {"audit": audit, "traces": {"exporter": "none", "sample": 0}}
    return [*guarded(identity, rules), setting("telemetry", telemetry)]


def sidecar(
    *settings: str, place: Path = ROOT, refuses: bool = True, token: str = "", unique: bool = True
) -> Starts:
    """The sidecar in that folder with these settings; its log lines go to a file, as in a pod. `token` is what it wants
    to see."""

    @asynccontextmanager
    async def start(upstream: int, logs: Path) -> AsyncIterator[Peer]:
        port, operations = free_ports(2)
        command = on_core(
            PROXY_CORE,
            *(sys.executable, "-m", "proxy", "run", "--upstream", f"http://127.0.0.1:{upstream}/mcp"),
            *("--listen", f"127.0.0.1:{port}"),
            *("--set", f"operations.address=127.0.0.1:{operations}", "--set", "drain_s=1"),
            *(word for each in settings for word in ("--set", each)),
        )
        asked = Asked(token=token, unique=unique)
        async with running(command, port, logs / "sidecar.log", operations=operations, cwd=place) as peer:
            if refuses:
                await must_refuse(port, asked)
            yield msgspec.structs.replace(peer, says_no_with_200=True, asked=asked)

    return start
