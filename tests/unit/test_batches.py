"""A batch of which some messages were refused: what goes on, and how both answers become one."""

import json
from collections.abc import AsyncIterator

import pytest

from proxy.batches import merge, without
from proxy.model import Call, Ending, Headers, Kind, Reason, Refused, Reply, Stream
from tests.fakes import make_batch, make_call

NO = Refused(Reason.MODE, "Why.")
REFUSED = make_call(id=9, method="ping")
REFUSED_NOTE = make_call(id=None, kind=Kind.NOTIFICATION, method="notifications/x")
REFUSED_TOOL = make_call(id="9")
JSON = (b"Content-Type", b"application/json")
Pairs = list[tuple[Call, Refused]]


def shown(reply: Reply) -> tuple[int, object]:
    assert isinstance(reply.body, bytes)
    assert reply.headers.get("content-type") == "application/json"
    assert reply.headers.all("content-length") == [str(len(reply.body))]
    return reply.status, [(each["id"], "result" in each) for each in json.loads(reply.body)]


async def written(reply: Reply) -> bytes:
    async with reply:
        assert isinstance(reply.body, Stream)
        return b"".join([chunk async for chunk in reply.body])


def streamed(*chunks: bytes, kind: bytes = b"text/event-stream", closings: list[str] | None = None) -> Reply:
    async def source() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    fields = [(b"Content-Type", kind), (b"Content-Length", b"99"), (b"Mcp-Session-Id", b"s")]
    return Reply(200, Headers(fields), Stream(source(), lambda: (closings or []).append("closed")))


def test_what_is_left_of_a_batch_keeps_its_bytes() -> None:
    """protocol.md 3.4 and 3.6: forward the rest as a batch, byte for byte."""
    first, second, third = (make_call(id=n, body=b'{"n": %d.0}' % n) for n in (1, 2, 3))
    batch = make_batch(first, second, third, body=b"[...]")
    left = without(batch, [first, third])
    assert (left.body, left.parts) == (b'[{"n": 1.0},{"n": 3.0}]', (first, third))
    assert (left.kind, left.journey, left.headers) == (Kind.BATCH, batch.journey, batch.headers)
    assert (batch.body, batch.parts) == (b"[...]", (first, second, third))


@pytest.mark.parametrize(
    ("refusals", "answers"),
    [
        ([(REFUSED, NO)], [(9, False)]),
        ([(REFUSED_TOOL, NO), (REFUSED, NO)], [("9", True), (9, False)]),
        ([(REFUSED_NOTE, NO), (REFUSED, NO)], [(9, False)]),
    ],
)
def test_a_batch_of_which_nothing_was_sent_is_answered_by_us(refusals: Pairs, answers: object) -> None:
    """protocol.md 3.4: denied elements are answered by ourselves, in an array."""
    assert shown(merge(None, refusals, form="result")) == (200, answers)


def test_a_batch_of_refused_notifications_is_taken_and_dropped() -> None:
    """design section 5: 202, never a 4xx for policy."""
    reply = merge(None, [(REFUSED_NOTE, NO)], form="result")
    assert (reply.status, reply.headers, reply.body) == (202, Headers(), b"")


def test_the_form_of_the_settings_holds_inside_a_batch() -> None:
    """design section 5: `refusals: http` gives errors, also where one status cannot say it."""
    assert shown(merge(None, [(REFUSED_TOOL, NO)], form="http")) == (200, [("9", False)])


@pytest.mark.parametrize(
    ("status", "body", "answers"),
    [
        (200, b'[{"id":1,"result":1.0}]', [(1, True), (9, False)]),
        (200, b' [ {"id":1,"result":[","]} , {"id":2,"error":{}} ] ', [(1, True), (2, False), (9, False)]),
        (200, b'{"id":1,"result":{}}', [(1, True), (9, False)]),
        (200, b"[]", [(9, False)]),
        (202, b"", [(9, False)]),
    ],
)
def test_our_words_are_put_behind_the_servers(status: int, body: bytes, answers: object) -> None:
    """protocol.md 3.4: one array, the server's elements as they are."""
    reply = merge(Reply(status, Headers([JSON]), body), [(REFUSED, NO)], form="result")
    assert shown(reply) == (200, answers)
    assert b"1.0" not in body or b"1.0" in bytes(reply.body)  # type: ignore[arg-type]  # shown() says it is bytes


