"""Peers that are whole MCP servers of their own: FastMCP's proxy, a chain of mcp-proxy (HTTP, stdio, HTTP).

They hold sessions with the server, so the server behind them is `speaker`, which knows every method.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from proxy.demo.environment import python_environment
from proxy.demo.ports import free_ports
from tests.tools.python_env import TOOLS

from .peers import ROOT, on_core, python_program, running
from .wrk import PROXY_CORE, Peer

LOCK: Final = ROOT / "proxy" / "demo" / "requirements.lock"

fastmcp = python_program("side.fastmcp_proxy", says_no_with_200=True)
fastmcp_kept = python_program("side.fastmcp_proxy", "--one-session", says_no_with_200=True)


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
        yield Peer(port=port, pids=(first, *behind), says_no_with_200=True)
