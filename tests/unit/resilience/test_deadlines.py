"""When a call is over, and what becomes of it then. Source: issue 7, item 1; protocol 7.6."""

from __future__ import annotations

import asyncio
import gc
import math
import time
import weakref
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from msgspec import structs

from proxy.model import (
    OWN_WISH,
    TIMEOUT_HEADER,
    TIMEOUT_META_KEY,
    Broken,
    Call,
    Ending,
    Headers,
    Kind,
    Outcome,
    Permit,
    Reason,
    Refused,
    Reply,
    Rule,
    Stream,
)
from proxy.protocol.revisions import TWO_ENDPOINTS
from proxy.refusals import Form, explain
from proxy.resilience.deadlines import (
    CALL,
    ENDED,
    LONGEST,
    MAX_TELLING,
    SILENCE,
    Deadlines,
    Timed,
)
from proxy.resilience.signals import Signal, signal_of
from tests.fakes import Diary, FakeJourney, make_batch, make_call, make_headers
from tests.timers import timers
from tests.unit.resilience.scripted import (
    LEGACY,
    MODERN,
    RESULT,
    SECONDS,
    Server,
    Source,
    answer,
    bounded,
    cancelled_after,
    permit,
    read,
    refused,
    until,
)

SHORT_S = 0.02
"""A time that runs out while a test waits for it."""
RACE_S = 0.1
"""Long enough for a test to get ready, however busy the machine is."""
LONG_S = 3_600.0
NOW_S = 1_000.0
PROGRESS = b'data: {"jsonrpc":"2.0","method":"notifications/progress","params":{}}\n\n'
ANSWER = b"data: " + RESULT + b"\n\n"
PING = b": ping\n\n"
IDEMPOTENT = Rule(id="r", idempotent=True)


def wishing(
    meta: object = None, *fields: str, method: str = "tools/call", revision: Any = LEGACY, **more: Any
) -> Call:
    """A call whose caller says how long it will wait."""
    params = {} if meta is None else {"_meta": {TIMEOUT_META_KEY: meta}}
    headers = Headers((TIMEOUT_HEADER.encode(), each.encode()) for each in fields)
    return make_call(method=method, revision=revision, params=params, headers=headers, target="t", **more)


@pytest.mark.parametrize(
    ("call", "rule_s", "after_s"),
    [
        (wishing(), None, 60),
        (wishing(), 5, 5),
        (wishing(), 600, 600),
        (wishing(250), None, 0.25),
        (wishing(250.5), None, 0.2505),
        (wishing(0), None, 0),
        (wishing(90_000), None, 60),
        (wishing(90_000), 120, 90),
        (wishing(None, "250"), None, 0.25),
        (wishing(None, " 250\t"), None, 0.25),
        (wishing(700, "250"), None, 0.25),
        (wishing(250, "700"), None, 0.25),
        (wishing(None, "700", "250"), None, 0.25),
        *(
            (wishing(each), None, 60)
            for each in ("250", True, [1], -1, math.nan, math.inf, 10**400, -(10**400))
        ),
        *((wishing(None, each), None, 60) for each in ("", "-1", "1.5", "1e1", "250ms", "٢٥٠", "9" * 13)),
        (make_call(params={"_meta": []}), None, 60),
        (wishing(method="tasks/result"), None, math.inf),
        (wishing(250, method="tasks/result"), None, 0.25),
        (wishing(method="tasks/get"), None, 60),
        (wishing(250, method="subscriptions/listen", revision=MODERN), 5, math.inf),
        (make_call(method="", kind=Kind.LISTEN, id=None), None, math.inf),
        (make_call(method="", kind=Kind.END, id=None), None, 60),
        (make_call(method="", kind=Kind.ANSWER), None, 60),
        (make_call(method="notifications/initialized", kind=Kind.NOTIFICATION, id=None), None, 60),
        (make_batch(make_call(), make_call(id=2)), None, 60),
    ],
)
def test_when_a_call_is_over(call: Call, rule_s: float | None, after_s: float) -> None:
    """From when it was received. A rule goes before the settings, a caller may ask for less, and nobody for more."""
    asked = permit(structs.replace(call, received=1_000.0), Rule(id="r", timeout_s=rule_s))
    assert Deadlines(timeout_s=60)(asked) == pytest.approx(1_000 + after_s)


def test_callers_are_not_heard_where_the_settings_say_so() -> None:
    deadlines = Deadlines(timeout_s=60, client_may_shorten=False)
    assert deadlines(permit(wishing(250, "250"))) == 60


class Said(dict[str, object]):
    """What a call said, and can be asked after."""


def stands_still() -> float:
    return NOW_S


