"""Whose is it? What was handed out to one identity is, for every other, as if it had never been."""

from __future__ import annotations

import functools
import itertools
import tracemalloc
from collections.abc import Callable

import msgspec
import pytest

from proxy.identity import ownership
from proxy.identity.exchange import Exchange
from proxy.identity.ownership import Ownership
from proxy.model import Call, Ending, Kind, Permit, Principal, Reason, Refused, RequestId
from proxy.protocol.revisions import REGISTER, TWO_ENDPOINTS
from proxy.protocol.revisions.r2025_11_25 import R2025_11_25 as LEGACY
from proxy.protocol.revisions.r2026_07_28 import R2026_07_28 as MODERN
from proxy.refusals import explain
from tests.fakes import RULE, make_batch, make_call, no

ANN = Principal(issuer="iss", subject="ann", tenant="acme", fingerprint="first")
BOB = Principal(issuer="iss", subject="bob", tenant="acme")
OTHERS = [
    BOB,
    Principal(issuer="other", subject="ann", tenant="acme"),
    Principal(issuer="iss", subject="ann", tenant="other"),
    Principal(issuer="ann", subject="iss", tenant="acme"),
]
RENEWED = msgspec.structs.replace(
    ANN, fingerprint="second", roles=frozenset({"admin"}), scopes=frozenset({"s"}), valid_until=9.0
)

S = "5e55-10n"
QUERY = "session_id=abc&sidecar_session=random"


a_call = functools.partial(make_call, revision=LEGACY)


def exchange(
    owns: Ownership, who: Principal, call: Call | None = None, handed_out: str | None = None
) -> Exchange:
    """What listens to the answer of `call`."""
    return owns.listen(Permit(call=call or a_call(), principal=who, rule=RULE), handed_out)


def refused_to(owns: Ownership, call: Call, who: Principal = ANN) -> Refused:
    return no(lambda: owns.check(call, who))


def with_session(who: Principal = ANN, session: str = S) -> Ownership:
    owns = Ownership()
    exchange(owns, who, handed_out=session)
    return owns


# Claims: each is made by one call, and becomes true by one thing heard.


def of_session(owns: Ownership) -> Call:
    exchange(owns, ANN, handed_out=S)
    return a_call(id="q", session=S)


def of_stream(owns: Ownership) -> Call:
    exchange(owns, ANN, handed_out=S)
    return a_call(id=None, kind=Kind.LISTEN, method="", session=S)


def of_goodbye(owns: Ownership) -> Call:
    exchange(owns, ANN, handed_out=S)
    return a_call(id=None, kind=Kind.END, method="", session=S)


def of_modern(owns: Ownership) -> Call:
    exchange(owns, ANN, handed_out=S)
    return make_call(revision=MODERN, id="q", session=S)


def of_initialize(owns: Ownership) -> Call:
    exchange(owns, ANN, handed_out=S)
    return a_call(id="q", method="initialize", session=S)


def of_batch(owns: Ownership) -> Call:
    exchange(owns, ANN, handed_out=S)
    return msgspec.structs.replace(make_batch(make_call(session=S)), session=S)


def of_endpoint(owns: Ownership) -> Call:
    listening = make_call(id=None, kind=Kind.LISTEN, method="", revision=TWO_ENDPOINTS)
    exchange(owns, ANN, listening, handed_out=QUERY)
    return make_call(id="q", revision=TWO_ENDPOINTS, query=QUERY)


def of_event(owns: Ownership) -> Call:
    listening = a_call(id=None, kind=Kind.LISTEN, method="", session=S)
    exchange(owns, ANN, handed_out=S)
    exchange(owns, BOB, handed_out="bobs")
    exchange(owns, ANN, listening).event_id(b"e-1")
    return msgspec.structs.replace(listening, last_event_id="e-1")


def of_sessionless_event(owns: Ownership) -> Call:
    exchange(owns, ANN).event_id(b"e-1")
    return a_call(id=None, kind=Kind.LISTEN, method="", last_event_id="e-1")


SESSION_CLAIMS = [
    of_session,
    of_stream,
    of_goodbye,
    of_modern,
    of_initialize,
    of_batch,
    of_endpoint,
    of_event,
    of_sessionless_event,
]


