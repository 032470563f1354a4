"""With no rule in force a client and a server see the same with us between them as without us.

The same bytes go straight to the scripted server and through the sidecar; the same bytes come back. Compared: what
the server saw, what the client saw, and nothing is forgiven but the alterations that are written down here.
"""

import asyncio
import json

import pytest

from tests.integration.client import Client
from tests.integration.conftest import Connect
from tests.integration.house import Sidecar
from tests.integration.upstream import Exchange, Upstream
from tests.integration.waiting import within
from tests.integration.wire import (
    LEGACY,
    MODERN,
    NOTE,
    REVISIONS,
    Answer,
    Fields,
    Request,
    event,
    listen,
    message,
    post,
    request,
    result,
    tool_call,
)

pytestmark = pytest.mark.usefixtures("each_transport")

FRAMING = {"connection", "content-length", "keep-alive", "transfer-encoding"}
"""About one connection: each side has its own."""


def end_to_end(fields: Fields) -> Fields:
    return sorted((name, value) for name, value in fields if name.lower() not in FRAMING)


async def through(
    client: Client, upstream: Upstream, sent: bytes, back: bytes, then_close: bool = False
) -> tuple[Request, Answer]:
    """What the server saw and what the client saw of one exchange."""
    client.send(sent)
    exchange = await upstream.next()
    exchange.write(back)
    if then_close:
        exchange.link.close()
    return exchange.request, await client.answer()


async def assert_equal(
    side: Sidecar, upstream: Upstream, connect: Connect, sent: bytes, back: bytes, then_close: bool = False
) -> None:
    straight = await connect(upstream.port)
    saw, got = await through(straight, upstream, sent, back, then_close)
    between = await connect(side.port)
    saw_between, got_between = await through(between, upstream, sent, back, then_close)
    assert (saw_between.method, saw_between.target, saw_between.body) == (saw.method, saw.target, saw.body)
    # Host is the server's own authority, as the client would have sent it without us.
    own_host = [("Host", f"127.0.0.1:{upstream.port}")]
    assert end_to_end(saw_between.fields) == sorted(
        [pair for pair in end_to_end(saw.fields) if pair[0] != "Host"] + own_host
    )
    assert (got_between.status, got_between.body) == (got.status, got.body)
    # Date is added where the server sent none (RFC 9110 section 6.6.1).
    added = [pair for pair in end_to_end(got_between.fields) if pair[0] == "Date" and pair not in got.fields]
    assert sorted(end_to_end(got.fields) + added) == end_to_end(got_between.fields)


