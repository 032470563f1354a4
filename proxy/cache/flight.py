"""Who else wants this very thing right now? Equal work at once is done once.

In: a key and how to get what it names. Out: what came of it, for everybody who asked while it was under way. Keeps
flights until they land. The work has a task of its own: whoever asked first may leave, and the others still get it;
it is cancelled when the last one has left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")
Taken = TypeVar("Taken")

MAX_FLIGHTS: Final = 10_000
"""Beyond it nobody waits for anybody: capacity ends this long before."""


class _Flight(Generic[Result]):
    """Work under way, and how many wait for it."""

    __slots__ = ("task", "waiting")

    def __init__(self, task: asyncio.Task[Result]) -> None:
        self.task = task
        self.waiting = 0


class Flights(Generic[Key, Result]):
    """`left` gets what landed once nobody waits for it any more: what was not taken of it can be closed."""

    def __init__(self, left: Callable[[Result], None]) -> None:
        self._left = left
        self._flights: dict[Key, _Flight[Result]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def has(self, key: Key) -> bool:
        """Whether somebody is under way for it."""
        return key in self._flights

    async def lead(
        self, key: Key, work: Callable[[], Awaitable[Result]], take: Callable[[Result], Taken]
    ) -> Taken:
        """Do the work, for all who join meanwhile, and take one's part of it. Raises what it raises; AssertionError
        where somebody leads already."""
        assert key not in self._flights
        flight = _Flight(asyncio.get_running_loop().create_task(self._fly(key, work)))
        if len(self._flights) < MAX_FLIGHTS:
            self._flights[key] = flight
        return await self._wait(key, flight, take)

    async def join(self, key: Key, take: Callable[[Result], Taken]) -> Taken:
        """Take one's part of what the flight under way brings. Raises what the work raises."""
        return await self._wait(key, self._flights[key], take)

    async def _fly(self, key: Key, work: Callable[[], Awaitable[Result]]) -> Result:
        me = asyncio.current_task()
        try:
            return await work()
        finally:
            # Whoever comes now is too late for it: they look where it was put, or fly again.
            if (flight := self._flights.get(key)) is not None and flight.task is me:
                del self._flights[key]

    async def _wait(self, key: Key, flight: _Flight[Result], take: Callable[[Result], Taken]) -> Taken:
        flight.waiting += 1
        try:
            return take(await asyncio.shield(flight.task))
        finally:
            flight.waiting -= 1
            if flight.waiting == 0:
                self._all_left(key, flight)

    def _all_left(self, key: Key, flight: _Flight[Result]) -> None:
        if flight.task.done():
            self._landed(flight.task)
            return
        if self._flights.get(key) is flight:
            del self._flights[key]
        flight.task.add_done_callback(self._landed)
        flight.task.cancel()

    def _landed(self, task: asyncio.Task[Result]) -> None:
        if not task.cancelled() and task.exception() is None:
            self._left(task.result())
