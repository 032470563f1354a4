"""The part of a call in a trace: what is recorded of it, and what the server is told."""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.trace import SpanKind
from opentelemetry.trace.status import StatusCode

from proxy.model import Cached, Ending, Kind, Peer, Permit, Reason, Refused, Rule, Verdict
from proxy.telemetry.journey import Journeys, Observers, Record, Try
from proxy.telemetry.spans import LONGEST, MAX_EVENTS, MAX_NAMES, Spans
from proxy.telemetry.trace_context import Remote
from proxy.telemetry.traces import Sampling, Traces
from proxy.telemetry.traces_settings import TracesSettings
from tests.fakes import PRINCIPAL, RULE, make_call, make_headers

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
IN_SHARE = "0af7651916cd43dd" + "0" * 15 + "1"
"""The id of a trace that is in every share."""
PLANTED = "planted-5ec4e7"


def parent(trace_id: str = TRACE, flags: str = "01") -> str:
    return f"00-{trace_id}-{SPAN}-{flags}"


class Scene:
    """Traces with a clock and dice of the test's own."""

    def __init__(self, *, records: bool = True, **settings: Any) -> None:
        self.now = 10.0
        self.taken: list[ReadableSpan] = []
        self.drawn = 0
        chosen = TracesSettings(exporter="none", **{"sample": 1.0, **settings})
        spans = Spans(
            self,
            resource=Resource({"service.name": "test"}),
            server=("tools.test", 8000),
            wall=self.wall,
            now=self.clock,
        )
        self.traces = Traces(chosen, spans if records else None, bits=self.bits, now=self.clock)
        observers = Observers(trace=self.traces.opened, unread=self.traces.unread)
        self.failures: list[Exception] = []
        self._journeys = Journeys(observers, self.clock, self.failures.append)

    def clock(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1_000.0 + self.now

    def bits(self, count: int) -> int:
        self.drawn += 1
        return self.drawn

    def add(self, spans: Sequence[ReadableSpan]) -> None:
        self.taken += spans

    def opened(self, *, permitted: bool = True, **call: Any) -> Record:
        record = self._journeys.open(self.now)
        call = {"method": "tools/call", "target": "echo", **call}
        made = make_call(**call, journey=record)
        record.read(made)
        record.identified(PRINCIPAL)
        if permitted:
            record.permitted(Permit(call=made, principal=PRINCIPAL, rule=RULE))
        return record

    def unread(self) -> Record:
        return self._journeys.open(self.now)

    def attempt(self, record: Record, status: int | None = 200, refused: Refused | None = None) -> Try:
        attempt = record.attempted()
        self.now += 1
        if status is not None:
            attempt.answered(status)
        attempt.ended(refused)
        return attempt

    def done(self, **call: Any) -> list[ReadableSpan]:
        """The spans of a call that went well."""
        record = self.opened(**call)
        self.attempt(record)
        record.answered(Verdict.OK)
        record.ended(Ending.COMPLETE)
        assert self.failures == []
        taken, self.taken = self.taken, []
        return taken


def told(fields: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in fields}


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def events(span: ReadableSpan) -> list[tuple[str, dict[str, Any]]]:
    return [(event.name, dict(event.attributes or {})) for event in span.events]


def ids(span: ReadableSpan) -> tuple[str, str, str | None]:
    """Trace, span and parent."""
    assert span.context is not None
    above = None if span.parent is None else f"{span.parent.span_id:016x}"
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}", above


