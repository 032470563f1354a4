"""The hall: which room hears of a call when, and that whatever was opened is closed on every way out."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import pytest
from msgspec import structs

from proxy.model import (
    Broken,
    Call,
    Ending,
    Headers,
    Kind,
    Permit,
    Reason,
    Refused,
    Reply,
    Stream,
    Verdict,
)
from proxy.pipeline import Pipeline
from tests.fakes import (
    Diary,
    FakeAuthorise,
    FakeIdentify,
    FakeJourney,
    FakeLimit,
    FakeStage,
    make_batch,
    make_call,
)

Errors = Mapping[object, BaseException]
WHOLE = frozenset({Reason.NO_CREDENTIAL, Reason.DRAINING})
"""Reasons that refuse a whole batch in these tests."""

COMPLETE, GONE, BROKE, FAILED = (
    *(Ending.COMPLETE, Ending.CLIENT_GONE, Ending.UPSTREAM_BROKE, Ending.PROXY_FAILED),
)


class House:
    """A hall with rooms that do as they are told, and one diary for all."""

    at_once = False
    """Whether identity and limits say at once what they have to say."""

    def __init__(
        self,
        *,
        identify: BaseException | None = None,
        authorise: Errors | None = None,
        limit: Errors | None = None,
        limited: bool = True,
        serve: Reply | BaseException | Callable[[], Awaitable[Reply]] | None = None,
        merge: BaseException | None = None,
    ) -> None:
        self.diary: Diary = []
        self.explained: list[Refused] = []
        self.merged: list[tuple[Reply | None, list[tuple[Call, Refused]]]] = []
        self._merge_error = merge
        self.answer = Reply(200, Headers(), b"answer")
        self.refusal = Reply(499, Headers(), b"refusal")
        self.merging = Reply(298, Headers(), b"merged")
        self.hall = Pipeline(
            identify=FakeIdentify(self.diary, identify, at_once=self.at_once),
            authorise=FakeAuthorise(self.diary, authorise),
            limit=FakeLimit(self.diary, limit, at_once=self.at_once) if limited else None,
            serve=FakeStage(self.diary, self.answer if serve is None else serve),
            explain=self._explain,
            merge=self._merge,
            is_whole=lambda refused: refused.reason in WHOLE,
            without=self._without,
        )

    def _explain(self, refused: Refused, call: Call) -> Reply:
        self.explained.append(refused)
        self.diary.append(("explain", call.id))
        return self.refusal

    def _merge(self, reply: Reply | None, refusals: list[tuple[Call, Refused]]) -> Reply:
        if self._merge_error is not None:
            raise self._merge_error
        self.merged.append((reply, refusals))
        if reply is not None:
            self.merging.when_done(reply.done)
        return self.merging

    def _without(self, batch: Call, allowed: list[Call]) -> Call:
        return make_batch(*allowed)

    def call(self, id: int = 1, kind: Kind = Kind.REQUEST) -> Call:
        return make_call(id=id, kind=kind, journey=FakeJourney(self.diary, f"j{id}"))

    def batch(self, *ids: int) -> Call:
        return make_batch(*(self.call(id) for id in ids))


@pytest.fixture(autouse=True, params=[True, False], ids=["at once", "awaited"])
def when_rooms_answer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every story is the same whether a room waits for somebody or not."""
    monkeypatch.setattr(House, "at_once", request.param)


ALL_THE_WAY: Diary = [
    ("identify", 1),
    ("j1", "identified", "ann"),
    ("authorise", 1),
    ("j1", "permitted", "r-1"),
    ("limit", 1),
    ("serve", 1),
]


async def test_a_call_goes_through_the_rooms_in_their_order() -> None:
    """design section 4: the order is fixed in code; journey and lease hear of the end when it comes, not before."""
    house = House()
    reply = await house.hall(house.call())
    assert reply is house.answer
    assert house.diary == ALL_THE_WAY
    reply.done(COMPLETE)
    reply.done(GONE)
    assert house.diary[len(ALL_THE_WAY) :] == [("j1", "ended", COMPLETE), ("lease", 1, COMPLETE)]


async def test_a_room_that_is_off_is_not_in_the_chain() -> None:
    """design section 8: a feature that is off costs nothing."""
    house = House(limited=False)
    (await house.hall(house.call())).done(COMPLETE)
    assert house.diary == [*ALL_THE_WAY[:4], ("serve", 1), ("j1", "ended", COMPLETE)]


