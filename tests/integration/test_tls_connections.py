"""Over TLS a connection is guarded as it is without: deadlines, leaving, slow readers; and handshakes have an end."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from proxy.downstream.connection import MAX_UNSENT_BYTES
from tests.integration.client import Client
from tests.integration.conftest import Connect, OpenSidecar
from tests.integration.house import Sidecar, process, run_words
from tests.integration.test_slow_clients import BIG, pour, stalled
from tests.integration.tls import ByHand, Pki, by_hand, tls_connected
from tests.integration.upstream import Exchange, Upstream
from tests.integration.waiting import turns, within
from tests.integration.wire import (
    LEGACY,
    MODERN,
    NOTE,
    event,
    listen,
    message,
    post,
    request,
    result,
    tool_call,
)

NOTICED_WITHIN_S = 0.75
SMALL = event(NOTE[:-1] + b" " * 6_000 + b"}")


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


@pytest.fixture
async def side(open_sidecar: OpenSidecar, pki: Pki) -> Sidecar:
    """A sidecar that speaks TLS."""
    return await open_sidecar(*pki.overrides())


@pytest.fixture(autouse=True)
def _nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Strangers must not fill a log: asyncio warns of what TLS cannot do."""
    yield
    loud = [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.WARNING]
    assert loud == []


@pytest.fixture
async def client(side: Sidecar, pki: Pki) -> AsyncIterator[Client]:
    async with tls_connected(side.port, pki.context()) as opened:
        yield opened


@pytest.fixture
async def hand(side: Sidecar, pki: Pki) -> AsyncIterator[ByHand]:
    async with by_hand(side.port, pki.context()) as opened:
        yield opened


async def test_a_call_is_answered_over_tls(client: Client, upstream: Upstream) -> None:
    """And what the server says has no more to do with TLS than before."""
    client.send(post(tool_call()))
    exchange = await upstream.next()
    assert exchange.request.body == tool_call()
    exchange.answer(result())
    answer = await client.answer()
    assert (answer.status, answer.body) == (200, result())


async def test_a_whole_url_is_https_here(client: Client, upstream: Upstream) -> None:
    """RFC 9112 section 3.2.2: absolute targets name the origin, scheme included."""
    client.send(post(tool_call(), target="https://127.0.0.1/mcp"))
    (await upstream.next()).answer(result())
    assert (await client.answer()).status == 200
    assert (await client.asked(post(tool_call(), target="http://127.0.0.1/mcp"))).status == 421


async def test_large_bodies_pass_both_ways(client: Client, upstream: Upstream) -> None:
    """Many records of TLS, and more than any buffer on the way."""
    body = message("tools/call", LEGACY, 1, name="echo", arguments={"text": "a" * 1_000_000})
    answer = result(1, "b" * 1_000_000)
    client.send(post(body))
    exchange = await upstream.next()
    assert exchange.request.body == body
    exchange.answer(answer)
    assert (await client.answer()).body == answer


async def test_a_connection_that_sends_nothing_is_closed(open_sidecar: OpenSidecar, pki: Pki) -> None:
    """listen.head_timeout_s, counted from the end of the handshake."""
    side = await open_sidecar(*pki.overrides(), "listen.head_timeout_s=0.2")
    async with tls_connected(side.port, pki.context()) as client:
        assert await client.ended() == b""


async def test_a_head_that_does_not_come_is_answered_408(open_sidecar: OpenSidecar, pki: Pki) -> None:
    """The last words reach the client although the connection is closed behind them."""
    side = await open_sidecar(*pki.overrides(), "listen.head_timeout_s=0.2")
    async with tls_connected(side.port, pki.context()) as client:
        client.send(b"POST /mcp HTTP/1.1\r\n")
        assert (await client.ended()).startswith(b"HTTP/1.1 408 ")


async def test_a_client_that_does_not_answer_our_farewell_is_dropped(
    open_sidecar: OpenSidecar, pki: Pki
) -> None:
    """RFC 8446 section 6.1: nobody has to wait for the other side's close_notify."""
    side = await open_sidecar(
        *pki.overrides(), "listen.head_timeout_s=0.1", "listen.write_idle_timeout_s=0.2"
    )
    async with by_hand(side.port, pki.context()) as hand:
        assert await hand.some() == b"", "a farewell"
        await hand.cut()


