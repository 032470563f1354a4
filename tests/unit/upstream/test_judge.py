"""Whose answer is it? Foreign ones never pass, ours are told to the journey they belong to, once."""

import asyncio
from collections.abc import Coroutine

import pytest

from proxy.model import Call, Ending, Kind, Reason, Refused, Verdict
from proxy.protocol.answers import Tail
from proxy.protocol.sse import Event
from proxy.upstream.judge import SLICE_BYTES, Foreign, Judge, Malformed, look
from tests.fakes import Diary, FakeEar, FakeJourney, make_call


def asked(diary: Diary, *ids: int | str) -> list[Call]:
    return [make_call(id=id, journey=FakeJourney(diary, f"j{id!r}")) for id in ids]


@pytest.mark.parametrize(
    "body",
    [
        b'{"id":2,"result":{}}',
        b'{"id":"1","result":{}}',
        b'{"id":1.0,"result":{}}',
        b'{"id":"","result":{}}',
        b'{"id":null,"error":{}}',
        b'{"error":{"code":-32700}}',
        b'{"result":{}}',
        b'[{"id":1,"result":{}},{"id":1,"result":{}}]',
        b'[{"id":1,"result":{}},{"id":2,"error":{}}]',
    ],
)
def test_an_answer_to_another_request_is_foreign(body: bytes) -> None:
    """design section 4: an answer that is not this request's ends the stream before it reaches the client."""
    with pytest.raises(Foreign):
        Judge(asked([], 1)).whole(body)
    with pytest.raises(Foreign):
        Judge(asked([], 1)).event(Event(raw=b"", data=body))


def test_nothing_is_an_answer_to_a_notification() -> None:
    """JSON-RPC 2.0 section 4.1."""
    note = make_call(id=None, kind=Kind.NOTIFICATION)
    answer = make_call(id=1, kind=Kind.ANSWER)
    with pytest.raises(Foreign):
        Judge([note, answer]).whole(b'{"id":1,"result":{}}')


@pytest.mark.parametrize("id", [0, 1, "", "1", 2**70])
def test_the_answer_is_told_to_the_journey_of_its_request(id: int | str) -> None:
    """protocol.md 3.1: 0 and "" are ids, and 1 is not "1"."""
    diary: Diary = []
    judge = Judge(asked(diary, id))
    text = f'"{id}"' if isinstance(id, str) else str(id)
    judge.whole(b'{"id":%s,"result":{"isError":true}}' % text.encode())
    assert diary == [(f"j{id!r}", "answered", Verdict.TOOL_ERROR)]
    assert judge.waiting == {}


def test_an_answer_comes_once() -> None:
    """protocol.md 3.4: a second one to the same id would reach a client that has forgotten the first."""
    judge = Judge(asked([], 1))
    judge.whole(b'{"id":1,"result":{}}')
    with pytest.raises(Foreign):
        judge.whole(b'{"id":1,"result":{}}')


def test_each_of_several_ends_with_its_own_answer() -> None:
    """design section 4: a batch is one exchange that holds several calls."""
    diary: Diary = []
    calls = asked(diary, 1, "1", 2)
    judge = Judge(calls)
    judge.whole(b'[{"id":"1","error":{}},{"id":1,"result":{}}]')
    assert diary == [
        ("j'1'", "answered", Verdict.RPC_ERROR),
        ("j'1'", "ended", Ending.COMPLETE),
        ("j1", "answered", Verdict.OK),
        ("j1", "ended", Ending.COMPLETE),
    ]
    assert judge.waiting == {(int, 2): calls[2]}


@pytest.mark.parametrize(
    "body",
    [
        b'{"id":1,"method":"sampling/createMessage"}',
        b'{"id":99,"method":"ping"}',
        b'{"method":"notifications/progress"}',
    ],
)
def test_requests_of_the_server_are_nobodys_answer(body: bytes) -> None:
    """protocol.md section 4: the server's ids are its own, and may equal ours."""
    diary: Diary = []
    judge = Judge(asked(diary, 1))
    assert [said.is_answer for said in judge.whole(body)] == [False]
    assert (diary, list(judge.waiting)) == ([], [(int, 1)])


