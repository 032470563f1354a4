"""Who is refused while the server, or a tool, is left alone; what tries it; what counts. Source: issue 7, item 4."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from proxy.model import OWN_WISH, Broken, Call, Ending, Headers, Kind, Permit, Reason, Refused, Reply, Rule
from proxy.protocol.revisions import TWO_ENDPOINTS
from proxy.refusals import explain
from proxy.resilience.breaker import ALIVE_S, Breaker, State
from proxy.resilience.guarding import LOOK_EVERY_S, Guarding, is_guarded
from proxy.resilience.quarantine import Quarantine
from tests.fakes import make_batch, make_call
from tests.unit.resilience.scripted import (
    INTERNAL_ERROR,
    LEGACY,
    MODERN,
    SECONDS,
    Server,
    Source,
    answer,
    bounded,
    cancelled_after,
    permit,
    read,
    refused,
    tool,
    until,
)

UNREACHABLE = Refused(Reason.UPSTREAM_UNREACHABLE)
UNKNOWN = Refused(Reason.OUTCOME_UNKNOWN)


class Scene:
    """The stage on a clock that stands still, before a server that does as it is told."""

    def __init__(
        self,
        *,
        failures: int = 1,
        counts_internal_errors: bool = True,
        has_breaker: bool = True,
        of_tool: int = 0,
    ) -> None:
        """`of_tool`: so many calls of a tool, half of which failed, have it left alone; 0: nothing does."""
        self.now = 100.0
        self.server = Server()
        self.breaker = Breaker(
            failures=failures, failure_ratio=1, min_calls=1_000, window_s=10, open_s=5, max_open_s=60
        )
        self.quarantine = (
            Quarantine(failure_ratio=0.5, min_calls=of_tool, window_s=60, for_s=30) if of_tool else None
        )
        self.stage = Guarding(
            self.server,
            self.breaker if has_breaker else None,
            self.quarantine,
            counts_internal_errors=counts_internal_errors,
            now=lambda: self.now,
        )

    @property
    def states(self) -> tuple[str, list[str]]:
        return self.stage.state.value, list(self.stage.quarantined)

    async def call(self, call: Call | None = None) -> Reply:
        return await bounded(self.stage, permit(call))

    async def refused(self, call: Call | None = None, rule: Rule | None = None) -> Refused:
        return await refused(self.stage, permit(call, rule))

    async def fail(self, call: Call | None = None, times: int = 1) -> None:
        """The server breaks off this call."""
        self.server.says(UNKNOWN)
        for _ in range(times):
            assert await self.refused(call) is UNKNOWN
        self.server.act = None

    async def open(self) -> None:
        await self.fail()
        assert self.states == ("open", [])

    async def half_open(self) -> None:
        """The next call tries the server."""
        await self.open()
        self.now += 5


def request(method: str, **fields: Any) -> Call:
    return make_call(method=method, revision=fields.pop("revision", LEGACY), **fields)


def notification(method: str) -> Call:
    return make_call(method=method, kind=Kind.NOTIFICATION, id=None)


WORK: Mapping[str, Call] = {
    "a tool": tool("t"),
    "a tool without an id": make_call(kind=Kind.NOTIFICATION, id=None, target="t"),
    "a list": request("tools/list"),
    "initialize": request("initialize"),
    "a task": request("tasks/get"),
    "something new": request("nobody/knows"),
    "a batch with a call": make_batch(notification("notifications/progress"), tool("t")),
    "a message of HTTP+SSE": make_call(revision=TWO_ENDPOINTS, target="t"),
}
PASSING: Mapping[str, Call] = {
    "discovery": request("server/discover", revision=MODERN),
    "ping": request("ping"),
    "an end of a task": request("tasks/cancel"),
    "an answer": make_call(method="", kind=Kind.ANSWER),
    "a notification": notification("notifications/cancelled"),
    "initialized": notification("notifications/initialized"),
    "GET": make_call(method="", kind=Kind.LISTEN, id=None),
    "a session of HTTP+SSE": make_call(method="", kind=Kind.LISTEN, id=None, revision=TWO_ENDPOINTS),
    "DELETE": make_call(method="", kind=Kind.END, id=None),
    "subscriptions": request("subscriptions/listen", revision=MODERN),
    "answers": make_batch(make_call(method="", kind=Kind.ANSWER), make_call(method="", kind=Kind.ANSWER)),
}


@pytest.mark.parametrize("name", WORK)
async def test_work_waits_while_the_server_is_left_alone(name: str) -> None:
    call = WORK[name]
    assert is_guarded(call)
    scene = Scene()
    await scene.open()
    seen = len(scene.server.seen)
    told = await scene.refused(call)
    assert (told.reason, told.retry_after_s) == (Reason.BREAKER_OPEN, 5.0)
    assert (told.data, "Nothing was sent" in told.why) == ({"limit": "resilience.breaker"}, True)
    assert (len(scene.server.seen), dict(scene.stage.refused)) == (seen, {"breaker": 1})
    scene.now += 5
    (await scene.call(call)).done(Ending.COMPLETE)
    assert scene.states == ("closed", [])


@pytest.mark.parametrize("name", PASSING)
async def test_what_would_end_more_than_it_refuses_passes(name: str) -> None:
    """Protocol 2.5, 7.1 and trap 2: nobody sends these again, or a session or an era ends with them."""
    call = PASSING[name]
    assert not is_guarded(call)
    scene = Scene()
    await scene.open()
    assert (await scene.call(call)).status == 200
    assert (scene.states, len(scene.server.seen)) == (("open", []), 2)


@pytest.mark.parametrize("name", PASSING)
async def test_what_passes_is_neither_counted_nor_a_try(name: str) -> None:
    scene = Scene()
    await scene.fail(PASSING[name], 9)
    assert scene.states == ("closed", [])
    await scene.half_open()
    await scene.fail(PASSING[name])
    await scene.call(PASSING[name])
    assert scene.states == ("open", [])
    await scene.call()
    assert scene.states == ("closed", [])


async def test_a_refused_initialize_is_a_plain_outage() -> None:
    """Protocol 2.5: a 4xx, or a JSON-RPC error, would make clients change era for good."""
    scene = Scene()
    await scene.open()
    call = request("initialize")
    reply = explain(await scene.refused(call), call, "result")
    assert (reply.status, reply.headers.get("content-type")) == (503, "text/plain; charset=utf-8")
    assert reply.headers.get("retry-after") == "5"


async def test_a_refused_tool_is_told_to_the_model() -> None:
    """Design 5: a result with isError keeps the session alive."""
    scene = Scene()
    await scene.open()
    reply = explain(await scene.refused(), tool("t"), "result")
    assert reply.status == 200
    assert isinstance(reply.body, bytes)
    assert b'"isError":true' in reply.body
    assert b'"reason":"breaker_open"' in reply.body
    assert b'"retryAfterMs":5000' in reply.body


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (answer(), "closed"),
        (answer(404), "closed"),
        (answer(429, b""), "closed"),
        (answer(503, b""), "open"),
        (answer(500, b"<html>"), "open"),
        (answer(200, INTERNAL_ERROR), "open"),
        (UNREACHABLE, "open"),
        (UNKNOWN, "open"),
        (Refused(Reason.DEADLINE), "open"),
        (Refused(Reason.DEADLINE, data={"limit": OWN_WISH}), "closed"),
        (Refused(Reason.OUTCOME_UNKNOWN, data={"limit": OWN_WISH}), "closed"),
        (Refused(Reason.OVERLOADED), "closed"),
        (RuntimeError("our fault"), "closed"),
        (asyncio.CancelledError(), "closed"),
    ],
)
async def test_what_counts_as_a_failure(outcome: Reply | BaseException, state: str) -> None:
    """Protocol 7.5, as `signals` reads it; a caller in a hurry is no failing server."""
    scene = Scene()
    scene.server.says(outcome)
    if isinstance(outcome, Reply):
        assert (await scene.call()).status == outcome.status
    else:
        with pytest.raises(type(outcome)):
            await scene.call()
    assert scene.states == (state, [])


async def test_internal_errors_count_only_where_the_settings_say_so() -> None:
    scene = Scene(counts_internal_errors=False)
    scene.server.says(answer(200, INTERNAL_ERROR))
    await scene.call()
    assert scene.states == ("closed", [])
    usual = Guarding(scene.server, scene.breaker, now=lambda: scene.now)
    await bounded(usual, permit())
    assert usual.state is State.OPEN


@pytest.mark.parametrize(
    ("ending", "state"),
    [
        (Ending.COMPLETE, "closed"),
        (Ending.UPSTREAM_BROKE, "open"),
        (Ending.CLIENT_GONE, "half_open"),
        (Ending.PROXY_FAILED, "half_open"),
    ],
)
async def test_a_stream_tells_when_it_ends(ending: Ending, state: str) -> None:
    """And until then it is the one that tries the server."""
    scene = Scene()
    await scene.half_open()
    source = Source()
    scene.server.gives(source.reply())
    reply = await scene.call()
    assert (await scene.refused()).reason is Reason.BREAKER_OPEN
    reply.done(ending)
    reply.done(Ending.COMPLETE)
    assert (scene.stage.state.value, source.closed) == (state, 1)
    if state == "half_open":
        scene.server.act = None
        await scene.call()
        assert scene.states == ("closed", [])


async def test_an_internal_error_in_a_stream_counts() -> None:
    """Servers of older revisions answer in events."""
    scene = Scene()
    source = Source()
    scene.server.gives(source.reply())
    reply = await scene.call()
    source.send(b"data: " + INTERNAL_ERROR + b"\n\n", None)
    assert len(await read(reply)) == 1
    assert scene.states == ("open", [])


async def test_an_acknowledgement_tells_when_its_answer_has_come() -> None:
    """HTTP+SSE: the POST ends with 202 while the server still works; the reply is told later."""
    scene = Scene()
    await scene.half_open()
    reply = Reply(202, Headers())
    scene.server.gives(reply)
    await scene.call(make_call(revision=TWO_ENDPOINTS, target="t"))
    assert scene.states == ("half_open", [])
    reply.done(Ending.UPSTREAM_BROKE)
    assert scene.states == ("open", [])


async def test_a_stream_that_keeps_coming_has_told_enough() -> None:
    """An elicitation may take its user minutes; everybody else would wait for it."""
    scene = Scene()
    await scene.half_open()
    scene.server.gives(Source().reply())
    reply = await scene.call()
    scene.now += ALIVE_S
    scene.server.act = None
    await scene.call()
    assert scene.states == ("closed", [])
    reply.done(Ending.UPSTREAM_BROKE)
    assert scene.states == ("closed", [])


async def test_one_call_tries_the_server_while_the_others_are_refused() -> None:
    scene = Scene()
    await scene.half_open()
    go = asyncio.Event()

    async def slowly(_: Permit) -> Reply:
        await go.wait()
        return answer()

    scene.server.act = slowly
    probe = asyncio.ensure_future(scene.call())
    await until(lambda: scene.server.now == 1)
    told = [await scene.refused() for _ in range(9)]
    assert {each.reason for each in told} == {Reason.BREAKER_OPEN}
    assert all(each.retry_after_s == 1.0 for each in told)
    go.set()
    await probe
    await asyncio.gather(*(scene.call() for _ in range(9)))
    assert scene.states == ("closed", [])


@pytest.mark.parametrize("turns", range(7))
async def test_whoever_tries_it_and_leaves_at_any_moment_lets_the_next_one_try(turns: int) -> None:
    """Issue 7: a cancelled probe releases, of the server and of the tool."""
    scene = Scene(of_tool=2)
    scene.breaker = Breaker(
        failures=2, failure_ratio=1, min_calls=1_000, window_s=10, open_s=30, max_open_s=60
    )
    scene.stage = Guarding(scene.server, scene.breaker, scene.quarantine, now=lambda: scene.now)
    await scene.fail(times=2)
    assert scene.states == ("open", ["t"])
    scene.now += 30

    async def in_steps(_: Permit) -> Reply:
        for _step in range(3):
            await asyncio.sleep(0)
        return answer()

    scene.server.act = in_steps
    reached_its_end = not await cancelled_after(turns, scene.stage(permit()))
    assert scene.server.now == 0
    if not reached_its_end:
        assert scene.states[0] in ("open", "half_open")
        scene.server.act = None
        await scene.call()
    assert scene.states == ("closed", [])


async def test_moments_of_leaving_are_all_of_them() -> None:
    """The test above leaves before, within and after the call."""
    outcomes = []
    for turns in range(7):
        server = Server()

        async def in_steps(_: Permit) -> Reply:
            for _step in range(3):
                await asyncio.sleep(0)
            return answer()

        server.act = in_steps
        was_cancelled = await cancelled_after(turns, Guarding(server, None)(permit()))
        outcomes.append((was_cancelled, len(server.seen)))
    assert outcomes == [(True, 0), *[(True, 1)] * 3, *[(False, 1)] * 3]


async def test_our_own_failure_leaves_nobody_locked_out() -> None:
    """Where the stage itself fails, the reply is ended and the next call may try the server."""
    scene = Scene()
    await scene.half_open()
    times: list[float | Exception] = [scene.now, RuntimeError("no time")]

    def clock() -> float:
        time = times.pop(0) if times else scene.now
        if isinstance(time, Exception):
            raise time
        return time

    stage = Guarding(scene.server, scene.breaker, now=clock)
    source = Source()
    scene.server.gives(source.reply())
    with pytest.raises(RuntimeError):
        await bounded(stage, permit())
    assert source.closed == 1
    scene.server.act = None
    await bounded(stage, permit())
    assert scene.breaker.state is State.CLOSED


async def test_without_a_breaker_nothing_is_refused() -> None:
    scene = Scene(has_breaker=False)
    await scene.fail(times=99)
    await scene.call()
    assert (scene.states, scene.stage.opened, scene.stage.why_degraded()) == (("closed", []), 0, [])


async def test_a_tool_that_keeps_failing_is_refused_and_others_are_called() -> None:
    scene = Scene(failures=1_000, of_tool=4)
    await scene.fail(tool("broken"), 4)
    told = await scene.refused(tool("broken"))
    assert (told.reason, told.retry_after_s, told.data) == (
        Reason.QUARANTINED,
        30.0,
        {"limit": "resilience.quarantine"},
    )
    assert "Nothing was sent" in told.why
    assert "Instead" not in told.why
    instead = Rule(id="r", instead="Use works.")
    assert (await scene.refused(tool("broken"), instead)).why.endswith("Instead: Use works.")
    await scene.call(tool("works"))
    await scene.call(make_call(method="prompts/get", revision=LEGACY, target="broken"))
    assert dict(scene.stage.refused) == {"quarantine": 2}
    assert scene.states == ("closed", ["broken"])
    scene.now += 30
    await scene.call(tool("broken"))
    assert scene.states == ("closed", [])


async def test_streams_of_a_tool_count_for_it() -> None:
    scene = Scene(has_breaker=False, of_tool=2)
    for ending in (Ending.UPSTREAM_BROKE, Ending.UPSTREAM_BROKE):
        scene.server.gives(Source().reply())
        (await scene.call()).done(ending)
    assert scene.states == ("closed", ["t"])
    scene.now += 30
    scene.server.gives(Source().reply())
    reply = await scene.call()
    assert (await scene.refused()).reason is Reason.QUARANTINED
    scene.now += ALIVE_S
    scene.server.act = None
    await scene.call()
    assert scene.states == ("closed", [])
    reply.done(Ending.COMPLETE)


async def test_only_calls_of_tools_are_attempts_of_tools() -> None:
    """A prompt may be called like a tool."""
    scene = Scene(has_breaker=False, of_tool=1)
    await scene.fail(make_call(method="prompts/get", revision=LEGACY, target="t"), 9)
    assert scene.states == ("closed", [])


async def test_a_batch_with_a_tool_that_is_left_alone_is_not_sent() -> None:
    """Not even the part that could be: it is one exchange. And it tells nothing of any tool."""
    scene = Scene(has_breaker=False, of_tool=2)
    batch = make_batch(tool("works"), tool("broken"))
    await scene.fail(batch, 9)
    await scene.call(batch)
    assert scene.states == ("closed", [])
    await scene.fail(tool("broken"), 2)
    told = await scene.refused(batch)
    assert (told.reason, told.retry_after_s) == (Reason.QUARANTINED, 30.0)
    assert "batch" in told.why
    await scene.call(make_batch(tool("works"), request("tools/list")))
    scene.now += 30
    assert (await scene.refused(batch)).reason is Reason.QUARANTINED
    await scene.call(tool("broken"))
    await scene.call(batch)


async def test_a_tool_tried_while_the_server_is_left_alone_is_tried_later() -> None:
    """The no of the server's breaker gives the tool's turn back."""
    scene = Scene(failures=2, of_tool=2)
    await scene.fail(times=2)
    assert scene.states == ("open", ["t"])
    scene.breaker.close()
    scene.now += 30
    await scene.fail(request("tools/list"), 2)
    assert (await scene.refused()).reason is Reason.BREAKER_OPEN
    scene.now += 5
    await scene.call()
    assert scene.states == ("closed", [])


async def test_an_operator_is_told_without_names() -> None:
    """Design 4: an open breaker is degraded, not unready; the operations port tells no tenant's data."""
    scene = Scene(failures=2, of_tool=2)
    assert scene.stage.why_degraded() == []
    await scene.fail(tool("secret"), 2)
    assert scene.stage.why_degraded() == [
        "the server keeps failing and is left alone",
        "tools that keep failing and are left alone: 1",
    ]
    assert (scene.stage.why_unready(), scene.stage.opened) == (None, 1)


