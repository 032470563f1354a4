"""Slowness costs the slow: heads, bodies and answers have their time, and the server waits instead of our memory."""

import asyncio
import os

from tests.integration.client import Client
from tests.integration.conftest import Connect, OpenSidecar
from tests.integration.house import process, run_words
from tests.integration.upstream import Exchange, Upstream
from tests.integration.waiting import within
from tests.integration.wire import NOTE, event, listen, post, request, result, tool_call

BIG = event(NOTE[:-1] + b" " * 60_000 + b"}")


async def test_a_connection_that_sends_nothing_is_closed(open_sidecar: OpenSidecar, connect: Connect) -> None:
    """listen.head_timeout_s: without a word, for none was begun."""
    side = await open_sidecar("listen.head_timeout_s=0.2")
    assert await (await connect(side.port)).ended() == b""


async def test_a_head_that_does_not_come_is_answered_408(open_sidecar: OpenSidecar, connect: Connect) -> None:
    """RFC 9110 section 15.5.9; a byte now and then buys no time."""
    side = await open_sidecar("listen.head_timeout_s=0.3")
    client = await connect(side.port)
    client.send(b"POST /mcp HTTP/1.1\r\n")
    dripping = asyncio.ensure_future(drip(client))
    said = await client.ended()
    dripping.cancel()
    assert said.startswith(b"HTTP/1.1 408 ")


async def drip(client: Client) -> None:
    while True:
        client.more(b"X: y\r\n")
        await asyncio.sleep(0.05)


async def test_a_body_that_does_not_come_is_answered_408(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """listen.body_timeout_s, from the end of the head."""
    side = await open_sidecar("listen.body_timeout_s=0.2")
    client = await connect(side.port)
    client.send(post(tool_call())[:-5])
    answer = await client.answer()
    assert (answer.status, answer.get("connection"), upstream.links) == (408, "close", [])
    assert [line["outcome"] for line in await side.lines.next_calls()] == ["timeout"]


async def test_a_kept_connection_may_rest_longer_than_a_head_may_take(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """The head's time begins with its first byte, not with the end of the last answer."""
    side = await open_sidecar("listen.head_timeout_s=0.1")
    client = await connect(side.port)
    other = await connect(side.port)
    client.send(post(tool_call()))
    (await upstream.next()).answer(result())
    await client.answer()
    assert await other.ended() == b""  # its time is up: the same length has passed for the kept one
    other = await connect(side.port)
    assert await other.ended() == b""
    client.send(post(tool_call()))
    (await upstream.next()).answer(result())
    assert (await client.answer()).status == 200


async def test_a_kept_connection_may_rest_after_requests_without_a_body(
    open_sidecar: OpenSidecar, connect: Connect
) -> None:
    """Regression: the second head without a body counted as the beginning of a third, and a resting client got 408."""
    side = await open_sidecar("listen.head_timeout_s=0.1")
    client = await connect(side.port)
    asks = request(
        "OPTIONS", fields=[("Origin", "http://127.0.0.1"), ("Access-Control-Request-Method", "POST")]
    )
    for _ in range(2):
        assert (await client.asked(asks)).status == 204
    for _ in range(2):
        assert (
            await (await connect(side.port)).ended() == b""
        )  # its time is up: as long has passed for the other
    assert (await client.asked(asks)).status == 204


async def pour(exchange: Exchange, sent: list[int]) -> None:
    """Events as fast as they are taken."""
    while exchange.link.is_open:
        exchange.chunk(BIG)
        sent[0] += len(BIG)
        await exchange.link.drained()
        await asyncio.sleep(0)


async def stalled(exchange: Exchange, sent: list[int]) -> None:
    """Wait until the server has had to stop for a moment."""
    async with within():
        before = -1
        while exchange.link.may_write or sent[0] != before:
            before = sent[0]
            await asyncio.sleep(0.1)


async def test_a_slow_reader_slows_the_server_down(connect: Connect, upstream: Upstream) -> None:
    """style guide 4: bound the slow reader; measured in the sidecar's own memory."""
    async with process(*run_words(upstream.url)) as running:
        port, _ = await running.listening()
        client = await connect(port, receive_bytes=4096)
        client.send(listen())
        exchange = await upstream.next()
        exchange.begin()
        await client.head()
        client.pause()
        before = resident_bytes(running.process.pid)
        sent = [0]
        pouring = asyncio.ensure_future(pour(exchange, sent))
        await stalled(exchange, sent)
        stuck = sent[0]
        assert resident_bytes(running.process.pid) - before < 8_000_000
        assert stuck < 40_000_000, "kernel buffers on both sides, and no more"
        client.resume()
        taken = await client.until(b"}\n\n")
        assert taken.startswith(b"event: message")
        client.close()
        await exchange.left()
        await pouring


def resident_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_a_client_that_takes_nothing_is_dropped(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """listen.write_idle_timeout_s: it would hold the server for ever."""
    side = await open_sidecar("listen.write_idle_timeout_s=0.5")
    client = await connect(side.port, receive_bytes=4096)
    client.send(post(tool_call()))
    exchange = await upstream.next()
    exchange.begin()
    await client.head()
    client.pause()
    pouring = asyncio.ensure_future(pour(exchange, [0]))
    await exchange.left()
    await pouring
    assert [line["ending"] for line in await side.lines.next_calls()] == ["client_gone"]
