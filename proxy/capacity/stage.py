"""A call waits for its place, and holds it until its reply has ended: the shell around `slots.py`.

In: a `Permit`. Out: the `Reply` of the next stage, or `Refused` (overloaded). Keeps a future for each call
that waits.

What takes no place, because somebody who holds one may wait for it: answers to the server's questions, notifications,
pings, handshakes, streams that listen, task polls, the log level. A tool called without an id is a call all the same,
as servers run it. A batch takes a place for each of its calls, all at once or not at all: it never waits, because it
may hold an answer somebody waits for, and because keeping places free until there are enough would cost others.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, TypeAlias

from ..configuration.folding import fold
from ..configuration.globs import Globs
from ..model import Call, Deadline, Ending, Kind, Permit, Reason, Refused, Reply, Stage, never_ends
from .gradient import Gradient
from .slots import Lack, Place, Pools, Slots, State
from .turnover import Turnover

Turn: TypeAlias = "tuple[Permit, asyncio.Future[Refused | None]]"
"""Of a call that waits; None when it has come."""

FREE: Final = frozenset({"initialize", "logging/setLevel", "ping", "server/discover", "subscriptions/listen"})
"""Requests that take no place; those about tasks do not either."""

_SEVERAL: Final = Kind.BATCH
_REQUEST: Final = Kind.REQUEST
_HELD: Final = State.HELD

COMES_BACK_S: Final = 1.0
"""When to come back, while nobody knows better."""
SOONEST_S: Final = 0.1
LATEST_S: Final = 60.0

IMPORTANCE: Final[Mapping[str, int]] = {"read": 0, "write": 2, "dangerous": 3}
"""What a full queue keeps longest. Reads are repeated easily; what may destroy something is mostly the end of longer
work."""
OTHER_IMPORTANCE: Final = 1
"""Of requests that call no tool: cheap, and a list that is missing can end a session before it began."""


def takes_place(call: Call) -> bool:
    """Whether a message, by itself, is work for which there must be room."""
    kind, method = call.kind, call.method
    if kind is _REQUEST:
        return method == "tools/call" or (method not in FREE and not method.startswith("tasks/"))
    return kind is Kind.NOTIFICATION and not method.startswith("notifications/") and method not in FREE


def never() -> bool:
    return False


class Roomy:
    """Fulfils `Stage`."""

    def __init__(
        self,
        serve: Stage,
        slots: Slots,
        *,
        max_wait_s: float,
        patterns: tuple[str, ...] = (),
        sheds: bool = False,
        gradient: Gradient | None = None,
        deadline: Deadline = never_ends,
        is_short: Callable[[], bool] = never,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`patterns` are those of the pools of `slots`, in order; `sheds`: a full queue looks at what calls may do;
        `gradient` decides how many places there are; while `is_short` says so there is none for anybody."""
        self._serve = serve
        self._slots = slots
        self._max_wait_s = max_wait_s
        self._patterns = Globs(patterns) if patterns else None
        self._sheds = sheds
        self._gradient = gradient
        self._deadline = deadline
        self._is_short = is_short
        self._now = now
        self._turnover = Turnover()
        self._turns: dict[Place, Turn] = {}
        self.refused: Counter[str] = Counter()
        """How many calls were refused, by why: "all", "tenant", "pool" (no place there, and no waiting), "waited",
        "deadline", "displaced", "batch", "memory"."""

    async def __call__(self, permit: Permit) -> Reply:
        call = permit.call
        place: Place | None = None
        if call.kind is _SEVERAL:
            place = self._for_batch(permit)
        elif takes_place(call):
            if self._is_short():
                raise self._no(permit, "memory", _SHORT)
            pools = () if self._patterns is None else self._pools(call)
            taken = self._slots.take(fold(permit.principal.tenant), pools)
            place = taken if isinstance(taken, Place) else await self._turn(permit, taken)
        if place is None:
            return await self._serve(permit)
        what, began = "", None
        if self._gradient is not None:
            # The name alone: a call that is waited for keeps nothing of what it carried.
            what, began = _kind_of(call), self._began(call)
        try:
            reply = await self._serve(permit)
        except BaseException as error:
            self._ended(place, what, began, Ending.of(error))
            raise
        if began is not None and _is_whole(call, reply):
            # What it takes to write it to a slow client says nothing of the server.
            if reply.status < 300:
                self._learn(what, began, Ending.COMPLETE)
            began = None
        if began is None:
            reply.when_done(partial(self._give_back, place))
        else:
            reply.when_done(partial(self._ended, place, what, began))
        return reply

    def before(self, serve: Stage, deadline: Deadline) -> Roomy:
        """The same places before another stage: whoever waits here has its turn also when a call there ends."""
        twin = Roomy(
            serve,
            self._slots,
            max_wait_s=self._max_wait_s,
            sheds=self._sheds,
            gradient=self._gradient,
            deadline=deadline,
            is_short=self._is_short,
            now=self._now,
        )
        twin._patterns, twin._turnover, twin._turns = self._patterns, self._turnover, self._turns
        twin.refused = self.refused
        return twin

    def spare(self, permit: Permit) -> Callable[[], None] | None:
        """A place beside the one that a call holds, as what gives it back; None where none is free, or others wait."""
        if self._slots.waiting:
            return None
        taken = self._slots.take(fold(permit.principal.tenant), self._pools(permit.call))
        return partial(self._give_back, taken) if isinstance(taken, Place) else None

    @property
    def in_flight(self) -> int:
        """Calls at the server."""
        return self._slots.in_flight

    @property
    def waiting(self) -> int:
        """Calls that wait for a place."""
        return self._slots.waiting

    @property
    def queued(self) -> list[str]:
        """The tools that those who wait call; callers may have chosen the names."""
        calls = (permit.call for permit, _ in self._turns.values())
        return [call.target or "" for call in calls if call.method == "tools/call"]

    @property
    def limit(self) -> int:
        """Places there are; changes only where they adapt."""
        return self._slots.limit

    def of_tenant(self, tenant: str) -> tuple[int, int]:
        """How many calls of a tenant are at the server, and how many wait."""
        return self._slots.of_tenant(fold(tenant))

    def _pools(self, call: Call) -> Pools:
        if self._patterns is None or call.method != "tools/call":
            return ()
        return self._patterns.fitting(call.target or "")

    def _for_batch(self, permit: Permit) -> Place | None:
        calls = [part for part in permit.call.parts if takes_place(part)]
        if not calls:
            return None
        if self._is_short():
            raise self._no(permit, "memory", _SHORT)
        pools = tuple(sorted(pool for call in calls for pool in self._pools(call)))
        taken = self._slots.take(fold(permit.principal.tenant), pools, len(calls))
        if isinstance(taken, Place):
            return taken
        if len(calls) == 1:
            raise self._no(permit, taken.value, _TOO_MANY[taken])
        raise self._no(permit, "batch", _BATCH)

    async def _turn(self, permit: Permit, lack: Lack) -> Place:
        """The place of a call that finds none, when its turn has come. Raises Refused."""
        now = self._now()
        tenant = fold(permit.principal.tenant)
        left_s = self._deadline(permit) - now
        if left_s < self._max_wait_s and self._slots.depth:
            turn_s = self._turnover.wait_s(self._slots.turns_before(tenant) + 1, now)
            if left_s <= (turn_s or 0.0):
                raise self._no(permit, "deadline", _OVER)
        call = permit.call
        importance = _importance(permit) if self._sheds else 0
        place, leaves = self._slots.queue(tenant, self._pools(call), importance)
        if place is None:
            raise self._no(permit, lack.value, _TOO_MANY[lack])
        if leaves is not None:
            self._refuse(leaves, "displaced", _DISPLACED)
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[Refused | None] = loop.create_future()
        self._turns[place] = permit, turn
        timer = loop.call_later(min(left_s, self._max_wait_s), self._too_long, place)
        try:
            refused = await turn
        except BaseException:
            # Gone, and perhaps in the very moment in which its turn had come.
            self._give_back(place)
            raise
        finally:
            timer.cancel()
            del self._turns[place]
            call.journey.waited(self._now() - now)
        if refused is not None:
            raise refused
        return place

    def _too_long(self, place: Place) -> None:
        """Its turn has not come in time."""
        if place.state is State.WAITS:
            self._slots.give_back(place)
            self._refuse(place, "waited", _WAITED)

    def _refuse(self, place: Place, why: str, words: str) -> None:
        """It is out of the queue already."""
        permit, turn = self._turns[place]
        if not turn.done():  # else its caller has gone
            turn.set_result(self._no(permit, why, words))

    def _ended(self, place: Place, what: str, began: float | None, ending: Ending) -> None:
        try:
            if began is not None:
                self._learn(what, began, ending)
        finally:
            self._give_back(place)

    def _give_back(self, place: Place, _: Ending | None = None) -> None:
        """However its call ended."""
        slots = self._slots
        if place.state is _HELD:
            if slots.is_pressed:
                self._turnover.freed(self._now())
            else:
                self._turnover.rest()
        if granted := slots.give_back(place):
            self._turn_of(granted)

    def _turn_of(self, places: Sequence[Place]) -> None:
        for place in places:
            _, turn = self._turns[place]
            if not turn.done():  # else its caller has gone, and is about to give the place back
                turn.set_result(None)

    def _began(self, call: Call) -> float | None:
        """None where nothing is learnt of it: of several calls nobody knows which took how long."""
        return self._now() if call.kind is _REQUEST else None

    def _learn(self, what: str, began: float, ending: Ending) -> None:
        if self._gradient is None or ending not in (Ending.COMPLETE, Ending.UPSTREAM_BROKE):
            return
        took_s = self._now() - began
        before = self._gradient.limit
        if ending is Ending.COMPLETE:
            self._gradient.took(what, took_s, self._slots.in_flight)
        else:
            self._gradient.broke(self._slots.in_flight)
        if self._gradient.limit != before:
            self._turn_of(self._slots.resize(self._gradient.limit))

    def _no(self, permit: Permit, why: str, words: str) -> Refused:
        """Nothing was sent, and when it may be worth while to come back."""
        self.refused[why] += 1
        tenant = fold(permit.principal.tenant)
        wait_s = self._turnover.wait_s(self._slots.turns_before(tenant) + 1, self._now())
        told = f"{words} Nothing was sent to the server: the call can be repeated, after a while."
        if permit.rule.instead:
            told = f"{told} {permit.rule.instead}"
        return Refused(
            Reason.OVERLOADED,
            told,
            data={"limit": f"capacity.{why}"},
            retry_after_s=COMES_BACK_S if wait_s is None else min(max(wait_s, SOONEST_S), LATEST_S),
        )