def test_a_resumed_stream_may_answer_anybody() -> None:
    """protocol.md section 4: resume is always GET, also for answers to requests of other connections."""
    judge = Judge([make_call(id=None, kind=Kind.LISTEN)], any_answer=True)
    assert [said.id for said in judge.whole(b'[{"id":5,"result":1},{"id":null,"error":{}}]')] == [5, None]


@pytest.mark.parametrize("data", [None, b"", b" ", b"ping", b"1", b'"{}"', b"null", b"\xff{", b"x{}"])
def test_data_that_is_no_message_is_not_judged(data: bytes | None) -> None:
    """protocol.md section 4: a priming event has an id and no JSON; dropping it breaks resumption."""
    judge = Judge(asked([], 1))
    assert judge.event(Event(raw=b"", data=data, id=b"7")) == []
    assert judge.saw_event_id


@pytest.mark.parametrize(
    "data", [b"{", b"[", b" \t\r\n{}", b"{}", b"[1]", b'{"id":1,"id":1,"result":{}}', b"{}x"]
)
@pytest.mark.parametrize("name", ["", "message", "endpoint", "anything"])
def test_data_that_looks_like_a_message_must_be_one(data: bytes, name: str) -> None:
    """Own promise: whatever the event is called; a client might not look at its name."""
    with pytest.raises(Malformed):
        Judge(asked([], 1)).event(Event(raw=b"", name=name, data=data))


@pytest.mark.parametrize(("id", "seen"), [(None, False), (b"", False), (b"0", True)])
def test_a_client_can_come_back_only_with_an_id(id: bytes | None, seen: bool) -> None:
    """WHATWG HTML 9.2: an empty id resets what a client would come back with."""
    judge = Judge(asked([], 1))
    judge.event(Event(raw=b"", id=id))
    assert judge.saw_event_id is seen


def test_who_learns_hears_results_of_ours_only() -> None:
    """Own promise: errors, foreign answers and requests of the server teach nothing."""
    heard: list[tuple[Call, object]] = []
    calls = asked([], 1, 2)
    judge = Judge(calls, heard=lambda call, result: heard.append((call, result)))
    judge.whole(b'[{"id":2,"error":{}},{"method":"m"},{"id":1,"result":{"tools":[]}}]')
    with pytest.raises(Foreign):
        judge.whole(b'{"id":3,"result":{"tools":[]}}')
    assert heard == [(calls[0], {"tools": []})]


def test_an_ear_hears_what_the_server_asks_and_answers() -> None:
    """design section 4, identity: what upstream hands out is heard before it is released."""
    diary: Diary = []
    judge = Judge(asked([], 1), ear=FakeEar(diary))
    judge.event(Event(raw=b"", id=b"7", data=b'{"id":0,"method":"ping"}'))
    judge.event(Event(raw=b"", id=b"", data=b'{"method":"notifications/progress"}'))
    judge.event(Event(raw=b"", data=b'{"id":1.5,"method":"ping"}'))
    judge.event(Event(raw=b"", data=b'{"id":1,"result":{"a":1}}'))
    assert diary == [
        ("event id", b"7"),
        ("request", 0),
        ("notification", "notifications/progress", None),
        ("result", "tools/call", {"a": 1}),
    ]


def test_an_ear_hears_answers_to_requests_of_other_exchanges() -> None:
    """protocol.md section 4: resume is always GET; whose method it was is not known there."""
    diary: Diary = []
    judge = Judge([make_call(id=None, kind=Kind.LISTEN)], any_answer=True, ear=FakeEar(diary))
    judge.whole(b'[{"id":5,"result":{}},{"id":null,"error":{}}]')
    assert diary == [("result", None, {})]


