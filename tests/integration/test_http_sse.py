"""HTTP+SSE (2024-11-05): answers, and our own no, arrive on the stream, each where it belongs."""

import gc
import json
from urllib.parse import urlsplit

import pytest

from proxy.model import Call
from tests.integration.client import Client
from tests.integration.conftest import Connect, OpenSidecar
from tests.integration.house import Sidecar
from tests.integration.test_answers_not_ours import reason_of
from tests.integration.upstream import Exchange, Upstream
from tests.integration.wire import NOTE, event, events, message, request, result, tool_call

REVISION = "2025-03-26"  # names no version in a header, as 2024-11-05 does


@pytest.fixture
async def side(open_sidecar: OpenSidecar, upstream: Upstream) -> Sidecar:
    return await open_sidecar(url=f"http://127.0.0.1:{upstream.port}/sse")


def get(target: str = "/sse") -> bytes:
    return request("GET", target, [("Accept", "text/event-stream")])


def to(uri: str, body: bytes) -> bytes:
    return request("POST", uri, [("Content-Type", "application/json")], body)


async def opened(
    client: Client, upstream: Upstream, endpoint: str = "/messages/?session_id=abc"
) -> tuple[Exchange, str]:
    """A session: its stream at the server, and our message endpoint."""
    client.send(get())
    stream = await upstream.next()
    stream.begin("Cache-Control: no-store")
    stream.chunk(f"event: endpoint\r\ndata: {endpoint}\r\n\r\n".encode())
    await client.head()
    said = await client.until(b"\r\n\r\n")
    name, data, *_ = said.decode().split("\r\n")
    assert name == "event: endpoint"
    return stream, data.removeprefix("data: ")


@pytest.mark.parametrize(
    ("endpoint", "arrives"),
    [
        ("/messages/?session_id=abc", "/messages/?session_id=abc"),
        ("messages?s=1", "/messages?s=1"),
        ("http://127.0.0.1:{port}/deep/messages?session_id=abc", "/deep/messages?session_id=abc"),
        ("/sessions/abc/messages", "/sessions/abc/messages"),
        ("?sid=4", "/sse?sid=4"),
    ],
)
async def test_a_message_reaches_the_endpoint_the_server_named(
    side: Sidecar, client: Client, upstream: Upstream, connect: Connect, endpoint: str, arrives: str
) -> None:
    """Trap 12: the endpoint is rewritten under our path, and leads to the server's own."""
    stream, uri = await opened(client, upstream, endpoint.format(port=upstream.port))
    assert urlsplit(uri).path == "/messages"
    assert not urlsplit(uri).netloc
    poster = await connect(side.port)
    poster.send(to(uri, tool_call(REVISION)))
    posted = await upstream.next()
    assert (posted.request.method, posted.request.target) == ("POST", arrives)
    assert posted.request.body == tool_call(REVISION)
    posted.answer(b"Accepted", status="202 Accepted", kind="text/plain")
    assert ((await poster.answer()).status, stream.link.is_open) == (202, True)


async def test_an_answer_arrives_on_the_stream_and_ends_its_call(
    side: Sidecar, client: Client, upstream: Upstream, connect: Connect
) -> None:
    """design section 4: a call ends with its own answer, wherever that arrives."""
    stream, uri = await opened(client, upstream)
    poster = await connect(side.port)
    for number in (1, 2):
        poster.send(to(uri, tool_call(REVISION, number)))
        (await upstream.next()).answer(b"Accepted", status="202 Accepted", kind="text/plain")
        await poster.answer()
    assert side.lines.calls == []
    back = b"event: message\r\ndata: " + result(2) + b"\r\n\r\n"
    stream.chunk(back)
    assert await client.until(b"\r\n\r\n") == back
    lines = await side.lines.next_calls()
    assert [(line["outcome"], line["revision"]) for line in lines] == [("ok", "2024-11-05")]
    stream.chunk(event(result(1)))
    await client.until(b"\n\n")
    assert len(await side.lines.next_calls(2)) == 2


async def test_the_answer_may_be_quicker_than_its_acknowledgement(
    side: Sidecar, client: Client, upstream: Upstream, connect: Connect
) -> None:
    """The two connections race."""
    stream, uri = await opened(client, upstream)
    poster = await connect(side.port)
    poster.send(to(uri, tool_call(REVISION)))
    posted = await upstream.next()
    stream.chunk(event(result()))
    assert await client.until(b"\n\n") == event(result())
    posted.answer(b"", status="202 Accepted", kind="")
    assert (await poster.answer()).status == 202
    assert [line["outcome"] for line in await side.lines.next_calls()] == ["ok"]


