"""A call waits for its place and holds it until its reply has ended: every way in, every way out."""

from __future__ import annotations

import asyncio
import gc
import math
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from proxy.capacity.building import Room
from proxy.capacity.settings import AdaptiveSettings, CapacitySettings
from proxy.capacity.stage import takes_place
from proxy.model import (
    Broken,
    Call,
    Deadline,
    Ending,
    Headers,
    Kind,
    Permit,
    Principal,
    Reason,
    Refused,
    Reply,
    Rule,
    Stage,
    Stream,
    never_ends,
)
from proxy.protocol.revisions import TWO_ENDPOINTS
from proxy.upstream.http_sse import Acknowledged
from tests.fakes import FakeJourney, make_batch, make_call
from tests.timers import timers

SECONDS = 5.0
"""The bound of every wait of a test."""


def permit(
    call: Call | None = None, *, tenant: str = "acme", tool_class: str = "read", instead: str = ""
) -> Permit:
    return Permit(
        call=call or make_call(target="t"),
        principal=Principal(issuer="test", subject="ann", tenant=tenant),
        rule=Rule(id="r", tool_class=tool_class, instead=instead),
    )


def tool(name: str) -> Call:
    return make_call(target=name)


class Server:
    """The next stage: answers as it was told, and says what it has seen."""

    def __init__(self, answer: Callable[[], Awaitable[Reply]] | None = None) -> None:
        self.seen: list[Permit] = []
        self.answer = answer

    async def __call__(self, permit: Permit) -> Reply:
        self.seen.append(permit)
        return await self.answer() if self.answer is not None else Reply(200, Headers(), b"{}")