@pytest.mark.parametrize("ids", [(1,), (1, 2)], ids=["one", "batch"])
async def test_a_limit_that_wants_nothing_back_is_told_nothing(ids: tuple[int, ...]) -> None:
    """`model.Limit`: rates come back by themselves."""
    house = House()
    hall = structs.replace(house.hall, limit=FakeLimit(house.diary, leases=False, at_once=House.at_once))
    reply = await hall(house.call() if len(ids) == 1 else house.batch(*ids))
    reply.done(COMPLETE)
    assert [each for each in house.diary if each[0] == "limit"] == [("limit", id) for id in ids]
    told = [each for each in house.diary if each[1:] == ("ended", COMPLETE)]
    assert told == [(f"j{id}", "ended", COMPLETE) for id in reversed(ids)]
    assert reply is house.answer


NO = Refused(Reason.NOT_ALLOWED, "why")


@pytest.mark.parametrize(
    ("built", "steps", "more"),
    [
        (lambda: House(identify=NO), 1, []),
        (lambda: House(authorise={1: NO}), 3, [("denied", 1)]),
        (lambda: House(limit={1: NO}), 5, []),
        (lambda: House(serve=NO), 6, [("lease", 1, FAILED)]),
    ],
    ids=["identify", "authorise", "limit", "serve"],
)
async def test_a_no_stops_the_call_where_it_was_said(
    built: Callable[[], House], steps: int, more: list[tuple[object, ...]]
) -> None:
    """Style guide 3: only the hall catches it; the rooms behind never hear of the call but that it was denied, and the
    lease is given back."""
    house = built()
    reply = await house.hall(house.call())
    reply.done(COMPLETE)
    assert reply is house.refusal
    assert house.explained == [NO]
    assert house.diary == [
        *ALL_THE_WAY[:steps],
        *more,
        ("j1", "refused", Reason.NOT_ALLOWED),
        ("explain", 1),
        ("j1", "ended", COMPLETE),
    ]


def refuses_at_once(permit: Permit) -> Awaitable[Reply]:
    """A stage that is no coroutine."""
    raise NO


@pytest.mark.parametrize("limited", [True, False])
@pytest.mark.parametrize("ids", [(1,), (1, 2)], ids=["one", "batch"])
async def test_a_stage_may_refuse_before_it_is_awaited(ids: tuple[int, ...], limited: bool) -> None:
    """`model.Stage`: leases are given back and journeys told as if it had waited."""
    house = House(limited=limited)
    hall = structs.replace(house.hall, serve=refuses_at_once)
    reply = await hall(house.call() if len(ids) == 1 else house.batch(*ids))
    reply.done(COMPLETE)
    released = [each for each in house.diary if each[0] == "lease"]
    assert released == ([("lease", id, FAILED) for id in reversed(ids)] if limited else [])
    assert reply is house.refusal
    for id in ids:
        assert (f"j{id}", "refused", Reason.NOT_ALLOWED) in house.diary
        assert house.diary.count((f"j{id}", "ended", COMPLETE)) == 1


async def test_whoever_is_denied_too_often_is_told_so() -> None:
    """LIM-014: a limit may refuse what policy has refused, and its word counts."""
    too_often = Refused(Reason.RATE_LIMITED)
    house = House(authorise={1: NO}, limit={1: too_often})
    (await house.hall(house.call())).done(COMPLETE)
    assert house.explained == [too_often]


@pytest.mark.parametrize(
    ("reason", "ending"),
    [(Reason.OUTCOME_UNKNOWN, BROKE), (Reason.UPSTREAM_UNREACHABLE, BROKE), (Reason.OVERLOADED, FAILED)],
)
async def test_a_lease_hears_whose_fault_it_was(reason: Reason, ending: Ending) -> None:
    """Style guide 4: the breaker counts the server's faults and no others."""
    house = House(serve=Refused(reason))
    await house.hall(house.call())
    assert ("lease", 1, ending) in house.diary


SECRET = "hunter2"


