"""Finish old, take no new: the order in which a process comes down.

In: a listener and the health. Out: nothing is under way any more, or time is up. Keeps nothing.
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
) -> int:
    """Unready at once; after a grace no new connections and requests; streams without an end are ended; the
    rest has `drain_s` in all. Returns how many requests were cut off."""
    deadline = asyncio.get_running_loop().time() + drain_s
    health.is_draining = True
    await grace(min(GRACE_S, drain_s / 10))
    stop_accepting()
    listener.refuse_new()
    listener.end_listening()
    try:
        async with asyncio.timeout_at(deadline):
            await listener.finished()
    except TimeoutError:
        return listener.requests_under_way
    return 0
