"""Are there file descriptors left? Every connection takes one, and a call to the server another.

In: how many are open, and how many may be. Out: whether one more client, or one more connection to the server, may be
had. Keeps an account of what may have been opened since they were counted: to count is dear where there are many. A
reserve is kept from clients, half of it from connections to the server too, so that probes, files and keys have theirs.
Without it a process out of descriptors accepts nobody on any port: asyncio's loop spins and logs 26 MB a second, uvloop
closes whoever waits, probes too.
"""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

LOOK_EVERY_S: Final = 0.25
"""While there are none: a client that waits longer has noticed."""
LEAST_RESERVE: Final = 64
MOST_RESERVE: Final = 1_024
RESERVE_SHARE: Final = 20
"""One in so many of all is kept in reserve."""
FOLDER: Final = "/proc/self/fd"
REASON: Final = "file descriptors are used up, and no connections are accepted"


def raise_limit() -> int:
    """Let this process open as many files as it may at all. Returns how many.

    Soft limits of 1,024 are for programs that call select(2), which we do not; Go programs do the same at start.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # some systems allow less than they say
            return soft
    return hard


def hold_standard() -> None:
    """Give the numbers of standard input, output and error to nobody else, where they were closed before we began: a
    socket that gets one of them would be written to by libraries, and libuv aborts when it is to close it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one


def open_limit() -> int:
    """How many this process may open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def count_open() -> int | None:
    """How many it has open; None when not even that can be asked."""
    try:
        # Linux since 6.2 tells without walking through them: 3 µs instead of 0.4 µs for each.
        return os.stat(FOLDER).st_size or len(os.listdir(FOLDER))
    except FileNotFoundError:
        return 0  # nobody counts here
    except OSError:
        return None


def reserve_of(limit: int) -> int:
    """How many are kept from clients."""
    return min(MOST_RESERVE, max(LEAST_RESERVE, limit // RESERVE_SHARE), limit // 4)


class Descriptors:
    """Pure but for `run` and the two it is given: who may open one more."""

    def __init__(
        self,
        count: Callable[[], int | None] = count_open,
        limit: Callable[[], int] = open_limit,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """`count` and `limit` as those above."""
        self._count = count
        self._limit = limit
        self._sleep = sleep
        self._free = self._reserve = self._since = 0
        self._are_short = asyncio.Event()
        self.refused = 0
        """Connections to the server that were not made, since the start."""
        self.paused = 0
        """How often no more clients were accepted, since the start."""

    def may_accept(self) -> bool:
        """Whether there may be more clients than this one. From the first no on there is none until `run` says so."""
        if self.are_short:
            return False
        if self._takes(1.0):
            return True
        self.paused += 1
        self._are_short.set()
        return False

    def may_connect(self) -> bool:
        """Whether there may be one more connection to the server."""
        if self._takes(0.5):
            return True
        self.refused += 1
        return False

    @property
    def are_short(self) -> bool:
        """Whether no clients are accepted."""
        return self._are_short.is_set()

    def why_degraded(self) -> Sequence[str]:
        return (REASON,) if self.are_short else ()

    def have_come_back(self) -> bool:
        """Whether clients can be accepted again: with room for more than the first of them."""
        self._look()
        return self._free > self._reserve * 1.25

    async def run(self, resume: Callable[[], Awaitable[None]], told: Callable[[bool], None]) -> None:
        """Call `resume` when there are enough again after a no; until cancelled. `told` hears when there are none
        (False), and when there are again (True)."""
        while True:
            await self._are_short.wait()
            told(False)
            while not self.have_come_back():
                await self._sleep(LOOK_EVERY_S)
            self._are_short.clear()
            try:
                await resume()
            except BaseException:
                self._are_short.set()
                raise
            told(True)

    def _takes(self, share: float) -> bool:
        """Whether one more leaves this share of the reserve; counts it."""
        kept = self._reserve * share
        # Each may bring another one with it, and what was closed meanwhile is not known here.
        if self._free - 2 * self._since <= kept:
            # Near the end not all of them are counted for each: what that misses is a part of the reserve.
            if self._since >= max(1, self._reserve // 8) or self._free - self._since <= kept:
                self._look()
            if self._free - self._since <= self._reserve * share:
                return False
        self._since += 1
        return True

    def _look(self) -> None:
        limit, count = self._limit(), self._count()
        self._since = 0
        if limit <= 0:  # there is none
            self._free, self._reserve = MOST_RESERVE * 1_024, MOST_RESERVE
        else:
            self._reserve = reserve_of(limit)
            self._free = 0 if count is None else limit - count
