"""One connection is kept up, and a store in trouble is left alone."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from proxy.limits.valkey_link import MOMENT_S, MOMENTS, PATIENCE_S, TROUBLES, Ask, Link, Unusable, in_words
from proxy.limits.valkey_script import packed
from proxy.limits.valkey_url import Place
from proxy.limits.valkey_wire import MAX_REPLY_BYTES
from tests.integration.waiting import within
from tests.valkey import Valkey


class Story:
    """What a link said and did, in order."""

    def __init__(self) -> None:
        self.lines: list[str | float | None] = []
        self.chance = 1.0
        self.now = 100.0
        self._grew = asyncio.Event()

    def add(self, line: str | float | None) -> None:
        self.lines.append(line)
        self._grew.set()

    async def sleep(self, seconds: float) -> None:
        self.add(seconds)
        await asyncio.sleep(0)

    async def reached(self, line: str | float | None) -> None:
        """Wait until it was said or done."""
        async with within():
            while line not in self.lines:
                self._grew.clear()
                await self._grew.wait()

    async def until(self, *lines: str | float | None) -> None:
        """Wait until it begins so; then it begins anew."""
        async with within():
            while len(self.lines) < len(lines):
                self._grew.clear()
                await self._grew.wait()
        assert tuple(self.lines[: len(lines)]) == lines
        del self.lines[: len(lines)]


@pytest.fixture
def story() -> Story:
    return Story()


@pytest.fixture(scope="module")
def store() -> Iterator[Valkey]:
    with Valkey() as store:
        yield store


async def greet(ask: Ask) -> None:
    assert await ask(packed("PING")) == [b"PONG"]


@asynccontextmanager
async def linked(
    story: Story,
    port: int,
    greet: Callable[[Ask], Awaitable[None]] = greet,
    ping_s: float = 5.0,
    max_reply_bytes: int = MAX_REPLY_BYTES,
) -> AsyncIterator[Link]:
    link = Link(
        Place(host="127.0.0.1", port=port),
        greet,
        told=story.add,
        now=lambda: story.now,
        chance=lambda: story.chance,
        sleep=story.sleep,
        ping_s=ping_s,
        max_reply_bytes=max_reply_bytes,
    )
    job = asyncio.ensure_future(link.run())
    try:
        async with within():
            await link.first_try()
        yield link
    finally:
        job.cancel()
        await asyncio.wait((job,))
        async with within():
            await link.close()


async def test_pauses_grow_to_a_bound_and_are_a_matter_of_chance(story: Story) -> None:
    """All replicas lose their store at once; they must not come back at once. Told once, not at each try."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        async with linked(story, nobody.getsockname()[1]) as link:
            await story.until("the store cannot be reached", 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0)
            assert (link.outages, link.wire) == (1, None)
            story.chance = 0.25
            await story.reached(0.5)


async def test_a_store_is_used_when_it_has_greeted_well(story: Story, store: Valkey) -> None:
    held = asyncio.Event()
    refuse = True

    async def reluctant(ask: Ask) -> None:
        if refuse:
            raise Unusable("not yet")
        await held.wait()

    async with linked(story, store.port, reluctant) as link:
        assert link.wire is None
        await story.until("not yet", 0.1)
        refuse = False
        held.set()
        await story.reached(None)
        assert (link.outages, link.why_down, link.wire is None) == (1, None, False)


async def test_troubles_that_do_not_end_open_the_breaker(story: Story, store: Valkey) -> None:
    """Neither many of one moment, nor few that are long apart, nor those with good answers between them."""
    async with linked(story, store.port) as link:
        for _ in range(3):
            for _ in range(TROUBLES - 1):
                story.now += PATIENCE_S
                link.had_trouble("slow")
            link.went_well()
        for _ in range(100 * TROUBLES):
            link.had_trouble("slow")
        wire = link.wire
        assert wire is not None
        story.now += PATIENCE_S
        link.had_trouble("slow")
        assert link.wire is None
        assert wire.lost.done()
        assert (link.outages, link.why_down) == (1, "slow")
        await story.until("slow", 0.1, None)
        assert link.wire is not wire


async def test_a_store_that_is_mostly_late_is_left_alone_too(story: Story, store: Valkey) -> None:
    """Found by a benchmark: half of all calls waited for their timeout, as long as one in five came in time."""
    async with linked(story, store.port) as link:
        moments = 0
        while not link.outages and moments < 2 * MOMENTS:
            moments += 1
            for _ in range(TROUBLES - 1):
                link.had_trouble("slow")
            link.went_well()
            story.now += MOMENT_S
        assert link.outages == 1
        assert moments > MOMENTS / 2


async def test_a_store_that_is_sometimes_late_is_not(story: Story, store: Valkey) -> None:
    async with linked(story, store.port) as link:
        for moment in range(4 * MOMENTS):
            for _ in range(TROUBLES - 1 if moment % 3 == 0 else 0):
                link.had_trouble("slow")
            link.went_well()
            story.now += MOMENT_S
        assert link.wire is not None
        assert link.outages == 0


async def test_an_idle_store_that_hangs_is_noticed_before_a_call_waits(story: Story) -> None:
    with Valkey() as store:
        async with linked(story, store.port, ping_s=0.02) as link:
            wire = link.wire
            assert wire is not None
            await asyncio.wait((wire.lost,), timeout=0.15)
            assert not wire.lost.done(), "it answers when asked"
            store.hang()
            await story.until("the store does not answer")
            assert wire.lost.done()
            store.kill()


async def test_a_reply_may_be_as_long_as_it_was_said(story: Story, store: Valkey) -> None:
    """Other things than limits are kept in stores."""
    store.client.set("long", "x" * 2_000_000)

    async def read(ask: Ask) -> None:
        assert await ask(packed("GET", "long")) == [b"x" * 2_000_000]

    async with linked(story, store.port, read, max_reply_bytes=2_100_000) as link:
        assert link.wire is not None
    async with linked(story, store.port, read) as link:
        await story.until("the store hung up")


async def test_who_closes_is_not_in_an_outage(story: Story, store: Valkey) -> None:
    async with linked(story, store.port) as link:
        async with within():
            await link.close()
        assert (link.wire, link.outages) == (None, 0)
    assert None not in story.lines


@pytest.mark.parametrize("word", ["NOAUTH", "NOPERM", "MOVED", "ASK", "CROSSSLOT", "OOM", "ERR", "X"])
def test_every_error_has_words(word: str) -> None:
    assert "the store" in in_words(word)
    assert ("cluster" in in_words(word)) == (word in {"MOVED", "ASK", "CROSSSLOT"})
