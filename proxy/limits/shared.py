"""How much, for all replicas together? Demands → the store's decision, or what `on_outage` says while there is none.

In: demands of one call. Out: `Taken` or `Denied`; Refused where nobody decides and the settings say `closed`. Keeps one
connection, the takes under way, refusals of the last second, and the limits of this process for outages.

What can happen to a take, and what becomes of it:
 1. The store decides in time: that is the answer.
 2. It is late, hung up, full, read-only, or not there: `on_outage` decides. A late grant is given back.
 3. It does not know the script (it was restarted, or flushed): it is told, and asked again behind that.
 4. It is in another calendar window than we thought: it is asked again about that one.
 5. The caller leaves: what the store then grants, or has granted without being heard, is given back.
What is given back are units of quotas: tokens of rates come back by themselves.
"""

from __future__ import annotations

import asyncio
import functools
import math
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Literal, Protocol

from msgspec import structs

from ..model import Job, Reason, Refused, Took, nobody_counts
from .demand import Demand, Denied, Granted, Quota, Rate
from .shared_spent import Spent
from .valkey_link import LONGEST_PAUSE_S, Ask, Link, Unusable, in_words
from .valkey_script import Asking, Elsewhen, Nonsense, Taken, said
from .valkey_url import Place
from .valkey_wire import LOST, Error

MAX_UNDER_WAY: Final = 4_096
"""Commands without a reply. At 10,000 takes a second, 500 are under way within 50 ms."""
MAX_TRIES: Final = 4
"""Of one take: the script may be unknown once, and a window may end on the way."""

WHY_CLOSED: Final = (
    "Limits cannot be checked at the moment, and nothing passes unchecked. Try again in a moment."
)


class Fallback(Protocol):
    """Limits of this process: `local.Local`."""

    def take(self, demands: Sequence[Demand], *, now: float, wall: float) -> Granted | Denied: ...
    def refund(self, demands: Sequence[Demand], *, wall: float) -> None: ...


