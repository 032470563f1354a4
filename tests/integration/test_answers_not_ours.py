"""An answer that is not this request's, or is no answer at all, never reaches the client as one."""

import gzip
import json

import pytest

from tests.integration.client import Client
from tests.integration.conftest import Connect, OpenSidecar
from tests.integration.house import Sidecar
from tests.integration.upstream import Upstream
from tests.integration.wire import (
    LEGACY,
    MODERN,
    NOTE,
    event,
    events,
    listen,
    message,
    post,
    request,
    result,
    tool_call,
)

LIST = message("tools/list", LEGACY, 1)
HELD_BYTES = 262_144


def reason_of(body: bytes) -> str:
    """The machine-readable reason of our own no."""
    said = json.loads(body)
    if "error" in said:
        return str(said["error"]["data"]["reason"])
    assert said["result"]["isError"] is True
    return str(said["result"]["_meta"]["dev.mcp-sidecar/refusal"]["reason"])


WRONG_BODIES = {
    "another id": result(2),
    "the id as a string": result("1"),
    "a null id": result(None),
    "an array": b"[" + result() + b"]",
    "a request": message("sampling/createMessage", LEGACY, 1),
    "a notification": NOTE,
    "empty": b"",
    "blanks": b"  \n",
    "no JSON": b"<html>welcome</html>",
    "cut JSON": result()[:-1],
    "two values": result() + result(),
    "NaN": b'{"jsonrpc":"2.0","id":1,"result":{"value":NaN}}',
    "Infinity": b'{"jsonrpc":"2.0","id":1,"result":{"value":-Infinity}}',
    "the id twice": b'{"jsonrpc":"2.0","id":2,"id":1,"result":{}}',
    "a key twice inside": b'{"jsonrpc":"2.0","id":1,"result":{"a":1,"a":2}}',
    "neither result nor error": b'{"jsonrpc":"2.0","id":1}',
    "a fractional id": b'{"jsonrpc":"2.0","id":1.0,"result":{}}',
    "a boolean id": b'{"jsonrpc":"2.0","id":true,"result":{}}',
    "not UTF-8": b'{"jsonrpc":"2.0","id":1,"result":{"a":"\xff"}}',
}


@pytest.mark.parametrize("body", WRONG_BODIES.values(), ids=WRONG_BODIES.keys())
async def test_a_wrong_body_is_refused_as_nonsense(
    side: Sidecar, client: Client, upstream: Upstream, body: bytes
) -> None:
    """design section 4, upstream: id belongs to this request, well-formed; trap 13."""
    client.send(post(tool_call()))
    (await upstream.next()).answer(body)
    answer = await client.answer()
    assert (answer.status, reason_of(answer.body)) == (200, "upstream_nonsense")
    assert json.loads(answer.body)["id"] == 1
    line = (await side.lines.next_calls())[0]
    assert (line["outcome"], line["reason"]) == ("upstream_error", "upstream_nonsense")


@pytest.mark.parametrize(
    ("status", "kind", "field"),
    [
        ("202 Accepted", "", "X: y"),
        ("204 No Content", "", "X: y"),
        ("204 No Content", "text/event-stream", "X: y"),
        ("200 OK", "text/html", "X: y"),
        ("200 OK", "application/json; charset=iso-8859-1", "X: y"),
        ("200 OK", "application/json", "Content-Encoding: gzip"),
        ("200 OK", "text/event-stream", "Content-Encoding: identity\r\nContent-Encoding: gzip"),
        ("200 OK", "application/json", "Content-Type: text/event-stream"),
        ("304 Not Modified", "application/json", "X: y"),
    ],
)
async def test_a_wrong_head_is_refused_as_nonsense(
    side: Sidecar, client: Client, upstream: Upstream, status: str, kind: str, field: str
) -> None:
    """A success must be JSON or events in UTF-8, as they are; 202 answers no request."""
    client.send(post(LIST))
    has_body = not status.startswith(("202", "204", "304"))
    body = (gzip.compress(result()) if "gzip" in field else result()) if has_body else b""
    (await upstream.next()).answer(body, field, status=status, kind=kind)
    answer = await client.answer()
    assert (answer.status, reason_of(answer.body)) == (200, "upstream_nonsense")


