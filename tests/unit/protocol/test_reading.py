"""One HTTP request to one Call: era and revision, mirrored headers, batches, requests without a body."""

import base64
import json

import pytest

from proxy.model import NOBODY, Call, Headers, Kind, Reason, Refused, Revision
from proxy.protocol.jsonrpc import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    META_CAPABILITIES,
    META_VERSION,
    PARSE_ERROR,
)
from proxy.protocol.reading import HEADER_MISMATCH, MAX_BATCH, read_bodiless, read_post
from proxy.protocol.revisions import BY_NAME, NEWEST, REGISTER, TWO_ENDPOINTS, UNNAMED
from proxy.refusals import ROWS
from tests.fakes import FakeJourney, make_headers, no

MODERN = NEWEST.name
LEGACY = "2025-11-25"
ABSENT = object()


def post(
    body: object,
    headers: Headers | None = None,
    *,
    spoken: Revision | None = None,
    journey: FakeJourney | None = None,
) -> Call:
    """The call of a POST whose body is bytes, or a value to be written as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_post(
        headers or Headers(), data, received=7.0, journey=journey or FakeJourney(), query="a=b", spoken=spoken
    )


def refusal(body: object, headers: Headers | None = None, *, spoken: Revision | None = None) -> Refused:
    return no(lambda: post(body, headers, spoken=spoken))


def codes(refused: Refused) -> tuple[Reason, int | None]:
    """The reason, and the JSON-RPC code that will be on the wire."""
    code = refused.code if refused.code is not None else ROWS[refused.reason].code
    return refused.reason, code


def message(
    method: str = "ping", *, claim: object = ABSENT, id: object = 1, **params: object
) -> dict[str, object]:
    """A request, or with `id=ABSENT` a notification; `claim` is the version its body names."""
    meta = {} if claim is ABSENT else {META_VERSION: claim, META_CAPABILITIES: {}}
    whole: dict[str, object] = {"jsonrpc": "2.0", "method": method, "params": {**params, "_meta": meta}}
    if id is not ABSENT:
        whole["id"] = id
    return whole


def named(version: str, **others: str | bytes) -> Headers:
    return make_headers(mcp_protocol_version=version, **others)


MALFORMED = Reason.MALFORMED
MISMATCH = (Reason.HEADER_MISMATCH, HEADER_MISMATCH)
UNSUPPORTED = (Reason.VERSION_UNSUPPORTED, -32022)
ANSWER = {"jsonrpc": "2.0", "id": 1, "result": {}}
NOTE = message("notifications/x", id=ABSENT)


@pytest.mark.parametrize(
    ("body", "header", "expected"),
    [
        # 3. The body claims a version: the header must be there and be equal.
        (message(claim=MODERN), None, MISMATCH),
        (message(claim=MODERN), LEGACY, MISMATCH),
        (message(claim=MODERN), "2026-07-29", MISMATCH),
        (message(claim=MODERN), MODERN + "x", MISMATCH),
        (message(claim=MODERN), "", MISMATCH),
        (message("initialize", claim=MODERN), None, MISMATCH),
        (message("notifications/x", claim=MODERN, id=ABSENT), LEGACY, MISMATCH),
        (message(claim=LEGACY), LEGACY, UNSUPPORTED),
        (message(claim="1999-01-01"), "1999-01-01", UNSUPPORTED),
        (message(claim=""), "", UNSUPPORTED),
        (message(claim=5), MODERN, (MALFORMED, INVALID_PARAMS)),
        (message(claim=[MODERN]), MODERN, (MALFORMED, INVALID_PARAMS)),
        (message(claim={}), MODERN, (MALFORMED, INVALID_PARAMS)),
        (message(claim=None), None, (MALFORMED, INVALID_PARAMS)),
        (message(claim=None), LEGACY, (MALFORMED, INVALID_PARAMS)),
        # 4. No claim, and the header names a modern version.
        (message(), MODERN, (MALFORMED, INVALID_PARAMS)),
        (message("server/discover"), MODERN, (MALFORMED, INVALID_PARAMS)),
        (message(claim=None), MODERN, (MALFORMED, INVALID_PARAMS)),
        (ANSWER, MODERN, (MALFORMED, INVALID_REQUEST)),
        (message("initialize"), MODERN, UNNAMED),
        (message("initialize", protocolVersion=LEGACY), MODERN, BY_NAME[LEGACY]),
        (NOTE, MODERN, NEWEST),
        # 5. Legacy.
        (message(), None, UNNAMED),
        (ANSWER, None, UNNAMED),
        (NOTE, None, UNNAMED),
        (message(), "2025-03-26", BY_NAME["2025-03-26"]),
        (message(), "2025-06-18", BY_NAME["2025-06-18"]),
        (message(), "  2025-11-25\t", BY_NAME[LEGACY]),
        (ANSWER, LEGACY, BY_NAME[LEGACY]),
        (message("initialize", protocolVersion="2025-06-18"), None, BY_NAME["2025-06-18"]),
        (message("initialize", protocolVersion="2024-11-05"), None, UNNAMED),
        (message("initialize", protocolVersion="2099-01-01"), None, UNNAMED),
        (message("initialize", protocolVersion=7), None, UNNAMED),
        (message("initialize", protocolVersion="2025-06-18"), LEGACY, BY_NAME[LEGACY]),
        (message("tools/list", protocolVersion="2025-06-18"), None, UNNAMED),
        # 6. Unknown versions.
        (message(), "2099-01-01", UNSUPPORTED),
        (message(), "", UNSUPPORTED),
        (message(), "2025-11-25, 2025-11-25", UNSUPPORTED),
        (message(), "2025_11_25", UNSUPPORTED),
        (message("initialize"), "2099-01-01", UNSUPPORTED),
    ],
)
def test_the_era_is_decided_once_from_header_and_body(
    body: object, header: str | None, expected: Revision | tuple[Reason, int]
) -> None:
    """protocol.md 1.2, by its numbers: whatever two servers would route differently is refused."""
    headers = Headers() if header is None else named(header, mcp_method=str(message_method(body)))
    if isinstance(expected, Revision):
        assert post(body, headers).revision == expected
    else:
        assert codes(refusal(body, headers)) == expected


def message_method(body: object) -> object:
    assert isinstance(body, dict)
    return body.get("method", "")


@pytest.mark.parametrize("headers", [Headers(), named(MODERN)])
def test_an_initialize_that_asks_for_a_modern_version_is_negotiated_by_the_server(headers: Headers) -> None:
    """protocol.md 1.2 (4): SDKs differ, forward it; 2.5: a 400 of ours changes the client's era for good."""
    call = post(message("initialize", protocolVersion=MODERN, capabilities={}), headers)
    assert not call.revision.is_modern