def of_task(owns: Ownership) -> Call:
    exchange(owns, ANN).result("tools/call", {"task": {"taskId": "t-1"}})
    return a_call(id="q", method="tasks/get", params={"taskId": "t-1"})


def of_cancel(owns: Ownership) -> Call:
    return msgspec.structs.replace(of_task(owns), method="tasks/cancel")


def of_modern_task(owns: Ownership) -> Call:
    exchange(owns, ANN).result("tools/call", {"resultType": "task", "taskId": "t-1"})
    return make_call(revision=MODERN, id="q", method="tasks/update", params={"taskId": "t-1"})


def of_watched_tasks(owns: Ownership) -> Call:
    of_modern_task(owns)
    params = {"notifications": {"toolsListChanged": True, "taskIds": ["t-1"]}}
    return make_call(revision=MODERN, id="q", method="subscriptions/listen", params=params)


TASK_CLAIMS = [of_task, of_cancel, of_modern_task, of_watched_tasks]


def of_answer(owns: Ownership) -> Call:
    exchange(owns, ANN, a_call(session=S), handed_out=S)
    exchange(owns, ANN, handed_out=S)
    exchange(owns, ANN, a_call(session=S)).request(4, "ping", None)
    return a_call(id=4, kind=Kind.ANSWER, method="", session=S)


def of_sessionless_answer(owns: Ownership) -> Call:
    exchange(owns, ANN).request(4, "ping", None)
    return a_call(id=4, kind=Kind.ANSWER, method="")


CLAIMS: list[Callable[[Ownership], Call]] = [
    *SESSION_CLAIMS,
    *TASK_CLAIMS,
    of_answer,
    of_sessionless_answer,
]


@pytest.mark.parametrize("claim", CLAIMS)
def test_what_an_identity_received_is_its_own(claim: Callable[[Ownership], Call]) -> None:
    """design section 4, identity; trap 24: a renewed token is the same identity."""
    owns = Ownership()
    call = claim(owns)
    owns.check(call, ANN)
    owns.check(call, RENEWED)


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("claim", CLAIMS)
def test_for_everybody_else_it_never_was(claim: Callable[[Ownership], Call], other: Principal) -> None:
    """Promise 3: byte for byte what an unknown one is answered."""
    owns, empty = Ownership(), Ownership()
    call = claim(owns)
    foreign, unknown = refused_to(owns, call, other), refused_to(empty, call, other)
    assert answer_to(foreign, call) == answer_to(unknown, call)
    assert facts(foreign) == facts(unknown)


def answer_to(refused: Refused, call: Call) -> tuple[int, object, object]:
    reply = explain(refused, call, "result")
    return reply.status, reply.headers.pairs, reply.body


def facts(refused: Refused) -> dict[str, object]:
    return {name: value for name, value in vars(refused).items() if not name.startswith("_")}


@pytest.mark.parametrize(
    ("claims", "status", "code"), [(SESSION_CLAIMS, 404, 404), (TASK_CLAIMS, 200, -32602)]
)
def test_how_the_refusal_looks(claims: list[Callable[[Ownership], Call]], status: int, code: int) -> None:
    """design section 5: 404 for sessions; a task is refused like any parameter (tasks extension, errors)."""
    for claim in claims:
        call = claim(Ownership())
        refused = refused_to(Ownership(), call)
        assert refused.id == call.id
        answered, _, body = answer_to(refused, call)
        assert (answered, msgspec.json.decode(bytes(body))["error"]["code"]) == (status, code)  # type: ignore[call-overload]


def test_an_answer_nobody_asked_for_is_malformed() -> None:
    """A posted answer answers a request of the server, in this caller's own session."""
    refused = refused_to(with_session(), a_call(id=4, kind=Kind.ANSWER, method="", session=S))
    assert (refused.reason, refused.code, refused.id) == (Reason.MALFORMED, -32600, 4)
    assert refused.why == "Nobody asked for this answer."


