"""Collectors that are dead, hang, drip or redirect: no call waits for them, no memory grows, and it is said once.

Source: issue 8, point 2 ("a dead or hanging collector changes no latency and no memory"); OTLP 1.x, OTLP/HTTP.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, TraceFlags

from proxy.demo.ports import free_ports
from proxy.telemetry.exports import FLUSH_S, MAX_WAITING, QUEUE_FULL, Exports
from proxy.telemetry.traces_building import Tracing
from tests.integration.client import Client
from tests.integration.conftest import Connect, OpenSidecar
from tests.integration.house import Sidecar
from tests.integration.upstream import Exchange, Upstream, fields_of
from tests.integration.waiting import until, within
from tests.integration.wire import post, result, tool_call

KEY = "planted-collector-key"


@pytest.fixture
async def collector() -> AsyncIterator[Upstream]:
    """Listens on a port of its own, and takes spans as a test tells it."""
    taking = Upstream()
    await taking.open()
    yield taking
    await taking.close()


def exports_of(side: Sidecar) -> Exports:
    tracing: Tracing | None = side.house.rooms.tracing
    assert tracing is not None
    assert tracing.exports is not None
    return tracing.exports


def told(side: Sidecar, words: str) -> list[dict[str, object]]:
    return [line for line in side.lines.life if line["msg"] == words]


async def call(client: Client, upstream: Upstream, count: int = 1) -> None:
    for _ in range(count):
        client.send(post(tool_call()))
        (await upstream.next()).answer(result())
        assert (await client.answer()).status == 200


async def flushed(side: Sidecar) -> None:
    """All that waits was sent, in vain or not."""
    async with within(10):
        await asyncio.to_thread(exports_of(side).flush)


async def opened(open_sidecar: OpenSidecar, port: int, *more: str) -> Sidecar:
    endpoint = f"telemetry.traces.endpoint=http://127.0.0.1:{port}"
    return await open_sidecar(
        "telemetry.traces.sample=1", "telemetry.traces.timeout_s=0.3", endpoint, "drain_s=0", *more
    )


async def test_spans_arrive_by_otlp(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, collector: Upstream, tmp_path: Path
) -> None:
    """OTLP/HTTP: a protobuf to /v1/traces, with the headers of the settings; read again when their file changes."""
    key = tmp_path / "key"
    key.write_text(KEY)

    async def take(exchange: Exchange) -> None:
        exchange.answer(b"", kind="application/x-protobuf")

    collector.follow(take)
    side = await opened(
        open_sidecar,
        collector.port,
        f"telemetry.traces.headers.X-Key=${{file:{key}}}",
        "telemetry.traces.service_name=guard",
        "telemetry.traces.resource.team=tools",
    )
    await call(await connect(side.port), upstream)
    await side.lines.next_calls()
    await flushed(side)
    request = collector.seen[0]
    assert (request.method, request.target) == ("POST", "/v1/traces")
    assert fields_of(request, "Content-Type") == ["application/x-protobuf"]
    assert fields_of(request, "X-Key") == [KEY]
    said = ExportTraceServiceRequest()
    said.ParseFromString(request.body)
    (resource,) = said.resource_spans
    named = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert (named["service.name"], named["team"]) == ("guard", "tools")
    assert [span.name for span in resource.scope_spans[0].spans] == ["tools/call echo"] * 2
    assert (exports_of(side).exported, exports_of(side).waiting) == (2, 0)

    key.write_text(KEY + "-2")
    await side.house.watch.look()
    await call(await connect(side.port), upstream)
    await side.lines.next_calls(2)
    await flushed(side)
    assert fields_of(collector.seen[-1], "X-Key") == [KEY + "-2"]


async def test_a_dead_collector_is_told_once_and_so_is_its_return(
    open_sidecar: OpenSidecar,
    connect: Connect,
    upstream: Upstream,
    collector: Upstream,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """One line when spans get lost and one when they arrive, with their number; libraries say nothing themselves."""

    async def take(exchange: Exchange) -> None:
        exchange.answer(b"", kind="application/x-protobuf")

    collector.follow(take)
    await collector.close()  # its port refuses
    side = await opened(open_sidecar, collector.port)
    client = await connect(side.port)
    for round in range(2):
        await call(client, upstream)
        await side.lines.next_calls(round + 1)
        await flushed(side)
    await side.lines.when(lambda _: bool(told(side, "traces are not exported")))
    await collector.open()
    await call(client, upstream)
    await side.lines.next_calls(3)
    await flushed(side)
    await side.lines.when(lambda _: bool(told(side, "traces are exported again")))
    (failed,), (again,) = told(side, "traces are not exported"), told(side, "traces are exported again")
    assert (failed["level"], failed["why"]) == ("warning", "ConnectionError")
    assert (failed["lost_spans"], again["lost_spans"]) == (2, 2)
    assert (exports_of(side).exported, exports_of(side).failed) == (2, 4)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("how", ["hangs", "drips", "redirects", "refuses", "never ends", "lies"])
async def test_no_call_and_no_end_waits_for_a_collector(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, collector: Upstream, how: str
) -> None:
    """Calls are answered, their number that waits is bounded, and the house comes down in time."""

    async def take(exchange: Exchange) -> None:
        match how:
            case "drips":
                while exchange.link.is_open:
                    exchange.write(b"H")
                    await asyncio.sleep(0.05)
            case "redirects":
                exchange.answer(b"", "Location: http://127.0.0.1:1/", status="302 Found")
            case "refuses":
                exchange.answer(b"", "Retry-After: 86400", status="503 Service Unavailable")
            case "never ends":
                exchange.begin()
                while exchange.link.is_open:
                    exchange.chunk(b"x" * 65_536)
                    await exchange.link.drained()
                    await asyncio.sleep(0)
            case "lies":
                exchange.write(b"SSH-2.0-OpenSSH_9.6\r\n" * 100)

    collector.follow(take)
    side = await opened(open_sidecar, collector.port)
    client = await connect(side.port)
    await call(client, upstream)
    await side.lines.next_calls()
    exports = exports_of(side)
    sending = threading.Thread(target=exports.flush, daemon=True)
    sending.start()
    await until(lambda: bool(collector.seen))
    await call(client, upstream, 20)  # while it is at it
    if how != "drips":  # its head may take for ever
        await until(lambda: exports.exported + exports.failed >= 2)
        assert (exports.exported > 0) == (how == "never ends")  # what it says behind a yes is not read
    exports.add([_span()] * (MAX_WAITING + 100))
    assert exports.waiting <= MAX_WAITING
    assert exports.dropped >= 100
    if how in ("hangs", "drips"):
        await side.lines.when(lambda _: bool(told(side, "traces are not exported")))
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with within(FLUSH_S + 5):
        await exports.close()
    assert loop.time() - began < FLUSH_S + 2
    await collector.close()
    await asyncio.to_thread(sending.join, 10)


def _span() -> ReadableSpan:
    return ReadableSpan("x", SpanContext(1, 2, False, TraceFlags(1)), start_time=1, end_time=2)


async def test_what_comes_beyond_the_queue_is_dropped_and_told(
    open_sidecar: OpenSidecar, collector: Upstream
) -> None:
    """Bounded memory: a collector that never answers does not even fail."""
    side = await opened(open_sidecar, collector.port, "telemetry.traces.timeout_s=60")
    exports_of(side).add([_span()] * (MAX_WAITING + 1))
    await side.lines.when(lambda _: bool(told(side, "traces are not exported")))
    (line,) = told(side, "traces are not exported")
    assert (line["why"], line["lost_spans"]) == (QUEUE_FULL, 1)
    await collector.next()  # a connection that is being made would outlive it
    await exports_of(side).close()
    await collector.close()  # last: who tries again could meet somebody else on its port
    await ended_threads()


async def ended_threads() -> None:
    """Wait for them; who asks again and again takes their turn away."""
    for each in exporting():
        await asyncio.to_thread(each.join, 30)
    assert exporting() == []


def exporting() -> list[threading.Thread]:
    """Threads that send spans, or wait to try again."""
    return [
        each for each in threading.enumerate() if each.name in ("OtelBatchSpanRecordProcessor", "last spans")
    ]


async def test_what_libraries_log_goes_nowhere(
    open_sidecar: OpenSidecar, capfd: pytest.CaptureFixture[str]
) -> None:
    """Own promise: they quote addresses and header fields; our log has its own line."""
    await opened(open_sidecar, free_ports(1)[0])
    for name in ("opentelemetry.exporter.otlp.x", "urllib3.connectionpool", "requests"):
        logging.getLogger(name).error(KEY)
    assert capfd.readouterr() == ("", "")


async def test_the_console_gets_a_line_for_each_span(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, capsys: pytest.CaptureFixture[str]
) -> None:
    """exporter: console."""
    side = await open_sidecar("telemetry.traces.sample=1", "telemetry.traces.exporter=console")
    await call(await connect(side.port), upstream)
    await side.lines.next_calls()
    await flushed(side)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["kind"] for line in lines] == ["SpanKind.CLIENT", "SpanKind.SERVER"]