def test_a_call_is_a_server_span_and_an_attempt_is_a_client_span() -> None:
    """semantic-conventions-genai docs/gen-ai/mcp.md, names and attributes; issue 8, point 2."""
    scene = Scene()
    record = scene.opened(
        id=7, session="s-1", peer=Peer("192.0.2.7"), headers=make_headers(traceparent=parent())
    )
    scene.now = 11.0
    attempt = scene.attempt(record)
    record.answered(Verdict.OK)
    scene.now = 14.0
    record.ended(Ending.COMPLETE)

    client, server = scene.taken
    common = {
        "network.transport": "tcp",
        "network.protocol.name": "http",
        "mcp.method.name": "tools/call",
        "mcp.protocol.version": "2025-03-26",
        "mcp.session.id": sha256(b"s-1").hexdigest()[:16],
        "jsonrpc.request.id": "7",
        "gen_ai.tool.name": "echo",
        "gen_ai.operation.name": "execute_tool",
    }
    assert (server.name, client.name) == ("tools/call echo", "tools/call echo")
    assert (server.kind, client.kind) == (SpanKind.SERVER, SpanKind.CLIENT)
    assert attributes(server) == {
        **common,
        "client.address": "192.0.2.7",
        "mcp_sidecar.request_id": record.request_id,
        "mcp_sidecar.tenant": "acme",
        "mcp_sidecar.outcome": "ok",
    }
    assert attributes(client) == {
        **common,
        "server.address": "tools.test",
        "server.port": 8000,
        "http.response.status_code": 200,
    }
    assert events(server) == [("policy.check", {"rule_id": "r-1", "decision": "allow"})]
    assert (server.status.status_code, client.status.status_code) == (StatusCode.UNSET, StatusCode.UNSET)
    # One trace, from the caller through us to whoever reads the header.
    trace, own, above = ids(server)
    assert (trace, above, record.trace and record.trace.trace_id) == (TRACE, SPAN, TRACE)
    assert server.parent is not None
    assert server.parent.is_remote
    assert ids(client)[::2] == (TRACE, own)
    assert told(attempt.carries) == {"traceparent": f"00-{TRACE}-{ids(client)[1]}-01"}
    # Moments are those of the wall.
    assert (server.start_time, server.end_time) == (1_010 * 10**9, 1_014 * 10**9)
    assert (client.start_time, client.end_time) == (1_011 * 10**9, 1_012 * 10**9)
    assert server.resource.attributes["service.name"] == "test"


def test_retries_are_siblings() -> None:
    """Issue 8: retries and hedges are sibling client spans under the server span, each with what became of it."""
    scene = Scene()
    record = scene.opened()
    first = scene.attempt(record, None, Refused(Reason.UPSTREAM_UNREACHABLE))
    second = scene.attempt(record, 503)
    lost = record.attempted()
    third = scene.attempt(record)
    lost.ended()  # a race was decided
    record.answered(Verdict.OK)
    record.ended(Ending.COMPLETE)

    *clients, server = scene.taken
    assert {ids(each)[::2] for each in clients} == {(ids(server)[0], ids(server)[1])}
    assert [
        (attributes(each).get("error.type"), attributes(each).get("http.request.resend_count"))
        for each in clients
    ] == [("upstream_error", None), ("503", 1), ("cancelled", 2), (None, 3)]
    sent = [told(each.carries)["traceparent"].split("-")[2] for each in (first, second, lost, third)]
    assert sent == [ids(each)[1] for each in clients]
    assert len(set(sent)) == 4
    assert "error.type" not in attributes(server)


def test_an_attempt_that_ends_after_its_call_has_its_span() -> None:
    """Regression by thought: whoever loses a race may hear of it when the call is over."""
    scene = Scene()
    record = scene.opened()
    late = record.attempted()
    scene.attempt(record)
    record.answered(Verdict.OK)
    record.ended(Ending.COMPLETE)
    assert [each.kind for each in scene.taken] == [SpanKind.CLIENT, SpanKind.SERVER]
    late.ended()
    assert [each.kind for each in scene.taken] == [SpanKind.CLIENT, SpanKind.SERVER, SpanKind.CLIENT]
    assert ids(scene.taken[2])[2] == ids(scene.taken[1])[1]
    assert scene.failures == []


@pytest.mark.parametrize(
    ("verdict", "code", "error"),
    [
        (Verdict.TOOL_ERROR, None, "tool_error"),
        (Verdict.RPC_ERROR, -32602, "-32602"),
        (Verdict.RPC_ERROR, None, "rpc_error"),
        (Verdict.UPSTREAM_ERROR, None, "upstream_error"),
    ],
)
def test_an_error_of_the_server_is_one_of_both_spans(verdict: Verdict, code: int | None, error: str) -> None:
    """docs/gen-ai/mcp.md, error.type [1] and span status."""
    scene = Scene()
    record = scene.opened()
    scene.attempt(record)
    record.answered(verdict, code)
    record.ended(Ending.COMPLETE)
    for span in scene.taken:
        assert attributes(span)["error.type"] == error
        assert attributes(span).get("rpc.response.status_code") == (None if code is None else str(code))
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description is None