class Scene:
    """The stage before a server that does as it is told, on a clock that stands still: a busy machine takes no time
    from a call before it is sent. What is waited for is waited for by the loop's clock."""

    def __init__(
        self,
        *,
        timeout_s: float = LONG_S,
        idle_s: float = LONG_S,
        max_s: float | None = None,
        form: Form = "result",
        now: Callable[[], float] = stands_still,
        cancel_with: Callable[[Permit], Any] | None = None,
        has_cancel: bool = True,
    ) -> None:
        self.server = Server()
        self.source = Source()
        self.diary: Diary = []
        self.journey = FakeJourney(self.diary)
        self.cancelled: list[Permit] = []
        self.overdue: list[tuple[Permit, Refused]] = []
        self._cancel_with = cancel_with
        self.stage = Timed(
            self.server,
            Deadlines(timeout_s=timeout_s),
            stream_idle_timeout_s=idle_s,
            stream_max_s=max_s,
            form=form,
            cancel=self._cancel if has_cancel else None,
            overdue=self._is_overdue,
            now=now,
        )

    async def _cancel(self, permit: Permit) -> None:
        self.cancelled.append(permit)
        if self._cancel_with is not None:
            await self._cancel_with(permit)

    def _is_overdue(self, permit: Permit, refused: Refused) -> None:
        self.overdue.append((permit, refused))

    def permit(self, call: Call | None = None, rule: Rule | None = None, **fields: Any) -> Permit:
        fields = {"revision": LEGACY, "target": "t", **fields}
        if call is None:
            call = make_call(**fields)
        return permit(structs.replace(call, received=NOW_S, journey=self.journey), rule)

    async def hangs(self, asked: Permit, outcome: Outcome = Outcome.ATTEMPTED) -> Refused:
        """What is said of a call that was sent, and never answered."""
        self.server.hangs()
        self.journey.outcome_at_server = outcome
        told = await refused(self.stage, asked)
        assert self.server.now == 0
        await self.goodbyes()
        return told

    async def goodbyes(self) -> None:
        await until(lambda: self.stage.telling == 0)

    async def streams(
        self, asked: Permit, *chunks: bytes | BaseException | None, kind: str = "text/event-stream"
    ) -> Reply:
        """The reply of a server that has begun to answer with these."""
        self.journey.outcome_at_server = Outcome.ATTEMPTED
        self.source.send(*chunks)
        self.server.gives(self.source.reply(kind))
        return await bounded(self.stage, asked)

    async def breaks(self, reply: Reply) -> tuple[list[bytes], bool]:
        """What its reader gets before it breaks off, and whether the client was told."""
        assert isinstance(reply.body, Stream)
        chunks: list[bytes] = []
        with pytest.raises(Broken) as caught:
            await _collect(reply, chunks)
        await self.goodbyes()
        return chunks, caught.value.told


async def _collect(reply: Reply, chunks: list[bytes]) -> None:
    assert isinstance(reply.body, Stream)
    async with asyncio.timeout(SECONDS), reply:
        async for chunk in reply.body:
            chunks.append(chunk)


async def test_what_answers_in_time_passes_as_it_is() -> None:
    scene = Scene()
    reply = answer()
    scene.server.gives(reply)
    assert await bounded(scene.stage, scene.permit()) is reply
    assert (reply.body, dict(scene.stage.timed_out), scene.cancelled) == (RESULT, {}, [])


@pytest.mark.parametrize(
    ("call", "rule", "reason"),
    [
        (make_call(revision=LEGACY, target="t"), None, Reason.OUTCOME_UNKNOWN),
        (make_call(revision=LEGACY, target="t"), IDEMPOTENT, Reason.DEADLINE),
        (make_call(revision=MODERN, target="t"), None, Reason.OUTCOME_UNKNOWN),
        (make_call(method="tools/list", revision=LEGACY), None, Reason.DEADLINE),
        (make_call(method="prompts/get", revision=LEGACY), None, Reason.DEADLINE),
        (make_call(method="notifications/x", kind=Kind.NOTIFICATION, id=None), None, Reason.DEADLINE),
    ],
)
async def test_a_server_that_never_answers(call: Call, rule: Rule | None, reason: Reason) -> None:
    """Corpus UP-001: 504, whatever is known of the call; and what may have happened is said not to be known."""
    scene = Scene(timeout_s=SHORT_S)
    asked = scene.permit(call, rule)
    told = await scene.hangs(asked)
    assert (told.reason, told.status, told.data) == (reason, 504, {"limit": CALL})
    assert "0.02 s" in told.why
    assert dict(scene.stage.timed_out) == {CALL: 1}
    reply = explain(told, asked.call, "http")
    assert reply.status == 504
    assert signal_of(asked.call, told) is Signal.BAD


async def test_a_batch_may_have_run_where_one_of_it_may() -> None:
    scene = Scene(timeout_s=SHORT_S)
    tools, lists = make_call(target="t"), make_call(method="tools/list", id=2)
    for call, reason in (
        (make_batch(tools, lists), Reason.OUTCOME_UNKNOWN),
        (make_batch(lists, lists), Reason.DEADLINE),
    ):
        asked = permit(structs.replace(call, received=NOW_S))
        sent = asked.call.parts[1].journey
        assert isinstance(sent, FakeJourney)
        sent.outcome_at_server = Outcome.ATTEMPTED
        scene.server.hangs()
        assert (await refused(scene.stage, asked)).reason is reason
    await scene.goodbyes()


