"""What the server hands out to one caller is, for every other, as if it had never been: on every way in."""

from __future__ import annotations

import functools
import json
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.identity.api_key import hash_of
from proxy.identity.keys_file import HASH_PREFIX
from tests.integration.client import Client
from tests.integration.conftest import Connect, OpenSidecar
from tests.integration.house import Sidecar
from tests.integration.test_answers_not_ours import reason_of
from tests.integration.upstream import Exchange, Upstream
from tests.integration.wire import (
    LEGACY,
    MODERN,
    NOTE,
    Answer,
    event,
    events,
    listen,
    message,
    post,
    request,
    result,
    tool_call,
)

PEPPER = bytes(range(32))
ANN, RENEWED, BOB, ELSEWHERE = "ann-1.first", "ann-2.second", "bob-1.secret", "ann-3.other-tenant"
S = "5e55-10n"

Field = tuple[str, str]


def key(key: str) -> Field:
    return ("X-API-Key", key)


def session(id: str = S) -> Field:
    return ("Mcp-Session-Id", id)


@pytest.fixture
def identity(tmp_path: Path) -> str:
    """Settings with two keys for one identity, one for another subject, and one for another tenant."""
    owners = {
        ANN: ("ann", "acme"),
        RENEWED: ("ann", "acme"),
        BOB: ("bob", "acme"),
        ELSEWHERE: ("ann", "other"),
    }
    keys = []
    for presented, (subject, tenant) in owners.items():
        id, _, secret = presented.partition(".")
        hashed = HASH_PREFIX + hash_of(PEPPER, secret).hex()
        keys.append({"id": id, "hash": hashed, "tenant": tenant, "subject": subject})
    file = tmp_path / "keys.json"
    pepper = urlsafe_b64encode(PEPPER).decode()
    file.write_text(json.dumps({"version": 1, "pepper": pepper, "keys": keys}), encoding="utf-8")
    return "identity.authenticators=" + json.dumps([{"kind": "api_key", "keys_file": str(file)}])


@pytest.fixture
async def side(open_sidecar: OpenSidecar, identity: str) -> Sidecar:
    return await open_sidecar(identity)


async def initialized(client: Client, upstream: Upstream, id: str = S, who: str = ANN) -> None:
    """A session that the server handed out to `who`."""
    params = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    client.send(post(message("initialize", LEGACY, 1, **params), LEGACY, key(who)))
    (await upstream.next()).answer(result(), f"Mcp-Session-Id: {id}")
    assert (await client.answer()).status == 200


async def passes(client: Client, upstream: Upstream, sent: bytes) -> None:
    """The server sees the request."""
    client.send(sent)
    exchange = await upstream.next()
    exchange.answer(b"", status="202 Accepted", kind="") if b'"id"' not in sent else exchange.answer(result())
    assert (await client.answer()).status < 300


def seen(answer: Answer) -> tuple[int, list[Field], bytes]:
    """All there is to see of an answer; the clock goes on between two of them."""
    return answer.status, [each for each in answer.fields if each[0] != "Date"], answer.body


def goodbye(*fields: Field) -> bytes:
    return request("DELETE", fields=[("MCP-Protocol-Version", LEGACY), *fields])


def posted(body: bytes, revision: str) -> Callable[..., bytes]:
    return functools.partial(post, body, revision)


