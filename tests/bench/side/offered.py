"""How late are answers when so many calls a second come, whatever became of those before? An open loop.

In: peers. Out: `Late` rows. Calls come at random moments and are counted from the moment they were due, so that nobody
looks better for having held up the caller (coordinated omission). Source: `tests.bench.arrivals`, on the load's core.
"""

from __future__ import annotations

from typing import Final

from ..arrivals import Ran, calling
from .report import late
from .rounds import Bench, Up, alternated, say
from .wrk import LOAD_CORE, Peer

CONNECTIONS: Final = 32


async def offered(bench: Bench, up: Up) -> None:
    """Every rate of the plan, every peer; who cannot carry one is late, or leaves calls unanswered, and that is said.
    Raises ProcessFailed."""
    for per_s in bench.plan.offered_per_s:
        situation = f"{per_s:,} calls/s offered, 1 KB, {CONNECTIONS} connections"
        say(f"  {situation}")

        async def run(name: str, peer: Peer, per_s: int = per_s) -> Ran:
            async with calling(
                peer.port,
                per_s=per_s,
                seconds=bench.plan.offered_s,
                connections=CONNECTIONS,
                logs=bench.logs,
                token=peer.asked.token,
                core=LOAD_CORE,
                is_exact=True,
            ) as calls:
                pass
            return calls.ran()

        runs = await alternated(bench, up, situation, run)
        bench.found.late += [late(name, situation, each, bench.plan.offered_s) for name, each in runs.items()]
