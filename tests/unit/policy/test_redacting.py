"""Redaction on the way of an answer: whole bodies, bodies in pieces, events, batches, and streams for several calls."""

import json
from collections.abc import AsyncIterator, Callable

import pytest

from proxy.model import (
    Broken,
    Call,
    Ear,
    Ending,
    Headers,
    Kind,
    Permit,
    Principal,
    Reason,
    Refused,
    Reply,
    Revision,
    Stream,
)
from proxy.policy.redacting import MAX_UNANSWERED, REDACTED, Redactions
from proxy.policy.redaction import MAX_SEARCHED_BYTES, UNSEARCHED, Action, Redaction, RedactRule
from proxy.protocol.revisions import NEWEST, TWO_ENDPOINTS, UNNAMED
from tests.fakes import (
    PRINCIPAL,
    RULE,
    Diary,
    FakeJourney,
    FakeStage,
    make_batch,
    make_call,
    make_headers,
    no,
)

SECRET = b"ghp_" + b"a1B2" * 9
MASK = b"[redacted: github_token]"
JSON = make_headers(content_type="application/json", content_length="7", x_kept="1")
EVENTS = make_headers(content_type="text/event-stream")
Told = list[tuple[str, Action, int]]


def redaction(action: Action) -> Redaction:
    return Redaction((RedactRule(pattern="github_token", action=action),), lambda *_: None)


RULES: dict[str | None, Redaction] = {
    "mask": redaction("mask"),
    "block": redaction("block"),
    "log": redaction("log"),
}


def find(call: Call, principal: Principal) -> Redaction | None:
    """Tools are called like what is done with their answers."""
    return RULES.get(call.target)


def make(told: Told | None = None) -> Redactions:
    heard: Told = [] if told is None else told
    every = Redaction.joined(RULES.values(), lambda *_: None)
    return Redactions(find, every, lambda *each: heard.append(each), form="result")


def permit(call: Call) -> Permit:
    return Permit(call=call, principal=PRINCIPAL, rule=RULE)


def answer(id: object = 1, text: bytes = SECRET) -> bytes:
    return b'{"jsonrpc":"2.0","id":%b,"result":{"content":[{"type":"text","text":"%b"}]}}' % (
        json.dumps(id).encode(),
        text,
    )


async def served(call: Call, reply: Reply | BaseException, told: Told | None = None) -> Reply:
    return await make(told).guarded(FakeStage([], reply))(permit(call))


def ear_of(call: Call, redactions: Redactions | None = None, key: str | None = None) -> Ear:
    ear = (redactions or make()).listen(permit(call), key)
    assert ear is not None
    return ear


def reason_of(message: bytes) -> object:
    return json.loads(message)["result"]["_meta"]["dev.mcp-sidecar/refusal"]["reason"]


async def test_a_body_is_masked_and_its_announced_length_goes() -> None:
    diary: Diary = []
    reply = await served(make_call(target="mask", journey=FakeJourney(diary)), Reply(200, JSON, answer()))
    assert reply.body == answer(text=MASK)
    assert reply.headers.pairs == ((b"content-type", b"application/json"), (b"x-kept", b"1"))
    assert diary == [("j1", "altered", REDACTED)]


@pytest.mark.parametrize(
    ("tool", "text"), [("mask", b"clean"), ("other", SECRET), ("log", SECRET), (None, SECRET)]
)
async def test_what_needs_no_change_is_the_servers_own(tool: str | None, text: bytes) -> None:
    """design section 2: the very same bytes, and nothing is counted as altered."""
    diary: Diary = []
    body = answer(text=text)
    reply = await served(make_call(target=tool, journey=FakeJourney(diary)), Reply(200, JSON, body))
    assert reply.body is body
    assert (reply.headers, diary) == (JSON, [])


@pytest.mark.parametrize("status", [200, 500])
async def test_a_blocked_answer_is_refused_and_its_reply_closed(status: int) -> None:
    endings: list[Ending] = []
    reply = Reply(status, JSON, answer())
    reply.when_done(endings.append)
    with pytest.raises(Refused) as caught:
        await served(make_call(target="block"), reply)
    assert caught.value.reason is Reason.NOT_ALLOWED
    assert "ghp" not in caught.value.why
    assert len(endings) == 1


