"""Whose progress may pass on the stream of a POST. Source: promise 3; UP-088; basic/utilities/progress."""

import asyncio
import json

import pytest

from proxy.model import Call, Kind, Reason, Refused
from proxy.protocol.answers import HELD_BYTES, Said
from proxy.protocol.sse import Event, Splitter
from proxy.upstream.judge import Judge
from proxy.upstream.progress import DROPPED, PROGRESS, is_foreign, tokens_of
from tests.fakes import Diary, FakeEar, FakeJourney, make_batch, make_call

ANSWER = b'{"jsonrpc":"2.0","id":1,"result":{}}'


def asking(token: object, *, method: str = "tools/call", id: int = 1) -> Call:
    return make_call(method=method, id=id, params={"_meta": {"progressToken": token}})


def tells(token: object) -> Said:
    return Said(id=None, is_answer=False, method=PROGRESS, params={"progressToken": token, "progress": 1})


def progress(token: object, text: str = "") -> bytes:
    params = {"progressToken": token, "progress": 1, "message": text}
    return json.dumps({"jsonrpc": "2.0", "method": PROGRESS, "params": params}).encode()


def passes(call: Call, said: Said) -> bool:
    tokens = tokens_of(call)
    return tokens is None or not is_foreign(said, tokens)


@pytest.mark.parametrize("token", ["p", "", "1", 0, 1, 2**70, -1, 0.5, "é"])
def test_what_a_request_asked_to_be_told_passes(token: object) -> None:
    """0 and "" are tokens."""
    assert passes(asking(token), tells(token))


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        *(("p-alice", "p-bob"), ("p", "P"), ("p", "p "), (1, 2), ("1", 1), (1, "1"), (1, True), (0, False)),
        *(("True", True), (True, True), (True, 1), (None, None), ([], []), ("p", None), ("p", ["p"])),
    ],
)
def test_what_it_did_not_is_anothers(sent: object, told: object) -> None:
    """Compared with their types: 1 and "1" are two tokens; what is neither text nor number is none."""
    assert not passes(asking(sent), tells(told))


@pytest.mark.parametrize(("sent", "told"), [(1, 1.0), (1.0, 1), (2.0, 2.0)])
def test_a_whole_number_is_one_however_it_is_written(sent: object, told: object) -> None:
    """Servers in JavaScript write 1.0 back as 1."""
    assert passes(asking(sent), tells(told))


@pytest.mark.parametrize("params", [None, [], "p", {}, {"_meta": None}, {"_meta": []}, {"_meta": {}}])
def test_a_request_without_a_token_has_none(params: object) -> None:
    """UP-088: whatever else stands where the token would."""
    call = make_call(params=params if isinstance(params, dict) else {})
    assert tokens_of(call) == frozenset()
    assert not passes(call, tells("p-bob"))
    assert not passes(asking("p"), Said(id=None, is_answer=False, method=PROGRESS, params=params))


def test_an_id_does_not_make_progress_pass() -> None:
    """Some clients look at the method first."""
    said = Said(id=7, is_answer=False, method=PROGRESS, params={"progressToken": "p-bob"})
    assert not passes(asking("p"), said)


@pytest.mark.parametrize("method", ["notifications/message", "notifications/Progress", "ping", ""])
def test_nothing_else_is_compared(method: str) -> None:
    """What has no token of a request is not looked at."""
    said = Said(id=None, is_answer=False, method=method, params={"progressToken": "p-bob"})
    assert passes(asking("p"), said)


@pytest.mark.parametrize(
    "call",
    [
        make_call(method="", id=None, kind=Kind.LISTEN),
        make_call(method="", id=None, kind=Kind.LISTEN, last_event_id="7"),
        make_call(method="subscriptions/listen"),
        *(make_call(method=f"tasks/{each}") for each in ("get", "result", "cancel", "update")),
        make_batch(asking("p"), make_call(method="tasks/result", id=2)),
    ],
)
def test_where_tokens_of_others_are_in_their_place_any_passes(call: Call) -> None:
    """A GET stream, a resumed one, one that listens, and a task that goes on with the token of its first request."""
    assert passes(call, tells("p-bob"))


def test_the_parts_of_a_batch_share_its_stream() -> None:
    """2025-03-26: any token that one of them sent is of this exchange."""
    batch = make_batch(asking("a"), make_call(id=2), asking(3, id=3))
    assert [passes(batch, tells(each)) for each in ("a", 3, "3", "b")] == [True, True, False, False]


def judge_of(*calls: Call, ear: FakeEar | None = None) -> Judge:
    return Judge(calls, tokens=tokens_of(calls[0]), ear=ear)


