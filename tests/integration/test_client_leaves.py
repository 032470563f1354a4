"""A client that leaves is noticed at once, its upstream connection is closed, and nothing is said in its name."""

import time
from collections.abc import Callable

import pytest

from tests.integration.client import Client
from tests.integration.conftest import Connect
from tests.integration.house import Sidecar
from tests.integration.upstream import Exchange, Upstream
from tests.integration.waiting import turns
from tests.integration.wire import (
    LEGACY,
    MODERN,
    NOTE,
    REVISIONS,
    event,
    listen,
    message,
    post,
    request,
    result,
    tool_call,
)

pytestmark = pytest.mark.usefixtures("each_transport")

NOTICED_WITHIN_S = 0.75
"""Below the second that a half-closed legacy client is granted; measured: 0.4 ms."""

Leave = Callable[[Client], None]
WAYS = pytest.mark.parametrize("leave", [Client.close, Client.reset], ids=["close", "reset"])


async def seconds_until_noticed(client: Client, leave: Leave, exchange: Exchange) -> float:
    begin = time.perf_counter()
    leave(client)
    await exchange.left(seconds=2)
    return time.perf_counter() - begin


@WAYS
@pytest.mark.parametrize("revision", REVISIONS)
async def test_leaving_a_silent_stream_of_a_call_closes_it_upstream(
    side: Sidecar, client: Client, upstream: Upstream, revision: str, leave: Leave
) -> None:
    """2026-07-28 basic/patterns/cancellation; for older revisions the disconnect is passed on as one."""
    client.send(post(tool_call(revision), revision))
    exchange = await upstream.next()
    exchange.begin()
    exchange.chunk(event(NOTE))
    await client.head()
    await client.until(b"\n\n")
    assert await seconds_until_noticed(client, leave, exchange) < NOTICED_WITHIN_S
    line = (await side.lines.next_calls())[0]
    assert (line["outcome"], line["ending"]) == ("cancelled", "client_gone")


@WAYS
async def test_leaving_a_listening_stream_closes_it_upstream(
    side: Sidecar, client: Client, upstream: Upstream, leave: Leave
) -> None:
    """Trap 35: a GET kept open upstream makes the server refuse the client's next one."""
    client.send(listen())
    exchange = await upstream.next()
    exchange.begin()
    await client.head()
    assert await seconds_until_noticed(client, leave, exchange) < NOTICED_WITHIN_S
    assert (await side.lines.next_calls())[0]["ending"] == "client_gone"


async def test_a_listener_that_has_heard_enough_is_no_failure(
    side: Sidecar, client: Client, upstream: Upstream
) -> None:
    """Record.outcome: a stream of server messages ends when the client has heard enough."""
    client.send(listen())
    exchange = await upstream.next()
    exchange.begin()
    await client.head()
    client.close()
    await exchange.left()
    line = (await side.lines.next_calls())[0]
    assert (line["outcome"], line.get("kind")) == ("ok", "listen")


async def test_a_modern_client_that_is_reset_before_an_answer_cancels_upstream(
    side: Sidecar, client: Client, upstream: Upstream
) -> None:
    """2026-07-28: closing the response is the cancellation."""
    client.send(post(tool_call(MODERN), MODERN))
    exchange = await upstream.next()
    assert await seconds_until_noticed(client, Client.reset, exchange) < NOTICED_WITHIN_S


async def test_a_modern_client_that_closes_before_an_answer_cancels_upstream_at_once(
    side: Sidecar, client: Client, upstream: Upstream
) -> None:
    """2026-07-28 cancellation: there is no half-closed client to wait for."""
    client.send(post(tool_call(MODERN), MODERN))
    exchange = await upstream.next()
    assert await seconds_until_noticed(client, Client.close, exchange) < NOTICED_WITHIN_S