@pytest.mark.parametrize("version", ["2025-11-25\u00a0", "\u20282025-11-25", "2025-11-25\x0b"])
def test_a_version_with_other_blanks_is_another_version(version: str) -> None:
    """Python servers send whatever they do not know down their modern path (protocol.md 1.1); we would not."""
    assert codes(refusal(message(), named(version))) == UNSUPPORTED


@pytest.mark.parametrize(
    ("version", "claim", "supported"),
    [
        ("2099-01-01", ABSENT, [each.name for each in REGISTER]),
        ("2099-01-01", "2099-01-01", [MODERN]),
        ("x" * 100, ABSENT, [each.name for each in REGISTER]),
    ],
)
def test_an_unknown_version_is_told_which_are_supported(
    version: str, claim: object, supported: list[str]
) -> None:
    """2026-07-28 basic/index: -32022 has `data.supported` and `data.requested`; clients retry with a listed one."""
    refused = refusal(message(claim=claim, id=0), named(version))
    assert (refused.reason, refused.id) == (Reason.VERSION_UNSUPPORTED, 0)
    assert refused.data == {"supported": supported, "requested": version[:32]}


MODERN_CALL = message("tools/call", claim=MODERN, name="echo", arguments={"name": "other"})
FIELDS = {"mcp_protocol_version": MODERN, "mcp_method": "tools/call", "mcp_name": "echo"}


def modern(**changes: str | bytes | None) -> Headers:
    """The headers of a good modern tools/call, with some changed or, when None, left out."""
    fields: dict[str, str | bytes | None] = {**FIELDS, **changes}
    return make_headers(**{name: value for name, value in fields.items() if value is not None})