def test_a_refusal_has_a_span_and_says_by_which_rule() -> None:
    """Issue 8: `policy.check` {rule_id, decision, reason_code}; refusals have spans, too."""
    scene = Scene()
    record = scene.opened(permitted=False)
    record.denied(Rule(id="no-shell"))
    record.refused(Refused(Reason.NOT_ALLOWED))
    record.ended(Ending.COMPLETE)
    (server,) = scene.taken
    assert events(server) == [
        ("policy.check", {"rule_id": "no-shell", "decision": "deny", "reason_code": "not_allowed"})
    ]
    assert attributes(server)["error.type"] == "denied"
    assert attributes(server)["mcp_sidecar.reason"] == "not_allowed"
    assert server.status.status_code is StatusCode.ERROR
    assert server.name == "tools/call"  # anybody may ask for anything


def test_what_happened_between_is_told_as_events() -> None:
    """Issue 8: queueing, hits and alterations; a rule that only reports says so."""
    scene = Scene()
    record = scene.opened()
    record.would_refuse(Rule(id="soon"), Reason.MODE)
    scene.now = 12.5
    record.waited(2.5)
    record.cached(Cached.HIT)
    record.altered("redacted")
    record.altered("redacted")
    record.answered(Verdict.OK)
    record.ended(Ending.COMPLETE)
    (server,) = scene.taken
    assert events(server) == [
        ("policy.check", {"rule_id": "r-1", "decision": "allow"}),
        ("policy.check", {"rule_id": "soon", "decision": "would_deny", "reason_code": "mode"}),
        ("queued", {"waited_s": 2.5}),
        ("cache", {"result": "hit"}),
        ("altered", {"what": "redacted"}),
    ]
    assert all(1_010 * 10**9 <= event.timestamp <= 1_012.5 * 10**9 for event in server.events)


def test_events_are_bounded() -> None:
    """Own promise: a server decides how often something of a stream is changed."""
    scene = Scene()
    record = scene.opened()
    for at in range(1_000):
        record.altered(f"a{at}")
    record.ended(Ending.COMPLETE)
    assert len(scene.taken[0].events) == MAX_EVENTS


def test_a_request_that_could_not_be_read_has_a_span() -> None:
    """Issue 8: named by what is known; its line in the log finds it by the trace's id."""
    scene = Scene()
    record = scene.unread()
    record.refused(Refused(Reason.MALFORMED))
    record.ended(Ending.COMPLETE)
    (server,) = scene.taken
    assert server.name == "unread message"
    assert attributes(server)["error.type"] == "invalid"
    assert record.trace is not None
    assert ids(server)[0] == record.trace.trace_id
    page = scene.unread()
    page.ended(Ending.COMPLETE)  # a document, or a browser that asks first
    assert len(scene.taken) == 1


def test_the_context_of_http_is_linked_where_the_message_has_its_own() -> None:
    """docs/gen-ai/mcp.md, context propagation."""
    other = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    scene = Scene()
    _, server = scene.done(
        params={"_meta": {"traceparent": parent()}}, headers=make_headers(traceparent=other, tracestate="a=1")
    )
    assert ids(server)[::2] == (TRACE, SPAN)
    (link,) = server.links
    assert (link.context.trace_id, link.context.span_id) == (int(other[3:35], 16), int(other[36:52], 16))


def test_state_and_baggage_go_on_and_what_belongs_to_nothing_stays() -> None:
    """Trace Context 3.3, W3C Baggage; a tracestate without its traceparent says something of another trace."""
    scene = Scene()
    fields = {"tracestate": "a=1", "baggage": "user=ann"}
    record = scene.opened(headers=make_headers(traceparent=parent(), **fields))
    carried = told(record.attempted().carries)
    assert {name: carried[name] for name in fields} == fields
    record = scene.opened(headers=make_headers(traceparent="zz", **fields))
    carried = told(record.attempted().carries)
    assert (carried["tracestate"], carried["baggage"]) == ("", "user=ann")


@pytest.mark.parametrize("records", [True, False])
@pytest.mark.parametrize("text", ["zz", "", parent()[:-1], parent("0" * 32), "x" * 8_000])
def test_garbage_begins_a_trace_of_ours(text: str, records: bool) -> None:
    """Corpus TEL-015: ignored, never an error."""
    scene = Scene(records=records)
    record = scene.opened(
        headers=make_headers(traceparent=text, tracestate="a=" + "b" * 8_000, baggage="c" * 9_000)
    )
    carried = told(record.attempted().carries)
    assert record.trace is not None
    assert carried["traceparent"].startswith(f"00-{record.trace.trace_id}-")
    assert (carried["tracestate"], carried["baggage"]) == ("", "")
    assert scene.failures == []