@pytest.mark.parametrize(
    ("asked", "answered", "is_one"),
    [(1, 1, True), (1, "1", False), ("1", 1, False), (0, 0, True), ("", "", True), (2**70, 2**70, True)],
)
def test_an_answer_has_the_id_of_its_question(asked: RequestId, answered: RequestId, is_one: bool) -> None:
    """protocol.md 3.1: the type belongs to the id."""
    owns = with_session()
    exchange(owns, ANN, a_call(session=S)).request(asked, "ping", None)
    call = a_call(id=answered, kind=Kind.ANSWER, method="", session=S)
    if is_one:
        owns.check(call, ANN)
        owns.check(call, ANN)  # posted again because its connection broke
    else:
        assert refused_to(owns, call).reason is Reason.MALFORMED


def test_questions_belong_to_their_session() -> None:
    """An identity's own sessions are kept apart too: ids are the server's count in each."""
    owns = with_session()
    exchange(owns, ANN, handed_out="another")
    exchange(owns, ANN, a_call(session=S)).request(4, "ping", None)
    for session in ("another", None):
        call = a_call(id=4, kind=Kind.ANSWER, method="", session=session)
        assert refused_to(owns, call).reason is Reason.MALFORMED


def test_questions_on_a_message_endpoint_are_answered_there() -> None:
    """2024-11-05: the session is the stream."""
    owns = Ownership()
    listening = make_call(id=None, kind=Kind.LISTEN, method="", revision=TWO_ENDPOINTS)
    ear = exchange(owns, ANN, listening, handed_out=QUERY)
    ear.request(4, "ping", None)
    answer = make_call(id=4, kind=Kind.ANSWER, method="", revision=TWO_ENDPOINTS, query=QUERY)
    owns.check(answer, ANN)
    assert refused_to(owns, answer, BOB).reason is Reason.SESSION_UNKNOWN
    ear.ended(Ending.COMPLETE)
    assert refused_to(owns, answer).reason is Reason.SESSION_UNKNOWN


def test_the_query_of_a_stream_to_be_opened_is_no_claim() -> None:
    """2024-11-05: servers choose a profile or a workspace by it."""
    call = make_call(id=None, kind=Kind.LISTEN, method="", revision=TWO_ENDPOINTS, query="profile=a")
    Ownership().check(call, ANN)


@pytest.mark.parametrize("revision", REGISTER)
def test_a_session_is_checked_in_every_revision(revision: object) -> None:
    """protocol.md section 8: possession is not authentication, whatever the revision makes of the field."""
    call = make_call(revision=revision, session="made-up", kind=Kind.LISTEN, method="", id=None)  # type: ignore[arg-type]
    assert refused_to(with_session(), call).reason is Reason.SESSION_UNKNOWN


@pytest.mark.parametrize(
    "claim", ["", " ", "a b\x7f", S + ", " + S, S.upper(), S + "\x00", "\udcff", "a" * 8_192]
)
def test_a_malformed_session_is_an_unknown_one(claim: str) -> None:
    """Own promise: no word, and no kind of work, tells them apart."""
    owns = with_session()
    call = a_call(session=claim)
    unknown = refused_to(owns, a_call(session="unknown"))
    assert answer_to(refused_to(owns, call), call) == answer_to(unknown, call)


def test_whoever_has_no_session_claims_none() -> None:
    """A server without sessions, or `initialize`."""
    Ownership().check(a_call(), ANN)
    Ownership().check(a_call(method="initialize"), ANN)


def test_a_long_id_is_an_id() -> None:
    """Own promise: it costs no more than a short one, and differs in its last character."""
    long = "x" * 5_000
    owns = with_session(session=long + "1")
    owns.check(a_call(session=long + "1"), ANN)
    assert refused_to(owns, a_call(session=long + "2")).reason is Reason.SESSION_UNKNOWN


def test_each_message_of_a_batch_is_looked_at() -> None:
    """2025-03-26: what one of them may not, the others do not carry in."""
    owns = with_session()
    owns.listen(Permit(call=make_call(), principal=ANN, rule=RULE), None).request(1, "ping", None)
    good = make_call(id=1, kind=Kind.ANSWER, method="")
    owns.check(make_batch(make_call(), good), ANN)
    bad = make_call(id=2, kind=Kind.ANSWER, method="")
    assert refused_to(owns, make_batch(good, bad)).reason is Reason.MALFORMED
    foreign = make_call(method="tasks/get", params={"taskId": "t"})
    assert refused_to(owns, make_batch(make_call(), foreign)).reason is Reason.TASK_UNKNOWN


