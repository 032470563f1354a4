"""Kept answers, those of others under way, and the server's own: who is told what, and what is left behind.

Source: issue 6, items 1 to 5; design.md section 4 "cache".
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import permutations
from typing import Any, Final, Literal

import pytest
from msgspec import structs

from proxy.cache.entry import Entry
from proxy.cache.settings import CacheSettings
from proxy.cache.stage import Cache
from proxy.cache.store import Forget, Mark, Store
from proxy.cache.worth import Worth
from proxy.model import Broken, Ending, Keep, Permit, Principal, Reason, Refused, Reply, Stream, Verdict
from proxy.refusals import message
from tests.fakes import FakeJourney

from .entries import Clock
from .serving import (
    ANN,
    BOB,
    EVE,
    EVENTS,
    JSON,
    LEGACY,
    Exchange,
    Server,
    SlowStore,
    Wire,
    error,
    event,
    hows,
    make_memory,
    make_permit,
    others,
    read,
    read_into,
    result,
    text_of,
    turns,
)

MOST_BYTES: Final = 2_000


class Kitchen:
    """A cache with everything around it."""

    def __init__(
        self, server: Server | None = None, store: Store | None = None, clock: Clock | None = None
    ) -> None:
        self.clock = clock or Clock()
        self.server = server or Server()
        self.store = store or make_memory(self.clock)
        self.taught: list[tuple[Permit, bytes]] = []
        self.refusal: Refused | None = None
        """What another room says to a kept answer."""
        self.renewals: list[tuple[Permit, Callable[[Permit], Awaitable[Reply | None]]]] = []
        self.definition = ""
        self.worth = Worth(CacheSettings(max_entry_bytes=MOST_BYTES), upstream="u", generation="g")
        self.cache = Cache(
            self.server,
            self.worth,
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
        return asyncio.get_running_loop().create_task(self._answered(permit))

    async def _answered(self, permit: Permit) -> Reply:
        return await self.cache(permit)

    async def keep(self, permit: Permit, text: str = "kept", **more: object) -> None:
        """Ask the server, which answers well."""
        asked = self.ask(permit)
        await turns()
        self.server.seen[-1].say(text, **more)
        assert await text_of(await asked) == (permit.call.id, text)

    async def answered(self, permit: Permit) -> tuple[Any, str]:
        """Id and text of an answer that does not come from the server."""
        before = len(self.server.seen)
        told: tuple[Any, str] = await text_of(await self.cache(permit))
        assert len(self.server.seen) == before
        return told


async def test_a_kept_answer_is_told_to_whoever_asks_the_same() -> None:
    """Under the caller's id, with its age, and with nothing else of the old answer's fields."""
    kitchen = Kitchen()
    asked = kitchen.ask(first := make_permit(1, arguments={"a": 1, "b": 2}))
    await turns()
    kitchen.server.seen[0].answer(result("hello"), 200, JSON, ("Mcp-Session-Id", "s"), ("X-Trace", "t"))
    await read(await asked)
    kitchen.clock.now += 7.9
    reply = await kitchen.cache(again := make_permit("two", arguments={"b": 2, "a": 1}))
    assert reply.status == 200
    assert reply.headers.pairs == ((b"Content-Type", b"application/json"), (b"Age", b"7"))
    said = json.loads(await read(reply))
    assert said["id"] == "two"
    assert said["result"]["_meta"] == {"dev.mcp-sidecar/cache": {"age_s": 7, "state": "fresh"}}
    assert said["result"]["content"] == [{"type": "text", "text": "hello"}]
    assert (hows(first), hows(again)) == (["miss"], ["miss", "hit"])
    assert isinstance(again.call.journey, FakeJourney)
    assert again.call.journey.diary[-1] == ("j1", "answered", Verdict.OK)
    assert len(kitchen.server.seen) == 1


async def test_an_answer_is_told_until_it_is_old() -> None:
    kitchen = Kitchen()
    await kitchen.keep(make_permit())
    kitchen.clock.now += 59.9
    await kitchen.answered(make_permit())
    kitchen.clock.now += 0.1
    await kitchen.keep(make_permit(), "new")
    assert await kitchen.answered(make_permit()) == (1, "new")


@pytest.mark.parametrize(
    "permit",
    [
        make_permit(tool_class="write"),
        make_permit(tool_class="dangerous"),
        make_permit(method="prompts/get"),
        make_permit(headers={"Cache-Control": "no-store"}),
        make_permit(revision=LEGACY, method="tools/list", tool=None),
    ],
    ids=["write", "dangerous", "prompt", "no-store", "legacy list"],
)
async def test_what_is_not_kept_passes_untouched(permit: Permit) -> None:
    """Not looked up, not waited for, not stored; its journey hears nothing of a cache."""
    kitchen = Kitchen()
    asked = [kitchen.ask(permit) for _ in range(2)]
    await turns()
    assert len(kitchen.server.seen) == 2
    assert kitchen.cache.under_way == 0
    replies = [
        exchange.answer(result("hello", ttlMs=60_000, cacheScope="public"))
        for exchange in kitchen.server.seen
    ]
    assert [await each for each in asked] == replies
    assert hows(permit) == []
    assert kitchen.store.counts.get("stored", 0) == 0


async def test_what_lies_under_the_same_name_by_somebodys_hand_is_nothing() -> None:
    """The entry repeats what its key was made of. Source: issue 6, 2."""
    kitchen = Kitchen()
    permit = make_permit(keep=Keep(ttl_s=60, share="tenant"))
    asked = kitchen.worth.asked(permit)
    assert asked is not None
    keys = kitchen.worth.keys(permit, asked)
    assert keys is not None
    assert keys.shared is not None
    await kitchen.keep(permit)
    right = await kitchen.store.get(keys.shared.digest)
    assert right is not None
    for digest in (keys.own.digest, keys.shared.digest):
        await kitchen.store.put(digest, structs.replace(right, material=b"other"), kitchen.store.mark())
    await kitchen.keep(permit, "asked")
    await kitchen.store.put(keys.own.digest, right, kitchen.store.mark())
    assert await kitchen.answered(permit) == (1, "asked")


async def test_whoever_wants_its_own_gets_it_and_others_get_that() -> None:
    """no-cache: not looked up, nobody is waited for; what comes is kept."""
    kitchen = Kitchen()
    await kitchen.keep(make_permit(), "old")
    wishing = make_permit(2, headers={"Cache-Control": "no-cache"})
    asked = [kitchen.ask(wishing), kitchen.ask(wishing)]
    await turns()
    assert len(kitchen.server.seen) == 3
    kitchen.server.seen[1].say("newer")
    await turns()
    kitchen.server.seen[2].say("newest")
    assert [await text_of(await each) for each in asked] == [(2, "newer"), (2, "newest")]
    assert await kitchen.answered(make_permit(3)) == (3, "newest")


async def test_a_tool_that_is_defined_otherwise_is_asked_again() -> None:
    kitchen = Kitchen()
    await kitchen.keep(make_permit())
    kitchen.definition = "v2"
    await kitchen.keep(make_permit())
    kitchen.definition = ""
    await kitchen.answered(make_permit())


async def test_other_rooms_learn_from_kept_lists_and_may_refuse_them() -> None:
    kitchen = Kitchen()
    listing = make_permit(method="tools/list", tool=None)
    tools: dict[str, Any] = {"tools": [{"name": "t"}], "ttlMs": 60_000, "cacheScope": "public"}
    await kitchen.keep(listing, **tools)
    await kitchen.keep(make_permit())
    assert kitchen.taught == []
    for who in (ANN, EVE):
        permit = make_permit(5, who, method="tools/list", tool=None)
        await kitchen.answered(permit)
        taught, text = kitchen.taught.pop()
        assert taught is permit
        assert json.loads(text)["tools"] == [{"name": "t"}]
    await kitchen.answered(make_permit())
    assert kitchen.taught == []
    kitchen.refusal = Refused(Reason.UPSTREAM_NONSENSE)
    with pytest.raises(Refused):
        await kitchen.cache(listing)


@pytest.mark.parametrize(
    ("share", "gets"), [("caller", {ANN}), ("tenant", {ANN, BOB}), ("all", {ANN, BOB, EVE})]
)
async def test_an_answer_goes_to_whom_the_rule_says(
    share: Literal["caller", "tenant", "all"], gets: set[Principal]
) -> None:
    kitchen = Kitchen()
    keep = Keep(ttl_s=60, share=share)
    await kitchen.keep(make_permit(keep=keep))
    for who in (ANN, BOB, EVE):
        if who in gets:
            await kitchen.answered(make_permit(2, who, keep=keep))
        else:
            await kitchen.keep(make_permit(2, who, keep=keep), "for another")


async def test_an_error_that_says_not_found_is_told_again_where_the_rule_says_so() -> None:
    kitchen = Kitchen()
    keep = Keep(ttl_s=60, negative_ttl_s=5)
    asked = kitchen.ask(make_permit(keep=keep))
    await turns()
    kitchen.server.seen[0].answer(error(-32602), 404)
    await read(await asked)
    again = make_permit(2, keep=keep)
    reply = await kitchen.cache(again)
    assert (reply.status, json.loads(await read(reply))) == (404, json.loads(error(-32602, 2)))
    assert isinstance(again.call.journey, FakeJourney)
    assert again.call.journey.diary[-1] == ("j1", "answered", Verdict.RPC_ERROR)
    kitchen.clock.now += 5
    await kitchen.keep(make_permit(3, keep=keep))


# Old answers

RENEWED: Final = Keep(ttl_s=10, stale_while_revalidate_s=20)
SAVED: Final = Keep(ttl_s=10, stale_if_error_s=20)


async def test_an_old_answer_is_told_while_one_new_one_is_fetched() -> None:
    kitchen = Kitchen()
    await kitchen.keep(make_permit(keep=RENEWED), "old", ttlMs=10_000)
    kitchen.clock.now += 12
    stale = make_permit(2, keep=RENEWED)
    reply = await kitchen.cache(stale)
    said = json.loads(await read(reply))
    assert said["id"] == 2
    assert said["result"]["_meta"]["dev.mcp-sidecar/cache"] == {"age_s": 12, "state": "stale"}
    assert said["result"]["ttlMs"] == 0
    assert reply.headers.get("age") == "12"
    assert hows(stale) == ["miss", "stale"]
    [(permit, ask)] = kitchen.renewals
    assert permit is stale
    renewing = asyncio.get_running_loop().create_task(_done(ask(make_permit(2, keep=RENEWED))))
    await turns()
    # While it is under way nobody else fetches one.
    assert await kitchen.answered(make_permit(3, keep=RENEWED)) == (3, "old")
    assert len(kitchen.renewals) == 1
    assert await ask(make_permit(2, keep=RENEWED)) is None
    kitchen.server.seen[1].say("new")
    await renewing
    assert await kitchen.answered(make_permit(4, keep=RENEWED)) == (4, "new")
    assert kitchen.server.seen[1].endings == [Ending.COMPLETE]


async def _done(asked: Awaitable[Reply | None]) -> None:
    reply = await asked
    assert reply is not None
    reply.done(Ending.COMPLETE)


async def test_an_answer_that_is_too_old_waits_for_the_renewal_of_others() -> None:
    kitchen = Kitchen()
    await kitchen.keep(make_permit(keep=RENEWED), "old")
    kitchen.clock.now += 29.9
    await kitchen.answered(make_permit(2, keep=RENEWED))
    [(_, ask)] = kitchen.renewals
    renewing = asyncio.get_running_loop().create_task(_done(ask(make_permit(2, keep=RENEWED))))
    await turns()
    kitchen.clock.now += 0.1
    joined = kitchen.ask(make_permit(3, keep=RENEWED))
    await turns()
    assert len(kitchen.server.seen) == 2
    kitchen.server.seen[1].say("new")
    await renewing
    assert await text_of(await joined) == (3, "new")


async def test_a_renewal_that_fails_changes_nothing() -> None:
    kitchen = Kitchen()
    await kitchen.keep(make_permit(keep=RENEWED), "old")
    kitchen.clock.now += 15
    await kitchen.answered(make_permit(2, keep=RENEWED))
    renewing = asyncio.get_running_loop().create_task(
        _done(kitchen.renewals[0][1](make_permit(2, keep=RENEWED)))
    )
    await turns()
    kitchen.server.seen[1].fail(Refused(Reason.UPSTREAM_BROKE))
    with pytest.raises(Refused):
        await renewing
    assert await kitchen.answered(make_permit(3, keep=RENEWED)) == (3, "old")
    assert len(kitchen.renewals) == 2
    assert kitchen.cache.under_way == 0


@pytest.mark.parametrize("reason", list(Reason))
async def test_an_old_answer_is_told_when_the_server_fails_and_not_after_our_own_no(reason: Reason) -> None:
    kitchen = Kitchen()
    await kitchen.keep(make_permit(keep=SAVED), "old")
    kitchen.clock.now += 10
    asked = kitchen.ask(permit := make_permit(2, keep=SAVED))
    await turns()
    kitchen.server.seen[1].fail(refused := Refused(reason))
    if reason in (
        Reason.UPSTREAM_UNREACHABLE,
        Reason.UPSTREAM_BROKE,
        Reason.UPSTREAM_NONSENSE,
        Reason.OUTCOME_UNKNOWN,
        Reason.DEADLINE,
        Reason.BREAKER_OPEN,
        Reason.QUARANTINED,
        Reason.OVERLOADED,
    ):
        assert await text_of(await asked) == (2, "old")
        assert hows(permit) == ["miss", "stale"]
    else:
        with pytest.raises(Refused) as raised:
            await asked
        assert raised.value is refused


@pytest.mark.parametrize(
    ("status", "is_saved"), [(400, False), (404, False), (429, False), (500, True), (503, True)]
)
async def test_an_old_answer_is_told_instead_of_a_5xx(status: int, is_saved: bool) -> None:
    kitchen = Kitchen()
    await kitchen.keep(make_permit(keep=SAVED), "old")
    kitchen.clock.now += 10
    asked = kitchen.ask(make_permit(2, keep=SAVED))
    await turns()
    wire = Wire()
    kitchen.server.seen[1].answer(wire.stream, status, ("Content-Type", "text/html"))
    reply = await asked
    assert (await text_of(reply) == (2, "old")) if is_saved else reply.status == status
    reply.done(Ending.COMPLETE)
    assert kitchen.server.seen[1].endings == [Ending.COMPLETE]
    assert wire.closed == 1


async def test_an_old_answer_is_told_instead_of_a_stream_that_breaks() -> None:
    kitchen = Kitchen()
    await kitchen.keep(make_permit(keep=SAVED), "old")
    kitchen.clock.now += 10
    asked = kitchen.ask(make_permit(2, keep=SAVED))
    await turns()
    wire = Wire()
    kitchen.server.seen[1].answer(wire.stream)
    wire.send(last_word(kitchen.server.seen[1].permit))
    wire.break_off(told=True)
    assert await text_of(await asked) == (2, "old")
    assert kitchen.server.seen[1].endings == [Ending.COMPLETE]
    assert wire.closed == 1


async def test_an_answer_that_is_too_old_saves_nobody() -> None:
    kitchen = Kitchen()
    await kitchen.keep(make_permit(keep=SAVED), "old")
    for late, status in ((30, 0), (0, 500)):
        kitchen.clock.now += late
        asked = kitchen.ask(make_permit(2, keep=SAVED))
        await turns()
        if status:
            kitchen.server.seen[-1].answer(b"oops", status, ("Content-Type", "text/plain"))
            assert (await asked).status == status
        else:
            kitchen.server.seen[-1].fail(Refused(Reason.UPSTREAM_BROKE))
            with pytest.raises(Refused):
                await asked


async def test_an_answer_may_grow_too_old_while_the_server_fails() -> None:
    for fail in (_refuse, _answer_500):
        kitchen = Kitchen()
        await kitchen.keep(make_permit(keep=SAVED), "old")
        kitchen.clock.now += 29
        asked = kitchen.ask(make_permit(2, keep=SAVED))
        await turns()
        kitchen.clock.now += 1
        fail(kitchen.server.seen[1])
        [done] = await asyncio.gather(asked, return_exceptions=True)
        assert isinstance(done, Refused) or (isinstance(done, Reply) and done.status == 500)


async def test_an_old_answer_for_errors_is_no_answer_while_the_server_works() -> None:
    """And one for renewals saves nobody."""
    kitchen = Kitchen()
    await kitchen.keep(make_permit(keep=SAVED), "old")
    kitchen.clock.now += 10
    await kitchen.keep(make_permit(2, keep=SAVED), "new")
    assert kitchen.renewals == []
    kitchen.clock.now += 100
    await kitchen.keep(make_permit(keep=RENEWED), "old")
    kitchen.clock.now += 30
    asked = kitchen.ask(make_permit(2, keep=RENEWED))
    await turns()
    kitchen.server.seen[-1].fail(Refused(Reason.UPSTREAM_BROKE))
    with pytest.raises(Refused):
        await asked


async def test_ones_own_old_answer_comes_before_a_shared_one_and_a_new_one_before_both() -> None:
    kitchen = Kitchen()
    keep = structs.replace(RENEWED, share="all")
    await kitchen.keep(make_permit(1, ANN, keep=keep), "of ann", cacheScope="private")
    await kitchen.keep(make_permit(2, BOB, keep=keep), "of all")
    assert await kitchen.answered(make_permit(3, EVE, keep=keep)) == (3, "of all")
    assert await kitchen.answered(make_permit(3, ANN, keep=keep)) == (3, "of ann")
    kitchen.clock.now += 12
    assert await kitchen.answered(make_permit(4, ANN, keep=keep)) == (4, "of ann")
    wishing = make_permit(5, BOB, keep=keep, headers={"Cache-Control": "no-cache"})
    await kitchen.keep(wishing, "new for all")
    assert await kitchen.answered(make_permit(6, ANN, keep=keep)) == (6, "new for all")


# Equal calls at once


async def test_equal_calls_at_once_are_one_call() -> None:
    kitchen = Kitchen()
    keep = Keep(ttl_s=60, share="all")
    permits = [make_permit(id, who, keep=keep) for id, who in enumerate((ANN, BOB, EVE) * 10)]
    asked = [kitchen.ask(permit) for permit in permits]
    await turns()
    assert kitchen.cache.under_way == 1
    [exchange] = kitchen.server.seen
    exchange.say("hello")
    replies = [await each for each in asked]
    assert [await text_of(reply) for reply in replies] == [(id, "hello") for id in range(30)]
    assert [hows(permit) for permit in permits] == [["miss"], *[["miss", "joined"]] * 29]
    assert exchange.endings == [Ending.COMPLETE]
    assert kitchen.cache.under_way == 0
    assert replies[0] is exchange.lands.result()


async def test_calls_of_others_at_once_are_calls_of_their_own() -> None:
    kitchen = Kitchen()
    asked = [kitchen.ask(make_permit(id, who)) for id, who in enumerate((ANN, BOB, EVE))]
    await turns()
    for exchange in kitchen.server.seen:
        exchange.say(exchange.permit.principal.subject)
    assert [await text_of(await each) for each in asked] == [(0, "ann"), (1, "bob"), (2, "eve")]


async def test_where_the_server_decides_who_may_share_each_asks_for_itself() -> None:
    """Only the answer tells that it is public; the same caller waits for its own."""
    kitchen = Kitchen()
    listings = [
        make_permit(id, who, method="tools/list", tool=None) for id, who in enumerate((ANN, BOB, ANN))
    ]
    asked = [kitchen.ask(each) for each in listings]
    await turns()
    assert [exchange.id for exchange in kitchen.server.seen] == [0, 1]
    for exchange in kitchen.server.seen:
        exchange.say("list", ttlMs=60_000, cacheScope="public")
    assert [await text_of(await each) for each in asked] == [(id, "list") for id in range(3)]


def _refuse(exchange: Exchange) -> None:
    exchange.fail(Refused(Reason.UPSTREAM_BROKE))


def _answer_500(exchange: Exchange) -> None:
    exchange.answer(b"oops", 500, ("Content-Type", "text/plain"))


@pytest.mark.parametrize("fail", [_refuse, _answer_500], ids=["refused", "500"])
async def test_when_the_first_fails_one_tries_again_for_all(fail: Callable[[Exchange], None]) -> None:
    kitchen = Kitchen()
    asked = [kitchen.ask(make_permit(id)) for id in range(10)]
    await turns()
    fail(kitchen.server.seen[0])
    await turns()
    assert len(kitchen.server.seen) == 2
    kitchen.server.seen[1].say("hello")
    done = await asyncio.gather(*asked, return_exceptions=True)
    assert [await text_of(each) for each in done[1:] if isinstance(each, Reply)] == [
        (id, "hello") for id in range(1, 10)
    ]
    assert len(kitchen.server.seen) == 2
    assert kitchen.cache.under_way == 0


@pytest.mark.parametrize("fail", [_refuse, _answer_500], ids=["refused", "500"])
async def test_when_it_fails_twice_everybody_is_told(fail: Callable[[Exchange], None]) -> None:
    """Nobody hangs, and nobody asks a third time."""
    kitchen = Kitchen()
    asked = [kitchen.ask(make_permit(id)) for id in range(10)]
    for attempt in range(2):
        await turns()
        fail(kitchen.server.seen[attempt])
    done = await asyncio.gather(*asked, return_exceptions=True)
    assert len(kitchen.server.seen) == 2
    failed = [isinstance(each, Refused) or (isinstance(each, Reply) and each.status == 500) for each in done]
    assert failed == [True] * 10
    assert sum(isinstance(each, Reply) for each in done) == (2 if fail is _answer_500 else 0)


async def test_whoever_has_an_old_answer_is_saved_when_it_fails_twice() -> None:
    kitchen = Kitchen()
    await kitchen.keep(make_permit(keep=SAVED), "old")
    kitchen.clock.now += 10
    asked = [kitchen.ask(make_permit(id, keep=SAVED)) for id in range(5)]
    await turns()
    kitchen.server.seen[1].fail(Refused(Reason.UPSTREAM_BROKE))
    await turns()
    kitchen.server.seen[2].answer(b"", 502, ("Content-Type", "text/plain"))
    assert [await text_of(await each) for each in asked] == [(id, "old") for id in range(5)]
    assert len(kitchen.server.seen) == 3


async def test_a_mistake_of_ours_hangs_nobody() -> None:
    kitchen = Kitchen()
    asked = [kitchen.ask(make_permit(id)) for id in range(3)]
    await turns()
    kitchen.server.seen[0].fail(RuntimeError("a mistake"))
    done = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(each) for each in done] == [RuntimeError] * 3
    assert (kitchen.cache.under_way, others()) == (0, set())


async def test_an_answer_for_one_alone_is_asked_for_by_each() -> None:
    """A tool's error is neither kept nor given to others; nor does anybody wait a second time."""
    kitchen = Kitchen()
    asked = [kitchen.ask(make_permit(id)) for id in range(4)]
    await turns()
    kitchen.server.seen[0].say("no 0", isError=True)
    await turns()
    assert [exchange.id for exchange in kitchen.server.seen] == [0, 1, 2, 3]
    for exchange in kitchen.server.seen[1:]:
        exchange.say(f"no {exchange.id}", isError=True)
    assert [await text_of(await each) for each in asked] == [(id, f"no {id}") for id in range(4)]