async def test_the_page_of_an_error_is_searched_too() -> None:
    page = b"<p>%b</p>" % SECRET
    reply = await served(make_call(target="mask"), Reply(502, make_headers(content_type="text/html"), page))
    assert reply.body == b"<p>%b</p>" % MASK


async def test_the_result_of_a_task_is_held_to_every_redaction() -> None:
    """The tool that made it is not named there."""
    with pytest.raises(Refused) as caught:
        await served(make_call(method="tasks/result", target="t"), Reply(200, JSON, answer()))
    assert caught.value.reason is Reason.NOT_ALLOWED


# Bodies that would pass piece by piece.


def pieces(*chunks: bytes, error: Exception | None = None) -> tuple[Stream, list[str]]:
    closed: list[str] = []

    async def arriving() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk
        if error is not None:
            raise error

    return Stream(arriving(), lambda: closed.append("closed")), closed


async def test_a_body_in_pieces_is_held_and_masked_across_them() -> None:
    whole = answer()
    stream, closed = pieces(whole[:80], whole[80:])
    reply = await served(make_call(target="mask"), Reply(200, JSON, stream))
    assert (reply.body, closed) == (answer(text=MASK), ["closed"])
    assert "content-length" not in reply.headers


async def test_a_body_in_pieces_without_a_redaction_passes_as_it_comes() -> None:
    stream, closed = pieces(answer())
    reply = await served(make_call(target="other"), Reply(200, JSON, stream))
    assert (reply.body, closed) == (stream, [])


