"""An alarm ends one wait, and only that; whoever else ends the task goes first (`proxy/alarm.py`).

The rules are those of `asyncio.timeout` from Python 3.12 on (its documentation, "Task cancellation" and `uncancel`);
`tests/fuzz/test_any_alarm.py` compares the two.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import pytest
import uvloop

from proxy.alarm import Alarm

SECONDS: Final = 5.0
"""The bound of every wait of a test."""
LONG_S: Final = 3_600.0

Run = Callable[[Callable[[], Awaitable[object]]], object]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Runs a scene on a loop of each kind; uvloop has timers of its own."""
    make = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=make) as runner:

        async def bounded(scene: Callable[[], Awaitable[object]]) -> object:
            return await asyncio.wait_for(scene(), SECONDS)

        yield lambda scene: runner.run(bounded(scene))


class Wait:
    """One wait under an alarm, in a task of its own; `ends` lets it end well."""

    def __init__(self, seconds: float, inside: Callable[[Wait], Awaitable[str]] | None = None) -> None:
        self.ends: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.rung = asyncio.Event()
        """The cancellation has reached what is waited for."""
        self._inside = inside or Wait._answer
        self.task = asyncio.get_running_loop().create_task(self._run(seconds))

    async def _answer(self) -> str:
        return await self.ends

    async def _run(self, seconds: float) -> str:
        alarm = Alarm(seconds)
        try:
            said = await self._inside(self)
        except asyncio.CancelledError:
            if not alarm.off():
                raise
            said = "late"
        finally:
            alarm.off()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0  # or it would look cancelled for ever
        await turns()  # whatever is left of the alarm would ring here
        return said


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def outcome(task: asyncio.Task[str]) -> str:
    await asyncio.wait([task])
    return "cancelled" if task.cancelled() else task.result()


def test_what_comes_in_time_comes(run: Run) -> None:
    async def scene() -> None:
        wait = Wait(LONG_S)
        await turns()
        wait.ends.set_result("answer")
        assert await outcome(wait.task) == "answer"

    run(scene)


@pytest.mark.parametrize("seconds", [0.01, 0.0, -1.0], ids=["soon", "now", "past"])
def test_what_does_not_is_late(run: Run, seconds: float) -> None:
    """A deadline that has passed rings, too: whoever asks for no time gets none."""

    async def scene() -> None:
        assert await outcome(Wait(seconds).task) == "late"

    run(scene)


def test_an_infinite_one_never_rings(run: Run) -> None:
    async def scene() -> None:
        alarm = Alarm(math.inf)
        await turns()
        assert not alarm.off()
        wait = Wait(math.inf)
        await turns()
        wait.task.cancel()
        assert await outcome(wait.task) == "cancelled"

    run(scene)


def test_somebody_elses_cancellation_is_not_its_own(run: Run) -> None:
    async def scene() -> None:
        wait = Wait(LONG_S)
        await turns()
        wait.task.cancel()
        assert await outcome(wait.task) == "cancelled"
        assert wait.task.cancelling() == 1

    run(scene)


@pytest.mark.parametrize("is_first", [False, True], ids=["alarm first", "client first"])
def test_who_leaves_in_the_very_turn_has_left(run: Run, is_first: bool) -> None:
    """Both cancel before the task runs again: it gets one CancelledError for the two, and nobody is there to be told
    of a deadline."""

    async def scene() -> None:
        loop = asyncio.get_running_loop()
        story: list[str] = []

        async def waits() -> str:
            task = asyncio.current_task()
            assert task is not None

            def leave() -> None:
                story.append("left")
                task.cancel()

            if is_first:
                loop.call_later(0, leave)
            alarm = Alarm(0)
            if not is_first:
                loop.call_later(0, leave)
            try:
                await loop.create_future()
            except asyncio.CancelledError:
                assert story == ["left"]  # both, or this would not be the race
                assert task.cancelling() == 2
                if not alarm.off():
                    raise
                return "late"
            raise AssertionError

        task = loop.create_task(waits())
        assert await outcome(task) == "cancelled"
        assert task.cancelling() == 1  # the alarm has taken back its own

    run(scene)