def coded(text: str | bytes) -> str:
    data = text if isinstance(text, bytes) else text.encode()
    return f"=?base64?{base64.b64encode(data).decode()}?="


@pytest.mark.parametrize(
    "headers",
    [
        modern(),
        modern(mcp_name=coded("echo")),
        modern(mcp_name="\techo  "),
        modern(mcp_name=f" {coded('echo')} "),
        modern(mcp_method=" tools/call\t"),
        modern(mcp_protocol_version=f" {MODERN} "),
        modern(mcp_param_x="anything", mcp_param_y=coded("\u00e9")),
        modern(mcp_param_x="=?base64?no suffix", mcp_param_y="no prefix?="),
        Headers((name.upper(), value) for name, value in modern().pairs),
    ],
)
def test_headers_that_say_what_the_body_says_pass(headers: Headers) -> None:
    """protocol.md 2.2: names in any case, blanks around values are none of the value, sentinels decoded."""
    call = post(MODERN_CALL, headers)
    assert (call.revision, call.target, call.headers) == (NEWEST, "echo", headers)


@pytest.mark.parametrize(
    "headers",
    [
        modern(mcp_method=None),
        modern(mcp_name=None),
        modern(mcp_method=""),
        modern(mcp_name=""),
        modern(mcp_method="tools/list"),
        modern(mcp_method="Tools/Call"),
        modern(mcp_method=coded("tools/call")),
        modern(mcp_name="Echo"),
        modern(mcp_name="other"),
        modern(mcp_name="echo\u00a0"),
        modern(mcp_name='"echo"'),
        modern(mcp_name=coded("Echo")),
        modern(mcp_name=coded(coded("echo"))),
        modern(mcp_name="=?base64??="),
        modern(mcp_name="=?base64?ZWNobw?="),
        modern(mcp_name="=?base64?ZWNo bw==?="),
        modern(mcp_name="=?base64?ZWNobw==\n?="),
        modern(mcp_name="=?base64?ZWNobw-_?="),
        modern(mcp_name="=?base64?ZWNobw==ZWNobw==?="),
        modern(mcp_name=coded(b"\xff")),
        modern(mcp_name="=?BASE64?ZWNobw==?="),
        modern(mcp_name="=?base64?ZWNobw=="),
        modern(mcp_name="ZWNobw=="),
        modern(mcp_param_x="=?base64?!?="),
        modern(mcp_param_x=coded(b"\xc0\xaf")),
        Headers([*modern().pairs, (b"Mcp-Name", b"echo")]),
        Headers([*modern().pairs, (b"MCP-METHOD", b"tools/call")]),
        Headers([*modern().pairs, (b"mcp-protocol-version", MODERN.encode())]),
        Headers([*modern().pairs, (b"mcp-param-a", b"1"), (b"Mcp-Param-A", b"1")]),
    ],
)
def test_headers_that_say_something_else_are_refused(headers: Headers) -> None:
    """protocol.md 2.2: whoever processes the body MUST validate; 400 and -32020 with the request's id."""
    assert codes(refusal(MODERN_CALL, headers)) == MISMATCH


@pytest.mark.parametrize("missing", ["mcp_method", "mcp_name"])
def test_a_missing_mirror_is_answered_with_the_id(missing: str) -> None:
    """protocol.md 3.3: TypeScript clients ignore a 400 whose id is not theirs."""
    refused = refusal({**MODERN_CALL, "id": ""}, modern(**{missing: None}))
    assert (refused.reason, refused.id) == (Reason.HEADER_MISMATCH, "")


