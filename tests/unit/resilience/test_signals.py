"""What an outcome says of the server, and what may be sent again: one row for each.

Source: MCP for intermediaries, "breaker and retry signals" and "per method".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

from proxy.model import OWN_WISH, Call, Ending, Headers, Kind, Reason, Refused, Reply, Revision, Rule, Stream
from proxy.protocol.answers import HELD_BYTES
from proxy.protocol.revisions import BY_NAME, REGISTER, TWO_ENDPOINTS
from proxy.protocol.sse import message
from proxy.resilience.signals import (
    Repeat,
    Signal,
    may_have_run,
    may_repeat,
    signal_at_end,
    signal_of,
    when_ended,
)
from proxy.upstream.http_sse import Acknowledged
from tests.fakes import make_batch, make_call

GOOD, BAD, SILENT = Signal.GOOD, Signal.BAD, Signal.SILENT
LEGACY: Final = BY_NAME["2025-11-25"]
MODERN: Final = BY_NAME["2026-07-28"]
RULE: Final = Rule(id="r")
IDEMPOTENT: Final = Rule(id="r", idempotent=True)

RESULT: Final = b'{"jsonrpc":"2.0","id":1,"result":{"content":[]}}'
TOOL_ERROR: Final = b'{"jsonrpc":"2.0","id":1,"result":{"content":[],"isError":true}}'
INPUT_REQUIRED: Final = b'{"jsonrpc":"2.0","id":1,"result":{"resultType":"input_required"}}'
QUOTES_IT: Final = b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"error":{"code":-32603}}]}}'
HTML: Final = b"<html>Internal Server Error -32603</html>"


def error(code: object, id: str = "1") -> bytes:
    return f'{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"x"}}}}'.encode()


def streamed(*chunks: bytes, status: int = 200) -> Reply:
    async def arriving() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    return Reply(status, Headers(), Stream(arriving(), lambda: None))


@pytest.mark.parametrize(
    ("status", "body", "signal"),
    [
        # It answers, whatever it says.
        (200, RESULT, GOOD),
        (200, TOOL_ERROR, GOOD),
        (200, INPUT_REQUIRED, GOOD),
        (200, error(-32602), GOOD),
        (200, QUOTES_IT, GOOD),
        (200, b'{"jsonrpc":"2.0","id":1,"result":"-32603"}', GOOD),
        (202, b"", GOOD),
        *((status, b"", GOOD) for status in (400, 401, 403, 404, 405, 406, 409, 413, 415, 421, 429)),
        (400, error(-32020), GOOD),
        (404, error(-32601), GOOD),
        (400, HTML, GOOD),
        # It cannot.
        *((status, b"", BAD) for status in (500, 502, 503, 504, 507, 599)),
        (500, HTML, BAD),
        (500, RESULT, BAD),
        (500, b'"error"', BAD),
        (502, error(-32000), BAD),
        (503, error(-32000), BAD),
        (504, error(-32000), BAD),
        # It says itself what it could not.
        (500, error(-32000), GOOD),
        (500, error(-32000, id="null"), GOOD),
        (501, HTML, GOOD),
        (505, b"", GOOD),
        # An internal error, wherever it stands but beside a status that blames the caller.
        (200, error(-32603), BAD),
        (500, error(-32603), BAD),
        (400, error(-32603), GOOD),
        (499, error(-32603), GOOD),
        (200, error("-32603.0"), BAD),
        (200, b"[" + RESULT + b"," + error(-32603, id="2") + b"]", BAD),
        (200, error('"-32603"'), GOOD),
        (200, error("-326030"), GOOD),
        (200, b'{"jsonrpc":"2.0","id":1,"error":"-32603"}', GOOD),
    ],
)
def test_what_a_reply_says_of_the_server(status: int, body: bytes, signal: Signal) -> None:
    assert signal_of(make_call(), Reply(status, Headers(), body)) is signal


@pytest.mark.parametrize(("status", "body"), [(200, error(-32603)), (500, error(-32603))])
def test_internal_errors_are_answers_where_the_operator_says_so(status: int, body: bytes) -> None:
    reply = Reply(status, Headers(), body)
    assert signal_of(make_call(), reply, counts_internal_errors=False) is GOOD


@pytest.mark.parametrize("reason", list(Reason))
def test_what_a_refusal_says_of_the_server(reason: Reason) -> None:
    """What the last stage met, and what took too long; every other no is ours."""
    is_fault = reason in {
        Reason.UPSTREAM_UNREACHABLE,
        Reason.UPSTREAM_BROKE,
        Reason.UPSTREAM_NONSENSE,
        Reason.OUTCOME_UNKNOWN,
        Reason.DEADLINE,
    }
    assert signal_of(make_call(), Refused(reason)) is (BAD if is_fault else SILENT)


@pytest.mark.parametrize("reason", [Reason.DEADLINE, Reason.OUTCOME_UNKNOWN])
def test_a_caller_in_a_hurry_does_not_make_a_server_look_bad(reason: Reason) -> None:
    """One tenant could else have the server left alone for all of them."""
    assert signal_of(make_call(), Refused(reason, data={"limit": OWN_WISH})) is SILENT
    assert signal_of(make_call(), Refused(reason, data={"limit": "timeout_s"})) is BAD


@pytest.mark.parametrize("error", [asyncio.CancelledError(), ConnectionResetError(), RuntimeError()])
def test_callers_who_leave_and_our_own_failures_say_nothing(error: BaseException) -> None:
    assert signal_of(make_call(), error) is SILENT


@pytest.mark.parametrize(
    ("ending", "signal"),
    [
        (Ending.COMPLETE, GOOD),
        (Ending.UPSTREAM_BROKE, BAD),
        (Ending.CLIENT_GONE, SILENT),
        (Ending.PROXY_FAILED, SILENT),
    ],
)
def test_a_stream_says_at_its_end_what_it_says(ending: Ending, signal: Signal) -> None:
    """What was cut short is a failure, although its head was good."""
    reply = streamed()
    told: list[Signal] = []
    assert signal_of(make_call(), reply) is None
    when_ended(reply, told.append)
    assert told == []
    reply.done(ending)
    assert told == [signal]
    assert signal_at_end(ending) is signal


@pytest.mark.parametrize(
    ("call", "reply", "signal"),
    [
        (make_call(), Reply(200, Headers(), RESULT), GOOD),
        (make_call(), streamed(status=503), BAD),
        (make_call(), streamed(status=500), BAD),
        (make_call(), streamed(status=404), GOOD),
        (make_call(kind=Kind.LISTEN, method=""), streamed(), GOOD),
        (make_call(kind=Kind.LISTEN, method="", revision=TWO_ENDPOINTS), streamed(), GOOD),
        (make_call(method="subscriptions/listen", revision=MODERN), streamed(), GOOD),
        (make_call(kind=Kind.NOTIFICATION, id=None, revision=TWO_ENDPOINTS), Reply(202, Headers()), GOOD),
        (make_call(revision=TWO_ENDPOINTS), Reply(404, Headers()), GOOD),
    ],
)
def test_what_is_known_at_once_needs_no_end(call: Call, reply: Reply, signal: Signal) -> None:
    """Nor is it heard: every server that restarts cuts the streams that listen, all together."""
    assert signal_of(call, reply) is signal


@pytest.mark.parametrize(("ending", "signal"), [(Ending.COMPLETE, GOOD), (Ending.UPSTREAM_BROKE, BAD)])
def test_an_acknowledgement_is_no_answer(ending: Ending, signal: Signal) -> None:
    """2024-11-05: the answer arrives on the other connection, or does not."""
    reply = Acknowledged(202, Headers())
    told: list[Signal] = []
    assert signal_of(make_call(revision=TWO_ENDPOINTS), reply) is None
    when_ended(reply, told.append)
    reply.done(Ending.COMPLETE)
    assert told == []
    reply.settle(ending)
    assert told == [signal]


PADDED: Final = error(-32603).replace(b'"x"', b'"' + b"x" * HELD_BYTES + b'"')


@pytest.mark.parametrize(
    ("chunks", "signal"),
    [
        ([message(error(-32603))], BAD),
        ([b": ping\n\n" + message(RESULT), message(error(-32603, id="2"))], BAD),
        ([b"id: 7\ndata:\n\n" + message(b'{"method":"x"}') + message(error(-32603))], BAD),
        ([b"data: " + error(-32603)], BAD),
        ([message(error(-32603)), message(RESULT)], BAD),
        ([message(RESULT)], GOOD),
        ([message(QUOTES_IT)], GOOD),
        ([b": -32603\n\n"], GOOD),
        ([b"data: -32603\n\n", b"data: {-32603\n\n"], GOOD),
        ([message(error(-32603)), message(QUOTES_IT)], BAD),
        ([message(PADDED)], GOOD),  # more than an error holds, and costly to read twice
    ],
)
async def test_an_internal_error_in_a_stream_is_seen(chunks: list[bytes], signal: Signal) -> None:
    reply = streamed(*chunks)
    told: list[Signal] = []
    assert signal_of(make_call(), reply) is None
    when_ended(reply, told.append)
    assert isinstance(reply.body, Stream)
    assert [chunk async for chunk in reply.body] == chunks
    assert told == []
    reply.done(Ending.COMPLETE)
    assert told == [signal]


async def test_an_internal_error_in_a_stream_is_an_answer_where_the_operator_says_so() -> None:
    reply = streamed(message(error(-32603)))
    told: list[Signal] = []
    assert signal_of(make_call(), reply, counts_internal_errors=False) is None
    when_ended(reply, told.append, counts_internal_errors=False)
    assert isinstance(reply.body, Stream)
    assert [chunk async for chunk in reply.body]
    reply.done(Ending.COMPLETE)
    assert told == [GOOD]


def request(method: str, revision: Revision = LEGACY, **call: Any) -> Call:
    return make_call(method=method, revision=revision, **call)


NEVER, IF_UNREACHED, ALWAYS = Repeat.NEVER, Repeat.IF_UNREACHED, Repeat.ALWAYS
ASKS: Final = [
    *("tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/read"),
    *("completion/complete", "server/discover", "tasks/get"),
]
DOES: Final = [
    *("initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"),
    *("tasks/update", "tasks/cancel", "tasks/result", "tasks/list", "acme/unheard-of", ""),
]


@pytest.mark.parametrize("revision", [each for each in REGISTER if not each.answers_elsewhere])
@pytest.mark.parametrize("rule", [RULE, IDEMPOTENT])
def test_what_only_asks_may_be_asked_again_and_nothing_else(revision: Revision, rule: Rule) -> None:
    """Whatever a rule says of other requests: initialize twice is two sessions."""
    assert {may_repeat(request(method, revision), rule) for method in ASKS} == {ALWAYS}
    assert {may_repeat(request(method, revision), rule) for method in DOES} == {IF_UNREACHED}


@pytest.mark.parametrize("method", ["tools/call", "prompts/get"])
def test_an_operator_says_what_may_be_done_twice(method: str) -> None:
    """Servers' own hints are not asked."""
    reads = Rule(id="r", tool_class="read", idempotency_key=True)
    assert may_repeat(request(method), RULE) is IF_UNREACHED
    assert may_repeat(request(method), reads) is IF_UNREACHED
    assert may_repeat(request(method), IDEMPOTENT) is ALWAYS


