"""Calls leave one after another: arithmetic of the machine, and who waits for a moment in the stage."""

from __future__ import annotations

import asyncio
import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.capacity.building import Room
from proxy.capacity.pace import Pace, Paced
from proxy.capacity.settings import CapacitySettings, PaceSettings
from proxy.capacity.stage import Deadline, never_ends
from proxy.model import Call, Headers, Kind, Permit, Principal, Reason, Refused, Reply, Rule
from tests.fakes import make_batch, make_call
from tests.fuzz.bounded import FUZZ

SECONDS = 5.0


def permit(call: Call | None = None, instead: str = "") -> Permit:
    return Permit(
        call=call or make_call(target="t"),
        principal=Principal(issuer="test", subject="ann", tenant="acme"),
        rule=Rule(id="r", instead=instead),
    )


def leaving(pace: Pace, moments: list[float]) -> list[bool]:
    """Which of the calls at these moments leave; the others are gone."""
    left = []
    for now in moments:
        left.append(pace.wait_s(now) == 0)
        if left[-1]:
            pace.leave(now, 1)
    return left


@pytest.mark.parametrize(
    ("per_s", "burst", "moments", "left"),
    [
        (2, 1, [0, 0, 0.25, 0.5, 0.5, 1], [1, 0, 0, 1, 0, 1]),
        (2, 3, [0, 0, 0, 0, 0.5, 0.5, 1], [1, 1, 1, 0, 1, 0, 1]),
        (2, 3, [0, 0, 0, 100, 100, 100, 100], [1, 1, 1, 1, 1, 1, 0]),
        (0.5, 1, [10, 11, 12], [1, 0, 1]),
    ],
)
def test_so_many_a_second_and_a_burst_after_a_rest(
    per_s: float, burst: int, moments: list[float], left: list[int]
) -> None:
    assert leaving(Pace(per_s, burst), moments) == [bool(each) for each in left]


@given(
    per_s=st.sampled_from([0.5, 1.0, 8.0]),
    burst=st.integers(1, 5),
    gaps=st.lists(st.sampled_from([0.0, 0.125, 0.5, 4.0]), max_size=60),
)
@FUZZ
def test_no_stretch_of_time_sees_more(per_s: float, burst: int, gaps: list[float]) -> None:
    """Between any two moments at most burst + rate x time leave."""
    moments = list(itertools.accumulate(gaps, initial=0.0))
    left = leaving(Pace(per_s, burst), moments)
    times = [now for now, has_left in zip(moments, left, strict=True) if has_left]
    for first, last in itertools.combinations_with_replacement(range(len(times)), 2):
        assert last - first + 1 <= burst + per_s * (times[last] - times[first]) + 1e-9


def test_several_at_once_are_several() -> None:
    pace = Pace(10, 1)
    pace.leave(0, 5)
    assert pace.wait_s(0) == pytest.approx(0.5)


def test_who_has_not_left_after_all_cost_nothing() -> None:
    pace = Pace(10, 1)
    pace.leave(0, 1)
    pace.leave(0.1, 3)
    pace.stay(3)
    assert pace.wait_s(0.1) == pytest.approx(0.0)


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
            self.serve, Pace(per_s, burst), max_wait_s=max_wait_s, deadline=deadline, now=self.now
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


async def test_they_leave_in_order_and_not_too_soon() -> None:
    scene = Scene(100, 2)
    await asyncio.gather(*(scene.begins(id) for id in range(8)))
    assert scene.seen == list(range(8))
    assert all(at >= (number - 1) * 0.01 - 1e-6 for number, at in enumerate(scene.at))
    assert scene.stage.waiting == 0


async def test_what_takes_no_place_keeps_no_pace() -> None:
    """Answers and pings leave at once, and cost the others nothing."""
    scene = Scene(0.001)
    for _ in range(5):
        await scene.call(permit(make_call(method="", kind=Kind.ANSWER, id=None)))
        await scene.call(permit(make_call(method="ping")))
    await scene.call(permit())
    assert len(scene.seen) == 11
    with pytest.raises(Refused):
        await scene.call(permit())


@pytest.mark.parametrize("max_wait_s", [2.5, 60.0])
async def test_whose_moment_comes_too_late_is_refused_at_once(max_wait_s: float) -> None:
    """One a second: the third would wait for three; and so would it with a deadline."""
    deadline = math.inf if max_wait_s < 60 else asyncio.get_running_loop().time() + 2.5
    scene = Scene(1, max_wait_s=max_wait_s, deadline=lambda _: deadline)
    tasks = [scene.begins(id) for id in range(3)]
    await asyncio.sleep(0)
    assert scene.stage.waiting == 2
    with pytest.raises(Refused) as caught:
        await scene.call(permit(instead="Use search."))
    refused = caught.value
    assert (refused.reason, refused.data) == (Reason.OVERLOADED, {"limit": "capacity.pace"})
    assert refused.retry_after_s == pytest.approx(3, abs=0.5)
    assert refused.why.endswith("Use search.")
    assert scene.stage.refused == 1
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert scene.stage.waiting == 0
    assert scene.seen == [0]


async def test_the_moment_of_who_leaves_is_the_next_ones() -> None:
    """Own promise: calls that were cancelled cost the others nothing."""
    scene = Scene(5)
    tasks = [scene.begins(id) for id in range(4)]
    await asyncio.sleep(0)
    for task in tasks[1:3]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert scene.seen == [0, 3]
    assert scene.at[1] < 0.38


@pytest.mark.parametrize("later_s", [-0.001, 0.001])
async def test_leaving_in_the_very_moment_gives_it_back(later_s: float) -> None:
    """The race: a busy loop finds at once that the moment has come and that its caller has left, in either order."""
    scene = Scene(5)
    first, second, third = (scene.begins(id) for id in range(3))
    await first
    asyncio.get_running_loop().call_at(scene.begin + 0.2 + later_s, second.cancel)
    while scene.now() < scene.begin + 0.21:
        pass
    with pytest.raises(asyncio.CancelledError):
        await second
    await third
    assert scene.seen == [0, 2]
    assert scene.at[1] < 0.38


async def test_ten_thousand_that_left_leave_nothing() -> None:
    scene = Scene(0.01, max_wait_s=math.inf)
    tasks = [scene.begins(id) for id in range(10_000)]
    await asyncio.sleep(0)
    assert scene.stage.waiting == 9_999
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert scene.stage.waiting == 0
    assert scene.stage._timer is None


async def test_each_call_of_a_batch_counts() -> None:
    scene = Scene(1, max_wait_s=2.5)
    ping = make_call(method="ping")
    parts = [make_call(target="t", id=number) for number in range(3)]
    await scene.call(permit(make_batch(*parts, ping)))
    with pytest.raises(Refused) as caught:
        await scene.call(permit())
    assert caught.value.retry_after_s == pytest.approx(3, abs=0.5)


async def test_without_a_pace_nothing_stands_in_the_way() -> None:
    async def serve(permit: Permit) -> Reply:
        return Reply(200, Headers())

    assert Room(CapacitySettings()).paced(serve) is serve
    room = Room(CapacitySettings(pace=PaceSettings(rate_per_s=0.001)))
    stage = room.paced(serve)
    await stage(permit())
    with pytest.raises(Refused):
        await stage(permit())
    assert (room.refused, room.held_back) == ({"pace": 1}, 0)
