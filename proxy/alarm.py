"""When has somebody waited long enough? A timer that cancels the task it was set in.

In: seconds. Out: whether a cancellation that arrives is the alarm's own, and nobody else's. Keeps a timer until it is
off. What `asyncio.timeout` does, without the context manager, the states and the second exception: 1 µs a call instead
of 10, and every call has a deadline. Used inside one running loop:

    alarm = Alarm(seconds)
    try:
        reply = await somebody
    except asyncio.CancelledError:
        if not alarm.off():
            raise           # the client left, or the house comes down
        raise Refused(...) from None
    finally:
        alarm.off()
"""

from __future__ import annotations

import asyncio
from math import inf
from typing import Any


class Alarm:
    """One wait of the task that makes it. Inside another one, or inside `asyncio.timeout`, each is told apart."""

    __slots__ = ("_asked", "_has_rung", "_task", "_timer")

    def __init__(self, seconds: float) -> None:
        """Infinite: it never rings. Zero or less: in the next turn of the loop."""
        self._has_rung = False
        self._timer: asyncio.TimerHandle | None = None
        if seconds == inf:
            return
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None, "an alarm is set inside a task"
        self._task: asyncio.Task[Any] = task
        self._asked = task.cancelling()
        """How often others had asked the task to end before, and it went on."""
        self._timer = loop.call_later(seconds, self._ring)

    def off(self) -> bool:
        """To be called on every way out of the wait; again does no harm. True: it has rung, and nobody else has asked
        the task to end since it was set, so that a CancelledError is the alarm's own. Where somebody has, even in the
        same turn of the loop, theirs goes first: who has left is not told of a deadline."""
        timer = self._timer
        if timer is not None:
            self._timer = None
            timer.cancel()
            return False
        if not self._has_rung:
            return False
        self._has_rung = False
        return self._task.uncancel() <= self._asked

    def _ring(self) -> None:
        self._timer = None
        self._has_rung = True
        self._task.cancel()