def test_who_leaves_while_the_late_call_is_cleaned_up_has_left(run: Run) -> None:
    async def cleans_up(wait: Wait) -> str:
        try:
            return await wait.ends
        finally:
            wait.rung.set()
            await asyncio.get_running_loop().create_future()

    async def scene() -> None:
        wait = Wait(0, cleans_up)
        await wait.rung.wait()
        wait.task.cancel()
        assert await outcome(wait.task) == "cancelled"
        assert wait.task.cancelling() == 1

    run(scene)


def test_an_answer_that_comes_all_the_same_is_taken(run: Run) -> None:
    """What is waited for may end well although it was cancelled: the task is as if nothing had rung."""

    async def comes(wait: Wait) -> str:
        try:
            return await wait.ends
        except asyncio.CancelledError:
            return "answer"

    async def scene() -> None:
        assert await outcome(Wait(0, comes).task) == "answer"

    run(scene)


def test_what_fails_while_it_is_cancelled_fails_as_it_does(run: Run) -> None:
    async def fails(wait: Wait) -> str:
        try:
            return await wait.ends
        except asyncio.CancelledError:
            raise LookupError from None

    async def scene() -> None:
        wait = Wait(0, fails)
        await asyncio.wait([wait.task])
        assert isinstance(wait.task.exception(), LookupError)
        assert wait.task.cancelling() == 0

    run(scene)


@pytest.mark.parametrize("is_ours_outside", [False, True])
def test_of_two_in_one_turn_the_outer_one_counts(run: Run, is_ours_outside: bool) -> None:
    """An alarm within asyncio.timeout, or around it: each takes back its own cancellation and leaves the other's."""

    async def ours(inside: Callable[[], Awaitable[str]], word: str) -> str:
        alarm = Alarm(0)
        try:
            return await inside()
        except asyncio.CancelledError:
            if not alarm.off():
                raise
            return word
        finally:
            alarm.off()

    async def theirs(inside: Callable[[], Awaitable[str]], word: str) -> str:
        try:
            async with asyncio.timeout(0):
                return await inside()
        except TimeoutError:
            return word

    async def never() -> str:
        nothing: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        return await nothing

    async def scene() -> None:
        outer, inner = (ours, theirs) if is_ours_outside else (theirs, ours)
        task = asyncio.get_running_loop().create_task(outer(lambda: inner(never, "inner"), "outer"))
        assert await outcome(task) == "outer"
        assert task.cancelling() == 0

    run(scene)


def test_of_two_alarms_in_one_turn_the_outer_one_counts(run: Run) -> None:
    async def inner(wait: Wait) -> str:
        alarm = Alarm(0)
        try:
            return await wait.ends
        except asyncio.CancelledError:
            if not alarm.off():
                raise
            return "inner"
        finally:
            alarm.off()

    async def scene() -> None:
        assert await outcome(Wait(0, inner).task) == "late"

    run(scene)


def test_a_task_that_was_cancelled_once_and_went_on_has_alarms(run: Run) -> None:
    """One task may serve a connection for a day. That somebody once ended a wait of it must not make each later alarm
    look like one who leaves."""

    async def goes_on() -> str:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(asyncio.CancelledError):  # and nobody takes it back
            await loop.create_future()
        alarm = Alarm(0)
        try:
            await loop.create_future()
        except asyncio.CancelledError:
            return "late" if alarm.off() else "cancelled"
        raise AssertionError

    async def scene() -> None:
        task = asyncio.get_running_loop().create_task(goes_on())
        await turns()
        task.cancel()
        assert await outcome(task) == "late"
        assert task.cancelling() == 1

    run(scene)


def test_off_is_off(run: Run) -> None:
    """Also in the very turn in which it was due."""

    async def scene() -> None:
        task = asyncio.current_task()
        assert task is not None
        before = task.cancelling()
        alarm = Alarm(0)
        assert not alarm.off()
        assert not alarm.off()
        await turns()
        assert task.cancelling() == before

    run(scene)


def test_an_alarm_belongs_to_a_task(run: Run) -> None:
    async def scene() -> None:
        told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def outside() -> None:
            try:
                Alarm(1)
            except AssertionError:
                told.set_result(True)
            else:
                told.set_result(False)

        asyncio.get_running_loop().call_soon(outside)
        assert await told

    run(scene)
