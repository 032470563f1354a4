"""What is survived and what is said when it is not, over real sockets: attempts, deadlines, and a server left alone.

Source: issue 7; design.md section 4 "resilience"; protocol.md 7.1, 7.5 and 7.6.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.integration.client import Client
from tests.integration.conftest import Connect, OpenSidecar
from tests.integration.house import Sidecar
from tests.integration.upstream import Exchange, Upstream, fields_of
from tests.integration.waiting import until, within
from tests.integration.wire import LEGACY, MODERN, Answer, event, listen, message, post, result, tool_call

REVISION = "2024-11-05"
QUICK = "resilience.backoff_s=0.001"
TOOLS = [
    {"match": "again", "allow": ["*"], "idempotent": True},
    {"match": "keyed", "allow": ["*"], "idempotent": True, "idempotency_key": True},
    {
        "match": "hedged*",
        "allow": ["*"],
        "class": "read",
        "idempotent": True,
        "idempotency_key": True,
        "hedge_after_s": 0.05,
    },
    {"match": "quick", "allow": ["*"], "timeout_s": 0.05},
    {"match": "*", "allow": ["*"]},
]
POLICY = "policy=" + json.dumps({"tools": TOOLS, "methods": {"*": {"allow": ["*"]}}})


@pytest.fixture
async def side(open_sidecar: OpenSidecar) -> Sidecar:
    return await open_sidecar(POLICY, QUICK)


@pytest.fixture
async def client(side: Sidecar, connect: Connect) -> Client:
    return await connect(side.port)


def refusal_of(answer: Answer) -> Any:
    assert isinstance(answer.json, dict), answer.body
    result = answer.json.get("result")
    return result["_meta"]["dev.mcp-sidecar/refusal"] if result else answer.json["error"]["data"]


@pytest.mark.parametrize("tool", ["again", "keyed"])
async def test_what_may_be_done_twice_is_sent_again(
    side: Sidecar, client: Client, upstream: Upstream, tool: str
) -> None:
    """The caller sees one answer; the record says how many attempts it took."""
    client.send(post(tool_call(tool=tool)))
    for _ in range(2):
        (await upstream.next()).link.reset()
    (await upstream.next()).answer(result())
    assert (await client.answer()).body == result()
    (line,) = await side.lines.next_calls()
    assert (line["outcome"], line["attempts"]) == ("ok", 3)
    keys = [fields_of(request, "Idempotency-Key") for request in upstream.seen]
    assert keys == [keys[0]] * 3
    assert bool(keys[0]) == (tool == "keyed")


async def test_what_may_have_happened_is_not(side: Sidecar, client: Client, upstream: Upstream) -> None:
    """Promise 4: never twice; and it is said that nobody knows."""
    client.send(post(tool_call(tool="pay")))
    (await upstream.next()).link.reset()
    assert refusal_of(await client.answer())["reason"] == "outcome_unknown"
    assert len(upstream.seen) == 1


@pytest.mark.parametrize("tool", ["again", "pay"])
async def test_a_server_that_comes_back_is_found_by_any_call(
    side: Sidecar, client: Client, connect: Connect, upstream: Upstream, tool: str
) -> None:
    """Nothing was sent, so nothing can have happened."""
    await upstream.close()
    client.send(post(tool_call(tool=tool)))
    await until(
        lambda: (
            side.house.rooms.resilience.retrying is not None
            and side.house.rooms.resilience.retrying.repeated > 0
        )
    )
    await upstream.open()
    answer, arrival = asyncio.ensure_future(client.answer()), asyncio.ensure_future(upstream.next())
    await asyncio.wait([answer, arrival], return_when=asyncio.FIRST_COMPLETED)
    if answer.done():
        # It had no more attempts: three of them take a few milliseconds here.
        arrival.cancel()
        assert refusal_of(await answer)["reason"] == "upstream_unreachable"
        return
    (await arrival).answer(result())
    assert (await answer).body == result()
    assert len(upstream.seen) == 1


async def test_a_server_that_asks_for_patience_gets_it(client: Client, upstream: Upstream) -> None:
    """Retry-After, within the deadline; a longer one is for the caller to wait (UP-054)."""
    client.send(post(tool_call(tool="again")))
    (await upstream.next()).answer(b"", "Retry-After: 0", status="503 Service Unavailable", kind="")
    (await upstream.next()).answer(result())
    assert (await client.answer()).body == result()
    client.send(post(tool_call(tool="again")))
    (await upstream.next()).answer(b"", "Retry-After: 999999999", status="429 Too Many Requests", kind="")
    said = refusal_of(await client.answer())
    assert (said["reason"], said["retryAfterMs"]) == ("upstream_broke", 86_400_000)
    assert len(upstream.seen) == 3


async def test_what_was_answered_is_final(client: Client, upstream: Upstream) -> None:
    """An error of the server or of its tool is an answer; so is what has begun on a stream."""
    error = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"no"}}'
    client.send(post(tool_call(tool="again")))
    (await upstream.next()).answer(error)
    assert (await client.answer()).body == error
    client.send(post(tool_call(tool="again")))
    exchange = await upstream.next()
    exchange.begin()
    exchange.chunk(event(b'{"jsonrpc":"2.0","method":"notifications/message","params":{}}'))
    exchange.link.close()
    await client.answer()
    assert len(upstream.seen) == 2


@pytest.mark.parametrize(("tool", "reason"), [("quick", "outcome_unknown"), ("again", "deadline")])
async def test_a_call_has_so_long_and_no_longer(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, tool: str, reason: str
) -> None:
    """The place is free at once, and a server of older revisions is told."""
    side = await open_sidecar(POLICY, "resilience.timeout_s=0.05", "capacity.max_in_flight=1")
    client = await connect(side.port)
    client.send(post(tool_call(tool=tool, id="mine"), LEGACY, ("Mcp-Session-Id", "s")))
    exchange = await upstream.next()
    answer = await client.answer()
    assert refusal_of(answer)["reason"] == reason
    await exchange.left()
    told = await upstream.next()
    said: Any = json.loads(told.request.body)
    assert said["method"] == "notifications/cancelled"
    assert said["params"]["requestId"] == "mine"
    assert fields_of(told.request, "Mcp-Session-Id") == ["s"]
    told.answer(b"", status="202 Accepted", kind="")
    client.send(post(tool_call(tool="other", id=2)))
    (await upstream.next()).answer(result(2))
    assert (await client.answer()).body == result(2)
    assert side.house.rooms.capacity.in_flight == 0


@pytest.mark.parametrize("by", ["header", "meta"])
async def test_a_caller_may_have_less_patience_and_not_more(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, by: str
) -> None:
    """In 2026-07-28 leaving is cancelling: nothing more is said to the server."""
    side = await open_sidecar(POLICY, "resilience.timeout_s=30")
    client = await connect(side.port)

    def wishing(milliseconds: int) -> bytes:
        if by == "header":
            return post(tool_call(MODERN), MODERN, ("Mcp-Sidecar-Timeout-Ms", str(milliseconds)))
        sent: Any = json.loads(tool_call(MODERN))
        sent["params"]["_meta"]["dev.mcp-sidecar/timeout-ms"] = milliseconds
        return post(json.dumps(sent).encode(), MODERN)

    client.send(wishing(50))
    exchange = await upstream.next()
    assert refusal_of(await client.answer())["reason"] == "outcome_unknown"
    await exchange.left()
    client.send(wishing(86_400_000))
    (await upstream.next()).answer(result())
    assert (await client.answer()).body == result()
    assert len(upstream.seen) == 2


async def test_silence_ends_a_stream_and_a_word_does_not(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """Any byte counts; the last word tells the one who waits."""
    side = await open_sidecar(POLICY, "resilience.stream_idle_timeout_s=0.2", "resilience.timeout_s=30")
    client = await connect(side.port)
    client.send(post(tool_call()))
    exchange = await upstream.next()
    exchange.begin()
    await client.head()
    began = asyncio.get_running_loop().time()
    for _ in range(4):
        exchange.chunk(b": ping\n\n")
        await client.until(b"ping")
        async with within():
            await asyncio.wait([asyncio.ensure_future(exchange.link.left.wait())], timeout=0.1)
        assert not exchange.link.left.is_set()
    rest = await client.rest()
    assert asyncio.get_running_loop().time() - began > 0.4
    assert b"outcome_unknown" in rest
    await exchange.left()


async def test_an_answer_that_would_have_come_elsewhere_is_refused_there(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """HTTP+SSE: the refusal stands on the stream, the session goes on, and a late answer is not foreign."""
    side = await open_sidecar(POLICY, "resilience.timeout_s=0.05", url=upstream.url.replace("/mcp", "/sse"))
    listener, poster = await connect(side.port), await connect(side.port)
    listener.send(b"GET /sse HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n")
    stream = await upstream.next()
    stream.begin()
    stream.chunk(b"event: endpoint\ndata: /messages?session_id=1\n\n")
    await listener.head()
    uri = (await listener.until(b"\n\n")).partition(b"data: ")[2].split()[0].decode()
    poster.send(post(tool_call(REVISION), REVISION, target=uri))
    (await upstream.next()).answer(b"", status="202 Accepted", kind="")
    assert (await poster.answer()).status == 202
    assert b"outcome_unknown" in await listener.until(b"isError")
    told = await upstream.next()
    assert b"notifications/cancelled" in told.request.body
    assert told.request.target == "/messages?session_id=1"
    told.answer(b"", status="202 Accepted", kind="")
    stream.chunk(event(result()))
    stream.chunk(event(b'{"jsonrpc":"2.0","method":"notifications/still/here"}'))
    await listener.until(b"still/here")
    assert side.house.rooms.capacity.in_flight == 0


async def test_a_server_that_keeps_failing_is_left_alone_and_tried_again(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """Open after the fifth failure; one call at a time tries it; closed when that succeeds."""
    side = await open_sidecar(POLICY, "resilience.breaker.open_s=0.3", "resilience.breaker.max_open_s=0.3")
    client = await connect(side.port)
    for _ in range(5):
        client.send(post(tool_call(tool="pay")))
        (await upstream.next()).link.reset()
        assert refusal_of(await client.answer())["reason"] == "outcome_unknown"
    client.send(post(tool_call(tool="pay")))
    said = refusal_of(await client.answer())
    assert said["reason"] == "breaker_open"
    assert 0 < said["retryAfterMs"] <= 300
    assert side.house.health.why_degraded() == ["the server keeps failing and is left alone"]
    tried = asyncio.ensure_future(upstream.next())
    while not tried.done():
        # Clients that ask on are told so until one of them tries it.
        client.send(post(tool_call(tool="pay")))
        waiting = asyncio.ensure_future(client.answer())
        async with within():
            await asyncio.wait([waiting, tried], return_when=asyncio.FIRST_COMPLETED)
    probe = await tried
    other = await connect(side.port)
    other.send(post(tool_call(tool="pay")))
    assert refusal_of(await other.answer())["reason"] == "breaker_open"
    probe.answer(result())
    assert (await waiting).body == result()
    other.send(post(tool_call(tool="pay")))
    (await upstream.next()).answer(result())
    assert (await other.answer()).body == result()
    assert side.house.health.why_degraded() == []


@pytest.mark.parametrize(("method", "revision"), [("initialize", LEGACY), ("server/discover", MODERN)])
async def test_no_client_changes_era_because_its_server_is_down(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, method: str, revision: str
) -> None:
    """Trap 40: a plain 502 or 503, never a JSON-RPC error, or clients fall back for good."""
    side = await open_sidecar(POLICY, QUICK)
    client = await connect(side.port)
    for _ in range(5):
        client.send(post(tool_call(tool="pay")))
        (await upstream.next()).link.reset()
        await client.answer()
    await upstream.close()
    client.send(post(message(method, revision, protocolVersion=revision), revision))
    answer = await client.answer()
    assert answer.status in (502, 503)
    assert answer.get("content-type") == "text/plain; charset=utf-8"
    await upstream.open()


async def test_no_more_is_repeated_than_the_budget_has(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """20 % and 10 a second: a failing server is not made to fail three times as much."""

    async def fail(exchange: Exchange) -> None:
        exchange.answer(b"", status="503 Service Unavailable", kind="")

    upstream.follow(fail)
    side = await open_sidecar(POLICY, QUICK, "resilience.breaker.enabled=false")
    client = await connect(side.port)
    for _ in range(300):
        client.send(post(tool_call(tool="again")))
        assert refusal_of(await client.answer())["reason"] == "upstream_broke"
    assert 300 < len(upstream.seen) <= 300 + 100 + 60
    retrying = side.house.rooms.resilience.retrying
    assert retrying is not None
    assert retrying.withheld["budget"] > 0


BUSY = "503 Service Unavailable"


@pytest.mark.parametrize("form", ["result", "http"])
@pytest.mark.parametrize(
    ("tool", "status", "reason"),
    [
        ("pay", BUSY, "upstream_broke"),
        ("pay", "429 Too Many Requests", "upstream_broke"),
        ("pay", "502 Bad Gateway", "outcome_unknown"),
        ("again", "502 Bad Gateway", "upstream_broke"),
    ],
)
async def test_an_error_without_a_word_gets_some(
    open_sidecar: OpenSidecar,
    connect: Connect,
    upstream: Upstream,
    form: str,
    tool: str,
    status: str,
    reason: str,
) -> None:
    """UP-054, UP-055: a model can read it; its status is the server's where a status is asked for."""
    side = await open_sidecar(POLICY, QUICK, f"refusals={form}", "resilience.attempts=1")
    client = await connect(side.port)
    client.send(post(tool_call(tool=tool)))
    (await upstream.next()).answer(b"", "Retry-After: 7", status=status, kind="")
    answer = await client.answer()
    assert answer.status == (200 if form == "result" else int(status[:3]))
    assert json.loads(answer.body)["id"] == 1
    assert f"HTTP {status[:3]} and nothing else".encode() in answer.body
    told = None if reason == "outcome_unknown" else 7
    said = refusal_of(answer)
    assert (said["reason"], said.get("retryAfterMs")) == (reason, told and told * 1_000)
    assert answer.get("retry-after") == (None if told is None else str(told))
    (line,) = await side.lines.next_calls()
    assert (line["reason"], line["altered"]) == (reason, ["words for an empty error"])
    assert side.house.rooms.capacity.in_flight == 0