async def test_our_own_no_arrives_on_the_stream(
    side: Sidecar, client: Client, upstream: Upstream, connect: Connect
) -> None:
    """Trap 11: an HTTP error on this POST ends the whole session of Python clients."""
    stream, uri = await opened(client, upstream)
    poster = await connect(side.port)
    poster.send(to(uri, tool_call(REVISION, "a")))
    (await upstream.next()).link.reset()
    answer = await poster.answer()
    assert (answer.status, answer.body) == (202, b"")
    told = events(await client.until(b"\n\n"))
    assert json.loads(told[0])["id"] == "a"
    assert reason_of(told[0]) == "outcome_unknown"
    stream.chunk(event(NOTE))
    assert await client.until(b"\n\n") == event(NOTE)
    assert [line["outcome"] for line in await side.lines.next_calls()] == ["outcome_unknown"]


async def test_whoever_takes_nothing_and_provokes_our_no_is_dropped(
    open_sidecar: OpenSidecar, upstream: Upstream, connect: Connect
) -> None:
    """style guide 4: bound the slow reader. Nobody waits behind our own words, so they would pile up."""
    side = await open_sidecar("resilience.breaker.enabled=false", url=upstream.url.replace("/mcp", "/sse"))
    listener = await connect(side.port, receive_bytes=4096)
    stream, uri = await opened(listener, upstream)
    listener.pause()
    stream.chunk(b":" + b"x" * 8_000_000 + b"\n")
    poster = await connect(side.port)

    async def die(exchange: Exchange) -> None:
        exchange.link.reset()

    upstream.follow(die)
    for number in range(2_000):
        poster.send(to(uri, tool_call(REVISION, f"{number}-{'x' * 1_000}")))
        if (await poster.answer()).status == 404:
            break
    else:
        raise AssertionError("2 MB of refusals wait for somebody who takes nothing")
    await stream.left()


async def test_a_session_nobody_opened_is_unknown(side: Sidecar, client: Client, upstream: Upstream) -> None:
    """design section 5: foreign and unknown sessions answer 404."""
    answer = await client.asked(to("/messages?session_id=made-up", tool_call(REVISION)))
    assert (answer.status, upstream.seen) == (404, [])


async def test_a_session_ends_with_its_stream(
    side: Sidecar, client: Client, upstream: Upstream, connect: Connect
) -> None:
    """A message endpoint lives as long as its stream; calls that wait there end."""
    stream, uri = await opened(client, upstream)
    poster = await connect(side.port)
    poster.send(to(uri, tool_call(REVISION)))
    (await upstream.next()).answer(b"", status="202 Accepted", kind="")
    await poster.answer()
    client.close()
    await stream.left()
    lines = await side.lines.next_calls(2)
    assert [line["ending"] for line in lines] == ["client_gone", "client_gone"]
    poster = await connect(side.port)
    assert (await poster.asked(to(uri, tool_call(REVISION)))).status == 404


@pytest.mark.parametrize("foreign", [result(9), result("1"), result(None)])
async def test_a_foreign_answer_ends_the_stream(
    side: Sidecar, client: Client, upstream: Upstream, connect: Connect, foreign: bytes
) -> None:
    """The same promise as on streamable HTTP: it does not reach the client."""
    stream, uri = await opened(client, upstream)
    poster = await connect(side.port)
    poster.send(to(uri, tool_call(REVISION)))
    (await upstream.next()).answer(b"", status="202 Accepted", kind="")
    await poster.answer()
    stream.chunk(event(foreign))
    assert await client.rest_or_cut() == (b"", True)
    await stream.left()


@pytest.mark.parametrize("endpoint", ["http://127.0.0.2:9/messages", "//example.com/messages", "http://["])
async def test_an_endpoint_on_another_origin_is_refused(
    side: Sidecar, client: Client, upstream: Upstream, endpoint: str
) -> None:
    """Section 4: clients refuse it; a credential must not go there either."""
    client.send(get())
    stream = await upstream.next()
    stream.begin()
    stream.chunk(b"event: endpoint\ndata: " + endpoint.encode() + b"\n\n")
    await client.head()
    assert await client.rest_or_cut() == (b"", True)
    await stream.left()


async def test_sessions_do_not_hear_each_other(side: Sidecar, upstream: Upstream, connect: Connect) -> None:
    """The same message endpoint and the same ids in three sessions of a server that knows none apart."""
    sessions = []
    for _ in range(3):
        client = await connect(side.port)
        stream, uri = await opened(client, upstream, "/messages")
        sessions.append((client, stream, uri))
    assert len({uri for _, _, uri in sessions}) == 3
    poster = await connect(side.port)
    for _, _, uri in sessions:
        poster.send(to(uri, tool_call(REVISION)))
        (await upstream.next()).answer(b"", status="202 Accepted", kind="")
        await poster.answer()
    for number, (client, stream, _) in enumerate(sessions):
        stream.chunk(event(result(1, f"for {number}")))
        assert await client.until(b"\n\n") == event(result(1, f"for {number}"))


