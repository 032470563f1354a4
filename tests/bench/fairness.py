"""What does capacity cost, and whom? `python -m tests.bench.fairness` prints it.

In: nothing. Out: figures. Keeps nothing. Who has its turn is played on a clock that only events move, so these figures
are the same on every machine; what a place costs is processor time of this process, the median of several rounds.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import heapq
import itertools
import random
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable, Mapping
from typing import Final

from msgspec import Struct

from proxy.capacity.slots import Place, Slots, State
from proxy.capacity.stage import Roomy
from proxy.model import Ending, Headers, Permit, Principal, Reply, Rule, Stage
from tests.fakes import make_call

from .report import Figure, table, this_machine

ROUNDS: Final = 9
CALLS: Final = 20_000
"""In one round."""
PLACES: Final = 8
CALL_S: Final = 0.01
"""How long a call takes on average, between half and one and a half times."""
PLAYED_S: Final = 60.0


def main() -> int:
    print(table(this_machine(), figures()))
    return 0


def figures() -> list[Figure]:
    """Every figure of this file. Takes about twenty seconds."""
    return [*_neighbours(), *_shares(), *_costs()]


# Whose turn it is.


class Caller(Struct, frozen=True):
    """A tenant and how it calls: so many a second on average, at random moments."""

    tenant: str
    per_s: float


class Heard(Struct):
    """What became of one tenant's calls."""

    done: int = 0
    refused: int = 0
    took_s: list[float] = []


def play(callers: list[Caller], slots: Slots, *, max_wait_s: float = 2.0, seed: int = 1) -> dict[str, Heard]:
    """Calls that come, wait, are served and end, for PLAYED_S of a clock that only events move."""
    chance = random.Random(seed)
    order = itertools.count()
    events: list[tuple[float, int, Callable[[float], None]]] = []
    heard = {each.tenant: Heard() for each in callers}
    came: dict[Place, float] = {}

    def at(moment: float, event: Callable[[float], None]) -> None:
        heapq.heappush(events, (moment, next(order), event))

    def serve(place: Place, now: float) -> None:
        at(now + CALL_S * chance.uniform(0.5, 1.5), lambda end: ended(place, end))

    def ended(place: Place, now: float) -> None:
        mine = heard[place.flow.tenant]
        mine.done += 1
        mine.took_s.append(now - came.pop(place))
        for each in slots.give_back(place):
            serve(each, now)

    def gave_up(place: Place) -> None:
        """It waited too long, or had to make way; not where it had its turn before."""
        if place.state is State.HELD or place not in came:
            return
        slots.give_back(place)
        heard[place.flow.tenant].refused += 1
        del came[place]

    def comes(caller: Caller, now: float) -> None:
        at(now + chance.expovariate(caller.per_s), functools.partial(comes, caller))
        taken = slots.take(caller.tenant)
        if isinstance(taken, Place):
            came[taken] = now
            serve(taken, now)
            return
        place, leaves = slots.queue(caller.tenant)
        if leaves is not None:
            gave_up(leaves)
        if place is None:
            heard[caller.tenant].refused += 1
            return
        came[place] = now
        at(now + max_wait_s, lambda _: gave_up(place))

    for caller in callers:
        at(chance.expovariate(caller.per_s), functools.partial(comes, caller))
    while events and events[0][0] < PLAYED_S:
        now, _, event = heapq.heappop(events)
        event(now)
    return heard


def _neighbours() -> list[Figure]:
    """One tenant that asks for 50 times its share, and one that asks for an eighth of it."""
    share = PLACES / CALL_S / 2
    polite, greedy = Caller("polite", share / 8), Caller("greedy", share * 50)

    def together(per_tenant: int | None) -> Heard:
        return play([polite, greedy], Slots(PLACES, per_tenant=per_tenant, depth=128))["polite"]

    alone = play([polite], Slots(PLACES, depth=128))["polite"]
    fair, capped = together(None), together(PLACES - 2)
    return [
        Figure(
            name="polite p99 beside 50x greedy / alone", value=_p99(fair) / _p99(alone), unit="x", at_most=1.5
        ),
        Figure(name="the same, per_tenant 6 of 8", value=_p99(capped) / _p99(alone), unit="x", at_most=1.5),
        Figure(
            name="polite calls refused", value=100 * fair.refused / max(1, fair.done), unit="%", at_most=0
        ),
    ]


def _shares() -> list[Figure]:
    """Everybody asks for more than there is."""
    share = PLACES / CALL_S / 5
    equal = play(
        [Caller(f"t{each}", share * (1.2 + 12 * each)) for each in range(5)], Slots(PLACES, depth=128)
    )
    weights = {"t0": 1.0, "t1": 2.0, "t2": 4.0, "t3": 8.0}
    weighted = play(
        [Caller(tenant, PLACES / CALL_S) for tenant in weights], Slots(PLACES, depth=128, weights=weights)
    )
    index = _jain([each.done for each in equal.values()])
    off = _jain([weighted[tenant].done / weight for tenant, weight in weights.items()])
    return [
        Figure(name="1 - Jain's index, five tenants at 1.2x to 49x", value=1 - index, unit="", at_most=0.05),
        Figure(name="1 - Jain's index over weights 1:2:4:8", value=1 - off, unit="", at_most=0.05),
        Figure(
            name="weight 8 / weight 1, calls served",
            value=weighted["t3"].done / weighted["t0"].done,
            unit="x",
        ),
    ]