@pytest.mark.parametrize("status", [400, 404, 500])
def test_an_http_error_of_the_server_answers_everybody(status: int) -> None:
    """protocol.md 1.1: its status is for the whole request; nothing of ours could be read beside it."""
    theirs = Reply(status, Headers([JSON]), b"{}")
    assert merge(theirs, [(REFUSED, NO)], form="result") is theirs


def test_a_refused_notification_changes_nothing_of_the_answer() -> None:
    """JSON-RPC 2.0 section 4.1: nobody waits for a word on it."""
    theirs = Reply(200, Headers([JSON]), b"[]")
    assert merge(theirs, [(REFUSED_NOTE, NO)], form="result") is theirs


def test_whoever_waits_for_the_end_of_the_servers_answer_hears_of_it() -> None:
    """Style guide 4: the leases of the messages that were sent hang on that reply."""
    told: list[Ending] = []
    theirs = Reply(200, Headers([JSON]), b'{"id":1,"result":{}}')
    theirs.when_done(told.append)
    merge(theirs, [(REFUSED, NO)], form="result").done(Ending.CLIENT_GONE)
    assert told == [Ending.CLIENT_GONE]


async def test_our_words_come_first_in_a_stream() -> None:
    """protocol.md section 4: events of ours are whole events, and the server's stay as they are."""
    closings = ["never"]
    theirs = streamed(b"data: {", b"}\n\n", closings=closings)
    told: list[Ending] = []
    theirs.when_done(told.append)
    reply = merge(theirs, [(REFUSED, NO), (REFUSED_NOTE, NO), (REFUSED_TOOL, NO)], form="result")
    body = await written(reply)
    *ours, rest = body.split(b"\n\n", 2)
    assert [json.loads(event.removeprefix(b"event: message\ndata: "))["id"] for event in ours] == [9, "9"]
    assert rest == b"data: {}\n\n"
    assert reply.headers.pairs == ((b"Content-Type", b"text/event-stream"), (b"Mcp-Session-Id", b"s"))
    assert (told, closings) == ([Ending.COMPLETE], ["never", "closed"])


def test_a_merged_stream_that_never_begins_is_closed() -> None:
    """Style guide 4: clients leave before the first byte."""
    closings = ["never"]
    merge(streamed(closings=closings), [(REFUSED, NO)], form="result").done(Ending.CLIENT_GONE)
    assert closings == ["never", "closed"]


@pytest.mark.parametrize(
    ("chunks", "answers"),
    [
        ([b'[{"id":1,"result":{}', b"}]"], [(9, False), (1, True)]),
        (
            [b" \n[", b'{"id":1,"result":{}},{"id":2,"error":{}}', b"] \n"],
            [(9, False), (1, True), (2, False)],
        ),
        ([b'{"id":1,"result":[', b"]}\n"], [(9, False), (1, True)]),
        pytest.param([b" \n", b'[{"id":1,"result":{}}]'], [(9, False), (1, True)]),
        pytest.param([b"", b'[{"id":1,"result":{}}]'], [(9, False), (1, True)]),
        pytest.param([b"[ ", b" ]"], [(9, False)]),
    ],
)
async def test_our_words_come_first_in_a_body_too_large_to_hold(chunks: list[bytes], answers: object) -> None:
    """protocol.md 3.3: a request without an answer waits until its timeout; both answers are one array."""
    reply = merge(streamed(*chunks, kind=b"application/json"), [(REFUSED, NO)], form="result")
    assert reply.headers.pairs == ((b"Content-Type", b"application/json"), (b"Mcp-Session-Id", b"s"))
    told = json.loads(await written(reply))
    assert [(each["id"], "result" in each) for each in told] == answers


@pytest.mark.parametrize("status", [200, 204])
def test_no_refusal_is_lost_when_the_server_has_nothing_to_say(status: int) -> None:
    """protocol.md 1.1: to notifications servers answer 202, or what they hold for the same (trap 15)."""
    assert shown(merge(Reply(status, Headers(), b""), [(REFUSED, NO)], form="result")) == (200, [(9, False)])


def test_a_merged_answer_keeps_the_servers_fields() -> None:
    """design section 1: every header; trap 8: a lost Mcp-Session-Id fails the next call."""
    theirs = Reply(200, Headers([JSON, (b"Mcp-Session-Id", b"s")]), b'{"id":1,"result":{}}')
    assert merge(theirs, [(REFUSED, NO)], form="result").headers.get("mcp-session-id") == "s"