def test_a_trace_that_is_sampled_out_has_no_spans() -> None:
    """Issue 8: only ids; the server is told not to record, either."""
    scene = Scene(sample=0.0)
    assert scene.done() == []
    record = scene.opened()
    assert record.trace is not None
    assert told(record.attempted().carries)["traceparent"].startswith(f"00-{record.trace.trace_id}-")
    assert told(record.attempted().carries)["traceparent"].endswith("-02")


def test_a_caller_who_does_not_record_is_always_believed() -> None:
    """Trace Context 3.2.2.5.1: its context goes on as it is, for there is no span of ours in between."""
    scene = Scene(sample=1.0, trust_parent=True)
    record = scene.opened(headers=make_headers(traceparent=parent(IN_SHARE, "00")))
    assert told(record.attempted().carries)["traceparent"] == parent(IN_SHARE, "00")
    record.ended(Ending.COMPLETE)
    assert scene.taken == []


def test_a_forged_flag_does_not_make_us_record() -> None:
    """Corpus TEL-014: sampled=1 counts only in our share, and the server is told what we decided, under another id."""
    scene = Scene(sample=0.05)
    record = scene.opened(headers=make_headers(traceparent=parent(flags="01")))
    version, trace, span, flags = told(record.attempted().carries)["traceparent"].split("-")
    record.ended(Ending.COMPLETE)
    assert scene.taken == []
    assert (version, trace, flags) == ("00", TRACE, "00")
    assert span != SPAN  # Trace Context 3.4: whoever changes the flag has an id of its own


def test_ids_that_are_chosen_to_be_in_our_share_are_few() -> None:
    """Corpus TEL-014: the share is decided from an id that callers choose, so a number a second bounds them."""
    now = [5.0]
    sampling = Sampling(TracesSettings(exporter="none", sample=0.05, max_claimed_per_s=10), lambda: now[0])
    chosen = Remote(IN_SHARE, SPAN, 1)

    def recorded() -> int:
        return sum(sampling.follows(chosen) for _ in range(100))

    assert recorded() == 10
    assert recorded() == 0
    now[0] += 0.5
    assert recorded() == 5
    none = Sampling(TracesSettings(exporter="none", sample=1.0, max_claimed_per_s=0), lambda: now[0])
    assert not none.follows(chosen)


def test_a_caller_can_be_trusted() -> None:
    """Setting trust_parent: what the caller records, we record."""
    assert len(Scene(sample=0.0, trust_parent=True).done(headers=make_headers(traceparent=parent()))) == 2


@given(number=st.integers(1, 2**128 - 1), sample=st.floats(0, 1))
def test_the_share_is_that_of_opentelemetry(number: int, sample: float) -> None:
    """Differential: TraceIdRatioBased, so that all hops with the same share keep the same traces."""
    sampling = Sampling(
        TracesSettings(exporter="none", sample=sample, max_claimed_per_s=1_000_000), lambda: 0.0
    )
    theirs = TraceIdRatioBased(sample).should_sample(None, number, "").decision.is_sampled()  # type: ignore[no-untyped-call]
    assert sampling.follows(Remote(f"{number:032x}", SPAN, 1)) is theirs


def test_own_traces_are_sampled_by_their_id() -> None:
    """Issue 8: 5 % by default, decided from the id."""
    dice = iter([1 << 180 | (1 << 127) - 1, 1 << 180 | 1 << 127])
    traces = Traces(TracesSettings(exporter="none", sample=0.5), bits=lambda count: next(dice))
    first, second = (told(_carried(traces))["traceparent"] for _ in range(2))
    assert (first[-2:], second[-2:]) == ("03", "02")


def _carried(traces: Traces) -> Sequence[tuple[bytes, bytes]]:
    record = Journeys(Observers(trace=traces.opened)).open(0.0)
    record.read(make_call(journey=record))
    return record.attempted().carries