@pytest.mark.parametrize("begin", [b"", b"\x16\x03\x01\x02\x00\x01"], ids=["nothing", "a beginning"])
async def test_a_handshake_that_does_not_end_is_ended(
    open_sidecar: OpenSidecar, connect: Connect, pki: Pki, begin: bytes
) -> None:
    """listen.head_timeout_s: handshakes are work for us, and cost a stranger nothing."""
    side = await open_sidecar(*pki.overrides(), "listen.head_timeout_s=0.2")
    client = await connect(side.port)
    client.send(begin)
    assert await client.ended() == b""
    assert side.lines.calls == []


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(post(tool_call()), id="plain HTTP"),
        pytest.param(b"\x00" * 600, id="zeros"),
        pytest.param(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", id="a broken hello"),
        pytest.param(b"SSH-2.0-x\r\n", id="another protocol"),
    ],
)
async def test_what_is_no_tls_is_closed_without_a_word(
    side: Sidecar, connect: Connect, client: Client, upstream: Upstream, words: bytes
) -> None:
    """Nothing is parsed, forwarded or logged, and nobody else notices."""
    stranger = await connect(side.port)
    stranger.send(words)
    said = await stranger.ended()
    assert b"HTTP" not in said
    assert (side.lines.calls, upstream.links) == ([], [])
    client.send(post(tool_call()))
    (await upstream.next()).answer(result())
    assert (await client.answer()).status == 200


async def test_a_client_that_leaves_in_the_handshake_is_forgotten(side: Sidecar, connect: Connect) -> None:
    """Scanners and health checks of load balancers do nothing else."""
    for leave in (Client.close, Client.reset, Client.half_close):
        stranger = await connect(side.port)
        stranger.send(b"\x16\x03")
        leave(stranger)
        await stranger.closed()
    assert (await side.probe("/healthz")).status == 200
    assert side.lines.calls == []


async def test_the_operations_port_stays_plain(side: Sidecar) -> None:
    """Probes have no certificates; nothing of tenants is told there."""
    assert (await side.probe("/startupz")).status == 200


def farewell_and_fin(hand: ByHand) -> None:
    hand.say_farewell()
    hand.half_close()


Leave = Callable[[ByHand], None]
WAYS = pytest.mark.parametrize(
    "leave",
    [ByHand.say_farewell, ByHand.half_close, farewell_and_fin, ByHand.reset],
    ids=["close_notify", "FIN", "both", "RST"],
)


async def seconds_until_noticed(hand: ByHand, leave: Leave, exchange: Exchange) -> float:
    begin = time.perf_counter()
    leave(hand)
    await exchange.left(seconds=2)
    return time.perf_counter() - begin


@WAYS
async def test_leaving_a_silent_stream_closes_it_upstream(
    side: Sidecar, hand: ByHand, upstream: Upstream, leave: Leave
) -> None:
    """As without TLS; close_notify alone is leaving too (RFC 5246 section 7.2.1)."""
    hand.send(listen())
    exchange = await upstream.next()
    exchange.begin()
    exchange.chunk(event(NOTE))
    await hand.until(NOTE)
    assert await seconds_until_noticed(hand, leave, exchange) < NOTICED_WITHIN_S
    assert (await side.lines.next_calls())[0]["ending"] == "client_gone"


@WAYS
@pytest.mark.parametrize("revision", [LEGACY, MODERN])
async def test_leaving_before_an_answer_is_leaving_in_every_revision(
    side: Sidecar, hand: ByHand, upstream: Upstream, leave: Leave, revision: str
) -> None:
    """TLS has no half-closed clients: nobody waits for a second, and asyncio is not promised what it cannot do."""
    hand.send(post(tool_call(revision), revision))
    exchange = await upstream.next()
    assert await seconds_until_noticed(hand, leave, exchange) < NOTICED_WITHIN_S
    assert (await side.lines.next_calls())[0]["ending"] == "client_gone"


@WAYS
@pytest.mark.parametrize(
    "behind",
    [
        pytest.param(post(tool_call(MODERN), MODERN) * 200, id="200 calls"),
        pytest.param(post(b"x" * 1_000_000, LEGACY), id="a large body"),
    ],
)
async def test_what_is_pipelined_behind_a_modern_call_does_not_hide_that_the_client_left(
    side: Sidecar, hand: ByHand, upstream: Upstream, behind: bytes, leave: Leave
) -> None:
    """What TLS has decrypted waits in other buffers than what the socket holds."""
    hand.send(post(tool_call(MODERN), MODERN))
    exchange = await upstream.next()
    hand.send(behind)
    await side.probe("/healthz")
    assert await seconds_until_noticed(hand, leave, exchange) < NOTICED_WITHIN_S


async def test_leaving_before_the_body_is_whole_reaches_nobody(
    side: Sidecar, hand: ByHand, upstream: Upstream
) -> None:
    """A request that was never whole is never judged."""
    hand.send(post(tool_call())[:-10])
    hand.say_farewell()
    line = (await side.lines.next_calls())[0]
    assert (line["ending"], line["attempts"], upstream.links) == ("client_gone", 0, [])


