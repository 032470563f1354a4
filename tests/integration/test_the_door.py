"""What HTTP itself says no to, before a message is read: hosts, origins, paths, methods, framing, sizes."""

import json
import re

import pytest

from proxy.downstream.connection import Connection
from tests.integration.client import Client
from tests.integration.conftest import Connect, OpenSidecar
from tests.integration.house import Sidecar
from tests.integration.upstream import Exchange, Upstream
from tests.integration.wire import (
    LEGACY,
    Fields,
    fields_for,
    listen,
    message,
    post,
    request,
    result,
    tool_call,
)

JSON = ("Content-Type", "application/json")


async def serve(exchange: Exchange) -> None:
    exchange.answer(result())


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:8080", 200),
        ("localhost:1", 200),
        ("[::1]:8080", 200),
        ("LOCALHOST", 200),
        ("evil.example.com", 421),
        ("evil.example.com:8080", 421),
        ("127.0.0.1.evil.example.com", 421),
        ("", 400),
    ],
)
async def test_host(side: Sidecar, client: Client, upstream: Upstream, host: str, status: int) -> None:
    """Section 8.1: DNS rebinding."""
    client.send(request("POST", fields=fields_for(tool_call(), LEGACY), body=tool_call(), host=host))
    if status == 200:
        (await upstream.next()).answer(result())
    assert (await client.answer()).status == status
    assert len(upstream.seen) == (status == 200)


async def test_listed_hosts_replace_the_loopback_names(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """listen.allowed_hosts."""
    side = await open_sidecar("listen.allowed_hosts=[tools.example.com]")
    answer = await (await connect(side.port)).asked(request("GET", host="localhost"))
    assert answer.status == 421
    client = await connect(side.port)
    client.send(request("POST", fields=[JSON], body=tool_call(), host="tools.example.com"))
    (await upstream.next()).answer(result())
    assert (await client.answer()).status == 200


PAGE = "https://app.example.com"


@pytest.fixture
async def listed(open_sidecar: OpenSidecar, connect: Connect) -> Client:
    """A connection to a sidecar that lets one page in."""
    side = await open_sidecar(f"listen.allowed_origins=[{PAGE}]")
    return await connect(side.port)


def by_name(fields: Fields) -> dict[str, str]:
    return {name.lower(): value for name, value in fields}


async def test_a_preflight_is_answered_without_the_server(listed: Client, upstream: Upstream) -> None:
    """Trap 37: browsers ask without credentials."""
    asked = [
        ("Origin", PAGE),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "content-type, mcp-method, mcp-param-region"),
    ]
    answer = await listed.asked(request("OPTIONS", fields=asked))
    told = by_name(answer.fields)
    assert (answer.status, answer.body, upstream.seen) == (204, b"", [])
    assert told["access-control-allow-origin"] == PAGE
    assert "POST" in told["access-control-allow-methods"]
    allowed = {name.strip() for name in told["access-control-allow-headers"].lower().split(",")}
    wanted = {
        "authorization",
        "mcp-protocol-version",
        "mcp-method",
        "mcp-name",
        "mcp-session-id",
        "last-event-id",
    }
    assert wanted | {"mcp-param-region"} <= allowed


async def test_a_listed_page_may_read_the_answer(listed: Client, upstream: Upstream) -> None:
    """Trap 37; two sets of CORS fields would cancel each other."""
    listed.send(post(tool_call(), LEGACY, ("Origin", PAGE)))
    (await upstream.next()).answer(result(), "Access-Control-Allow-Origin: *", "Mcp-Session-Id: s")
    fields = (await listed.answer()).fields
    assert [v for n, v in fields if n.lower() == "access-control-allow-origin"] == [PAGE]
    exposed = by_name(fields)["access-control-expose-headers"].lower()
    assert "mcp-session-id" in exposed
    assert "www-authenticate" in exposed


async def test_a_listed_page_may_read_a_refusal(listed: Client, upstream: Upstream) -> None:
    """A page that cannot read the error reports a network failure."""
    answer = await listed.asked(post(b"{", LEGACY, ("Origin", PAGE)))
    assert (answer.status, by_name(answer.fields)["access-control-allow-origin"]) == (400, PAGE)


@pytest.mark.parametrize("origin", ["https://evil.example.com", "null", PAGE + ".evil.com", PAGE.upper()])
async def test_any_other_page_is_refused(listed: Client, upstream: Upstream, origin: str) -> None:
    """MCP transports: servers MUST validate Origin; 403."""
    answer = await listed.asked(post(tool_call(), LEGACY, ("Origin", origin)))
    assert (answer.status, upstream.seen) == (403, [])
    assert "access-control-allow-origin" not in by_name(answer.fields)


@pytest.mark.parametrize(
    "path", ["/", "/mcp/", "/MCP", "/mcp%2F", "/%6dcp", "/mcp/../mcp", "//mcp", "/healthz", "/metrics"]
)
async def test_other_paths_are_unknown(side: Sidecar, client: Client, upstream: Upstream, path: str) -> None:
    """Exact path; probes never share the data port."""
    answer = await client.asked(post(tool_call(), target=path))
    assert (answer.status, upstream.seen) == (404, [])


