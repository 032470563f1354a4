"""The two servers of a run: the everything server, and the sidecar in front of it. Both on 127.0.0.1."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from proxy.demo.ports import free_ports

from .processes import ProcessFailed, child, tail

START_TIMEOUT_S = 20
POLL_S = 0.05

SidecarCommand = Callable[[str, int, int], list[str]]
"""(upstream URL, data port, operations port) -> the command that starts what is to be compared."""


@dataclass(frozen=True)
class Stand:
    """Where the same server answers without the sidecar, and with it."""

    direct: str
    proxied: str


def sidecar_command(upstream: str, port: int, operations_port: int) -> list[str]:
    """The sidecar as a user starts it who has no configuration yet."""
    return [
        *(sys.executable, "-m", "proxy", "run"),
        *("--upstream", upstream),
        *("--listen", f"127.0.0.1:{port}"),
        *("--set", f"operations.address=127.0.0.1:{operations_port}"),
    ]


@asynccontextmanager
async def stand(logs: Path, command: SidecarCommand = sidecar_command) -> AsyncIterator[Stand]:
    """Start both servers, wait until they are ready, and end them with the block. Logs go to ``logs``.

    Raises:
        ProcessFailed: one of them did not get ready; the text shows what it printed.
    """
    async with everything(logs) as direct, sidecar(direct, logs, command) as proxied:
        yield Stand(direct, proxied)


@asynccontextmanager
async def everything(logs: Path, *options: str) -> AsyncIterator[str]:
    """Run the everything server and give its URL; ``options`` are its own, such as ``--sse``."""
    log = logs / "everything.log"
    command = [sys.executable, "-m", "tests.servers.everything", "--port", "0", *options]
    async with child(command, log=log, piped=True) as process:
        assert process.stdout is not None
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                line = (await process.stdout.readline()).decode()
        except TimeoutError:
            line = ""
        if not line.startswith("ready "):
            raise ProcessFailed(f"the everything server did not get ready:\n{tail(log)}")
        yield line.removeprefix("ready ").strip()


@asynccontextmanager
async def sidecar(upstream: str, logs: Path, command: SidecarCommand) -> AsyncIterator[str]:
    """Run the sidecar in front of ``upstream`` and give the URL that clients use."""
    log = logs / "sidecar.log"
    port, operations_port = free_ports(2)
    # A developer's own settings must not take part in the comparison.
    env = {name: value for name, value in os.environ.items() if not name.startswith("MCP_SIDECAR_")}
    async with child(command(upstream, port, operations_port), log=log, env=env) as process:
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await _ready(f"http://127.0.0.1:{operations_port}/readyz", process)
        except (TimeoutError, ProcessFailed):
            raise ProcessFailed(f"the sidecar did not get ready:\n{tail(log)}") from None
        yield f"http://127.0.0.1:{port}/mcp"


async def _ready(url: str, process: Process) -> None:
    """Return when ``url`` answers 200. Asked again and again: a process that starts gives no other sign."""
    async with aiohttp.ClientSession() as session:
        while process.returncode is None:
            try:
                async with session.get(url) as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(POLL_S)
    raise ProcessFailed(f"ended with {process.returncode}")
