"""Every reason, in every form, for every kind of message: whole replies."""

import json
from typing import Literal, NamedTuple

import pytest

from proxy.model import Call, Headers, Kind, Reason, Refused, Reply
from proxy.protocol.revisions import NEWEST, REGISTER
from proxy.refusals import META_KEY, ROWS, Form, explain, is_at_http, message, status_of
from tests.fakes import make_batch, make_call


class Expected(NamedTuple):
    """One row as design section 5 and protocol.md 1.1 demand it."""

    status: int
    code: int | None
    travels: Literal["http", "plain", "form"]
    """Always as an HTTP status, as one in plain text, or in the form the settings ask for."""


EXPECTED = {
    Reason.MALFORMED: Expected(400, -32600, "http"),
    Reason.HEADER_MISMATCH: Expected(400, -32020, "http"),
    Reason.VERSION_UNSUPPORTED: Expected(400, -32022, "http"),
    Reason.NO_CREDENTIAL: Expected(401, 401, "http"),
    Reason.BAD_CREDENTIAL: Expected(401, 401, "http"),
    Reason.SCOPE_MISSING: Expected(403, 403, "http"),
    Reason.IDP_UNAVAILABLE: Expected(503, 503, "http"),
    Reason.SESSION_UNKNOWN: Expected(404, 404, "http"),
    Reason.TASK_UNKNOWN: Expected(404, -32602, "form"),
    Reason.TOO_MANY_FAILURES: Expected(429, 429, "http"),
    Reason.NOT_ALLOWED: Expected(403, 403, "form"),
    Reason.NOT_VISIBLE: Expected(404, -32602, "form"),
    Reason.APPROVAL_REQUIRED: Expected(403, 403, "form"),
    Reason.ARGUMENT_INVALID: Expected(403, 403, "form"),
    Reason.MODE: Expected(403, 403, "form"),
    Reason.RATE_LIMITED: Expected(429, 429, "form"),
    Reason.QUOTA_SPENT: Expected(429, 429, "form"),
    Reason.OVERLOADED: Expected(503, 503, "form"),
    Reason.BREAKER_OPEN: Expected(503, 503, "form"),
    Reason.QUARANTINED: Expected(503, 503, "form"),
    Reason.UPSTREAM_UNREACHABLE: Expected(502, 502, "form"),
    Reason.UPSTREAM_BROKE: Expected(502, 502, "form"),
    Reason.UPSTREAM_NONSENSE: Expected(502, 502, "form"),
    Reason.OUTCOME_UNKNOWN: Expected(502, 502, "form"),
    Reason.DEADLINE: Expected(504, 504, "form"),
    Reason.DRAINING: Expected(503, 503, "http"),
    Reason.INTERNAL: Expected(500, 500, "form"),
    Reason.AUDIT_UNAVAILABLE: Expected(503, 503, "form"),
    Reason.ORIGIN_NOT_ALLOWED: Expected(403, 403, "http"),
    Reason.HOST_NOT_ALLOWED: Expected(421, 421, "http"),
    Reason.PATH_UNKNOWN: Expected(404, None, "plain"),
    Reason.METHOD_NOT_ALLOWED: Expected(405, None, "plain"),
    Reason.MEDIA_TYPE: Expected(415, None, "plain"),
    Reason.EXPECTATION_FAILED: Expected(417, None, "plain"),
    Reason.TOO_LARGE: Expected(413, 413, "http"),
    Reason.TOO_SLOW: Expected(408, 504, "http"),
}

JSON = ("Content-Type", "application/json")
PLAIN = ("Content-Type", "text/plain; charset=utf-8")
FORMS: tuple[Form, ...] = ("result", "http")
OUTAGES = {reason for reason, row in EXPECTED.items() if row.status >= 500}
IN_A_FORM = [reason for reason, row in EXPECTED.items() if row.travels == "form"]

NOTE = make_call(method="notifications/initialized", id=None, kind=Kind.NOTIFICATION)
ANSWER = make_call(method="", id=7, kind=Kind.ANSWER)
LISTEN = make_call(method="", id=None, kind=Kind.LISTEN)
END = make_call(method="", id=None, kind=Kind.END)