# What is handed out.


def test_what_the_call_named_is_not_handed_out_again() -> None:
    """A call and the end of its session race; servers repeat the id on every answer."""
    owns = with_session()
    call = a_call(session=S)
    owns.check(call, ANN)
    owns.forget(ANN, S)
    exchange(owns, ANN, call, handed_out=S)
    assert refused_to(owns, call).reason is Reason.SESSION_UNKNOWN


def test_a_server_that_gives_one_session_to_two_is_refused() -> None:
    """Own promise: first come, first served; the second would speak in the first one's session."""
    owns = with_session()
    assert no(lambda: exchange(owns, BOB, handed_out=S)).reason is Reason.UPSTREAM_NONSENSE
    exchange(owns, ANN, handed_out=S)
    owns.check(a_call(session=S), ANN)
    owns.forget(ANN, S)
    exchange(owns, BOB, handed_out=S)  # it has ended: the server may use the name again
    owns.check(a_call(session=S), BOB)


def test_a_server_that_gives_one_task_to_two_is_refused() -> None:
    """2025-11-25 basic/utilities/tasks: ids are unique among all tasks of the receiver."""
    owns = Ownership()
    created = {"task": {"taskId": "t"}}
    exchange(owns, ANN).result("tools/call", created)
    exchange(owns, ANN).result("tasks/get", created)
    assert no(lambda: exchange(owns, BOB).result("tools/call", created)).reason is Reason.UPSTREAM_NONSENSE


@pytest.mark.parametrize(
    "result",
    [
        None,
        "t",
        ["t"],
        {"taskId": "t"},
        {"resultType": "complete", "taskId": "t"},
        {"task": "t"},
        {"task": ["t"]},
        {"task": {"taskId": 7}},
        {"structuredContent": {"task": {"taskId": "t"}}},
        {"resultType": "task", "taskId": ["t"]},
    ],
)
def test_no_other_result_creates_a_task(result: object) -> None:
    owns = Ownership()
    exchange(owns, ANN).result("tools/call", result)
    call = a_call(method="tasks/get", params={"taskId": "t"})
    assert refused_to(owns, call).reason is Reason.TASK_UNKNOWN


def test_a_task_is_heard_wherever_its_answer_arrives() -> None:
    """protocol.md section 4: resume is always GET, also for answers of other connections."""
    owns = with_session()
    resumed = a_call(kind=Kind.LISTEN, method="", id=None, session=S, last_event_id="1")
    exchange(owns, ANN, resumed).result(None, {"task": {"taskId": "t"}})
    owns.check(a_call(method="tasks/result", params={"taskId": "t"}), ANN)


@pytest.mark.parametrize(
    ("method", "params", "is_refused"),
    [
        ("tasks/list", {}, False),
        ("tasks/list", {"cursor": ""}, False),
        ("tasks/get", {}, False),  # nothing is named: the server says what is missing
        ("tasks/get", {"taskId": "foreign"}, True),
        ("tasks/get", {"taskId": None}, True),
        ("tasks/get", {"taskId": 7}, True),
        ("tasks/get", {"taskId": ["t"]}, True),
        ("tasks/anything", {"taskId": "foreign"}, True),
        ("tasks/get", {"taskId": "t"}, False),
        ("tools/call", {"taskId": "foreign"}, False),
        ("subscriptions/listens", {"taskId": "foreign"}, False),
        ("tools/call", {"arguments": {"taskIds": ["foreign"]}}, False),
        ("subscriptions/listen", {"notifications": {"taskIds": ["t", "foreign"]}}, True),
        ("subscriptions/listen", {"notifications": {"taskIds": ["t"]}}, False),
        ("subscriptions/listen", {"notifications": {"taskIds": []}}, False),
        ("subscriptions/listen", {"notifications": {"taskIds": None}}, True),
        ("subscriptions/listen", {"notifications": {"TASKIDS": ["foreign"]}}, True),
        ("subscriptions/listen", {"taskIds": ["foreign"]}, True),
        ("subscriptions/listen", {"notifications": {"resourceSubscriptions": ["foreign"]}}, False),
    ],
)
def test_which_tasks_a_call_names(method: str, params: dict[str, object], is_refused: bool) -> None:
    """Tasks extension, "Task Status Notifications"; 2025-11-25 basic/utilities/tasks."""
    owns = Ownership()
    exchange(owns, ANN).result("tools/call", {"task": {"taskId": "t"}})
    call = make_call(revision=MODERN, method=method, params=params)
    if is_refused:
        assert refused_to(owns, call).reason is Reason.TASK_UNKNOWN
    else:
        owns.check(call, ANN)


