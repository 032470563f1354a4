"""Is the server left alone at the moment, or the tool that is called? A stage around single attempts.

In: a `Permit`. Out: the `Reply` of the next stage, or `Refused` (breaker_open, quarantined) with when to come back.
Keeps nothing of a call but its tickets, until its reply has ended. Stands behind what repeats attempts: each of them
counts, and one alone tries a server that failed.

What passes whatever the server does, and is not counted, because a no would end more than it refuses and none of it is
work:

    server/discover            a client that is refused speaks an older revision for good
    ping                       a session whose ping fails is closed by its client
    GET, subscriptions/listen  clients that may not listen stop trying; they need it when the server is back
    answers, notifications     the server waits for them within a call, and nobody sends them again
    DELETE, tasks/cancel       they end something at the server

`initialize` does wait: it begins a session at the server. Refused, it is a plain 503 that clients take for an outage.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, TypeAlias

from ..model import Call, Ending, Kind, Permit, Reason, Refused, Reply, Stage
from .breaker import Breaker, State
from .quarantine import UNKNOWN, Quarantine
from .signals import Signal, signal_of, when_ended

_Tickets: TypeAlias = tuple[int, str | None, int]
"""That of the breaker, the tool and its own: quarantine counts by tools."""

PASSES: Final = frozenset({"ping", "server/discover", "tasks/cancel", "subscriptions/listen"})
LOOK_EVERY_S: Final = 0.5
"""Between two looks at whether a server that was down is there again."""
LOOK_S: Final = 1.0
"""How long one look may take."""
_REQUEST: Final = Kind.REQUEST
_OPEN_NOW: Final = State.OPEN


def is_guarded(call: Call) -> bool:
    """Whether a call waits while the server is left alone."""
    kind = call.kind
    if kind is _REQUEST:
        return call.method not in PASSES
    if kind is Kind.BATCH:
        return any(map(is_guarded, call.parts))
    # Servers run a tool that is called without an id.
    return kind is Kind.NOTIFICATION and not call.method.startswith("notifications/")


class Guarding:
    """Fulfils `Stage`."""

    def __init__(
        self,
        serve: Stage,
        breaker: Breaker | None,
        quarantine: Quarantine | None = None,
        *,
        counts_internal_errors: bool = True,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """None: the server, or a tool, is never left alone. `now` is monotonic, in seconds."""
        self._serve = serve
        self._breaker = breaker
        self._quarantine = quarantine
        self._counts_internal_errors = counts_internal_errors
        self._now = now
        self._is_down = False
        """No connection could be made, last time somebody tried."""
        self._may_be_open = asyncio.Event()
        if self.state is not State.CLOSED:
            self._may_be_open.set()  # since before a reload
        self.refused: Counter[str] = Counter()
        """Calls refused since the start, by why: "breaker", "quarantine"."""

    async def __call__(self, permit: Permit) -> Reply:
        call = permit.call
        if not is_guarded(call):
            return await self._serve(permit)
        tickets = self._admitted(permit)
        try:
            reply = await self._serve(permit)
        except BaseException as error:
            self._is_down |= isinstance(error, Refused) and error.reason is Reason.UPSTREAM_UNREACHABLE
            self._tell(tickets, signal_of(call, error) or Signal.SILENT)
            raise
        self._is_down = False
        try:
            counts = self._counts_internal_errors
            signal = signal_of(call, reply, counts_internal_errors=counts)
            self._tell(tickets, signal)
            if signal is None:
                tell = partial(self._tell, tickets)
                when_ended(reply, tell, counts_internal_errors=counts)
        except BaseException as error:
            self._tell(tickets, Signal.SILENT)
            reply.done(Ending.of(error))
            raise
        return reply

    @property
    def state(self) -> State:
        """Of the breaker; closed where there is none. Open until a call asks, also when its time is over."""
        return State.CLOSED if self._breaker is None else self._breaker.state

    @property
    def opened(self) -> int:
        """How often the breaker opened."""
        return 0 if self._breaker is None else self._breaker.opened

    @property
    def quarantined(self) -> tuple[str, ...]:
        """Tools that are left alone. Callers may have chosen the names."""
        return () if self._quarantine is None else self._quarantine.left_alone

    def why_unready(self) -> str | None:
        """None: calls are answered, if only by a no, and a probe that fails takes that away too."""
        return None

    def why_degraded(self) -> Sequence[str]:
        """For an operator. Without names: whoever asks the operations port has shown no credential."""
        reasons = []
        if self.state is not State.CLOSED:
            reasons.append("the server keeps failing and is left alone")
        if count := len(self.quarantined):
            reasons.append(f"tools that keep failing and are left alone: {count}")
        return reasons

    async def look_for_life(
        self,
        connects: Callable[[], Awaitable[bool]],
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        look_s: float = LOOK_S,
    ) -> None:
        """While the server is left alone and cannot be reached, look whether it is there again, and let the next call
        try it then. `connects` sends nothing, so it costs a failing server nothing; one that takes connections all the
        while is left its time. Ends when cancelled."""
        breaker = self._breaker
        while breaker is not None:
            await self._may_be_open.wait()
            await sleep(LOOK_EVERY_S)
            if breaker.state is not State.OPEN or not breaker.wait_s(self._now()):
                self._may_be_open.clear()  # calls look for themselves
                continue
            is_there = await _in_time(connects, look_s)
            if is_there and self._is_down:
                breaker.sign_of_life()
            self._is_down = not is_there

    def _admitted(self, permit: Permit) -> _Tickets:
        """By what the attempt is known to those who count it. Raises Refused."""
        now = self._now()
        quarantine, breaker = self._quarantine, self._breaker
        tool, tool_ticket = None, UNKNOWN
        if quarantine is not None:
            tool = _tool(permit.call)
            tool_ticket = self._admitted_tool(quarantine, permit, tool, now)
        ticket = UNKNOWN
        if breaker is not None:
            admitted = breaker.admit(now)
            if admitted is None:
                if quarantine is not None and tool is not None:
                    quarantine.heard(tool, tool_ticket, Signal.SILENT, now)
                self.refused["breaker"] += 1
                raise _no(Reason.BREAKER_OPEN, "resilience.breaker", _OPEN, breaker.wait_s(now))
            ticket = admitted
        return ticket, tool, tool_ticket

    def _admitted_tool(self, quarantine: Quarantine, permit: Permit, tool: str | None, now: float) -> int:
        """The ticket of a call of one tool. A batch of several is no attempt of any: nobody knows which of them
        failed, and while one is left alone none of it is sent. Raises Refused."""
        names = [tool] if tool is not None else _tools(permit.call)
        ticket: int | None = UNKNOWN
        if tool is not None:
            ticket = quarantine.admit(tool, now)
        elif any(map(quarantine.is_left_alone, names)):
            ticket = None
        if ticket is not None:
            return ticket
        self.refused["quarantine"] += 1
        words = _QUARANTINED if tool is not None else _QUARANTINED_PART
        if permit.rule.instead:
            words = f"{words} Instead: {permit.rule.instead}"
        wait_s = max(quarantine.wait_s(name, now) for name in names)
        raise _no(Reason.QUARANTINED, "resilience.quarantine", words, wait_s)

    def _tell(self, tickets: _Tickets, signal: Signal | None) -> None:
        """What an attempt says; None: its answer has begun."""
        ticket, tool, tool_ticket = tickets
        now = self._now()
        breaker, quarantine = self._breaker, self._quarantine
        if breaker is not None:
            if signal is None:
                breaker.begun(ticket, now)
            else:
                breaker.heard(ticket, signal, now)
                if breaker.state is _OPEN_NOW:
                    self._may_be_open.set()
        if quarantine is not None and tool is not None:
            if signal is None:
                quarantine.begun(tool, tool_ticket, now)
            else:
                quarantine.heard(tool, tool_ticket, signal, now)


_OPEN: Final = "Nothing was sent to it: the call can be repeated, after a while."
_QUARANTINED: Final = "Nothing was sent to it; other tools work. The call can be repeated, after a while."
_QUARANTINED_PART: Final = (
    "One of the tools of this batch, that is. Nothing of it was sent: send the other calls without it."
)


def _no(reason: Reason, limit: str, words: str, wait_s: float) -> Refused:
    return Refused(reason, words, data={"limit": limit}, retry_after_s=wait_s)


def _tool(call: Call) -> str | None:
    """The tool that is called, by itself."""
    return call.target if call.method == "tools/call" else None


def _tools(call: Call) -> list[str]:
    return [name for part in call.parts if (name := _tool(part)) is not None]


async def _in_time(connects: Callable[[], Awaitable[bool]], look_s: float) -> bool:
    try:
        async with asyncio.timeout(look_s):
            return await connects()
    except TimeoutError:
        return False