@pytest.mark.parametrize(
    "sent",
    [
        post(message("initialize", LEGACY, protocolVersion=LEGACY)),
        post(message("server/discover", MODERN), MODERN),
        post(message("notifications/initialized", LEGACY, None)),
        listen(),
    ],
)
async def test_what_a_client_reads_by_its_status_passes(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, sent: bytes
) -> None:
    """Trap 40: a handshake picks the revision by it; nobody waits for the others' answers."""
    side = await open_sidecar(POLICY, "resilience.attempts=1")
    client = await connect(side.port)
    client.send(sent)
    (await upstream.next()).answer(b"", "Retry-After: -1e9", "X-Busy: very", status=BUSY, kind="")
    answer = await client.answer()
    assert (answer.status, answer.body) == (503, b"")
    assert (answer.get("retry-after"), answer.get("x-busy")) == ("-1e9", "very")


@pytest.mark.parametrize("status", ["400 No", "401 No", "403 No", "404 Not Found", "405 No", "410 Gone"])
async def test_an_empty_error_of_the_clients_passes(
    side: Sidecar, client: Client, upstream: Upstream, status: str
) -> None:
    """A lost session must stay a 404, or its client would never begin a new one."""
    client.send(post(tool_call(tool="pay")))
    (await upstream.next()).answer(b"", status=status, kind="")
    answer = await client.answer()
    assert (answer.status, answer.body) == (int(status[:3]), b"")


