"""A server that listens on a file, and on no port: calls, probes, endpoints, traces and the doctor. issue 10, 2."""

from __future__ import annotations

import io
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from proxy.configuration.socket_urls import url_of_socket
from proxy.configuration.values import Address
from proxy.doctor.asking import Clocks
from proxy.doctor.ways import bypass
from proxy.doctor.ways import upstream as examined
from proxy.pinning import pin_tools
from proxy.policy.pin_command import PinWish
from proxy.policy.pin_file import read_pins
from proxy.settings import Settings, load
from proxy.upstream.probe import Probe
from proxy.upstream.settings import UpstreamSettings
from proxy.upstream.transport_aiohttp import AiohttpTransport
from tests.conformance.stand import everything
from tests.integration.conftest import Connect, OpenSidecar
from tests.integration.test_http_sse import get, to
from tests.integration.test_traces import spans
from tests.integration.upstream import Exchange, Upstream, fields_of
from tests.integration.wire import post, result, tool_call

LONG_AGO = 60.0


@pytest.fixture
async def upstream(tmp_path: Path) -> AsyncIterator[Upstream]:
    """The scripted server, on a file."""
    server = Upstream(tmp_path / "server.sock")
    await server.open()
    yield server
    await server.close()


def settings(url: str) -> Settings:
    return load(None, overrides=[f"upstream.url={url}"], environ={})


async def test_a_call_arrives_and_is_answered(
    each_transport: str, open_sidecar: OpenSidecar, upstream: Upstream, connect: Connect
) -> None:
    """As from anywhere else; the server is told a Host that its own lists of hosts take."""
    side = await open_sidecar()
    client = await connect(side.port)
    client.send(post(tool_call()))
    exchange = await upstream.next()
    assert (exchange.request.target, exchange.request.body) == ("/mcp", tool_call())
    assert fields_of(exchange.request, "host") == ["localhost:80"]
    exchange.answer(result())
    assert (await client.answer()).body == result()


async def test_a_server_that_is_gone_is_not_ready_until_it_is_back(tmp_path: Path) -> None:
    """design section 4, lifecycle: /readyz asks the server. A file may stay behind when nobody listens any more."""
    now, server = [0.0], Upstream(tmp_path / "server.sock")
    upstream = UpstreamSettings(url=server.url)
    transport = AiohttpTransport(server.url, connect_timeout_s=1)
    probe = Probe(upstream, transport, now=lambda: now[0])
    server.follow(_discovered)
    try:
        for is_there in (False, True, False, True):
            if is_there:
                await server.open()
            now[0] += LONG_AGO
            assert (await probe.connects(), await probe()) == (is_there, is_there)
            if is_there:
                await server.close()
    finally:
        await transport.close()


async def _discovered(exchange: Exchange) -> None:
    exchange.answer(b"{}", status="400 Bad Request")


@pytest.mark.parametrize(
    ("endpoint", "arrives"),
    [
        ("/messages/?session_id=abc", "/messages/?session_id=abc"),
        ("http://localhost/messages/?session_id=abc", "/messages/?session_id=abc"),
        ("http://localhost:80/messages/?session_id=abc", "/messages/?session_id=abc"),
    ],
)
async def test_an_endpoint_that_the_server_names_by_our_host_is_its_own(
    open_sidecar: OpenSidecar, upstream: Upstream, connect: Connect, endpoint: str, arrives: str
) -> None:
    """2024-11-05: servers make it of the Host that they were asked by."""
    assert upstream.file is not None
    side = await open_sidecar(url=url_of_socket(str(upstream.file), "/sse"))
    client, poster = await connect(side.port), await connect(side.port)
    client.send(get())
    stream = await upstream.next()
    stream.begin("Cache-Control: no-store")
    stream.chunk(f"event: endpoint\r\ndata: {endpoint}\r\n\r\n".encode())
    await client.head()
    uri = (await client.until(b"\r\n\r\n")).decode().split("\r\n")[1].removeprefix("data: ")
    poster.send(to(uri, tool_call("2025-03-26")))
    assert (await upstream.next()).request.target == arrives


async def test_a_span_names_the_file_and_no_port(
    open_sidecar: OpenSidecar, upstream: Upstream, connect: Connect
) -> None:
    """OpenTelemetry, server.address: "IP address or Unix domain socket name"."""
    exporter = InMemorySpanExporter()
    side = await open_sidecar(
        "telemetry.traces.exporter=none", "telemetry.traces.sample=1", exporter=exporter
    )
    client = await connect(side.port)
    client.send(post(tool_call()))
    (await upstream.next()).answer(result())
    await client.answer()
    _, attempt = await spans(side, exporter)
    assert attempt.kind is SpanKind.CLIENT
    assert attempt.attributes is not None
    assert attempt.attributes["server.address"] == str(upstream.file)
    assert "server.port" not in attempt.attributes


@pytest.mark.parametrize("options", [(), ("--sse",)], ids=["streamable", "http_sse"])
async def test_a_real_server_says_the_same_there(
    each_transport: str, options: tuple[str, ...], open_sidecar: OpenSidecar, tmp_path: Path
) -> None:
    """The official Python SDK on uvicorn, with the list of hosts that it has by itself; asked directly and through us,
    by every handshake there is."""
    pins = []
    async with everything(tmp_path, *options, "--file", str(tmp_path / "real.sock")) as url:
        side = await open_sidecar(url=url)
        path = "sse" if options else "mcp"
        for number, asked in enumerate((url, f"http://127.0.0.1:{side.port}/{path}")):
            wish, err = PinWish(file=str(tmp_path / f"{number}.lock")), io.StringIO()
            assert await pin_tools(UpstreamSettings(url=asked), wish, io.StringIO(), err) == 0, err.getvalue()
            pins.append(read_pins(wish.file).tools)
        (found,) = await examined(settings(url), Clocks(time.time))
    assert pins[0] == pins[1] != ()
    assert found.level == "ok", found


async def test_the_doctor_says_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    """A server that has not started, and one that is not ours to ask."""
    url = url_of_socket(str(tmp_path / "server.sock"), "/mcp")
    (found,) = await examined(settings(url), Clocks(time.time))
    assert (found.level, found.remedy) == ("fail", "start the server, or correct upstream.url")
    (asked,) = await bypass(settings(url), Address("10.0.0.5", 8080))
    assert (asked.level, asked.remedy) == (
        "warn",
        "name the server's port, if it listens on one beside its file",
    )


async def test_the_doctor_knows_a_file_that_is_not_ours_to_ask(upstream: Upstream) -> None:
    """Whoever connects must be allowed to write to the file (unix(7)): another user's, with nothing shared."""
    assert upstream.file is not None
    upstream.file.chmod(0)
    euid = os.geteuid()
    if euid == 0:
        os.seteuid(65_532)  # root may do everything
    try:
        (found,) = await examined(settings(upstream.url), Clocks(time.time))
    finally:
        os.seteuid(euid)
    assert found.level == "fail"
    assert found.says.endswith("it is not permitted")
