"""Finish old, take no new: the order in which a process comes down.

In: a listener and the health. Out: nothing is under way any more, time is up, or somebody will not wait. Keeps
nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from .probes import Health

GRACE_S: Final = 1.0
"""Between "not ready" and "takes nothing new": load balancers hear of it with a delay. A tenth of `drain_s` where
that is shorter."""


class Drainable(Protocol):
    @property
    def requests_under_way(self) -> int: ...
    def refuse_new(self) -> None: ...
    def end_listening(self) -> None: ...
    async def finished(self) -> None: ...


async def drain(
    listener: Drainable,
    health: Health,
    *,
    drain_s: float,
    stop_accepting: Callable[[], None],
    grace: Callable[[float], Awaitable[object]] = asyncio.sleep,
    hurry: asyncio.Event | None = None,
) -> int:
    """Unready at once; after a grace no new connections and requests; streams without an end are ended; the
    rest has `drain_s` in all, or until `hurry` is set. Returns how many requests were cut off."""
    hurry = hurry or asyncio.Event()
    deadline = asyncio.get_running_loop().time() + drain_s
    health.is_draining = True
    await _unless(hurry, grace(min(GRACE_S, drain_s / 10)))
    stop_accepting()
    listener.refuse_new()
    listener.end_listening()
    left_s = deadline - asyncio.get_running_loop().time()
    has_finished = await _unless(hurry, listener.finished(), left_s)
    return 0 if has_finished else listener.requests_under_way


async def _unless(hurry: asyncio.Event, patience: Awaitable[object], most_s: float | None = None) -> bool:
    """Wait for one thing, unless somebody is in a hurry or it takes too long. Whether it came."""
    waits = [asyncio.ensure_future(patience), asyncio.ensure_future(hurry.wait())]
    try:
        await asyncio.sleep(0)  # what needs no time has it also where there is none
        await asyncio.wait(
            waits, timeout=None if most_s is None else max(0.0, most_s), return_when=asyncio.FIRST_COMPLETED
        )
        return waits[0].done()
    finally:
        for each in waits:
            each.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
