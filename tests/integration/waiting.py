"""Every wait of these tests has an end."""

import asyncio

LONGEST_S = 5.0


def within(seconds: float = LONGEST_S) -> asyncio.Timeout:
    """A bound for one wait; only reached when something is broken."""
    return asyncio.timeout(seconds)


async def turns(count: int = 20) -> None:
    """Let everything that is ready to run, run."""
    for _ in range(count):
        await asyncio.sleep(0)
