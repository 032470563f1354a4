"""Settings become the room that the house uses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from proxy.limits.building import Limiting
from proxy.limits.demand import Demand, Granted
from proxy.limits.rules import Tally
from proxy.limits.settings import LimitSettings, LocalStateSettings
from proxy.model import Ending, Outcome, Permit, Refused, Rule
from tests.fakes import PRINCIPAL, FakeJourney, awaited, make_call

NOON = 1_770_724_800.0
QUOTA = LimitSettings(name="daily", key=("tenant",), quota=2, window="day")
RATE = LimitSettings(name="rate", key=("tenant",), rate_per_s=1.0, burst=2)


class Everything:
    """Fulfils `Store`: a store that grants everything."""

    async def take(self, demands: Sequence[Demand]) -> Granted:
        return Granted((1,) * len(demands))

    def refund(self, demands: Sequence[Demand], granted: Granted | None = None) -> None:
        """There is always more."""


def limiting(*limits: LimitSettings, **others: object) -> Limiting:
    given = {"warn": print, **others}
    return Limiting(limits, wall=lambda: NOON, now=lambda: 0.0, **given)  # type: ignore[arg-type]  # of tests


async def call(room: Limiting) -> None:
    assert room.limit is not None
    journey = FakeJourney()
    permit = Permit(call=make_call(target="t", journey=journey), principal=PRINCIPAL, rule=Rule(id="r"))
    lease = await awaited(room.limit(permit))
    journey.outcome_at_server = Outcome.ANSWERED
    if lease is not None:
        lease.release(Ending.COMPLETE)


async def test_without_limits_there_is_nothing(tmp_path: Path) -> None:
    room = limiting(local_state=LocalStateSettings(file=str(tmp_path / "state")))
    assert (room.limit, room.listen, room.jobs, room.tallies) == (None, None, (), {})
    await room.close()
    assert list(tmp_path.iterdir()) == []


def test_it_listens_only_where_something_is_free_for_continuations() -> None:
    assert limiting(RATE).listen is None
    assert limiting(QUOTA).listen is not None
    strict = LimitSettings(name="q", key=("tenant",), quota=2, window="day", continuations="counted")
    assert limiting(strict).listen is None


async def test_telemetry_sees_what_was_decided() -> None:
    room = limiting(QUOTA, RATE)
    for _ in range(2):
        await call(room)
    with pytest.raises(Refused):
        await call(room)
    assert room.tallies == {"daily": Tally(granted=2, refused=1), "rate": Tally(granted=2)}
    assert (room.keys, room.evictions, room.turned_away) == (2, 0, 0)


async def test_quotas_survive_a_restart(tmp_path: Path) -> None:
    """Issue 5: a snapshot that survives restarts where a path is given."""
    state = LocalStateSettings(file=str(tmp_path / "state"))
    first = limiting(QUOTA, local_state=state)
    assert len(first.jobs) == 1
    await call(first)
    await first.close()
    second = limiting(QUOTA, local_state=state)
    await call(second)
    with pytest.raises(Refused):
        await call(second)


async def test_a_store_keeps_its_own_quotas(tmp_path: Path) -> None:
    state = LocalStateSettings(file=str(tmp_path / "state"))
    room = limiting(QUOTA, local_state=state, shared=Everything())
    for _ in range(5):
        await call(room)
    assert (room.jobs, room.keys) == ((), 0)
    await room.close()
    assert list(tmp_path.iterdir()) == []


async def test_buckets_outlive_a_change_of_settings(tmp_path: Path) -> None:
    """The file of earlier is not read over what has been counted since."""
    state = LocalStateSettings(file=str(tmp_path / "state"))
    first = limiting(QUOTA, local_state=state)
    await call(first)
    await first.close()
    await call(first)
    wider = LimitSettings(name="daily", key=("tenant",), quota=3, window="day")
    warnings: list[str] = []
    second = limiting(wider, local_state=state, local=first.local, warn=warnings.append)
    assert warnings == []
    await call(second)
    with pytest.raises(Refused):
        await call(second)