# What ends.


def test_with_a_session_ends_what_is_below_it() -> None:
    """Own promise: its events, its questions, and the tasks created in it."""
    owns = with_session()
    exchange(owns, ANN, handed_out="another")
    for session, task in ((S, "t-1"), ("another", "t-2")):
        stream = exchange(owns, ANN, a_call(session=session))
        stream.event_id(b"e")
        stream.request(1, "ping", None)
        stream.result("tools/call", {"task": {"taskId": task}})
        stream.ended(Ending.COMPLETE)
    owns.forget(ANN, S)
    exchange(owns, ANN, handed_out=S)  # the server may use the name again, for something new
    assert refused_to(owns, resuming("e"))
    assert refused_to(owns, a_call(id=1, kind=Kind.ANSWER, method="", session=S))
    assert refused_to(owns, a_call(method="tasks/get", params={"taskId": "t-1"}))
    owns.check(resuming("e", "another"), ANN)
    owns.check(a_call(id=1, kind=Kind.ANSWER, method="", session="another"), ANN)
    owns.check(a_call(method="tasks/get", params={"taskId": "t-2"}), ANN)


def test_nobody_ends_the_session_of_somebody_else() -> None:
    owns = with_session()
    owns.forget(BOB, S)
    owns.check(a_call(session=S), ANN)


def test_what_is_heard_after_the_end_is_nobodys() -> None:
    """A stream may say a last word when its session has ended."""
    owns = with_session()
    stream = exchange(owns, ANN, a_call(session=S))
    owns.forget(ANN, S)
    stream.event_id(b"e")
    stream.request(1, "ping", None)
    stream.ended(Ending.COMPLETE)
    exchange(owns, ANN, handed_out=S)
    assert refused_to(owns, resuming("e"))
    assert refused_to(owns, a_call(id=1, kind=Kind.ANSWER, method="", session=S))


# Events.


def resuming(event_id: str, session: str | None = S) -> Call:
    return a_call(id=None, kind=Kind.LISTEN, method="", session=session, last_event_id=event_id)


def test_a_stream_can_be_resumed_when_it_has_ended() -> None:
    """2025-11-25 basic/transports, "Resumability": that is what for."""
    owns = with_session()
    stream = exchange(owns, ANN, a_call(session=S))
    for number in range(1_000):
        stream.event_id(b"e-%d" % number)
    owns.check(resuming("e-0"), ANN)
    stream.ended(Ending.UPSTREAM_BROKE)
    owns.check(resuming("e-999"), ANN)
    owns.check(resuming("e-744"), ANN)
    assert refused_to(owns, resuming("e-743")).reason is Reason.SESSION_UNKNOWN


def test_an_open_stream_is_not_forgotten_for_others_that_ended() -> None:
    """The GET stream of a session stays idle for hours beside thousands of calls, and is resumed then."""
    owns = with_session()
    idle = exchange(owns, ANN, a_call(id=None, kind=Kind.LISTEN, method="", session=S))
    idle.event_id(b"idle")
    for number in range(5_000):
        call = exchange(owns, ANN, a_call(session=S))
        call.event_id(b"%d" % number)
        call.ended(Ending.COMPLETE)
    owns.check(resuming("idle"), ANN)
    assert refused_to(owns, resuming("0"))
    idle.ended(Ending.CLIENT_GONE)
    owns.check(resuming("idle"), ANN)


def test_a_handshake_that_streams_belongs_to_the_session_it_begins() -> None:
    owns = Ownership()
    exchange(owns, ANN, a_call(method="initialize"), handed_out=S).event_id(b"e")
    owns.check(resuming("e"), ANN)
    assert refused_to(owns, resuming("e", None))