async def looked(scene: Scene, *found: bool | BaseException) -> int:
    """How often a connection was tried when the job woke up as often as there are answers, and found them."""
    wakes = iter(found)
    looks = 0
    now: bool | BaseException | None = None

    async def sleep(seconds: float) -> None:
        nonlocal now
        assert seconds == LOOK_EVERY_S
        now = next(wakes, None)
        if now is None:
            await asyncio.Event().wait()

    async def connects() -> bool:
        nonlocal looks
        looks += 1
        assert now is not None
        if isinstance(now, BaseException):
            raise now
        return now

    job = asyncio.ensure_future(scene.stage.look_for_life(connects, sleep))
    for _ in range(20 * len(found)):
        await asyncio.sleep(0)
    job.cancel()
    await asyncio.wait([job])
    assert job.cancelled()
    return looks


async def test_a_server_that_is_there_again_is_tried_at_once() -> None:
    """Corpus UP-090: calls succeed within two seconds of its return."""
    scene = Scene()
    scene.server.says(UNREACHABLE)
    await scene.refused()
    assert await looked(scene, False, False, True, True) == 3
    assert scene.states == ("open", [])
    scene.server.act = None
    await scene.call()
    assert scene.states == ("closed", [])


async def test_a_server_that_was_down_only_while_it_was_looked_for() -> None:
    """Its connections broke; it was gone a moment later, and came back."""
    scene = Scene()
    await scene.open()
    assert await looked(scene, True, False, True) == 3
    await scene.call()
    assert scene.states == ("closed", [])


