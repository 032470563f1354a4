"""The room as the house uses it: what runs beside the calls is bounded, has journeys of its own, and ends.

Source: issue 6, items 4 and 6.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Final

import pytest

from proxy.cache.building import MAX_RENEWALS, Caching, store_of
from proxy.cache.file import File
from proxy.cache.memory import Memory
from proxy.cache.settings import CacheSettings
from proxy.cache.store import Forget
from proxy.model import Ending, Job, Keep, Permit, Principal, Reason, Refused, Rule, Stage
from proxy.secret import Secret
from tests.fakes import FakeJourney

from .entries import Clock, digest_of, make_entry
from .serving import (
    ANN,
    BOB,
    EVE,
    Server,
    make_permit,
    others,
    read,
    text_of,
    turns,
)

RENEWED: Final = Keep(ttl_s=10, stale_while_revalidate_s=20)


class Room:
    """It, with a server behind."""

    def __init__(self, settings: CacheSettings | None = None) -> None:
        self.clock = Clock()
        self.server = Server()
        self.mistakes: list[Exception] = []
        settings = settings or CacheSettings()
        self.store = store_of(settings, wall=self.clock)
        self.caching = Caching(
            settings,
            upstream="u",
            generation="g",
            rule_of=lambda call, principal: Rule(id="none"),
            stops=lambda name: False,
            failed=self.mistakes.append,
            wall=self.clock,
            store=self.store,
        )
        self.stage: Stage = self.caching.guarded(self.server, self._teach)

    def _teach(self, permit: Permit, text: bytes) -> None:
        """As the house does: whoever listens to the server hears what is kept, too."""
        self.hear(permit, json.loads(text))

    def hear(self, permit: Permit, result: object) -> None:
        assert self.caching.listen is not None
        ear = self.caching.listen(permit, None)
        assert ear is not None
        ear.result(permit.call.method, result)

    async def list_tools(self, who: Principal, *tools: dict[str, str]) -> None:
        """A list from the server, for this caller alone."""
        permit = make_permit(1, who, method="tools/list", tool=None)
        asked = asyncio.get_running_loop().create_task(_read(self.stage, permit))
        await turns()
        result = {"tools": list(tools), "ttlMs": 60_000}
        self.hear(permit, result)
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode()
        self.server.seen[-1].answer(body)
        await asked

    async def keep(self, permit: Permit, text: str = "old") -> None:
        asked = asyncio.get_running_loop().create_task(_read(self.stage, permit))
        await turns()
        self.server.seen[-1].say(text)
        await asked

    async def stale(self, id: int = 2, number: int = 0) -> Permit:
        """A call that is told what is too old, and begins a renewal."""
        permit = asking(id, number)
        assert await text_of(await self.stage(permit)) == (id, "old")
        return permit


@pytest.mark.parametrize(("share", "left"), [(1.0, 400), (0.5, 200), (0.0, 0)])
async def test_it_gives_memory_back(share: float, left: int) -> None:
    """Issue 7, 7: a share of what this process holds, in turns, of a file's memory as of any other."""
    caching = Room().caching
    memory = caching.store
    assert isinstance(memory, Memory)
    for number in range(400):
        memory.keep(digest_of(str(number)), make_entry(tenant="a", text="x"), memory.mark())
    others_turns = 0

    async def others() -> None:
        nonlocal others_turns
        while True:
            others_turns += 1
            await asyncio.sleep(0)

    other = asyncio.ensure_future(others())
    await caching.shrink(share)
    other.cancel()
    assert len(memory) == left
    assert others_turns == (1 if share == 0.0 else 0)


async def test_without_a_cache_there_is_nothing_to_give_back() -> None:
    """Nor with one that is empty."""
    caching = Caching(
        None,
        upstream="u",
        generation="g",
        rule_of=lambda call, principal: Rule(id="none"),
        stops=lambda name: False,
        failed=lambda error: None,
        wall=Clock(),
    )
    await caching.shrink(0.0)
    await Room().caching.shrink(0.0)


def asking(id: int = 1, number: int = 0) -> Permit:
    return make_permit(id, keep=RENEWED, arguments={"n": number})


async def _read(stage: Stage, permit: Permit) -> bytes:
    return await read(await stage(permit))


def diary(permit: Permit) -> list[tuple[object, ...]]:
    journey = permit.call.journey
    assert isinstance(journey, FakeJourney)
    return journey.diary