async def test_a_private_answer_among_many_goes_to_the_same_caller_only() -> None:
    """The rule shares, the server does not: then each caller asks once."""
    kitchen = Kitchen()
    keep = Keep(ttl_s=60, share="all")
    asked = [kitchen.ask(make_permit(id, who, keep=keep)) for id, who in enumerate((ANN, ANN, BOB, BOB, EVE))]
    await turns()
    assert len(kitchen.server.seen) == 1
    kitchen.server.seen[0].say("of ann", cacheScope="private")
    await turns()
    assert [exchange.permit.principal for exchange in kitchen.server.seen] == [ANN, BOB, EVE]
    for exchange in kitchen.server.seen[1:]:
        exchange.say(f"of {exchange.permit.principal.subject}", cacheScope="private")
    texts = [await text_of(await each) for each in asked]
    assert texts == [(0, "of ann"), (1, "of ann"), (2, "of bob"), (3, "of bob"), (4, "of eve")]


async def test_an_answer_to_what_was_left_out_goes_to_nobody_else() -> None:
    """An argument that does not count may still be seen by the server, and say anything."""
    kitchen = Kitchen()
    keep = Keep(ttl_s=60, share="all", ignore=("trace",))
    asked = [kitchen.ask(make_permit(0, EVE, keep=keep, arguments={"trace": "x"}))]
    asked += [kitchen.ask(make_permit(1, ANN, keep=keep))]
    await turns()
    assert len(kitchen.server.seen) == 2
    for exchange in kitchen.server.seen:
        exchange.say(exchange.permit.principal.subject)
    assert [await text_of(await each) for each in asked] == [(0, "eve"), (1, "ann")]


