"""How one situation is measured. Rounds alternate between the peers, so that whatever else the machine does falls on
all of them; each number is the median of its rounds.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from msgspec import Struct, field
from msgspec.structs import replace

from proxy.demo.environment import SetUpFailed
from tests.conformance.processes import ProcessFailed

from ..processes import cpu_s
from ..scenarios import FULL as FULL_SIZE
from ..scenarios import QUICK as QUICK_SIZE
from ..scenarios import Size
from .peers import Starts
from .proving import must_forward
from .report import DIRECT, Late, Row, row
from .wrk import Outcome, Peer, load

OURS: Final = "mcp-sidecar"
"""Begins the names of what must be measured; others are left out where they fail."""
REST_S: Final = 0.2
RESTS_AT: Final = 0.2
"""Of a core: probes and timers go on."""
REST_LOOKS: Final = 50

Up: TypeAlias = dict[str, Peer]
Run = TypeVar("Run")


class Plan(Struct, frozen=True, kw_only=True):
    """How much is measured."""

    is_quick: bool
    rounds: int
    seconds: int
    """Of one run; wrk takes whole ones."""
    slow_seconds: int
    """Of one run where a call takes tens of milliseconds, by its size or its proxy."""
    offered_per_s: tuple[int, ...]
    offered_s: float
    """Of one run at an offered load."""
    tenants: int
    rules: int
    house: Size


FULL: Final = Plan(
    is_quick=False,
    rounds=3,
    seconds=3,
    slow_seconds=4,
    offered_per_s=(500, 2_000),
    offered_s=4,
    tenants=100_000,
    rules=1_000,
    house=FULL_SIZE,
)
QUICK: Final = Plan(
    is_quick=True,
    rounds=1,
    seconds=1,
    slow_seconds=2,
    offered_per_s=(500,),
    offered_s=3,
    tenants=5_000,
    rules=1_000,
    house=replace(QUICK_SIZE, starts=1),
)


class Measured(Struct, kw_only=True):
    rows: list[Row] = field(default_factory=list)
    late: list[Late] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)
    bounds: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def row(self, peer: str, situation: str) -> Row | None:
        return next((each for each in self.rows if (each.peer, each.situation) == (peer, situation)), None)

    def over(self, ours: str, theirs: str, situation: str) -> float | None:
        """How many times the rate of the one is that of the other."""
        a, b = self.row(ours, situation), self.row(theirs, situation)
        return a.rate / b.rate if a is not None and b is not None and b.rate else None

    def bound(self, ours: str, theirs: str, situation: str) -> str:
        """What `over` is where a rate is only a lower bound, because that proxy's core had more to give."""
        a, b = self.row(ours, situation), self.row(theirs, situation)
        if a is None or b is None or (a.is_saturated and b.is_saturated):
            return ""
        return "at least" if b.is_saturated else "at most" if a.is_saturated else "about"


class Bench(Struct, frozen=True, kw_only=True):
    """One run of everything: how much, where files go, and what was found so far."""

    plan: Plan
    logs: Path
    found: Measured = field(default_factory=Measured)

    def leave_out(self, name: str, failed: Exception) -> None:
        """Say so and go on. Raises `failed` where it is one of ours, or the server itself."""
        if name == DIRECT or name.startswith(OURS):
            raise failed
        self.found.left_out.append(f"{name}: {failed}")


@asynccontextmanager
async def started(
    bench: Bench, behind: AbstractAsyncContextManager[Peer], ways: Mapping[str, Starts]
) -> AsyncIterator[Up]:
    """The server behind, named DIRECT, and every peer that can be had before it. Raises ProcessFailed."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(behind)
        up = {DIRECT: server}
        for name, start in ways.items():
            try:
                up[name] = await stack.enter_async_context(start(server.port, bench.logs))
            except (SetUpFailed, ProcessFailed, OSError) as failed:
                bench.leave_out(name, failed)
        yield {name: replace(peer, idle_mb=peer.resident_mb) for name, peer in up.items()}


async def rounds(
    bench: Bench,
    up: Up,
    situation: str,
    connections: int,
    *,
    seconds: int | None = None,
    events: int = 0,
    **changes: object,
) -> None:
    """Calls as fast as they are answered. `changes` are those of a call in this situation (`Asked`); `events` is how
    many there are in each answer, which then are what is counted. Raises ProcessFailed."""
    say(f"  {situation}")
    able: Up = {}
    for name, peer in up.items():
        changed = replace(peer, asked=replace(peer.asked, **changes))
        try:
            await must_forward(changed.port, changed.asked, events)
            able[name] = changed
        except ProcessFailed as failed:
            bench.leave_out(f"{name}, {situation}", failed)

    async def run(name: str, peer: Peer) -> Outcome:
        long = seconds or bench.plan.seconds
        outcome = await load(peer, peer.asked, connections=connections, seconds=long, logs=bench.logs)
        if name.startswith(OURS) and outcome.failed:
            raise ProcessFailed(f"{name}: {outcome.failed} calls were not answered rightly")
        return outcome.of_events(events) if events else outcome

    runs = await alternated(bench, able, situation, run)
    unit = "events" if events else "calls"
    bench.found.rows += [
        row(name, situation, each, idle_mb=up[name].idle_mb, unit=unit) for name, each in runs.items()
    ]


async def alternated(
    bench: Bench, up: Up, situation: str, run: Callable[[str, Peer], Awaitable[Run]]
) -> dict[str, list[Run]]:
    """Several runs with each peer, one peer after the other; who fails once is out. Raises ProcessFailed."""
    runs: dict[str, list[Run]] = {name: [] for name in up}
    for _ in range(bench.plan.rounds):
        for name in tuple(runs):
            await _at_rest(up.values())
            try:
                runs[name].append(await run(name, up[name]))
            except ProcessFailed as failed:
                bench.leave_out(f"{name}, {situation}", failed)
                del runs[name]
    return runs


async def _at_rest(up: Iterable[Peer]) -> None:
    """Wait until nobody works off what the last run left behind, for a while."""
    pids = [pid for peer in up for pid in peer.pids]
    for _ in range(REST_LOOKS):
        before = sum(map(cpu_s, pids))
        await asyncio.sleep(REST_S)
        if sum(map(cpu_s, pids)) - before <= RESTS_AT * REST_S:
            break


def only(up: Up, *names: str) -> Up:
    """Those of these that are up."""
    return {name: peer for name, peer in up.items() if name in names}


def say(what: str) -> None:
    print(f"measuring {what} ...", file=sys.stderr, flush=True)