@pytest.mark.parametrize("body", [b" ", b"busy", b"<h1>busy</h1>"])
async def test_words_of_the_servers_own_pass(
    side: Sidecar, client: Client, upstream: Upstream, body: bytes
) -> None:
    """Promise 1: byte for byte, with its own Retry-After."""
    client.send(post(tool_call(tool="pay")))
    (await upstream.next()).answer(body, "Retry-After: soon", status=BUSY, kind="text/plain")
    answer = await client.answer()
    assert (answer.status, answer.body, answer.get("retry-after")) == (503, body, "soon")


async def test_an_empty_error_may_call_itself_a_stream(
    side: Sidecar, client: Client, upstream: Upstream
) -> None:
    """Whatever type nothing is of."""
    client.send(post(tool_call(tool="pay")))
    (await upstream.next()).answer(b"", status=BUSY, kind="text/event-stream")
    assert refusal_of(await client.answer())["reason"] == "upstream_broke"


async def test_each_request_of_a_batch_is_told(side: Sidecar, client: Client, upstream: Upstream) -> None:
    """2025-03-26: one body for all of them, and no word to the notification."""
    parts = [
        tool_call(id=1, tool="pay"),
        message("tools/list", LEGACY, "2"),
        message("notifications/x", LEGACY, None),
    ]
    client.send(post(b"[" + b",".join(parts) + b"]", "2025-03-26"))
    (await upstream.next()).answer(b"", "Retry-After: 7", status=BUSY, kind="")
    answer = await client.answer()
    said = json.loads(answer.body)
    assert (answer.status, [each["id"] for each in said]) == (200, [1, "2"])
    assert said[0]["result"]["_meta"]["dev.mcp-sidecar/refusal"]["reason"] == "upstream_broke"
    assert said[1]["error"]["data"]["retryAfterMs"] == 7_000