def test_an_ear_hears_no_foreign_answer() -> None:
    """Own promise: what is not released teaches nothing."""
    diary: Diary = []
    with pytest.raises(Foreign):
        Judge(asked([], 1), ear=FakeEar(diary)).whole(b'{"id":2,"result":{}}')
    assert diary == []


def test_whom_an_ear_refuses_an_answer_waits_on() -> None:
    """Own promise: whoever waits is told why in vain, so the refused answer is none."""
    diary: Diary = []
    refused = Refused(Reason.UPSTREAM_NONSENSE)
    judge = Judge(asked(diary, 1), ear=FakeEar([], error=refused))
    with pytest.raises(Refused):
        judge.whole(b'{"id":1,"result":{}}')
    assert (diary, list(judge.waiting)) == ([], [(int, 1)])


@pytest.mark.parametrize("size", [10, 300_000])
async def test_an_ear_says_what_the_client_gets_of_an_event(size: int) -> None:
    """design section 2: every alteration is deliberate; without one the bytes are the server's own."""
    data = b'{"id":1,"result":[' + b" " * size + b"]}"
    event = Event(raw=b"data: " + data + b"\n\n", data=data, id=b"7")
    assert await Judge(asked([], 1)).event_in_turns(event) is event.raw
    diary: Diary = []
    ear = FakeEar(diary, changes={data: b"less"})
    assert await Judge(asked([], 1), ear=ear).event_in_turns(event) == b"data: less\n\n"
    assert await Judge(asked([], 1), ear=FakeEar([])).event_in_turns(event) is event.raw
    assert diary[0] == ("event id", b"7")
    assert diary[1][:2] == ("result", "tools/call")


async def test_whoever_waits_for_an_event_that_goes_nowhere_still_waits() -> None:
    """Own promise: whoever waits is told why in vain; the event was not released."""
    data = b'{"id":1,"result":{}}'
    ear = FakeEar([], refuses=frozenset({data}))
    judge = Judge(asked([], 1, 2), ear=ear)
    await judge.event_in_turns(Event(raw=b"", data=b'{"id":2,"result":{}}'))
    with pytest.raises(Refused):
        await judge.event_in_turns(Event(raw=b"", data=data))
    assert list(judge.waiting) == [(int, 1)]


LARGE = b'{"id":1,"result":[' + b"[]," * 200_000 + b"1]}"


async def turns_during(work: Coroutine[object, object, object]) -> int:
    """How often another task had its turn until `work` was done."""
    task = asyncio.ensure_future(work)
    turns = 0
    while not task.done():
        turns += 1
        await asyncio.sleep(0)
    await task
    return turns


async def test_others_have_their_turns_while_a_large_answer_is_read() -> None:
    """design section 8: the loop never waits 100 ms; 16 MiB in one go cost it ten seconds."""
    judge = Judge(asked([], 1))
    assert await turns_during(judge.event_in_turns(Event(raw=b"", data=LARGE))) >= len(LARGE) // SLICE_BYTES
    assert judge.waiting == {}
    assert await turns_during(look(Tail(), LARGE)) >= len(LARGE) // SLICE_BYTES


async def test_a_large_event_is_judged_as_a_small_one() -> None:
    """design section 4: an answer that is not this request's never reaches the client."""
    with pytest.raises(Foreign):
        await Judge(asked([], 2)).event_in_turns(Event(raw=b"", data=LARGE))
    with pytest.raises(Malformed):
        await Judge(asked([], 1)).event_in_turns(Event(raw=b"", data=LARGE[:-1]))
    judge = Judge(asked([], 1))
    await judge.event_in_turns(Event(raw=b"", data=b" " * 300_000 + b"ping", id=b"7"))
    assert (judge.saw_event_id, len(judge.waiting)) == (True, 1)
