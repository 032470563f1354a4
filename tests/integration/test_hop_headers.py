"""What goes on and what ends at us: every header field, both ways, and the request target."""

import pytest

from tests.integration.client import Client
from tests.integration.conftest import Connect, OpenSidecar
from tests.integration.house import Sidecar
from tests.integration.upstream import Upstream
from tests.integration.wire import LEGACY, MODERN, Fields, event, fields_for, post, request, result, tool_call

pytestmark = pytest.mark.usefixtures("each_transport")

STOP = [
    "Cookie",
    "Forwarded",
    "HTTP2-Settings",
    "Keep-Alive",
    "Origin",
    "Proxy-Authorization",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "Upgrade",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-HTTP-Method",
    "X-HTTP-Method-Override",
    "X-Method-Override",
    "X-Original-URL",
    "X-Real-IP",
    "X-Rewrite-URL",
    "X_Tenant",
]
GO_ON = ["Accept-Language", "Mcp-Param-Region", "Traceparent", "User-Agent", "Via", "X-Request-Id"]


async def seen_upstream(client: Client, upstream: Upstream, sent: bytes) -> Fields:
    client.send(sent)
    exchange = await upstream.next()
    exchange.answer(result())
    assert (await client.answer()).status == 200
    return exchange.request.fields


@pytest.mark.parametrize("name", STOP)
async def test_a_field_that_stops_here_is_not_seen_upstream(
    side: Sidecar, client: Client, upstream: Upstream, name: str
) -> None:
    """RFC 9110 section 7.6.1, trap 20, and what a server would take for the word of its own proxy."""
    value = f"http://127.0.0.1:{side.port}" if name == "Origin" else "trailers"
    extra = [(name, value)]
    sent = request(
        "POST",
        fields=[*fields_for(tool_call(), LEGACY), *extra],
        body=tool_call(),
        host=f"127.0.0.1:{side.port}",
    )
    fields = await seen_upstream(client, upstream, sent)
    assert name.lower() not in {key.lower() for key, _ in fields}


@pytest.mark.parametrize("name", GO_ON)
async def test_a_field_that_goes_on_arrives_as_it_was_written(
    side: Sidecar, client: Client, upstream: Upstream, name: str
) -> None:
    """Promise 1: transparent, the spelling of names included."""
    fields = await seen_upstream(client, upstream, post(tool_call(), LEGACY, (name, "a, b;q=0.5")))
    assert (name, "a, b;q=0.5") in fields


async def test_what_connection_names_stops_here(side: Sidecar, client: Client, upstream: Upstream) -> None:
    """RFC 9110 section 7.6.1: fields named by Connection belong to this connection."""
    extra = (("Connection", "keep-alive, X-Mine"), ("X-Mine", "1"), ("X-Yours", "2"))
    fields = await seen_upstream(client, upstream, post(tool_call(), LEGACY, *extra))
    names = {key.lower() for key, _ in fields}
    assert "x-mine" not in names
    assert ("X-Yours", "2") in fields


@pytest.mark.parametrize("named", ["authorization", "Mcp-Name", "content-type", "mcp-session-id"])
async def test_connection_cannot_remove_what_decides(
    side: Sidecar, client: Client, upstream: Upstream, named: str
) -> None:
    """Hop-by-hop abuse: the server would see another caller or another message than we judged."""
    answer = await client.asked(post(tool_call(), LEGACY, ("Connection", named)))
    assert (answer.status, upstream.seen) == (400, [])


async def test_accept_and_host(side: Sidecar, client: Client, upstream: Upstream) -> None:
    """Trap 18: Accept untouched, none invented; trap 21: the server sees its own authority."""
    body = tool_call()
    fields = [("Content-Type", "application/json")]
    seen = await seen_upstream(client, upstream, request("POST", fields=fields, body=body))
    assert sorted(seen) == [
        ("Content-Length", str(len(body))),
        ("Content-Type", "application/json"),
        ("Host", f"127.0.0.1:{upstream.port}"),
    ]


async def test_a_coding_the_client_takes_is_not_asked_for(
    side: Sidecar, client: Client, upstream: Upstream
) -> None:
    """An answer must be readable to be judged; the alteration is counted."""
    fields = await seen_upstream(client, upstream, post(tool_call(), LEGACY, ("Accept-Encoding", "gzip, br")))
    assert [value for key, value in fields if key.lower() == "accept-encoding"] == ["identity"]
    assert (await side.lines.next_calls())[0]["altered"] == ["accept-encoding"]


async def test_repeated_fields_stay_apart_and_in_order(
    side: Sidecar, client: Client, upstream: Upstream
) -> None:
    """Promise 1: what the server would have seen."""
    extra = (("X-Several", "1"), ("X-Several", "2"), ("X-Text", "grüße"))
    fields = await seen_upstream(client, upstream, post(tool_call(), LEGACY, *extra))
    assert [pair for pair in fields if pair[0] in ("X-Several", "X-Text")] == list(extra)