def shown(reply: Reply) -> tuple[int, dict[str, str], object]:
    """Status, fields, and the body as JSON where it says that it is."""
    assert isinstance(reply.body, bytes)
    pairs = [(name.decode(), value.decode()) for name, value in reply.headers.pairs]
    fields = dict(pairs)
    assert len(fields) == len(pairs)
    return reply.status, fields, json.loads(reply.body) if JSON in pairs else reply.body.decode()


def sentence(reason: Reason, why: str = "Why.") -> str:
    return f"{ROWS[reason].text} {why}"


def error(reason: Reason, id: object, **data: object) -> dict[str, object]:
    return {
        "jsonrpc": "2.0",
        "id": id,
        "error": {
            "code": EXPECTED[reason].code,
            "message": sentence(reason),
            "data": {"origin": "proxy", "reason": reason.value, **data},
        },
    }


def result(reason: Reason, id: object, **more: object) -> dict[str, object]:
    return {
        "jsonrpc": "2.0",
        "id": id,
        "result": {
            "content": [{"type": "text", "text": sentence(reason)}],
            "isError": True,
            "_meta": {META_KEY: {"reason": reason.value}},
            **more,
        },
    }


def test_every_reason_has_a_row_and_every_row_a_test() -> None:
    """Style guide 7."""
    assert set(ROWS) == set(Reason) == set(EXPECTED)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("reason", Reason)
def test_what_cannot_be_read_is_refused_over_http(reason: Reason, form: Form) -> None:
    """protocol.md 3.3: the id is null only when it could not be read, and 0 is an id."""
    row = EXPECTED[reason]
    for id in (None, 0):
        status, fields, body = shown(explain(Refused(reason, "Why.", id=id), None, form))
        assert status == row.status
        if row.travels == "plain":
            assert (fields, body) == (dict([PLAIN]), sentence(reason))
        else:
            assert (fields, body) == (dict([JSON]), error(reason, id))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("call", [make_call(id="a"), make_call(method="initialize", id="a"), NOTE, LISTEN])
@pytest.mark.parametrize("reason", [reason for reason in Reason if reason not in IN_A_FORM])
def test_what_the_protocol_puts_into_the_status_stays_there(reason: Reason, call: Call, form: Form) -> None:
    """design section 5, "always at HTTP level": in both forms, whatever was called."""
    status, fields, body = shown(explain(Refused(reason, "Why."), call, form))
    assert status == EXPECTED[reason].status
    if EXPECTED[reason].travels == "plain":
        assert (fields, body) == (dict([PLAIN]), sentence(reason))
    else:
        assert (fields, body) == (dict([JSON]), error(reason, call.id))


@pytest.mark.parametrize("id", [1, 0, "", "1", -(2**70)])
@pytest.mark.parametrize("reason", IN_A_FORM)
def test_our_no_to_a_tool_call_is_a_result_the_model_reads(reason: Reason, id: int | str) -> None:
    """Measured: any 4xx or 5xx ends the session of Python 1.x clients, a JSON-RPC error never reaches the model."""
    reply = explain(Refused(reason, "Why."), make_call(id=id), "result")
    assert shown(reply) == (200, dict([JSON]), result(reason, id))


@pytest.mark.parametrize("revision", REGISTER, ids=lambda revision: revision.name)
def test_only_a_modern_result_has_a_type(revision: object) -> None:
    """protocol.md 2.4: `complete` on every modern result that the proxy makes, and on no other."""
    call = make_call(revision=revision)  # type: ignore[arg-type]  # ids= wants an object
    more = {"resultType": "complete"} if revision is NEWEST else {}
    _, _, body = shown(explain(Refused(Reason.MODE, "Why."), call, "result"))
    assert body == result(Reason.MODE, 1, **more)


