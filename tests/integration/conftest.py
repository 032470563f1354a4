"""One scripted server, and sidecars before it, on the loop that runs in production."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import uvloop
from opentelemetry.sdk.trace.export import SpanExporter

from proxy.lifecycle.guards import Guards, Life
from tests.integration.client import Client, connected
from tests.integration.house import Sidecar, never, sidecar
from tests.integration.upstream import Upstream
from tests.integration.waiting import LONGEST_S

OpenSidecar = Callable[..., Awaitable[Sidecar]]
Connect = Callable[..., Awaitable[Client]]


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """uvloop, as `mcp-sidecar run` uses it: half-closed peers and aborts are its business."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(params=["lean", "aiohttp"])
def each_transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which of the two sidecars of this process reach their servers by: tests that use this run on both. All others
    run on the one that is chosen by itself here, where everything is installed: the lean one."""
    if request.param == "aiohttp":
        monkeypatch.setitem(
            sys.modules, "httptools", None
        )  # importing it fails, as where it is not installed
    return str(request.param)


@pytest.fixture
async def _closing() -> AsyncIterator[AsyncExitStack]:
    """Closes clients first, then sidecars, and finds every task that was left behind."""
    before = asyncio.all_tasks()
    async with AsyncExitStack() as stack:
        yield stack
    deadline = asyncio.get_running_loop().time() + LONGEST_S
    while left := asyncio.all_tasks() - before - {asyncio.current_task()}:
        assert asyncio.get_running_loop().time() < deadline, f"tasks left behind: {left}"
        await asyncio.sleep(0)


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    server = Upstream()
    await server.open()
    yield server
    await server.close()


@pytest.fixture
def open_sidecar(_closing: AsyncExitStack, upstream: Upstream) -> OpenSidecar:
    """Opens a sidecar before `upstream`; words are settings as `--set` takes them, `file` is a settings file that
    may change."""

    async def opened(
        *overrides: str,
        url: str | None = None,
        drain_s: float = 1.0,
        file: Path | None = None,
        sleep: Callable[[float], Awaitable[object]] = never,
        guards: Callable[[Life], Guards] | None = None,
        exporter: SpanExporter | None = None,
    ) -> Sidecar:
        return await _closing.enter_async_context(
            sidecar(
                url or upstream.url,
                *overrides,
                drain_s=drain_s,
                file=file,
                sleep=sleep,
                guards=guards,
                exporter=exporter,
            )
        )

    return opened


@pytest.fixture
async def side(open_sidecar: OpenSidecar) -> Sidecar:
    """A sidecar with nothing but its server configured."""
    return await open_sidecar()


@pytest.fixture
def connect(_closing: AsyncExitStack) -> Connect:
    """Opens connections that are closed at the end."""

    async def opened(port: int, *, receive_bytes: int | None = None) -> Client:
        return await _closing.enter_async_context(connected(port, receive_bytes=receive_bytes))

    return opened


@pytest.fixture
async def client(side: Sidecar, connect: Connect) -> Client:
    """A connection to `side`."""
    return await connect(side.port)
