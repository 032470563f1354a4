"""Traces over real sockets: one from the client through us to the server, and nothing where nobody asked for any.

Source: issue 8, point 2; semantic-conventions-genai docs/gen-ai/mcp.md; corpus TEL-014 and TEL-015.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from proxy.telemetry.traces_building import Tracing
from tests.idp import AUDIENCE, Idp
from tests.integration.client import Client
from tests.integration.conftest import Connect, OpenSidecar
from tests.integration.house import Sidecar
from tests.integration.upstream import Exchange, Upstream, fields_of
from tests.integration.waiting import until
from tests.integration.wire import LEGACY, MODERN, REVISIONS, event, message, post, result, tool_call

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
OTHER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
EVERY = ("telemetry.traces.exporter=none", "telemetry.traces.sample=1")
INJECT = "telemetry.traces.inject_meta=true"
RULES = {
    "tools": [
        {"match": "again", "allow": ["*"], "idempotent": True},
        {"match": "kept", "allow": ["*"], "class": "read", "cache": {"ttl_s": 60}},
        {"match": "shell", "deny": ["*"]},
        {"match": "hedged", "allow": ["*"], "class": "read", "idempotent": True, "hedge_after_s": 0.02},
        {"match": "*", "allow": ["*"]},
    ],
    "methods": {"*": {"allow": ["*"]}},
}


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
async def side(open_sidecar: OpenSidecar, exporter: InMemorySpanExporter) -> Sidecar:
    rules = "policy=" + json.dumps(RULES)
    return await open_sidecar(*EVERY, rules, "cache={}", "resilience.backoff_s=0.001", exporter=exporter)


@pytest.fixture
async def client(side: Sidecar, connect: Connect) -> Client:
    return await connect(side.port)


async def spans(side: Sidecar, exporter: InMemorySpanExporter, calls: int = 1) -> list[ReadableSpan]:
    """All that was recorded when so many calls have ended: servers first, each by when it began."""
    await side.lines.next_calls(calls)
    tracing = side.house.rooms.tracing
    assert tracing is not None
    assert tracing.exports is not None
    await asyncio.to_thread(tracing.exports.flush)
    return sorted(
        exporter.get_finished_spans(), key=lambda span: (span.kind is SpanKind.CLIENT, span.start_time)
    )


def ids(span: ReadableSpan) -> tuple[str, str, str | None]:
    """Trace, span and parent."""
    assert span.context is not None
    above = None if span.parent is None else f"{span.parent.span_id:016x}"
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}", above


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def sent(upstream: Upstream) -> list[str]:
    """The traceparents the server got, one a request."""
    return [only for request in upstream.seen for (only,) in [fields_of(request, "traceparent")]]


async def test_plain_http_is_one_trace(
    side: Sidecar, client: Client, upstream: Upstream, exporter: InMemorySpanExporter
) -> None:
    """The caller's span is above ours, ours above what the server makes of the header; its line names the trace."""
    body = tool_call()
    extra = [("traceparent", PARENT), ("tracestate", "a=1"), ("baggage", "user=ann")]
    client.send(post(body, LEGACY, *extra))
    exchange = await upstream.next()
    exchange.answer(result())
    await client.answer()
    server, attempt = await spans(side, exporter)
    assert ids(server)[::2] == (TRACE, SPAN)
    assert ids(attempt)[::2] == (TRACE, ids(server)[1])
    assert sent(upstream) == [f"00-{TRACE}-{ids(attempt)[1]}-01"]
    assert fields_of(exchange.request, "tracestate") == ["a=1"]
    assert fields_of(exchange.request, "baggage") == ["user=ann"]
    assert exchange.request.body == body
    assert attributes(attempt)["server.port"] == upstream.port
    assert attributes(server)["client.address"] == "127.0.0.1"


@pytest.mark.parametrize("revision", REVISIONS)
async def test_the_context_of_the_message_comes_first(
    side: Sidecar, client: Client, upstream: Upstream, exporter: InMemorySpanExporter, revision: str
) -> None:
    """SEP-414; that of HTTP is linked. Without inject_meta the body stays as it was."""
    said = json.loads(tool_call(revision))
    said["params"].setdefault("_meta", {})["traceparent"] = PARENT
    body = json.dumps(said).encode()
    client.send(post(body, revision, ("traceparent", OTHER)))
    exchange = await upstream.next()
    exchange.answer(result())
    await client.answer()
    server, _ = await spans(side, exporter)
    assert ids(server)[::2] == (TRACE, SPAN)
    assert [f"{link.context.trace_id:032x}" for link in server.links] == [OTHER[3:35]]
    assert exchange.request.body == body