@pytest.mark.parametrize("id", [0, ""])
@pytest.mark.parametrize("method", ["tools/list", "ping", "Tools/Call", "x"])
@pytest.mark.parametrize("reason", IN_A_FORM)
def test_our_no_to_another_request_is_a_json_rpc_error(reason: Reason, method: str, id: int | str) -> None:
    """design section 5: HTTP 200, the request's own id, a code of ours."""
    reply = explain(Refused(reason, "Why."), make_call(method=method, id=id), "result")
    assert shown(reply) == (200, dict([JSON]), error(reason, id))


@pytest.mark.parametrize("method", ["tools/call", "tools/list"])
@pytest.mark.parametrize("reason", IN_A_FORM)
def test_the_other_form_is_a_status_for_callers_that_are_no_sdks(reason: Reason, method: str) -> None:
    """design section 5: `refusals: http`."""
    reply = explain(Refused(reason, "Why."), make_call(method=method, id=0), "http")
    assert shown(reply) == (EXPECTED[reason].status, dict([JSON]), error(reason, 0))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", ["initialize", "server/discover"])
@pytest.mark.parametrize("reason", IN_A_FORM)
def test_a_failed_probe_is_a_plain_outage(reason: Reason, method: str, form: Form) -> None:
    """protocol.md 2.5: a 4xx, or an error in a 200, changes the era the client uses for good."""
    status, fields, body = shown(
        explain(Refused(reason, "Why.", retry_after_s=2), make_call(method=method), form)
    )
    expected = EXPECTED[reason].status
    assert status == (expected if expected >= 500 else 503)
    assert (fields, body) == ({**dict([PLAIN]), "Retry-After": "2"}, sentence(reason))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("call", [NOTE, ANSWER], ids=["notification", "answer"])
@pytest.mark.parametrize("reason", IN_A_FORM)
def test_nobody_waits_for_a_no_to_a_notification(reason: Reason, call: Call, form: Form) -> None:
    """design section 5: 202 and dropped, without a body (trap 15); an outage is told, with an id of nobody."""
    reply = explain(Refused(reason, "Why."), call, form)
    if reason in OUTAGES:
        assert shown(reply) == (EXPECTED[reason].status, dict([JSON]), error(reason, None))
    else:
        assert (reply.status, reply.headers, reply.body) == (202, Headers(), b"")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("call", [LISTEN, END], ids=["listen", "end"])
@pytest.mark.parametrize("reason", IN_A_FORM)
def test_a_request_without_a_body_is_refused_over_http(reason: Reason, call: Call, form: Form) -> None:
    """RFC 9110: a GET has no JSON-RPC message that a 200 could answer."""
    reply = explain(Refused(reason, "Why."), call, form)
    assert shown(reply) == (EXPECTED[reason].status, dict([JSON]), error(reason, None))


def test_every_request_of_a_refused_batch_is_answered() -> None:
    """design section 4: each ends with its own answer; with a wrong id all SDKs wait until timeout (3.3)."""
    batch = make_batch(make_call(id=0), make_call(id="a", method="ping"), NOTE)
    reply = explain(Refused(Reason.UPSTREAM_UNREACHABLE, "Why."), batch, "result")
    assert shown(reply) == (
        200,
        dict([JSON]),
        [result(Reason.UPSTREAM_UNREACHABLE, 0), error(Reason.UPSTREAM_UNREACHABLE, "a")],
    )


def test_a_batch_refused_by_the_protocol_is_one_status() -> None:
    """protocol.md 1.2 (2): a malformed array is a malformed body, and has no id."""
    batch = make_batch(make_call(id=1), make_call(id=2))
    reply = explain(Refused(Reason.NO_CREDENTIAL, "Why."), batch, "result")
    assert shown(reply) == (401, dict([JSON]), error(Reason.NO_CREDENTIAL, None))


