"""Headers that hide nothing, replies that tell everybody once, streams that close once."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from proxy.model import (
    UPSTREAM_FAULTS,
    Broken,
    Call,
    Ending,
    Headers,
    Kind,
    Reason,
    Refused,
    Reply,
    Stream,
    Tell,
)
from proxy.protocol.revisions import BY_NAME, NEWEST
from tests.fakes import make_batch, make_call


async def chunks_of(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def nothing() -> None: ...


async def read(stream: Stream) -> list[bytes]:
    return [chunk async for chunk in stream]


def test_headers_keep_order_case_and_duplicates() -> None:
    """Style guide 3: a folded mapping hides duplicates, and with them who reads the first and who the last."""
    pairs = [(b"X-A", b"1"), (b"x-a", b"2"), (b"B", b"\xc3\xa9"), (b"X-a", b"\xff"), (b"C", b"")]
    headers = Headers(pairs)
    assert headers.pairs == tuple(pairs)
    assert (headers.get("x-a"), headers.all("x-a")) == ("1", ["1", "2", "\udcff"])
    assert (headers.get("b"), headers.get("c"), headers.get("d"), headers.all("d")) == (
        "\u00e9",
        "",
        None,
        (),
    )
    assert list(headers.names()) == ["x-a", "b", "c"]
    assert ("x-a" in headers, "X-A" in headers, "c" in headers, "d" in headers) == (True, False, True, False)
    assert headers == Headers(pairs)
    assert headers != Headers(reversed(pairs))
    assert headers != pairs


def test_what_is_noted_of_headers_is_theirs_until_the_index_goes() -> None:
    """Own promise: rooms do not meet in it, and a stream that is open for hours keeps none of it."""
    headers, others = Headers([(b"A", b"1")]), Headers([(b"A", b"1")])
    headers.note("a", 1)
    headers.note("b", 2)
    assert (dict(headers.notes), dict(others.notes), headers == others) == ({"a": 1, "b": 2}, {}, True)
    headers.forget_index()
    assert (dict(headers.notes), headers.get("a")) == ({}, "1")


def test_headers_show_names_only() -> None:
    """Own promise: a value may be a credential, and what is printed is kept."""
    assert repr(Headers([(b"Authorization", b"s3cret"), (b"X", b"s3cret")])) == "Headers(Authorization, X)"
    with pytest.raises(TypeError):
        hash(Headers())


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (asyncio.CancelledError(), Ending.CLIENT_GONE),
        (ConnectionResetError(), Ending.CLIENT_GONE),
        (BrokenPipeError(), Ending.CLIENT_GONE),
        (GeneratorExit(), Ending.CLIENT_GONE),
        (Broken(told=True), Ending.UPSTREAM_BROKE),
        (Broken(told=False), Ending.UPSTREAM_BROKE),
        (TimeoutError(), Ending.PROXY_FAILED),
        (OSError(), Ending.PROXY_FAILED),
        (KeyError("x"), Ending.PROXY_FAILED),
        (KeyboardInterrupt(), Ending.PROXY_FAILED),
        *(
            (Refused(reason), Ending.UPSTREAM_BROKE if reason in UPSTREAM_FAULTS else Ending.PROXY_FAILED)
            for reason in Reason
        ),
    ],
)
def test_an_exception_stands_for_an_ending(error: BaseException, ending: Ending) -> None:
    """Style guide 4: the breaker counts what the server broke, and nothing that is ours or the client's."""
    assert Ending.of(error) is ending


def test_the_server_is_at_fault_for_these_and_no_others() -> None:
    """protocol.md 2.3: a full table of ours, a deadline or a rule of the operator is not an outage."""
    assert {
        Reason.UPSTREAM_UNREACHABLE,
        Reason.UPSTREAM_BROKE,
        Reason.UPSTREAM_NONSENSE,
        Reason.OUTCOME_UNKNOWN,
    } == UPSTREAM_FAULTS


@pytest.mark.parametrize(
    ("call", "wants"),
    [
        (make_call(id=0), True),
        (make_call(kind=Kind.NOTIFICATION, id=None), False),
        (make_call(kind=Kind.ANSWER), False),
        (make_call(kind=Kind.LISTEN), False),
        (make_call(kind=Kind.END), False),
        (make_batch(make_call(kind=Kind.ANSWER), make_call(kind=Kind.NOTIFICATION)), False),
        (make_batch(make_call(kind=Kind.NOTIFICATION), make_call()), True),
    ],
)
def test_a_request_wants_an_answer_and_so_does_a_batch_that_holds_one(call: Call, wants: bool) -> None:
    """JSON-RPC 2.0 sections 4.1 and 6."""
    assert call.wants_answer is wants


@pytest.mark.parametrize(
    ("params", "arguments"),
    [
        ({}, {}),
        ({"arguments": None}, {}),
        ({"arguments": [1]}, {}),
        ({"arguments": {"a": None}}, {"a": None}),
    ],
)
def test_arguments_are_an_object_or_nothing(params: dict[str, object], arguments: dict[str, object]) -> None:
    """protocol.md section 5: `arguments` may be absent or null."""
    assert make_call(params=params).arguments == arguments


def test_only_the_newest_revision_is_modern() -> None:
    """2026-07-28 basic/versioning: legacy are 2025-11-25 and older."""
    assert {name for name, revision in BY_NAME.items() if revision.is_modern} == {NEWEST.name}


def diary_of(*names: str) -> tuple[list[object], dict[str, Tell]]:
    diary: list[object] = []

    def teller(name: str) -> Tell:
        return lambda ending: diary.append((name, ending))

    return diary, {name: teller(name) for name in names}


