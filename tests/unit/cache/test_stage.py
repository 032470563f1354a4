"""Kept answers, those of others under way, and the server's own: who is told what, and what is left behind.

Source: issue 6, items 1 to 5; design.md section 4 "cache".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import pytest

from proxy.cache.settings import CacheSettings
from proxy.cache.stage import Cache
from proxy.cache.store import Forget, Store
from proxy.cache.worth import Worth
from proxy.model import Broken, Permit, Reason, Refused, Reply, Stream
from proxy.refusals import message

from .entries import Clock
from .serving import Server, Wire, event, make_memory, make_permit, read, read_into, result, text_of, turns

MOST_BYTES: Final = 2_000


class Kitchen:
    """A cache with everything around it."""

    def __init__(self, server: Server | None = None, store: Store | None = None) -> None:
        self.clock = Clock()
        self.server = server or Server()
        self.store = store or make_memory(self.clock)
        self.taught: list[tuple[Permit, bytes]] = []
        self.refusal: Refused | None = None
        """What another room says to a kept answer."""
        self.renewals: list[tuple[Permit, Callable[[Permit], Awaitable[Reply | None]]]] = []
        self.definition = ""
        self.cache = Cache(
            self.server,
            Worth(CacheSettings(max_entry_bytes=MOST_BYTES), upstream="u", generation="g"),
            self.store,
            max_entry_bytes=MOST_BYTES,
            definition=lambda permit: self.definition,
            teach=self._teach,
            refresh=lambda permit, again: self.renewals.append((permit, again)),
            wall=self.clock,
        )

    def _teach(self, permit: Permit, text: bytes) -> None:
        self.taught.append((permit, text))
        if self.refusal is not None:
            raise self.refusal

    def ask(self, permit: Permit) -> asyncio.Task[Reply]:
        return asyncio.get_running_loop().create_task(_now(self.cache(permit)))


async def _now(reply: Awaitable[Reply]) -> Reply:
    return await reply


async def test_whoever_asks_after_a_write_waits_for_nobody_who_asked_before() -> None:
    """What the first brings may be from before the write."""
    kitchen = Kitchen()
    before = kitchen.ask(make_permit(1))
    await turns()
    await kitchen.store.forget(Forget("acme", ("tools/call",), ("read",)))
    after = [kitchen.ask(make_permit(id)) for id in (2, 3)]
    await turns()
    old, new = kitchen.server.seen
    new.say("new")
    assert [await text_of(await each) for each in after] == [(2, "new"), (3, "new")]
    old.say("old")
    assert await text_of(await before) == (1, "old")
    assert await text_of(await kitchen.ask(make_permit(4))) == (4, "new")


async def test_a_stream_that_only_says_that_it_lives_is_not_held_for_ever() -> None:
    kitchen = Kitchen()
    asked = kitchen.ask(make_permit())
    await turns()
    wire = Wire()
    kitchen.server.seen[0].answer(wire.stream)
    pings = [b": ping\n\n" * 10] * 30
    wire.send(*pings)
    await turns(60)
    assert asked.done()
    wire.send(event(result("late")))
    wire.end()
    assert await read(await asked) == b"".join(pings) + event(result("late"))
    assert wire.closed == 1


def last_word(permit: Permit) -> bytes:
    """What the forwarding stage says when a stream ends without an answer."""
    return event(message(Refused(Reason.OUTCOME_UNKNOWN), permit.call))


@pytest.mark.parametrize("told", [False, True], ids=["cut off", "with our last word"])
async def test_a_stream_that_breaks_before_its_answer_is_a_failure(told: bool) -> None:
    """One of those who wait tries again for all of them; who asked first reads the stream as it was."""
    kitchen = Kitchen()
    asked = [kitchen.ask(make_permit(id)) for id in range(5)]
    await turns()
    wire = Wire()
    first = kitchen.server.seen[0]
    first.answer(wire.stream)
    sent = b": ping\n\n" + (last_word(first.permit) if told else b"")
    wire.send(sent)
    wire.break_off(told=told)
    await turns()
    assert len(kitchen.server.seen) == 2
    kitchen.server.seen[1].say("hello")
    assert [await text_of(await each) for each in asked[1:]] == [(id, "hello") for id in range(1, 5)]
    leader = await asked[0]
    assert isinstance(leader.body, Stream)
    chunks: list[bytes] = []
    with pytest.raises(Broken) as broken:
        await read_into(chunks, leader)
    assert (b"".join(chunks), broken.value.told) == (sent, told)
    assert len(kitchen.server.seen) == 2
