"""One trace from the SDK's client through us to the SDK's server: each makes its spans itself, and none knows of us.

The context travels in `params._meta` (SEP-414): the client writes it there, and the server looks only there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import mcp.shared._otel
import pytest
import uvicorn
from mcp.client import Client
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from tests.integration.house import Sidecar, sidecar
from tests.integration.waiting import turns, until, within
from tests.servers.everything.server import streamable_app

EVERY = ("telemetry.traces.exporter=none", "telemetry.traces.sample=1")


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """What the SDK's client and server record; its tracer would be set once for a whole process otherwise."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(mcp.shared._otel, "_tracer", provider.get_tracer("sdk"))
    return exporter


@asynccontextmanager
async def serving() -> AsyncIterator[str]:
    """The SDK's server, in this process."""
    config = uvicorn.Config(
        streamable_app("127.0.0.1"), port=0, log_level="warning", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    task = asyncio.get_running_loop().create_task(server.serve())
    await until(lambda: server.started)
    (where,) = [each.getsockname() for each in server.servers[0].sockets]
    try:
        yield f"http://127.0.0.1:{where[1]}/mcp"
    finally:
        server.should_exit = True
        await task
        await turns()  # connections that it closed are told so in the next ones


async def called(side: Sidecar, mode: str) -> None:
    async with within(8), Client(f"http://127.0.0.1:{side.port}/mcp", mode=mode) as client:
        await client.call_tool("test_simple_text", {})


def of_the_call(exporter: InMemorySpanExporter) -> dict[SpanKind, ReadableSpan]:
    return {each.kind: each for each in exporter.get_finished_spans() if "tools/call" in each.name}


def ids(span: ReadableSpan) -> tuple[int, int, int | None]:
    """Trace, span and parent."""
    assert span.context is not None
    return span.context.trace_id, span.context.span_id, span.parent.span_id if span.parent else None


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
@pytest.mark.parametrize("injects", [True, False])
async def test_client_sidecar_and_server_are_one_trace(
    theirs: InMemorySpanExporter, mode: str, injects: bool
) -> None:
    """Issue 8: with inject_meta the server's span is below that of our attempt; without it is beside ours."""
    ours = InMemorySpanExporter()
    inject = f"telemetry.traces.inject_meta={'true' if injects else 'false'}"
    async with (
        serving() as url,
        sidecar(url, *EVERY, inject, exporter=ours) as side,
    ):
        await called(side, mode)
        tracing: Any = side.house.rooms.tracing
        await side.lines.when(lambda lines: any(line.get("tool") for line in lines.calls))
        await asyncio.to_thread(tracing.exports.flush)
        client, server = (of_the_call(theirs)[kind] for kind in (SpanKind.CLIENT, SpanKind.SERVER))
        below, attempt = (of_the_call(ours)[kind] for kind in (SpanKind.SERVER, SpanKind.CLIENT))
    assert {ids(each)[0] for each in (client, below, attempt, server)} == {ids(client)[0]}
    assert ids(below)[2] == ids(client)[1]
    assert ids(attempt)[2] == ids(below)[1]
    assert ids(server)[2] == (ids(attempt)[1] if injects else ids(client)[1])
    assert (below.name, attempt.name) == ("tools/call test_simple_text",) * 2