def whole(body: bytes, status: str = "200 OK", kind: str = "application/json", *fields: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", *([f"Content-Type: {kind}"] if kind else []), *fields]
    return "\r\n".join(lines).encode() + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def chunked(*pieces: bytes, kind: str = "text/event-stream") -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nCache-Control: no-cache, no-transform\r\n"
    raw = head.encode() + b"X-Accel-Buffering: no\r\nTransfer-Encoding: chunked\r\n\r\n"
    return raw + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def odd_call(revision: str) -> bytes:
    """A call whose text another writer would tidy: blanks, escapes, numbers, unknown members, order."""
    meta = ""
    if revision == MODERN:
        prefix = "io.modelcontextprotocol/"
        meta = f'"_meta": {{"{prefix}protocolVersion": "{revision}", "{prefix}clientCapabilities": {{}}}}, '
    return (
        f' {{"params" : {{ {meta}"name":"echo","arguments":{{"n":1.0,"e":1e3,"big":12345678901234567890,"z":-0,'
        '"s":"\\u00e9\\/é\\ud83d\\ude00","later":{"a":[ ]}}},\n\t'
        '"method":"tools/call","id":0,"jsonrpc":"2.0","x-new":null}\r\n'
    ).encode()


@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize("body", ["usual", "odd"])
async def test_a_call_and_its_answer(
    side: Sidecar, upstream: Upstream, connect: Connect, revision: str, body: str
) -> None:
    """Promises 1 and 2: judged = forwarded, byte for byte."""
    sent = tool_call(revision) if body == "usual" else odd_call(revision)
    extra = (("Mcp-Session-Id", "s-1"), ("User-Agent", "test"), ("X-Odd", "a  b"))
    id = json.loads(sent)["id"]
    back = (
        b'{"id":%d, "result":{"v":1.0,"b":123456789012345678901,"t":"\\u2028\xe2\x80\xa8"},"jsonrpc":"2.0"}\n'
        % id
    )
    await assert_equal(side, upstream, connect, post(sent, revision, *extra), whole(back))


ANSWERS = {
    "an error": whole(b'{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"no"}}'),
    "a tool error": whole(b'{"jsonrpc":"2.0","id":1,"result":{"isError":true,"content":[]}}'),
    "an odd result type": whole(b'{"jsonrpc":"2.0","id":1,"result":{"resultType":"input_required"}}'),
    "400 with JSON-RPC": whole(
        b'{"jsonrpc":"2.0","id":1,"error":{"code":-32020,"message":"no"}}', "400 Bad Request"
    ),
    "400 with a null id": whole(
        b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"no"}}', "400 Bad Request"
    ),
    "400 in HTML": whole(b"<h1>Bad Request</h1>", "400 Bad Request", "text/html; charset=utf-8"),
    "401": whole(b"", "401 Unauthorized", "", 'WWW-Authenticate: Bearer error="invalid_token"'),
    "404": whole(b'{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"no"}}', "404 Not Found"),
    "405": whole(b"", "405 Method Not Allowed", "", "Allow: GET, POST"),
    "406 in text": whole(b"Not Acceptable", "406 Not Acceptable", "text/plain"),
    "409": whole(b"conflict", "409 Conflict", "text/plain"),
    "429": whole(b"slow down", "429 Too Many Requests", "text/plain", "Retry-After: 3"),
    "500": whole(b"Internal Server Error", "500 Internal Server Error", "text/plain"),
    "503 with a null id": whole(
        b'{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":"no"}}', "503 Service Unavailable"
    ),
    "chunked JSON": chunked(result()[:20], result()[20:], kind="application/json"),
    "JSON with a charset": whole(result(), "200 OK", "application/json; charset=UTF-8"),
    "a lone surrogate": whole(b'{"jsonrpc":"2.0","id":1,"result":{"t":"\\ud83d"}}'),
    "an empty field": whole(result(), "200 OK", "application/json", "X-Empty:", "Mcp-Session-Id: s-1"),
}


@pytest.mark.parametrize("back", ANSWERS.values(), ids=ANSWERS.keys())
async def test_an_answer_of_any_kind(
    side: Sidecar, upstream: Upstream, connect: Connect, back: bytes
) -> None:
    """Promise 1: status, fields and bytes."""
    await assert_equal(side, upstream, connect, post(tool_call()), back)


STREAMS = {
    "LF": [event(NOTE), event(result())],
    "CRLF": [event(NOTE).replace(b"\n", b"\r\n"), event(result()).replace(b"\n", b"\r\n")],
    "CR": [event(NOTE).replace(b"\n", b"\r"), event(result()).replace(b"\n", b"\r")],
    "mixed": [b"event: message\r\ndata: " + NOTE + b"\n\r\n", b"data: " + result() + b"\r\n\n"],
    "cut anywhere": [bytes([each]) for each in event(NOTE) + event(result()).replace(b"\n", b"\r\n")],
    "comments": [b": ping\n\n", b":\r\n\r\n", b": between\n", event(result()), b": after\n\n"],
    "priming": [b"id: a-1\nretry: 1500\ndata:\n\n", b"id: a-2\ndata: \n\n", event(result(), id="a-3")],
    "multi-line data": [b"data: " + result().replace(b", ", b",\ndata: ") + b"\n\n"],
    "U+2028 and U+0085": [b'data: {"jsonrpc":"2.0","id":1,"result":{"t":"\xe2\x80\xa8\xc2\x85"}}\n\n'],
    "BOM": [b"\xef\xbb\xbf" + event(result())],
    "fields nobody knows": [b"foo: bar\nevent:message\ndata:" + result() + b"\n\n"],
    "no JSON": [b"data: ping\n\n", b'event: other\ndata: "x"\n\n', b"event: lonely\n\n", event(result())],
    "a big event": [event(result(text="x" * 700_000))],
    "an answer without its blank line": [event(NOTE), event(result())[:-1]],
    "more behind the answer": [event(result()), event(NOTE), b": bye\n\n"],
    "nothing but a server request": [event(message("ping", LEGACY, 1)), event(result())],
}


@pytest.mark.parametrize("pieces", STREAMS.values(), ids=STREAMS.keys())
@pytest.mark.parametrize("revision", [LEGACY, MODERN])
async def test_a_stream_of_any_shape(
    side: Sidecar, upstream: Upstream, connect: Connect, pieces: list[bytes], revision: str
) -> None:
    """style guide 4: bytes in, the same bytes out, no re-framing."""
    await assert_equal(side, upstream, connect, post(tool_call(revision), revision), chunked(*pieces))


