"""Each transport alone, before the scripted server, on both event loops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop

from proxy.upstream.transport import Answer, Transport
from proxy.upstream.transport_aiohttp import AiohttpTransport
from proxy.upstream.transport_lean import LeanTransport
from tests.integration.upstream import Exchange, Upstream
from tests.integration.waiting import within

CONNECT_S = 5.0
HOST = b"server.test"

Make = Callable[..., Transport]


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """How bytes are parsed is the same on both; sockets are not."""
    production = {"uvloop": uvloop.new_event_loop}
    return production if "test_answers" in item.nodeid else {**production, "asyncio": asyncio.new_event_loop}


@pytest.fixture(params=[AiohttpTransport, LeanTransport], ids=["aiohttp", "lean"])
def make(request: pytest.FixtureRequest) -> Make:
    """The transport under test."""
    chosen: Make = request.param
    return chosen


@pytest.fixture(params=["a port", "a file"])
async def upstream(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Upstream]:
    """The scripted server, where transports find it."""
    server = Upstream(tmp_path / "server.sock" if request.param == "a file" else None)
    await server.open()
    yield server
    await server.close()


@pytest.fixture
async def open_transport(upstream: Upstream) -> AsyncIterator[Callable[..., Transport]]:
    """Makes transports to `upstream` that are closed at the end."""
    opened: list[Transport] = []

    def made(make: Make, url: str | None = None, **params: Any) -> Transport:
        transport = make(url or upstream.url, connect_timeout_s=CONNECT_S, **params)
        opened.append(transport)
        return transport

    yield made
    for each in opened:
        await each.close()


@pytest.fixture
async def transport(make: Make, open_transport: Callable[..., Transport]) -> Transport:
    return open_transport(make)


class Asked:
    """One request under way."""

    def __init__(self, transport: Transport, method: str, body: bytes | None) -> None:
        self.task = asyncio.get_running_loop().create_task(
            transport.send(method, "/mcp", [(b"Host", HOST)], body)
        )

    async def answer(self) -> Answer:
        async with within():
            return await self.task


def ask(transport: Transport, method: str = "POST", body: bytes | None = b"{}") -> Asked:
    return Asked(transport, method, body if method == "POST" else None)


async def body_of(answer: Answer) -> bytes:
    """The whole body; the answer is closed behind it, as its reader does."""
    try:
        async with within():
            return b"".join([chunk async for chunk in answer.chunks])
    finally:
        answer.close()


async def served(transport: Transport, upstream: Upstream, body: bytes = b"ok") -> Exchange:
    """One request and its whole answer. Returns the exchange, whose connection is idle now."""
    asked = ask(transport)
    exchange = await upstream.next()
    exchange.answer(body)
    assert await body_of(await asked.answer()) == body
    return exchange