async def test_a_body_too_long_to_be_searched_is_withheld() -> None:
    told: Told = []
    stream, closed = pieces(*[b"x" * 1_048_576] * (MAX_SEARCHED_BYTES // 1_048_576), b"x", b"never read")
    with pytest.raises(Refused) as caught:
        await served(make_call(target="mask"), Reply(200, JSON, stream), told)
    assert caught.value.reason is Reason.NOT_ALLOWED
    assert (closed, told) == (["closed"], [(UNSEARCHED, "block", 1)])


async def test_a_body_too_long_to_be_counted_passes_whole() -> None:
    told: Told = []
    chunks = [bytes([0x61 + place]) * 1_048_576 for place in range(MAX_SEARCHED_BYTES // 1_048_576 + 2)]
    stream, closed = pieces(*chunks)
    reply = await served(make_call(target="log"), Reply(200, JSON, stream), told)
    assert isinstance(reply.body, Stream)
    assert b"".join([chunk async for chunk in reply.body]) == b"".join(chunks)
    assert (closed, told) == ([], [(UNSEARCHED, "log", 1)])
    reply.done(Ending.COMPLETE)
    assert closed == ["closed"]


@pytest.mark.parametrize(
    ("method", "target", "reason"),
    [("tools/call", "mask", Reason.OUTCOME_UNKNOWN), ("tasks/result", "t", Reason.UPSTREAM_BROKE)],
)
async def test_a_body_that_breaks_off_while_it_is_held_is_a_refusal(
    method: str, target: str, reason: Reason
) -> None:
    """Nothing of it has left, so the caller can still be told."""
    stream, closed = pieces(b"{", error=Broken(told=False))
    with pytest.raises(Refused) as caught:
        await served(make_call(method=method, target=target), Reply(200, JSON, stream))
    assert (caught.value.reason, closed) == (reason, ["closed"])


async def test_streams_of_events_are_the_ears() -> None:
    stream, _ = pieces(b"data: %b\n\n" % answer())
    reply = await served(make_call(target="mask"), Reply(200, EVENTS, stream))
    assert reply.body is stream


# Batches.


async def test_each_answer_of_a_batch_is_held_to_its_own_rule() -> None:
    diaries: list[Diary] = [[], [], []]
    tools = ("mask", "block", "other")
    parts = [
        make_call(id=place + 1, target=tool, journey=FakeJourney(diaries[place]))
        for place, tool in enumerate(tools)
    ]
    body = b"[ %b , %b,%b]" % (answer(3), answer(2), answer(1))
    reply = await served(make_batch(*parts), Reply(200, JSON, body))
    assert isinstance(reply.body, bytes)
    third, second, first = json.loads(reply.body)
    assert json.dumps(third).encode().count(SECRET) == 1
    assert reason_of(json.dumps(second).encode()) == "not_allowed"
    assert second["id"] == 2
    assert json.dumps(first).encode().count(MASK) == 1
    assert diaries == [[("j1", "altered", REDACTED)], [("j1", "refused", Reason.NOT_ALLOWED)], []]


async def test_a_clean_batch_is_the_servers_own() -> None:
    body = b"[ %b , %b]" % (answer(2, b"a"), answer(1, b"b"))
    parts = [make_call(id=1, target="mask"), make_call(id=2, target="block")]
    assert (await served(make_batch(*parts), Reply(200, JSON, body))).body is body


async def test_an_error_that_answers_a_whole_batch_is_held_to_every_redaction() -> None:
    parts = [make_call(id=1, target="mask"), make_call(id=2, target="other")]
    body = b'{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":"%b"}}' % SECRET
    with pytest.raises(Refused):
        await served(make_batch(*parts), Reply(400, JSON, body))


# Events.

PROGRESS = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"message":"%b"}}'
QUESTION = b'{"jsonrpc":"2.0","id":9,"method":"elicitation/create","params":{"message":"%b"}}'


@pytest.mark.parametrize("data", [answer(), PROGRESS % SECRET, QUESTION % SECRET, b"words " + SECRET])
def test_every_message_of_an_exchange_is_masked(data: bytes) -> None:
    diary: Diary = []
    ear = ear_of(make_call(target="mask", journey=FakeJourney(diary)))
    assert ear.passed_on(data) == data.replace(SECRET, MASK)
    assert diary == [("j1", "altered", REDACTED)]


@pytest.mark.parametrize("data", [answer(text=b"clean"), PROGRESS % b"clean", b"", b"ping"])
def test_clean_events_are_the_servers_own(data: bytes) -> None:
    assert ear_of(make_call(target="block")).passed_on(data) is data


def test_an_exchange_without_a_redaction_has_no_ear() -> None:
    """What is off costs nothing."""
    assert make().listen(permit(make_call(target="other")), None) is None


@pytest.mark.parametrize("revision", [UNNAMED, NEWEST])
def test_a_blocked_answer_becomes_a_refusal_in_its_place(revision: Revision) -> None:
    """The stream goes on: clients of resumable streams would come back for a refused event for ever."""
    diary: Diary = []
    ear = ear_of(make_call(id="a", target="block", revision=revision, journey=FakeJourney(diary)))
    said = json.loads(ear.passed_on(answer("a")))
    assert said["id"] == "a"
    assert said["result"]["isError"] is True
    assert said["result"].get("resultType") == ("complete" if revision.has_result_type else None)
    assert diary == [("j1", "refused", Reason.NOT_ALLOWED)]


@pytest.mark.parametrize("data", [PROGRESS, QUESTION])
def test_what_is_no_answer_is_masked_where_an_answer_would_be_blocked(data: bytes) -> None:
    """The server waits for an answer to its question; nobody misses a notification."""
    assert ear_of(make_call(target="block")).passed_on(data % SECRET) == data % MASK


def test_an_event_too_long_to_be_searched_ends_the_exchange() -> None:
    ear = ear_of(make_call(target="mask"))
    long = PROGRESS % (b"x" * MAX_SEARCHED_BYTES)
    assert no(lambda: ear.passed_on(long)).reason is Reason.NOT_ALLOWED


def test_answers_in_one_event_are_told_apart() -> None:
    call = make_batch(make_call(id=1, target="mask"), make_call(id=2, target="other"))
    data = b"[%b,%b]" % (answer(1), answer(2))
    assert ear_of(call).passed_on(data) == b"[%b,%b]" % (answer(1, MASK), answer(2))


def test_notifications_of_a_batch_are_held_to_every_redaction() -> None:
    call = make_batch(make_call(id=1, target="log"), make_call(id=2, target="other"))
    assert ear_of(call).passed_on(PROGRESS % SECRET) == PROGRESS % MASK


def test_a_stream_somebody_came_back_to_is_held_to_every_redaction() -> None:
    """It carries answers to calls of other connections; `every` is the strictest of all."""
    ear = ear_of(make_call(method="", id=None, kind=Kind.LISTEN, last_event_id="e1"), key="session")
    assert ear.passed_on(PROGRESS % SECRET) == PROGRESS % MASK
    assert json.loads(ear.passed_on(answer(7))).keys() >= {"id", "error"}
    assert json.loads(ear.passed_on(answer(7)))["id"] == 7


# HTTP+SSE: answers arrive on the stream of the session.


def listening(redactions: Redactions, key: str = "s=1") -> Ear:
    return ear_of(make_call(method="", id=None, kind=Kind.LISTEN, revision=TWO_ENDPOINTS), redactions, key)


def asks(id: int, tool: str, key: str = "s=1") -> Permit:
    return permit(
        make_call(id=id, target=tool, revision=TWO_ENDPOINTS, query=key, body=b"x", params={"a": 1})
    )


async def post(redactions: Redactions, permit: Permit, reply: Reply | BaseException | None = None) -> Reply:
    return await redactions.guarded(FakeStage([], reply or Reply(202, Headers(), b"Accepted")))(permit)


async def test_answers_on_the_stream_of_a_session_are_held_to_the_rules_of_their_calls() -> None:
    redactions = make()
    ear = listening(redactions)
    for id, tool in enumerate(("mask", "other", "log", "block")):
        await post(redactions, asks(id, tool))
    assert ear.passed_on(answer(1)) == answer(1)
    assert ear.passed_on(answer(0)) == answer(0, MASK)
    assert ear.passed_on(answer(2)) == answer(2)
    said = ear.passed_on(answer(3))
    assert (json.loads(said)["id"], reason_of(said)) == (3, "not_allowed")


async def test_what_belongs_to_no_call_of_the_session_is_held_to_every_redaction() -> None:
    redactions = make()
    ear = listening(redactions)
    await post(redactions, asks(1, "other"))
    assert ear.passed_on(PROGRESS % SECRET) == PROGRESS % MASK
    assert ear.passed_on(answer(1)) == answer(1)
    assert "error" in json.loads(ear.passed_on(answer(1)))  # it has been answered


async def test_a_call_that_never_arrived_is_not_awaited() -> None:
    redactions = make()
    ear = listening(redactions)
    with pytest.raises(Refused):
        await post(redactions, asks(1, "other"), Refused(Reason.UPSTREAM_UNREACHABLE))
    assert "error" in json.loads(ear.passed_on(answer(1)))


async def test_a_call_whose_fate_is_unknown_may_still_be_answered() -> None:
    redactions = make()
    ear = listening(redactions)
    with pytest.raises(Refused):
        await post(redactions, asks(1, "other"), Refused(Reason.OUTCOME_UNKNOWN))
    assert ear.passed_on(answer(1)) == answer(1)


async def test_a_second_call_of_the_same_id_does_not_change_the_rule_of_the_first() -> None:
    redactions = make()
    ear = listening(redactions)
    await post(redactions, asks(1, "mask"))
    with pytest.raises(Refused):
        await post(redactions, asks(1, "other"), Refused(Reason.MALFORMED))
    assert ear.passed_on(answer(1)) == answer(1, MASK)


async def test_sessions_are_told_apart_and_forgotten_when_they_end() -> None:
    redactions = make()
    one, other = listening(redactions, "s=1"), listening(redactions, "s=2")
    await post(redactions, asks(1, "other", "s=1"))
    assert "error" in json.loads(other.passed_on(answer(1)))
    one.ended(Ending.COMPLETE)
    await post(redactions, asks(2, "other", "s=1"))
    assert "error" in json.loads(one.passed_on(answer(2)))


async def test_a_session_remembers_no_more_than_it_may() -> None:
    redactions = make()
    ear = listening(redactions)
    for id in range(MAX_UNANSWERED + 1):
        await post(redactions, asks(id, "other"))
    assert "error" in json.loads(ear.passed_on(answer(0)))
    assert ear.passed_on(answer(1)) == answer(1)


@pytest.mark.parametrize(
    "say",
    [
        lambda ear: ear.event_id(b"1"),
        lambda ear: ear.request(1, "ping", {}),
        lambda ear: ear.notification("x", {}),
        lambda ear: ear.result("x", {}),
    ],
)
def test_it_hears_the_rest_without_a_word(say: Callable[[Ear], None]) -> None:
    ear = ear_of(make_call(target="block"))
    say(ear)
    assert "isError" in json.loads(ear.passed_on(answer()))["result"]