class Scene:
    """A room with a server behind it."""

    def __init__(
        self,
        settings: CapacitySettings,
        server: Server | None = None,
        *,
        deadline: Deadline = never_ends,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.server = server or Server()
        self.room = Room(settings, deadline=deadline, now=now)
        self.stage: Stage = self.room.guarded(self.server)

    @property
    def gauges(self) -> tuple[int, int]:
        return self.room.in_flight, self.room.waiting

    async def call(self, permit: Permit) -> Reply:
        async with asyncio.timeout(SECONDS):
            return await self.stage(permit)

    async def refused(self, permit: Permit) -> Refused:
        with pytest.raises(Refused) as caught:
            await self.call(permit)
        return caught.value

    async def waits(self, permit: Permit) -> asyncio.Task[Reply]:
        """A call that is in the queue when this returns."""
        before = self.room.waiting
        task = asyncio.ensure_future(self.call(permit))
        await until(lambda: self.room.waiting > before or task.done())
        assert not task.done()
        return task


def scene(server: Server | None = None, **settings: object) -> Scene:
    return Scene(CapacitySettings(**{"max_in_flight": 1, **settings}), server)  # type: ignore[arg-type]  # by name


async def until(happened: Callable[[], bool]) -> None:
    """Turns of the loop, a bounded number of them, until something has happened."""
    for _ in range(1_000):
        if happened():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never happened")


async def nothing() -> AsyncIterator[bytes]:
    yield b""


def streamed(closed: list[str] | None = None) -> Reply:
    return Reply(
        200, Headers(), Stream(nothing(), lambda: (closed if closed is not None else []).append("closed"))
    )


TAKES = [
    (make_call(target="t"), True),
    (make_call(target="t", kind=Kind.NOTIFICATION, id=None), True),
    (make_call(method="tools/list"), True),
    (make_call(method="resources/read"), True),
    (make_call(method="nobody/knows"), True),
    (make_call(method="notifications/of/its/own"), True),
    (make_call(method="tasksy"), True),
    (make_call(method="nobody/knows", kind=Kind.NOTIFICATION, id=None), True),
    (make_call(method="", kind=Kind.ANSWER), False),
    (make_call(method="", kind=Kind.LISTEN, id=None), False),
    (make_call(method="", kind=Kind.END, id=None), False),
    (make_call(method="notifications/cancelled", kind=Kind.NOTIFICATION, id=None), False),
    (make_call(method="notifications/progress", kind=Kind.NOTIFICATION, id=None), False),
    *(
        (make_call(method=method), False)
        for method in (
            "initialize",
            "logging/setLevel",
            "ping",
            "server/discover",
            "subscriptions/listen",
            "tasks/get",
            "tasks/result",
            "tasks/update",
            "tasks/cancel",
            "tasks/list",
        )
    ),
]


@pytest.mark.parametrize(("call", "takes"), TAKES)
async def test_what_takes_a_place(call: Call, takes: bool) -> None:
    """Issue 5, 4: what somebody with a place may wait for never waits for one itself."""
    assert takes_place(call) is takes
    room = scene()
    held = await room.call(permit())
    if takes:
        assert (await room.refused(permit(call))).reason is Reason.OVERLOADED
    else:
        await room.call(permit(call))
        assert room.gauges == (1, 0)
    held.done(Ending.COMPLETE)
    assert room.gauges == (0, 0)


@pytest.mark.parametrize(("call", "takes"), TAKES)
async def test_without_memory_new_calls_are_refused_and_nothing_else(call: Call, takes: bool) -> None:
    """Issue 7, 7: shed above 0.95, with when to come back; what others wait for passes, as ever, also in a batch."""
    is_short = True
    server = Server()
    room = Room(CapacitySettings(), is_short=lambda: is_short)
    stage = room.guarded(server)
    for each in (call, make_batch(call), make_batch(make_call(method="", kind=Kind.ANSWER), call)):
        if not takes:
            await stage(permit(each))
            continue
        with pytest.raises(Refused) as caught:
            await stage(permit(each, instead="Call `small`."))
        assert caught.value.reason is Reason.OVERLOADED
        assert caught.value.data == {"limit": "capacity.memory"}
        assert caught.value.retry_after_s == 1.0
        assert caught.value.why.startswith(
            "The proxy has no memory left for it. Nothing was sent to the server"
        )
        assert caught.value.why.endswith("Call `small`.")
    assert (room.refused["memory"], len(server.seen)) == ((3, 0) if takes else (0, 3))
    is_short = False
    await stage(permit(call))
    assert len(server.seen) == (1 if takes else 4)


async def test_an_answer_passes_while_its_call_holds_the_last_place() -> None:
    """Protocol 4: the server asks its client within a call; were the answer to wait, both would forever."""
    answered = asyncio.Event()

    async def asks() -> Reply:
        if room.server.seen[-1].call.kind is Kind.ANSWER:
            answered.set()
            return Reply(202, Headers())
        await answered.wait()
        return Reply(200, Headers(), b"{}")

    room = scene(Server(asks), overload="queue", max_wait_s=60)
    call = asyncio.ensure_future(room.call(permit()))
    await until(lambda: room.room.in_flight > 0)
    await room.call(permit(make_call(method="", kind=Kind.ANSWER)))
    (await call).done(Ending.COMPLETE)
    assert room.gauges == (0, 0)


@pytest.mark.parametrize("ending", list(Ending))
async def test_a_place_is_held_until_the_reply_has_ended(ending: Ending) -> None:
    """Issue 5: with a capacity of 1 and a stream, the second call gets its place at the stream's end."""
    closed: list[str] = []

    async def streams() -> Reply:
        return streamed(closed)

    room = scene(Server(streams), overload="queue", max_wait_s=60)
    first = await room.call(permit())
    second = await room.waits(permit())
    assert (room.gauges, closed) == ((1, 1), [])
    first.done(ending)
    first.done(ending)
    assert closed == ["closed"]
    (await second).done(Ending.COMPLETE)
    assert room.gauges == (0, 0)


async def test_an_acknowledged_call_holds_its_place_until_its_answer() -> None:
    """HTTP+SSE: the POST ends with 202 while the server still works."""
    reply = Acknowledged(202, Headers())

    async def acknowledges() -> Reply:
        return reply

    room = scene(Server(acknowledges))
    async with await room.call(permit(make_call(target="t", revision=TWO_ENDPOINTS))):
        pass
    assert room.gauges == (1, 0)
    reply.settle(Ending.COMPLETE)
    assert room.gauges == (0, 0)


@pytest.mark.parametrize(
    "error",
    [
        Refused(Reason.UPSTREAM_UNREACHABLE),
        Refused(Reason.DEADLINE),
        Broken(told=False),
        RuntimeError("our fault"),
        asyncio.CancelledError(),
    ],
)
@pytest.mark.parametrize("learns", [False, True])
async def test_a_place_comes_back_when_no_reply_does(error: BaseException, learns: bool) -> None:
    async def fails() -> Reply:
        raise error

    room = scene(Server(fails), adaptive=AdaptiveSettings() if learns else None)
    with pytest.raises(type(error)):
        await room.call(permit())
    assert room.gauges == (0, 0)


async def test_a_client_that_leaves_during_the_call_leaves_its_place() -> None:
    never = asyncio.Event()

    async def hangs() -> Reply:
        await never.wait()
        return Reply(200, Headers())

    room = scene(Server(hangs), overload="queue", max_wait_s=60)
    first = asyncio.ensure_future(room.call(permit()))
    await until(lambda: room.room.in_flight > 0)
    second = await room.waits(permit())
    first.cancel()
    await until(lambda: len(room.server.seen) == 2)
    assert room.gauges == (1, 0)
    second.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    assert room.gauges == (0, 0)


async def test_who_leaves_the_queue_is_never_sent() -> None:
    room = scene(overload="queue", max_wait_s=60)
    held = await room.call(permit())
    one, two = await room.waits(permit()), await room.waits(permit())
    one.cancel()
    await asyncio.gather(one, return_exceptions=True)
    assert room.gauges == (1, 1)
    held.done(Ending.COMPLETE)
    (await two).done(Ending.COMPLETE)
    assert (room.gauges, len(room.server.seen)) == ((0, 0), 2)


@pytest.mark.parametrize("leaves_first", [True, False])
async def test_leaving_in_the_moment_of_ones_turn_passes_the_place_on(leaves_first: bool) -> None:
    """The race: the place is given and the caller goes before it has woken up, in either order."""
    room = scene(overload="queue", max_wait_s=60)
    held = await room.call(permit())
    one, two = await room.waits(permit()), await room.waits(permit())
    if leaves_first:
        one.cancel()
        held.done(Ending.COMPLETE)
    else:
        held.done(Ending.COMPLETE)
        one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one
    (await two).done(Ending.COMPLETE)
    assert (room.gauges, len(room.server.seen)) == ((0, 0), 2)


async def test_ten_thousand_that_left_leave_every_gauge_at_its_start() -> None:
    """Issue 5: cancelled while they wait, in any tenant; nothing is kept of them."""
    room = scene(overload="queue", queue_depth=100_000, max_wait_s=60)
    held = await room.call(permit())
    tasks = [asyncio.ensure_future(room.stage(permit(tenant=f"t{number % 100}"))) for number in range(10_000)]
    await asyncio.sleep(0)
    assert room.gauges == (1, 10_000)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert room.gauges == (1, 0)
    held.done(Ending.COMPLETE)
    assert room.gauges == (0, 0)
    assert len(room.server.seen) == 1


async def test_nothing_is_kept_of_calls_that_waited() -> None:
    """However it ended: neither the call nor the timer of its longest wait."""
    gc.collect()
    before = timers()
    room = scene(overload="queue", max_wait_s=60)
    held = await room.call(permit())
    journeys = [FakeJourney() for _ in range(2)]
    known = [weakref.ref(each) for each in journeys]
    served, left = [await room.waits(permit(make_call(target="t", journey=each))) for each in journeys]
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    held.done(Ending.COMPLETE)
    (await served).done(Ending.COMPLETE)
    room.server.seen.clear()
    del journeys, served, left
    gc.collect()
    assert [each() for each in known] == [None, None]
    assert timers() == before


async def test_a_turn_that_comes_with_the_end_of_the_wait_has_come() -> None:
    """The race: the loop was busy, and finds the place free and the wait over at once."""
    room = scene(overload="queue", max_wait_s=0.2)
    held = await room.call(permit())
    call = await room.waits(permit())
    asyncio.get_running_loop().call_later(0.05, held.done, Ending.COMPLETE)
    _block(0.3)
    reply = await call
    assert room.gauges == (1, 0)
    reply.done(Ending.COMPLETE)
    assert room.gauges == (0, 0)


def _block(seconds: float) -> None:
    """The loop does nothing else meanwhile."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


async def test_who_made_way_and_had_left_already_is_told_nothing() -> None:
    """The race: it is displaced between its leaving and its last step."""
    room = scene(overload="queue", queue_depth=2, max_wait_s=60)
    held = await room.call(permit(tenant="greedy"))
    one = await room.waits(permit(tenant="greedy"))
    two = await room.waits(permit(tenant="greedy"))
    other = asyncio.ensure_future(room.call(permit(tenant="polite")))
    two.cancel()
    with pytest.raises(asyncio.CancelledError):
        await two
    assert room.gauges == (1, 2)
    for task in (one, other):
        task.cancel()
    results = await asyncio.gather(one, other, return_exceptions=True)
    assert [type(each) for each in results] == [asyncio.CancelledError] * 2
    held.done(Ending.COMPLETE)
    assert room.gauges == (0, 0)


async def test_a_call_waits_no_longer_than_it_may() -> None:
    room = scene(overload="queue", max_wait_s=0.02)
    held = await room.call(permit())
    refused = await room.refused(permit(instead="Ask for fewer rows."))
    assert (refused.reason, refused.data) == (Reason.OVERLOADED, {"limit": "capacity.waited"})
    assert "Nothing was sent" in refused.why
    assert refused.why.endswith("Ask for fewer rows.")
    assert refused.retry_after_s is not None
    assert 0 < refused.retry_after_s <= 60
    assert (room.gauges, dict(room.room.refused)) == ((1, 0), {"waited": 1})
    held.done(Ending.COMPLETE)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (CapacitySettings(max_in_flight=1), "all"),
        (CapacitySettings(max_in_flight=9, per_tenant=1), "tenant"),
        (CapacitySettings(max_in_flight=9, per_tool={"exp*": 1}), "pool"),
    ],
)
async def test_what_there_is_no_place_for_is_refused_at_once(settings: CapacitySettings, why: str) -> None:
    """overload: fail, and a hint of which bound it was; the words name no pattern, which may stand for hidden tools."""
    room = Scene(settings)
    held = await room.call(permit(tool("export")))
    refused = await room.refused(permit(tool("export")))
    assert (refused.reason, refused.data) == (Reason.OVERLOADED, {"limit": f"capacity.{why}"})
    assert "exp" not in refused.why
    assert room.room.refused == {why: 1}
    held.done(Ending.COMPLETE)
    (await room.call(permit(tool("export")))).done(Ending.COMPLETE)


async def test_patterns_are_about_tools_that_fit() -> None:
    """Names as servers compare them: case counts. Other methods have no tool."""
    room = scene(max_in_flight=99, per_tool={"export_*": 1, "*_pdf": 2})
    held = [await room.call(permit(tool("export_csv")))]
    assert (await room.refused(permit(tool("export_pdf")))).reason is Reason.OVERLOADED
    held += [await room.call(permit(tool(name))) for name in ("EXPORT_csv", "a_pdf", "b_pdf", "c")]
    assert (await room.refused(permit(tool("c_pdf")))).reason is Reason.OVERLOADED
    held.append(await room.call(permit(make_call(method="prompts/get", target="export_csv"))))
    for reply in held:
        reply.done(Ending.COMPLETE)
    assert room.gauges == (0, 0)


@pytest.mark.parametrize("other", ["ACME", " acme ", "ａｃｍｅ"])
async def test_spellings_of_a_tenant_share_its_places(other: str) -> None:
    """Corpus LIM-017."""
    room = scene(max_in_flight=9, per_tenant=1, weights={"Acme": 2.0})
    held = await room.call(permit(tenant="acme"))
    assert (await room.refused(permit(tenant=other))).data == {"limit": "capacity.tenant"}
    assert room.room.of_tenant(other) == (1, 0)
    held.done(Ending.COMPLETE)


async def test_weights_are_of_folded_names() -> None:
    room = scene(overload="queue", queue_depth=999, max_wait_s=60, weights={"HEAVY ": 3.0})
    held = await room.call(permit(tenant="x"))
    tasks = [await room.waits(permit(tenant=tenant)) for tenant in ("light", "heavy") for _ in range(12)]
    for _ in range(12):
        held.done(Ending.COMPLETE)
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=SECONDS)
        held, tasks = done.pop().result(), list(pending)
    assert [each.principal.tenant for each in room.server.seen].count("heavy") == 9
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    held.done(Ending.COMPLETE)
    assert room.gauges == (0, 0)


async def test_a_full_queue_makes_way_for_the_tenant_with_less() -> None:
    """Whoever makes way is told so, and by its own rule what else it can do."""
    room = scene(overload="queue", queue_depth=2, max_wait_s=60)
    held = await room.call(permit(tenant="greedy"))
    one = await room.waits(permit(tenant="greedy"))
    two = await room.waits(permit(tenant="greedy", instead="Use search."))
    other = asyncio.ensure_future(room.call(permit(tenant="polite", instead="Not this.")))
    with pytest.raises(Refused) as caught:
        await two
    assert caught.value.data == {"limit": "capacity.displaced"}
    assert caught.value.why.endswith("Use search.")
    assert (await room.refused(permit(tenant="greedy"))).data == {"limit": "capacity.all"}
    assert dict(room.room.refused) == {"displaced": 1, "all": 1}
    for _ in range(2):
        held.done(Ending.COMPLETE)
        done, _ = await asyncio.wait(
            {one, other} - {held}, return_when=asyncio.FIRST_COMPLETED, timeout=SECONDS
        )
        held = done.pop().result()
        one, other = other, one
    held.done(Ending.COMPLETE)
    (await one).done(Ending.COMPLETE)
    (await other).done(Ending.COMPLETE)
    assert room.gauges == (0, 0)


@pytest.mark.parametrize(
    ("queued", "comes", "makes_way"),
    [
        ("read", "write", True),
        ("read", "dangerous", True),
        ("write", "dangerous", True),
        ("read", "list", True),
        ("list", "write", True),
        ("read", "read", False),
        ("write", "read", False),
        ("dangerous", "write", False),
        ("dangerous", "dangerous", False),
        ("list", "read", False),
    ],
)
@pytest.mark.parametrize("overload", ["queue", "shed"])
async def test_shedding_looks_at_what_calls_may_do(
    queued: str, comes: str, makes_way: bool, overload: str
) -> None:
    """Issue 5, 4: shed dangerous last. Of one tenant only, and only where it is asked for."""

    def of(kind: str) -> Permit:
        return permit(make_call(method="tools/list")) if kind == "list" else permit(tool_class=kind)

    room = scene(overload=overload, queue_depth=1, max_wait_s=60)
    held = await room.call(permit())
    waiting = await room.waits(of(queued))
    if makes_way and overload == "shed":
        newcomer = asyncio.ensure_future(room.call(of(comes)))
        with pytest.raises(Refused):
            await waiting
        waiting = newcomer
    else:
        assert (await room.refused(of(comes))).data == {"limit": "capacity.all"}
    held.done(Ending.COMPLETE)
    (await waiting).done(Ending.COMPLETE)
    assert room.gauges == (0, 0)


async def test_a_batch_has_a_place_for_each_of_its_calls_or_is_refused() -> None:
    """It never waits: it may hold an answer somebody waits for."""
    room = scene(max_in_flight=4, per_tool={"export": 1}, overload="queue", max_wait_s=60)
    note = make_call(method="notifications/progress", kind=Kind.NOTIFICATION, id=None)
    parts = [make_call(target="t", id=number) for number in range(3)]
    batch = permit(make_batch(*parts, note))
    held = await room.call(batch)
    assert room.gauges == (3, 0)
    refused = await room.refused(batch)
    assert (refused.reason, refused.data) == (Reason.OVERLOADED, {"limit": "capacity.batch"})
    assert "one by one" in refused.why
    single = await room.call(permit(make_batch(parts[0], note)))
    assert (await room.refused(permit(make_batch(parts[0], note)))).data == {"limit": "capacity.all"}
    # Nothing but what takes no place.
    await room.call(permit(make_batch(note, make_call(method="ping"))))
    for reply in (held, single):
        reply.done(Ending.COMPLETE)
    exports = [make_call(target="export", id=number) for number in range(2)]
    assert (await room.refused(permit(make_batch(*exports)))).data == {"limit": "capacity.batch"}
    assert room.gauges == (0, 0)


async def test_a_call_that_would_be_over_before_its_turn_is_refused_at_once() -> None:
    """Places come free every 100 ms; three wait; it has 150 ms."""
    clock = [0.0]
    deadlines = {"late": 0.15}
    room = Scene(
        CapacitySettings(max_in_flight=1, overload="queue", max_wait_s=60),
        deadline=lambda permit: clock[0] + deadlines.get(permit.principal.tenant, math.inf),
        now=lambda: clock[0],
    )
    held = await room.call(permit())
    tasks = [await room.waits(permit()) for _ in range(12)]
    for _ in range(9):
        clock[0] += 0.1
        held.done(Ending.COMPLETE)
        held = await tasks.pop(0)
    assert (await room.refused(permit(tenant="late"))).data == {"limit": "capacity.deadline"}
    assert room.gauges == (1, 3)
    deadlines["late"] = 0.5
    patient = await room.waits(permit(tenant="late"))
    # Also the hint when to come back is what was seen.
    refused = await room.refused(permit(make_batch(make_call(target="t"))))
    assert refused.retry_after_s == pytest.approx(0.4, abs=0.15)
    for task in (*tasks, patient):
        task.cancel()
    await asyncio.gather(*tasks, patient, return_exceptions=True)
    held.done(Ending.COMPLETE)


async def test_the_hint_when_to_come_back_does_not_count_quiet_times() -> None:
    clock = [0.0]
    room = Scene(CapacitySettings(max_in_flight=2), now=lambda: clock[0])
    one, two = await room.call(permit()), await room.call(permit())
    for _ in range(10):
        clock[0] += 1.0
        one.done(Ending.COMPLETE)
        one = await room.call(permit())
    two.done(Ending.COMPLETE)
    one.done(Ending.COMPLETE)
    clock[0] += 1_000
    one, two = await room.call(permit()), await room.call(permit())
    assert (await room.refused(permit())).retry_after_s == pytest.approx(1.0, rel=0.3)
    complete(one)
    complete(two)


async def test_the_hint_when_to_come_back_does_not_count_those_that_left() -> None:
    clock = [0.0]
    room = Scene(CapacitySettings(max_in_flight=1, queue_depth=99, max_wait_s=60), now=lambda: clock[0])
    held = await room.call(permit())
    for _ in range(10):
        clock[0] += 1.0
        held.done(Ending.COMPLETE)
        held = await room.call(permit())
    tasks = [await room.waits(permit()) for _ in range(50)]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    refused = await room.refused(permit(make_batch(make_call(target="t"))))
    assert refused.retry_after_s == pytest.approx(1.0)
    complete(held)


@pytest.mark.parametrize("left_s", [0.0, -1.0])
async def test_a_call_that_is_over_does_not_wait(left_s: float) -> None:
    room = Scene(
        CapacitySettings(max_in_flight=1, overload="queue", max_wait_s=60),
        deadline=lambda _: left_s,
        now=lambda: 0.0,
    )
    held = await room.call(permit())
    assert (await room.refused(permit())).data == {"limit": "capacity.deadline"}
    held.done(Ending.COMPLETE)


async def test_a_call_waits_no_longer_than_its_deadline() -> None:
    """Nobody knows yet how fast places come free."""
    loop = asyncio.get_running_loop()
    begin = loop.time()
    room = Scene(
        CapacitySettings(max_in_flight=1, overload="queue", max_wait_s=60),
        deadline=lambda _: begin + 0.02,
        now=loop.time,
    )
    held = await room.call(permit())
    assert (await room.refused(permit())).data == {"limit": "capacity.waited"}
    assert room.gauges == (1, 0)
    held.done(Ending.COMPLETE)


class Adapting(Scene):
    """Places adapt; the server's time is on a clock of ours."""

    def __init__(self, took_s: Callable[[], float], answer: Callable[[], Reply]) -> None:
        self.clock = 0.0

        async def works() -> Reply:
            self.clock += took_s()
            return answer()

        adaptive = AdaptiveSettings(floor=1, window=10)
        super().__init__(
            CapacitySettings(max_in_flight=16, adaptive=adaptive), Server(works), now=lambda: self.clock
        )

    async def rounds(self, count: int, end: Callable[[Reply], None], call: Call | None = None) -> int:
        """How many places there are after so many calls, one after another."""
        for _ in range(count):
            end(await self.call(permit(call)))
        return self.room.limit


def complete(reply: Reply) -> None:
    reply.done(Ending.COMPLETE)


async def test_places_become_fewer_while_calls_take_longer() -> None:
    took = [0.1]
    room = Adapting(lambda: took[0], lambda: Reply(200, Headers(), b"{}"))
    assert room.room.limit == 4
    await room.rounds(40, complete)
    took[0] = 1.0
    assert await room.rounds(20, complete) == 1
    assert room.gauges == (0, 0)


async def test_what_a_slow_client_takes_is_not_the_servers_time() -> None:
    """A whole answer is here before it is written; what comes after says nothing."""
    late = [0.0]
    room = Adapting(lambda: 0.1, lambda: Reply(200, Headers(), b"{}"))

    def slowly(reply: Reply) -> None:
        room.clock += late[0]
        complete(reply)

    await room.rounds(40, slowly)
    late[0] = 10.0
    assert await room.rounds(40, slowly) >= 4


async def test_a_stream_has_taken_as_long_as_it_was_open() -> None:
    """The head of a stream comes before the work is done (the Python SDK answers every call so)."""
    late = [0.1]
    room = Adapting(lambda: 0.0, streamed)

    def later(reply: Reply) -> None:
        room.clock += late[0]
        complete(reply)

    await room.rounds(40, later)
    late[0] = 10.0
    assert await room.rounds(20, later) == 1


async def test_an_acknowledgement_is_no_answer() -> None:
    """HTTP+SSE: the POST is answered at once, the call when its answer has passed."""
    late = [0.1]
    room = Adapting(lambda: 0.0, lambda: Acknowledged(202, Headers()))

    def later(reply: Reply) -> None:
        assert isinstance(reply, Acknowledged)
        room.clock += late[0]
        reply.settle(Ending.COMPLETE)

    call = make_call(target="t", revision=TWO_ENDPOINTS)
    await room.rounds(40, later, call)
    late[0] = 10.0
    assert await room.rounds(20, later, call) == 1


@pytest.mark.parametrize(
    ("ending", "places"), [(Ending.UPSTREAM_BROKE, 1), (Ending.CLIENT_GONE, 4), (Ending.PROXY_FAILED, 4)]
)
async def test_a_broken_answer_counts_against_the_server_only(ending: Ending, places: int) -> None:
    room = Adapting(lambda: 0.1, streamed)
    assert await room.rounds(40, lambda reply: reply.done(ending)) == places


@pytest.mark.parametrize(
    ("reply", "call"),
    [
        (lambda: Reply(500, Headers(), b""), tool("t")),
        (lambda: Reply(200, Headers(), b"[]"), make_batch(tool("t"))),
        (streamed, make_batch(tool("t"))),
        (lambda: Reply(202, Headers()), make_call(target="t", kind=Kind.NOTIFICATION, id=None)),
    ],
)
async def test_what_says_nothing_of_calls_is_not_learnt(reply: Callable[[], Reply], call: Call) -> None:
    """HTTP errors, batches, calls without an answer: how long they take is another matter."""
    took = [0.1]
    room = Adapting(lambda: took[0], reply)
    await room.rounds(40, complete, call)
    took[0] = 10.0
    assert await room.rounds(40, complete, call) == 4


@pytest.mark.parametrize(
    ("adaptive", "places"), [(AdaptiveSettings(), 22), (AdaptiveSettings(ceiling=16), 5)]
)
async def test_without_bounds_places_adapt_between_an_eighth_and_all(
    adaptive: AdaptiveSettings, places: int
) -> None:
    """8 and 64, or 2 and 16: it begins half way, on the scale of factors."""
    room = scene(max_in_flight=64, adaptive=adaptive)
    assert room.room.limit == places


async def test_who_waits_gets_a_place_when_there_are_more() -> None:
    """Four places; the tenth answer makes two more, and nobody has to end for them."""
    room = scene(
        max_in_flight=16, adaptive=AdaptiveSettings(floor=1, window=10), overload="queue", max_wait_s=60
    )
    held = [await room.call(permit()) for _ in range(4)]
    tasks = [await room.waits(permit()) for _ in range(10)]
    for turn in range(5):
        complete(held.pop(0))
        held.append(await tasks[turn])
    assert (room.room.limit, room.gauges) == (4, (4, 5))
    complete(held.pop(0))
    for turn in range(5, 8):
        held.append(await tasks[turn])
    assert (room.room.limit, room.gauges) == (6, (6, 2))
    for task in tasks[8:]:
        complete(held.pop(0))
        held.append(await task)
    for reply in held:
        complete(reply)
    assert room.gauges == (0, 0)


async def test_a_second_attempt_takes_a_place_that_is_free() -> None:
    """Issue 7, hedging: the server never gets more at once than it may."""
    scene = Scene(CapacitySettings(max_in_flight=3, per_tenant=2, per_tool={"slow": 1}))
    give_back = scene.room.spare(permit(tool("t")))
    assert give_back is not None
    assert scene.room.in_flight == 1
    assert scene.room.spare(permit(tool("slow"))) is not None
    assert scene.room.spare(permit(tool("t"))) is None, "of the tenant"
    assert scene.room.spare(permit(tool("slow"), tenant="other")) is None, "of the tool"
    assert scene.room.spare(permit(tool("t"), tenant="other")) is not None
    assert scene.room.spare(permit(tool("t"), tenant="third")) is None, "of all"
    give_back()
    give_back()
    assert scene.room.in_flight == 2


async def test_a_second_attempt_takes_no_place_that_somebody_waits_for() -> None:
    left = asyncio.Event()

    async def hang() -> Reply:
        await left.wait()
        return Reply(200, Headers(), b"{}")

    scene = Scene(
        CapacitySettings(max_in_flight=3, per_tenant=1, queue_depth=5, overload="queue"), Server(hang)
    )
    calls = [asyncio.ensure_future(scene.call(permit())) for _ in range(2)]
    async with asyncio.timeout(SECONDS):
        while not scene.room.waiting:
            await turn()
    assert scene.room.spare(permit(tenant="other")) is None
    left.set()
    async with asyncio.timeout(SECONDS):
        for each in calls:
            (await each).done(Ending.COMPLETE)
    assert scene.room.spare(permit(tenant="other")) is not None


async def turn() -> None:
    await asyncio.sleep(0)