_TOO_MANY: Final[Mapping[Lack, str]] = {
    Lack.ALL: "As many calls as it can take are under way, and no more may wait. Fewer calls at once help.",
    Lack.TENANT: "As many of your calls as may be under way at once are. Wait for one of them to end.",
    Lack.POOL: "As many calls of tools like this as may be under way at once are. Wait for one of them to end.",
}
_BATCH: Final = (
    "A batch needs a place for each of its calls at once, and there are too few. Send them one by one."
)
_OVER: Final = "It would be over before its turn came. Give it more time, or wait."
_SHORT: Final = "The proxy has no memory left for it."
_WAITED: Final = "It waited for its turn, and that did not come in time."
_DISPLACED: Final = "It waited for its turn, and had to make way. Fewer calls at once help."


def _kind_of(call: Call) -> str:
    """What takes about as long as others of its kind."""
    return call.target or "" if call.method == "tools/call" else call.method


def _importance(permit: Permit) -> int:
    if permit.call.method != "tools/call":
        return OTHER_IMPORTANCE
    return IMPORTANCE.get(permit.rule.tool_class, IMPORTANCE["dangerous"])


def _is_whole(call: Call, reply: Reply) -> bool:
    """Whether the answer is here."""
    return isinstance(reply.body, bytes) and not call.revision.answers_elsewhere