@pytest.mark.parametrize("method", ["PUT", "PATCH", "TRACE", "OPTIONS"])
async def test_other_methods_are_told_what_is_allowed(side: Sidecar, client: Client, method: str) -> None:
    """RFC 9110 section 15.5.6: a 405 MUST name the allowed methods."""
    answer = await client.asked(request(method))
    assert answer.status == 405
    assert set((answer.get("allow") or "").split(", ")) >= {"GET", "POST", "DELETE"}


async def test_a_modern_get_is_not_served(side: Sidecar, client: Client, upstream: Upstream) -> None:
    """2026-07-28: POST only; 405 SHOULD."""
    answer = await client.asked(listen(revision="2026-07-28"))
    assert (answer.status, answer.get("allow"), upstream.seen) == (405, "POST", [])


async def test_the_answer_to_head_has_no_body(side: Sidecar, client: Client) -> None:
    """RFC 9110 section 9.3.2: the bytes would be read as another answer."""
    client.send(request("HEAD"))
    head = await client.head()
    assert (head.status, await client.ended()) == (405, b"")


async def test_options_is_never_taken_for_a_post(side: Sidecar, client: Client, upstream: Upstream) -> None:
    """What a router or firewall lets through as OPTIONS must not run a tool."""
    upstream.follow(serve)
    answer = await client.asked(post(tool_call()).replace(b"POST", b"OPTIONS", 1))
    assert (answer.status, upstream.seen) == (405, [])


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([("Content-Type", "text/plain")], 415),
        ([], 415),
        ([("Content-Type", "application/json; charset=latin-1")], 415),
        ([JSON, ("Content-Encoding", "gzip")], 415),
        ([JSON, ("Expect", "the-moon")], 417),
        ([JSON, ("Host", "localhost")], 400),
        ([JSON, ("Content-Length", "5")], 400),
        ([JSON, ("Transfer-Encoding", "chunked")], 400),
        ([JSON, ("Transfer-Encoding", "gzip, chunked")], 400),
    ],
)
async def test_a_head_that_cannot_be_trusted_is_refused(
    side: Sidecar, client: Client, upstream: Upstream, fields: Fields, status: int
) -> None:
    """RFC 9112 section 6: two readers must not frame one message in two ways."""
    answer = await client.asked(request("POST", fields=fields, body=tool_call()))
    assert (answer.status, upstream.seen) == (status, [])
    assert answer.get("connection") == "close"


@pytest.mark.parametrize(
    "raw", [b"nonsense\r\n\r\n", b"POST /mcp HTTP/1.1\r\nHost : a\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00"]
)
async def test_what_is_no_http_is_answered_once_and_closed(
    side: Sidecar, client: Client, upstream: Upstream, raw: bytes
) -> None:
    """No traceback, one line."""
    client.send(raw)
    assert (await client.answer()).status == 400
    assert await client.ended() == b""
    assert [(line["outcome"], line["reason"]) for line in side.lines.calls] == [("invalid", "malformed")]


async def test_continue_is_said_to_whom_asks(side: Sidecar, client: Client, upstream: Upstream) -> None:
    """RFC 9110 section 10.1.1."""
    body = tool_call()
    client.send(post(body, LEGACY, ("Expect", "100-continue"))[: -len(body)])
    client.more(body)
    exchange = await upstream.next()
    exchange.answer(result())
    assert (await client.answer()).status == 200
    assert (client.interim, exchange.request.all("expect")) == ([100], [])