async def test_a_legacy_client_that_closed_its_half_gets_its_answer(
    side: Sidecar, client: Client, upstream: Upstream
) -> None:
    """2025 eras: disconnection SHOULD NOT be taken for cancellation; a FIN may mean no more than that."""
    client.send(post(tool_call()))
    client.half_close()
    exchange = await upstream.next()
    exchange.answer(result())
    assert (await client.answer()).body == result()
    assert await client.ended() == b""


@pytest.mark.parametrize("revision", ["2025-03-26", "2025-06-18", "2025-11-25"])
async def test_a_legacy_disconnect_is_never_told_as_a_cancellation(
    side: Sidecar, client: Client, upstream: Upstream, connect: Connect, revision: str
) -> None:
    """Trap 38: the server decides what a disconnect means."""
    client.send(post(tool_call(revision), revision))
    exchange = await upstream.next()
    client.reset()
    await exchange.left()
    other = await connect(side.port)
    other.send(post(message("ping", revision, 2), revision))
    (await upstream.next()).answer(result(2))
    await other.answer()
    assert [each.body for each in upstream.seen] == [tool_call(revision), message("ping", revision, 2)]


async def test_leaving_before_the_body_is_whole_reaches_nobody(
    side: Sidecar, client: Client, upstream: Upstream
) -> None:
    """A request that was never whole is never judged and never forwarded."""
    client.send(post(tool_call())[:-10])
    client.close()
    line = (await side.lines.next_calls())[0]
    assert (line["ending"], line["attempts"], upstream.links) == ("client_gone", 0, [])


async def test_leaving_after_the_answer_is_no_ending_of_the_call(
    side: Sidecar, client: Client, upstream: Upstream
) -> None:
    """A call ends once: with its answer, not with its connection."""
    client.send(post(tool_call()))
    (await upstream.next()).answer(result())
    await client.answer()
    await client.closed()
    await turns()
    lines = await side.lines.next_calls()
    assert [(line["outcome"], line["ending"]) for line in lines] == [("ok", "complete")]


@pytest.mark.parametrize(
    "behind",
    [
        pytest.param(request("GET", "/nowhere") * 40, id="40 requests"),
        pytest.param(post(b"x" * 1_000_000, "2025-03-26"), id="a large body"),
    ],
)
async def test_what_is_pipelined_behind_a_stream_does_not_hide_that_the_client_left(
    side: Sidecar, client: Client, upstream: Upstream, behind: bytes
) -> None:
    """aiohttp stops reading a connection whose queue is full; the stream must not outlive its client."""
    client.send(listen(revision=LEGACY))
    exchange = await upstream.next()
    exchange.begin()
    await client.head()
    client.more(behind)
    await side.probe("/healthz")
    assert await seconds_until_noticed(client, Client.reset, exchange) < NOTICED_WITHIN_S


@pytest.mark.parametrize(
    "behind",
    [
        pytest.param(post(tool_call(MODERN), MODERN) * 200, id="200 calls"),
        pytest.param(post(b"x" * 1_000_000, LEGACY), id="a large body"),
    ],
)
@WAYS
async def test_what_is_pipelined_behind_a_modern_call_does_not_hide_that_the_client_left(
    side: Sidecar, client: Client, upstream: Upstream, behind: bytes, leave: Leave
) -> None:
    """basic/patterns/cancellation: leaving cancels, also before the answer begins."""
    client.send(post(tool_call(MODERN), MODERN))
    exchange = await upstream.next()
    client.more(behind)
    await side.probe("/healthz")
    assert await seconds_until_noticed(client, leave, exchange) < NOTICED_WITHIN_S


async def test_a_large_body_on_a_connection_that_carried_a_modern_call_arrives(
    side: Sidecar, client: Client, upstream: Upstream
) -> None:
    """What is said of a call ends with it."""
    for text in ("a", "b" * 1_000_000):
        body = message("tools/call", MODERN, 1, name="echo", arguments={"text": text})
        client.send(post(body, MODERN))
        exchange = await upstream.next()
        assert exchange.request.body == body
        exchange.answer(result())
        assert (await client.answer()).status == 200
