"""Whenever a server loses its sessions: no call runs twice, no session is begun twice at once, none is left behind.

Clients call, listen, say goodbye and leave by chance; the server answers when the dice say so, loses what it knew, and
is sometimes another one afterwards.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from proxy.model import Call, Ending, Headers, Kind, Permit, Reason, Refused, Reply, Rule
from proxy.protocol.revisions import BY_NAME
from proxy.resilience.handshakes import Handshakes
from proxy.resilience.renewing import Renewing
from tests.fakes import PRINCIPAL, make_call, make_headers
from tests.fuzz.bounded import FUZZ, examples
from tests.fuzz.dice import Dice

LEGACY: Final = BY_NAME["2025-11-25"]
ALLOWS, DOES_NOT = Rule(id="r", reinitialise=True), Rule(id="r")
WHO: Final = [structs.replace(PRINCIPAL, subject=name) for name in ("ann", "bob")]
GONE: Final = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32001,"message":"Session not found"}}'
DOES: Final = [
    *(["turn"] * 12 + ["answer"] * 12 + ["call"] * 8),
    *("lose", "lose", "leave", "other", "hello"),
]
METHODS: Final = [
    ("tools/call", Kind.REQUEST),
    ("ping", Kind.REQUEST),
    ("notifications/x", Kind.NOTIFICATION),
]


async def turn() -> None:
    await asyncio.sleep(0)


class World:
    """Two identities with their sessions, a stage, and a server."""

    def __init__(self, roll: Dice) -> None:
        self.roll = roll
        self.handshakes = Handshakes()
        self.stage = Renewing(self.serve, self.handshakes, deadline=lambda _: float("inf"))
        self.alive: dict[str, str] = {}
        """Sessions of the server, and whose they are."""
        self.names = 0
        self.answer: dict[str, object] = {"version": 1}
        self.waiting: list[asyncio.Future[None]] = []
        self.ran: Counter[object] = Counter()
        self.beginning: Counter[bytes] = Counter()
        self.ids: list[str | None] = [None, None]
        self.calls: dict[asyncio.Task[Reply], tuple[int, str]] = {}
        self.given: set[str] = set()
        """Sessions that clients were given."""
        self.hellos: list[Call] = []
        """What clients said themselves."""
        self.lost = 0

    async def serve(self, permit: Permit) -> Reply:
        call, who = permit.call, permit.principal.subject
        is_ours = call.method == "initialize" and not any(call is each for each in self.hellos)
        self.beginning[call.body] += is_ours
        assert self.beginning[call.body] <= 1, "one at a time"
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(gate)
        try:
            await gate
        finally:
            self.beginning[call.body] -= is_ours
        if call.method == "initialize":
            return self.begin(permit)
        named = call.headers.get("mcp-session-id") or ""
        if self.alive.get(named) is None:
            return Reply(404, Headers(), GONE)
        assert self.alive[named] == who, "in nobody else's session"
        if call.kind is Kind.END:
            del self.alive[named]
        self.ran[call.id if call.id is not None else object()] += 1
        return Reply(200, make_headers(mcp_session_id=named), b"done")

    def begin(self, permit: Permit) -> Reply:
        if not self.roll.one([1, 1, 1, 1, 1, 0]):
            raise Refused(Reason.UPSTREAM_BROKE)
        self.names += 1
        name = f"s{self.names}"
        self.alive[name] = permit.principal.subject
        ear = self.handshakes.listen(permit, name)
        assert ear is not None
        ear.result("initialize", self.answer)
        return Reply(200, make_headers(mcp_session_id=name), b"hello")

    async def shakes_hands(self, number: int) -> None:
        body = b"hello %d" % len(self.hellos)
        hello = make_call(method="initialize", id=0, revision=LEGACY, body=body)
        self.hellos.append(hello)
        task = asyncio.ensure_future(self.stage(Permit(call=hello, principal=WHO[number], rule=DOES_NOT)))
        while not task.done():
            self.let_through()
            await turn()
        if task.exception() is None:
            id = self.ids[number] = task.result().headers.get("mcp-session-id")
            assert id is not None
            self.given.add(id)

    def let_through(self) -> None:
        if self.waiting:
            gate = self.waiting.pop(self.roll.one(range(len(self.waiting))))
            if not gate.done():
                gate.set_result(None)

    def calls_now(self, at: int) -> None:
        number = self.roll.one([0, 1])
        id = self.ids[number]
        if id is None:
            return
        method, kind = self.roll.one(METHODS)
        if not self.roll.one([1] * 12 + [0]):
            method, kind = "", Kind.END
        call = make_call(
            method=method,
            kind=kind,
            id=at if kind is Kind.REQUEST else None,
            revision=LEGACY,
            session=id,
            headers=make_headers(mcp_session_id=id),
        )
        rule = ALLOWS if method == "tools/call" else DOES_NOT
        task = asyncio.ensure_future(self.stage(Permit(call=call, principal=WHO[number], rule=rule)))
        self.calls[task] = number, id

    async def run(self) -> None:
        for number in (0, 1):
            await self.shakes_hands(number)
        for at in range(1, 200):
            match self.roll.one(DOES):
                case "call":
                    self.calls_now(at)
                case "answer":
                    self.let_through()
                case "turn":
                    await turn()
                case "lose":
                    self.lost += bool(self.alive)
                    self.alive.clear()
                case "leave":
                    running = [each for each in self.calls if not each.done()]
                    if running:
                        self.roll.one(running).cancel()
                case "other":
                    self.answer = {"version": self.roll.one([2, 3])}
                case "hello":
                    await self.shakes_hands(self.roll.one([0, 1]))
        async with asyncio.timeout(5):
            for _ in range(60):
                while self.waiting or not all(each.done() for each in self.calls):
                    self.let_through()
                    await turn()
                await turn()

    def check(self) -> None:
        assert all(count == 1 for count in self.ran.values()), "a side effect happens once"
        for task, (_, id) in self.calls.items():
            if task.cancelled():
                continue
            reply = task.result()
            assert reply.status in (200, 404)
            assert reply.headers.get("mcp-session-id") in (id, None), "as its client knows it"
            reply.done(Ending.COMPLETE)
        known = {
            session.current
            for who in WHO
            for id in self.given
            if (session := self.handshakes.get(who.identity, id)) is not None
        }
        behind = {name for name in self.alive if name not in known and name not in self.given}
        assert not behind, "whoever begins a session in vain ends it"
        assert len(self.handshakes) <= len(self.given)


async def lived(seed: int) -> World:
    world = World(Dice(random.Random(seed).randbytes(4_000)))
    await world.run()
    world.check()
    await world.stage.close()
    return world


@given(seed=st.integers(0, 2**32))
@settings(FUZZ, max_examples=examples(300))
def test_no_call_runs_twice_and_no_session_is_left_behind(seed: int) -> None:
    asyncio.run(lived(seed))


def test_the_world_is_hard_enough() -> None:
    """The test above would pass where nothing is ever lost, or never begun anew."""
    worlds = [asyncio.run(lived(seed)) for seed in range(100)]
    assert sum(world.lost for world in worlds) > 100
    assert sum(world.stage.renewed for world in worlds) > 30
    assert sum(world.stage.given_up for world in worlds) > 10
    assert sum(task.cancelled() for world in worlds for task in world.calls) > 20