def _p99(heard: Heard) -> float:
    return statistics.quantiles(heard.took_s, n=100)[98]


def _jain(shares: list[float] | list[int]) -> float:
    """1 where all are equal, 1/n where one has everything (Jain, Chiu, Hawe 1984)."""
    return sum(shares) ** 2 / (len(shares) * sum(each * each for each in shares))


# What it costs.


def _costs() -> list[Figure]:
    return [
        _timed("a place and back, nobody waits", _uncontended(Slots(64, per_tenant=16)), at_most=2.0),
        _timed(
            "the same with two patterns",
            _uncontended(Slots(64, per_tenant=16, pools=(8, 8)), (0, 1)),
            at_most=2.0,
        ),
        _timed("wait, turn and back, 1 tenant waits", _contended(1)),
        _timed("wait, turn and back, 10,000 tenants wait", _contended(10_000)),
        _timed("wait and leave, 10,000 tenants wait", _leaving(10_000)),
        _timed("a full queue makes way, 10,000 tenants wait", _displacing(10_000)),
        *_stage(),
        _memory(),
    ]


def _uncontended(slots: Slots, pools: tuple[int, ...] = ()) -> Callable[[int], None]:
    def run(calls: int) -> None:
        for _ in range(calls):
            place = slots.take("acme", pools)
            assert isinstance(place, Place)
            slots.give_back(place)

    return run


def _crowded(tenants: int, depth: int) -> tuple[Slots, Place]:
    slots = Slots(1, depth=depth)
    place = slots.take("first")
    assert isinstance(place, Place)
    for number in range(tenants):
        slots.queue(f"t{number}")
    return slots, place


def _contended(tenants: int) -> Callable[[int], None]:
    slots, holding = _crowded(tenants, tenants + 1)

    def run(calls: int) -> None:
        nonlocal holding
        for _ in range(calls):
            slots.take(holding.flow.tenant)
            slots.queue(holding.flow.tenant)
            (holding,) = slots.give_back(holding)

    return run


def _leaving(tenants: int) -> Callable[[int], None]:
    slots, _ = _crowded(tenants, tenants + 1)

    def run(calls: int) -> None:
        for _ in range(calls):
            place, _ = slots.queue("mine")
            assert place is not None
            slots.give_back(place)

    return run


def _displacing(tenants: int) -> Callable[[int], None]:
    """Everybody has two waiting; newcomers with none come, and take the place of a second one."""
    slots, _ = _crowded(tenants, 2 * tenants)
    for number in range(tenants):
        slots.queue(f"t{number}")

    def run(calls: int) -> None:
        for number in range(calls):
            place, leaves = slots.queue(f"new{number}")
            assert place is not None
            assert leaves is not None
            slots.give_back(place)
            slots.queue(leaves.flow.tenant)

    return run


def _timed(name: str, run: Callable[[int], None], *, at_most: float | None = None) -> Figure:
    """Microseconds of processor time for one call."""
    run(CALLS // 10)
    rounds = []
    for _ in range(ROUNDS):
        begin = time.process_time()
        run(CALLS)
        rounds.append((time.process_time() - begin) / CALLS * 1e6)
    return Figure(name=name, value=statistics.median(rounds), unit="us", at_most=at_most, runs=tuple(rounds))


def _stage() -> list[Figure]:
    permit = Permit(
        call=make_call(target="search_docs"),
        principal=Principal(issuer="bench", subject="ann", tenant="acme"),
        rule=Rule(id="r"),
    )

    async def answers(permit: Permit) -> Reply:
        return Reply(200, Headers(), b"{}")

    async def run(calls: int, stage: Stage) -> float:
        begin = time.process_time()
        for _ in range(calls):
            (await stage(permit)).done(Ending.COMPLETE)
        return (time.process_time() - begin) / calls * 1e6

    def median(stage: Stage) -> float:
        return statistics.median(asyncio.run(run(CALLS, stage)) for _ in range(ROUNDS))

    bare = median(answers)
    kinds: Mapping[str, Roomy] = {
        "the stage around a call": Roomy(answers, Slots(64, per_tenant=16), max_wait_s=2),
        "the stage, with two patterns": Roomy(
            answers, Slots(64, pools=(8, 8)), max_wait_s=2, patterns=("search_*", "*_docs")
        ),
    }
    return [Figure(name=name, value=median(stage) - bare, unit="us") for name, stage in kinds.items()]


def _memory() -> Figure:
    """Of calls that wait, each of a tenant of its own."""
    count = 10_000
    gc.collect()
    tracemalloc.start()
    slots, _ = _crowded(count, count)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert slots.waiting == count
    return Figure(name="a tenant with a waiting call weighs", value=held / count, unit="B")


if __name__ == "__main__":
    sys.exit(main())