@pytest.mark.parametrize(
    "built",
    [
        lambda: House(identify=KeyError(SECRET)),
        lambda: House(authorise={1: ValueError(SECRET)}),
        lambda: House(limit={1: OSError(SECRET)}),
        lambda: House(serve=RuntimeError(SECRET)),
        lambda: House(serve=TimeoutError(SECRET)),
    ],
    ids=["identify", "authorise", "limit", "serve", "timeout"],
)
async def test_an_unexpected_exception_is_a_no_that_does_not_say_what_it_was(
    built: Callable[[], House],
) -> None:
    """design section 4: what fails on a deciding path refuses; the text of the exception stays with us."""
    house = built()
    reply = await house.hall(house.call())
    [refused] = house.explained
    assert reply is house.refusal
    assert (refused.reason, refused.data, refused.headers) == (Reason.INTERNAL, {"requestId": "j1"}, ())
    assert "the id of this request: j1." in refused.why  # issue 8, 4: what the operator looks for
    assert SECRET not in f"{refused}{refused.why}"
    assert SECRET in str(refused.__cause__)
    assert ("j1", "refused", Reason.INTERNAL) in house.diary


@pytest.mark.parametrize("parts", [1, 3])
async def test_a_client_that_leaves_ends_the_call_and_gives_back_its_leases(parts: int) -> None:
    """Endings matrix: cancelled in the last room; the exception goes on, each journey and lease hears of it once."""

    waiting = asyncio.Event()

    async def wait() -> Reply:
        waiting.set()
        await asyncio.Event().wait()
        raise AssertionError

    house = House(serve=wait)
    ids = range(1, parts + 1)
    task = asyncio.ensure_future(house.hall(house.call() if parts == 1 else house.batch(*ids)))
    async with asyncio.timeout(5):
        await waiting.wait()
    before = len(house.diary)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert house.explained == []
    assert house.diary[before:] == [
        *(("lease", id, GONE) for id in reversed(ids)),
        *((f"j{id}", "ended", GONE) for id in ids),
    ]


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (None, COMPLETE),
        (Broken(told=True), BROKE),
        (ConnectionResetError(), GONE),
        (asyncio.CancelledError(), GONE),
        (ValueError(), FAILED),
    ],
)
async def test_a_lease_lives_as_long_as_the_stream(error: BaseException | None, ending: Ending) -> None:
    """design section 4: a slot lives until the reply's end, streams included, and is returned on every path."""

    async def chunks() -> AsyncIterator[bytes]:
        yield b"a"
        if error is not None:
            raise error

    house = House()
    house.answer.body = Stream(chunks(), lambda: house.diary.append(("source", "closed")))
    reply = await house.hall(house.call())
    try:
        async with reply as answer:
            assert isinstance(answer.body, Stream)
            async for _ in answer.body:
                assert house.diary == ALL_THE_WAY
    except BaseException as raised:
        assert raised is error  # noqa: PT017  # one way through, with and without an error
    assert house.diary[len(ALL_THE_WAY) :] == [
        ("source", "closed"),
        ("j1", "ended", ending),
        ("lease", 1, ending),
    ]


async def test_the_messages_of_a_batch_are_judged_one_by_one_and_go_on_together() -> None:
    """design section 4: each is judged, leased and journalled by itself."""
    house = House()
    reply = await house.hall(house.batch(1, 2))
    reply.done(COMPLETE)
    assert reply is house.answer
    assert house.diary == [
        ("identify", None),
        ("j1", "identified", "ann"),
        ("authorise", 1),
        ("j1", "permitted", "r-1"),
        ("limit", 1),
        ("j2", "identified", "ann"),
        ("authorise", 2),
        ("j2", "permitted", "r-1"),
        ("limit", 2),
        ("authorise", None),
        ("serve", 1, 2),
        ("j2", "ended", COMPLETE),
        ("j1", "ended", COMPLETE),
        ("lease", 2, COMPLETE),
        ("lease", 1, COMPLETE),
    ]


@pytest.mark.parametrize("room", ["authorise", "limit"])
async def test_a_refused_message_of_a_batch_does_not_go_on(room: str) -> None:
    """protocol.md 3.4: answer denied elements ourselves and forward the rest."""
    house = House(authorise={2: NO}) if room == "authorise" else House(limit={2: NO})
    batch = house.batch(1, 2, 3)
    reply = await house.hall(batch)
    reply.done(COMPLETE)
    assert reply is house.merging
    assert house.merged == [(house.answer, [(batch.parts[1], NO)])]
    assert ("serve", 1, 3) in house.diary
    assert ("j2", "refused", Reason.NOT_ALLOWED) in house.diary
    assert [entry for entry in house.diary if entry[0] == "lease"] == [
        ("lease", 3, COMPLETE),
        ("lease", 1, COMPLETE),
    ]
    assert sorted(entry for entry in house.diary if entry[1] == "ended") == [
        (f"j{id}", "ended", COMPLETE) for id in (1, 2, 3)
    ]


