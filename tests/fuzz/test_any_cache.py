"""Whoever calls, whatever the rules say, in whatever order things happen: no answer crosses its scope, no denied call,
no write and no dangerous tool is answered from what is kept, every answer carries its caller's id, and after a write
its tenant is told nothing older.

The hall with the cache room in it, and a server of which every answer is known: to whom, to what, and when it was true.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct, structs

from proxy.cache.building import Caching, store_of
from proxy.cache.entry import MARK
from proxy.cache.settings import CacheSettings
from proxy.configuration.globs import fits
from proxy.model import (
    Call,
    Ending,
    Headers,
    Keep,
    Outcome,
    Permit,
    Principal,
    Reason,
    Refused,
    Reply,
    RequestId,
    Rule,
    Stream,
)
from proxy.pipeline import Pipeline
from proxy.protocol.revisions import BY_NAME
from tests.fakes import FakeJourney, make_call
from tests.fuzz.bounded import FUZZ, examples
from tests.fuzz.dice import Dice

MODERN: Final = BY_NAME["2026-07-28"]
STEPS: Final = 60
TOOLS: Final = ("read_a", "read_b", "write_a", "pay")
URIS: Final = ("file:///a", "file:///b")
IDS: Final[tuple[RequestId, ...]] = (1, "1", 0, "", 2**53 + 1, "\u00e9")
ARGUMENTS: Final[tuple[dict[str, object], ...]] = (
    {"n": 1},
    {"n": 1.0},
    {"n": "1"},
    {"n": True},
    {"n": None},
    {},
    {"n": 1, "t": 0},
    {"n": 1, "t": 1},
    {"t": 0},
)
NOBODY: Final = Principal(issuer="i", subject="ann", tenant="acme")
PEOPLE: Final = (
    structs.replace(NOBODY, roles=frozenset({"user"})),
    structs.replace(NOBODY, roles=frozenset({"user"}), subject="bob"),
    structs.replace(NOBODY, roles=frozenset({"user"}), tenant="umbrella"),
    structs.replace(NOBODY, roles=frozenset({"user"}), issuer="j"),
    structs.replace(NOBODY, roles=frozenset({"user", "admin"})),
    structs.replace(NOBODY, roles=frozenset({"user"}), scopes=frozenset({"s"})),
    NOBODY,
)


class Law(Struct):
    """What is said of one tool, and who may use it."""

    rule: Rule
    roles: frozenset[str]


class Said(Struct):
    """One answer of the server."""

    permit: Permit
    definition: int
    """Of the tool when the call began; for its key."""
    true_at: int = -1
    """When the server looked; negative while it has not."""
    landed_s: float = 0
    fresh_s: float = 0
    is_private: bool = False
    lands: asyncio.Future[Reply] | None = None
    closed: int = 0
    is_open: bool = False
    """A reply of it was given out, and has not ended."""


class Asked(Struct):
    """One call of a client."""

    call: Call
    who: Principal
    began: int
    definition: int
    wish: str
    task: asyncio.Task[Reply] | None = None
    is_seen: bool = False


class Change(Struct):
    """Something that makes older answers untrue."""

    true_at: int
    known_at: int
    concerns: Callable[[Call, Principal], bool]


class World:
    """In: dice. Keeps everything that was ever said, and compares each answer with it."""

    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self.now = 0  # counts events, so that "after" is never a draw
        self.wall = 1_800_000_000.0
        # Few at a time, or hardly two would ask the same.
        self.people = [dice.one(PEOPLE) for _ in range(3)]
        self.arguments = [dice.one(ARGUMENTS) for _ in range(2)]
        self.tools = [dice.one(TOOLS[:2]), dice.one(TOOLS)]
        self.laws = {tool: self._law(tool) for tool in TOOLS}
        self.listed = Rule(id="lists", tool_class="read")
        self.definitions = dict.fromkeys(TOOLS, 0)
        self.said: list[Said] = []
        self.asked: list[Asked] = []
        self.changes: list[Change] = []
        self.mistakes: list[Exception] = []
        self.caching = Caching(
            CacheSettings(),
            upstream="u",
            generation="g",
            rule_of=lambda call, principal: self.laws[call.target or ""].rule,
            stops=lambda name: False,
            failed=self.mistakes.append,
            wall=lambda: self.wall,
            store=store_of(CacheSettings(), wall=lambda: self.wall),
        )
        self.hall = Pipeline(
            identify=self._identify,
            authorise=self._authorise,
            limit=None,
            serve=self.caching.guarded(self._serve, lambda permit, text: None),
            explain=lambda refused, call: Reply(403, Headers(), refused.reason.value.encode()),
            merge=_never,
            is_whole=lambda refused: False,
            without=_never,
        )

    def _law(self, tool: str) -> Law:
        one = self.dice.one
        kinds = (
            ["read", "read", "read", "write"] if tool.startswith("read") else ["write", "dangerous", "read"]
        )
        keep = Keep(
            ttl_s=one([10, 5]),
            stale_while_revalidate_s=one([0, 0, 10]),
            stale_if_error_s=one([0, 0, 10]),
            share=one(["tenant", "all", "caller"]),
            ignore=one([(), (), ("t",)]),
            only=one([None, None, ("n",)]),
        )
        forget: list[tuple[str, ...]] = [(), ("read_*",), ("read_a",), ("*",), ("read_?", "pay")]
        tool_class = one(kinds)
        forgets = one(forget[:1] if tool.startswith("read") else forget[::-1])
        # Whoever reads and is waited for by others does not know when that is done.
        keeps = one([keep, keep, keep, None]) if tool_class != "read" or not forgets else None
        rule = Rule(id=tool, tool_class=tool_class, keep=keeps, forget=forgets)
        return Law(rule, one([frozenset({"user"}), frozenset({"user"}), frozenset({"admin"})]))

    # The rooms

    async def _identify(self, call: Call) -> Principal:
        return self.asked[int(call.received)].who

    def _authorise(self, call: Call, principal: Principal) -> Permit:
        if call.method != "tools/call":
            return Permit(call=call, principal=principal, rule=self.listed)
        law = self.laws[call.target or ""]
        if not law.roles & principal.roles:
            raise Refused(Reason.NOT_ALLOWED)
        return Permit(call=call, principal=principal, rule=law.rule)

    async def _serve(self, permit: Permit) -> Reply:
        assert isinstance(permit.call.journey, FakeJourney)
        permit.call.journey.outcome_at_server = Outcome.ATTEMPTED
        said = Said(permit, self.asked[int(permit.call.received)].definition)
        said.lands = asyncio.get_running_loop().create_future()
        self.said.append(said)
        try:
            return await said.lands
        except asyncio.CancelledError:
            if said.lands.done() and said.lands.exception() is None:
                said.lands.result().done(Ending.CLIENT_GONE)  # nobody was given it
            raise

    # What may happen

    async def step(self) -> None:
        self.now += 1
        act = self.dice.one(
            [
                self.ask,
                self.ask_again,
                self.ask_again,
                self.ask_again,
                self.look,
                self.look,
                self.land,
                self.land,
                self.land,
                self.wait,
                self.leave,
                self.change_lists,
                self.update,
                self.define,
            ]
        )
        await act()
        for _ in range(self.dice.one([6, 0, 1, 2, 3])):
            await asyncio.sleep(0)
        await self.see()

    async def ask(self) -> None:
        one = self.dice.one
        method = one(["tools/call"] * 6 + ["tools/list", "resources/read"])
        target = {"tools/call": one(self.tools), "tools/list": None, "resources/read": one(URIS)}[method]
        params: dict[str, Any] = {}
        if method == "tools/call":
            params = {"name": target, "arguments": one(self.arguments)}
        elif target is not None:
            params = {"uri": target}
        await self._begin(method, target, params, one(self.people))

    async def ask_again(self) -> None:
        """What somebody asked before, perhaps as somebody else."""
        if not self.asked:
            return await self.ask()
        before = self.dice.one(self.asked)
        who = self.dice.one([before.who, self.dice.one(self.people)])
        await self._begin(before.call.method, before.call.target, before.call.params, who)
        return None

    async def _begin(self, method: str, target: str | None, params: Any, who: Principal) -> None:
        wish = self.dice.one(["", "", "", "", "no-cache", "no-store"])
        call = make_call(
            id=self.dice.one(IDS),
            method=method,
            target=target,
            params=params,
            revision=MODERN,
            headers=Headers([(b"Cache-Control", wish.encode())] if wish else []),
            journey=FakeJourney(),
        )
        call = structs.replace(call, received=float(len(self.asked)))
        definition = self.definitions.get(target or "", 0) if method == "tools/call" else 0
        asked = Asked(call, who, self.now, definition, wish)
        self.asked.append(asked)
        asked.task = asyncio.get_running_loop().create_task(_told(self.hall, call))
        await asyncio.sleep(0)

    async def look(self) -> None:
        """The server does what it was asked, or sees what is there."""
        waiting = [said for said in self.said if said.true_at < 0]
        if waiting:
            self.dice.one(waiting).true_at = self.now

    async def land(self) -> None:
        """It answers, well or badly."""
        waiting = [said for said in self.said if said.lands is not None and not said.lands.done()]
        if not waiting:
            return
        said = self.dice.one(waiting)
        if said.true_at < 0:
            said.true_at = self.now
        assert said.lands is not None
        how = self.dice.one(["well", "well", "well", "well", "stream", "tool error", "500", "refused"])
        if how == "refused":
            reason = self.dice.one([Reason.OUTCOME_UNKNOWN, Reason.UPSTREAM_BROKE, Reason.RATE_LIMITED])
            said.lands.set_exception(Refused(reason))
        else:
            said.lands.set_result(self._reply(said, how))

    def _reply(self, said: Said, how: str) -> Reply:
        one = self.dice.one
        number = self.said.index(said)
        call = said.permit.call
        result: dict[str, Any] = {"content": [], "number": number}
        hints = call.method != "tools/call"
        scope = one(["public", "private"] if hints else [None, None, "private", "public"])
        ttl_ms = one([10_000, 5_000, 0] if hints else [None, None, None, 3_000])
        if scope is not None:
            result["cacheScope"] = scope
        if ttl_ms is not None:
            result["ttlMs"] = ttl_ms
        if how == "tool error":
            result["isError"] = True
        keep = said.permit.rule.keep
        longest_s = 3_600.0 if hints or keep is None else keep.ttl_s
        said.fresh_s = longest_s if ttl_ms is None else min(longest_s, ttl_ms / 1000)
        said.is_private = scope == "private" if not hints else scope != "public"
        said.landed_s = self.wall
        text = json.dumps({"jsonrpc": "2.0", "id": call.id, "result": result}).encode()
        said.is_open = True
        if how == "stream":
            body: bytes | Stream = _stream(b": ping\n\n", b"data: " + text + b"\n\n", closed=said)
            reply = Reply(200, Headers([(b"Content-Type", b"text/event-stream")]), body)
        else:
            status = 500 if how == "500" else 200
            reply = Reply(status, Headers([(b"Content-Type", b"application/json")]), text)
        reply.when_done(lambda _: _end(said))
        return reply

    async def wait(self) -> None:
        await _turns()  # what can happen now does not happen later
        await self.see()
        self.wall += self.dice.one([1, 2, 4, 6, 11])

    async def leave(self) -> None:
        here = [asked for asked in self.asked if asked.task is not None and not asked.task.done()]
        if not here:
            return
        asked = self.dice.one(here)
        assert asked.task is not None
        asked.task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        # Whoever left may have written; if it is done, nobody is told what was before.
        for said in self.said:
            if said.permit.call is asked.call and said.true_at >= 0:
                self._written(said)

    async def change_lists(self) -> None:
        await self._tell("notifications/tools/list_changed", {}, lambda call, _: call.method == "tools/list")

    async def update(self) -> None:
        uri = self.dice.one(URIS)
        params = {"uri": uri}
        await self._tell("notifications/resources/updated", params, lambda call, _: call.target == uri)

    async def _tell(self, method: str, params: object, concerns: Callable[[Call, Principal], bool]) -> None:
        assert self.caching.listen is not None
        ear = self.caching.listen(Permit(call=make_call(), principal=PEOPLE[0], rule=self.listed), None)
        assert ear is not None
        ear.notification(method, params)
        true_at = self.now
        await asyncio.sleep(0)
        self.now += 1
        self.changes.append(Change(true_at, self.now, concerns))

    async def define(self) -> None:
        """The server lists a tool that is no more what it was; or is again."""
        assert self.caching.listen is not None
        tool = self.dice.one(TOOLS)
        self.definitions[tool] = version = self.dice.one([1, 2])
        ear = self.caching.listen(Permit(call=make_call(), principal=PEOPLE[0], rule=self.listed), None)
        assert ear is not None
        ear.result("tools/list", {"tools": [{"name": tool, "title": str(version)}]})

    def _written(self, said: Said) -> None:
        """A write is done, and its caller knows; or nobody ever will."""
        permit = said.permit
        if permit.call.method != "tools/call" or not permit.rule.forget:
            return
        self.now += 1
        tenant, forget = permit.principal.tenant, permit.rule.forget

        def concerns(call: Call, who: Principal) -> bool:
            is_call = call.method == "tools/call"
            return is_call and who.tenant == tenant and any(fits(each, call.target or "") for each in forget)

        self.changes.append(Change(said.true_at, self.now, concerns))

    # What was told

    async def see(self) -> None:
        for asked in self.asked:
            if asked.is_seen or asked.task is None or not asked.task.done():
                continue
            asked.is_seen = True
            if not asked.task.cancelled():
                await self._compare(asked, asked.task.result())
                await asyncio.sleep(0)
            for said in self.said:
                if said.permit.call is asked.call and said.true_at >= 0:
                    self._written(said)

    async def _compare(self, asked: Asked, reply: Reply) -> None:
        call, who = asked.call, asked.who
        body = await _read(reply)
        law = self.laws.get(call.target or "") if call.method == "tools/call" else None
        if law is not None and not law.roles & who.roles:
            assert (reply.status, body) == (403, b"not_allowed")
            assert all(said.permit.call is not call for said in self.said)
            return
        if reply.status == 403:
            return
        answer = json.loads(body.partition(b"data: ")[2] or body)
        assert (answer["id"], type(answer["id"])) == (call.id, type(call.id))
        said = self.said[answer["result"]["number"]]
        mark = answer["result"].get("_meta", {}).get(MARK)
        if mark is None:
            assert said.permit.call is call
            return
        self._compare_kept(asked, said, mark, answer["result"])
        for change in self.changes:
            if change.known_at <= asked.began and change.concerns(call, who):
                assert said.true_at > change.true_at, "older than a write or a change that was known"

    def _compare_kept(self, asked: Asked, said: Said, mark: Any, result: Any) -> None:
        call, who, first = asked.call, asked.who, said.permit
        assert asked.wish == ""
        assert reply_is_good(result)
        assert (first.call.method, first.call.target) == (call.method, call.target)
        age = self.wall - said.landed_s
        if call.method != "tools/call":
            assert who == first.principal or not said.is_private
            assert age < said.fresh_s
            return
        rule = self.laws[call.target or ""].rule
        keep = rule.keep
        assert keep is not None
        assert rule.tool_class == "read"
        assert said.definition == asked.definition
        assert _counted(call, keep) == _counted(first.call, keep)
        if who != first.principal:
            assert not said.is_private
            assert keep.share == "all" or (keep.share == "tenant" and who.tenant == first.principal.tenant)
            assert _counted(first.call, keep) == _written(first.call.arguments)
        longest_s = keep.stale_while_revalidate_s, keep.stale_if_error_s
        assert age < said.fresh_s + (max(longest_s) if mark["state"] == "stale" else 0)

    async def end(self) -> None:
        """Everybody leaves: nothing stays."""
        for asked in self.asked:
            assert asked.task is not None
            asked.task.cancel()
        await asyncio.gather(*(asked.task for asked in self.asked if asked.task), return_exceptions=True)
        await self.see()
        await self.caching.close()
        await _turns()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert not any(said.is_open for said in self.said)
        assert self.mistakes == []


def reply_is_good(result: Any) -> bool:
    return "isError" not in result


def _counted(call: Call, keep: Keep) -> str:
    return _written(
        {
            name: value
            for name, value in call.arguments.items()
            if name not in keep.ignore and (keep.only is None or name in keep.only)
        }
    )


def _written(arguments: Any) -> str:
    """1, 1.0, "1" and true are four texts."""
    return json.dumps(arguments, sort_keys=True)


def _stream(*chunks: bytes, closed: Said) -> Stream:
    async def pieces() -> Any:
        for chunk in chunks:
            await asyncio.sleep(0)
            yield chunk

    def close() -> None:
        closed.closed += 1

    return Stream(pieces(), close)


def _end(said: Said) -> None:
    assert said.is_open
    said.is_open = False


async def _turns() -> None:
    for _ in range(12):
        await asyncio.sleep(0)


async def _read(reply: Reply) -> bytes:
    async with reply:
        if isinstance(reply.body, bytes):
            return reply.body
        return b"".join([chunk async for chunk in reply.body])


async def _told(hall: Callable[[Call], Awaitable[Reply]], call: Call) -> Reply:
    return await hall(call)


def _never(*_: object) -> Any:
    raise AssertionError("no batches here")


async def _live(dice: Dice) -> None:
    world = World(dice)
    for _ in range(STEPS):
        await world.step()
    await world.end()


@given(dice=st.binary(min_size=350, max_size=350).map(Dice))
@settings(FUZZ, max_examples=examples(1_000))
def test_no_order_of_calls_writes_changes_and_leaving_tells_anybody_what_is_not_theirs(dice: Dice) -> None:
    asyncio.run(_live(dice))
