"""What do limits cost? `python -m tests.bench.limits_cost` prints it: processor time of this process, and memory.

In: nothing. Out: figures; those in time are the median of several rounds. Keeps nothing.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from proxy.limits.building import Limiting
from proxy.limits.demand import Demand, Granted, Quota, Rate, Window
from proxy.limits.local import MOST_PLACES, Local
from proxy.limits.settings import LimitSettings, LocalStateSettings
from proxy.limits.state_file import StateFile
from proxy.model import Ending, Outcome, Permit, Principal, Refused, Rule
from tests.fakes import FakeJourney, awaited, make_call

from .report import Figure, table, this_machine

ROUNDS: Final = 9
CALLS: Final = 20_000
"""In a round."""
NOON: Final = 1_770_724_800.0
WORDS: Final = (
    LimitSettings(name="tenant-rate", key=("tenant",), rate_per_s=1e6, burst=1_000_000_000),
    LimitSettings(
        name="user-tool",
        key=("tenant", "subject", "tool"),
        tools=("export_*",),
        rate_per_s=1e6,
        burst=1_000_000_000,
    ),
    LimitSettings(name="daily", key=("tenant",), quota=1_000_000_000_000, window="day"),
)
SLIDING: Final = LimitSettings(name="hour", key=("tenant",), quota=1_000_000_000_000, sliding_s=3600.0)
SPENT: Final = LimitSettings(name="spent", key=("tenant",), rate_per_s=1e-6, burst=1)


def main() -> int:
    print(table(this_machine(), figures()))
    return 0


def figures() -> list[Figure]:
    """Every figure of this file. Takes about half a minute."""
    return [*_decisions(), *_tables(), *_files()]


def _decisions() -> list[Figure]:
    one, three, sliding = _room(WORDS[0]), _room(*WORDS), _room(SLIDING)
    ann = [_permit("ann")]
    many = [_permit(f"user-{number}") for number in range(10_000)]
    return [
        _per_call("one limit, the lease released", one, ann),
        _per_call("three limits, the lease released", three, ann, at_most=3),
        _per_call("three limits, refunded", three, [_permit("ann", Outcome.NOT_REACHED)]),
        _per_call("three limits, 10,000 callers in turn", three, many),
        _per_call("a sliding quota", sliding, ann),
        _per_call("refused in words", _room(*WORDS, SPENT), ann),
    ]


def _tables() -> list[Figure]:
    rate, day = Rate(0.001, 20), Quota(10_000, Window("day"))
    hour = Quota(10_000, Window("sliding", sliding_s=3600.0))
    return [
        _memory("memory: 100,000 keys of rates", lambda each: rate),
        _memory("memory: 100,000 keys of days", lambda each: day),
        _memory("memory: a table full of sliding quotas, every step used", lambda each: hour, 20_000, 60),
        _flood(rate),
    ]


def _files() -> list[Figure]:
    local = _filled(lambda each: Quota(10_000, Window("day")))
    with tempfile.TemporaryDirectory() as folder:
        settings = LocalStateSettings(file=str(Path(folder) / "limits.json"))

        def kept(local: Local) -> StateFile:
            return StateFile(settings, local, wall=lambda: NOON, warn=print)

        began = time.process_time()
        asyncio.run(kept(local).save())
        written = time.process_time() - began
        again = Local()
        began = time.process_time()
        found = kept(again).load()
        read = time.process_time() - began
        assert found == len(local)
        size = Path(settings.file).stat().st_size
    return [
        Figure(name=f"local_state: {found:,} quotas written", value=written * 1e3, unit="ms"),
        Figure(name=f"local_state: {found:,} quotas read", value=read * 1e3, unit="ms"),
        Figure(name="local_state: the file", value=size / 1e6, unit="MB"),
    ]


def _room(*limits: LimitSettings) -> Limiting:
    return Limiting(limits, wall=time.time, warn=print)


def _permit(subject: str, outcome: Outcome = Outcome.ANSWERED) -> Permit:
    journey = FakeJourney()
    journey.outcome_at_server = outcome
    principal = Principal(issuer="https://idp.test/", subject=subject, tenant="acme", client="agent-1")
    call = make_call(target="export_report", params={"arguments": {"n": 1}}, journey=journey)
    return Permit(call=call, principal=principal, rule=Rule(id="r-1", tool_class="read"))


def _per_call(name: str, room: Limiting, permits: list[Permit], at_most: float | None = None) -> Figure:
    async def calls() -> None:
        assert room.limit is not None
        limit = room.limit
        for permit in permits * (CALLS // len(permits)):
            try:
                lease = await awaited(limit(permit))
            except Refused:
                continue
            if lease is not None:
                lease.release(Ending.COMPLETE)

    runs = []
    for _ in range(ROUNDS + 1):
        began = time.process_time()
        # Nothing in it waits: no loop is needed, and none is measured.
        for _ in calls().__await__():
            raise AssertionError("it waits for something")
        runs.append((time.process_time() - began) / CALLS * 1e6)
    # In the first round caches fill.
    return Figure(
        name=name, value=statistics.median(runs[1:]), unit="us", at_most=at_most, runs=tuple(runs[1:])
    )


def _demands(measure: Callable[[int], Rate | Quota], keys: int) -> Iterator[Demand]:
    """Keys as users of many tenants have them; strings are made anew, as they are for a new caller."""
    for number in range(keys):
        tenant = f"tenant-{number // 100}"
        key = f"user-tool/{tenant}/user-{number}@example.com/export_report"
        yield Demand("user-tool", key, measure(number), 1, holder=tenant)


def _filled(measure: Callable[[int], Rate | Quota], keys: int = MOST_PLACES, takes: int = 1) -> Local:
    local = Local()
    for at in range(takes):
        for demand in _demands(measure, keys):
            answer = local.take((demand,), now=1.0, wall=NOON + 60 * at)
            assert isinstance(answer, Granted) or local.turned_away
    return local


def _memory(
    name: str, measure: Callable[[int], Rate | Quota], keys: int = MOST_PLACES, takes: int = 1
) -> Figure:
    gc.collect()
    tracemalloc.start()
    local = _filled(measure, keys, takes)
    gc.collect()
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return Figure(name=f"{name} ({len(local):,} held)", value=held / 1e6, unit="MB", at_most=40)


def _flood(measure: Rate) -> Figure:
    """New keys of one tenant where its share of the table is full and nothing can be forgotten."""
    local = Local()
    flood = [
        Demand("l", f"l/flood/{number}", measure, 1, holder="flood") for number in range(2 * MOST_PLACES)
    ]
    local.take((flood[-1],), now=0.0, wall=NOON)
    for demand in flood[:MOST_PLACES]:
        local.take((demand,), now=1.0, wall=NOON)
    began = time.process_time()
    for demand in flood[MOST_PLACES:]:
        local.take((demand,), now=1.0, wall=NOON)
    spent = time.process_time() - began
    return Figure(name="a new key where there is no room", value=spent / MOST_PLACES * 1e6, unit="us")


if __name__ == "__main__":
    sys.exit(main())