@pytest.mark.parametrize("winner", [0, 1])
@pytest.mark.parametrize("how", ["whole", "stream"])
async def test_a_slow_read_is_sent_a_second_time_and_the_first_answer_wins(
    side: Sidecar, client: Client, upstream: Upstream, winner: int, how: str
) -> None:
    """Issue 7, item 2. Whoever lost sees its connection closed, which is how 2026-07-28 cancels; one place is held."""
    client.send(post(tool_call(MODERN, tool="hedged"), MODERN))
    both = [await upstream.next(), await upstream.next()]
    assert side.house.rooms.capacity.in_flight == 2
    if how == "whole":
        both[winner].answer(result())
        assert (await client.answer()).body == result()
    else:
        both[winner].begin()
        await client.head()
        await both[1 - winner].left()
        assert both[winner].link.is_open
        both[winner].chunk(event(result()))
        both[winner].end()
        assert result() in await client.rest()
    await both[1 - winner].left()
    (line,) = await side.lines.next_calls()
    assert (line["outcome"], line["attempts"]) == ("ok", 2)
    first, second = (fields_of(request, "Idempotency-Key") for request in upstream.seen)
    assert first == second != []
    assert upstream.seen[0].body == upstream.seen[1].body
    await until(lambda: side.house.rooms.capacity.in_flight == 0)
    hedging = side.house.rooms.resilience.hedging
    assert hedging is not None
    assert (hedging.sent, hedging.won, hedging.under_way) == (1, winner, 0)
    await until(lambda: upstream.open_links <= 1)