def test_what_a_call_hears_belongs_to_the_session_it_named() -> None:
    """A server that gives a new session to a call of an old one: clients resume in the one they named."""
    owns = with_session()
    stream = exchange(owns, ANN, a_call(session=S), handed_out="another")
    stream.event_id(b"e")
    owns.check(resuming("e"), ANN)
    owns.check(a_call(session="another"), ANN)
    assert refused_to(owns, resuming("e", "another"))


def test_events_of_a_stream_without_endpoint_outlive_it() -> None:
    """EventSource comes back with its last id to an HTTP+SSE server, which then begins a new session."""
    owns = Ownership()
    listening = make_call(id=None, kind=Kind.LISTEN, method="", revision=TWO_ENDPOINTS)
    stream = exchange(owns, ANN, listening, handed_out=QUERY)
    stream.event_id(b"e")
    stream.ended(Ending.CLIENT_GONE)
    owns.check(msgspec.structs.replace(listening, last_event_id="e"), ANN)
    assert refused_to(owns, msgspec.structs.replace(listening, last_event_id="e"), BOB)


def test_an_event_id_is_the_bytes_of_the_wire() -> None:
    owns = with_session()
    exchange(owns, ANN, a_call(session=S)).event_id("é".encode() + b"\xff")
    owns.check(resuming("é\udcff"), ANN)


# Bounds.


def test_ten_thousand_handshakes_of_one_identity_stay_a_thousand_sessions() -> None:
    """Attack corpus SES-025: the table must not grow without limit; the flooder pays alone."""
    owns = with_session(BOB, "bobs")
    for number in range(10_000):
        exchange(owns, ANN, handed_out=f"s-{number}")
    owns.check(a_call(session="bobs"), BOB)
    owns.check(a_call(session="s-9000"), ANN)
    assert refused_to(owns, a_call(session="s-8999")).reason is Reason.SESSION_UNKNOWN


def test_a_session_in_use_is_not_the_oldest() -> None:
    owns = with_session()
    for number in range(ownership.SESSIONS_EACH):
        exchange(owns, ANN, handed_out=f"s-{number}")
        owns.check(a_call(session=S), ANN)
    owns.check(a_call(session=S), ANN)
    assert refused_to(owns, a_call(session="s-0"))


def test_a_session_there_was_no_room_for_leaves_its_tasks() -> None:
    """It has not ended: whoever starts anew finds them."""
    owns = with_session()
    exchange(owns, ANN, a_call(session=S)).result("tools/call", {"task": {"taskId": "t"}})
    for number in range(ownership.SESSIONS_EACH):
        exchange(owns, ANN, handed_out=f"s-{number}")
    owns.check(a_call(method="tasks/get", params={"taskId": "t"}), ANN)


def test_a_session_there_was_no_room_for_leaves_nothing_to_whoever_is_given_its_name() -> None:
    """Own promise: what is bounded must not outlive what it belongs to."""
    owns = with_session()
    stream = exchange(owns, ANN, a_call(session=S))
    stream.event_id(b"anns")
    stream.ended(Ending.COMPLETE)
    for number in range(ownership.SESSIONS_EACH):
        exchange(owns, ANN, handed_out=f"s-{number}")
    exchange(owns, BOB, handed_out=S)
    own = exchange(owns, BOB, a_call(session=S))
    own.event_id(b"bobs")
    own.ended(Ending.COMPLETE)
    owns.check(resuming("bobs"), BOB)
    assert refused_to(owns, resuming("anns"), BOB).reason is Reason.SESSION_UNKNOWN


def test_a_session_keeps_no_list_of_all_its_tasks_for_ever() -> None:
    """SES-025 for tasks: one session may create millions in its life."""
    owns = with_session()
    ear = exchange(owns, ANN, a_call(session=S))
    kept: list[int] = []
    tracemalloc.start()
    try:
        for number in range(6 * ownership.TASKS_EACH):
            ear.result("tools/call", {"task": {"taskId": f"{number:09d}"}})
            if number % ownership.TASKS_EACH == ownership.TASKS_EACH - 1:
                kept.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert kept[-1] < 1.2 * kept[1], kept  # the first of them fills tables that do not shrink again