async def test_what_was_never_sent_may_be_repeated() -> None:
    """It waited for its pace, or its connection was never made: the server had no part in it."""
    scene = Scene(timeout_s=SHORT_S)
    asked = scene.permit()
    told = await scene.hangs(asked, Outcome.NOT_REACHED)
    assert (told.reason, told.data) == (Reason.OVERLOADED, {"limit": CALL})
    assert "Nothing was sent" in told.why
    assert (signal_of(asked.call, told), scene.cancelled) == (Signal.SILENT, [])


async def test_what_is_over_already_is_not_sent() -> None:
    scene = Scene(timeout_s=5, now=lambda: NOW_S + 6)
    told = await refused(scene.stage, scene.permit())
    assert (told.reason, scene.server.seen, scene.cancelled) == (Reason.OVERLOADED, [], [])
    scene.journey.outcome_at_server = Outcome.ATTEMPTED  # by an attempt before
    told = await refused(scene.stage, scene.permit())
    assert (told.reason, scene.server.seen, scene.cancelled) == (Reason.OUTCOME_UNKNOWN, [], [])
    assert dict(scene.stage.timed_out) == {CALL: 2}


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (Outcome.NOT_REACHED, Reason.DEADLINE),
        (Outcome.ATTEMPTED, Reason.OUTCOME_UNKNOWN),
        (Outcome.UNKNOWN, Reason.OUTCOME_UNKNOWN),
        (Outcome.ANSWERED, Reason.OUTCOME_UNKNOWN),
    ],
)
async def test_a_caller_in_a_hurry_says_nothing_of_the_server(outcome: Outcome, reason: Reason) -> None:
    """Or whoever asks for a millisecond five times has the server left alone for everybody."""
    scene = Scene()
    asked = scene.permit(wishing(20))
    told = await scene.hangs(asked, outcome)
    assert (told.reason, told.data) == (reason, {"limit": OWN_WISH})
    assert signal_of(asked.call, told) is Signal.SILENT
    assert dict(scene.stage.timed_out) == {OWN_WISH: 1}


async def test_a_caller_that_asks_for_no_time_is_not_sent() -> None:
    scene = Scene()
    told = await refused(scene.stage, scene.permit(wishing(0)))
    assert (told.reason, told.data, scene.server.seen) == (Reason.DEADLINE, {"limit": OWN_WISH}, [])


async def test_a_caller_that_asks_for_what_it_has_is_in_no_hurry() -> None:
    scene = Scene(timeout_s=SHORT_S)
    assert (await scene.hangs(scene.permit(wishing(1_000 * SHORT_S)))).data == {"limit": CALL}


async def test_a_rule_may_give_more_time_than_the_settings() -> None:
    scene = Scene(timeout_s=0.001)
    go = asyncio.Event()
    asyncio.get_running_loop().call_later(0.02, go.set)

    async def late(_: Permit) -> Reply:
        await go.wait()
        return answer()

    scene.server.act = late
    assert (await bounded(scene.stage, scene.permit(rule=Rule(id="r", timeout_s=60)))).status == 200


async def test_a_timeout_of_somebody_else_is_not_ours() -> None:
    """A connector, for example, that raises the same exception."""
    scene = Scene()
    scene.server.says(TimeoutError())
    with pytest.raises(TimeoutError):
        await bounded(scene.stage, scene.permit())
    assert (dict(scene.stage.timed_out), scene.cancelled) == ({}, [])


@pytest.mark.parametrize(
    ("call", "is_told"),
    [
        (make_call(revision=LEGACY, target="t"), True),
        (make_call(revision=TWO_ENDPOINTS, target="t"), True),
        (make_call(method="tools/list", revision=LEGACY), True),
        (make_call(revision=MODERN, target="t"), False),
        (make_call(method="initialize", revision=LEGACY), False),
        (make_call(revision=LEGACY, target="t", params={"task": {}}), False),
        (make_call(method="notifications/x", kind=Kind.NOTIFICATION, id=None), False),
        (make_call(method="", kind=Kind.ANSWER), False),
        (make_call(method="", kind=Kind.END, id=None), False),
    ],
)
async def test_a_server_of_an_older_revision_is_told(call: Call, is_told: bool) -> None:
    """Protocol 7.6: leaving is not cancelling there. Never of `initialize`; a task ends by `tasks/cancel`."""
    scene = Scene(timeout_s=SHORT_S)
    asked = scene.permit(call)
    await scene.hangs(asked)
    assert [each.call for each in scene.cancelled] == [asked.call] * is_told


async def test_each_request_of_a_batch_is_cancelled_by_its_own_id() -> None:
    scene = Scene(timeout_s=SHORT_S)
    parts = (
        make_call(id=1, journey=scene.journey),
        make_call(kind=Kind.NOTIFICATION, id=None),
        make_call(id="1", journey=scene.journey),
    )
    asked = permit(structs.replace(make_batch(*parts), received=NOW_S))
    scene.journey.outcome_at_server = Outcome.ATTEMPTED
    scene.server.hangs()
    await refused(scene.stage, asked)
    await scene.goodbyes()
    assert [each.call for each in scene.cancelled] == [parts[0], parts[2]]


