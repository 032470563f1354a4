"""Where the loop is blocked, told by a thread that is not. Source: issue 7, point 7 (loop-lag watchdog)."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from types import FrameType

from proxy.lifecycle.loop_watch import BLOCKED_S, MOST_FRAMES, LoopWatch, places


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def here() -> FrameType | None:
    return sys._getframe()


def test_it_is_told_once_for_each_time_the_loop_stands() -> None:
    """A loop that stands for a minute is one line, not a hundred; the next time is told again."""
    clock = Clock()
    told: list[float] = []
    watch = LoopWatch(lambda seconds, where: told.append(seconds), now=clock)
    for seconds in (BLOCKED_S - 0.1, 0.1, 5.0):
        clock.now += seconds
        watch.look(here)
    assert told == [BLOCKED_S]
    watch.beat()
    watch.look(here)
    clock.now += 2 * BLOCKED_S
    watch.look(here)
    assert told == [BLOCKED_S, 2 * BLOCKED_S]


def recurse(depth: int, secret: str) -> list[str]:
    return recurse(depth - 1, secret) if depth else places(sys._getframe())


def test_places_are_names_of_code_and_nothing_else() -> None:
    """Never a value; the innermost first, bounded, and without the folders of the machine."""
    found = recurse(MOST_FRAMES, "hunter2")
    assert len(found) == MOST_FRAMES
    line = recurse.__code__.co_firstlineno + 1
    assert set(found) == {f"unit/lifecycle/test_loop_watch.py:{line} recurse"}
    assert places(None) == []


def test_a_thread_that_stands_is_seen_from_another() -> None:
    """With the real thread: this one is blocked until it has been told where."""
    seen = threading.Event()
    told: list[Sequence[str]] = []

    def tell(seconds: float, where: Sequence[str]) -> None:
        told.append(where)
        seen.set()

    watch = LoopWatch(tell, blocked_s=0.01, look_every_s=0.01)
    watch.start()
    try:
        assert seen.wait(5)
    finally:
        watch.close()
    assert any("test_loop_watch.py" in place and "test_a_thread_that_stands" in place for place in told[0])


def test_it_can_be_started_again() -> None:
    """A job that failed is begun again (background.py)."""
    seen = threading.Event()
    watch = LoopWatch(lambda seconds, where: seen.set(), blocked_s=0.01, look_every_s=0.01)
    watch.close()
    watch.start()
    try:
        assert seen.wait(5)
    finally:
        watch.close()
