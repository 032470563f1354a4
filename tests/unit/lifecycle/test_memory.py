"""Above 0.80 of its memory the sidecar is degraded, above 0.95 it refuses. Source: issue 7, point 7."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from proxy.lifecycle.cgroup import Usage
from proxy.lifecycle.memory import FREE_EVERY_S, LOOK_EVERY_S, Level, Memory, next_level

WELL, DEGRADED, SHORT = Level.WELL, Level.DEGRADED, Level.SHORT


@pytest.mark.parametrize(
    ("before", "ratio", "after"),
    [
        (WELL, 0.80, WELL),
        (WELL, 0.81, DEGRADED),
        (WELL, 0.95, DEGRADED),
        (WELL, 0.96, SHORT),
        (WELL, 1.5, SHORT),
        (DEGRADED, 0.76, DEGRADED),
        (DEGRADED, 0.74, WELL),
        (DEGRADED, 0.95, DEGRADED),
        (DEGRADED, 0.96, SHORT),
        (SHORT, 0.91, SHORT),
        (SHORT, 0.89, DEGRADED),
        (SHORT, 0.76, DEGRADED),
        (SHORT, 0.74, WELL),
    ],
)
def test_levels_rise_at_once_and_fall_well_below(before: Level, ratio: float, after: Level) -> None:
    """Decision table: without the distance every second call would be refused."""
    assert next_level(before, ratio) is after


class Scene:
    """A guard whose looks see the given ratios, one after another; ends with them."""

    def __init__(self, ratios: Iterable[float | None]) -> None:
        self._ratios = iter(ratios)
        self.told: list[Level] = []
        self.freed: list[Level] = []
        self.reasons: list[tuple[str, ...]] = []
        self.guard = Memory(self._usage, lambda level, usage: self.told.append(level), sleep=self._sleep)
        self.guard.frees(self._free)

    def _usage(self) -> Usage | None:
        try:
            ratio = next(self._ratios)
        except StopIteration:
            raise asyncio.CancelledError from None
        return None if ratio is None else Usage(round(ratio * 1000), 1000)

    async def _free(self, level: Level) -> None:
        self.freed.append(level)

    async def _sleep(self, seconds: float) -> None:
        self.reasons.append(tuple(self.guard.why_degraded()))

    async def run(self) -> Scene:
        with pytest.raises(asyncio.CancelledError):
            await self.guard.run()
        return self


async def test_each_new_level_is_told_once() -> None:
    """And what it means stands in /readyz, in words that stay the same while it lasts."""
    scene = await Scene([0.5, 0.82, 0.84, 0.97, 0.99, 0.85, 0.5]).run()
    assert scene.told == [DEGRADED, SHORT, DEGRADED, WELL]
    above_80 = ("memory is above 80% of its limit",)
    above_95 = ("memory is above 95% of its limit, and new calls are refused",)
    assert scene.reasons == [(), above_80, above_80, above_95, above_95, above_80, ()]


async def test_memory_is_given_back_when_it_gets_worse_and_not_when_it_gets_better() -> None:
    """What is kept is dear to fill again."""
    assert (await Scene([0.82, 0.97, 0.85, 0.5]).run()).freed == [DEGRADED, SHORT]


async def test_while_it_stays_short_more_is_given_back_now_and_then() -> None:
    """Else a sidecar whose memory was freed but not given back would refuse for ever."""
    looks = round(FREE_EVERY_S / LOOK_EVERY_S)
    assert (await Scene([0.97] * (looks + 1)).run()).freed == [SHORT, SHORT]
    assert (await Scene([0.97] * looks).run()).freed == [SHORT]
    assert (await Scene([0.85] * 3 * looks).run()).freed == [DEGRADED]


async def test_without_a_limit_nobody_is_refused() -> None:
    """Also where it is taken away meanwhile."""
    scene = Scene([None, 0.99, None])
    assert not scene.guard.is_short()
    scene.guard.look()
    scene.guard.look()
    assert scene.guard.is_short()
    scene.guard.look()
    assert not scene.guard.is_short()
    assert scene.told == [SHORT, WELL]