WAYS: dict[str, Callable[..., bytes]] = {
    "POST": posted(tool_call(), LEGACY),
    "GET": listen,
    "DELETE": goodbye,
    "notification": posted(message("notifications/x", LEGACY, None), LEGACY),
    "answer": posted(result(4), LEGACY),
    "batch": posted(b"[" + tool_call() + b"]", "2025-03-26"),
    "initialize": posted(message("initialize", LEGACY), LEGACY),
    "modern": posted(tool_call(MODERN), MODERN),
    "resume": functools.partial(listen, ("Last-Event-ID", "7")),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("other", [BOB, ELSEWHERE])
async def test_a_foreign_session_looks_unknown(
    side: Sidecar, client: Client, upstream: Upstream, way: str, other: str
) -> None:
    """protocol.md section 8: 404, exactly as for an unknown one, on POST, GET, DELETE and resumption."""
    await initialized(client, upstream)
    answers = [
        seen(await client.asked(WAYS[way](key(other), session(id))))
        for id in (S, "unknown", S[:-1], S.upper(), S + ", x")
    ]
    status, _, body = answers[0]
    assert (status, json.loads(body)["error"]["data"]["reason"]) == (404, "session_unknown")
    assert answers == [answers[0]] * 5
    assert len(upstream.seen) == 1, "only the handshake reached the server"
    await passes(client, upstream, post(tool_call(), LEGACY, key(ANN), session()))


async def test_a_renewed_credential_keeps_the_session(
    side: Sidecar, client: Client, upstream: Upstream
) -> None:
    """Trap 24: bound to the token's bytes, every refresh ends the session."""
    await initialized(client, upstream)
    await passes(client, upstream, post(tool_call(), LEGACY, key(RENEWED), session()))


async def test_whoever_has_no_session_needs_none(side: Sidecar, client: Client, upstream: Upstream) -> None:
    """A server that keeps none, or decides itself."""
    await passes(client, upstream, post(tool_call(), LEGACY, key(BOB)))


async def test_where_all_are_anonymous_nothing_is_bound(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """design section 4: a session we do not know is forwarded when there is nobody to tell apart."""
    side = await open_sidecar()
    client = await connect(side.port)
    await passes(client, upstream, post(tool_call(), LEGACY, session("from-before-our-restart")))


async def test_a_deleted_session_is_unknown(side: Sidecar, client: Client, upstream: Upstream) -> None:
    """basic/transports, "Session Management"; attack corpus SES-019."""
    await initialized(client, upstream)
    client.send(goodbye(key(ANN), session()))
    (await upstream.next()).answer(b"")
    assert (await client.answer()).status == 200
    before = len(upstream.seen)
    answer = await client.asked(post(tool_call(), LEGACY, key(ANN), session()))
    assert (answer.status, len(upstream.seen)) == (404, before)


async def test_a_session_the_server_forgot_is_unknown(
    side: Sidecar, client: Client, upstream: Upstream
) -> None:
    """protocol.md 7.5: the record goes, and the 404 goes through, so that the client starts anew."""
    await initialized(client, upstream)
    client.send(post(tool_call(), LEGACY, key(ANN), session()))
    gone = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32600,"message":"Session not found"}}'
    (await upstream.next()).answer(gone, status="404 Not Found")
    answer = await client.answer()
    assert (answer.status, answer.body) == (404, gone)
    assert (await client.asked(listen(key(ANN), session()))).status == 404
    assert len(upstream.seen) == 2


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (goodbye(key(ANN), session()), "405 Method Not Allowed"),
        (listen(key(ANN), session()), "404 Not Found"),
    ],
)
async def test_a_server_without_goodbyes_or_streams_keeps_its_sessions(
    side: Sidecar, client: Client, upstream: Upstream, sent: bytes, status: str
) -> None:
    """basic/transports: 405 is allowed; frameworks say 404 where no route is."""
    await initialized(client, upstream)
    client.send(sent)
    (await upstream.next()).answer(b"no", status=status, kind="text/plain")
    await client.answer()
    await passes(client, upstream, post(tool_call(), LEGACY, key(ANN), session()))


async def test_a_server_that_hands_a_session_out_twice_is_refused(
    side: Sidecar, client: Client, upstream: Upstream
) -> None:
    """The second one would speak in the session of the first."""
    await initialized(client, upstream)
    client.send(post(tool_call(), LEGACY, key(BOB)))
    (await upstream.next()).answer(result(), f"Mcp-Session-Id: {S}")
    answer = await client.answer()
    assert reason_of(answer.body) == "upstream_nonsense"
    assert (await client.asked(post(tool_call(), LEGACY, key(BOB), session()))).status == 404
    await passes(client, upstream, post(tool_call(), LEGACY, key(ANN), session()))


async def test_an_id_on_an_error_is_no_session(side: Sidecar, client: Client, upstream: Upstream) -> None:
    """Trap 9: Python servers put a throw-away id on the 400 of a call without a session."""
    client.send(post(tool_call(), LEGACY, key(ANN)))
    error = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"Missing session ID"}}'
    (await upstream.next()).answer(error, f"Mcp-Session-Id: {S}", status="400 Bad Request")
    assert (await client.answer()).status == 400
    assert (await client.asked(post(tool_call(), LEGACY, key(ANN), session()))).status == 404


async def test_a_call_that_outlives_its_session_does_not_bring_it_back(
    side: Sidecar, client: Client, upstream: Upstream, connect: Connect
) -> None:
    """Attack corpus SES-027, forced: the answer comes after the goodbye, the session's id repeated on it."""
    await initialized(client, upstream)
    client.send(post(tool_call(), LEGACY, key(ANN), session()))
    paying = await upstream.next()
    leaving = await connect(side.port)
    leaving.send(goodbye(key(ANN), session()))
    (await upstream.next()).answer(b"")
    assert (await leaving.answer()).status == 200
    paying.answer(result(), f"Mcp-Session-Id: {S}")
    answer = await client.answer()
    assert (answer.status, answer.body) == (200, result())
    assert [line["outcome"] for line in await side.lines.next_calls(3)] == ["ok", "ok", "ok"]
    assert (await client.asked(post(tool_call(), LEGACY, key(ANN), session()))).status == 404