async def test_a_slow_reader_slows_the_server_down(side: Sidecar, upstream: Upstream, pki: Pki) -> None:
    """TLS would keep half a megabyte of each before it calls them slow; we say when."""
    async with by_hand(side.port, pki.context(), receive_bytes=4096) as hand:
        hand.send(listen())
        exchange = await upstream.next()
        exchange.begin()
        exchange.chunk(event(NOTE))
        await hand.until(NOTE)
        hand.pause()
        pouring = asyncio.ensure_future(pour(exchange, sent := [0]))
        await stalled(exchange, sent)
        [connection] = side.house.connections
        assert connection.transport is not None
        assert MAX_UNSENT_BYTES <= connection.transport.get_write_buffer_size() < 4 * MAX_UNSENT_BYTES
        hand.resume()
        await hand.until(BIG[:1000])
        hand.reset()
        await exchange.left()
        await pouring


@pytest.mark.parametrize(
    "leave", [None, ByHand.say_farewell, ByHand.half_close], ids=["stays", "close_notify", "FIN"]
)
async def test_a_client_that_takes_nothing_is_dropped(
    open_sidecar: OpenSidecar, pki: Pki, upstream: Upstream, leave: Leave | None
) -> None:
    """listen.write_idle_timeout_s; also one that says farewell, and leaves what it was sent in the socket."""
    side = await open_sidecar(*pki.overrides(), "listen.write_idle_timeout_s=0.5")
    async with by_hand(side.port, pki.context(), receive_bytes=4096) as hand:
        hand.send(post(tool_call()))
        exchange = await upstream.next()
        exchange.begin()
        exchange.chunk(event(NOTE))
        await hand.until(NOTE)
        hand.pause()
        pouring = asyncio.ensure_future(pour(exchange, sent := [0]))
        await stalled(exchange, sent)
        if leave is not None:
            leave(hand)
        await exchange.left()
        await pouring
    assert [line["ending"] for line in await side.lines.next_calls()] == ["client_gone"]


async def test_a_client_that_takes_nothing_of_what_fits_the_socket_is_dropped_too(
    open_sidecar: OpenSidecar, pki: Pki, upstream: Upstream
) -> None:
    """What waits below TLS is out of our sight; the kernel counts there."""
    side = await open_sidecar(*pki.overrides(), "listen.write_idle_timeout_s=0.5")
    async with by_hand(side.port, pki.context(), receive_bytes=4096) as hand:
        hand.send(listen())
        exchange = await upstream.next()
        exchange.begin()
        exchange.chunk(event(NOTE))
        await hand.until(NOTE)
        hand.pause()
        exchange.chunk(BIG)
        await exchange.left()
    assert [line["ending"] for line in await side.lines.next_calls()] == ["client_gone"]


async def test_a_client_that_takes_nothing_and_leaves_without_farewell_is_noticed(
    side: Sidecar, pki: Pki, upstream: Upstream
) -> None:
    """uvloop keeps such a FIN to itself while something waits below TLS, and warns at every write."""
    async with by_hand(side.port, pki.context(), receive_bytes=4096) as hand:
        hand.send(listen())
        exchange = await upstream.next()
        exchange.begin()
        exchange.chunk(event(NOTE))
        await hand.until(NOTE)
        hand.pause()
        [connection] = side.house.connections
        transport = connection.transport
        assert transport is not None
        async with within():
            while not transport.get_write_buffer_size():  # then the socket is full, and nothing slow as yet
                exchange.chunk(SMALL)
                await turns()
        hand.half_close()
        async with within():
            while exchange.link.is_open:
                exchange.chunk(SMALL)
                await turns()
    assert [line["ending"] for line in await side.lines.next_calls()] == ["client_gone"]


async def test_idle_connections_are_closed_when_the_process_ends(side: Sidecar, client: Client) -> None:
    """Drain: a kept connection that waits for nothing is told so."""
    assert (await client.asked(request("GET", "/nothing"))).status == 404
    side.house.refuse_new()
    assert await client.ended() == b""


async def test_a_file_that_does_not_serve_is_told_at_the_start(upstream: Upstream, pki: Pki) -> None:
    """Exit code 2 as for every mistake in the settings; nothing of the file is shown."""
    pki.key.write_bytes(b"-----BEGIN PRIVATE KEY-----\nsesame\n-----END PRIVATE KEY-----\n")
    async with process(*run_words(upstream.url, *pki.overrides())) as running:
        assert await running.exit_code() == 2
        await running.lines.when(lambda lines: bool(lines.life))
    told = json.dumps(running.lines.life) + "".join(running.other)
    assert f"listen.tls.key_file: {pki.key} holds no private key" in told
    assert "sesame" not in told