@pytest.mark.parametrize(
    ("body", "headers", "passes"),
    [
        (message("tools/call", name="echo"), make_headers(mcp_name="echo", mcp_method="tools/call"), True),
        (message("tools/call", name="echo"), make_headers(mcp_name="other"), False),
        (message("tools/call", name="echo"), make_headers(mcp_method="tools/list"), False),
        (message("resources/read", uri="file:///a", name="b"), make_headers(mcp_name="b"), False),
        (message("resources/read", uri="file:///a"), make_headers(mcp_name="file:///a"), True),
        (message("tasks/get", taskId="t"), make_headers(mcp_name="t"), True),
        (message("tasks/get", taskId="t"), make_headers(mcp_name="u"), False),
        (message("x/y", name="n", uri="u"), make_headers(mcp_name="u"), True),
        (message("x/y"), make_headers(mcp_name="anything"), True),
        (message("x/y", name=5), make_headers(mcp_name="anything"), True),
        (message("x/y"), make_headers(mcp_name="=?base64?!?="), False),
        (NOTE, make_headers(mcp_method="notifications/x"), True),
        (NOTE, make_headers(mcp_method="notifications/y"), False),
        (NOTE, named(MODERN, mcp_method="notifications/y"), False),
        (ANSWER, make_headers(mcp_method="tools/call"), False),
    ],
)
def test_a_mirror_must_be_true_also_where_none_is_asked_for(
    body: object, headers: Headers, passes: bool
) -> None:
    """Own promise: a router before or behind us may trust it; tasks may be mirrored, and need not (2.2)."""
    if passes:
        assert post(body, headers).headers == headers
    else:
        assert codes(refusal(body, headers)) == MISMATCH


@pytest.mark.parametrize("capabilities", [ABSENT, None, [], "x", 1])
def test_a_modern_request_carries_its_capabilities(capabilities: object) -> None:
    """2026-07-28 basic/index: required, may be empty; 400 and -32602 (protocol.md 1.1)."""
    meta = {META_VERSION: MODERN}
    if capabilities is not ABSENT:
        meta[META_CAPABILITIES] = capabilities  # type: ignore[assignment]  # the wrong types are the point
    body = {**message(), "params": {"_meta": meta}}
    refused = refusal(body, named(MODERN, mcp_method="ping"))
    assert (*codes(refused), refused.id) == (MALFORMED, INVALID_PARAMS, 1)


@pytest.mark.parametrize(
    "name", ["mcp-session-id", "Last-Event-ID", "content-type", "AUTHORIZATION", "origin"]
)
def test_a_field_that_decides_something_comes_once(name: str) -> None:
    """protocol.md 2.2: a first-copy and a last-copy reader would disagree, even where both copies agree."""
    twice = Headers([(name.encode(), b"a"), (name.lower().encode(), b"a")])
    assert codes(refusal(message(), twice)) == (MALFORMED, INVALID_REQUEST)
    assert (
        no(lambda: read_bodiless(Kind.LISTEN, twice, received=0, journey=FakeJourney())).reason is MALFORMED
    )


def test_a_call_holds_what_was_read_and_tells_its_journey_once() -> None:
    """Style guide 3: a call is read once; the bytes are those that were inspected, blanks included."""
    body = b' {"jsonrpc":"2.0","id":0,"method":"tools/call","params":{"name":"echo","arguments":{"n":1.0}}}\n'
    headers = named(LEGACY, mcp_session_id="s", last_event_id="e")
    journey = FakeJourney()
    call = post(body, headers, journey=journey)
    assert {field: getattr(call, field) for field in Call.__struct_fields__} == {
        "revision": BY_NAME[LEGACY],
        "kind": Kind.REQUEST,
        "id": 0,
        "method": "tools/call",
        "target": "echo",
        "params": {"name": "echo", "arguments": {"n": 1.0}},
        "headers": headers,
        "body": body,
        "query": "a=b",
        "session": "s",
        "last_event_id": "e",
        "parts": (),
        "received": 7.0,
        "peer": NOBODY,
        "journey": journey,
    }
    assert (journey.calls, journey.diary) == ([call], [])


def told(body: object, headers: Headers) -> tuple[object, ...]:
    """What becomes of a body under a head."""
    try:
        call = post(body, headers)
    except Refused as refused:
        return refused.reason, refused.code, refused.why, refused.id, refused.data
    return call.revision, call.kind, call.method, call.target, call.session, call.last_event_id, call.headers