@pytest.mark.parametrize(
    ("wait_s", "seconds", "milliseconds"),
    [
        (0, "0", 0),
        (0.001, "1", 1),
        (1, "1", 1000),
        (1.0, "1", 1000),
        (1.2, "2", 1200),
        (86_399.5, "86400", 86_399_500),
    ],
)
def test_who_obeys_does_not_come_back_too_early(wait_s: float, seconds: str, milliseconds: int) -> None:
    """RFC 9110 10.2.3: whole seconds, so rounded up; the exact time is in the data."""
    refused = Refused(Reason.RATE_LIMITED, "Why.", retry_after_s=wait_s)
    fields = {**dict([JSON]), "Retry-After": seconds}
    told = error(Reason.RATE_LIMITED, 1, retryAfterMs=milliseconds)
    assert shown(explain(refused, make_call(method="ping"), "http")) == (429, fields, told)
    status, fields_of_result, body = shown(explain(refused, make_call(), "result"))
    assert (status, fields_of_result) == (200, fields)
    assert isinstance(body, dict)
    assert body["result"]["_meta"] == {META_KEY: {"reason": "rate_limited", "retryAfterMs": milliseconds}}


@pytest.mark.parametrize(
    ("wait_s", "seconds", "milliseconds"),
    [(1e16, "10000000000000000", 10**19), (-0.5, "0", 0), (1.0004, "2", 1001)],
)
def test_retry_after_is_always_digits_and_never_too_early(
    wait_s: float, seconds: str, milliseconds: int
) -> None:
    """RFC 9110 10.2.3: 1*DIGIT; own promise: too late rather than too early."""
    refused = Refused(Reason.RATE_LIMITED, "Why.", retry_after_s=wait_s)
    _, fields, body = shown(explain(refused, make_call(method="ping"), "http"))
    assert fields["Retry-After"] == seconds
    assert body == error(Reason.RATE_LIMITED, 1, retryAfterMs=milliseconds)


def test_a_refusal_may_say_more_than_its_row() -> None:
    """style guide 7: code, status, data and fields of one refusal; -32022 lists what is supported."""
    refused = Refused(
        Reason.MALFORMED,
        code=-32700,
        status=431,
        data={"limit": "head"},
        headers=[(b"WWW-Authenticate", b"Bearer")],
    )
    assert shown(explain(refused, None, "result")) == (
        431,
        {**dict([JSON]), "WWW-Authenticate": "Bearer"},
        {
            "jsonrpc": "2.0",
            "id": None,
            "error": {
                "code": -32700,
                "message": ROWS[Reason.MALFORMED].text,
                "data": {"origin": "proxy", "reason": "malformed", "limit": "head"},
            },
        },
    )
    assert (status_of(refused), status_of(Refused(Reason.MALFORMED))) == (431, 400)
    zero = Refused(Reason.MODE, code=0)
    assert json.loads(message(zero, make_call(method="ping")))["error"]["code"] == 0


@pytest.mark.parametrize("reason", Reason)
def test_what_is_at_http_refuses_a_whole_batch(reason: Reason) -> None:
    """design section 4: one status cannot answer some messages of a batch and not others."""
    assert is_at_http(Refused(reason)) is (reason not in IN_A_FORM)


@pytest.mark.parametrize("reason", Reason)
def test_our_codes_lie_outside_every_reserved_range(reason: Reason) -> None:
    """protocol.md 2.3: only the specification's own errors use its numbers."""
    code = EXPECTED[reason].code
    theirs = {
        Reason.MALFORMED,
        Reason.HEADER_MISMATCH,
        Reason.VERSION_UNSUPPORTED,
        Reason.NOT_VISIBLE,
        Reason.TASK_UNKNOWN,
    }
    assert code is None or code > 0 or reason in theirs
    assert ROWS[reason].text.endswith(".")
    assert ROWS[reason].text.isprintable()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", ["tools/call", "ping"])
def test_a_message_for_a_stream_is_one_line(method: str, form: Form) -> None:
    """2024-11-05: our no travels as the data of an event, which ends at a line break."""
    written = message(Refused(Reason.MODE, "a\nb\r\u2028"), make_call(method=method, id="x\n"), form)
    assert not {0x0A, 0x0D} & set(written)
    is_result = method == "tools/call" and form == "result"
    assert ("result" in json.loads(written)) is is_result