async def test_too_large_is_said_instead_of_continue(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """Nobody should send what nobody will read."""
    side = await open_sidecar("listen.max_body_bytes=1000")
    client = await connect(side.port)
    head = request("POST", fields=[JSON, ("Expect", "100-continue"), ("Content-Length", "1001")])
    assert ((await client.asked(head)).status, client.interim) == (413, [])


@pytest.mark.parametrize(("size", "status"), [(1000, 200), (1001, 413)])
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_the_largest_body(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, size: int, status: int, is_chunked: bool
) -> None:
    """listen.max_body_bytes, announced or not."""
    side = await open_sidecar("listen.max_body_bytes=1000")
    client = await connect(side.port)
    body = tool_call() + b" " * (size - len(tool_call()))
    if is_chunked:
        head = request("POST", fields=[JSON, ("Transfer-Encoding", "chunked")])
        client.send(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
    else:
        client.send(post(body))
    if status == 200:
        (await upstream.next()).answer(result())
    assert (await client.answer()).status == status


@pytest.mark.parametrize(("structure", "status"), [(300, 200), (301, 400)])
@pytest.mark.parametrize("is_batch", [False, True])
async def test_the_most_structure_of_a_body(
    open_sidecar: OpenSidecar,
    connect: Connect,
    upstream: Upstream,
    structure: int,
    status: int,
    is_batch: bool,
) -> None:
    """listen.max_structural_bytes (issue 7.7): brackets and commas outside strings, of one message or of a batch."""
    side = await open_sidecar("listen.max_structural_bytes=300")
    client = await connect(side.port)
    body = message("tools/call", "2025-03-26", name="echo", arguments={"text": "[,{" * 400, "list": []})
    body = b"[" + body + b"]" if is_batch else body
    outside = re.sub(rb'"[^"]*"', b"", body)
    lacks = structure - sum(outside.count(mark) for mark in (b"{", b"[", b","))
    body = body.replace(b"[]", b"[0" + b",0" * lacks + b"]")
    client.send(post(body, "2025-03-26"))
    if status == 200:
        exchange = await upstream.next()
        assert exchange.request.body == body
        exchange.answer(b"[" + result() + b"]" if is_batch else result())
    answer = await client.answer()
    assert (answer.status, b"more than 300 elements" in answer.body) == (status, status == 400)


@pytest.mark.parametrize("earlier", [0, 1])
async def test_a_head_has_a_largest_size(
    side: Sidecar, client: Client, upstream: Upstream, earlier: int
) -> None:
    """downstream: caps on head; 128 fields of 32 KiB would be 4 MiB. Also on a kept connection."""
    upstream.follow(serve)
    for _ in range(earlier):
        await client.asked(post(tool_call()))
    client.send(post(tool_call(), LEGACY, *[(f"X-{number}", "a" * 30_000) for number in range(10)]))
    assert (await client.answer()).status == 431


async def test_http_1_0_is_answered_and_closed(side: Sidecar, client: Client, upstream: Upstream) -> None:
    """RFC 9112 appendix C: no chunks, the end of the connection ends the body."""
    client.send(request("POST", fields=[JSON], body=tool_call(), version="HTTP/1.0"))
    exchange = await upstream.next()
    exchange.begin()
    exchange.chunk(b"data: " + result() + b"\n\n")
    exchange.end()
    answer = await client.answer()
    assert (answer.get("transfer-encoding"), answer.body) == (None, b"data: " + result() + b"\n\n")


async def test_a_refused_message_keeps_its_connection(
    side: Sidecar, client: Client, upstream: Upstream
) -> None:
    """A body that was read whole leaves nothing behind."""
    answer = await client.asked(post(b'{"jsonrpc":"2.0","id":1}'))
    assert (answer.status, json.loads(answer.body)["id"]) == (400, 1)
    client.send(post(message("ping", LEGACY)))
    (await upstream.next()).answer(result())
    assert (await client.answer()).status == 200


CALL = post(tool_call())
CHUNKED = request(
    fields=[*fields_for(tool_call(), LEGACY), ("Transfer-Encoding", "chunked")],
) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(tool_call()), tool_call())


@pytest.mark.parametrize(
    ("good", "old", "new", "status"),
    [
        (CALL, b"Host: 127.0.0.1", b"Host: 137.0.0.1", 421),
        (CALL, b"Host: 127.0.0.1", b"Host: 127.0.0.1\r\nHost: 127.0.0.1", 400),
        (CALL, b"\r\nAccept:", b"\r\nOrigin: https://evil.example.com\r\nAccept:", 403),
        (CALL, b"POST /mcp ", b"POST /mcq ", 404),
        (CALL, b"POST /mcp ", b"PUT /mcp ", 405),
        (CALL, b"POST /mcp ", b"POST /mcp?access_token=x ", 400),
        (CALL, b"Type: application/json", b"Type: application/jsom", 415),
        (CALL, b"Version: 2025-11-25", b"Version: 2025-11-26", 400),
        (CHUNKED, b"HTTP/1.1", b"HTTP/1.0", 400),
    ],
)
async def test_a_head_is_judged_by_itself(
    client: Client, upstream: Upstream, good: bytes, old: bytes, new: bytes, status: int
) -> None:
    """Own promise: a head that comes again is known, and one that differs from it in anything is another one."""
    for _ in range(2):
        client.send(good)
        (await upstream.next()).answer(result())
        assert (await client.answer()).status == 200
    assert good.count(old) == 1
    client.send(good.replace(old, new))
    assert (await client.answer()).status == status
    assert len(upstream.seen) == 2


@pytest.mark.parametrize(("more", "is_known"), [(0, True), (4_096, False)])
async def test_a_connection_that_waits_keeps_a_short_head_only(
    side: Sidecar, client: Client, upstream: Upstream, more: int, is_known: bool
) -> None:
    """design section 8: 12 KB per idle connection, whatever strangers write into a head."""
    client.send(post(tool_call(), LEGACY, ("X-Note", "x" * more)))
    (await upstream.next()).answer(result())
    assert (await client.answer()).status == 200
    (connection,) = side.house.connections
    assert isinstance(connection, Connection)
    assert (connection.judged is not None) is is_known