@pytest.mark.parametrize("failing", [0, 1])
async def test_of_two_attempts_one_that_breaks_is_not_told_while_the_other_works(
    side: Sidecar, client: Client, upstream: Upstream, failing: int
) -> None:
    client.send(post(tool_call(MODERN, tool="hedged"), MODERN))
    both = [await upstream.next(), await upstream.next()]
    both[failing].link.reset()
    await until(lambda: side.house.rooms.capacity.in_flight == 1)
    both[1 - failing].answer(result())
    assert (await client.answer()).body == result()
    assert len(upstream.seen) == 2


async def test_whoever_leaves_cancels_both(side: Sidecar, client: Client, upstream: Upstream) -> None:
    client.send(post(tool_call(MODERN, tool="hedged"), MODERN))
    both = [await upstream.next(), await upstream.next()]
    client.reset()
    for each in both:
        await each.left()
    (line,) = await side.lines.next_calls()
    assert (line["outcome"], line["attempts"]) == ("cancelled", 2)
    await until(lambda: side.house.rooms.capacity.in_flight == 0)
    assert upstream.open_links == 0


async def test_both_attempts_have_one_deadline(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """It counts from when the call was received; what reads is not told to check first."""
    side = await open_sidecar(POLICY, "resilience.timeout_s=0.3")
    client = await connect(side.port)
    client.send(post(tool_call(MODERN, tool="hedged"), MODERN))
    both = [await upstream.next(), await upstream.next()]
    assert refusal_of(await client.answer())["reason"] == "deadline"
    for each in both:
        await each.left()
    (line,) = await side.lines.next_calls()
    assert line["attempts"] == 2
    assert len(upstream.seen) == 2


@pytest.mark.parametrize(
    ("revision", "setting"),
    [
        (LEGACY, ""),
        (MODERN, "resilience.attempts=1"),
        (MODERN, "capacity.max_in_flight=1"),
    ],
)
async def test_where_nothing_may_be_sent_beside_it_a_slow_call_is_alone(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, revision: str, setting: str
) -> None:
    """Two requests of one id hang older servers (trap 14); a server that takes one call at a time gets one."""
    side = await open_sidecar(POLICY, *filter(None, [setting]))
    client, other = await connect(side.port), await connect(side.port)
    client.send(post(tool_call(revision, tool="hedged"), revision))
    exchange = await upstream.next()
    # What comes later than the second attempt would have.
    other.send(post(message("ping", LEGACY, "later"), LEGACY))
    later = await upstream.next()
    async with within():
        await asyncio.wait([asyncio.ensure_future(later.link.left.wait())], timeout=0.1)
    later.answer(b'{"jsonrpc":"2.0","id":"later","result":{}}')
    await other.answer()
    assert len(upstream.seen) == 2
    exchange.answer(result())
    assert (await client.answer()).body == result()