@pytest.mark.parametrize("stays", range(3))
async def test_all_but_one_may_leave(stays: int) -> None:
    kitchen = Kitchen()
    asked = [kitchen.ask(make_permit(id)) for id in range(3)]
    await turns()
    for id, task in enumerate(asked):
        if id != stays:
            task.cancel()
            await turns()
    [exchange] = kitchen.server.seen
    assert not exchange.is_cancelled
    exchange.say("hello")
    assert await text_of(await asked[stays]) == (stays, "hello")
    await turns()
    # If who asked first has gone, nobody reads the reply, and it is closed.
    assert exchange.endings == [Ending.COMPLETE if stays == 0 else Ending.CLIENT_GONE]


@pytest.mark.parametrize("order", list(permutations(range(3))))
async def test_the_server_hears_when_the_last_one_leaves(order: tuple[int, ...]) -> None:
    kitchen = Kitchen()
    asked = [kitchen.ask(make_permit(id)) for id in range(3)]
    await turns()
    [exchange] = kitchen.server.seen
    for id in order:
        assert not exchange.is_cancelled
        asked[id].cancel()
        await turns()
    assert exchange.is_cancelled
    assert (kitchen.cache.under_way, others()) == (0, set())
    await kitchen.keep(make_permit())


# Whoever leaves at whatever moment leaves nothing behind


