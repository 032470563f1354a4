"""What is recorded of a call? Its journey → spans in the words of OpenTelemetry's MCP page.

In: journeys whose trace is recorded. Out: one SERVER span for a message and one CLIENT span for each attempt, when they
have ended. Keeps the names that may stand in names of spans. Never a payload, an argument, a resource's URI, a text of
the server or a credential: what is recorded is listed here field by field. What clients choose is cut, and stands in
the name of a span only where it is one of a few. Source: semantic-conventions-genai docs/gen-ai/mcp.md; attributes that
begin with mcp_sidecar are ours.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final, Protocol, TypeAlias

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.trace.status import Status, StatusCode

from ..model import Call, Kind, Refused, Verdict
from .journey import OUTCOMES, Fields, Record, Try
from .trace_context import Received, Remote, write_traceparent

LONGEST: Final = 128
"""Characters of a text in an attribute."""
MAX_NAMES: Final = 1_000
"""Of tools and prompts that stand in names of spans."""
MAX_EVENTS: Final = 32
"""Of one span: servers could make us change something a thousand times in one stream."""
OTHER: Final = "_OTHER"
"""Stands for a method that is none of the protocol's: clients invent them."""

METHODS: Final = frozenset(
    {
        *("initialize", "ping", "server/discover", "logging/setLevel", "completion/complete"),
        *("tools/list", "tools/call", "prompts/list", "prompts/get"),
        *("resources/list", "resources/templates/list", "resources/read"),
        *("resources/subscribe", "resources/unsubscribe", "subscriptions/listen"),
        *("tasks/get", "tasks/list", "tasks/result", "tasks/update", "tasks/cancel"),
        *("notifications/initialized", "notifications/cancelled", "notifications/progress"),
        "notifications/roots/list_changed",
    }
)
"""What clients say, in all revisions."""
_NAMED: Final = {"tools/call": "gen_ai.tool.name", "prompts/get": "gen_ai.prompt.name"}
_SCOPE: Final = InstrumentationScope("mcp-sidecar")
_NO_STATE: Final = TraceState()
_OK: Final = Status(StatusCode.UNSET)
_ERROR: Final = Status(StatusCode.ERROR)

Attributes: TypeAlias = dict[str, str | int | float]


class Takes(Protocol):
    """Whoever takes spans that have ended."""

    def add(self, spans: Sequence[ReadableSpan]) -> None: ...