async def test_an_endpoint_of_ours_cannot_be_guessed(
    side: Sidecar, upstream: Upstream, connect: Connect
) -> None:
    """Promise 3: where the server keeps its secret in the path, whoever knows our endpoint is in the session."""
    uris = []
    for number in range(2):
        _, uri = await opened(await connect(side.port), upstream, f"/sessions/secret-{number}/messages")
        uris.append(urlsplit(uri).query.removeprefix("sidecar_session="))
    assert uris[0] != uris[1]
    assert all(len(uri) >= 22 for uri in uris), "128 bits"
    guesser = await connect(side.port)
    for guess in ("0", "1", "2"):
        answer = await guesser.asked(to(f"/messages?sidecar_session={guess}", tool_call(REVISION)))
        assert answer.status == 404


@pytest.mark.parametrize(
    ("status", "field", "body"),
    [
        ("302 Found", "Location: http://127.0.0.2/", b""),
        ("202 Accepted", "Content-Encoding: gzip", b"x"),
        ("200 OK", "X: y", result(2)),
        ("400 Bad Request", "X: y", result(2)),
    ],
)
async def test_an_acknowledgement_is_checked_like_any_answer(
    side: Sidecar,
    client: Client,
    upstream: Upstream,
    connect: Connect,
    status: str,
    field: str,
    body: bytes,
) -> None:
    """design section 4: no redirects elsewhere, and no answer to another request."""
    _, uri = await opened(client, upstream)
    poster = await connect(side.port)
    poster.send(to(uri, tool_call(REVISION)))
    (await upstream.next()).answer(body, field, status=status)
    answer = await poster.answer()
    assert (answer.status, answer.body) == (202, b"")
    assert reason_of(events(await client.until(b"\n\n"))[0]) == "upstream_nonsense"


async def test_server_requests_and_their_answers_pass(
    side: Sidecar, client: Client, upstream: Upstream, connect: Connect
) -> None:
    """Ids of the server are its own; the client's answer is posted and acknowledged."""
    stream, uri = await opened(client, upstream)
    asked = event(message("ping", REVISION, 1))
    stream.chunk(asked)
    assert await client.until(b"\n\n") == asked
    poster = await connect(side.port)
    poster.send(to(uri, b'{"jsonrpc":"2.0","id":1,"result":{}}'))
    (await upstream.next()).answer(b"", status="202 Accepted", kind="")
    assert (await poster.answer()).status == 202


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden", "404 Not Found", "500 No"])
async def test_a_server_that_says_no_to_a_stream_is_heard(
    side: Sidecar, client: Client, upstream: Upstream, status: str
) -> None:
    """A challenge, for example; there is no session yet that an HTTP error could end."""
    client.send(get())
    (await upstream.next()).answer(b"no", "WWW-Authenticate: Bearer", status=status, kind="text/plain")
    answer = await client.answer()
    assert (answer.status, answer.body, answer.get("www-authenticate")) == (int(status[:3]), b"no", "Bearer")


@pytest.mark.parametrize(("status", "kind"), [("200 OK", "text/plain"), ("204 No Content", "")])
async def test_a_server_that_opens_no_stream_is_told_as_an_outage(
    side: Sidecar, client: Client, upstream: Upstream, status: str, kind: str
) -> None:
    """The stream is the session: without it there is none."""
    client.send(get())
    (await upstream.next()).answer(b"", status=status, kind=kind)
    assert (await client.answer()).status == 502


async def test_a_long_page_instead_of_a_stream_is_not_held(
    side: Sidecar, client: Client, upstream: Upstream
) -> None:
    """Style guide 8: what a server can grow is bounded."""
    client.send(get())
    (await upstream.next()).answer(b"x" * 20_000, status="500 No", kind="text/plain")
    assert (await client.answer()).status == 502


@pytest.mark.parametrize(
    "sent",
    [request("POST", "/sse", [("Content-Type", "application/json")], b"{}"), get("/messages"), get("/mcp")],
)
async def test_each_path_has_its_method(
    side: Sidecar, client: Client, upstream: Upstream, sent: bytes
) -> None:
    """GET opens, POST sends; `/mcp` is not served where the server speaks HTTP+SSE."""
    answer = await client.asked(sent)
    assert answer.status == (404 if b" /mcp " in sent else 405)
    assert upstream.seen == []


async def test_the_query_of_the_stream_goes_on(side: Sidecar, client: Client, upstream: Upstream) -> None:
    """Promise 1; servers choose a profile or a workspace by it."""
    client.send(get("/sse?profile=a"))
    stream = await upstream.next()
    stream.answer(b"", status="404 Not Found", kind="")
    await client.answer()
    assert stream.request.target == "/sse?profile=a"


