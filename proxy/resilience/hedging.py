"""Is an attempt so slow that a second one may be faster? A race of two, the first answer wins.

In: a `Permit` whose rule asks for it, and the stage that serves single attempts. Out: the answer that came first, or
what became of the attempts when none came; and whether there were two. Keeps the attempts that are under way.

Only where a rule says that its tool reads, and that twice is as good as once; only where closing a connection is
cancelling, because a server that is not told works for both; never for what goes on where another stopped, nor where
the caller wants to be told on the way, by both, or takes a task for an answer: of two tasks it would know one. The
second attempt is one of the retry budget and of the breaker, and takes a place of its own, if one is free that nobody
waits for. There is never a third: whoever is in a race is not repeated.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

from ..model import Ending, Permit, Reason, Refused, Reply, Stage
from ..protocol.jsonrpc import META_CAPABILITIES
from .attempts import NOT_NOW, Outcome, attempted, may_help
from .budget import Budget
from .signals import Repeat, may_repeat

GiveBack: TypeAlias = Callable[[], None]
Spare: TypeAlias = Callable[[Permit], GiveBack | None]
"""A place at the server beside the one that a call holds, as what gives it back; None where none is free."""


def free_places(_: Permit) -> GiveBack:
    """Nobody counts places."""
    return lambda: None


def hedged_after_s(permit: Permit) -> float | None:
    """When a second attempt of this call may be sent, counted from the first; None: never."""
    call, rule = permit.call, permit.rule
    if rule.hedge_after_s is None or rule.tool_class != "read" or not call.revision.disconnect_cancels:
        return None
    if call.method != "tools/call" or may_repeat(call, rule) is not Repeat.ALWAYS:
        return None
    meta = call.params.get("_meta")
    if isinstance(meta, dict) and ("progressToken" in meta or _takes_tasks(meta.get(META_CAPABILITIES))):
        return None
    return rule.hedge_after_s


def _takes_tasks(capabilities: object) -> bool:
    """Whether a server may answer with a task (the tasks extension of 2026-07-28). Some read names in any case."""
    if not isinstance(capabilities, dict):
        return False
    for name, value in capabilities.items():
        names = (name, *value) if name.casefold() == "extensions" and isinstance(value, dict) else (name,)
        if any(each.casefold().rpartition("/")[2] == "tasks" for each in names):
            return True
    return False


class Hedging:
    """Attempts that are given a second one. Used inside one running loop."""

    def __init__(
        self,
        serve: Stage,
        budget: Budget,
        *,
        spare: Spare = free_places,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._serve = serve
        self._budget = budget
        self._spare = spare
        self._now = now
        self._running: set[asyncio.Task[None]] = set()
        self.sent = 0
        """Second attempts since the start."""
        self.won = 0
        """Those whose answer came first."""
        self.withheld = Counter[str]()
        """Second attempts that were due and not sent, by why: "budget", "capacity"."""

    async def __call__(self, permit: Permit, after_s: float) -> tuple[Outcome, bool]:
        """What became of the call, and whether it was sent twice."""
        race = _Race(functools.partial(attempted, self._serve, permit), permit, self._running)
        race.send()
        timer = asyncio.get_running_loop().call_later(after_s, self._late, race)
        try:
            outcome = await race.over
        except BaseException:
            race.abandon()
            raise
        finally:
            timer.cancel()
            race.stop()
        self.won += race.won_by_second
        return outcome, race.sent > 1

    @property
    def under_way(self) -> int:
        """Attempts that have not ended, the losers of races among them."""
        return len(self._running)

    def _late(self, race: _Race) -> None:
        """The first attempt has no answer."""
        if race.over.done():
            return
        give_back = self._spare(race.permit)
        if give_back is None:
            self.withheld["capacity"] += 1
        elif not self._budget.repeat(self._now()):
            self.withheld["budget"] += 1
            give_back()
        else:
            self.sent += 1
            race.send(give_back)


class _Race:
    """One call, and its attempts."""

    def __init__(
        self, attempt: Callable[[], Awaitable[Outcome]], permit: Permit, running: set[asyncio.Task[None]]
    ) -> None:
        self.permit = permit
        self.over: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.sent = 0
        self.won_by_second = False
        self._attempt = attempt
        self._all_running = running
        self._running: list[asyncio.Task[None]] = []
        self._failed: list[Outcome] = []
        self._give_back: GiveBack | None = None

    def send(self, give_back: GiveBack | None = None) -> None:
        """One more attempt; `give_back` is called when at most one of them is left."""
        self.sent += 1
        self._give_back = give_back
        task = asyncio.get_running_loop().create_task(self._run(is_second=self.sent > 1))
        self._running.append(task)
        self._all_running.add(task)
        task.add_done_callback(self._ended)

    def stop(self) -> None:
        """End what is under way: whoever leaves has cancelled."""
        for task in self._running:
            task.cancel()

    def abandon(self) -> None:
        """Nobody takes the answer, should it have come in this very moment."""
        if self.over.done() and not self.over.cancelled() and self.over.exception() is None:
            _close(self.over.result(), Ending.CLIENT_GONE)
        for each in self._failed:
            _close(each, Ending.CLIENT_GONE)

    async def _run(self, *, is_second: bool) -> None:
        try:
            outcome = await self._attempt()
        except asyncio.CancelledError:
            self.over.cancel()  # not by us, or it is over
            raise
        except BaseException as error:
            if not self.over.done():
                self.over.set_exception(error)
            return
        self._running.remove(_current())
        if self.over.done():
            _close(outcome, Ending.CLIENT_GONE)
        elif not _has_failed(self.permit, outcome):
            self.won_by_second = is_second
            self._decide(outcome)
            # Before another turn of the loop: the other one must not tell the journey its own story any more.
            self.stop()
        else:
            self._failed.append(outcome)
            if not self._running:
                self._decide(_told(self._failed))

    def _decide(self, outcome: Outcome) -> None:
        for each in self._failed:
            if each is not outcome:
                _close(each, Ending.COMPLETE)
        self._failed.clear()
        self.over.set_result(outcome)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._all_running.discard(task)
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()


def _current() -> asyncio.Task[None]:
    task = asyncio.current_task()
    assert task is not None
    return task


def _has_failed(permit: Permit, outcome: Outcome) -> bool:
    """Whether it is no answer, as long as another one may come."""
    return isinstance(outcome, Refused) or may_help(permit.call, outcome, Repeat.ALWAYS)


_NOT_SENT: Final = NOT_NOW | {Reason.UPSTREAM_UNREACHABLE}


def _told(failed: Sequence[Outcome]) -> Outcome:
    """What is told when all have failed: what the server said; else what became of an attempt that was sent."""
    return min(failed, key=_rank)


def _rank(outcome: Outcome) -> int:
    if isinstance(outcome, Reply):
        return 0
    return 2 if outcome.reason in _NOT_SENT else 1


def _close(outcome: Outcome, ending: Ending) -> None:
    if isinstance(outcome, Reply):
        outcome.done(ending)