@pytest.mark.parametrize("method", ["tools/call", "prompts/get", "resources/read"])
@pytest.mark.parametrize("name", ["inputResponses", "requestState", "task"])
def test_what_goes_on_or_begins_a_task_is_sent_once(method: str, name: str) -> None:
    """2026-07-28, multi-round-trip: a state may be good once. 2025-11-25: of two tasks the caller knows one."""
    assert may_repeat(request(method, MODERN, params={name: {}}), IDEMPOTENT) is IF_UNREACHED


@pytest.mark.parametrize("kind", [Kind.NOTIFICATION, Kind.ANSWER])
def test_what_wants_no_answer_is_sent_once(kind: Kind) -> None:
    """Also a tool called without an id."""
    call = make_call(kind=kind, id=None, method="tools/call")
    assert may_repeat(call, IDEMPOTENT) is IF_UNREACHED
    assert may_repeat(make_call(kind=kind, method="tools/list"), IDEMPOTENT) is IF_UNREACHED


@pytest.mark.parametrize(
    "call",
    [
        make_call(kind=Kind.LISTEN, id=None, method="", revision=LEGACY),
        make_call(kind=Kind.END, id=None, method="", revision=LEGACY),
        make_call(method="subscriptions/listen", revision=MODERN),
    ],
)
def test_who_listens_comes_back_by_itself(call: Call) -> None:
    assert may_repeat(call, IDEMPOTENT) is NEVER