async def _says_json(exchange: Exchange) -> None:
    await asyncio.sleep(0)
    exchange.say("hello")


async def _says_private(exchange: Exchange) -> None:
    await asyncio.sleep(0)
    exchange.say("hello", cacheScope="private")


async def _says_tool_error(exchange: Exchange) -> None:
    await asyncio.sleep(0)
    exchange.say("hello", isError=True)


async def _streams(exchange: Exchange) -> None:
    await asyncio.sleep(0)
    wire = exchange.wire()
    wire.send(b": ping\n\n", event(result("hello", exchange.id)))
    wire.end()
    exchange.answer(wire.stream)


async def _streams_json(exchange: Exchange) -> None:
    await asyncio.sleep(0)
    wire = exchange.wire()
    text = result("hello", exchange.id)
    wire.send(text[:10], text[10:])
    wire.end()
    exchange.answer(wire.stream, 200, JSON)


async def _breaks(exchange: Exchange) -> None:
    await asyncio.sleep(0)
    wire = exchange.wire()
    wire.send(b": ping\n\n")
    wire.break_off()
    exchange.answer(wire.stream)


async def _refuses(exchange: Exchange) -> None:
    await asyncio.sleep(0)
    exchange.fail(Refused(Reason.UPSTREAM_BROKE))


