"""What makes a kept answer untrue, and when it is dropped: before anybody could ask again.

Source: issue 6, item 6; design.md section 4 "cache"; server/tools, server/prompts, server/resources (notifications).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest
from msgspec import structs

from proxy.cache.forgetting import MAX_TOOLS, Forgetting
from proxy.cache.store import Forget
from proxy.model import Broken, Call, Ending, Outcome, Permit, Principal, Reason, Refused, Reply, Rule
from tests.fakes import FakeJourney, make_batch, make_call

from .entries import Clock
from .serving import (
    ANN,
    EVENTS,
    JSON,
    Exchange,
    Server,
    SlowStore,
    error,
    event,
    make_permit,
    others,
    read,
    read_into,
    result,
    turns,
)

READS: Final = Forget("acme", ("tools/call",), ("read_*",))
LIST: Final = Forget("acme", ("tools/list",))


class Ears:
    """Forgetting with everything around it."""

    def __init__(self) -> None:
        self.store = SlowStore(Clock())
        self.rules = {
            "write": Rule(id="w", forget=("read_*",)),
            "other": Rule(id="o", forget=("b", "read_*")),
        }
        self.forgetting = Forgetting(self.store, self._rule_of)
        self.server = Server()
        self.stage = self.forgetting.guarded(self.server)

    def _rule_of(self, call: Call, principal: Principal) -> Rule:
        assert principal is ANN
        return self.rules.get(call.target or "", Rule(id="none"))

    @property
    def forgotten(self) -> list[Forget]:
        return self.store.forgotten

    async def said(self, method: str, params: object = None) -> list[Forget]:
        """What is forgotten after a notification."""
        ear = self.forgetting.listen(make_permit(), None)
        assert ear is not None
        ear.notification(method, params)
        await turns()
        return self.forgotten

    def ask(self, permit: Permit) -> asyncio.Task[Reply]:
        return asyncio.get_running_loop().create_task(self._answered(permit))

    async def _answered(self, permit: Permit) -> Reply:
        return await self.stage(permit)


def writing(id: int = 1) -> Permit:
    """A call whose rule says what it makes untrue."""
    return make_permit(id, tool="write", tool_class="write", forget=("read_*",))


def at_server(permit: Permit, outcome: Outcome) -> Permit:
    """What its journey tells of it."""
    for each in permit.call.parts or (permit.call,):
        assert isinstance(each.journey, FakeJourney)
        each.journey.outcome_at_server = outcome
    return permit


# What the server tells


@pytest.mark.parametrize(
    ("method", "forgets"),
    [
        ("notifications/tools/list_changed", ("tools/list",)),
        ("notifications/prompts/list_changed", ("prompts/list", "prompts/get")),
        ("notifications/resources/list_changed", ("resources/list", "resources/templates/list")),
    ],
)
async def test_a_list_that_changed_is_dropped_for_everybody(method: str, forgets: tuple[str, ...]) -> None:
    ears = Ears()
    assert await ears.said(method) == [Forget(None, forgets)]
    assert others() == set()


@pytest.mark.parametrize(
    ("params", "targets"),
    [
        ({"uri": "file:///a"}, ("file:///a",)),
        ({"uri": "file:///*"}, ("file:///*",)),
        ({}, ()),
        ({"uri": 1}, ()),
        (None, ()),
        ([], ()),
    ],
)
async def test_a_resource_that_was_updated_is_dropped(params: object, targets: tuple[str, ...]) -> None:
    """Where nobody knows which: all of them."""
    ears = Ears()
    told = await ears.said("notifications/resources/updated", params)
    assert told == [Forget(None, ("resources/read",), targets)]


@pytest.mark.parametrize(
    "method",
    ["notifications/message", "notifications/progress", "notifications/cancelled", "tools/list_changed", ""],
)
async def test_other_notifications_drop_nothing(method: str) -> None:
    ears = Ears()
    assert await ears.said(method, {"uri": "file:///a"}) == []


async def test_what_the_server_tells_counts_before_it_is_passed_on() -> None:
    """The ear is told first; by the next turn of the loop nothing old is there."""
    ears = Ears()
    before = ears.store.mark()
    ear = ears.forgetting.listen(make_permit(), None)
    assert ear is not None
    ear.notification("notifications/tools/list_changed", {})
    await asyncio.sleep(0)
    assert ears.store.mark() != before


def test_an_ear_changes_nothing_and_refuses_nothing() -> None:
    ear = Ears().forgetting.listen(make_permit(), "session")
    assert ear is not None
    data = b"{}"
    assert ear.passed_on(data) is data
    ear.event_id(b"1")
    ear.request(1, "roots/list", {})
    ear.ended(Ending.COMPLETE)


# Definitions


def heard(ears: Ears, *tools: object, method: str | None = "tools/list") -> None:
    ear = ears.forgetting.listen(make_permit(), None)
    assert ear is not None
    ear.result(method, {"tools": list(tools)})


def test_a_definition_is_known_by_what_it_says() -> None:
    ears = Ears()
    calls = [make_permit(tool="a"), make_permit(tool="b")]
    assert [ears.forgetting.definition(each) for each in calls] == ["", ""]
    heard(ears, {"name": "a", "title": "A"}, {"name": "b"})
    first = ears.forgetting.definition(calls[0])
    assert first not in ("", ears.forgetting.definition(calls[1]))
    heard(ears, {"title": "A", "name": "a"})
    assert ears.forgetting.definition(calls[0]) == first
    heard(ears, {"name": "a", "title": "B"}, method=None)
    assert ears.forgetting.definition(calls[0]) not in ("", first)
    assert ears.forgetting.definition(make_permit(tool="a", method="prompts/get")) == ""
    assert ears.forgetting.definition(make_permit(tool=None)) == ""


@pytest.mark.parametrize(
    "said",
    [{"tools": {"name": "a"}}, {"prompts": [{"name": "a"}]}, [{"name": "a"}], "a", None, {"tools": None}],
)
def test_what_is_no_list_of_tools_teaches_nothing(said: object) -> None:
    ears = Ears()
    ear = ears.forgetting.listen(make_permit(), None)
    assert ear is not None
    ear.result("tools/list", said)
    ear.result("tools/call", {"tools": [{"name": "a"}]})
    heard(ears, None, "a", {"name": 1}, {}, [])
    assert ears.forgetting.definition(make_permit(tool="a")) == ""


def test_a_definition_that_cannot_be_written_down_is_none() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    ears = Ears()
    heard(ears, {"name": "a"})
    heard(ears, {"name": "a", "inputSchema": deep}, {"name": "b"})
    assert ears.forgetting.definition(make_permit(tool="a")) == ""
    assert ears.forgetting.definition(make_permit(tool="b")) != ""
    while deep:  # not all at once: that would go as deep
        deep = deep.pop()


def test_definitions_are_bounded_and_the_last_seen_stay() -> None:
    ears = Ears()
    heard(ears, *({"name": f"t{number}"} for number in range(MAX_TOOLS)))
    heard(ears, {"name": "t0"}, {"name": "one more"})
    known = [ears.forgetting.definition(make_permit(tool=f"t{number}")) != "" for number in (0, 1, 2)]
    assert known == [True, False, True]
    assert ears.forgetting.definition(make_permit(tool="one more")) != ""


# What a call makes untrue


async def test_a_write_drops_before_its_caller_has_the_answer() -> None:
    ears = Ears()
    ears.store.gate = asyncio.Event()
    asked = ears.ask(writing())
    await turns()
    assert ears.forgotten == []
    ears.server.seen[0].say("done")
    await turns()
    assert not asked.done()
    ears.store.gate.set()
    reply = await asked
    assert ears.forgotten == [READS]
    await read(reply)
    await turns()
    assert set(ears.forgotten) == {READS}
    assert others() == set()


async def test_a_call_that_makes_nothing_untrue_drops_nothing() -> None:
    ears = Ears()
    for permit in (make_permit(), make_permit(method="prompts/get", forget=("read_*",))):
        asked = ears.ask(permit)
        await turns()
        ears.server.seen[-1].say("hello")
        await read(await asked)
    await turns()
    assert ears.forgotten == []


async def test_a_write_in_events_drops_before_its_answer_passes() -> None:
    """Its caller may ask again before the stream ends."""
    ears = Ears()
    ears.store.gate = asyncio.Event()
    asked = ears.ask(writing())
    await turns()
    wire = ears.server.seen[0].wire()
    ears.server.seen[0].answer(wire.stream)
    wire.send(event(b'{"jsonrpc":"2.0","method":"notifications/message"}'), event(result("done")))
    chunks: list[bytes] = []
    reading = asyncio.get_running_loop().create_task(read_into(chunks, await asked))
    await turns()
    assert len(chunks) == 1
    assert ears.forgotten == []
    ears.store.gate.set()
    await turns()
    assert len(chunks) == 2
    assert ears.forgotten == [READS]
    wire.end()
    await reading
    assert wire.closed == 1


@pytest.mark.parametrize("kind", [EVENTS, JSON], ids=["events", "json"])
async def test_a_write_whose_answer_is_never_seen_drops_when_it_ends(kind: tuple[str, str]) -> None:
    """It broke, or its caller left: it may have been done."""
    for breaks in (True, False):
        ears = Ears()
        asked = ears.ask(writing())
        await turns()
        wire = ears.server.seen[0].wire()
        ears.server.seen[0].answer(wire.stream, 200, kind)
        wire.send(b": ping\n\n")
        reply = await asked
        if breaks:
            wire.break_off()
            with pytest.raises(Broken):
                await read(reply)
        else:
            reply.done(Ending.CLIENT_GONE)
        await turns()
        assert ears.forgotten == [READS]
        assert wire.closed == 1


@pytest.mark.parametrize(
    ("outcome", "drops"),
    [
        (Outcome.NOT_REACHED, []),
        (Outcome.ATTEMPTED, [READS]),
        (Outcome.ANSWERED, [READS]),
        (Outcome.UNKNOWN, [READS]),
    ],
)
@pytest.mark.parametrize("leaves", [False, True], ids=["refused", "left"])
async def test_a_write_of_which_nobody_knows_drops_unless_it_never_arrived(
    outcome: Outcome, drops: list[Forget], leaves: bool
) -> None:
    ears = Ears()
    asked = ears.ask(at_server(writing(), outcome))
    await turns()
    if leaves:
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
    else:
        ears.server.seen[0].fail(Refused(Reason.OUTCOME_UNKNOWN))
        with pytest.raises(Refused):
            await asked
    await turns()
    assert ears.forgotten == drops
    assert others() == set()


async def test_a_batch_drops_what_each_of_it_does() -> None:
    """By the rules of its messages, each pattern once."""
    ears = Ears()
    parts = [make_call(target=tool, id=id) for id, tool in enumerate(("write", "read_a", "other"))]
    permit = structs.replace(make_permit(), call=make_batch(*parts))
    asked = ears.ask(permit)
    await turns()
    ears.server.seen[0].answer(b"[]")
    await read(await asked)
    assert ears.forgotten[0] == Forget("acme", ("tools/call",), ("read_*", "b"))


async def test_a_batch_of_which_one_may_have_been_done_drops() -> None:
    ears = Ears()
    parts = [make_call(target="write", id=id) for id in range(2)]
    for part in parts:
        part_journey = FakeJourney()
        parts[part.id] = structs.replace(part, journey=part_journey)  # type: ignore[index]  # ids are places here
    assert isinstance(parts[1].journey, FakeJourney)
    parts[1].journey.outcome_at_server = Outcome.ATTEMPTED
    asked = ears.ask(structs.replace(make_permit(), call=make_batch(*parts)))
    await turns()
    ears.server.seen[0].fail(Refused(Reason.DEADLINE))
    with pytest.raises(Refused):
        await asked
    await turns()
    assert ears.forgotten == [READS]


async def test_a_batch_without_calls_passes_untouched() -> None:
    ears = Ears()
    parts = [make_call(method="tools/list", id=1), make_call(method="ping", id=2)]
    asked = ears.ask(structs.replace(make_permit(), call=make_batch(*parts)))
    await turns()
    reply = ears.server.seen[0].answer(error(-32601))
    assert await asked is reply
    assert ears.forgotten == []


# What the server does not know


@pytest.mark.parametrize("code", [-32020, -32601, -32602])
@pytest.mark.parametrize("status", [200, 400, 404])
async def test_an_error_that_says_unknown_drops_the_callers_lists(code: int, status: int) -> None:
    """Before the caller has it. Source: protocol.md 2.9."""
    ears = Ears()
    asked = ears.ask(make_permit())
    await turns()
    ears.server.seen[0].answer(error(code), status)
    await asked
    assert ears.forgotten == [LIST]


async def test_an_error_in_an_event_drops_them_before_it_passes() -> None:
    ears = Ears()
    asked = ears.ask(make_permit())
    await turns()
    wire = ears.server.seen[0].wire()
    ears.server.seen[0].answer(wire.stream)
    wire.send(event(error(-32602)))
    reply = await asked
    assert not isinstance(reply.body, bytes)
    chunks = aiter(reply.body)
    await anext(chunks)
    assert ears.forgotten == [LIST]
    reply.done(Ending.CLIENT_GONE)


@pytest.mark.parametrize(
    "body", [error(-32603), error(-32000), result("-32602"), result("no", isError=True), b""]
)
async def test_another_error_drops_nothing(body: bytes) -> None:
    ears = Ears()
    asked = ears.ask(make_permit())
    await turns()
    ears.server.seen[0].answer(body)
    await read(await asked)
    await turns()
    assert ears.forgotten == []


# Whoever leaves


async def test_whoever_leaves_while_others_are_told_to_forget_leaves_no_old_answer() -> None:
    """Other replicas may not have heard of it yet: they are told once more."""
    ears = Ears()
    ears.store.gate = asyncio.Event()
    asked = ears.ask(writing())
    await turns()
    ears.server.seen[0].say("done")
    await turns()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert ears.server.seen[0].endings == [Ending.CLIENT_GONE]
    ears.store.gate.set()
    await turns()
    assert ears.forgotten == [READS]
    assert others() == set()


@pytest.mark.parametrize("in_events", [False, True], ids=["json", "events"])
async def test_leaving_at_any_moment_leaves_nothing_old_and_nothing_open(in_events: bool) -> None:
    """Once the server was asked, at whatever moment: the words reach the store, the reply is closed."""

    async def answer(exchange: Exchange) -> None:
        at_server(exchange.permit, Outcome.ATTEMPTED)
        await asyncio.sleep(0)
        if in_events:
            wire = exchange.wire()
            wire.send(event(result("done")))
            wire.end()
            exchange.answer(wire.stream)
        else:
            exchange.say("done")

    for moment in range(1, 40):
        ears = Ears()
        ears.server.script = answer
        asked = asyncio.get_running_loop().create_task(_served(ears.stage, writing()))
        await turns(moment)
        finished = asked.done()
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        await turns()
        assert set(ears.forgotten) == {READS}
        assert others() == set()
        [exchange] = ears.server.seen
        assert [wire.closed for wire in exchange.wires] == [1] * len(exchange.wires)
        if exchange.lands.done():
            assert len(exchange.endings) == 1
        if finished:
            return
    pytest.fail("it never ended")


async def _served(stage: Callable[[Permit], Awaitable[Reply]], permit: Permit) -> None:
    await read(await stage(permit))


async def test_what_is_under_way_is_done_when_the_house_closes() -> None:
    """Words that are lost would be answers that other replicas go on telling."""
    ears = Ears()
    ears.store.gate = asyncio.Event()
    ears.forgetting.soon(READS)
    closing = asyncio.get_running_loop().create_task(ears.forgetting.close())
    await turns()
    assert not closing.done()
    ears.store.gate.set()
    await closing
    assert ears.forgotten == [READS]