@pytest.mark.parametrize(
    ("url_query", "target", "arrives"),
    [
        ("", "/mcp", "/mcp"),
        ("", "/mcp?a=1&b=%2F&c", "/mcp?a=1&b=%2F&c"),
        ("?key=1", "/mcp", "/mcp?key=1"),
        ("?key=1", "/mcp?a=%20", "/mcp?key=1&a=%20"),
        ("", "/mcp?", "/mcp"),
    ],
)
async def test_the_query_goes_on_as_it_is(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, url_query: str, target: str, arrives: str
) -> None:
    """upstream: the query is the client's, behind the server's own."""
    side = await open_sidecar(url=upstream.url + url_query)
    client = await connect(side.port)
    client.send(post(tool_call(), target=target))
    exchange = await upstream.next()
    exchange.answer(result())
    await client.answer()
    assert exchange.request.target == arrives


async def test_a_mirrored_header_of_20_kb_arrives(side: Sidecar, client: Client, upstream: Upstream) -> None:
    """Trap 6: URIs in Mcp-Name are longer than the 8 KiB most libraries take."""
    body = tool_call(MODERN)
    client.send(post(body, MODERN, ("Mcp-Param-Path", "x" * 20_000)))
    exchange = await upstream.next()
    exchange.answer(result())
    assert (await client.answer()).status == 200
    assert exchange.request.all("mcp-param-path") == ["x" * 20_000]


async def test_what_ends_here_on_the_way_back(side: Sidecar, client: Client, upstream: Upstream) -> None:
    """Both ways: hop-by-hop fields, what Connection names, cookies; the session id must arrive (trap 8)."""
    client.send(post(tool_call()))
    (await upstream.next()).answer(
        result(),
        "Connection: keep-alive, X-Mine",
        "Keep-Alive: timeout=5",
        "X-Mine: 1",
        "Set-Cookie: a=1",
        "Set-Cookie2: a=1",
        "Proxy-Authenticate: Basic",
        "Mcp-Session-Id: s-1",
        "X-Several: 1",
        "X-Several: 2",
        "Server: scripted",
        "Date: Sat, 21 Nov 2026 12:00:00 GMT",
        "Cache-Control: no-cache, no-transform",
        "WWW-Authenticate: Bearer",
    )
    answer = await client.answer()
    assert answer.fields == [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(result()))),
        ("Mcp-Session-Id", "s-1"),
        ("X-Several", "1"),
        ("X-Several", "2"),
        ("Server", "scripted"),
        ("Date", "Sat, 21 Nov 2026 12:00:00 GMT"),
        ("Cache-Control", "no-cache, no-transform"),
        ("WWW-Authenticate", "Bearer"),
    ]


HIDES = 'upstream.hide_headers=["Server", "X-Internal-*"]'
TELLING = ("Server: uvicorn/0.3", "x-internal-pod: 10.0.0.1", "X-Internal-Zone: a", "X-Other: 1")


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream", "an error"])
async def test_what_settings_hide_ends_here_on_the_way_back(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, kind: str
) -> None:
    """UP-062: the software and the pod of a server are nobody's business; the record counts each."""
    side = await open_sidecar(HIDES)
    client = await connect(side.port)
    client.send(post(tool_call()))
    exchange = await upstream.next()
    if kind == "text/event-stream":
        exchange.begin(*TELLING)
        exchange.chunk(event(result()))
        exchange.end()
    elif kind == "an error":
        exchange.answer(b"no", *TELLING, status="404 Not Found", kind="text/plain")
    else:
        exchange.answer(result(), *TELLING)
    answer = await client.answer()
    names = {name.lower() for name, _ in answer.fields}
    assert {"server", "x-internal-pod", "x-internal-zone"}.isdisjoint(names)
    assert answer.get("x-other") == "1"
    (line,) = await side.lines.next_calls()
    assert line["altered"] == ["header hidden"] * 3


async def test_they_are_hidden_on_both_ends_of_http_sse(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """2024-11-05: the stream and the messages."""
    side = await open_sidecar(HIDES, url=f"http://127.0.0.1:{upstream.port}/sse")
    client, poster = await connect(side.port), await connect(side.port)
    client.send(request("GET", "/sse", [("Accept", "text/event-stream")]))
    stream = await upstream.next()
    stream.begin(*TELLING)
    stream.chunk(b"event: endpoint\ndata: /messages?s=1\n\n")
    head = await client.head()
    uri = (await client.until(b"\n\n")).decode().split("data: ")[1].strip()
    poster.send(request("POST", uri, [("Content-Type", "application/json")], tool_call()))
    (await upstream.next()).answer(b"", *TELLING, status="202 Accepted", kind="")
    for fields in (head.fields, (await poster.answer()).fields):
        names = [name.lower() for name, _ in fields]
        assert "x-other" in names
        assert {"server", "x-internal-pod", "x-internal-zone"}.isdisjoint(names)


async def test_interim_answers_are_not_passed_on(side: Sidecar, client: Client, upstream: Upstream) -> None:
    """RFC 9110 section 15.2: 103 says nothing to a client that did not ask, and the answer follows."""
    client.send(post(tool_call()))
    exchange = await upstream.next()
    exchange.write(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
    exchange.answer(result())
    assert (await client.answer()).body == result()
    assert client.interim == []
