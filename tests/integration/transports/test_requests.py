"""What leaves: the bytes of a request, whole or in pieces, and nothing that would become another request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from proxy.upstream.lean_connection import SLICE_BYTES
from proxy.upstream.transport import Answer, Transport, Unreached
from proxy.upstream.transport_lean import LeanTransport
from tests.integration.transports.conftest import ask, body_of
from tests.integration.upstream import Exchange, Upstream
from tests.integration.waiting import turns, within

pytestmark = pytest.mark.filterwarnings(
    "ignore:Sending a large body directly:ResourceWarning"  # aiohttp's advice; bodies of this length are rare
)

FIELDS = [
    (b"Host", b"server.test:8000"),
    (b"X-One", b"1"),
    (b"x-TWO", "ä€".encode()),
    (b"X-One", b"2"),
    (b"Accept", b"application/json, text/event-stream"),
]
WRITTEN = (
    b"Host: server.test:8000\r\nX-One: 1\r\nx-TWO: " + "ä€".encode() + b"\r\nX-One: 2\r\n"
    b"Accept: application/json, text/event-stream\r\n"
)


@pytest.mark.parametrize(
    ("method", "body", "end"),
    [
        ("POST", b'{"a":1}', b'Content-Length: 7\r\n\r\n{"a":1}'),
        ("POST", b"", b"Content-Length: 0\r\n\r\n"),
        ("GET", None, b"\r\n"),
        ("DELETE", None, b"Content-Length: 0\r\n\r\n"),
    ],
)
async def test_a_request_is_what_it_was_and_its_length(
    transport: Transport, upstream: Upstream, method: str, body: bytes | None, end: bytes
) -> None:
    """transport.Transport: fields as they are, in their order, and no field by itself but the length."""
    head = f"{method} /mcp?a=b%20c HTTP/1.1\r\n".encode()
    asked = transport.send(method, "/mcp?a=b%20c", FIELDS, body)
    upstream.follow(_answer)
    async with within():
        assert await body_of(await asked) == b"ok"
    assert bytes(upstream.links[0].received) == head + WRITTEN + end


async def _answer(exchange: Exchange) -> None:
    exchange.answer(b"ok")


@pytest.mark.parametrize("size", [65_536, 262_144, 262_145, 9_000_000])
async def test_a_large_request_arrives_whole(transport: Transport, upstream: Upstream, size: int) -> None:
    """More than the socket takes at a time."""
    body = bytes(range(256)) * (size // 256 + 1)
    asked = ask(transport, body=body)
    exchange = await upstream.next()
    exchange.answer(b"ok")
    assert await body_of(await asked.answer()) == b"ok"
    assert exchange.request.body == body


async def test_a_server_that_reads_late_has_the_rest_sent_then(
    transport: Transport, upstream: Upstream
) -> None:
    """Back-pressure: what the server does not take waits here, and goes on."""
    await body_of(await _first(transport, upstream))
    link = upstream.links[0]
    assert link.transport is not None
    link.transport.pause_reading()
    body = b"x" * 9_000_000
    asked = ask(transport, body=body)
    other = ask(transport)
    exchange = await upstream.next()
    exchange.answer(b"ok")
    await body_of(await other.answer())
    assert len(upstream.links) == 2
    assert not asked.task.done()
    link.transport.resume_reading()
    exchange = await upstream.next()
    assert exchange.request.body == body
    exchange.answer(b"ok")
    await body_of(await asked.answer())


async def _first(transport: Transport, upstream: Upstream) -> Answer:
    asked = ask(transport)
    (await upstream.next()).answer(b"ok")
    return await asked.answer()


async def test_an_answer_may_come_before_the_request_was_read(
    transport: Transport, upstream: Upstream
) -> None:
    """RFC 9110 section 10.1.1: a server may refuse a body it has not read. The connection is not used again."""
    await body_of(await _first(transport, upstream))
    link = upstream.links[0]
    assert link.transport is not None
    link.transport.pause_reading()
    asked = ask(transport, body=b"x" * 50_000_000)
    await turns()  # an answer to nothing would close the connection
    link.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
    answer = await asked.answer()
    assert (answer.status, await body_of(answer)) == (413, b"no")
    upstream.follow(_answer)
    await body_of(await ask(transport).answer())
    assert len(upstream.links) == 2
    link.transport.resume_reading()
    async with within():
        await link.left.wait()


async def test_no_more_of_a_request_is_given_to_the_socket_than_it_takes(
    open_transport: Callable[..., Transport], upstream: Upstream
) -> None:
    """Back-pressure of the lean transport: event loops copy what they cannot send."""
    transport = open_transport(LeanTransport)
    assert isinstance(transport, LeanTransport)
    await body_of(await _first(transport, upstream))
    link = upstream.links[0]
    assert link.transport is not None
    link.transport.pause_reading()
    asked = ask(transport, body=b"x" * 50_000_000)
    await turns(50)
    (connection,) = transport._all
    assert connection._transport is not None
    assert 0 < connection._transport.get_write_buffer_size() <= 2 * SLICE_BYTES
    asked.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked.task
    link.transport.resume_reading()


@pytest.mark.parametrize("bad", [b"\r", b"\n", b"\0", b"\r\n\r\nGET / HTTP/1.1\r\n"])
@pytest.mark.parametrize("where", ["name", "value"])
async def test_a_field_cannot_begin_another_line(
    transport: Transport, upstream: Upstream, bad: bytes, where: str
) -> None:
    """RFC 9110 section 5.5; whoever reads requests and settings refuses these before. Nothing is sent."""
    field = (b"X" + bad + b"Y", b"1") if where == "name" else (b"X", b"1" + bad + b"2")
    with pytest.raises(Exception, match=r".*") as caught:
        async with within():
            await transport.send("POST", "/mcp", [(b"Host", b"a"), field], b"{}")
    assert not isinstance(caught.value, Unreached)
    assert upstream.seen == []
    assert all(not link.received for link in upstream.links)