async def test_a_batch_of_which_nothing_is_left_is_not_sent() -> None:
    """protocol.md 3.4: there is no rest to forward."""
    house = House(authorise={1: NO}, limit={2: NO})
    batch = house.batch(1, 2)
    reply = await house.hall(batch)
    reply.done(COMPLETE)
    assert reply is house.merging
    assert house.merged == [(None, [(batch.parts[0], NO), (batch.parts[1], NO)])]
    assert not any(entry[0] in ("serve", "lease") for entry in house.diary)
    assert [entry for entry in house.diary if entry[1] == "ended"] == [
        ("j2", "ended", COMPLETE),
        ("j1", "ended", COMPLETE),
    ]


@pytest.mark.parametrize(
    ("error", "ending"),
    [(Refused(Reason.NO_CREDENTIAL), FAILED), (KeyError(SECRET), FAILED), (asyncio.CancelledError(), GONE)],
)
@pytest.mark.parametrize("room", ["authorise", "limit"])
async def test_what_refuses_a_whole_batch_gives_back_what_was_held(
    room: str, error: BaseException, ending: Ending
) -> None:
    """Endings matrix: refused as a whole, failed and cancelled after some messages already hold a lease."""
    house = House(authorise={3: error}) if room == "authorise" else House(limit={3: error})
    batch = house.batch(1, 2, 3)
    if isinstance(error, Exception):
        reply = await house.hall(batch)
        assert reply is house.refusal
        reply.done(COMPLETE)
    else:
        with pytest.raises(asyncio.CancelledError):
            await house.hall(batch)
    assert [entry for entry in house.diary if entry[0] in ("lease", "serve")] == [
        ("lease", 2, ending),
        ("lease", 1, ending),
    ]
    assert sorted(entry for entry in house.diary if entry[1] == "ended") == [
        (f"j{id}", "ended", COMPLETE if isinstance(error, Exception) else GONE) for id in (1, 2, 3)
    ]


async def test_a_batch_without_an_identity_is_refused_whole() -> None:
    """design section 4: nobody is judged before it is known who calls."""
    house = House(identify=Refused(Reason.NO_CREDENTIAL))
    reply = await house.hall(house.batch(1, 2))
    reply.done(COMPLETE)
    assert house.diary == [
        ("identify", None),
        ("j1", "refused", Reason.NO_CREDENTIAL),
        ("j2", "refused", Reason.NO_CREDENTIAL),
        ("explain", None),
        ("j2", "ended", COMPLETE),
        ("j1", "ended", COMPLETE),
    ]


async def test_an_envelope_that_is_refused_gives_back_what_was_held() -> None:
    """design section 4: returned on every exit path; a rule may know the messages and not their envelope."""
    house = House(authorise={None: NO})
    reply = await house.hall(house.batch(1, 2))
    reply.done(COMPLETE)
    assert [entry for entry in house.diary if entry[0] == "lease"] == [
        ("lease", 2, FAILED),
        ("lease", 1, FAILED),
    ]


async def test_an_answer_that_cannot_be_merged_is_closed() -> None:
    """Style guide 4: whoever gets a Reply writes it or calls `done`."""
    house = House(authorise={2: NO}, merge=ValueError(SECRET))
    reply = await house.hall(house.batch(1, 2))
    assert reply is house.refusal
    reply.done(COMPLETE)
    assert ("lease", 1, FAILED) in house.diary


async def test_a_journey_is_told_by_the_rooms_it_passes() -> None:
    """The hall adds nothing to what a stage says of an attempt and its answer."""

    async def serve() -> Reply:
        call.journey.attempted()
        call.journey.answered(Verdict.TOOL_ERROR)
        return house.answer

    house = House(serve=serve)
    call = house.call()
    (await house.hall(call)).done(COMPLETE)
    assert [entry[1:] for entry in house.diary if entry[0] == "j1"] == [
        ("identified", "ann"),
        ("permitted", "r-1"),
        ("attempted",),
        ("answered", Verdict.TOOL_ERROR),
        ("ended", COMPLETE),
    ]