async def test_a_server_that_takes_connections_and_fails_is_left_its_time() -> None:
    """A storm of 503 is not over because a port is open."""
    scene = Scene()
    scene.server.says(answer(503, b""))
    await scene.call()
    assert await looked(scene, True, True, True) == 3
    assert (await scene.refused()).retry_after_s == 5


async def test_it_is_known_again_that_it_is_reached() -> None:
    """It was down before it answered; that says nothing of its next failure."""
    scene = Scene(failures=2)
    scene.server.says(UNREACHABLE)
    await scene.refused()
    scene.server.act = None
    await scene.call()
    await scene.fail(times=2)
    assert await looked(scene, True, True) == 2
    assert (await scene.refused()).retry_after_s == 5


async def test_nobody_looks_while_calls_do() -> None:
    """Closed, half open, or open with its time over."""
    scene = Scene()
    assert await looked(scene, True) == 0
    scene.server.says(UNREACHABLE)
    await scene.refused()
    scene.now += 5
    assert await looked(scene, True) == 0
    scene.server.act = None
    await scene.call()
    assert await looked(scene, True) == 0


async def test_the_job_sleeps_while_all_is_well() -> None:
    """However many calls there are; it is woken when the breaker opens, and goes back to sleep when it has closed."""
    pauses = 0

    async def at_once(_: float) -> None:
        nonlocal pauses
        pauses += 1
        await asyncio.sleep(0)

    async def connects() -> bool:
        raise AssertionError

    scene = Scene()
    job = asyncio.ensure_future(scene.stage.look_for_life(connects, at_once))
    for _ in range(9):
        await scene.call()
        await asyncio.sleep(0)
    assert pauses == 0
    await scene.fail()
    scene.breaker.close()
    for _ in range(9):
        await asyncio.sleep(0)
    assert pauses == 1
    job.cancel()
    await asyncio.wait([job])


