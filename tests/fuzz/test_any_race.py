"""However two attempts end, and whenever their caller leaves: one answer, nothing open, no place lost, no third.

Many calls at once on a loop; dice decide which attempt ends how, who leaves, and when others have their turn.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.model import Ending, Headers, Permit, Reason, Refused, Reply, Rule
from proxy.protocol.revisions import NEWEST
from proxy.resilience.budget import Budget
from proxy.resilience.hedging import Hedging
from tests.fakes import PRINCIPAL, make_call
from tests.fuzz.bounded import FUZZ, examples
from tests.fuzz.dice import Dice

RULE: Final = Rule(id="r", tool_class="read", idempotent=True, hedge_after_s=0.001)
AT_ONCE_S, NEVER_S = 0.0, 3_600.0
REPLIES: Final = {"good": 200, "bad": 503}
REASONS: Final = {
    "unreached": Reason.UPSTREAM_UNREACHABLE,
    "lost": Reason.OUTCOME_UNKNOWN,
    "open": Reason.BREAKER_OPEN,
    "nonsense": Reason.UPSTREAM_NONSENSE,
}
OUTCOMES: Final = ["good", "good", "bad", *REASONS, "bug"]


async def turn() -> None:
    await asyncio.sleep(0)


class Bug(Exception):
    """Of ours."""


class Attempt:
    def __init__(self) -> None:
        self.ends: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.reply: Reply | None = None
        self.endings: list[Ending] = []

    async def outcome(self) -> Reply:
        outcome = await self.ends
        if outcome == "bug":
            raise Bug
        if outcome in REASONS:
            raise Refused(REASONS[outcome])
        self.reply = Reply(REPLIES[outcome], Headers(), b"")
        self.reply.when_done(self.endings.append)
        return self.reply


class World:
    """Calls, each with its attempts in the order in which they were sent."""

    def __init__(self, roll: Dice) -> None:
        self.roll = roll
        self.places = self.free = roll.one([3, 0, 1, 100])
        self.hedging = Hedging(
            self.serve, Budget(ratio=0, min_per_s=roll.one([10.0, 0.2])), spare=self.spare, now=lambda: 0.0
        )
        count = roll.one([1, 2, 8])
        self.attempts: dict[int, list[Attempt]] = {number: [] for number in range(count)}
        self.calls = [asyncio.ensure_future(self.call(number)) for number in range(count)]
        self.left: set[int] = set()

    async def call(self, number: int) -> Reply:
        permit = Permit(call=make_call(id=number, revision=NEWEST), principal=PRINCIPAL, rule=RULE)
        outcome, _ = await self.hedging(permit, self.roll.one([AT_ONCE_S, AT_ONCE_S, NEVER_S]))
        if isinstance(outcome, Refused):
            raise outcome
        return outcome

    async def serve(self, permit: Permit) -> Reply:
        attempt = Attempt()
        assert isinstance(permit.call.id, int)
        self.attempts[permit.call.id].append(attempt)
        return await attempt.outcome()

    def spare(self, _: Permit) -> Callable[[], None] | None:
        if not self.free:
            return None
        self.free -= 1
        return self.give_back

    def give_back(self) -> None:
        self.free += 1
        assert self.free <= self.places

    async def run(self) -> None:
        for _ in range(60):
            match self.roll.one(["turn", "end", "end", "leave"]):
                case "turn":
                    await turn()
                case "end":
                    waiting = [
                        each for sent in self.attempts.values() for each in sent if not each.ends.done()
                    ]
                    if waiting:
                        self.roll.one(waiting).ends.set_result(self.roll.one(OUTCOMES))
                case "leave":
                    number = self.roll.one(range(len(self.calls)))
                    if not self.roll.one([True, True, False]) and not self.calls[number].done():
                        self.calls[number].cancel()
                        self.left.add(number)
        async with asyncio.timeout(5):
            while not all(call.done() for call in self.calls):
                for sent in self.attempts.values():
                    for each in sent:
                        if not each.ends.done():
                            each.ends.set_result("lost")
                await turn()
            while self.hedging.under_way:
                await turn()


def check(world: World) -> None:
    for number, call in enumerate(world.calls):
        sent = world.attempts[number]
        assert len(sent) <= 2
        assert call.cancelled() <= (number in world.left)
        if call.cancelled():
            assert all(len(each.endings) == 1 for each in sent if each.reply is not None)
            continue
        error = call.exception()
        assert error is None or isinstance(error, Refused | Bug)
        told = None if error is not None else call.result()
        if told is not None:
            assert any(each.reply is told for each in sent)
            assert [each.endings for each in sent if each.reply is told] == [[]], "not before it is written"
            if told.status == REPLIES["bad"]:
                assert not any(each.reply is not None and each.reply.status == 200 for each in sent)
            told.done(Ending.COMPLETE)
        elif isinstance(error, Refused):
            assert not any(each.reply is not None for each in sent), "what the server said goes before"
        assert all(len(each.endings) == 1 for each in sent if each.reply is not None)
    assert world.free == world.places
    assert world.hedging.sent <= sum(len(sent) for sent in world.attempts.values())


async def lived(seed: int) -> World:
    world = World(Dice(random.Random(seed).randbytes(400)))
    await world.run()
    check(world)
    return world


@given(seed=st.integers(0, 2**32))
@settings(FUZZ, max_examples=examples(300))
def test_a_race_leaves_nothing_behind(seed: int) -> None:
    asyncio.run(lived(seed))


def test_the_world_is_hard_enough() -> None:
    """The test above would pass where nobody ever races."""
    worlds = [asyncio.run(lived(seed)) for seed in range(200)]
    assert sum(world.hedging.sent for world in worlds) > 100
    assert sum(world.hedging.won for world in worlds) > 10
    assert sum(world.hedging.withheld["budget"] for world in worlds) > 5
    assert sum(world.hedging.withheld["capacity"] for world in worlds) > 5
    assert sum(len(world.left) for world in worlds) > 20