def test_those_who_came_last_are_told_first_and_everybody_once() -> None:
    """Style guide 4: what was opened last closes first."""
    diary, tell = diary_of("first", "second")
    reply = Reply(200, Headers(), Stream(chunks_of(), lambda: diary.append("closed")))
    reply.when_done(tell["first"])
    reply.when_done(tell["second"])
    reply.done(Ending.CLIENT_GONE)
    reply.done(Ending.COMPLETE)
    gone = Ending.CLIENT_GONE
    assert diary == ["closed", ("second", gone), ("first", gone)]


def test_who_comes_late_is_told_at_once() -> None:
    """Own promise: a lease that is handed over after the end is given back all the same."""
    diary, tell = diary_of("late", "later")
    reply = Reply(200, Headers())
    reply.when_done(lambda _: reply.when_done(tell["late"]))
    reply.done(Ending.COMPLETE)
    reply.when_done(tell["later"])
    assert diary == [("late", Ending.COMPLETE), ("later", Ending.COMPLETE)]


def test_one_that_fails_does_not_silence_the_others() -> None:
    """Style guide 4: told exactly once, whatever one of them raises; the first failure is not swallowed."""
    diary, tell = diary_of("a", "b")

    def fail(_: Ending) -> None:
        raise ValueError("first")

    def fail_too(_: Ending) -> None:
        raise KeyError("second")

    reply = Reply(200, Headers())
    for each in (tell["a"], fail_too, tell["b"], fail):
        reply.when_done(each)
    with pytest.raises(ValueError, match="first"):
        reply.done(Ending.COMPLETE)
    assert diary == [("b", Ending.COMPLETE), ("a", Ending.COMPLETE)]


def test_a_source_that_cannot_be_closed_silences_nobody() -> None:
    """Own promise: close the source and tell everybody, exactly once, whatever one of them raises."""

    def fail() -> None:
        raise OSError("closing")

    diary, tell = diary_of("lease")
    reply = Reply(200, Headers(), Stream(chunks_of(), fail))
    reply.when_done(tell["lease"])
    with pytest.raises(OSError, match="closing"):
        reply.done(Ending.COMPLETE)
    assert diary == [("lease", Ending.COMPLETE)]


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (None, Ending.COMPLETE),
        (ConnectionResetError("left"), Ending.CLIENT_GONE),
        (asyncio.CancelledError(), Ending.CLIENT_GONE),
        (Broken(told=True), Ending.UPSTREAM_BROKE),
        (ZeroDivisionError(), Ending.PROXY_FAILED),
    ],
)
async def test_writing_a_reply_tells_how_it_went(error: BaseException | None, ending: Ending) -> None:
    """Style guide 4: COMPLETE only when nothing was raised; the exception goes on."""
    diary, tell = diary_of("cache")
    closings: list[str] = []
    reply = Reply(200, Headers(), Stream(chunks_of(b"a"), lambda: closings.append("closed")))
    reply.when_done(tell["cache"])

    async def write() -> None:
        async with reply:
            if error is not None:
                raise error

    if error is None:
        await write()
    else:
        with pytest.raises(type(error)):
            await write()
    assert (diary, closings) == ([("cache", ending)], ["closed"])


@pytest.mark.parametrize("started", [False, True])
async def test_a_stream_closes_its_source_once_even_when_it_never_began(started: bool) -> None:
    """Style guide 4: a generator that was never started never runs its `finally`, and clients leave early."""
    closings: list[str] = []
    stream = Stream(chunks_of(b"a", b"b"), lambda: closings.append("closed"))
    if started:
        assert await anext(aiter(stream)) == b"a"
    stream.close()
    stream.close()
    assert closings == ["closed"]


async def test_a_tap_sees_each_chunk_before_it_goes_on() -> None:
    """Style guide 4: bytes in, the same bytes out; whoever must read puts a reader behind a tap."""
    story: list[tuple[str, bytes]] = []
    stream = Stream(chunks_of(b"a", b"", b"b"), nothing)
    stream.tap(lambda chunk: story.append(("one", chunk)))
    stream.tap(lambda chunk: story.append(("two", chunk)))
    async for chunk in stream:
        story.append(("went on", chunk))
    assert story == [(who, chunk) for chunk in (b"a", b"", b"b") for who in ("one", "two", "went on")]


async def test_a_stream_breaks_as_its_source_breaks() -> None:
    """Own promise: a reader is told, and not given a proper end."""

    async def breaking() -> AsyncIterator[bytes]:
        yield b"a"
        raise Broken(told=False)

    with pytest.raises(Broken):
        await read(Stream(breaking(), nothing))


def test_what_is_interjected_early_goes_out_when_the_writer_comes() -> None:
    """2024-11-05: our own no is an event on a stream that may not have a writer yet."""
    written: list[bytes] = []
    stream = Stream(chunks_of(), nothing)
    stream.interject(b"1")
    stream.interject(b"2")
    stream.written_by(written.append)
    stream.interject(b"3")
    stream.close()
    stream.interject(b"4")
    assert b"".join(written) == b"123"


def test_a_refusal_carries_what_the_table_needs() -> None:
    """Own promise: nothing that was not given is made up."""
    bare = Refused(Reason.MODE)
    assert (bare.why, bare.code, bare.status, bare.data, bare.headers, bare.id, bare.retry_after_s) == (
        *("", None, None, {}, (), None, None),
    )
    full = Refused(
        Reason.MODE, "why", code=0, status=1, data={"a": 1}, headers=[(b"a", b"b")], id=0, retry_after_s=0.0
    )
    assert (full.why, full.code, full.status, full.data, full.headers, full.id, full.retry_after_s) == (
        *("why", 0, 1, {"a": 1}, ((b"a", b"b"),), 0, 0.0),
    )
