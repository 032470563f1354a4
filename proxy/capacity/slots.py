"""Who holds a place, and who is next? Pure: no clock, no IO, nothing that waits.

In: callers that ask for a place, leave, or give one back. Out: places, and whose turn has come. Keeps who holds and who
waits, and while anybody waits how far each tenant is ahead of its share.

Four bounds: places in all, places of a tenant, places of pools (tools that fit a pattern), and calls that wait. A call
has its place at once where no bound forbids it, because whoever waits then waits for another bound. Otherwise:

1. Between tenants, weighted fair queueing: each has a virtual time, which grows by 1 / weight with each place it gets.
   The tenant with the least is next. Who begins to wait begins at the common virtual time, so nobody saves turns up,
   and at least at its own, so nobody loses debts by leaving and coming back. However many calls one tenant has
   waiting, another's single call waits for about one turn of each.
2. Within a tenant, first come first served. A call whose pool is full does not hold up those that need other pools.
3. A full queue refuses the tenant with most waiting for its weight; of that the least important, newest call.

Fair in calls, not in the seconds they take: what slow calls of one tenant can hold is what `per_tenant` says.
Source: start-time fair queueing (Goyal, Vin, Cheng 1996), with the virtual time of WF2Q+ (Bennett, Zhang 1997), which
moves on also while tenants come and go.
"""

from __future__ import annotations

import itertools
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final, TypeAlias

from .ranking import Ranking

Pools: TypeAlias = tuple[int, ...]
"""Which pools a call needs a place in: positions, in order; for several calls at once each as often as it is needed."""

USUAL_WEIGHT: Final = 1.0


class State(Enum):
    """Of a place."""

    WAITS = "waits"
    HELD = "held"
    GONE = "gone"


_WAITS: Final = State.WAITS
_HELD: Final = State.HELD
_GONE: Final = State.GONE


class Lack(Enum):
    """Of what there is not enough."""

    ALL = "all"
    TENANT = "tenant"
    POOL = "pool"


class Place:
    """What one call, or one batch, holds or waits for."""

    __slots__ = ("flow", "importance", "number", "pools", "state", "units")

    def __init__(
        self, flow: Flow, pools: Pools, units: int = 1, importance: int = 0, number: int = 0
    ) -> None:
        self.flow = flow
        self.pools = pools
        self.units = units
        self.importance = importance
        self.number = number
        """Which came first, of those that wait."""
        self.state = _WAITS


class Flow:
    """One tenant with calls at the server, in the queue, or with a debt."""

    __slots__ = ("busy", "by_importance", "held", "lanes", "tag", "tenant", "waiting", "weight")

    def __init__(self, tenant: str, weight: float) -> None:
        self.tenant = tenant
        self.weight = weight
        self.held = 0
        self.waiting = 0
        self.lanes: dict[Pools, OrderedDict[int, Place]] = {}
        """What waits, by the pools it needs, each in order."""
        self.by_importance: dict[int, OrderedDict[int, Place]] = {}
        """The same calls, by what a full queue would cost least."""
        self.tag = 0.0
        """Its virtual time."""
        self.busy = 0
        """In which busy period that holds."""