async def test_attempts_are_siblings(
    side: Sidecar, client: Client, upstream: Upstream, exporter: InMemorySpanExporter
) -> None:
    """Each attempt tells the server of its own span, all below that of the call."""
    client.send(post(tool_call(tool="again")))
    for _ in range(2):
        (await upstream.next()).link.reset()
    (await upstream.next()).answer(result())
    await client.answer()
    server, *attempts = await spans(side, exporter)
    assert [ids(each)[::2] for each in attempts] == [ids(server)[:2]] * 3
    assert sent(upstream) == [f"00-{ids(server)[0]}-{ids(each)[1]}-03" for each in attempts]
    assert [attributes(each).get("error.type") for each in attempts] == [
        "outcome_unknown",
        "outcome_unknown",
        None,
    ]


async def test_a_race_is_of_siblings(
    side: Sidecar, client: Client, upstream: Upstream, exporter: InMemorySpanExporter
) -> None:
    """A hedge: the loser has a span, too, and the caller's outcome is its own."""
    client.send(post(tool_call(MODERN, tool="hedged"), MODERN))
    await upstream.next()
    (await upstream.next()).answer(result())
    await client.answer()
    server, *attempts = await spans(side, exporter)
    assert [ids(each)[2] for each in attempts] == [ids(server)[1]] * 2
    assert [attributes(each).get("error.type") for each in attempts] == ["cancelled", None]
    assert "error.type" not in attributes(server)


async def test_refusals_and_hits_have_spans(
    side: Sidecar, client: Client, upstream: Upstream, exporter: InMemorySpanExporter
) -> None:
    """Issue 8: what never reached the server is seen, too."""
    client.send(post(tool_call(tool="kept")))
    (await upstream.next()).answer(result())
    await client.answer()
    client.send(post(tool_call(tool="kept")))
    await client.answer()
    client.send(post(tool_call(tool="shell")))
    await client.answer()
    client.send(post(b'{"jsonrpc":"2.0","id":1,"method":'))
    await client.answer()
    miss, hit, refused, unread, _ = await spans(side, exporter, 4)
    assert [event.name for event in miss.events] == ["policy.check", "cache"]
    assert [dict(event.attributes or {}) for event in hit.events][1] == {"result": "hit"}
    assert (hit.name, refused.name, unread.name) == ("tools/call kept", "tools/call", "unread message")
    assert attributes(refused)["error.type"] == "denied"
    assert (refused.events[0].attributes or {})["decision"] == "deny"
    assert attributes(unread)["error.type"] == "invalid"


async def test_an_error_of_json_rpc_has_its_code(
    side: Sidecar, client: Client, upstream: Upstream, exporter: InMemorySpanExporter
) -> None:
    """docs/gen-ai/mcp.md, error.type [1]; on a stream of events, too."""
    client.send(post(tool_call()))
    exchange = await upstream.next()
    exchange.begin()
    exchange.chunk(event(b'{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"hush"}}'))
    exchange.end()
    await client.answer()
    found = await spans(side, exporter)
    assert [attributes(each)["rpc.response.status_code"] for each in found] == ["-32602"] * 2
    assert all("hush" not in each.to_json() for each in found)


async def test_a_forged_flag_forces_nothing(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, exporter: InMemorySpanExporter
) -> None:
    """Corpus TEL-014: a client cannot force 100 % sampling, here or at the server, by HTTP or in the message."""
    side = await open_sidecar("telemetry.traces.exporter=none", exporter=exporter)
    client = await connect(side.port)
    meta = json.loads(tool_call(LEGACY))
    meta["params"]["_meta"] = {"traceparent": PARENT}
    for body in (tool_call(), json.dumps(meta).encode()):
        client.send(post(body, LEGACY, ("traceparent", PARENT)))
        (await upstream.next()).answer(result())
        await client.answer()
    assert await spans(side, exporter, 2) == []
    assert {told[:35] + told[-3:] for told in sent(upstream)} == {f"00-{TRACE}-00"}
    assert not any(SPAN in told for told in sent(upstream))