@pytest.mark.parametrize("method", ["tools/call", "tools/list"])
def test_with_two_endpoints_nothing_is_repeated_that_arrived(method: str) -> None:
    """2024-11-05: the stream on which the first answer would arrive is still open."""
    assert may_repeat(request(method, TWO_ENDPOINTS), IDEMPOTENT) is IF_UNREACHED


def test_a_session_of_two_endpoints_can_be_begun_again() -> None:
    """Its clients do not come back by themselves: the stream is their first request."""
    assert may_repeat(make_call(kind=Kind.LISTEN, method="", revision=TWO_ENDPOINTS), RULE) is IF_UNREACHED


def test_a_batch_is_repeated_only_where_all_of_it_asks() -> None:
    """Its rule is that of the envelope, whatever that says."""
    lists, reads = request("tools/list", id=1), request("resources/read", id=2)
    tool, told = request("tools/call", id=3), make_call(kind=Kind.NOTIFICATION, method="tools/list")
    assert may_repeat(make_batch(lists, reads), RULE) is ALWAYS
    for part in (tool, told, request("prompts/get"), request("tasks/get", params={"task": {}})):
        assert may_repeat(make_batch(lists, part), IDEMPOTENT) is IF_UNREACHED
    assert may_repeat(make_call(kind=Kind.BATCH, method=""), IDEMPOTENT) is IF_UNREACHED