@pytest.mark.parametrize("answered", [b"an error", b"<h1>Bad Request</h1>", result(None), result(7)])
async def test_the_body_of_an_http_error_need_not_be_json_rpc_but_is_never_another_answer(
    side: Sidecar, client: Client, upstream: Upstream, answered: bytes
) -> None:
    """Table 1.1: Express answers 400 in HTML; an id may be null only where the server could not read it."""
    client.send(post(LIST))
    (await upstream.next()).answer(answered, status="400 Bad Request", kind="text/html")
    answer = await client.answer()
    if answered == result(7):
        assert (answer.status, reason_of(answer.body)) == (200, "upstream_nonsense")
    else:
        assert (answer.status, answer.body) == (400, answered)


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_the_python_sdks_error_about_a_session_passes(
    side: Sidecar, client: Client, upstream: Upstream, method: str
) -> None:
    """mcp 1.x answers 404 with the id "server-error"; without it a client would never initialise again."""
    gone = b'{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"Session not found"}}'
    client.send(post(LIST) if method == "POST" else request(method))
    (await upstream.next()).answer(gone, status="404 Not Found")
    answer = await client.answer()
    assert (answer.status, answer.body) == (404, gone)


async def test_a_result_in_reply_to_a_notification_is_refused(
    side: Sidecar, client: Client, upstream: Upstream
) -> None:
    """design section 4: an answer that is not this request's never reaches the client."""
    client.send(post(NOTE))
    (await upstream.next()).answer(result(7))
    answer = await client.answer()
    assert (answer.status, b'"result"' in answer.body) == (502, False)


BAD_EVENTS = {
    "another id": event(result(2)),
    "the id as a string": event(result("1")),
    "a null id": event(result(None)),
    "cut JSON": event(result()[:-1]),
    "under another event name": b"event: ping\ndata: " + result(2) + b"\n\n",
    "on two lines": b'data: {"jsonrpc":"2.0","id":2,\ndata: "result":{}}\n\n',
    "behind CR": b"data: " + result(2) + b"\r\r",
}


@pytest.mark.parametrize("bad", BAD_EVENTS.values(), ids=BAD_EVENTS.keys())
async def test_a_wrong_event_ends_the_stream_with_a_last_word(
    side: Sidecar, client: Client, upstream: Upstream, bad: bytes
) -> None:
    """design section 4, protocol: a foreign answer ends the stream before it reaches the client."""
    client.send(post(tool_call()))
    exchange = await upstream.next()
    exchange.begin()
    exchange.chunk(event(NOTE) + bad)
    exchange.chunk(event(result()))
    await client.head()
    got = events(await client.rest())
    assert got[0] == NOTE
    assert [reason_of(data) for data in got[1:]] == ["upstream_nonsense"]
    await exchange.left()


async def test_a_second_answer_on_a_stream_is_foreign(
    side: Sidecar, client: Client, upstream: Upstream
) -> None:
    """A request has one answer; after it the stream is cut, for nobody waits for a last word."""
    client.send(post(tool_call()))
    exchange = await upstream.next()
    exchange.begin()
    exchange.chunk(event(result()) + event(result(text="again")))
    await client.head()
    got, was_cut = await client.rest_or_cut()
    assert (got, was_cut) == (event(result()), True)


async def test_requests_of_the_server_pass_on_a_stream(
    side: Sidecar, client: Client, upstream: Upstream
) -> None:
    """Section 4: a POST stream may carry server requests, whose ids are the server's own."""
    asked = event(message("sampling/createMessage", LEGACY, 1)) + event(message("ping", LEGACY, "1"))
    client.send(post(tool_call()))
    exchange = await upstream.next()
    exchange.begin()
    exchange.chunk(asked)
    await client.head()
    assert await client.until(b'"ping"') == asked
    exchange.chunk(event(result()))
    exchange.end()
    assert await client.rest() == event(result())