async def _says_500(exchange: Exchange) -> None:
    await asyncio.sleep(0)
    wire = exchange.wire()
    wire.send(b"oops")
    wire.end()
    exchange.answer(wire.stream, 500, ("Content-Type", "text/plain"))


SCRIPTS: Final = (
    _says_json,
    _says_private,
    _says_tool_error,
    _streams,
    _streams_json,
    _breaks,
    _refuses,
    _says_500,
)


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("had", ["nothing", "an old answer"])
@pytest.mark.parametrize("wish", ["", "no-cache"])
async def test_leaving_at_any_moment_leaves_nothing_behind(
    script: Callable[[Exchange], Awaitable[None]], had: str, wish: str
) -> None:
    """No task, no place in a table, no reply that nobody closes."""
    headers = {"Cache-Control": wish} if wish else {}
    finished = False
    for moment in range(60):
        kitchen = await slow_kitchen(script, had == "an old answer")
        asked = kitchen.ask(make_permit(2, keep=SAVED, headers=headers))
        await turns(moment)
        finished = asked.done()
        asked.cancel()
        await left_nothing(kitchen, [asked])
        if finished:
            break
    assert finished
    assert moment > 1


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("had", ["nothing", "an old answer"])
@pytest.mark.parametrize("who_leaves", [(0,), (1,), (0, 1), (1, 0)], ids=str)
async def test_any_of_two_may_leave_at_any_moment(
    script: Callable[[Exchange], Awaitable[None]], had: str, who_leaves: tuple[int, ...]
) -> None:
    """The same; and whoever stays has an answer."""
    for first in range(12):
        for later in range(6):
            kitchen = await slow_kitchen(script, had == "an old answer")
            keep = structs.replace(SAVED, share="tenant")
            asked = [kitchen.ask(make_permit(2, ANN, keep=keep)), kitchen.ask(make_permit(3, BOB, keep=keep))]
            await turns(first)
            asked[who_leaves[0]].cancel()
            await turns(later)
            if len(who_leaves) > 1:
                asked[who_leaves[1]].cancel()
            for id in {0, 1} - set(who_leaves):
                async with asyncio.timeout(5):
                    await asyncio.wait({asked[id]})
                assert not asked[id].cancelled()
            await left_nothing(kitchen, asked)