async def test_a_stream_that_ends_with_the_connection(
    side: Sidecar, upstream: Upstream, connect: Connect
) -> None:
    """RFC 9112 section 6.3, case 8: no length, no chunks."""
    back = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + event(result())
    await assert_equal(side, upstream, connect, post(tool_call()), back, then_close=True)


async def test_a_stream_of_announced_length(side: Sidecar, upstream: Upstream, connect: Connect) -> None:
    """A server that knows all its events beforehand."""
    back = whole(event(NOTE) + event(result()), "200 OK", "text/event-stream")
    await assert_equal(side, upstream, connect, post(tool_call()), back)


NO_ANSWERS = {
    "202": whole(b"", "202 Accepted", ""),
    "202 with a type": whole(b"", "202 Accepted", "application/json"),
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "400": whole(b'{"jsonrpc":"2.0","error":{"code":-32600,"message":"no"}}', "400 Bad Request"),
    "404": whole(b"no session", "404 Not Found", "text/plain"),
}


@pytest.mark.parametrize("back", NO_ANSWERS.values(), ids=NO_ANSWERS.keys())
@pytest.mark.parametrize("revision", REVISIONS)
async def test_a_notification(
    side: Sidecar, upstream: Upstream, connect: Connect, revision: str, back: bytes
) -> None:
    """Trap 15: 202 without a body is 202 without a body."""
    sent = post(message("notifications/cancelled", revision, None, requestId=1), revision)
    await assert_equal(side, upstream, connect, sent, back)


async def test_an_answer_of_the_client(side: Sidecar, upstream: Upstream, connect: Connect) -> None:
    """Section 4: the client's answers to server requests are posted, with ids of the server."""
    await assert_equal(side, upstream, connect, post(result("srv-1")), whole(b"", "202 Accepted", ""))


@pytest.mark.parametrize("id", [0, 1, -1, 2**53, "", "1", "späť", "a" * 200])
async def test_an_id_keeps_its_value_and_type(
    side: Sidecar, upstream: Upstream, connect: Connect, id: int | str
) -> None:
    """Trap 13: ids are never rewritten; 0 is common."""
    await assert_equal(side, upstream, connect, post(tool_call(id=id)), whole(result(id)))


BATCH = b"[" + tool_call("2025-03-26", 1) + b" ,\n" + message("ping", "2025-03-26", "a") + b"," + NOTE + b"]"


@pytest.mark.parametrize(
    "back",
    [
        whole(b"[" + result("a") + b" , " + result(1) + b"]"),
        chunked(event(result("a")), event(NOTE), event(result(1))),
        chunked(event(b"[" + result("a") + b"," + result(1) + b"]")),
    ],
    ids=["array", "events", "array in one event"],
)
async def test_a_batch(side: Sidecar, upstream: Upstream, connect: Connect, back: bytes) -> None:
    """2025-03-26 basic/index: receivers MUST accept batches; answers come in any order."""
    await assert_equal(side, upstream, connect, post(BATCH, "2025-03-26"), back)


async def test_a_batch_ends_each_call_with_its_own_answer(
    side: Sidecar, client: Client, upstream: Upstream
) -> None:
    """design section 4: each is journalled by itself, and ends with its own answer."""
    client.send(post(BATCH, "2025-03-26"))
    exchange = await upstream.next()
    exchange.begin()
    exchange.chunk(event(result(1)))
    await client.head()
    first = await side.lines.next_calls(1)
    assert [(line["method"], line["outcome"]) for line in first] == [("tools/call", "ok")]
    exchange.chunk(event(result("a")))
    exchange.end()
    await client.rest()
    methods = sorted(line["method"] for line in await side.lines.next_calls(3))
    assert methods == ["notifications/message", "ping", "tools/call"]


SESSION = [
    listen(("Mcp-Session-Id", "s-1")),
    listen(("Last-Event-ID", "a-1"), ("Mcp-Session-Id", "s-1")),
    request("DELETE", fields=[("Mcp-Session-Id", "s-1"), ("MCP-Protocol-Version", LEGACY)]),
]