async def test_without_words_nobody_is_told() -> None:
    scene = Scene(timeout_s=SHORT_S, has_cancel=False)
    assert (await scene.hangs(scene.permit())).reason is Reason.OUTCOME_UNKNOWN
    assert scene.stage.untold == 0


async def test_the_caller_does_not_wait_for_the_goodbye() -> None:
    """Its place is free at once; a server that hangs may hang on that too."""
    never = asyncio.Event()

    async def hangs(_: Permit) -> None:
        await never.wait()

    scene = Scene(timeout_s=SHORT_S, cancel_with=hangs)
    scene.server.hangs()
    scene.journey.outcome_at_server = Outcome.ATTEMPTED
    await refused(scene.stage, scene.permit())
    await until(lambda: len(scene.cancelled) == 1)
    assert scene.stage.telling == 1
    async with asyncio.timeout(SECONDS):
        await scene.stage.close()
    assert (scene.stage.telling, scene.stage.untold) == (0, 0)


async def test_goodbyes_are_bounded_and_their_failures_counted() -> None:
    never = asyncio.Event()

    async def hangs(_: Permit) -> None:
        await never.wait()
        raise Refused(Reason.UPSTREAM_UNREACHABLE)

    scene = Scene(timeout_s=SHORT_S, cancel_with=hangs)
    scene.server.hangs()
    scene.journey.outcome_at_server = Outcome.ATTEMPTED
    calls = [refused(scene.stage, scene.permit()) for _ in range(MAX_TELLING + 3)]
    await asyncio.gather(*calls)
    assert (scene.stage.telling, scene.stage.untold) == (MAX_TELLING, 3)
    never.set()
    await scene.goodbyes()
    assert (len(scene.cancelled), scene.stage.untold) == (MAX_TELLING, MAX_TELLING + 3)


async def test_closing_when_nobody_is_told() -> None:
    async with asyncio.timeout(SECONDS):
        await Scene().stage.close()


@pytest.mark.parametrize("turns", range(6))
async def test_leaving_at_any_moment_leaves_nothing(turns: int) -> None:
    scene = Scene()

    async def in_steps(_: Permit) -> Reply:
        for _step in range(3):
            await asyncio.sleep(0)
        return scene.source.reply()

    scene.server.act = in_steps
    tasks, before = asyncio.all_tasks(), timers()
    await cancelled_after(turns, scene.stage(scene.permit()))
    assert (scene.server.now, scene.stage.telling, dict(scene.stage.timed_out)) == (0, 0, {})
    assert asyncio.all_tasks() == tasks
    assert timers() == before


async def test_leaving_in_the_moment_of_the_deadline_is_leaving() -> None:
    """The race: both in one turn of the loop. Nobody is there to hear of the deadline."""
    scene = Scene(timeout_s=RACE_S)
    scene.server.hangs()
    task = asyncio.ensure_future(scene.stage(scene.permit()))
    await until(lambda: scene.server.now == 1)
    asyncio.get_running_loop().call_later(RACE_S / 2, task.cancel)
    _block(2 * RACE_S)
    async with asyncio.timeout(SECONDS):
        await asyncio.wait([task])
    assert task.cancelled()
    assert (scene.server.now, dict(scene.stage.timed_out)) == (0, {})


async def test_an_answer_in_the_moment_of_the_deadline_is_closed_or_given() -> None:
    """The race: the answer is there when the time is over. Whoever made it hears that nobody wants it."""
    scene = Scene(timeout_s=RACE_S)
    scene.journey.outcome_at_server = Outcome.ATTEMPTED
    is_there = asyncio.get_running_loop().create_future()
    story: list[str] = []

    async def just_now(_: Permit) -> Reply:
        try:
            await is_there
        except asyncio.CancelledError:
            story.append("closed")
            raise
        story.append("given")
        return answer()

    scene.server.act = just_now
    task = asyncio.ensure_future(scene.stage(scene.permit()))
    await until(lambda: scene.server.now == 1)
    asyncio.get_running_loop().call_later(RACE_S / 2, is_there.set_result, None)
    _block(2 * RACE_S)
    async with asyncio.timeout(SECONDS):
        await asyncio.wait([task])
    await scene.goodbyes()
    assert story == ["given" if task.exception() is None else "closed"]


