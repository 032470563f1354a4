"""Calls leave one after another, and whoever would wait too long is told so. Source: issue 5, item 4."""

from __future__ import annotations

import asyncio
import math

import pytest

from proxy.capacity.building import Room
from proxy.capacity.pace import Paced
from proxy.capacity.settings import CapacitySettings, PaceSettings
from proxy.model import (
    Call,
    Deadline,
    Headers,
    Kind,
    Permit,
    Principal,
    Reason,
    Refused,
    Reply,
    Rule,
    never_ends,
)
from tests.fakes import make_batch, make_call

SECONDS = 5.0


def permit(call: Call | None = None, instead: str = "") -> Permit:
    return Permit(
        call=call or make_call(target="t"),
        principal=Principal(issuer="test", subject="ann", tenant="acme"),
        rule=Rule(id="r", instead=instead),
    )


class Scene:
    """A stage with a server that answers at once and notes who came, on a clock that the loop moves."""

    def __init__(
        self, per_s: float, burst: int = 1, *, max_wait_s: float = 5, deadline: Deadline = never_ends
    ) -> None:
        self.seen: list[object] = []
        self.at: list[float] = []
        self.now = asyncio.get_running_loop().time
        self.begin = self.now()

        self.stage = Paced(
            self.serve, rate_per_s=per_s, burst=burst, max_wait_s=max_wait_s, deadline=deadline, now=self.now
        )

    async def serve(self, permit: Permit) -> Reply:
        self.seen.append(permit.call.id)
        self.at.append(self.now() - self.begin)
        return Reply(200, Headers(), b"{}")

    async def call(self, permit: Permit) -> None:
        async with asyncio.timeout(SECONDS):
            await self.stage(permit)

    def begins(self, id: int) -> asyncio.Task[None]:
        return asyncio.ensure_future(self.call(permit(make_call(target="t", id=id))))


async def test_each_of_them_leaves_and_none_too_soon() -> None:
    """In order, but for neighbours where the loop is late for two moments at once."""
    scene = Scene(100, 2)
    await asyncio.gather(*(scene.begins(id) for id in range(8)))
    assert sorted(map(str, scene.seen)) == [str(id) for id in range(8)]
    assert scene.seen[:2] == [0, 1]
    assert all(at >= (number - 1) * 0.01 - 1e-6 for number, at in enumerate(scene.at))
    assert scene.stage.waiting == 0


async def test_what_takes_no_place_keeps_no_pace() -> None:
    """Answers and pings leave at once, and cost the others nothing."""
    scene = Scene(0.001, max_wait_s=0.01)
    for _ in range(5):
        await scene.call(permit(make_call(method="", kind=Kind.ANSWER, id=None)))
        await scene.call(permit(make_call(method="ping")))
    await scene.call(permit())
    assert len(scene.seen) == 11
    with pytest.raises(Refused):
        await scene.call(permit())


@pytest.mark.parametrize("max_wait_s", [1.5, 60.0])
async def test_whose_moment_cannot_come_in_time_is_refused_at_once(max_wait_s: float) -> None:
    """One a second: before the third stand two; and so do they with a deadline."""
    deadline = math.inf if max_wait_s < 60 else asyncio.get_running_loop().time() + 1.5
    scene = Scene(1, max_wait_s=max_wait_s, deadline=lambda _: deadline)
    tasks = [scene.begins(id) for id in range(3)]
    await asyncio.sleep(0)
    assert scene.stage.waiting == 2
    with pytest.raises(Refused) as caught:
        await scene.call(permit(instead="Use search."))
    refused = caught.value
    assert (refused.reason, refused.data) == (Reason.OVERLOADED, {"limit": "capacity.pace"})
    assert refused.retry_after_s == 3
    assert refused.why.endswith("Use search.")
    assert scene.stage.refused == 1
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert scene.stage.waiting == 0
    assert scene.seen == [0]


async def test_nobody_waits_longer_than_that() -> None:
    """Two a second, and no more than a twentieth of one to wait."""
    scene = Scene(2, max_wait_s=0.05)
    await scene.call(permit())
    with pytest.raises(Refused):
        await scene.call(permit())
    assert (scene.stage.waiting, scene.stage.refused, len(scene.seen)) == (0, 1, 1)


async def test_the_moment_of_who_leaves_is_the_next_ones() -> None:
    """Own promise: calls that were cancelled cost the others nothing."""
    scene = Scene(2)
    tasks = [scene.begins(id) for id in range(4)]
    await asyncio.sleep(0)
    for task in tasks[1:3]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert scene.seen == [0, 3]
    assert scene.at[1] < 0.95


@pytest.mark.parametrize("later_s", [-0.001, 0.001])
async def test_leaving_in_the_very_moment_gives_it_back(later_s: float) -> None:
    """The race: a busy loop finds at once that the moment has come and that its caller has left, in either order."""
    scene = Scene(2)
    first, second, third = (scene.begins(id) for id in range(3))
    await first
    asyncio.get_running_loop().call_at(scene.begin + 0.5 + later_s, second.cancel)
    while scene.now() < scene.begin + 0.51:
        pass
    with pytest.raises(asyncio.CancelledError):
        await second
    await third
    assert scene.seen == [0, 2]
    assert scene.at[1] < 0.95


async def test_ten_thousand_that_left_leave_nothing() -> None:
    scene = Scene(0.01, max_wait_s=math.inf)
    tasks = [scene.begins(id) for id in range(10_000)]
    await asyncio.sleep(0)
    assert scene.stage.waiting == 9_999
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert scene.stage.waiting == 0


@pytest.mark.parametrize("burst", [3, 2])
async def test_each_call_of_a_batch_counts(burst: int) -> None:
    """Also of one that is larger than the burst."""
    scene = Scene(0.1, burst, max_wait_s=0.05)
    ping = make_call(method="ping")
    parts = [make_call(target="t", id=number) for number in range(3)]
    await scene.call(permit(make_batch(*parts, ping)))
    with pytest.raises(Refused):
        await scene.call(permit())


async def test_without_a_pace_nothing_stands_in_the_way() -> None:
    async def serve(permit: Permit) -> Reply:
        return Reply(200, Headers())

    assert Room(CapacitySettings()).paced(serve) is serve
    room = Room(CapacitySettings(pace=PaceSettings(rate_per_s=0.001), max_wait_s=0.01))
    stage = room.paced(serve)
    await stage(permit())
    with pytest.raises(Refused):
        await stage(permit())
    assert (room.refused, room.held_back) == ({"pace": 1}, 0)