async def test_a_drain_waits_for_answers_that_arrive_on_the_stream(
    side: Sidecar, client: Client, upstream: Upstream, connect: Connect
) -> None:
    """design section 4, lifecycle: in-flight finishes; here what is in flight is on another connection."""
    stream, uri = await opened(client, upstream)
    poster = await connect(side.port)
    poster.send(to(uri, tool_call()))
    (await upstream.next()).answer(b"", status="202 Accepted", kind="")
    assert (await poster.answer()).status == 202
    side.house.refuse_new()
    side.house.end_listening()
    stream.chunk(event(result()))
    assert await client.until(b"\n\n") == event(result())
    assert await client.rest() == b""  # and ended properly, now that nothing is awaited
    await side.house.finished()


async def test_leaving_the_post_is_not_leaving_the_session(
    side: Sidecar, client: Client, upstream: Upstream, connect: Connect
) -> None:
    """2024-11-05: the answer arrives on the other connection, also when its request's own one broke."""
    stream, uri = await opened(client, upstream)
    poster = await connect(side.port)
    poster.send(to(uri, tool_call()))
    post = await upstream.next()  # arrived, not acknowledged
    poster.reset()
    await post.left()
    stream.chunk(event(result()))
    assert await client.until(b"\n\n") == event(result())
    stream.chunk(event(NOTE))
    assert await client.until(b"\n\n") == event(NOTE)


async def test_a_waiting_call_keeps_nothing_of_what_it_carried(
    side: Sidecar, client: Client, upstream: Upstream, connect: Connect
) -> None:
    """design section 8: 1,024 calls of 4 MiB may wait in one session of a sidecar of 64 MB."""
    _, uri = await opened(client, upstream)
    poster = await connect(side.port)
    poster.send(to(uri, tool_call(tool="waits-for-long")))
    (await upstream.next()).answer(b"", status="202 Accepted", kind="")
    assert (await poster.answer()).status == 202
    poster.send(to(uri, NOTE))  # answered when the handler of the call is done and its frame is gone
    (await upstream.next()).answer(b"", status="202 Accepted", kind="")
    assert (await poster.answer()).status == 202
    gc.collect()
    waiting = [
        each for each in gc.get_objects() if isinstance(each, Call) and each.target == "waits-for-long"
    ]
    assert waiting
    assert all(not each.body and not each.params for each in waiting)


async def test_a_cancelled_call_makes_room_in_its_session(
    side: Sidecar, client: Client, upstream: Upstream, connect: Connect
) -> None:
    """2024-11-05 cancellation: the server SHOULD NOT answer a cancelled request."""

    async def take(exchange: Exchange) -> None:
        exchange.answer(b"", status="202 Accepted", kind="")

    _, uri = await opened(client, upstream)
    upstream.follow(take)
    poster = await connect(side.port)
    for number in range(1_025):
        poster.send(to(uri, message("ping", REVISION, number)))
        await poster.answer()
        poster.send(to(uri, message("notifications/cancelled", REVISION, None, requestId=number)))
        await poster.answer()
    asked = [each for each in upstream.seen if b'"ping"' in each.body]
    assert len(asked) == 1_025


@pytest.mark.parametrize("status", ["503 Service Unavailable", "502 Bad Gateway"])
async def test_an_error_without_a_word_is_told_on_the_stream(
    side: Sidecar, client: Client, upstream: Upstream, connect: Connect, status: str
) -> None:
    """UP-055: the client looks there; an answer that comes all the same ends nobody's session."""
    stream, uri = await opened(client, upstream)
    poster = await connect(side.port)
    poster.send(to(uri, tool_call(REVISION)))
    (await upstream.next()).answer(b"", status=status, kind="")
    assert (await poster.answer()).status == 202
    (said,) = events(await client.until(b"\n\n"))
    assert reason_of(said) == ("upstream_broke" if status.startswith("503") else "outcome_unknown")
    stream.chunk(event(result()) + event(NOTE))
    assert await client.until(NOTE + b"\n\n") == event(result()) + event(NOTE)


async def test_whoever_has_its_answer_is_told_of_the_error_where_it_belongs(
    side: Sidecar, client: Client, upstream: Upstream, connect: Connect
) -> None:
    """JSON-RPC: a request has one answer, also where the POST fails behind it."""
    stream, uri = await opened(client, upstream)
    poster = await connect(side.port)
    poster.send(to(uri, tool_call(REVISION)))
    posted = await upstream.next()
    stream.chunk(event(result()))
    assert await client.until(b"\n\n") == event(result())
    posted.answer(b"", status="503 Service Unavailable", kind="")
    answer = await poster.answer()
    assert (answer.status, answer.body) == (503, b"")