async def slow_kitchen(script: Callable[[Exchange], Awaitable[None]], has_old: bool) -> Kitchen:
    """One whose store and server take their turns; with old answers for Ann, if need be."""
    clock = Clock()
    kitchen = Kitchen(Server(_says_json if has_old else script), SlowStore(clock), clock)
    if has_old:
        await read(await kitchen.cache(make_permit(1, keep=SAVED)))
        clock.now += 15
        kitchen.server.script = script
        kitchen.server.seen.clear()
    return kitchen


async def left_nothing(kitchen: Kitchen, asked: list[asyncio.Task[Reply]]) -> None:
    done = await asyncio.gather(*asked, return_exceptions=True)
    for each in done:
        if isinstance(each, Reply):
            with suppress(Broken):
                await read(each)
        else:
            assert isinstance(each, Refused | asyncio.CancelledError)
    await turns()
    assert (kitchen.cache.under_way, others()) == (0, set())
    for exchange in kitchen.server.seen:
        landed = exchange.lands.done() and exchange.lands.exception() is None
        assert len(exchange.endings) == (1 if landed else 0)
        if landed and isinstance(exchange.lands.result().body, Stream):
            assert [wire.closed for wire in exchange.wires] == [1]


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


# Streams


async def test_a_stream_is_held_until_the_answer_and_kept() -> None:
    """Comments, and events that only carry an id, say nothing."""
    kitchen = Kitchen()
    asked = kitchen.ask(make_permit())
    await turns()
    wire = Wire()
    kitchen.server.seen[0].answer(wire.stream)
    sent = [b": ping\n\n", b"id: 7\ndata:\n\n", b"retry: 5\n\n", event(result("hello"))[:20]]
    wire.send(*sent)
    await turns()
    assert not asked.done()
    sent.append(event(result("hello"))[20:])
    wire.send(sent[-1])
    reply = await asked
    # The first caller's stream is still open; others need not wait for its end.
    assert await kitchen.answered(make_permit(2)) == (2, "hello")
    wire.end()
    assert await read(reply) == b"".join(sent)
    assert wire.closed == 1