class Slots:
    """The places at the server. Every method costs O(p + log n) for p sets of pools and n tenants that wait."""

    def __init__(
        self,
        limit: int,
        *,
        per_tenant: int | None = None,
        pools: Sequence[int] = (),
        depth: int = 0,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        """`pools` are the bounds of the pools, `depth` is how many may wait; weights are by tenant, as it is given to
        the methods."""
        self._limit = limit
        self._per_tenant = sys.maxsize if per_tenant is None else per_tenant
        self._bounds = tuple(pools)
        self._depth = depth
        self._weights = dict(weights or {})
        self._in_flight = 0
        self._used = [0] * len(self._bounds)
        self._flows: dict[str, Flow] = {}
        self._numbers = itertools.count(1)
        # What follows is about those that wait.
        self._waiting = 0
        self._weight = 0.0
        """Of all tenants with waiting calls."""
        self._virtual = 0.0
        self._busy = 1
        self._next_of: dict[Pools, Ranking[Flow]] = {}
        """Which tenant is next of those that need the same pools; without tenants that hold all they may."""
        self._crowd: Ranking[Flow] = Ranking()
        """Who has most waiting for its weight."""
        self._rested: Ranking[Flow] = Ranking()
        """Tenants with nothing but a debt."""

    @property
    def in_flight(self) -> int:
        """Places that are held."""
        return self._in_flight

    @property
    def waiting(self) -> int:
        """Calls that wait for one."""
        return self._waiting

    @property
    def limit(self) -> int:
        """Places there are."""
        return self._limit

    @property
    def depth(self) -> int:
        """How many may wait."""
        return self._depth

    @property
    def is_pressed(self) -> bool:
        """Whether the next call may find no place."""
        return self._waiting > 0 or self._in_flight >= self._limit

    @property
    def tenants(self) -> int:
        """Tenants that are remembered."""
        return len(self._flows)

    def of_tenant(self, tenant: str) -> tuple[int, int]:
        """How many of a tenant's calls hold a place, and how many wait."""
        flow = self._flows.get(tenant)
        return (0, 0) if flow is None else (flow.held, flow.waiting)

    def of_pool(self, pool: int) -> int:
        """Places of a pool that are held."""
        return self._used[pool]

    def turns_before(self, tenant: str) -> float:
        """How many others have their turn before a call of this tenant that would begin to wait now: an estimate, and
        rather too low, because it knows no pools."""
        flow = self._flows.get(tenant)
        if flow is None or not flow.waiting:
            return min(self._waiting, len(self._crowd))
        return min(self._waiting, flow.waiting * self._weight / flow.weight)

    def take(self, tenant: str, pools: Pools = (), units: int = 1) -> Place | Lack:
        """A place, or several at once, if there is room now."""
        flow = self._flows.get(tenant)
        if self._in_flight + units > self._limit:
            return Lack.ALL
        if (units if flow is None else flow.held + units) > self._per_tenant:
            return Lack.TENANT
        if pools and not self._has_room(pools, units):
            return Lack.POOL
        if flow is None:
            flow = self._enter(tenant)
        elif not flow.held and not flow.waiting:
            self._rested.remove(flow)
        place = Place(flow, pools, units)
        self._count_in(place)
        if self._waiting:
            self._charge(flow, units)
            if flow.waiting:
                self._rank(flow)
        return place

    def queue(self, tenant: str, pools: Pools = (), importance: int = 0) -> tuple[Place | None, Place | None]:
        """A place to wait for, after `take` had none; None where the queue is full. And the call that has to leave the
        queue for it, if any: of the same tenant only what is less important."""
        if not self._depth:
            return None, None
        flow = self._flows.get(tenant)
        leaves: Place | None = None
        if self._waiting >= self._depth:
            leaves = self._least(tenant, flow, importance)
            if leaves is None:
                return None, None
        if flow is None:
            flow = self._enter(tenant)
        place = Place(flow, pools, importance=importance, number=next(self._numbers))
        self._enqueue(place)
        if leaves is not None:
            self._leave(leaves)
        return place, leaves

    def give_back(self, place: Place) -> Sequence[Place]:
        """Its call has ended, or waits no more. Returns those whose turn has come. Twice is as once."""
        if place.state is not _HELD:
            if place.state is State.WAITS:
                self._leave(place)
            return ()
        place.state = _GONE
        flow = place.flow
        self._in_flight -= place.units
        flow.held -= place.units
        for pool in place.pools:
            self._used[pool] -= 1
        if flow.waiting:
            self._rank(flow)
        elif not flow.held:
            self._forget(flow)
        return self._grant() if self._waiting else ()

    def resize(self, limit: int) -> Sequence[Place]:
        """There are so many places from now on; nobody loses one. Returns those whose turn has come."""
        self._limit = limit
        return self._grant()

    # Holding.

    def _enter(self, tenant: str) -> Flow:
        flow = Flow(tenant, self._weights.get(tenant, USUAL_WEIGHT))
        self._flows[tenant] = flow
        return flow

    def _has_room(self, pools: Pools, units: int) -> bool:
        used, bounds = self._used, self._bounds
        if units > 1:
            return all(used[pool] + pools.count(pool) <= bounds[pool] for pool in set(pools))
        return all(used[pool] < bounds[pool] for pool in pools)

    def _count_in(self, place: Place) -> None:
        place.state = _HELD
        self._in_flight += place.units
        place.flow.held += place.units
        for pool in place.pools:
            self._used[pool] += 1

    def _forget(self, flow: Flow) -> None:
        """A tenant with nothing held and nothing waiting is remembered only while it is ahead of its share."""
        if flow.held or flow.waiting:
            return
        if self._waiting and self._tag(flow) > self._virtual:
            self._rested.put(flow, (flow.tag, 0))
        else:
            del self._flows[flow.tenant]

    # Waiting.

    def _tag(self, flow: Flow) -> float:
        """What it got while nobody waited took nothing from anybody."""
        if flow.busy != self._busy:
            flow.busy = self._busy
            flow.tag = 0.0
        return flow.tag

    def _charge(self, flow: Flow, units: int) -> None:
        """Somebody waits, and this tenant gets places."""
        share = self._weight if flow.waiting else self._weight + flow.weight
        # While all others of the crowd have a turn, the common time runs ahead of who is last. Whoever is further
        # behind could not have its turns for other reasons, and is not owed them.
        start = max(self._tag(flow), self._virtual - len(self._crowd) / share)
        flow.tag = start + units / flow.weight
        self._virtual = max(self._virtual + units / share, start)
        while (rested := self._rested.first()) is not None and rested.tag <= self._virtual:
            self._rested.remove(rested)
            del self._flows[rested.tenant]

    def _enqueue(self, place: Place) -> None:
        flow = place.flow
        if not flow.waiting:
            if not flow.held:
                self._rested.remove(flow)
            flow.tag = max(self._tag(flow), self._virtual)
            self._weight += flow.weight
        flow.lanes.setdefault(place.pools, OrderedDict())[place.number] = place
        flow.by_importance.setdefault(place.importance, OrderedDict())[place.number] = place
        flow.waiting += 1
        self._waiting += 1
        self._count_crowd(flow)
        self._rank_lane(flow, place.pools)

    def _dequeue(self, place: Place) -> None:
        flow = place.flow
        lane, equals = flow.lanes[place.pools], flow.by_importance[place.importance]
        del lane[place.number], equals[place.number]
        if not lane:
            del flow.lanes[place.pools]
        if not equals:
            del flow.by_importance[place.importance]
        flow.waiting -= 1
        self._waiting -= 1
        self._count_crowd(flow)
        self._rank_lane(flow, place.pools)
        if not flow.waiting:
            self._weight -= flow.weight
        if not self._waiting:
            self._end_busy_period()

    def _leave(self, place: Place) -> None:
        place.state = State.GONE
        self._dequeue(place)
        self._forget(place.flow)

    def _end_busy_period(self) -> None:
        """Nobody waits: what anybody got more than others, it took from nobody."""
        for flow in self._rested:
            del self._flows[flow.tenant]
        self._rested = Ranking()
        self._weight = self._virtual = 0.0
        self._busy += 1

    def _count_crowd(self, flow: Flow) -> None:
        if flow.waiting:
            self._crowd.put(flow, (-flow.waiting / flow.weight, 0))
        else:
            self._crowd.remove(flow)

    def _rank(self, flow: Flow) -> None:
        for pools in flow.lanes:
            self._rank_lane(flow, pools)

    def _rank_lane(self, flow: Flow, pools: Pools) -> None:
        lane = flow.lanes.get(pools)
        ranking = self._next_of.get(pools)
        if lane and flow.held < self._per_tenant:
            if ranking is None:
                ranking = self._next_of[pools] = Ranking()
            ranking.put(flow, (flow.tag, next(iter(lane))))
        elif ranking is not None:
            ranking.remove(flow)
            if not ranking:
                del self._next_of[pools]

    def _grant(self) -> list[Place]:
        granted: list[Place] = []
        while self._in_flight < self._limit and (place := self._next()) is not None:
            self._count_in(place)
            self._charge(place.flow, 1)
            self._dequeue(place)
            self._rank(place.flow)
            granted.append(place)
        return granted

    def _next(self) -> Place | None:
        """Of the tenants that are next for their pools, the one with the least virtual time."""
        first: Place | None = None
        for pools, ranking in self._next_of.items():
            flow = ranking.first()
            if flow is None or not self._has_room(pools, 1):
                continue
            place = next(iter(flow.lanes[pools].values()))
            if first is None or (flow.tag, place.number) < (first.flow.tag, first.number):
                first = place
        return first

    def _least(self, tenant: str, flow: Flow | None, importance: int) -> Place | None:
        """Which call leaves a full queue for a new one of this tenant; None: the new one itself."""
        weight = self._weights.get(tenant, USUAL_WEIGHT) if flow is None else flow.weight
        crowded = self._crowd.first()
        waiting = 1 if flow is None else flow.waiting + 1
        if crowded is not None and crowded.waiting / crowded.weight > waiting / weight:
            return _newest(crowded)
        if flow is None or not flow.waiting:
            return None
        own = _newest(flow)
        return own if own.importance < importance else None


def _newest(flow: Flow) -> Place:
    """The newest of its least important calls that wait."""
    least = flow.by_importance[min(flow.by_importance)]
    return least[next(reversed(least))]