async def test_a_renewal_is_a_call_of_its_own_with_a_journey_of_its_own() -> None:
    room = Room()
    await room.keep(asking())
    room.clock.now += 15
    stale = await room.stale()
    await turns()
    renewal = room.server.seen[1].permit
    assert renewal.call.journey is not stale.call.journey
    assert (renewal.call.id, renewal.principal, renewal.rule) == (2, ANN, stale.rule)
    assert isinstance(renewal.call.journey, FakeJourney)
    assert renewal.call.journey.calls == [renewal.call]
    assert not any(words[1] == "ended" for words in diary(stale))
    room.server.seen[1].say("new")
    await turns()
    told = [words[1:] for words in diary(renewal) if words[0] == renewal.call.journey.request_id]
    assert [word for word, *_ in told] == ["identified", "permitted", "cached", "ended"]
    assert told[-1] == ("ended", Ending.COMPLETE)
    assert room.server.seen[1].endings == [Ending.COMPLETE]
    assert await text_of(await room.stage(asking(3))) == (3, "new")
    assert (others(), room.mistakes) == (set(), [])


async def test_a_renewal_that_is_refused_is_told_and_harms_nobody() -> None:
    room = Room()
    await room.keep(asking())
    room.clock.now += 15
    await room.stale()
    await turns()
    journey = room.server.seen[1].permit.call.journey
    room.server.seen[1].fail(Refused(Reason.BREAKER_OPEN))
    await turns()
    assert isinstance(journey, FakeJourney)
    words = [words[1:] for words in journey.diary if words[0] == journey.request_id]
    assert words[-2:] == [("refused", Reason.BREAKER_OPEN), ("ended", Ending.COMPLETE)]
    assert room.mistakes == []
    await room.stale(3)
    await turns()
    assert len(room.server.seen) == 3
    await room.caching.close()


async def test_a_mistake_in_a_renewal_is_told_and_harms_nobody() -> None:
    room = Room()
    await room.keep(asking())
    room.clock.now += 15
    await room.stale()
    await turns()
    room.server.seen[1].fail(mistake := RuntimeError("a mistake"))
    await turns()
    assert room.mistakes == [mistake]
    assert others() == set()
    await room.stale(3)
    await room.caching.close()


async def test_many_stale_answers_at_once_are_one_renewal_and_one_line() -> None:
    """A journey that ended without a call would be a line about nothing."""
    room = Room()
    await room.keep(asking())
    room.clock.now += 15
    permits = [await room.stale(id) for id in range(2, 12)]
    await turns()
    assert len(room.server.seen) == 2
    room.server.seen[1].say("new")
    await turns()
    told = [words[1] for permit in permits for words in diary(permit)]
    assert (told.count("ended"), told.count("permitted")) == (1, 1), "what began has an end"


async def test_renewals_are_bounded() -> None:
    """Whoever asks later, once there is room again, begins theirs."""
    room = Room()
    for number in range(MAX_RENEWALS + 1):
        await room.keep(asking(number=number))
    room.clock.now += 15
    for number in range(MAX_RENEWALS + 1):
        await room.stale(number=number)
    await turns()
    assert len(others()) == 2 * MAX_RENEWALS  # each, and its flight
    assert len(room.server.seen) == 2 * MAX_RENEWALS + 1
    room.server.seen[MAX_RENEWALS + 1].say("new")
    await turns()
    await room.stale(number=MAX_RENEWALS)
    await turns()
    assert len(room.server.seen) == 2 * MAX_RENEWALS + 2
    await room.caching.close()


async def test_closing_ends_what_runs_beside_the_calls() -> None:
    room = Room()
    await room.keep(asking())
    room.clock.now += 15
    await room.stale()
    await turns()
    renewal = room.server.seen[1]
    await room.caching.close()
    assert renewal.is_cancelled
    assert others() == set()
    journey = renewal.permit.call.journey
    assert isinstance(journey, FakeJourney)
    assert journey.diary[-1] == (journey.request_id, "ended", Ending.CLIENT_GONE)


async def test_closing_waits_for_what_is_being_forgotten(tmp_path: Path) -> None:
    """A file that has not heard of a change would tell old answers after a restart."""
    settings = CacheSettings(file=str(tmp_path / "kept"), secret=Secret("x" * 32))
    listing = make_permit(method="tools/list", tool=None)
    first = Room(settings)
    jobs = await loading(first)
    asked = asyncio.get_running_loop().create_task(_read(first.stage, listing))
    await turns()
    first.server.seen[0].say("list", ttlMs=60_000)
    await asked
    await _end(jobs)
    assert first.caching.listen is not None
    ear = first.caching.listen(listing, None)
    assert ear is not None
    ear.notification("notifications/tools/list_changed", {})
    await first.caching.close()
    await first.store.close()
    again = Room(settings)
    jobs = await loading(again)
    await again.keep(listing, "asked")
    await _end(jobs)
    await again.store.close()