class Spans:
    """Makes the spans of calls."""

    def __init__(
        self,
        exports: Takes,
        *,
        resource: Resource,
        server: tuple[str, int | None],
        wall: Callable[[], float],
        redact: Callable[[str], str] = str,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`server` is host and port of the MCP server, or its socket file and None; `wall` counts seconds from 1970;
        `redact` takes known secrets out of a text."""
        self.exports = exports
        self.resource = resource
        self._server = server
        self._wall = wall
        self._redact = redact
        self._now = now
        self._names: set[tuple[str, str]] = set()

    def opened(
        self, trace_id: str, flags: int, said: Received, others: Fields, bits: Callable[[int], int]
    ) -> Recorded:
        """`others` are the fields that go out beside traceparent."""
        return Recorded(self, trace_id, flags, said, others, bits)

    def name_of(self, call: Call | None, is_permitted: bool, is_ok: bool) -> str:
        """Names of spans come in small numbers: a tool or a prompt stands in them when the server has had it once."""
        if call is None:
            return "unread message"
        if not call.method:
            return call.kind.value
        if call.method not in METHODS:
            return OTHER
        if call.method not in _NAMED or call.target is None:
            return call.method
        named = call.method, call.target[:LONGEST]
        if named not in self._names:
            if not (is_permitted and is_ok) or len(self._names) >= MAX_NAMES:
                return call.method
            self._names.add(named)
        return f"{call.method} {named[1]}"

    def told(self, trace: Recorded, record: Record) -> _Told:
        """What all spans of a call say; the call itself is let go of when its journey has ended."""
        call = record.call
        is_ok = record.refusal is None and record.verdict is Verdict.OK
        return _Told(
            name=self.name_of(call, record.permit is not None, is_ok),
            attributes=_of_call(call),
            offset_s=self._wall() - self._now(),
            failed=_failed(record),
            code=None if record.refusal is not None else record.code,
        )

    def server(self, trace: Recorded, record: Record, told: _Told) -> ReadableSpan:
        end_s = record.received + record.duration_s
        attributes: Attributes = {**told.attributes, "mcp_sidecar.request_id": record.request_id}
        if record.call is not None and record.call.peer.address:
            attributes["client.address"] = record.call.peer.address
        if record.principal is not None:
            attributes["mcp_sidecar.tenant"] = record.principal.tenant[:LONGEST]
        attributes["mcp_sidecar.outcome"] = record.outcome
        if record.refusal is not None:
            attributes["mcp_sidecar.reason"] = record.refusal.reason.value
        parent, linked = trace.said.parent, trace.said.linked
        return self._span(
            trace,
            told,
            trace.span_id,
            None if parent is None else _remote(parent),
            attributes,
            told.failed,
            told.code,
            SpanKind.SERVER,
            (record.received, end_s),
            [Event(name, given, told.ns(at_s)) for name, given, at_s in _events(trace, record, end_s)],
            () if linked is None else (Link(_remote(linked)),),
        )

    def client(self, trace: Recorded, attempt: Try, span_id: str, told: _Told, is_last: bool) -> ReadableSpan:
        failed, code = _failed_attempt(attempt), None
        attributes: Attributes = {
            **told.attributes,
            "server.address": self._server[0],
        }
        if self._server[1] is not None:
            attributes["server.port"] = self._server[1]
        if attempt.number > 1:
            attributes["http.request.resend_count"] = attempt.number - 1
        if attempt.status is not None:
            attributes["http.response.status_code"] = attempt.status
            if failed is None and is_last:
                failed, code = told.failed, told.code
        assert attempt.duration_s is not None
        times = attempt.began, attempt.began + attempt.duration_s
        parent = trace.context(trace.span_id, is_remote=False)
        return self._span(
            trace, told, span_id, parent, attributes, failed, code, SpanKind.CLIENT, times, (), ()
        )

    def _span(
        self,
        trace: Recorded,
        told: _Told,
        span_id: str,
        parent: SpanContext | None,
        attributes: Attributes,
        failed: str | None,
        code: int | None,
        kind: SpanKind,
        times: tuple[float, float],
        events: Sequence[Event],
        links: Sequence[Link],
    ) -> ReadableSpan:
        if failed is not None:
            attributes["error.type"] = failed
        if code is not None:
            attributes["rpc.response.status_code"] = str(code)
        redact = self._redact
        said = {
            name: redact(value) if isinstance(value, str) else value for name, value in attributes.items()
        }
        return ReadableSpan(
            redact(told.name),
            trace.context(span_id, is_remote=False),
            parent,
            self.resource,
            said,
            events,
            links,
            kind,
            status=_OK if failed is None else _ERROR,
            start_time=told.ns(times[0]),
            end_time=told.ns(times[1]),
            instrumentation_scope=_SCOPE,
        )


class Recorded:
    """A call that is recorded. Fulfils `Trace`."""

    __slots__ = ("_bits", "_flags", "_others", "_spans", "_told", "_tries", "said", "span_id", "trace_id")
    is_recorded: Final = True

    def __init__(
        self,
        spans: Spans,
        trace_id: str,
        flags: int,
        said: Received,
        others: Fields,
        bits: Callable[[int], int],
    ) -> None:
        self.trace_id = trace_id
        self.span_id = f"{bits(64):016x}"
        self.said = said
        self._bits = bits
        self._flags = flags
        self._others = others
        self._spans = spans
        self._tries: list[tuple[Try, str]] = []
        self._told: _Told | None = None

    @property
    def tries(self) -> Sequence[tuple[Try, str]]:
        return self._tries

    def context(self, span_id: str, *, is_remote: bool) -> SpanContext:
        state = TraceState.from_header([self.said.state]) if self.said.state else _NO_STATE
        return SpanContext(
            int(self.trace_id, 16), int(span_id, 16), is_remote, TraceFlags(self._flags), state
        )

    def attempted(self, attempt: Try) -> Fields:
        span_id = f"{self._bits(64):016x}"
        self._tries.append((attempt, span_id))
        return ((b"traceparent", write_traceparent(self.trace_id, span_id, self._flags)), *self._others)

    def attempt_ended(self, attempt: Try) -> None:
        if self._told is None:
            return
        # The journey was over before: a race was lost, for example.
        late = [pair for pair in self._tries if pair[0] is attempt]
        self._tries = [pair for pair in self._tries if pair[0] is not attempt]
        told = self._told
        self._spans.exports.add([self._spans.client(self, each, id, told, False) for each, id in late])

    def ended(self, record: Record) -> None:
        spans = self._spans
        told = self._told = spans.told(self, record)
        over = [pair for pair in self._tries if pair[0].duration_s is not None]
        last = next((each for each, _ in reversed(over) if each.status is not None), None)
        made = [spans.client(self, each, id, told, each is last) for each, id in over]
        made.append(spans.server(self, record, told))
        # Attempts hold the record, which holds this: what is over is let go of.
        self._tries = [pair for pair in self._tries if pair[0].duration_s is None]
        spans.exports.add(made)


class _Told:
    """What the spans of one call have in common."""

    __slots__ = ("_offset_s", "attributes", "code", "failed", "name")

    def __init__(
        self, *, name: str, attributes: Attributes, offset_s: float, failed: str | None, code: int | None
    ) -> None:
        self.name = name
        self.attributes = attributes
        self.failed = failed
        """`error.type` of the call."""
        self.code = code
        self._offset_s = offset_s

    def ns(self, at_s: float) -> int:
        """Nanoseconds from 1970 of a moment of the monotonic clock."""
        return int((at_s + self._offset_s) * 1_000_000_000)


def _remote(remote: Remote) -> SpanContext:
    return SpanContext(
        int(remote.trace_id, 16), int(remote.span_id, 16), True, TraceFlags(remote.flags), _NO_STATE
    )


def _of_call(call: Call | None) -> Attributes:
    attributes: Attributes = {"network.transport": "tcp", "network.protocol.name": "http"}
    if call is None:
        return attributes
    if call.method:
        attributes["mcp.method.name"] = call.method[:LONGEST]
    attributes["mcp.protocol.version"] = call.revision.name
    if call.session is not None:
        # Whoever knows a session may speak in it: what is recorded tells two apart, and lets nobody in.
        attributes["mcp.session.id"] = sha256(call.session.encode("utf-8", "surrogateescape")).hexdigest()[
            :16
        ]
    if call.id is not None and call.kind is Kind.REQUEST:
        attributes["jsonrpc.request.id"] = str(call.id)[:LONGEST]
    named = _NAMED.get(call.method)
    if named is not None and call.target is not None:
        attributes[named] = call.target[:LONGEST]
    if call.method == "tools/call":
        attributes["gen_ai.operation.name"] = "execute_tool"
    return attributes


def _failed(record: Record) -> str | None:
    """`error.type` of a call; None where it went well."""
    outcome = record.outcome
    if record.refusal is None and record.verdict is Verdict.RPC_ERROR and record.code is not None:
        return str(record.code)
    return None if outcome == "ok" else outcome


def _failed_attempt(attempt: Try) -> str | None:
    refused: Refused | None = attempt.refused
    if refused is not None:
        return OUTCOMES.get(refused.reason, "denied")
    if attempt.status is None:
        return "cancelled"
    return str(attempt.status) if attempt.status >= 400 else None


def _events(trace: Recorded, record: Record, end_s: float) -> list[tuple[str, Attributes, float]]:
    """Name, attributes and moment of what happened between: what was decided at the beginning of what followed."""
    first_s = trace.tries[0][0].began if trace.tries else end_s
    decided_s = max(record.received, first_s - record.waited_s)
    events: list[tuple[str, Attributes, float]] = []

    def add(name: str, at_s: float, **attributes: str | float) -> None:
        events.append((name, dict(attributes), at_s))

    if record.denied_by is not None and record.refusal is not None:
        reason = record.refusal.reason.value
        add("policy.check", decided_s, rule_id=record.denied_by.id, decision="deny", reason_code=reason)
    elif record.permit is not None:
        add("policy.check", decided_s, rule_id=record.permit.rule.id, decision="allow")
    if record.reported is not None:
        rule, why = record.reported
        add("policy.check", decided_s, rule_id=rule, decision="would_deny", reason_code=why.value)
    if record.waited_s:
        add("queued", decided_s, waited_s=round(record.waited_s, 6))
    if record.cache is not None:
        add("cache", first_s, result=record.cache.value)
    for what in list(dict.fromkeys(record.altered_by))[: MAX_EVENTS - len(events)]:
        add("altered", end_s, what=what)
    return events