def progress(token: object) -> bytes:
    params = {"progressToken": token, "progress": 1}
    return json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}).encode()


@pytest.mark.parametrize("revision", [LEGACY, MODERN])
@pytest.mark.parametrize("token", ["p-alice", 7, None])
async def test_progress_of_another_request_is_taken_out_of_a_stream(
    side: Sidecar, client: Client, upstream: Upstream, revision: str, token: str | int | None
) -> None:
    """UP-088, promise 3: nobody sees what another is told; the call goes on, and the record says so."""
    call = json.loads(tool_call(revision))
    if token is not None:
        call["params"].setdefault("_meta", {})["progressToken"] = token
    client.send(post(json.dumps(call).encode(), revision))
    exchange = await upstream.next()
    exchange.begin()
    exchange.chunk(event(progress("p-bob"), id="1"))
    exchange.chunk(event(progress(token)) + event(progress(str(token) + "x")) + event(NOTE))
    exchange.chunk(event(progress("p-bob")))
    exchange.chunk(event(result()))
    exchange.end()
    await client.head()
    got = events(await client.rest())
    assert got == [*([] if token is None else [progress(token)]), NOTE, result()]
    (line,) = await side.lines.next_calls()
    assert (line["outcome"], line["altered"]) == ("ok", ["progress of another request"])


async def test_progress_that_is_cut_off_at_the_end_is_taken_out_too(
    side: Sidecar, client: Client, upstream: Upstream
) -> None:
    """An event without its blank line; an empty piece would end a chunked answer twice."""
    client.send(post(tool_call()))
    exchange = await upstream.next()
    exchange.begin()
    exchange.chunk(event(result()) + b"data: " + progress("p-bob") + b"\n")
    exchange.end()
    assert (await client.answer()).body == event(result())
    client.send(post(tool_call()))
    (await upstream.next()).answer(result())
    assert (await client.answer()).body == result()


@pytest.mark.parametrize("fields", [(), (("Last-Event-ID", "a-7"),)])
async def test_a_get_stream_may_tell_of_any_progress(
    side: Sidecar, client: Client, upstream: Upstream, fields: tuple[tuple[str, str], ...]
) -> None:
    """There the requests of other connections are told of."""
    client.send(listen(*fields))
    exchange = await upstream.next()
    exchange.begin()
    exchange.chunk(event(progress("p-bob"), id="a-8"))
    exchange.end()
    assert (await client.answer()).body == event(progress("p-bob"), id="a-8")


async def test_a_foreign_answer_on_a_listening_stream_cuts_it(
    side: Sidecar, client: Client, upstream: Upstream
) -> None:
    """Section 4: a GET stream carries responses only when resuming."""
    client.send(listen())
    exchange = await upstream.next()
    exchange.begin()
    exchange.chunk(event(NOTE))
    exchange.chunk(event(result(5)))
    await client.head()
    assert await client.rest_or_cut() == (event(NOTE), True)


async def test_a_resumed_stream_may_answer_any_request(
    side: Sidecar, client: Client, upstream: Upstream
) -> None:
    """design section 4: resumed streams may carry other ids and are exempt."""
    client.send(listen(("Last-Event-ID", "a-7")))
    exchange = await upstream.next()
    exchange.begin()
    exchange.chunk(event(result(5), id="a-8"))
    exchange.end()
    assert (await client.answer()).body == event(result(5), id="a-8")


