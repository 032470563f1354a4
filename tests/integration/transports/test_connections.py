"""When is a connection used again, and when is a request sent again? Keep-alive, closing, planting, running out."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

import proxy.upstream.transport_lean
from proxy.upstream.transport import Lost, NoRoom, Transport, Unreached
from proxy.upstream.transport_lean import LeanTransport
from tests.integration.transports.conftest import Make, ask, body_of, served
from tests.integration.upstream import Exchange, Upstream
from tests.integration.waiting import turns, within

Open = Callable[..., Transport]
AT_ONCE_S = 2.0
"""Before an idle connection ends by itself (KEEP_ALIVE_S)."""
PLANTED = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nplanted"


async def test_one_connection_serves_one_request_after_the_other(
    transport: Transport, upstream: Upstream
) -> None:
    """A keep-alive pool; chunked answers with trailers leave nothing behind."""
    for _ in range(3):
        await served(transport, upstream)
        asked = ask(transport)
        exchange = await upstream.next()
        exchange.begin(kind="application/json")
        exchange.write(b"2\r\nok\r\n0\r\nX-Trailer: 1\r\n\r\n")
        answer = await asked.answer()
        assert answer.headers.names() == {"content-type", "transfer-encoding"}
        assert await body_of(answer) == b"ok"
    assert len(upstream.links) == 1


async def test_the_connection_that_was_used_last_is_used_next(
    open_transport: Open, upstream: Upstream
) -> None:
    """So that those which are not needed become idle, and end. aiohttp takes the one that waited longest."""
    transport = open_transport(LeanTransport)
    asked = [ask(transport) for _ in range(3)]
    exchanges = [await upstream.next() for _ in asked]
    for exchange in exchanges:
        exchange.answer(b"ok")
        await turns()
    for each in asked:
        await body_of(await each.answer())
    for _ in range(3):
        last = await served(transport, upstream)
        assert last.link is exchanges[-1].link


async def test_many_at_once_get_their_own_answers(transport: Transport, upstream: Upstream) -> None:
    """Promise 3."""

    async def echo(exchange: Exchange) -> None:
        await turns(exchange.request.body[0] % 7)
        exchange.answer(exchange.request.body)

    upstream.follow(echo)

    async def call(number: int) -> None:
        for time in range(5):
            body = b"%d %d" % (number, time)
            answer = await transport.send("POST", "/mcp", [(b"Host", b"a")], body)
            assert await body_of(answer) == body

    async with within():
        await asyncio.gather(*(call(number) for number in range(40)))
    assert len(upstream.links) == 40


@pytest.mark.parametrize(
    "text",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + PLANTED,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n" + PLANTED,
    ],
    ids=["close", "1.0", "planted", "planted behind chunks"],
)
async def test_what_comes_behind_an_answer_is_nobodys(
    transport: Transport, upstream: Upstream, text: bytes
) -> None:
    """RFC 9112 section 9.6; promise 3: bytes behind an answer never reach the next request."""
    asked = ask(transport)
    exchange = await upstream.next()
    exchange.write(text)
    assert await body_of(await asked.answer()) == b"ok"
    await exchange.left(AT_ONCE_S)
    await served(transport, upstream)
    assert len(upstream.links) == 2


async def test_nor_is_the_beginning_of_an_answer(open_transport: Open, upstream: Upstream) -> None:
    """The lean transport closes at once; aiohttp keeps the connection, but not the bytes."""
    transport = open_transport(LeanTransport)
    asked = ask(transport)
    exchange = await upstream.next()
    exchange.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP")
    assert await body_of(await asked.answer()) == b"ok"
    await exchange.left(AT_ONCE_S)


@pytest.mark.parametrize("text", [PLANTED, b"\r\n", b"x"])
async def test_what_comes_unasked_closes_an_idle_connection(
    transport: Transport, upstream: Upstream, text: bytes
) -> None:
    """aiohttp 13656; promise 3."""
    exchange = await served(transport, upstream)
    exchange.write(text)
    await exchange.left(AT_ONCE_S)
    await served(transport, upstream)
    assert len(upstream.links) == 2


async def test_what_the_loop_has_not_seen_yet_is_not_the_next_answer(
    open_transport: Open, upstream: Upstream
) -> None:
    """The lean transport looks at the socket itself: planted bytes that arrived in this turn of the loop close it."""
    transport = open_transport(LeanTransport)
    exchange = await served(transport, upstream)
    assert exchange.link.transport is not None
    os.write(exchange.link.transport.get_extra_info("socket").fileno(), PLANTED)
    await served(transport, upstream)
    assert len(upstream.links) == 2


async def test_a_closing_the_loop_has_not_seen_yet_loses_no_request(
    open_transport: Open, upstream: Upstream
) -> None:
    """The same for a FIN: a POST would meet it, and nobody would know whether it arrived."""
    transport = open_transport(LeanTransport)
    exchange = await served(transport, upstream)
    assert exchange.link.transport is not None
    with socket.fromfd(
        exchange.link.transport.get_extra_info("socket").fileno(), socket.AF_INET, socket.SOCK_STREAM
    ) as same:
        same.shutdown(socket.SHUT_WR)
    await served(transport, upstream)
    assert len(upstream.links) == 2


async def test_a_closed_idle_connection_is_not_used(transport: Transport, upstream: Upstream) -> None:
    """A server that hangs up between two requests fails nobody."""
    exchange = await served(transport, upstream)
    exchange.link.close()
    async with within():
        await exchange.link.lost.wait()
    await turns()
    await served(transport, upstream)
    assert len(upstream.links) == 2


async def hang_up(exchange: Exchange) -> None:
    exchange.link.close()


@pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
async def test_a_post_that_met_a_closing_is_not_sent_again(
    transport: Transport, upstream: Upstream, reset: bool
) -> None:
    """Promise 4: nobody knows whether it ran."""
    await served(transport, upstream)
    asked = ask(transport)
    exchange = await upstream.next()
    (exchange.link.reset if reset else exchange.link.close)()
    with pytest.raises(Lost):
        await asked.answer()
    assert len(upstream.seen) == 2


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_get_or_delete_that_met_the_closing_of_an_idle_connection_is_sent_again(
    transport: Transport, upstream: Upstream, method: str
) -> None:
    """transport.Transport: once, on a new connection."""
    await served(transport, upstream)
    asked = ask(transport, method)
    (await upstream.next()).link.close()
    (await upstream.next()).answer(b"ok")
    assert await body_of(await asked.answer()) == b"ok"
    assert (len(upstream.seen), len(upstream.links)) == (3, 2)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_and_not_a_third_time(transport: Transport, upstream: Upstream, method: str) -> None:
    """The same, where the new connection is closed, too."""
    await served(transport, upstream)
    upstream.follow(hang_up)
    with pytest.raises(Lost):
        await ask(transport, method).answer()
    assert len(upstream.seen) == 3


async def test_a_get_whose_answer_had_begun_is_not_sent_again(
    open_transport: Open, upstream: Upstream
) -> None:
    """It was heard, so it did not meet the closing of an idle connection. aiohttp repeats it; a GET is harmless."""
    transport = open_transport(LeanTransport)
    await served(transport, upstream)
    asked = ask(transport, "GET")
    exchange = await upstream.next()
    exchange.write(b"HTTP/1.1 200 OK\r\nContent-")
    await turns()
    exchange.link.close()
    with pytest.raises(Lost):
        await asked.answer()
    assert len(upstream.seen) == 2


async def test_whoever_stops_waiting_closes_the_connection(transport: Transport, upstream: Upstream) -> None:
    """Cancelling `send` is how a call that nobody waits for is given up."""
    asked = ask(transport)
    exchange = await upstream.next()
    asked.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked.task
    await exchange.left()


async def test_a_finished_body_gives_its_connection_back_before_it_is_read(
    transport: Transport, upstream: Upstream
) -> None:
    """What arrived whole needs no connection."""
    asked = ask(transport)
    (await upstream.next()).answer(b"first")
    first = await asked.answer()
    await served(transport, upstream)
    assert await body_of(first) == b"first"
    first.close()
    await served(transport, upstream)
    assert len(upstream.links) == 1


async def test_an_idle_connection_ends_by_itself(
    open_transport: Open, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KEEP_ALIVE_S: whoever closes first must not be the server."""
    monkeypatch.setattr(proxy.upstream.transport_lean, "KEEP_ALIVE_S", 0.02)
    transport = open_transport(LeanTransport)
    exchange = await served(transport, upstream)
    await exchange.left()


