"""What runs beside the calls: fetching keys, looking at files. Started once, ended with the house.

In: endless coroutine functions. Out: nothing. Keeps their tasks, so that none is lost and each is awaited at the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from ..model import Job

RESTART_S: Final = 1.0
"""After an exception nobody expected. Keys that are never fetched again would be worse than a repeated error."""


class Background:
    """Runs jobs until it is closed; one that raises is reported and begun again."""

    def __init__(
        self,
        report: Callable[[Exception], None],
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._report = report
        self._sleep = sleep
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, job: Job) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(self._run(job)))

    async def _run(self, job: Job) -> None:
        while True:
            try:
                await job()
                return
            except Exception as error:
                self._report(error)
            await self._sleep(RESTART_S)

    async def close(self) -> None:
        """Cancel every job and wait until each has ended."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
