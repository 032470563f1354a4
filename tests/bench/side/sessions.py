"""Peers that are whole MCP servers of their own: FastMCP's proxy, a chain of mcp-proxy (HTTP, stdio, HTTP).

They hold sessions with the server, so the server behind them is `speaker`, which knows every method.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from proxy.demo.environment import python_environment
from proxy.demo.ports import free_ports
from tests.conformance.processes import ProcessFailed, child, tail
from tests.tools.python_env import TOOLS

from .peers import ROOT, Peer, on_core, python_program, running
from .wrk import LOAD_CORE, PROXY_CORE

LOCK: Final = ROOT / "proxy" / "demo" / "requirements.lock"

fastmcp = python_program("side.fastmcp_proxy")


@asynccontextmanager
async def speaker(logs: Path) -> AsyncIterator[Peer]:
    """The server behind."""
    log = logs / "speaker.log"
    command = on_core(LOAD_CORE, sys.executable, "-m", "tests.bench.side.speaker")
    async with child(command, log=log, piped=True, cwd=ROOT) as process:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        if not line.startswith("ready "):
            raise ProcessFailed(f"the speaker did not get ready:\n{tail(log)}")
        yield Peer(port=int(line.split()[1]), pids=(process.pid,))


@asynccontextmanager
async def mcp_proxy(upstream: int, logs: Path) -> AsyncIterator[Peer]:
    """An mcp-proxy that serves HTTP, and behind it one that speaks to the server."""
    (port,) = free_ports(1)
    program = python_environment(TOOLS, LOCK).with_name("mcp-proxy")
    command = on_core(
        PROXY_CORE,
        *(program, "--host", "127.0.0.1", "--port", str(port), "--stateless", program, "--"),
        *("--transport", "streamablehttp", f"http://127.0.0.1:{upstream}/mcp"),
    )
    async with running(command, port, logs / "mcp-proxy.log") as peer:
        (first,) = peer.pids
        behind = [int(pid) for pid in Path(f"/proc/{first}/task/{first}/children").read_text("ascii").split()]
        yield Peer(port=port, pids=(first, *behind), ready_s=peer.ready_s)