def _block(seconds: float) -> None:
    """The loop does nothing else meanwhile."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


async def test_nothing_is_kept_of_a_call_that_took_too_long() -> None:
    scene = Scene(timeout_s=SHORT_S)
    said = Said(name="t")
    known = weakref.ref(said)
    await scene.hangs(scene.permit(make_call(revision=LEGACY, target="t", params=said)))
    scene.server.seen.clear()
    scene.server.act = None
    scene.cancelled.clear()
    del said
    gc.collect()
    assert known() is None


async def test_a_silent_stream_gets_a_last_word() -> None:
    """The client waits for an answer with the id of its request; without one it would for ever."""
    scene = Scene(idle_s=SHORT_S)
    asked = scene.permit()
    reply = await scene.streams(asked, PROGRESS, PING)
    chunks, is_told = await scene.breaks(reply)
    assert chunks[:2] == [PROGRESS, PING]
    said = msgspec.json.decode(chunks[2].removeprefix(b"event: message\ndata: "))
    assert (said["id"], said["result"]["isError"]) == (1, True)
    assert "nothing came for 0.02 s" in said["result"]["content"][0]["text"]
    assert (len(chunks), is_told, scene.source.closed) == (3, True, 1)
    assert scene.diary == [("j1", "refused", Reason.OUTCOME_UNKNOWN)]
    assert [each.call for each in scene.cancelled] == [asked.call]
    assert dict(scene.stage.timed_out) == {SILENCE: 1}


async def test_the_server_hears_that_it_is_over_before_a_slow_client_has_read_it() -> None:
    """Modern: closing is the cancellation."""
    scene = Scene(idle_s=SHORT_S)
    reply = await scene.streams(scene.permit(revision=MODERN))
    assert isinstance(reply.body, Stream)
    chunks = aiter(reply.body)
    async with asyncio.timeout(SECONDS):
        assert b'"id":1' in await anext(chunks)
    assert (scene.source.closed, scene.cancelled) == (1, [])
    with pytest.raises(Broken):
        await anext(chunks)
    reply.done(Ending.UPSTREAM_BROKE)
    assert scene.source.closed == 1


@pytest.mark.parametrize(("rule", "reason"), [(None, "outcome_unknown"), (IDEMPOTENT, "deadline")])
async def test_the_last_word_is_in_the_form_of_the_house(rule: Rule | None, reason: str) -> None:
    scene = Scene(idle_s=SHORT_S, form="http")
    (word,), _ = await scene.breaks(await scene.streams(scene.permit(rule=rule)))
    error = msgspec.json.decode(word.removeprefix(b"event: message\ndata: "))["error"]
    assert (error["code"], error["data"]) == (504, {"origin": "proxy", "reason": reason, "limit": SILENCE})


async def test_any_chunk_begins_a_new_silence() -> None:
    """Comments too: servers ping every 15 seconds while a tool works."""
    scene = Scene(idle_s=0.4)
    reply = await scene.streams(scene.permit())
    loop = asyncio.get_running_loop()
    for turn in range(1, 11):
        loop.call_later(turn * 0.05, scene.source.send, PING)
    loop.call_later(0.55, scene.source.send, ANSWER, None)
    assert await read(reply) == [*[PING] * 10, ANSWER]
    assert (scene.diary, scene.source.closed) == ([], 1)


async def test_what_a_reader_takes_to_read_is_no_silence() -> None:
    """A slow client must not look like a silent server."""
    now = [NOW_S]
    scene = Scene(idle_s=10, now=lambda: now[0])
    reply = await scene.streams(scene.permit(), PING, ANSWER, None)
    assert isinstance(reply.body, Stream)
    seen = []
    async with asyncio.timeout(SECONDS), reply:
        async for chunk in reply.body:
            seen.append(chunk)
            now[0] += 1_000
    assert seen == [PING, ANSWER]


async def test_a_silent_stream_whose_answer_has_come_just_ends() -> None:
    """The server SHOULD end it, and did not. Nobody waits."""
    scene = Scene(idle_s=SHORT_S)
    reply = await scene.streams(scene.permit(), ANSWER)
    scene.journey.outcome_at_server = Outcome.ANSWERED
    endings: list[Ending] = []
    reply.when_done(endings.append)
    assert await read(reply) == [ANSWER]
    assert (endings, scene.source.closed, scene.cancelled, scene.diary) == ([Ending.COMPLETE], 1, [], [])
    assert dict(scene.stage.timed_out) == {SILENCE: 1}


async def test_an_answer_to_an_attempt_before_is_not_that_to_this_one() -> None:
    """It was a 503 that said so in JSON-RPC, and was repeated."""
    scene = Scene(idle_s=SHORT_S)
    scene.journey.outcome_at_server = Outcome.ANSWERED
    scene.server.gives(scene.source.reply())
    reply = await bounded(scene.stage, scene.permit(rule=IDEMPOTENT))
    chunks, is_told = await scene.breaks(reply)
    assert (len(chunks), is_told) == (1, True)


async def test_those_of_a_batch_that_wait_are_told() -> None:
    scene = Scene(idle_s=SHORT_S)
    journeys = [FakeJourney(), FakeJourney()]
    parts = [make_call(id=id, revision=LEGACY, journey=journey) for id, journey in enumerate(journeys)]
    batch = make_batch(*parts, make_call(kind=Kind.NOTIFICATION, id=None))
    asked = permit(structs.replace(batch, received=NOW_S))
    reply = await scene.streams(asked, ANSWER)
    journeys[1].outcome_at_server = Outcome.ANSWERED
    chunks, is_told = await scene.breaks(reply)
    assert (len(chunks), b'"id":0' in chunks[1], b'"id":1' in chunks[1], is_told) == (2, True, False, True)
    assert [each.call.id for each in scene.cancelled] == [0]
    assert (journeys[0].diary, journeys[1].diary) == ([("j1", "refused", Reason.OUTCOME_UNKNOWN)], [])


LISTENING = [
    make_call(method="", kind=Kind.LISTEN, id=None, revision=LEGACY),
    make_call(method="subscriptions/listen", revision=MODERN),
]


@pytest.mark.parametrize("call", LISTENING)
async def test_a_silent_stream_that_listens_ends_properly(call: Call) -> None:
    """Its client listens again. It is nobody's failure, and there is nothing to cancel."""
    scene = Scene(idle_s=SHORT_S, timeout_s=0.000_001)
    reply = await scene.streams(scene.permit(call), PING)
    endings: list[Ending] = []
    reply.when_done(endings.append)
    assert await read(reply) == [PING]
    assert (endings, scene.source.closed, scene.cancelled) == ([Ending.COMPLETE], 1, [])
    assert scene.diary == [("j1", "altered", ENDED), ("j1", "ended", Ending.COMPLETE)]
    assert dict(scene.stage.timed_out) == {SILENCE: 1}


