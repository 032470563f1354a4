"""Every way a call can end: one line with the right words, no connection and no task left behind.

The fixtures find tasks that were left; the connections are counted at the server.
"""

from collections.abc import Awaitable, Callable

import pytest

from tests.integration.client import Client, Cut
from tests.integration.house import Sidecar
from tests.integration.upstream import Exchange, Upstream
from tests.integration.waiting import within
from tests.integration.wire import LEGACY, MODERN, NOTE, event, message, post, result, tool_call

HELD_BYTES = 262_144
Course = Callable[[Client, Exchange], Awaitable[None]]


async def whole(client: Client, exchange: Exchange) -> None:
    exchange.answer(result())
    await client.answer()


async def whole_and_large(client: Client, exchange: Exchange) -> None:
    exchange.answer(result(text="x" * 2 * HELD_BYTES))
    await client.answer()


async def tool_error(client: Client, exchange: Exchange) -> None:
    exchange.answer(b'{"jsonrpc":"2.0","id":1,"result":{"isError":true,"content":[]}}')
    await client.answer()


async def rpc_error(client: Client, exchange: Exchange) -> None:
    exchange.answer(b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"no"}}')
    await client.answer()


async def stream_complete(client: Client, exchange: Exchange) -> None:
    exchange.begin()
    exchange.chunk(event(NOTE) + event(result()))
    exchange.end()
    await client.answer()


async def client_leaves_before_the_head(client: Client, exchange: Exchange) -> None:
    client.reset()
    await exchange.left()


async def client_leaves_during_the_stream(client: Client, exchange: Exchange) -> None:
    exchange.begin()
    exchange.chunk(event(NOTE))
    await client.head()
    await client.some()
    client.reset()
    await exchange.left()


async def client_leaves_during_a_large_body(client: Client, exchange: Exchange) -> None:
    exchange.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 900000\r\n\r\n")
    exchange.write(b'{"jsonrpc":"2.0","id":1,"result":{"t":"' + b"x" * 2 * HELD_BYTES)
    await client.head()
    client.reset()
    await exchange.left()


async def server_breaks_before_the_head(client: Client, exchange: Exchange) -> None:
    exchange.link.reset()
    await client.answer()


async def server_breaks_during_the_stream(client: Client, exchange: Exchange) -> None:
    exchange.begin()
    exchange.chunk(event(NOTE))
    await client.head()
    await client.some()
    exchange.link.reset()
    await client.rest()


async def server_breaks_during_a_large_body(client: Client, exchange: Exchange) -> None:
    exchange.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 900000\r\n\r\n")
    exchange.write(b'{"jsonrpc":"2.0","id":1,"result":{"t":"' + b"x" * 2 * HELD_BYTES)
    await client.head()
    exchange.link.reset()
    with pytest.raises(Cut):
        await client.rest()


async def server_answers_another(client: Client, exchange: Exchange) -> None:
    exchange.answer(result(2))
    await client.answer()


COURSES: list[tuple[Course, str, str]] = [
    (whole, "ok", "complete"),
    (whole_and_large, "ok", "complete"),
    (tool_error, "tool_error", "complete"),
    (rpc_error, "rpc_error", "complete"),
    (stream_complete, "ok", "complete"),
    (client_leaves_before_the_head, "cancelled", "client_gone"),
    (client_leaves_during_the_stream, "cancelled", "client_gone"),
    (client_leaves_during_a_large_body, "cancelled", "client_gone"),
    (server_breaks_before_the_head, "outcome_unknown", "complete"),
    (server_breaks_during_the_stream, "outcome_unknown", "upstream_broke"),
    (server_breaks_during_a_large_body, "outcome_unknown", "upstream_broke"),
    (server_answers_another, "upstream_error", "complete"),
]


@pytest.mark.parametrize("revision", [LEGACY, MODERN])
@pytest.mark.parametrize(("course", "outcome", "ending"), COURSES, ids=[each[0].__name__ for each in COURSES])
async def test_a_call_ends_once(
    side: Sidecar,
    client: Client,
    upstream: Upstream,
    course: Course,
    outcome: str,
    ending: str,
    revision: str,
) -> None:
    """style guide 12: the endings matrix, over a real socket."""
    client.send(post(tool_call(revision), revision))
    exchange = await upstream.next()
    await course(client, exchange)
    line = (await side.lines.next_calls())[0]
    assert (line["outcome"], line["ending"], line["attempts"]) == (outcome, ending, 1)
    assert (line["tool"], line["revision"], line["tenant"]) == ("echo", revision, "local")
    await client.closed()
    await side.probe("/healthz")  # the loop has turned: what would end twice has ended twice
    assert len(side.lines.calls) == 1
    if outcome not in ("ok", "tool_error", "rpc_error", "upstream_error"):
        assert upstream.open_links == 0
    assert upstream.open_links <= 1


REFUSED = [
    (b"{", "invalid", "malformed"),
    (message("tools/call", LEGACY, 1, name=""), "invalid", "malformed"),
    (message("tools/list", MODERN, 1), "invalid", "header_mismatch"),
]


@pytest.mark.parametrize(("body", "outcome", "reason"), REFUSED)
async def test_a_refused_call_ends_once_and_reaches_nobody(
    side: Sidecar, client: Client, upstream: Upstream, body: bytes, outcome: str, reason: str
) -> None:
    """observe comes first: malformed requests are seen too."""
    answer = await client.asked(post(body))
    lines = await side.lines.next_calls()
    assert answer.status == 400
    assert [(line["outcome"], line["reason"], line["attempts"]) for line in lines] == [(outcome, reason, 0)]
    assert upstream.links == []


async def test_a_house_that_closes_ends_what_is_open(
    side: Sidecar, client: Client, upstream: Upstream
) -> None:
    """drain: what does not finish in time is cut off, and its line is written."""
    client.send(post(tool_call()))
    exchange = await upstream.next()
    exchange.begin()
    exchange.chunk(event(NOTE))
    await client.head()
    await client.some()
    async with within():
        assert await side.house.close(grace_s=0) == 1
    await exchange.left()
    assert [line["ending"] for line in side.lines.calls] == ["client_gone"]