async def test_ids_chosen_to_be_in_the_share_are_bounded(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, exporter: InMemorySpanExporter
) -> None:
    """Corpus TEL-014: its own id is in the share of 5 %, as whoever knows the share can choose it."""
    side = await open_sidecar(
        "telemetry.traces.exporter=none", "telemetry.traces.max_claimed_per_s=1", exporter=exporter
    )
    client = await connect(side.port)
    chosen = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
    loop = asyncio.get_running_loop()
    began = loop.time()
    for _ in range(30):
        client.send(post(tool_call(), LEGACY, ("traceparent", chosen)))
        (await upstream.next()).answer(result())
        await client.answer()
    found = await spans(side, exporter, 30)
    servers = [each for each in found if each.kind is SpanKind.SERVER]
    assert 1 <= len(servers) <= 2 + loop.time() - began
    assert len([told for told in sent(upstream) if told.endswith("-01")]) == len(servers)


async def test_garbage_is_forwarded_to_nobody(
    side: Sidecar, client: Client, upstream: Upstream, exporter: InMemorySpanExporter
) -> None:
    """Corpus TEL-015: no error, and neither the garbage nor a state of 8 kB goes on."""
    client.send(post(tool_call(), LEGACY, ("traceparent", "zz"), ("tracestate", "a=" + "b" * 8_000)))
    exchange = await upstream.next()
    exchange.answer(result())
    assert (await client.answer()).status == 200
    server, attempt = await spans(side, exporter)
    assert ids(server)[2] is None
    assert sent(upstream) == [f"00-{ids(server)[0]}-{ids(attempt)[1]}-03"]
    assert fields_of(exchange.request, "tracestate") == []