@pytest.mark.parametrize("call", LISTENING)
async def test_a_stream_that_listens_has_no_longest_time(call: Call) -> None:
    scene = Scene(max_s=0.000_001)
    reply = await scene.streams(scene.permit(call), PING, PING, None)
    assert await read(reply) == [PING, PING]


@pytest.mark.parametrize("call", LISTENING)
async def test_the_head_of_a_stream_that_listens_may_be_late_but_not_for_ever(call: Call) -> None:
    """Some servers send it with their first event."""
    scene = Scene(idle_s=SHORT_S, timeout_s=0.000_001)
    told = await scene.hangs(scene.permit(call))
    assert (told.reason, told.status, told.data) == (Reason.DEADLINE, 504, {"limit": SILENCE})
    assert scene.cancelled == []


async def test_the_stream_of_http_sse_is_the_session_and_is_left_alone() -> None:
    """And it stays the very object that our own words are put into."""
    scene = Scene(idle_s=0.000_001, max_s=0.000_001)
    call = make_call(method="", kind=Kind.LISTEN, id=None, revision=TWO_ENDPOINTS)
    given = scene.source.reply()
    body = given.body
    scene.server.gives(given)
    scene.stage._idle_s = LONG_S  # of the head
    reply = await bounded(scene.stage, scene.permit(call))
    assert reply.body is body


async def test_a_stream_may_last_no_longer_than_the_longest() -> None:
    """Progress keeps it from being silent, not from being long."""
    clock = asyncio.get_running_loop().time
    scene = Scene(max_s=4 * SHORT_S, now=clock)
    asked = permit(structs.replace(make_call(revision=LEGACY, target="t"), received=clock()))
    reply = await scene.streams(asked)
    loop = asyncio.get_running_loop()
    for turn in range(1, 50):
        loop.call_later(turn * SHORT_S, scene.source.send, PROGRESS)
    chunks, is_told = await scene.breaks(reply)
    assert 1 <= len(chunks) < 20
    assert chunks[:-1] == [PROGRESS] * (len(chunks) - 1)
    assert b"longer than the 0.08 s" in chunks[-1]
    assert (is_told, dict(scene.stage.timed_out)) == (True, {LONGEST: 1})
    assert [each.call for each in scene.cancelled] == [asked.call]


async def test_a_server_that_never_pauses_ends_at_the_longest_too() -> None:
    """Nothing is ever waited for: the time is looked at all the same."""
    now = [NOW_S]
    scene = Scene(max_s=10, now=lambda: now[0])
    reply = await scene.streams(scene.permit(), *[PING] * 100)
    chunks: list[bytes] = []

    async def slowly() -> None:
        assert isinstance(reply.body, Stream)
        async with asyncio.timeout(SECONDS), reply:
            async for chunk in reply.body:
                chunks.append(chunk)
                now[0] += 1

    with pytest.raises(Broken):
        await slowly()
    await scene.goodbyes()
    assert chunks[:-1] == [PING] * 10


async def test_a_large_body_has_the_time_of_its_call() -> None:
    """It is passed on as it comes, and cut off: half an answer is none."""
    scene = Scene(timeout_s=SHORT_S)
    asked = scene.permit()
    reply = await scene.streams(asked, b'{"jsonrpc":', kind="application/json")
    chunks, is_told = await scene.breaks(reply)
    assert (chunks, is_told, scene.source.closed) == ([b'{"jsonrpc":'], False, 1)
    assert scene.diary == [("j1", "refused", Reason.OUTCOME_UNKNOWN)]
    assert [each.call for each in scene.cancelled] == [asked.call]
    assert dict(scene.stage.timed_out) == {CALL: 1}