def test_tasks_are_bounded_for_each() -> None:
    owns = with_session()
    exchange(owns, BOB).result("tools/call", {"task": {"taskId": "bobs"}})
    call = a_call(session=S)
    for number in range(ownership.TASKS_EACH + 1):
        exchange(owns, ANN, call).result("tools/call", {"task": {"taskId": f"t-{number}"}})
    assert not owns.owns_task(ANN.identity, "t-0")
    assert owns.owns_task(ANN.identity, "t-1")
    assert owns.owns_task(BOB.identity, "bobs")
    # What went may be somebody else's by the time the session ends.
    exchange(owns, BOB).result("tools/call", {"task": {"taskId": "t-0"}})
    owns.forget(ANN, S)
    assert owns.owns_task(BOB.identity, "t-0")
    assert not owns.owns_task(ANN.identity, "t-1")


def test_questions_are_bounded() -> None:
    owns = with_session()
    stream = exchange(owns, ANN, a_call(session=S))
    for number in range(ownership.QUESTIONS + 1):
        stream.request(number, "ping", None)
    assert refused_to(owns, a_call(id=0, kind=Kind.ANSWER, method="", session=S))
    owns.check(a_call(id=1, kind=Kind.ANSWER, method="", session=S), ANN)


def test_an_open_stream_remembers_its_last_events() -> None:
    owns = with_session()
    stream = exchange(owns, ANN, a_call(session=S))
    for number in range(ownership.OPEN_EVENTS + 1):
        stream.event_id(b"%d" % number)
    assert refused_to(owns, resuming("0"))
    owns.check(resuming("1"), ANN)


def test_a_flood_of_events_costs_the_flooder_only() -> None:
    """Every table that a client can grow is bounded, and what streams left behind goes before sessions do."""
    owns = Ownership(trace_bytes_each=10_000)
    for who, name, sessions in ((BOB, "bobs", 1), (ANN, "anns", 10)):
        for number in range(sessions):
            exchange(owns, who, handed_out=f"{name}-{number}")
            ear = exchange(owns, who, a_call(session=f"{name}-{number}"))
            for event in range(ownership.LEFT_EVENTS):
                ear.event_id(b"%d" % event)
            ear.ended(Ending.COMPLETE)
    owns.check(resuming("0", "bobs-0"), BOB)
    kept = [number for number in range(10) if is_allowed(owns, resuming("0", f"anns-{number}"))]
    assert kept == [7, 8, 9]  # of 256 events, 8 bytes each, and what keeping them costs
    owns.check(a_call(session="anns-0"), ANN)


def is_allowed(owns: Ownership, call: Call) -> bool:
    try:
        owns.check(call, ANN)
    except Refused:
        return False
    return True


def test_idle_streams_keep_nothing() -> None:
    """design section 8: 20 KB for each idle stream, nearly spent before anybody owned anything."""
    owns = with_session()
    calls = [a_call(id=None, kind=Kind.LISTEN, method="", session=S) for _ in range(1_000)]
    permits = [Permit(call=call, principal=ANN, rule=RULE) for call in calls]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        ears = [owns.listen(permit, S) for permit in permits]
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown / len(ears) < 300


def test_identities_do_not_mix_whatever_their_parts_contain() -> None:
    """A separator that somebody may write into a name would make two identities one."""
    owns = Ownership()
    parts = ["a", "a\x1f", "", "a:b", "b"]
    principals = [
        Principal(issuer=issuer, subject=subject, tenant=tenant)
        for issuer, subject, tenant in itertools.product(parts, repeat=3)
    ]
    for number, each in enumerate(principals):
        exchange(owns, each, handed_out=f"s-{number}")
    for number, each in enumerate(principals):
        owns.check(a_call(session=f"s-{number}"), each)
        other = principals[number - 1]
        assert refused_to(owns, a_call(session=f"s-{number}"), other).reason is Reason.SESSION_UNKNOWN


def test_an_event_id_means_something_on_get_only() -> None:
    """Corpus MIS-042: a POST resumes nothing; the field does not go upstream either (forward.py)."""
    Ownership().check(make_call(last_event_id="of-bob"), ANN)
    Ownership().check(make_call(revision=MODERN, last_event_id="of-bob"), ANN)