def released(stream: bytes, cuts: list[int], *calls: Call) -> bytes:
    """What the client gets of a stream that arrives in these pieces."""

    async def read() -> bytes:
        judge, splitter = judge_of(*calls), Splitter(1 << 20)
        passed = [
            await judge.event_in_turns(event)
            for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
            for event in splitter.feed(stream[begin:end])
        ]
        rest = splitter.rest()
        return b"".join(passed) + (b"" if rest is None else await judge.event_in_turns(rest))

    return asyncio.run(read())


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_the_event_is_taken_out_wherever_it_is_cut(end: bytes) -> None:
    """UP-088: the rest is byte for byte the server's, its comments and ids too."""
    own = [b": hi" + end, b"id: 1" + end + b"data: " + progress("p") + end * 2]
    last = [b"event: message" + end + b"data: " + ANSWER + end * 2, b": bye" + end]
    foreign = (
        b"id: 2" + end + b": with a comment" + end + b"event: x" + end + b"data: " + progress("q") + end * 2
    )
    stream = b"".join([*own, foreign, *last])
    for cut in range(len(stream) + 1):
        got = released(stream, [cut], asking("p"))
        # An LF that comes after the CR that ended its event stands by itself, and says nothing.
        assert got.replace(b"\n", b"") == b"".join(own + last).replace(b"\n", b""), cut
        if end == b"\n":
            assert got == b"".join(own + last), cut


def test_many_messages_of_one_event_lose_those_of_others() -> None:
    """2025-03-26: an array; what is left of it keeps its bytes."""
    own = progress("p")
    several = b"[ " + progress("q") + b" ,%b, %b,%b]" % (own, ANSWER, progress("r"))
    stream = b"id: 1\ndata: " + several + b"\n\n"
    assert released(stream, [], asking("p")) == b"id: 1\ndata: [" + own + b"," + ANSWER + b"]\n\n"
    everything = b"data: [" + progress("q") + b"," + progress("r") + b"]\n\n"
    assert released(b": hi\n\n" + everything, [], asking("p")) == b": hi\n\n"


def test_nothing_becomes_the_start_of_a_stream_that_was_not() -> None:
    """WHATWG HTML 9.2: a mark of order counts at the very start only. Behind an event that is taken away it would turn
    what was no data into some that nobody has judged."""
    hidden = b'\xef\xbb\xbfdata: {"id":2,"result":{}}\n\n'
    got = released(b"data: " + progress("q") + b"\n\n" + hidden, [], asking("p"))
    assert [event.data for event in Splitter(1 << 20).feed(got)] == [None, None]
    assert got == b"\n" + hidden


async def test_what_is_taken_out_teaches_nobody() -> None:
    """Nobody comes back to an event that was not shown, and no room hears of it."""
    diary: Diary = []
    judge = judge_of(asking("p"), ear=FakeEar(diary))
    assert await judge.event_in_turns(Event(raw=b"x", data=progress("q"), id=b"7")) == b"\n"
    assert (diary, judge.saw_event_id, len(judge.waiting)) == ([], False, 1)
    await judge.event_in_turns(Event(raw=b"x", data=progress("p"), id=b"8"))
    assert [words[0] for words in diary] == ["event id", "notification"]


async def test_it_is_told_once_to_every_message_of_the_exchange() -> None:
    """Promise 1: every alteration is countable; and a server cannot fill the record."""
    diary: Diary = []
    parts = [make_call(id=id, journey=FakeJourney(diary, f"j{id}")) for id in (1, 2)]
    judge = Judge(parts, tokens=tokens_of(make_batch(*parts)))
    for _ in range(3):
        await judge.event_in_turns(Event(raw=b"x", data=progress("q")))
    assert diary == [("j1", "altered", DROPPED), ("j2", "altered", DROPPED)]


async def test_progress_too_large_to_be_read_is_anothers() -> None:
    """Promise 3: what nobody can compare goes nowhere."""
    data = progress("p", "x" * HELD_BYTES)
    assert await judge_of(asking("p")).event_in_turns(Event(raw=b"x", data=data)) == b"\n"
    free = Judge([asking("p")], tokens=None)
    assert await free.event_in_turns(Event(raw=b"x", data=data)) == b"x"
    with pytest.raises(Refused) as caught:
        await judge_of(asking("p")).event_in_turns(Event(raw=b"x", data=b"[" + data + b"," + ANSWER + b"]"))
    assert caught.value.reason is Reason.UPSTREAM_NONSENSE
