"""The order in which a process comes down."""

import asyncio

import pytest

from proxy.lifecycle.drain import drain
from proxy.lifecycle.probes import Health


class House:
    """A listener, a health and a grace that write down in which order they are used; fulfils `Drainable`."""

    def __init__(self, *, ends: bool = True, under_way: int = 0) -> None:
        self.diary: list[object] = []
        self.health = Health(self.answers)
        self.health.is_listening = True
        self._ends = ends
        self._under_way = under_way

    async def answers(self) -> bool:
        return True

    @property
    def requests_under_way(self) -> int:
        return self._under_way

    def refuse_new(self) -> None:
        self.diary.append("refuse new")

    def end_listening(self) -> None:
        self.diary.append("end listening")

    async def finished(self) -> None:
        self.diary.append("finished?")
        if not self._ends:
            await asyncio.Event().wait()

    async def grace(self, seconds: float) -> None:
        self.diary.append(("grace", seconds, await self.health.why_unready()))

    async def drained(self, drain_s: float, hurry: asyncio.Event | None = None) -> int:
        return await drain(
            self,
            self.health,
            drain_s=drain_s,
            stop_accepting=lambda: self.diary.append("stop accepting"),
            grace=self.grace,
            hurry=hurry,
        )


AFTER_GRACE = ["stop accepting", "refuse new", "end listening", "finished?"]


@pytest.mark.parametrize(("drain_s", "grace_s"), [(25.0, 1.0), (10.0, 1.0), (5.0, 0.5), (0.0, 0.0)])
async def test_unready_first_then_a_grace_then_nothing_new(drain_s: float, grace_s: float) -> None:
    """design section 4: TERM: unready at once, stop accepting after a grace, finish what is under way."""
    house = House(under_way=3)
    assert await house.drained(drain_s) == 0
    assert house.diary == [("grace", grace_s, "draining"), *AFTER_GRACE]


async def test_what_does_not_end_in_time_is_cut_off_and_counted() -> None:
    """design section 4: finish in-flight within `drain_s`, grace included."""
    house = House(ends=False, under_way=3)
    async with asyncio.timeout(5):
        assert await house.drained(0.01) == 3
    assert house.diary == [("grace", 0.001, "draining"), *AFTER_GRACE]


async def test_an_end_that_is_called_off_goes_on() -> None:
    """Endings matrix: a second signal cancels the drain; nobody swallows it."""
    house = House(ends=False)
    task = asyncio.ensure_future(house.drained(60))
    async with asyncio.timeout(5):
        while "finished?" not in house.diary:  # noqa: ASYNC110  # the fake has no event to wait for
            await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("waits_in", ["grace", "drain"])
async def test_whoever_is_in_a_hurry_does_not_wait(waits_in: str) -> None:
    """Issue 7: a second TERM is faster, whatever is being waited for."""
    hurry, waiting = asyncio.Event(), asyncio.Event()

    class Slow(House):
        async def grace(self, seconds: float) -> None:
            await super().grace(seconds)
            if waits_in == "grace":
                waiting.set()
                await asyncio.Event().wait()

        async def finished(self) -> None:
            waiting.set()
            await super().finished()

    house = Slow(ends=False, under_way=2)
    draining = asyncio.ensure_future(house.drained(3600, hurry))
    async with asyncio.timeout(5):
        await waiting.wait()
        hurry.set()
        assert await draining == 2
    assert house.diary[1:4] == AFTER_GRACE[:3]