@pytest.mark.parametrize(
    "first",
    [
        event(b'{"jsonrpc":"2.0","method":"notifications/message","params":{}}'),
        event(b'{"jsonrpc":"2.0","id":"q","method":"roots/list"}'),
        event(result("to another", 99)),
        event(result("one")) + event(result("two")),
        b"event: other\ndata: " + result("odd") + b"\n\n",
        event(b"not json"),
    ],
    ids=["notification", "request", "foreign", "two at once", "named", "nonsense"],
)
async def test_a_stream_that_says_something_else_first_passes_at_once_and_is_not_kept(first: bytes) -> None:
    """The server may wait for its client's answer to it."""
    kitchen = Kitchen()
    asked = kitchen.ask(make_permit())
    await turns()
    wire = Wire()
    kitchen.server.seen[0].answer(wire.stream)
    wire.send(first)
    reply = await asked
    rest = event(result("hello"))
    wire.send(rest)
    wire.end()
    assert await read(reply) == first + rest
    await kitchen.keep(make_permit())


async def test_what_is_longer_than_may_be_kept_passes_byte_for_byte() -> None:
    """As events, and as a body that comes in pieces; in pieces of any length."""
    text = result("x" * MOST_BYTES)
    for kind, body in ((EVENTS, event(text)), (EVENTS, event(text) + b": end\n\n"), (JSON, text)):
        for size in (1, 7, MOST_BYTES, MOST_BYTES + 1, 10_000):
            kitchen = Kitchen()
            asked = kitchen.ask(make_permit())
            await turns()
            wire = Wire()
            kitchen.server.seen[0].answer(wire.stream, 200, kind)
            wire.send(*(body[at : at + size] for at in range(0, len(body), size)))
            wire.end()
            assert await read(await asked) == body
            assert wire.closed == 1
            assert kitchen.store.counts.get("stored", 0) == 0