@pytest.mark.parametrize("id", [2, "1"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_large_foreign_answer_is_never_complete(
    side: Sidecar, client: Client, upstream: Upstream, id: int | str, framing: str
) -> None:
    """A body too large to hold passes but for its last piece; the id at its very end decides."""
    text = "x" * (2 * HELD_BYTES)
    body = json.dumps({"jsonrpc": "2.0", "result": {"text": text}, "id": id}).encode()
    client.send(post(tool_call()))
    exchange = await upstream.next()
    if framing == "length":
        exchange.answer(body)
    else:
        exchange.begin(kind="application/json")
        for at in range(0, len(body), 50_000):
            exchange.chunk(body[at : at + 50_000])
        exchange.end()
    await client.head()
    got, was_cut = await client.rest_or_cut()
    assert was_cut
    assert body.startswith(got)
    assert len(got) < len(body)
    line = (await side.lines.next_calls())[0]
    assert (line["outcome"], line["ending"]) == ("upstream_error", "upstream_broke")


@pytest.mark.parametrize("size", [HELD_BYTES - 200, HELD_BYTES + 200, 3_000_000])
@pytest.mark.parametrize("framing", ["length", "chunked", "closing"])
async def test_a_large_answer_of_ours_arrives_whole(
    side: Sidecar, client: Client, upstream: Upstream, size: int, framing: str
) -> None:
    """The same way, for an answer that is ours."""
    body = json.dumps({"jsonrpc": "2.0", "result": {"text": "x" * size}, "id": 1}).encode()
    client.send(post(tool_call()))
    exchange = await upstream.next()
    if framing == "length":
        exchange.answer(body)
    elif framing == "chunked":
        exchange.begin(kind="application/json")
        exchange.chunk(body[:-7])
        exchange.chunk(body[-7:])
        exchange.end()
    else:
        exchange.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + body)
        exchange.link.close()
    assert (await client.answer()).body == body
    assert (await side.lines.next_calls())[0]["outcome"] == "ok"


@pytest.mark.parametrize("framing", ["length", "chunked", "closing"])
@pytest.mark.parametrize("size", [10, HELD_BYTES + 10_000])
async def test_an_answer_that_is_cut_short_is_never_complete(
    side: Sidecar, client: Client, upstream: Upstream, framing: str, size: int
) -> None:
    """upstream: what the server cut off is told as unknown where nothing went out yet, else cut off too."""
    body = result(1, "x" * size)
    client.send(post(tool_call()))
    exchange = await upstream.next()
    if framing == "length":
        exchange.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        exchange.write(body[:-1])
    elif framing == "chunked":
        exchange.begin(kind="application/json")
        exchange.chunk(body[:-1])
    else:
        exchange.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + body[:-1])
    exchange.link.close()
    head = await client.head()
    got, was_cut = await client.rest_or_cut()
    assert head.status == 200
    if size == 10:
        wanted = "upstream_nonsense" if framing == "closing" else "outcome_unknown"
        assert (reason_of(got), was_cut) == (wanted, False)
    else:
        assert was_cut
        assert got == body[: len(got)]
        assert len(got) < len(body)
    assert (await side.lines.next_calls())[0]["ending"] in ("upstream_broke", "complete")


@pytest.mark.parametrize(
    "framing",
    [
        "length",
        "chunked",
    ],
)
async def test_an_answer_over_the_limit_is_refused(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, framing: str
) -> None:
    """upstream.max_answer_bytes: longest answer that is not a stream."""
    side = await open_sidecar("upstream.max_answer_bytes=1000")
    client = await connect(side.port)
    client.send(post(tool_call()))
    exchange = await upstream.next()
    if framing == "length":
        exchange.answer(result(text="x" * 2000))
    else:
        exchange.begin(kind="application/json")
        exchange.chunk(result(text="x" * 2000))
        exchange.end()
    assert reason_of((await client.answer()).body) == "upstream_nonsense"