# Streams.


async def streaming(client: Client, upstream: Upstream, id: str, who: str, *said: bytes) -> Exchange:
    """An open GET stream on which the server has said something."""
    client.send(listen(key(who), session(id)))
    exchange = await upstream.next()
    exchange.begin()
    await client.head()
    for each in said:
        exchange.chunk(each)
        await client.until(b"\n\n")
    return exchange


async def test_events_of_others_are_unknown(
    side: Sidecar, client: Client, upstream: Upstream, connect: Connect
) -> None:
    """protocol.md section 8: Last-Event-ID would replay what somebody else was sent. Attack corpus SES-010."""
    await initialized(client, upstream)
    await initialized(client, upstream, "bobs", BOB)
    anns, bobs = await connect(side.port), await connect(side.port)
    await streaming(anns, upstream, S, ANN, event(NOTE, id="ann-7"))
    await streaming(bobs, upstream, "bobs", BOB, event(NOTE, id="bob-7"))
    before = len(upstream.seen)
    answers = [
        seen(await client.asked(listen(key(who), session(id), ("Last-Event-ID", event_id))))
        for who, id, event_id in (
            (BOB, "bobs", "ann-7"),
            (BOB, "bobs", "unknown"),
            (BOB, S, "ann-7"),
            (ANN, S, "bob-7"),
            (ANN, "bobs", "bob-7"),
        )
    ]
    assert answers == [answers[0]] * 5
    assert (answers[0][0], len(upstream.seen)) == (404, before)


async def test_a_stream_is_resumed_by_whoever_had_it(
    side: Sidecar, client: Client, upstream: Upstream, connect: Connect
) -> None:
    """2025-11-25, "Resumability": also a stream of a POST, also from a priming event, also with a new token."""
    await initialized(client, upstream)
    client.send(post(tool_call(id=5), LEGACY, key(ANN), session()))
    polled = await upstream.next()
    polled.begin()
    await client.head()
    polled.chunk(b"id: prime-1\ndata: \n\n")
    await client.until(b"\n\n")
    polled.end()
    await client.rest_or_cut()
    again = await connect(side.port)
    again.send(listen(key(RENEWED), session(), ("Last-Event-ID", "prime-1")))
    resumed = await upstream.next()
    assert resumed.request.all("Last-Event-ID") == ["prime-1"]
    resumed.begin()
    await again.head()
    resumed.chunk(event(result(5), id="prime-2"))
    assert await again.until(b"\n\n") == event(result(5), id="prime-2")
    resumed.end()
    assert await again.rest() == b""
    again.send(listen(key(ANN), session(), ("Last-Event-ID", "prime-2")))
    (await upstream.next()).answer(b"", status="405 Method Not Allowed", kind="")
    assert (await again.answer()).status == 405


async def test_an_answer_nobody_asked_for_goes_nowhere(
    side: Sidecar, client: Client, upstream: Upstream, connect: Connect
) -> None:
    """Own promise: it would settle what another client was asked, or what nobody was."""
    await initialized(client, upstream)
    await initialized(client, upstream, "bobs", BOB)
    stream = await connect(side.port)
    asked = event(message("sampling/createMessage", LEGACY, 4))
    await streaming(stream, upstream, S, ANN, asked)
    before = len(upstream.seen)
    for who, id, answers in ((BOB, "bobs", 4), (ANN, S, 5), (ANN, S, "4")):
        answer = await client.asked(post(result(answers), LEGACY, key(who), session(id)))
        assert (answer.status, reason_of(answer.body)) == (400, "malformed")
    assert len(upstream.seen) == before
    client.send(post(result(4), LEGACY, key(ANN), session()))
    (await upstream.next()).answer(b"", status="202 Accepted", kind="")
    assert (await client.answer()).status == 202


async def test_a_question_on_the_stream_of_a_call_can_be_answered(
    side: Sidecar, client: Client, upstream: Upstream, connect: Connect
) -> None:
    """protocol.md section 4: the server waits for the answer before it goes on with the stream."""
    client.send(post(tool_call(id=5), LEGACY, key(ANN)))
    calling = await upstream.next()
    calling.begin()
    await client.head()
    calling.chunk(event(message("elicitation/create", LEGACY, "q-1")))
    await client.until(b"\n\n")
    other = await connect(side.port)
    assert (await other.asked(post(result("q-1"), LEGACY, key(BOB)))).status == 400
    other.send(post(result("q-1"), LEGACY, key(ANN)))
    (await upstream.next()).answer(b"", status="202 Accepted", kind="")
    assert (await other.answer()).status == 202
    calling.chunk(event(result(5)))
    assert events(await client.until(b"\n\n")) == [result(5)]