async def test_nobody_looks_where_nothing_is_left_alone() -> None:
    async def connects() -> bool:
        raise AssertionError

    async with asyncio.timeout(SECONDS):
        await Guarding(Server(), None).look_for_life(connects)


async def test_a_look_that_takes_too_long_finds_nothing() -> None:
    """A black hole takes no connection and refuses none: the job must not wait in it for ever."""
    scene = Scene()
    await scene.open()
    looks = 0
    has_looked_twice = asyncio.Event()

    async def at_once(_: float) -> None:
        if looks == 2:
            has_looked_twice.set()
            await asyncio.Event().wait()

    async def hangs_first() -> bool:
        nonlocal looks
        looks += 1
        if looks == 1:
            await asyncio.Event().wait()
        return True

    job = asyncio.ensure_future(scene.stage.look_for_life(hangs_first, at_once, look_s=0.01))
    async with asyncio.timeout(SECONDS):
        await has_looked_twice.wait()
    job.cancel()
    await asyncio.wait([job])
    await scene.call()
    assert scene.states == ("closed", [])


async def test_breaking_off_is_told_by_whoever_reads() -> None:
    """The signal comes through the reply, not from the stage: Broken is raised where the stream is read."""
    scene = Scene()
    source = Source()
    scene.server.gives(source.reply())
    source.send(b"data: {}\n\n", Broken(told=False))
    reply = await scene.call()
    with pytest.raises(Broken):
        await read(reply)
    assert (scene.states, source.closed) == (("open", []), 1)