@pytest.mark.parametrize(
    "headers",
    [
        Headers(),
        named(LEGACY, mcp_session_id="s", last_event_id="e"),
        named("2099-01-01"),
        named(MODERN),
        named(MODERN, mcp_method="tools/call", mcp_name="a"),
        named(LEGACY, mcp_method="ping"),
        named(LEGACY, mcp_name="=?base64?!?="),
        named(LEGACY, mcp_param_x="=?base64?!?="),
        Headers([(b"mcp-method", b"ping"), (b"Mcp-Method", b"ping")]),
    ],
    ids=repr,
)
def test_a_head_that_comes_again_is_told_what_it_would_be_told_alone(headers: Headers) -> None:
    """README "A head that comes again is known": what is remembered of it says nothing of the body it came with."""
    modern = message("tools/call", claim=MODERN, name="a")
    bodies = [
        *(message(), modern, message("tools/call", name="a"), message("tools/call", name="b"), NOTE, ANSWER),
        *([message()], b"{", message(claim="2099-01-01"), message("initialize", protocolVersion=LEGACY)),
    ]
    alone = [told(body, Headers(headers.pairs)) for body in bodies]
    assert [told(body, headers) for body in [*bodies, *bodies]] == [*alone, *alone]


def test_a_refused_body_opens_no_call() -> None:
    """Own promise: the journey of what could not be read ends where it began."""
    journey = FakeJourney()
    no(lambda: post(b"{", journey=journey))
    assert (journey.calls, journey.diary) == ([], [])


OLD = "2025-03-26"


@pytest.mark.parametrize("version", [each.name for each in REGISTER if each.name != OLD] + ["2099-01-01"])
def test_only_one_revision_takes_arrays(version: str) -> None:
    """protocol.md 1.2 (2): TypeScript servers execute a batch whatever the header says, so others are refused."""
    expected = (MALFORMED, INVALID_REQUEST) if version in BY_NAME else UNSUPPORTED
    assert codes(refusal([message()], named(version))) == expected


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"[", PARSE_ERROR),
        (b"[]", INVALID_REQUEST),
        (b" [ ] ", INVALID_REQUEST),
        ([message(id=n) for n in range(MAX_BATCH + 1)], INVALID_REQUEST),
        ([message(id=1), message("initialize", id=2)], INVALID_REQUEST),
        ([message(id=1), message(id=1)], INVALID_REQUEST),
        ([message(id="a"), NOTE, message(id="a")], INVALID_REQUEST),
        ([message(id=0), message(id=-0)], INVALID_REQUEST),
        ([message(), message(claim=MODERN, id=2)], INVALID_REQUEST),
        ([message(), message(claim=None, id=2)], INVALID_REQUEST),
        ([message(), 1], INVALID_REQUEST),
        ([message(), None], INVALID_REQUEST),
        ([message(), []], INVALID_REQUEST),
        ([[message()]], INVALID_REQUEST),
        ([message(), {"jsonrpc": "2.0"}], INVALID_REQUEST),
        ([message(), message("tools/call", id=2)], INVALID_PARAMS),
        ([message(), {**message(id=2), "Method": "x"}], INVALID_REQUEST),
        (json.dumps([message()])[:-1].encode() + b",]", PARSE_ERROR),
    ],
)
def test_a_batch_is_refused_whole_when_one_message_is_wrong(body: object, code: int) -> None:
    """2025-03-26 basic/lifecycle: `initialize` MUST NOT be in a batch; every element is judged."""
    journey = FakeJourney()
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    refused = no(lambda: post(data, named(OLD), journey=journey))
    assert codes(refused) == (MALFORMED, code)
    assert (journey.calls, journey.diary) == ([], [])


@pytest.mark.parametrize("header", ["mcp_method", "mcp_name"])
def test_a_mirror_is_compared_with_every_message_of_a_batch(header: str) -> None:
    """Own promise: one header cannot be true of two different messages."""
    calls = [message("tools/call", id=1, name="tools/call"), message("ping", id=2, name="x")]
    assert codes(refusal(calls, make_headers(**{header: "tools/call"}))) == MISMATCH


