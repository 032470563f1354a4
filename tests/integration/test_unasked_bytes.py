"""What a server sends unasked never becomes the answer to somebody's request; kept connections work otherwise."""

import asyncio

import pytest

from tests.integration.client import Client
from tests.integration.conftest import Connect
from tests.integration.house import Sidecar
from tests.integration.upstream import Exchange, Upstream
from tests.integration.wire import event, post, result, tool_call

pytestmark = pytest.mark.usefixtures("each_transport")


def head(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)


def planted() -> bytes:
    """A whole answer nobody asked for, to the id that every client begins with."""
    return head(result(1, "planted")) + result(1, "planted")


async def serve_honestly(exchange: Exchange) -> None:
    exchange.answer(result(1, "honest"))


async def bob_gets(side: Sidecar, upstream: Upstream, connect: Connect) -> bytes:
    """The answer to the same call by somebody else, on a connection of his own."""
    upstream.follow(serve_honestly)
    bob = await connect(side.port)
    return (await bob.asked(post(tool_call()))).body


async def test_an_answer_planted_on_an_idle_connection_closes_it(
    side: Sidecar, client: Client, upstream: Upstream, connect: Connect
) -> None:
    """design section 4, upstream: unsolicited bytes on an idle connection close it."""
    client.send(post(tool_call()))
    exchange = await upstream.next()
    exchange.answer(result())
    await client.answer()
    exchange.write(planted())
    await exchange.left()
    assert await bob_gets(side, upstream, connect) == result(1, "honest")


async def test_an_answer_planted_behind_the_head_and_body_is_dropped(
    side: Sidecar, client: Client, upstream: Upstream, connect: Connect
) -> None:
    """Promise 3: nobody sees another's data."""
    client.send(post(tool_call()))
    exchange = await upstream.next()
    exchange.write(head(result()) + result() + planted())
    assert (await client.answer()).body == result()
    await exchange.left()
    assert await bob_gets(side, upstream, connect) == result(1, "honest")


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
async def test_an_answer_planted_behind_a_last_chunk_is_dropped(
    side: Sidecar, client: Client, upstream: Upstream, connect: Connect, kind: str
) -> None:
    """Promise 3, where the end of the body and the planted answer come in one piece after the head was read."""
    client.send(post(tool_call()))
    exchange = await upstream.next()
    exchange.begin(kind=kind)
    if kind == "application/json":
        exchange.chunk(result())
        await reading(side)
    else:
        exchange.chunk(event(result()))
        await client.head()
        await client.until(b"\n\n")
    exchange.write(b"0\r\n\r\n" + planted())
    if kind == "application/json":
        assert (await client.answer()).body == result()
    else:
        assert await client.rest() == b""
    assert await bob_gets(side, upstream, connect) == result(1, "honest")


async def reading(side: Sidecar) -> None:
    """Wait until the head of the answer has been read: a probe of the same loop has gone there and back."""
    for _ in range(3):
        await side.probe("/healthz")


async def test_calls_share_one_kept_connection(side: Sidecar, client: Client, upstream: Upstream) -> None:
    """upstream: a keep-alive pool."""
    upstream.follow(serve_honestly)
    for _ in range(5):
        assert (await client.asked(post(tool_call()))).body == result(1, "honest")
    assert len(upstream.links) == 1


async def test_a_connection_the_server_closed_while_idle_fails_nobody(
    side: Sidecar, client: Client, upstream: Upstream
) -> None:
    """upstream: a server that restarts between two calls is met anew."""
    client.send(post(tool_call()))
    exchange = await upstream.next()
    exchange.answer(result())
    await client.answer()
    await upstream.close()
    await upstream.open()
    await reading(side)
    upstream.follow(serve_honestly)
    assert (await client.asked(post(tool_call()))).body == result(1, "honest")
    assert len(upstream.links) == 2


async def test_an_answer_that_closes_is_not_reused(side: Sidecar, client: Client, upstream: Upstream) -> None:
    """RFC 9112 section 9.6: after `Connection: close` nothing more is sent there."""
    client.send(post(tool_call()))
    exchange = await upstream.next()
    exchange.answer(result(), "Connection: close")
    assert (await client.answer()).get("connection") is None
    await exchange.left()
    upstream.follow(serve_honestly)
    await client.asked(post(tool_call()))
    assert len(upstream.links) == 2


async def test_many_callers_at_once_get_their_own_answers(
    side: Sidecar, upstream: Upstream, connect: Connect
) -> None:
    """Promise 3: answers in another order than the calls."""
    clients = [await connect(side.port) for _ in range(10)]
    for number, each in enumerate(clients):
        each.send(post(tool_call(id=number)))
    exchanges = [await upstream.next() for _ in clients]
    for exchange in reversed(exchanges):
        id = int(exchange.request.body.split(b'"id": ')[1].split(b",")[0])
        exchange.answer(result(id, f"for {id}"))
    answers = await asyncio.gather(*(each.answer() for each in clients))
    assert [each.body for each in answers] == [result(n, f"for {n}") for n in range(10)]
