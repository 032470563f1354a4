"""Every wait of these tests has an end."""

import asyncio
from collections.abc import Callable

LONGEST_S = 5.0


def within(seconds: float = LONGEST_S) -> asyncio.Timeout:
    """A bound for one wait; only reached when something is broken."""
    return asyncio.timeout(seconds)


async def turns(count: int = 20) -> None:
    """Let everything that is ready to run, run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for what only shows in a gauge of the sidecar."""
    async with within():
        while not is_so():
            await turns(1)