async def loading(room: Room) -> list[asyncio.Task[None]]:
    """Its jobs, when the file was read."""
    assert isinstance(room.store, File)
    jobs = [asyncio.get_running_loop().create_task(_run(job)) for job in room.store.jobs]
    async with asyncio.timeout(10):
        await room.store.loaded()
    return jobs


async def _run(job: Job) -> None:
    await job()


async def _end(jobs: list[asyncio.Task[None]]) -> None:
    for job in jobs:
        job.cancel()
    await asyncio.gather(*jobs, return_exceptions=True)


@pytest.mark.parametrize(
    ("tenant", "tools", "left"),
    [
        (None, (), set()),
        ("acme", (), {EVE}),
        ("acme", ("re?d",), {EVE}),
        (None, ("read",), set()),
        ("acme", ("other",), {ANN, BOB, EVE}),
        ("nobody", (), {ANN, BOB, EVE}),
    ],
)
async def test_an_operator_says_what_is_dropped(
    tenant: str | None, tools: tuple[str, ...], left: set[object]
) -> None:
    room = Room()
    for who in (ANN, BOB, EVE):
        await room.keep(make_permit(1, who))
    await room.caching.forget(tenant, *tools)
    for who in (ANN, BOB, EVE):
        if who in left:
            await _read(room.stage, make_permit(2, who))
        else:
            await room.keep(make_permit(2, who))
    assert len(room.server.seen) == 6 - len(left)


async def test_an_old_list_that_is_told_again_brings_no_old_definition_back() -> None:
    """Another caller has seen since that the tool is not what it was."""
    room = Room()
    await room.list_tools(ANN, {"name": "read", "title": "one"})
    await room.keep(make_permit(), "under the first")
    await room.list_tools(BOB, {"name": "read", "title": "two"})
    before = len(room.server.seen)
    await _read(room.stage, make_permit(2, method="tools/list", tool=None))
    assert len(room.server.seen) == before
    await room.keep(make_permit(3), "under the second")
    assert await text_of(await room.stage(make_permit(4))) == (4, "under the second")


async def test_a_kept_list_teaches_what_nobody_has_seen_since() -> None:
    """After a restart, for example: what was kept under a definition is found again."""
    room = Room()
    permit = make_permit(method="tools/list", tool=None)
    asked = asyncio.get_running_loop().create_task(_read(room.stage, permit))
    await turns()
    tools = [{"name": "read"}]
    room.server.seen[0].answer(
        json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"tools": tools, "ttlMs": 60_000}}).encode()
    )
    await asked
    await room.keep(make_permit(), "without one")
    await _read(room.stage, permit)
    await room.keep(make_permit(), "with one")


async def test_what_the_settings_leave_out_is_not_there() -> None:
    """No stage, no ears, no jobs."""
    server = Server()
    caching = Caching(
        None,
        upstream="u",
        generation="g",
        rule_of=lambda call, principal: Rule(id="none"),
        stops=lambda name: False,
        failed=lambda error: None,
        wall=Clock(),
    )
    assert caching.guarded(server, lambda permit, text: None) is server
    assert (caching.listen, caching.store, caching.counts) == (None, None, {})
    await caching.forget()
    await caching.close()


async def test_ears_and_calls_reach_one_store() -> None:
    room = Room()
    await room.keep(asking())
    assert isinstance(room.caching.store, Memory)
    assert room.caching.listen is not None
    listing = make_permit(1, method="tools/list", tool=None)
    asked = asyncio.get_running_loop().create_task(_read(room.stage, listing))
    await turns()
    room.server.seen[-1].say("list", ttlMs=60_000)
    await asked
    ear = room.caching.listen(listing, None)
    assert ear is not None
    await _read(room.stage, listing)
    ear.notification("notifications/tools/list_changed", {})
    await turns()
    await room.keep(listing, "new")
    await _read(room.stage, asking())
    await room.caching.store.forget(Forget(None))
    await room.keep(asking())
    assert room.caching.counts["stored"] == 3