class Shared:
    """The limits of a deployment. Build it anywhere, use it inside one running loop, with its jobs running."""

    def __init__(
        self,
        place: Place,
        local: Fallback,
        *,
        on_outage: Literal["local", "closed"],
        local_share: float,
        timeout_s: float,
        namespace: str,
        wall: Callable[[], float],
        now: Callable[[], float],
        chance: Callable[[], float],
        told: Callable[[str | None], None],
        took: Took = nobody_counts,
        tls: ssl.SSLContext | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """`local_share`: of each limit, what this process grants by itself in an outage. `timeout_s`: the longest a
        call waits for the store. `namespace`: of the deployment;
        its keys begin with `{mcp-sidecar:namespace}:`. `wall` counts seconds from 1970, `now` is
        monotonic, `chance` is from 0 to 1. `told`: hears why the store is not used, in fixed words without names and
        credentials, and None when it is used again. `took`: hears how long "valkey" takes. `tls`: whom to trust;
        absent, the system's certificates."""
        self._local = local
        self._is_closed_in_outages = on_outage == "closed"
        self._share = local_share
        self._timeout_s = timeout_s
        self._wall = wall
        self._now = now
        self._told = told
        self._took = took
        self._asking = Asking(namespace)
        self._link = Link(place, self._greet, told=told, now=now, chance=chance, tls=tls, sleep=sleep)
        self._spent = Spent()
        # The store's clock less ours: unix seconds at our monotonic 0.
        self._ahead_s: float | None = None
        self._is_loading = False
        self._waiting: deque[_Take] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.spared = 0
        """Refusals given without asking the store."""
        self.fallbacks = 0
        """Calls that `on_outage` decided."""
        self.late = 0
        """Takes that the store did not answer in time."""
        self.poisoned = 0
        """Values found in the store that were not ours."""
        self.refunds_lost = 0
        """Units stay used: the store was not there to give them back."""

    @property
    def jobs(self) -> tuple[Job, ...]:
        """What runs beside the calls."""
        return (self._link.run,)

    @property
    def is_up(self) -> bool:
        """Whether the store decides at the moment."""
        return self._link.wire is not None

    @property
    def outages(self) -> int:
        return self._link.outages

    @property
    def why_down(self) -> str | None:
        """Why the store is not used, for an operator; None while it is."""
        return self._link.why_down

    def why_unready(self) -> str | None:
        """Calls are decided without the store, as `on_outage` says."""
        return None

    def why_degraded(self) -> Sequence[str]:
        """What an operator should look at."""
        return () if self.why_down is None else (f"limits are not shared: {self.why_down}",)

    @property
    def under_way(self) -> int:
        """Commands without a reply."""
        return 0 if self._link.wire is None else len(self._link.wire)

    @property
    def place(self) -> Place:
        """Where the next connection goes."""
        return self._link.place

    @property
    def trusted(self) -> ssl.SSLContext | None:
        """With what it is encrypted, where the place is."""
        return self._link.tls

    def move(self, place: Place) -> None:
        """Be there from the next connection on: a password was renewed."""
        self._link.place = place

    def trust(self, tls: ssl.SSLContext) -> None:
        """Trust these authorities from the next connection on."""
        self._link.tls = tls

    async def take(self, demands: Sequence[Demand]) -> Taken | Denied:
        """Take of all limits, or of none. Waits `timeout_s` at most. Raises Refused where nobody may decide."""
        if not demands:
            return Taken((), (), 0.0)
        now = self._now()
        denied = self._spent.find(demands, now)
        if denied is not None:
            self.spared += 1
            return denied
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_s
        if not self._link.was_tried:
            await self._first_try(deadline)
        if self._link.wire is None or len(self._link.wire) >= MAX_UNDER_WAY:
            return self._without(demands)
        take = _Take(demands, loop.create_future(), deadline)
        self._wait_for(take)
        self._send(take)
        try:
            answer = await take.future
        except BaseException:
            self._left(take)
            raise
        # Not below nothing: what was added to the deadline is taken off again, and sums of doubles are not exact.
        self._took("valkey", max(0.0, loop.time() - deadline + self._timeout_s))
        if answer is None:
            return self._without(demands)
        if isinstance(answer, Denied):
            self._spent.note(demands, answer, self._now())
        return answer

    def refund(self, demands: Sequence[Demand], granted: Granted | None = None) -> None:
        """Give back what `granted` says was taken: units of quotas, as long as their window lasts. Does not wait.

        Without `granted`: what was asked, as if it had been taken now, except where it had to pass.
        """
        if isinstance(granted, Taken):
            costs, at_s = granted.costs, granted.at_s
            if granted.is_local:
                self._local.refund(self._shared_out(demands), wall=at_s)
                return
        else:
            costs = tuple(0 if each.must_pass else each.cost for each in demands)
            at_s = self._store_time()
        command = self._asking.refund(demands, costs, at_s)
        if command is not None:
            self._spent.forget(demands)
            self._send_refund(command, MAX_TRIES)

    async def close(self) -> None:
        """Ask nobody any more; refunds that were sent go out."""
        await self._link.close()
        if self._timer is not None:
            self._timer.cancel()

    async def _greet(self, ask: Ask) -> None:
        """See whether the store can decide, and what time it is there."""
        loop = asyncio.get_running_loop()
        await ask(self._asking.load)
        since = loop.time()
        try:
            # The same as a call: it reads, writes and tells the time. Who is too slow for this is for calls.
            async with asyncio.timeout(self._timeout_s):
                (reply,) = await ask(self._asking.probe())
            now_s = said(reply, 1).now_s
        except TimeoutError:
            raise Unusable("the store answers too slowly: raise timeout_s if it is far away") from None
        except Nonsense:
            raise Unusable("what answers is not a store that we know") from None
        self._ahead_s = now_s - self._now() + (loop.time() - since) / 2
        self._is_loading = False
        self._spent.clear()

    def _store_time(self) -> float:
        """Unix seconds, as the store has them; ours, before we know it."""
        return self._wall() if self._ahead_s is None else self._now() + self._ahead_s

    async def _first_try(self, deadline: float) -> None:
        # Else the first calls of each new replica would pass on its own share.
        try:
            async with asyncio.timeout_at(deadline):
                await self._link.first_try()
        except TimeoutError:
            pass

    # Takes under way.

    def _send(self, take: _Take) -> None:
        wire = self._link.wire
        if wire is None:
            take.answer(None)
            return
        take.tries += 1
        command = self._asking.take(take.demands, self._store_time())
        wire.send(command, functools.partial(self._replied, take))

    def _replied(self, take: _Take, reply: object) -> None:
        if reply is LOST:
            take.answer(None)
            return
        if isinstance(reply, Error):
            self._failed(take, reply.word)
            return
        try:
            heard = said(reply, len(take.demands))
        except Nonsense:
            # Not a reply to this script: nothing that comes on this connection can be believed.
            take.answer(None)
            self._link.drop("the store gave an answer that is none")
            return
        self._ahead_s = heard.now_s - self._now()
        self.poisoned += heard.poisoned
        answer = heard.answer
        if isinstance(answer, Elsewhen):
            self._again(take)
        elif not take.future.done():
            self._link.went_well()
            take.answer(answer)
        elif isinstance(answer, Taken):
            # Nobody heard it. The caller has left, or `on_outage` has decided.
            self.refund(take.demands, answer)

    def _failed(self, take: _Take, word: str) -> None:
        if word == "NOSCRIPT" and take.tries < MAX_TRIES:
            self._load()
            self._again(take)
            return
        take.answer(None)
        self._link.had_trouble(in_words(word))

    def _again(self, take: _Take) -> None:
        if take.future.done():
            return
        if take.tries >= MAX_TRIES:
            take.answer(None)
        else:
            self._send(take)

    def _load(self) -> None:
        """Tell the store the script, once for all who wait for it."""
        wire = self._link.wire
        if not self._is_loading and wire is not None:
            self._is_loading = True
            wire.send(self._asking.load, self._loaded)

    def _loaded(self, reply: object) -> None:
        self._is_loading = False

    def _left(self, take: _Take) -> None:
        """The caller is gone: cancelled, most likely. A grant that has come but was not heard is given back."""
        if take.future.cancel() or take.future.cancelled():
            return
        unheard = take.future.result()
        if isinstance(unheard, Taken):
            self.refund(take.demands, unheard)

    def _wait_for(self, take: _Take) -> None:
        self._waiting.append(take)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_at(take.deadline, self._sweep)

    def _sweep(self) -> None:
        """Tell those whose time is over. One timer for all: they came in the order of their deadlines."""
        self._timer = None
        loop = asyncio.get_running_loop()
        now, waiting, late = loop.time(), self._waiting, 0
        while waiting and (waiting[0].future.done() or waiting[0].deadline <= now):
            take = waiting.popleft()
            if not take.future.done():
                late += 1
                take.answer(None)
        if waiting:
            self._timer = loop.call_at(waiting[0].deadline, self._sweep)
        self.late += late
        for _ in range(late):
            self._link.had_trouble("the store answers too slowly")

    def _send_refund(self, command: bytes, tries: int) -> None:
        wire = self._link.wire
        if wire is None or len(wire) >= MAX_UNDER_WAY or tries == 0:
            self.refunds_lost += 1
            return
        wire.send(command, functools.partial(self._refunded, command, tries))

    def _refunded(self, command: bytes, tries: int, reply: object) -> None:
        if isinstance(reply, Error) and reply.word == "NOSCRIPT":
            # It was not carried out. After any other error, or none, nobody knows; twice would be worse than never.
            self._load()
            self._send_refund(command, tries - 1)
        elif reply is LOST or isinstance(reply, Error):
            self.refunds_lost += 1

    # Outages.

    def _without(self, demands: Sequence[Demand]) -> Taken | Denied:
        self.fallbacks += 1
        if self._is_closed_in_outages:
            if all(each.must_pass for each in demands):
                return Taken((0,) * len(demands), (0,) * len(demands), self._wall(), is_local=True)
            raise Refused(Reason.OVERLOADED, WHY_CLOSED, retry_after_s=LONGEST_PAUSE_S)
        wall = self._wall()
        answer = self._local.take(self._shared_out(demands), now=self._now(), wall=wall)
        if isinstance(answer, Granted):
            return Taken(answer.remaining, tuple(each.cost for each in demands), wall, is_local=True)
        refusing = demands[answer.index]
        if math.isinf(answer.retry_after_s) and _is_ever_granted(refusing):
            # More than our share, but not more than the limit: the store may give it when it is back.
            return structs.replace(answer, retry_after_s=LONGEST_PAUSE_S)
        return answer

    def _shared_out(self, demands: Sequence[Demand]) -> tuple[Demand, ...]:
        return tuple(structs.replace(each, measure=_part(each.measure, self._share)) for each in demands)


class _Take:
    """A call that waits for the store."""

    __slots__ = ("deadline", "demands", "future", "tries")

    def __init__(
        self, demands: Sequence[Demand], future: asyncio.Future[Taken | Denied | None], deadline: float
    ) -> None:
        self.demands = demands
        self.future = future
        self.deadline = deadline
        """By the loop's clock."""
        self.tries = 0

    def answer(self, answer: Taken | Denied | None) -> None:
        """Tell the caller, if it is there; None: the store does not decide."""
        if not self.future.done():
            self.future.set_result(answer)


@functools.lru_cache(maxsize=1_024)
def _part(measure: Rate | Quota, share: float) -> Rate | Quota:
    """A share of a limit. Who may do a little may still do one; what is blocked stays blocked."""
    if isinstance(measure, Rate):
        return Rate(per_s=measure.per_s * share, burst=_share(measure.burst, share))
    return Quota(units=_share(measure.units, share), window=measure.window)


def _share(most: int, share: float) -> int:
    return max(1, math.floor(most * share)) if most else 0


def _is_ever_granted(demand: Demand) -> bool:
    measure = demand.measure
    if isinstance(measure, Rate):
        return measure.per_s > 0 and demand.cost <= measure.burst
    return demand.cost <= measure.units