async def test_more_idle_connections_than_are_kept(
    open_transport: Open, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that was used longest ago is closed."""
    monkeypatch.setattr(proxy.upstream.transport_lean, "MAX_IDLE", 2)
    transport = open_transport(LeanTransport)
    asked = [ask(transport) for _ in range(3)]
    exchanges = [await upstream.next() for _ in asked]
    for exchange in exchanges:
        exchange.answer(b"ok")
        await turns()
    await exchanges[0].left()
    assert upstream.open_links == 2
    for each in asked:
        await body_of(await each.answer())


async def test_nobody_listens(make: Make, open_transport: Open) -> None:
    """Refused: no byte left."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        transport = open_transport(make, f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(Unreached) as caught:
            await ask(transport).answer()
    assert not isinstance(caught.value, NoRoom)


async def test_a_server_that_takes_no_connection(make: Make) -> None:
    """connect_timeout_s: what is not taken in time has not been reached."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for each in (first, second):
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        transport: Any = make(f"http://127.0.0.1:{full.getsockname()[1]}", connect_timeout_s=0.05)
        try:
            with pytest.raises(Unreached):
                await ask(transport).answer()
        finally:
            await transport.close()


async def test_no_descriptor_is_to_be_had(make: Make, open_transport: Open, upstream: Upstream) -> None:
    """NoRoom; a connection that is there already is used."""
    may = [True]
    transport = open_transport(make, may_connect=lambda: may[0])
    await served(transport, upstream)
    may[0] = False
    await served(transport, upstream)
    asked = ask(transport)
    exchange = await upstream.next()
    with pytest.raises(NoRoom):
        await ask(transport).answer()
    exchange.answer(b"ok")
    await body_of(await asked.answer())


async def test_closing_a_transport_closes_its_connections(
    make: Make, open_transport: Open, upstream: Upstream
) -> None:
    """Those under way, too."""
    transport = open_transport(make)
    await served(transport, upstream)
    asked = ask(transport)
    exchange = await upstream.next()
    exchange.begin()
    answer = await asked.answer()
    other = ask(transport)
    idle = await upstream.next()
    idle.answer(b"ok")
    await body_of(await other.answer())
    await transport.close()
    await exchange.left()
    await idle.left()
    answer.close()