async def test_a_large_body_that_drips_is_over_in_its_time() -> None:
    clock = asyncio.get_running_loop().time
    scene = Scene(timeout_s=4 * SHORT_S, now=clock)
    asked = permit(structs.replace(make_call(revision=MODERN), received=clock()))
    reply = await scene.streams(asked, kind="application/json")
    loop = asyncio.get_running_loop()
    for turn in range(1, 50):
        loop.call_later(turn * SHORT_S, scene.source.send, b" ")
    chunks, _ = await scene.breaks(reply)
    assert 1 <= len(chunks) < 20


async def test_a_slow_reader_of_a_large_body_keeps_it() -> None:
    """Only what we wait for the server counts; a slow client could have the server left alone for everybody."""
    now = [NOW_S]
    scene = Scene(timeout_s=10, now=lambda: now[0])
    reply = await scene.streams(scene.permit(), b"{", b"}", None, kind="application/json")
    assert isinstance(reply.body, Stream)
    async with asyncio.timeout(SECONDS), reply:
        async for _ in reply.body:
            now[0] += 1_000
    assert scene.diary == []


async def test_a_caller_in_a_hurry_does_not_cut_its_answer_off() -> None:
    """It would look like a server that breaks off."""
    scene = Scene()
    reply = await scene.streams(scene.permit(wishing(20)), b"{", kind="application/json")
    asyncio.get_running_loop().call_later(0.05, scene.source.send, b"}", None)
    assert await read(reply) == [b"{", b"}"]


async def test_a_large_body_without_a_time_of_its_own_may_not_be_silent() -> None:
    """`tasks/result` waits for its task."""
    scene = Scene(idle_s=SHORT_S)
    reply = await scene.streams(scene.permit(method="tasks/result"), b"{", kind="application/json")
    chunks, is_told = await scene.breaks(reply)
    assert (chunks, is_told, dict(scene.stage.timed_out)) == ([b"{"], False, {SILENCE: 1})


async def test_what_waits_for_a_task_is_not_ended_early() -> None:
    scene = Scene(timeout_s=0.000_001)
    assert (await bounded(scene.stage, scene.permit(method="tasks/result"))).status == 200


RULE = Rule(id="r", timeout_s=4 * SHORT_S)


@pytest.mark.parametrize("chunks", [(), (PING,), (b"id: 1\ndata:\n\n",), (b"retry: 5\n\n",)])
async def test_a_rule_also_times_an_answer_in_events_that_says_nothing(chunks: tuple[bytes, ...]) -> None:
    """Servers of older revisions send the head at once, and a priming event with it, and then the tool works."""
    scene = Scene()
    reply = await scene.streams(scene.permit(rule=RULE), *chunks)
    asyncio.get_running_loop().call_soon(scene.source.send, PING)
    seen, is_told = await scene.breaks(reply)
    assert seen[:-1] == [*chunks, PING]
    assert b"not done within 0.08 s" in seen[-1]
    assert (is_told, dict(scene.stage.timed_out)) == (True, {CALL: 1})


@pytest.mark.parametrize(
    "said",
    [
        PROGRESS,
        b"\xef\xbb\xbfdata: {}\n\n",
        b"event: message\r\ndata:{}\r\n\r\n",
        b": ping\n\nid: 1\rdata: {}\r\r",
    ],
)
async def test_a_server_that_says_something_is_given_time(said: bytes) -> None:
    """Protocol 4: a call is not timed out while events flow. It may ask its user something, which takes minutes."""
    scene = Scene()
    reply = await scene.streams(scene.permit(rule=Rule(id="r", timeout_s=SHORT_S)), said)
    asyncio.get_running_loop().call_later(4 * SHORT_S, scene.source.send, ANSWER, None)
    assert await read(reply) == [said, ANSWER]


async def test_the_usual_time_is_not_that_of_events() -> None:
    """They have patience of their own: any byte renews it."""
    scene = Scene(timeout_s=SHORT_S)
    reply = await scene.streams(scene.permit())
    asyncio.get_running_loop().call_later(4 * SHORT_S, scene.source.send, ANSWER, None)
    assert await read(reply) == [ANSWER]


async def test_what_a_stream_raises_passes() -> None:
    scene = Scene()
    reply = await scene.streams(scene.permit(), PING, TimeoutError())
    with pytest.raises(TimeoutError):
        await read(reply)
    assert (scene.source.closed, dict(scene.stage.timed_out)) == (1, {})


@pytest.mark.parametrize("turns", range(8))
async def test_leaving_a_stream_at_any_moment_leaves_nothing(turns: int) -> None:
    scene = Scene()
    tasks, before = asyncio.all_tasks(), timers()
    reply = await scene.streams(scene.permit(), PING, PING)
    endings: list[Ending] = []
    reply.when_done(endings.append)
    assert await cancelled_after(turns, read(reply))
    if not turns:
        reply.done(Ending.CLIENT_GONE)  # nobody ever began to read
    assert (endings, scene.source.closed, scene.cancelled) == ([Ending.CLIENT_GONE], 1, [])
    assert asyncio.all_tasks() == tasks
    assert timers() == before