async def test_a_long_body_is_not_held_back() -> None:
    """Beyond what may be kept there is nothing to wait for."""
    kitchen = Kitchen()
    asked = kitchen.ask(make_permit())
    await turns()
    wire = Wire()
    kitchen.server.seen[0].answer(wire.stream, 200, JSON)
    wire.send(b"x" * MOST_BYTES)
    await turns()
    assert not asked.done()
    wire.send(b"x")
    await turns()
    assert asked.done()
    (await asked).done(Ending.COMPLETE)
    assert wire.closed == 1


async def test_a_body_that_comes_in_pieces_is_kept_when_it_is_whole() -> None:
    kitchen = Kitchen()
    asked = kitchen.ask(make_permit())
    await turns()
    wire = Wire()
    kitchen.server.seen[0].answer(wire.stream, 200, JSON)
    text = result("hello")
    wire.send(text[:30], text[30:])
    await turns()
    assert not asked.done()
    wire.end()
    assert await read(await asked) == text
    assert await kitchen.answered(make_permit(2)) == (2, "hello")


@pytest.mark.parametrize("kind", [EVENTS, JSON], ids=["events", "json"])
async def test_what_breaks_in_the_middle_breaks_there_for_its_reader(kind: tuple[str, str]) -> None:
    """Behind a message that passed, or within a body: nothing of it is kept."""
    kitchen = Kitchen()
    asked = kitchen.ask(make_permit())
    await turns()
    wire = Wire()
    kitchen.server.seen[0].answer(wire.stream, 200, kind)
    said = (
        event(b'{"jsonrpc":"2.0","method":"notifications/message"}') if kind == EVENTS else result("x")[:-4]
    )
    wire.send(said, said)
    wire.break_off()
    reply = await asked
    chunks: list[bytes] = []
    with pytest.raises(Broken):
        await read_into(chunks, reply)
    assert chunks == [said, said]
    assert wire.closed == 1
    assert kitchen.server.seen[0].endings == [Ending.UPSTREAM_BROKE]
    await kitchen.keep(make_permit())


async def test_a_client_may_leave_before_the_first_byte() -> None:
    """The generator was never begun: its source is closed all the same."""
    for kind, sent in ((EVENTS, event(result("hello"))), (JSON, b"x" * (MOST_BYTES + 1))):
        kitchen = Kitchen()
        asked = kitchen.ask(make_permit())
        await turns()
        wire = Wire()
        kitchen.server.seen[0].answer(wire.stream, 200, kind)
        wire.send(sent)
        (await asked).done(Ending.CLIENT_GONE)
        assert wire.closed == 1
        assert kitchen.server.seen[0].endings == [Ending.CLIENT_GONE]


@pytest.mark.parametrize(
    ("status", "kind"),
    [(202, EVENTS), (404, JSON), (200, ("Content-Type", "text/html")), (200, ("X-None", ""))],
)
async def test_what_can_be_no_answer_is_not_held(status: int, kind: tuple[str, str]) -> None:
    kitchen = Kitchen()
    asked = kitchen.ask(make_permit())
    await turns()
    wire = Wire()
    reply = kitchen.server.seen[0].answer(wire.stream, status, kind)
    assert await asked is reply
    assert wire.taken == []
    reply.done(Ending.COMPLETE)


async def test_when_storing_fails_the_reply_is_closed() -> None:
    """A mistake of ours; the caller is told by the hall."""
    kitchen = Kitchen(store=Breaking(Clock()))
    asked = kitchen.ask(make_permit())
    await turns()
    kitchen.server.seen[0].say("hello")
    with pytest.raises(RuntimeError):
        await asked
    assert kitchen.server.seen[0].endings == [Ending.PROXY_FAILED]


class Breaking(SlowStore):
    """A store with a mistake in it."""

    async def put(self, digest: bytes, entry: Entry, asked: Mark) -> None:
        raise RuntimeError("a mistake")
