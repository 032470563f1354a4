"""However a wait ends and whoever ends it, in whatever turn of the loop: an alarm tells as `asyncio.timeout` does.

Dice decide what is waited for, how deep, and what happens in each turn; both are run on a loop whose clock we move.
All waits begin before anything happens: only then Python 3.11 and 3.12 agree on what belongs to whom.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from hypothesis import given

from proxy.alarm import Alarm
from tests.fuzz.bounded import FUZZ
from tests.fuzz.dice import Dice, dice

SOON_S: Final = 1.0
TURNS: Final = 8
WAITS: Final = ["passes on", "passes on", "cleans up", "swallows", "fails", "waits again"]
EVENTS: Final = ["nothing", "nothing", "cancel", "time", "answer"]


class Clock(asyncio.SelectorEventLoop):
    """A loop whose time stands still until it is moved."""

    moved_s = 0.0

    def time(self) -> float:
        return self.moved_s


Bound = Callable[[float, Callable[[], Awaitable[str]]], Awaitable[str]]
"""Waits for something, or says "late"."""


async def by_alarm(seconds: float, wait: Callable[[], Awaitable[str]]) -> str:
    alarm = Alarm(seconds)
    try:
        return await wait()
    except asyncio.CancelledError:
        if not alarm.off():
            raise
        return "late"
    finally:
        alarm.off()


async def by_timeout(seconds: float, wait: Callable[[], Awaitable[str]]) -> str:
    try:
        async with asyncio.timeout(seconds) as limit:
            return await wait()
    except TimeoutError:
        assert limit.expired()
        return "late"


class Story:
    """What happens, drawn once and told twice."""

    def __init__(self, dice: Dice) -> None:
        self.waits = [(dice.one([SOON_S, 2 * SOON_S]), dice.one(WAITS)) for _ in range(dice.one([1, 2, 3]))]
        self.turns = [dice.times(3, lambda: dice.one(EVENTS)) for _ in range(TURNS)]

    def told(self, bound: Bound) -> tuple[str, int, list[str]]:
        """What became of the task, what it is still asked for, and what each wait said, the innermost first."""
        loop = Clock()
        try:
            return loop.run_until_complete(self._told(loop, bound))
        finally:
            loop.close()

    async def _told(self, loop: Clock, bound: Bound) -> tuple[str, int, list[str]]:
        said: list[str] = []
        answers: list[asyncio.Future[str]] = []

        async def answer() -> str:
            future: asyncio.Future[str] = loop.create_future()
            answers.append(future)
            return await future

        async def wait(depth: int) -> str:
            if depth == len(self.waits):
                return await answer()
            seconds, how = self.waits[depth]

            async def inside() -> str:
                try:
                    return await wait(depth + 1)
                except asyncio.CancelledError:
                    if how == "swallows":
                        return "swallowed"
                    if how == "fails":
                        raise LookupError from None
                    if how == "waits again":
                        return await answer()
                    if how == "cleans up":
                        await answer()
                    raise

            told = await bound(seconds, inside)
            said.append(told)
            return told

        task = loop.create_task(wait(0))
        await asyncio.sleep(0)
        for events in self.turns:
            for event in events:
                if event == "cancel":
                    task.cancel()
                elif event == "time":
                    loop.moved_s += SOON_S
                elif event == "answer":
                    for future in answers:
                        if not future.done():
                            future.set_result("answer")
            await asyncio.sleep(0)
        while not task.done():
            for future in answers:
                if not future.done():
                    future.set_result("answer")
            await asyncio.sleep(0)
        if task.cancelled():
            end = "cancelled"
        elif (error := task.exception()) is not None:
            end = type(error).__name__
        else:
            end = task.result()
        return end, task.cancelling(), said


@FUZZ
@given(dice)
def test_an_alarm_tells_what_asyncio_tells(dice: Dice) -> None:
    story = Story(dice)
    assert story.told(by_alarm) == story.told(by_timeout)