# Tasks.


def task(method: str, id: str, revision: str) -> bytes:
    return message(method, revision, 9, taskId=id)


@pytest.mark.parametrize(
    ("revision", "created", "methods"),
    [
        (
            LEGACY,
            {"task": {"taskId": "t-1", "status": "working"}},
            ("tasks/get", "tasks/result", "tasks/cancel"),
        ),
        (
            MODERN,
            {"resultType": "task", "taskId": "t-1", "status": "working"},
            ("tasks/get", "tasks/update", "tasks/cancel"),
        ),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_tasks_of_others_are_unknown(
    side: Sidecar,
    client: Client,
    upstream: Upstream,
    revision: str,
    created: dict[str, object],
    methods: tuple[str, ...],
    streamed: bool,
) -> None:
    """Tasks extension: authorise each call; attack corpus RPC-111."""
    client.send(post(tool_call(revision), revision, key(ANN)))
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": created}).encode()
    exchange = await upstream.next()
    if streamed:
        exchange.begin()
        exchange.chunk(event(body))
        exchange.end()
    else:
        exchange.answer(body)
    assert (await client.answer()).status == 200
    for method in methods:
        answers = [
            seen(await client.asked(post(task(method, id, revision), revision, key(BOB))))
            for id in ("t-1", "unknown")
        ]
        assert answers[0] == answers[1]
        assert json.loads(answers[0][2])["error"]["code"] == -32602
        client.send(post(task(method, "t-1", revision), revision, key(RENEWED)))
        (await upstream.next()).answer(result(9))
        assert (await client.answer()).status == 200
    assert len(upstream.seen) == 1 + len(methods)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_list_of_tasks_names_the_callers_own(
    side: Sidecar, client: Client, upstream: Upstream, streamed: bool
) -> None:
    """The server sees one caller only: us."""
    for who, id in ((ANN, "anns"), (BOB, "bobs")):
        client.send(post(tool_call(), LEGACY, key(who)))
        created = {"jsonrpc": "2.0", "id": 1, "result": {"task": {"taskId": id}}}
        (await upstream.next()).answer(json.dumps(created).encode())
        await client.answer()
    client.send(post(message("tasks/list", LEGACY, 2), LEGACY, key(ANN)))
    said = (
        b'{"jsonrpc":"2.0","id":2,"result":{"tasks":[{"taskId":"bobs"}, {"taskId":"anns"}],"nextCursor":"c"}}'
    )
    left = b'{"jsonrpc":"2.0","id":2,"result":{"tasks":[{"taskId":"anns"}],"nextCursor":"c"}}'
    exchange = await upstream.next()
    if streamed:
        exchange.begin()
        exchange.chunk(event(said))
        exchange.end()
    else:
        exchange.answer(said)
    answer = await client.answer()
    assert answer.body == (event(left) if streamed else left)
    assert "tasks filtered" in (await side.lines.next_calls(3))[-1]["altered"]


async def test_a_large_list_of_tasks_goes_nowhere(side: Sidecar, client: Client, upstream: Upstream) -> None:
    """Own promise: what nobody read may name anybody's."""
    client.send(post(message("tasks/list", LEGACY, 2), LEGACY, key(ANN)))
    tasks = [{"taskId": f"bobs-{number}"} for number in range(20_000)]
    said = {"jsonrpc": "2.0", "id": 2, "result": {"tasks": tasks}}
    exchange = await upstream.next()
    # It does not end: with an answer that was read whole the connection could be kept.
    exchange.begin(kind="application/json")
    exchange.chunk(json.dumps(said).encode())
    answer = await client.answer()
    assert reason_of(answer.body) == "upstream_nonsense"
    assert b"bobs-" not in answer.body
    await exchange.left()


# HTTP+SSE.


@pytest.fixture
async def two(open_sidecar: OpenSidecar, upstream: Upstream, identity: str) -> Sidecar:
    return await open_sidecar(identity, url=f"http://127.0.0.1:{upstream.port}/sse")


def to(uri: str, body: bytes, who: str) -> bytes:
    return request("POST", uri, [("Content-Type", "application/json"), key(who)], body)


async def opened(
    side: Sidecar, connect: Connect, upstream: Upstream, who: str
) -> tuple[Client, Exchange, str]:
    """The client, the server's side of its stream, and our message endpoint."""
    client = await connect(side.port)
    client.send(request("GET", "/sse", [("Accept", "text/event-stream"), key(who)]))
    stream = await upstream.next()
    stream.begin()
    stream.chunk(b"event: endpoint\ndata: /messages/?session_id=abc\n\n")
    await client.head()
    said = await client.until(b"\n\n")
    return client, stream, said.decode().split("\n")[1].removeprefix("data: ")


async def acknowledged(client: Client, upstream: Upstream, sent: bytes) -> None:
    client.send(sent)
    (await upstream.next()).answer(b"Accepted", status="202 Accepted", kind="text/plain")
    assert (await client.answer()).status == 202


async def test_a_foreign_message_endpoint_looks_unknown(
    two: Sidecar, upstream: Upstream, connect: Connect
) -> None:
    """2024-11-05; attack corpus SES-026. Neither the server nor the other's stream hears a word of it."""
    listening, stream, uri = await opened(two, connect, upstream, ANN)
    poster = await connect(two.port)
    before = len(upstream.seen)
    for body in (tool_call("2025-03-26"), NOTE, result(4), task("tasks/get", "t", "2025-03-26")):
        answers = [
            seen(await poster.asked(to(target, body, BOB)))
            for target in (uri, uri + "x", "/messages?session_id=abc", "/messages", "/messages?")
        ]
        assert answers == [answers[0]] * 5
        assert answers[0][0] == 404
    assert len(upstream.seen) == before
    # The very next thing on the stream is what the server says next.
    stream.chunk(event(NOTE))
    assert await listening.until(b"\n\n") == event(NOTE)
    await acknowledged(poster, upstream, to(uri, tool_call("2025-03-26"), RENEWED))
    stream.chunk(event(result()))
    assert await listening.until(b"\n\n") == event(result())


async def test_on_the_callers_own_stream_a_foreign_task_is_refused(
    two: Sidecar, upstream: Upstream, connect: Connect
) -> None:
    """Trap 11: a no to a request belongs on its own stream; whose task it is was found out after the endpoint."""
    anns, anns_stream, anns_uri = await opened(two, connect, upstream, ANN)
    bobs, _, bobs_uri = await opened(two, connect, upstream, BOB)
    poster = await connect(two.port)
    await acknowledged(poster, upstream, to(anns_uri, tool_call("2025-03-26"), ANN))
    created = b'{"jsonrpc":"2.0","id":1,"result":{"task":{"taskId":"t"}}}'
    anns_stream.chunk(event(created))
    assert events(await anns.until(b"\n\n")) == [created]
    answer = await poster.asked(to(bobs_uri, task("tasks/get", "t", "2025-03-26"), BOB))
    assert (answer.status, answer.body) == (202, b"")
    assert json.loads(events(await bobs.until(b"\n\n"))[0])["error"]["code"] == -32602
    await acknowledged(poster, upstream, to(anns_uri, task("tasks/get", "t", "2025-03-26"), ANN))
    await acknowledged(poster, upstream, to(anns_uri, message("tasks/list", "2025-03-26", 2), ANN))
    listed = b'{"jsonrpc":"2.0","id":2,"result":{"tasks":[{"taskId":"bobs"},{"taskId":"t"}]}}'
    anns_stream.chunk(event(result(9)) + event(listed))
    assert events(await anns.until(b'"t"'))[-1] == listed.replace(b'{"taskId":"bobs"},', b"")


async def test_a_message_endpoint_ends_with_its_stream(
    two: Sidecar, upstream: Upstream, connect: Connect
) -> None:
    """And looks to its owner as to everybody else."""
    listening, stream, uri = await opened(two, connect, upstream, ANN)
    listening.close()
    await stream.left()
    await two.lines.next_calls()
    poster = await connect(two.port)
    answers = [seen(await poster.asked(to(uri, tool_call("2025-03-26"), who))) for who in (ANN, BOB)]
    assert answers == [answers[0]] * 2
    assert answers[0][0] == 404


async def test_an_answer_on_a_message_endpoint_was_asked_for_there(
    two: Sidecar, upstream: Upstream, connect: Connect
) -> None:
    """Two sessions of one caller: the server counts its questions in each."""
    listening, stream, uri = await opened(two, connect, upstream, ANN)
    _, _, other_uri = await opened(two, connect, upstream, ANN)
    stream.chunk(event(message("ping", "2025-03-26", 0)))
    await listening.until(b"\n\n")
    poster = await connect(two.port)
    assert (await poster.asked(to(other_uri, result(0), ANN))).status == 400
    await acknowledged(poster, upstream, to(uri, result(0), ANN))