def test_the_messages_of_a_batch_keep_their_own_bytes() -> None:
    """protocol.md 3.4: split for policy, keep for forwarding, byte for byte."""
    texts = [
        b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"n":1.0,"t":"a,]}\\\\"}}',
        b'{ "jsonrpc" : "2.0", "method": "notifications/x" , "params": {"l":[1e3,[2],{}]} }',
        b'{"id":"1","jsonrpc":"2.0","result":{"z":-0}}',
    ]
    body = b"\n[ " + texts[0] + b"\t, \r\n" + texts[1] + b"," + texts[2] + b" ]"
    journey = FakeJourney()
    batch = post(body, named(OLD, mcp_session_id="s"), journey=journey)
    assert (batch.kind, batch.id, batch.method, batch.body, batch.session) == (
        Kind.BATCH,
        None,
        "",
        body,
        "s",
    )
    assert [(part.kind, part.id, part.body, part.journey.request_id) for part in batch.parts] == [
        (Kind.REQUEST, 1, texts[0], "j1"),
        (Kind.NOTIFICATION, None, texts[1], "j2"),
        (Kind.ANSWER, "1", texts[2], "j3"),
    ]
    assert batch.journey is journey
    assert journey.calls == [batch.parts[0]]


def test_a_batch_without_a_version_is_read() -> None:
    """2025-03-26 has no version header, and absent means 2025-03-26 (2025-06-18 basic/transports)."""
    batch = post([message(id=n) for n in range(MAX_BATCH)])
    assert (batch.revision, len(batch.parts), batch.wants_answer) == (UNNAMED, MAX_BATCH, True)


def test_two_ids_of_a_batch_may_differ_by_their_type_alone() -> None:
    """protocol.md 3.1: 1 is not "1"; an answer may even repeat the id of a request, for it is the server's."""
    batch = post([message(id=1), message(id="1"), {**ANSWER, "id": 1}])
    assert [part.id for part in batch.parts] == [1, "1", 1]


@pytest.mark.parametrize("body", [message("tools/list"), NOTE, ANSWER])
def test_an_endpoint_decides_where_it_speaks_one_revision(body: object) -> None:
    """2024-11-05: its wire never names a version; headers cannot talk it out of that."""
    assert post(body, named(MODERN), spoken=TWO_ENDPOINTS).revision == TWO_ENDPOINTS
    assert codes(refusal([body], spoken=TWO_ENDPOINTS)) == (MALFORMED, INVALID_REQUEST)


@pytest.mark.parametrize("kind", [Kind.LISTEN, Kind.END])
@pytest.mark.parametrize(
    ("version", "revision"),
    [(None, UNNAMED), (OLD, BY_NAME[OLD]), ("2025-06-18", BY_NAME["2025-06-18"]), (LEGACY, BY_NAME[LEGACY])],
)
def test_a_request_without_a_body_is_an_operation_on_a_session(
    kind: Kind, version: str | None, revision: Revision
) -> None:
    """protocol.md 1.2 (1): GET and DELETE are legacy."""
    fields = {} if version is None else {"mcp_protocol_version": version}
    headers = make_headers(mcp_session_id="s", last_event_id="e", **fields)
    journey = FakeJourney()
    call = read_bodiless(kind, headers, received=7.0, journey=journey, query="a=b")
    assert (call.kind, call.revision, call.session, call.last_event_id) == (kind, revision, "s", "e")
    assert (call.id, call.method, call.body, call.query, call.received) == (None, "", b"", "a=b", 7.0)


@pytest.mark.parametrize(
    ("version", "spoken", "reason"),
    [
        (MODERN, None, Reason.METHOD_NOT_ALLOWED),
        ("2099-01-01", None, Reason.VERSION_UNSUPPORTED),
        ("", None, Reason.VERSION_UNSUPPORTED),
        (LEGACY, NEWEST, Reason.METHOD_NOT_ALLOWED),
    ],
)
def test_a_modern_revision_has_post_only(version: str, spoken: Revision | None, reason: Reason) -> None:
    """2026-07-28: 405 SHOULD, and RFC 9110 15.5.6 wants the methods that are allowed."""
    refused = no(
        lambda: read_bodiless(Kind.LISTEN, named(version), received=0, journey=FakeJourney(), spoken=spoken)
    )
    assert refused.reason is reason
    assert refused.headers == (((b"Allow", b"POST"),) if reason is Reason.METHOD_NOT_ALLOWED else ())