def test_who_records_nothing_is_no_link_of_the_chain() -> None:
    """Exporter none: the context of the caller goes on as it is, and calls without one begin a trace."""
    scene = Scene(records=False, sample=1.0)
    record = scene.opened(headers=make_headers(traceparent=parent(flags="03")))
    assert told(record.attempted().carries)["traceparent"] == parent(flags="03")
    assert scene.done() == []


NAMES: list[tuple[dict[str, Any], str]] = [
    ({}, "tools/call echo"),
    ({"method": "prompts/get", "target": "greet"}, "prompts/get greet"),
    ({"method": "resources/read", "target": f"file:///{PLANTED}"}, "resources/read"),
    ({"method": "tools/list", "target": None}, "tools/list"),
    ({"method": f"x/{PLANTED}", "target": None}, "_OTHER"),
    ({"method": "", "target": None, "kind": Kind.LISTEN, "id": None}, "listen"),
    ({"method": "", "target": None, "kind": Kind.ANSWER}, "answer"),
    ({"target": "x" * 500}, f"tools/call {'x' * LONGEST}"),
]


@pytest.mark.parametrize(("call", "name"), NAMES)
def test_names_of_spans_are_few_and_short(call: dict[str, Any], name: str) -> None:
    """docs/gen-ai/mcp.md, span name: low cardinality, never a resource's URI."""
    assert {span.name for span in Scene().done(**call)} == {name}


def test_tools_that_nobody_has_are_in_no_name() -> None:
    """Own promise: clients choose names; only what the server has answered stands in the name of a span."""
    scene = Scene()

    def name(target: str, verdict: Verdict) -> str:
        record = scene.opened(target=target)
        record.answered(verdict)
        record.ended(Ending.COMPLETE)
        return scene.taken.pop().name

    assert name("echo", Verdict.RPC_ERROR) == "tools/call"
    assert name("echo", Verdict.OK) == "tools/call echo"
    assert name("echo", Verdict.TOOL_ERROR) == "tools/call echo"
    names = {name(f"t{at}", Verdict.OK) for at in range(2 * MAX_NAMES)}
    assert len(names) == MAX_NAMES  # with that of the rest, and echo has one place
    assert name("echo", Verdict.OK) == "tools/call echo"


@pytest.mark.parametrize(
    "call",
    [
        {
            "params": {"name": "echo", "arguments": {PLANTED: PLANTED}, "_meta": {"x": PLANTED}},
            "body": PLANTED.encode(),
        },
        {"headers": make_headers(authorization=f"Bearer {PLANTED}", x_key=PLANTED), "query": PLANTED},
        {"session": PLANTED},
        {"method": "resources/read", "target": f"file:///{PLANTED}"},
        {"headers": make_headers(traceparent=parent(), baggage=f"user={PLANTED}")},
        {"last_event_id": PLANTED},
    ],
)
def test_nothing_of_what_a_call_carries_is_recorded(call: dict[str, Any]) -> None:
    """Issue 8: no payload, no argument, no credential, and no session that lets others in."""
    spans = Scene().done(**call)
    assert len(spans) == 2
    assert all(PLANTED not in span.to_json() for span in spans)


def test_what_clients_choose_is_cut() -> None:
    """Own promise: attributes are bounded, whatever a client sends."""
    for span in Scene().done(target="t" * 5_000, id="i" * 5_000, method="tools/call"):
        assert all(len(value) <= LONGEST for value in attributes(span).values() if isinstance(value, str))
    (span, _) = Scene().done(method="m" * 500, target=None)
    assert attributes(span)["mcp.method.name"] == "m" * LONGEST


def test_a_notification_has_no_request_id() -> None:
    """docs/gen-ai/mcp.md, jsonrpc.request.id [2]; the operation's name belongs to tool calls."""
    (span, _) = Scene().done(method="notifications/cancelled", target=None, kind=Kind.NOTIFICATION, id=None)
    assert not {"jsonrpc.request.id", "gen_ai.operation.name", "gen_ai.tool.name"} & attributes(span).keys()


def test_what_is_over_is_let_go_of() -> None:
    """Own promise: no call waits for the collector of cycles."""
    scene = Scene()
    record = scene.opened()
    scene.attempt(record)
    trace = record.trace
    record.ended(Ending.COMPLETE)
    assert getattr(trace, "tries") == []  # noqa: B009  of what records
    assert (record.call, record.permit) == (None, None)
