"""What may the caller see of an event? Everything but somebody else's tasks, byte for byte."""

import json
from collections.abc import Callable

import pytest

from proxy.identity.exchange import FILTERED, Exchange
from proxy.identity.ownership import Ownership
from proxy.model import Call, Ending, Kind, Permit, Principal, Reason
from proxy.protocol.answers import HELD_BYTES
from proxy.protocol.revisions import TWO_ENDPOINTS
from proxy.protocol.sse import Event, Splitter
from proxy.upstream.judge import Judge, heard_by
from tests.fakes import RULE, Diary, FakeJourney, make_call, no

ANN = Principal(issuer="iss", subject="ann", tenant="acme")
BOB = Principal(issuer="iss", subject="bob", tenant="acme")


def owning(**tasks: Principal) -> Ownership:
    owns = Ownership()
    for task, who in tasks.items():
        owns.listen(Permit(call=make_call(), principal=who, rule=RULE), None).result(
            "tools/call", {"task": {"taskId": task}}
        )
    return owns


def listening_to(call: Call, owns: Ownership | None = None) -> Exchange:
    owns = owns or owning(mine=ANN, theirs=BOB)
    return owns.listen(Permit(call=call, principal=ANN, rule=RULE), None)


def judged(call: Call, raw: bytes) -> bytes:
    """What the caller gets of one event."""
    ear = listening_to(call)
    judge = Judge([call], any_answer=call.last_event_id is not None, ear=ear)
    [event] = Splitter(10 * HELD_BYTES).feed(raw)
    judge.event(event)
    return heard_by(ear, event)


def answer(*tasks: object, **more: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"tasks": tasks, **more}}).encode()


MINE, THEIRS, NOBODYS = {"taskId": "mine"}, {"taskId": "theirs"}, {"status": "working"}


def a_list(diary: Diary) -> Call:
    return make_call(method="tasks/list", journey=FakeJourney(diary))


def resumed(diary: Diary) -> Call:
    return make_call(id=None, kind=Kind.LISTEN, method="", last_event_id="7", journey=FakeJourney(diary))


@pytest.mark.parametrize(
    ("head", "tail"),
    [
        (b"data: ", b"\n\n"),
        (b"id: 7\r\nevent: message\r\ndata:", b"\r\nretry: 5\r\n\r\n"),
        (b"id: 7\n: tasks\ndata: ", b"\n\n\n"),
    ],
)
@pytest.mark.parametrize("call", [a_list, resumed])
def test_an_event_loses_the_tasks_of_others(call: Callable[[Diary], Call], head: bytes, tail: bytes) -> None:
    """design section 4, identity: the server cannot tell our callers apart; resumed streams answer them too."""
    diary: Diary = []
    got = judged(call(diary), head + answer(THEIRS, MINE, THEIRS, nextCursor="c") + tail)
    assert got.startswith(head)
    assert got.endswith(tail)
    left = got[len(head) : -len(tail)]
    assert json.loads(left) == json.loads(answer(MINE, nextCursor="c"))
    assert ("j1", "altered", FILTERED) in diary


@pytest.mark.parametrize(
    "raw",
    [
        b"data: " + answer(THEIRS)[:18] + b"\ndata: " + answer(THEIRS)[18:] + b"\nid: 7\n\n",
        b"id: 7\n: " + answer(THEIRS) + b"\ndata: " + answer(THEIRS) + b"\n\n",
    ],
)
def test_an_event_of_several_lines_loses_them_too(raw: bytes) -> None:
    """WHATWG HTML 9.2: readers join lines of data and see no comments."""
    [event] = Splitter(HELD_BYTES).feed(judged(a_list([]), raw))
    assert b"theirs" not in event.raw
    assert (event.id, json.loads(event.data or b"")) == (b"7", json.loads(answer()))


@pytest.mark.parametrize("call", [a_list, resumed])
@pytest.mark.parametrize("said", [answer(MINE), answer(), b'{"id":1,"error":{"code":-32601}}'])
def test_an_event_without_them_stays_as_it_is(call: Callable[[Diary], Call], said: bytes) -> None:
    """Promise 1: no alteration without need, and none that is not counted."""
    diary: Diary = []
    raw = b"data: " + said + b"\n\n"
    assert judged(call(diary), raw) == raw
    assert not [each for each in diary if each[1] == "altered"]