async def test_a_stream_whose_caller_leaves_in_the_moment_of_silence() -> None:
    """The race: both in one turn of the loop."""
    scene = Scene(idle_s=RACE_S)
    reply = await scene.streams(scene.permit())
    endings: list[Ending] = []
    reply.when_done(endings.append)
    task = asyncio.ensure_future(read(reply))
    await until(lambda: scene.source.reads == 1)
    asyncio.get_running_loop().call_later(RACE_S / 2, task.cancel)
    _block(2 * RACE_S)
    async with asyncio.timeout(SECONDS):
        await asyncio.wait([task])
    assert task.cancelled()
    assert (endings, scene.source.closed, scene.diary) == ([Ending.CLIENT_GONE], 1, [])


async def test_an_answer_elsewhere_that_is_late_is_refused_there() -> None:
    """HTTP+SSE: the POST was acknowledged long ago."""
    scene = Scene(timeout_s=SHORT_S)
    scene.server.gives(Reply(202, Headers()))
    asked = scene.permit(revision=TWO_ENDPOINTS, body=b"body", params={"name": "t"})
    reply = await bounded(scene.stage, asked)
    scene.journey.outcome_at_server = Outcome.ATTEMPTED
    await until_time(lambda: bool(scene.overdue))
    await scene.goodbyes()
    ((told_of, told),) = scene.overdue
    assert (told.reason, told.status, told.data) == (Reason.OUTCOME_UNKNOWN, 504, {"limit": CALL})
    assert "0.02 s" in told.why
    assert (told_of.call.id, told_of.call.body, dict(told_of.call.params)) == (1, b"", {})
    assert scene.diary == [("j1", "refused", Reason.OUTCOME_UNKNOWN)]
    assert [each.call.id for each in scene.cancelled] == [1]
    assert dict(scene.stage.timed_out) == {CALL: 1}
    reply.done(Ending.UPSTREAM_BROKE)


async def until_time(happened: Callable[[], bool]) -> None:
    """Wait until a timer has made something happen."""
    ready = asyncio.Event()

    def look() -> None:
        if happened():
            ready.set()
        else:
            asyncio.get_running_loop().call_later(0.001, look)

    look()
    async with asyncio.timeout(SECONDS):
        await ready.wait()


@pytest.mark.parametrize(
    ("fields", "is_told"),
    [({"method": "initialize"}, False), ({"params": {"task": {}}}, False), ({"method": "tools/list"}, True)],
)
async def test_of_what_is_late_elsewhere_the_server_is_told_likewise(
    fields: dict[str, Any], is_told: bool
) -> None:
    scene = Scene(timeout_s=SHORT_S)
    scene.server.gives(Reply(202, Headers()))
    reply = await bounded(scene.stage, scene.permit(revision=TWO_ENDPOINTS, **fields))
    await until_time(lambda: bool(scene.overdue))
    await scene.goodbyes()
    assert len(scene.cancelled) == is_told
    reply.done(Ending.UPSTREAM_BROKE)


async def test_a_caller_in_a_hurry_elsewhere_says_nothing_of_the_server() -> None:
    """How its reply ends is all that whoever counts failures is told."""
    scene = Scene(timeout_s=4 * SHORT_S)
    scene.server.gives(Reply(202, Headers()))
    reply = await bounded(scene.stage, scene.permit(wishing(20, revision=TWO_ENDPOINTS)))
    await until_time(lambda: bool(scene.overdue))
    await scene.goodbyes()
    assert scene.overdue[0][1].data == {"limit": CALL}
    assert "0.08 s" in scene.overdue[0][1].why
    reply.done(Ending.UPSTREAM_BROKE)


async def test_an_answer_elsewhere_that_came_is_waited_for_no_more() -> None:
    """Nothing is kept of it, neither timer nor body."""
    before = timers()
    scene = Scene()
    scene.server.gives(Reply(202, Headers()))
    said = Said(name="t")
    known = weakref.ref(said)
    reply = await bounded(scene.stage, scene.permit(revision=TWO_ENDPOINTS, params=said))
    assert timers() == before + 1
    scene.server.seen.clear()
    del said
    gc.collect()
    assert known() is None
    reply.done(Ending.COMPLETE)
    assert timers() == before


@pytest.mark.parametrize(
    "call",
    [
        make_call(method="notifications/x", kind=Kind.NOTIFICATION, id=None, revision=TWO_ENDPOINTS),
        make_call(method="", kind=Kind.ANSWER, revision=TWO_ENDPOINTS),
        make_call(method="tasks/result", revision=TWO_ENDPOINTS),
        make_call(revision=LEGACY),
    ],
)
async def test_what_has_no_answer_elsewhere_is_not_waited_for(call: Call) -> None:
    before = timers()
    scene = Scene(timeout_s=60)
    await bounded(scene.stage, scene.permit(call))
    assert timers() == before


async def test_fields_of_a_wish_are_found_whatever_their_case() -> None:
    call = make_call(target="t", headers=make_headers(Mcp_Sidecar_Timeout_Ms="250"))
    assert Deadlines(timeout_s=60)(permit(call)) == 0.25