async def test_a_large_answer_over_the_limit_is_never_complete(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """upstream.max_answer_bytes, where the length was not announced."""
    side = await open_sidecar("upstream.max_answer_bytes=400000")
    client = await connect(side.port)
    client.send(post(tool_call()))
    exchange = await upstream.next()
    exchange.begin(kind="application/json")
    body = result(text="x" * 500_000)
    for at in range(0, len(body), 50_000):
        exchange.chunk(body[at : at + 50_000])
    exchange.end()
    await client.head()
    got, was_cut = await client.rest_or_cut()
    # Cut off on its way, or refused whole where so much of it came at once that nothing was passed on yet.
    assert was_cut or reason_of(got) == "upstream_nonsense"
    assert len(got) <= 400_000


async def test_an_event_over_the_limit_ends_the_stream(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """upstream.max_event_bytes: longest single event of a stream."""
    side = await open_sidecar("upstream.max_event_bytes=1000")
    client = await connect(side.port)
    client.send(post(tool_call()))
    exchange = await upstream.next()
    exchange.begin()
    exchange.chunk(event(NOTE))
    await client.head()
    assert await client.until(b"\n\n") == event(NOTE)
    exchange.chunk(b"data: " + b"x" * 2000)
    assert [reason_of(data) for data in events(await client.rest())] == ["upstream_nonsense"]
    await exchange.left()


@pytest.mark.parametrize("ends", ["properly", "broken"])
@pytest.mark.parametrize("revision", [LEGACY, MODERN])
async def test_a_stream_that_ends_without_an_answer_gets_a_last_word(
    side: Sidecar, client: Client, upstream: Upstream, revision: str, ends: str
) -> None:
    """style guide 4: when the answer has not passed yet, one last error event with that id, then close."""
    client.send(post(tool_call(revision, 7), revision))
    exchange = await upstream.next()
    exchange.begin()
    exchange.chunk(event(NOTE))
    if ends == "properly":
        exchange.end()
    else:
        exchange.link.close()
    await client.head()
    got = events(await client.rest())
    assert (got[0], len(got)) == (NOTE, 2)
    assert (json.loads(got[1])["id"], reason_of(got[1])) == (7, "outcome_unknown")
    assert ("resultType" in json.loads(got[1])["result"]) == (revision == MODERN)
    assert (await side.lines.next_calls())[0]["outcome"] == "outcome_unknown"


@pytest.mark.parametrize("ends", ["properly", "broken"])
async def test_a_stream_that_can_be_resumed_gets_no_last_word(
    side: Sidecar, client: Client, upstream: Upstream, ends: str
) -> None:
    """Section 4: where an id was seen clients come back with Last-Event-ID; an error would end their wait."""
    primed = b"id: a-1\nretry: 500\ndata:\n\n"
    client.send(post(tool_call()))
    exchange = await upstream.next()
    exchange.begin()
    exchange.chunk(primed)
    await client.head()
    assert await client.until(b"\n\n") == primed
    if ends == "properly":
        exchange.end()
    else:
        exchange.link.close()
    assert await client.rest_or_cut() == (b"", ends == "broken")


@pytest.mark.parametrize("unfinished", [b"data:", b"data: " + NOTE + b"\n"])
async def test_a_last_word_stands_alone_behind_an_unfinished_event(
    side: Sidecar, client: Client, upstream: Upstream, unfinished: bytes
) -> None:
    """WHATWG 9.2: an event without its blank line is dropped at the end of a stream, the next one is not."""
    client.send(post(tool_call()))
    exchange = await upstream.next()
    exchange.begin()
    exchange.chunk(event(NOTE) + unfinished)
    exchange.end()
    await client.head()
    got = events(await client.rest())
    assert reason_of(got[-1]) == "outcome_unknown"


async def test_a_last_word_fits_into_a_stream_of_announced_length(
    side: Sidecar, client: Client, upstream: Upstream
) -> None:
    """RFC 9112 section 6.3: bytes behind Content-Length belong to another answer."""
    client.send(post(tool_call()))
    exchange = await upstream.next()
    exchange.answer(event(NOTE), kind="text/event-stream")
    await client.head()
    got = events(await client.rest())
    assert [reason_of(data) for data in got[1:]] == ["outcome_unknown"]


async def test_a_large_answer_to_a_batch_arrives_whole(
    side: Sidecar, client: Client, upstream: Upstream
) -> None:
    """2025-03-26: a batch may be answered by an array, of any size up to max_answer_bytes."""
    revision = "2025-03-26"
    batch = b"[" + tool_call(revision, 1) + b"," + tool_call(revision, 2) + b"]"
    body = b"[" + result(1, "x" * HELD_BYTES) + b"," + result(2) + b"]"
    client.send(post(batch, revision))
    (await upstream.next()).answer(body)
    await client.head()
    assert await client.rest_or_cut() == (body, False)