def test_what_is_in_a_list_and_no_task_is_nobodys() -> None:
    """Only what is known to be the caller's passes; elsewhere `tasks` may mean anything."""
    raw = b"data: " + answer(NOBODYS, "x", MINE) + b"\n\n"
    assert json.loads(judged(a_list([]), raw)[6:])["result"] == {"tasks": [MINE]}
    assert judged(resumed([]), raw) == raw
    mixed = b"data: " + answer(NOBODYS, THEIRS) + b"\n\n"
    assert json.loads(judged(resumed([]), mixed)[6:])["result"] == {"tasks": [NOBODYS]}


def test_a_result_of_another_method_may_name_what_it_likes() -> None:
    """A tool that lists tasks of its own is no list of ours."""
    raw = b"data: " + answer(THEIRS) + b"\n\n"
    assert judged(make_call(method="tools/call"), raw) == raw


@pytest.mark.parametrize(
    "raw",
    [
        b'data: {"id":1,"result":{"items":[]}}\n\n',
        b'data: {"id":1,"result":[]}\n\n',
        b'data: {"id":1,"result":"x"}\n\n',
        b"data: " + answer(MINE, padding=" " * HELD_BYTES) + b"\n\n",
    ],
)
def test_a_list_that_is_not_understood_goes_nowhere(raw: bytes) -> None:
    """Own promise: rather an outage than a leak. What nobody held whole is not understood either."""
    refused = no(lambda: judged(a_list([]), raw))
    assert refused.reason is Reason.UPSTREAM_NONSENSE


def test_a_large_answer_on_a_resumed_stream_passes_unless_it_may_be_a_list() -> None:
    """Nobody holds it whole, and whose request it answers is not known."""
    large = json.dumps({"id": 1, "result": {"content": "x" * HELD_BYTES}}).encode()
    raw = b"data: " + large + b"\n\n"
    assert judged(resumed([]), raw) == raw
    listed = b"data: " + answer(THEIRS, padding=" " * HELD_BYTES) + b"\n\n"
    assert no(lambda: judged(resumed([]), listed)).reason is Reason.UPSTREAM_NONSENSE
    call = make_call(method="tools/call")
    assert judged(call, listed) == listed


def test_one_event_of_several_messages_is_looked_at_whole() -> None:
    """2025-03-26: the second message must not make good for the first."""
    calls = [make_call(method="tasks/list", id=number) for number in (1, 2)]
    ear = listening_to(calls[0])
    judge = Judge(calls, ear=ear)
    data = b"[" + answer(THEIRS, NOBODYS) + b"," + answer(MINE).replace(b'"id": 1', b'"id": 2') + b"]"
    event = Event(raw=b"data: " + data + b"\n\n", data=data)
    judge.event(event)
    got = json.loads(ear.passed_on(data))
    assert [each["result"]["tasks"] for each in got] == [[], [MINE]]
    # And the next event is one of its own.
    other = answer(NOBODYS, THEIRS)
    assert ear.passed_on(other) is other


def test_an_event_without_data_is_not_looked_at() -> None:
    """protocol.md section 4: a priming event must pass, or resumption breaks."""
    assert judged(resumed([]), b"id: 7\n\n") == b"id: 7\n\n"


def test_a_task_created_on_a_message_endpoint_ends_with_it() -> None:
    """2024-11-05: the stream is the session."""
    owns = Ownership()
    call = make_call(revision=TWO_ENDPOINTS, kind=Kind.LISTEN, method="", id=None)
    ear = owns.listen(Permit(call=call, principal=ANN, rule=RULE), "key")
    ear.result("tools/call", {"task": {"taskId": "t"}})
    assert owns.owns_task(ANN.identity, "t")
    ear.ended(Ending.CLIENT_GONE)
    assert not owns.owns_task(ANN.identity, "t")