@pytest.mark.parametrize("sent", SESSION, ids=["GET", "GET again", "DELETE"])
@pytest.mark.parametrize(
    "back",
    [
        chunked(b"id: a-1\ndata:\n\n", event(NOTE, id="a-2"), event(message("ping", LEGACY, 1))),
        whole(b"", "405 Method Not Allowed", "", "Allow: POST"),
        whole(b"", "200 OK", ""),
        whole(
            b'{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"no"}}', "404 Not Found"
        ),
        whole(b"busy", "409 Conflict", "text/plain"),
    ],
    ids=["stream", "405", "200", "404", "409"],
)
async def test_what_belongs_to_a_session(
    side: Sidecar, upstream: Upstream, connect: Connect, sent: bytes, back: bytes
) -> None:
    """2025 eras: GET and DELETE, whatever the server says to them."""
    await assert_equal(side, upstream, connect, sent, back)


@pytest.mark.parametrize(
    "first",
    [b"id: a-1\nretry: 500\ndata:\n\n", b": ping\n", event(NOTE), event(NOTE).replace(b"\n", b"\r\n")],
)
@pytest.mark.parametrize("sent", [post(tool_call()), listen(), post(tool_call(MODERN), MODERN)])
async def test_an_event_arrives_while_the_server_holds_the_stream_open(
    side: Sidecar, client: Client, upstream: Upstream, sent: bytes, first: bytes
) -> None:
    """Trap 7: a buffered stream deadlocks sampling and elicitation."""
    client.send(sent)
    exchange = await upstream.next()
    exchange.begin()
    await client.head()
    exchange.chunk(first)
    assert await client.until(first) == first
    assert exchange.link.is_open


async def test_a_server_request_is_answered_while_the_call_is_open(
    side: Sidecar, client: Client, upstream: Upstream, connect: Connect
) -> None:
    """Section 4: the call waits for an answer that comes on another connection."""
    client.send(post(tool_call()))
    call = await upstream.next()
    call.begin()
    call.chunk(event(message("elicitation/create", LEGACY, "srv-1")))
    await client.head()
    await client.until(b"srv-1")
    other = await connect(side.port)
    other.send(post(result("srv-1")))
    (await upstream.next()).answer(b"", status="202 Accepted", kind="")
    assert (await other.answer()).status == 202
    call.chunk(event(result()))
    call.end()
    assert await client.rest() == event(result())


@pytest.mark.filterwarnings(
    "ignore:Sending a large body:ResourceWarning"
)  # said by aiohttp's client beyond 1 MiB
@pytest.mark.parametrize("size", [900_000, 4_000_000])
async def test_large_requests_arrive_whole(
    side: Sidecar, upstream: Upstream, connect: Connect, size: int
) -> None:
    """listen.max_body_bytes is 4 MiB, as in the Python SDK."""
    body = message("tools/call", LEGACY, 1, name="echo", arguments={"text": "x" * size})
    await assert_equal(side, upstream, connect, post(body), whole(result()))


async def test_a_chunked_request_arrives_as_the_same_body(
    side: Sidecar, client: Client, upstream: Upstream
) -> None:
    """Framing is ours; what was inspected is what is forwarded."""
    fields = [("Content-Type", "application/json"), ("Transfer-Encoding", "chunked")]
    body = tool_call()
    raw = b"".join(b"%x\r\n%b\r\n" % (1, bytes([each])) for each in body) + b"0\r\n\r\n"
    client.send(request("POST", fields=fields) + raw)
    exchange = await upstream.next()
    exchange.answer(result())
    assert (await client.answer()).status == 200
    assert (exchange.request.body, exchange.request.all("transfer-encoding")) == (body, [])


async def test_pipelined_requests_are_answered_in_their_order(
    side: Sidecar, client: Client, upstream: Upstream
) -> None:
    """RFC 9112 section 9.3.2."""

    async def answer(exchange: Exchange) -> None:
        exchange.answer(result(json.loads(exchange.request.body)["id"]))

    upstream.follow(answer)
    client.send(b"".join(post(tool_call(id=number)) for number in range(20)))
    for number in range(20):
        assert (await client.answer()).body == result(number)


async def test_a_hundred_calls_at_once(side: Sidecar, upstream: Upstream, connect: Connect) -> None:
    """No call waits for another."""
    clients = [await connect(side.port) for _ in range(100)]
    for each in clients:
        each.send(post(tool_call()))
    async with within():
        exchanges = [await upstream.next() for _ in clients]
    for exchange in exchanges:
        exchange.answer(result())
    answers = await asyncio.gather(*(each.answer() for each in clients))
    assert {each.body for each in answers} == {result()}