async def test_nothing_is_touched_where_nobody_asked_for_traces(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """Design section 2: transparent; what the client says passes as it is, also what is no context."""
    client = await connect((await open_sidecar()).port)
    fields = [
        ("traceparent", "zz"),
        ("Tracestate", "a=" + "b" * 600),
        ("baggage", "x"),
        ("traceparent", PARENT),
    ]
    body = (
        b'{ "jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":{"traceparent":"zz","tracestate":1}} }'
    )
    client.send(post(body, LEGACY, *fields))
    exchange = await upstream.next()
    exchange.answer(result())
    await client.answer()
    client.send(post(tool_call()))
    without = await upstream.next()
    without.answer(result())
    await client.answer()
    ours = {"traceparent", "tracestate", "baggage"}
    assert [pair for pair in exchange.request.fields if pair[0].lower() in ours] == fields
    assert exchange.request.body == body
    assert not ours & {name.lower() for name, _ in without.request.fields}
    assert without.request.body == tool_call()


@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize("has_own", [True, False])
async def test_the_context_is_put_into_the_message(
    open_sidecar: OpenSidecar,
    connect: Connect,
    upstream: Upstream,
    exporter: InMemorySpanExporter,
    revision: str,
    has_own: bool,
) -> None:
    """inject_meta: by splicing; the rest, its length and the mirror headers stay true."""
    side = await open_sidecar(*EVERY, INJECT, exporter=exporter)
    client = await connect(side.port)
    said = json.loads(tool_call(revision))
    if has_own:
        said["params"]["_meta"] = {
            **said["params"].get("_meta", {}),
            "tracestate": "a=1",
            "traceparent": PARENT,
            "z": 1.0,
        }
    body = json.dumps(said, indent=1).encode()
    client.send(post(body, revision))
    exchange = await upstream.next()
    exchange.answer(result())
    await client.answer()
    server, attempt = await spans(side, exporter)
    got = exchange.request.body
    told = f"00-{ids(server)[0]}-{ids(attempt)[1]}-0{1 if has_own else 3}"
    meta = json.loads(got)["params"]["_meta"]
    assert meta["traceparent"] == told
    assert sent(upstream) == [told]
    if has_own:
        assert got == body.replace(PARENT.encode(), told.encode())
    else:
        assert json.loads(got)["params"] == {
            **said["params"],
            "_meta": {**said["params"].get("_meta", {}), **meta},
        }
    assert fields_of(exchange.request, "Content-Length") == [str(len(got))]
    if revision == MODERN:
        assert fields_of(exchange.request, "Mcp-Name") == ["echo"]
        assert fields_of(exchange.request, "Mcp-Method") == ["tools/call"]
    assert (await side.lines.next_calls())[0]["altered"] == ["trace context"]


async def test_each_message_of_a_batch_has_its_own_context(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, exporter: InMemorySpanExporter
) -> None:
    """2025-03-26: one HTTP request serves several messages, so its header can only name one of them."""
    side = await open_sidecar(*EVERY, INJECT, exporter=exporter)
    client = await connect(side.port)
    one, two = tool_call("2025-03-26", 1), message("ping", "2025-03-26", 2, _meta={"traceparent": PARENT})
    note = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'
    answered = b'{"jsonrpc":"2.0","id":9,"result":{}}'
    body = b"[ " + b" ,\n".join((one, two, note, answered)) + b" ]"
    client.send(post(body, "2025-03-26"))
    exchange = await upstream.next()
    exchange.answer(b"[" + result(1) + b"," + result(2) + b"]")
    await client.answer()
    found = await spans(side, exporter, 4)
    contexts = {f"00-{ids(each)[0]}-{ids(each)[1]}" for each in found if each.kind is SpanKind.CLIENT}
    got = json.loads(exchange.request.body)
    told = [each["params"]["_meta"]["traceparent"][:-3] for each in got[:3]]
    assert set(told) < contexts
    assert len(contexts) == 4
    assert told[1].startswith(f"00-{TRACE}-")
    assert sent(upstream)[0][:-3] == told[0]
    assert exchange.request.body.endswith(b" ,\n" + answered + b" ]")


async def test_contexts_go_on_where_nothing_is_recorded(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """exporter: none; the caller's context is not broken by a span that nobody ever sees."""
    side = await open_sidecar(*EVERY, INJECT)
    client = await connect(side.port)
    for extra in ([("traceparent", PARENT)], []):
        client.send(post(tool_call(), LEGACY, *extra))
        (await upstream.next()).answer(result())
        await client.answer()
    first, second = sent(upstream)
    assert first == PARENT
    assert second.endswith("-03")
    assert [json.loads(each.body)["params"]["_meta"]["traceparent"] for each in upstream.seen] == [
        first,
        second,
    ]


async def test_traces_come_and_go_with_the_settings(
    open_sidecar: OpenSidecar,
    connect: Connect,
    upstream: Upstream,
    exporter: InMemorySpanExporter,
    tmp_path: Path,
) -> None:
    """A reload: what records is replaced and closed, and a call that has begun is recorded by what it began with."""

    async def answer(exchange: Exchange) -> None:
        exchange.answer(result())

    file = tmp_path / "settings.yaml"

    def in_force(side: Sidecar) -> Tracing | None:
        return side.house.rooms.tracing

    def says(**telemetry: object) -> None:
        file.write_text(json.dumps({"version": 1, "telemetry": telemetry}), encoding="utf-8")

    every = {"exporter": "none", "sample": 1}
    says()
    side = await open_sidecar(file=file, exporter=exporter)
    client = await connect(side.port)
    assert in_force(side) is None
    says(traces=every)
    assert await side.house.reload()
    tracing = in_force(side)
    assert tracing is not None
    client.send(post(tool_call()))
    exchange = await upstream.next()
    says(traces=every, log_level="warning")
    assert await side.house.reload()
    assert in_force(side) is tracing  # nothing else was said of traces
    says()
    assert await side.house.reload()
    assert in_force(side) is None
    exchange.answer(result())
    await client.answer()
    await until(lambda: side.house.retiring == 0)
    assert [each.kind for each in exporter.get_finished_spans()] == [SpanKind.CLIENT, SpanKind.SERVER]
    upstream.follow(answer)
    client.send(post(tool_call()))
    await client.answer()
    assert fields_of(upstream.seen[-1], "traceparent") == []


async def test_questions_to_a_provider_have_spans_and_calls_have_ours_only(
    open_sidecar: OpenSidecar,
    connect: Connect,
    upstream: Upstream,
    exporter: InMemorySpanExporter,
    tmp_path: Path,
) -> None:
    """Issue 8: aiohttp's instrumentation on control calls only; without their queries and credentials."""
    async with Idp() as idp:
        secret = tmp_path / "secret"
        secret.write_text(idp.client_secret)
        asks = {
            "kind": "introspection",
            "url": idp.introspection_url + "?key=planted-key",
            "client_id": idp.client_id,
            "client_secret": f"${{file:{secret}}}",
        }
        identity = json.dumps({"resource": AUDIENCE, "authenticators": [asks]})
        side = await open_sidecar(*EVERY, f"identity={identity}", exporter=exporter)
        client = await connect(side.port)
        idp.grant("opaque")
        client.send(post(tool_call(), LEGACY, ("Authorization", "Bearer opaque")))
        (await upstream.next()).answer(result())
        assert (await client.answer()).status == 200
        found = await spans(side, exporter)
    assert sorted(each.name for each in found) == ["POST", "tools/call echo", "tools/call echo"]
    texts = [each.to_json() for each in found]
    assert not [
        text for text in texts for hidden in ("planted-key", "opaque", idp.client_secret) if hidden in text
    ]