@pytest.mark.parametrize(
    ("call", "rule", "expected"),
    [
        (request("tools/call"), RULE, True),
        (request("tools/call"), IDEMPOTENT, False),
        (request("tools/call", TWO_ENDPOINTS), IDEMPOTENT, False),
        (request("tools/call", params={"task": {}}), IDEMPOTENT, True),
        (make_call(kind=Kind.NOTIFICATION, method="tools/call"), IDEMPOTENT, True),
        (request("tools/list"), RULE, False),
        (request("initialize"), RULE, False),
        (make_batch(request("tools/list"), request("tools/call", id=2)), IDEMPOTENT, True),
        (make_batch(request("tools/list"), request("prompts/get", id=2)), RULE, False),
    ],
)
def test_when_it_matters_what_became_of_a_call(call: Call, rule: Rule, expected: bool) -> None:
    assert may_have_run(call, rule) is expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        *((each, False) for each in (429, 501, 503, 505)),
        *((each, True) for each in (500, 502, 504, 507, 599)),
    ],
)
def test_what_an_empty_error_says_of_that(status: int, expected: bool) -> None:
    """429 and 503 come before anything was begun, 501 and 505 instead of it; a gateway may have lost the rest."""
    assert may_have_run(request("tools/call"), RULE, status) is expected
    assert not may_have_run(request("tools/call"), IDEMPOTENT, status)
    assert not may_have_run(request("tools/list"), RULE, status)
