"""What does the deployment need? `python -m tests.bench.resources [--long]`: the sidecar with the settings of deploy/,
idle, at 100 and at 1,000 calls a second, with 100 open streams; then the requests and limits that follow.

In: nothing. Out: a table, and what belongs into deploy/; exit code 0 whatever the numbers say. Each line is a process
of its own, with a static server behind and what a cluster asks beside: probes, and a scraper. Calls come at random
moments, whether or not those before are answered; one that is not answered rightly ends the run with an error.

CPU is the time the process used, not what passed. A machine with others on it makes it more all the same: a call that
finds its code and its objects in no cache costs several times one that does. The table says how busy the machine was.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import uvloop
from msgspec import Struct, structs

from proxy.cache.settings import CacheSettings
from proxy.downstream.settings import ListenSettings
from proxy.inject import sidecar as deployed
from proxy.lifecycle.memory import DEGRADED_ABOVE
from tests.conformance.processes import ProcessFailed
from tests.integration.keys import Who, let_in

from .arrivals import PASSED, Ran, calling
from .load import quantile
from .processes import (
    Running,
    busy_s,
    cpu_s,
    holding,
    peak_bytes,
    program,
    raise_open_files,
    rss_bytes,
    sidecar,
)
from .report import Figure, table, this_machine

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
SETTINGS: Final = DEPLOY / "overlays" / "enforce" / "settings.yaml"
SHORT_S: Final = 10.0
LONG_S: Final = 60.0
WARM_UP_S: Final = 2.0
"""Of each line, not counted: imports, connections, the first calls. As long as the line where that is shorter."""
CONNECTIONS: Final = 64
STREAMS: Final = 100
PLANNED_PER_S: Final = 100
"""What the requests of deploy/ are for."""
BUSY_PER_S: Final = 1_000
ASKED: Final = (("/readyz", 5.0), ("/healthz", 10.0), ("/metrics", 15.0))
"""By the kubelet, as often as deploy/ says, and by Prometheus."""

HEADROOM_CPU: Final = 1.25
"""Of a request, for calls that come in bunches. There is no limit, so what nobody else takes is ours as well; the
request is our weight where a node is full."""
STEP_CPU: Final = 50
"""Thousandths of a core."""
HEADROOM_MEMORY: Final = 1.5
STEP_MEMORY: Final = 32
STEP_LIMIT: Final = 128
MB: Final = 1024 * 1024
BODIES: Final = 32
"""Of the longest kind that settings allow, under way at once."""

QUIET: Final = 0.5
"""Of all cores, by whomever, at PLANNED_PER_S: above, the figures are true and say more of the others than of us."""

KEY: Final = "bench.secret-of-the-resources-bench"
PEOPLE: Final[dict[str, Who]] = {KEY: ("acme", "bench", ["editor"])}
_LIMITS: Final = [
    {"name": "tenant-rate", "key": ["tenant"], "rate_per_s": 100_000, "burst": 100_000},
    {"name": "user-rate", "key": ["tenant", "subject"], "rate_per_s": 100_000, "burst": 100_000},
    {"name": "daily", "key": ["tenant"], "quota": 1_000_000_000, "window": "day", "timezone": "UTC"},
]
"""Those of overlays/shared-quota, with numbers that nobody reaches."""


class Taken(Struct, frozen=True, kw_only=True):
    """What one line cost."""

    name: str
    cores: float
    rss: int
    """Bytes resident at its end."""
    peak: int
    """The most it ever had, bytes."""
    machine: float
    """How busy all cores were, by whomever; 1 is all of them."""
    late_s: float = 0.0
    """How long after it was due the slowest call in a hundred was sent: a machine too busy to ask in time."""


class Resources(Struct, frozen=True):
    """What stands in deploy/, as Kubernetes writes quantities."""

    cpu: str
    memory: str
    memory_limit: str


def request_of(cores: float) -> str:
    """The CPU to ask for where so many cores are used. Pure."""
    thousandths = round(cores * HEADROOM_CPU * 1_000, 3)
    return f"{max(1, math.ceil(thousandths / STEP_CPU)) * STEP_CPU}m"


def resources_of(cores: float, peak: int) -> Resources:
    """What to write for a process that uses so many cores at PLANNED_PER_S and has had `peak` bytes at most. Pure."""
    room = CacheSettings().max_bytes + BODIES * ListenSettings().max_body_bytes
    return Resources(
        cpu=request_of(cores),
        memory=f"{_up(peak * HEADROOM_MEMORY, STEP_MEMORY)}Mi",
        memory_limit=f"{_up((peak + room) / DEGRADED_ABOVE, STEP_LIMIT)}Mi",
    )


def _up(count: float, step: int) -> int:
    """Bytes in MiB, up to the next whole step."""
    return math.ceil(count / MB / step) * step


async def measure(seconds: float, logs: Path) -> tuple[Taken, Taken, Taken, Taken]:
    """Idle, planned, busy, with streams. Raises ProcessFailed."""
    return (
        await _idle(seconds, logs),
        await _called(PLANNED_PER_S, seconds, logs),
        await _called(BUSY_PER_S, seconds, logs),
        await _streaming(seconds, logs),
    )


async def _idle(seconds: float, logs: Path) -> Taken:
    async with _started(logs) as proxy:
        await asyncio.sleep(min(WARM_UP_S, seconds))
        return await _watched("idle", proxy, seconds)


async def _called(per_s: int, seconds: float, logs: Path) -> Taken:
    name = f"{per_s:,} calls/s"
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(_started(logs))
        caller = calling(
            proxy.port,
            per_s=per_s,
            # Longer than they are watched: they are stopped.
            seconds=WARM_UP_S + seconds + LONG_S,
            connections=CONNECTIONS,
            key=KEY,
            logs=logs,
        )
        async with caller as calls:
            await asyncio.sleep(min(WARM_UP_S, seconds))
            taken = await _watched(name, proxy, seconds)
            calls.stop()
    ran = calls.ran()
    _all_passed(name, ran)
    late = sorted(said.sent_s - said.due_s for said in ran.said)
    return structs.replace(taken, late_s=quantile(late, 0.99))


async def _streaming(seconds: float, logs: Path) -> Taken:
    async with _started(logs) as proxy, holding(proxy.port, "streams", STREAMS, logs, KEY):
        await asyncio.sleep(min(WARM_UP_S, seconds))
        return await _watched(f"{STREAMS} open streams", proxy, seconds)


@asynccontextmanager
async def _started(logs: Path) -> AsyncIterator[Running]:
    """As it is deployed, but for addresses, and for limits that let everything pass."""
    keys = {"kind": "api_key", "keys_file": str(logs / "keys.json")}
    let_in(logs, PEOPLE)
    settings = {
        "listen.allowed_hosts": ["127.0.0.1"],
        # Calls bring the key as the overlay says, streams as a Bearer token.
        "identity.authenticators": [{**keys, "header": "X-API-Key"}, {**keys, "header": "Authorization"}],
        "limits": _LIMITS,
    }
    words = [f"{name}={json.dumps(value)}" for name, value in settings.items()]
    async with (
        program("responder", logs=logs) as upstream,
        sidecar(upstream.port, logs, *words, config=SETTINGS) as proxy,
    ):
        yield proxy


async def _watched(name: str, proxy: Running, seconds: float) -> Taken:
    """One process for so long, while a cluster asks it."""
    async with asyncio.TaskGroup() as cluster:
        asking = [cluster.create_task(_ask(proxy.operations_port, *each)) for each in ASKED]
        before, busy, began = cpu_s(proxy.pid), busy_s(), time.monotonic()
        await asyncio.sleep(seconds)
        took_s = time.monotonic() - began
        taken = Taken(
            name=name,
            cores=(cpu_s(proxy.pid) - before) / took_s,
            rss=rss_bytes(proxy.pid),
            peak=peak_bytes(proxy.pid),
            machine=(busy_s() - busy) / took_s / (os.cpu_count() or 1),
        )
        for each in asking:
            each.cancel()
    return taken


async def _ask(port: int, path: str, every_s: float) -> None:
    """Raises ProcessFailed when the answer is not a yes, OSError where there is none."""
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            said = await reader.read()
        finally:
            writer.close()
        if not said.startswith(b"HTTP/1.1 200 "):
            raise ProcessFailed(f"{path} was answered with {said[:60]!r}")
        await asyncio.sleep(every_s)


def _all_passed(name: str, ran: Ran) -> None:
    """Raises ProcessFailed: a no costs less than a call."""
    strange = Counter(said.what for said in ran.said if said.what != PASSED)
    if strange or not ran.said:
        raise ProcessFailed(f"{name}: not every call was answered: {dict(strange)} of {len(ran.said)}")


def figures(lines: Sequence[Taken]) -> list[Figure]:
    """The table."""
    found = []
    for each in lines:
        found += [
            Figure(name=f"{each.name}, CPU", value=each.cores * 1_000, unit="m"),
            Figure(name=f"{each.name}, resident", value=each.rss / MB, unit="MiB"),
            Figure(name=f"{each.name}, resident at most", value=each.peak / MB, unit="MiB"),
        ]
        found.append(Figure(name=f"{each.name}, all cores, by whomever", value=each.machine * 100, unit="%"))
        if each.late_s:
            found.append(Figure(name=f"{each.name}, sent late, p99", value=each.late_s * 1e3, unit="ms"))
    return found


def advice(idle: Taken, planned: Taken, busy: Taken, streams: Taken) -> str:
    """What belongs into deploy/, and whether it stands there."""
    found = resources_of(planned.cores, max(each.peak for each in (idle, planned, busy, streams)))
    stands = Resources(deployed.CPU, deployed.MEMORY, deployed.MEMORY_LIMIT)
    lines = [
        f"CPU of a call: {(busy.cores - idle.cores) / BUSY_PER_S * 1e6:.0f} us",
        f"for {PLANNED_PER_S} calls/s, as in deploy/:",
        "          resources:",
        f"            requests: {{cpu: {found.cpu}, memory: {found.memory}}}",
        f"            limits: {{memory: {found.memory_limit}}}",
        f"for {BUSY_PER_S:,} calls/s ask for cpu: {request_of(busy.cores)}",
        "deploy/ says the same."
        if found == stands
        else f"deploy/ says {stands.cpu}, {stands.memory}, {stands.memory_limit}: change proxy/inject/sidecar.py, "
        "deploy/base, deploy/classic, deploy/pod.yaml and deploy/README.md.",
    ]
    if planned.machine > QUIET:
        lines.append(
            f"The machine was {planned.machine:.0%} busy: measure again on a quiet one before you change it."
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.resources")
    parser.add_argument(
        "--long", action="store_true", help=f"{LONG_S:g} s a line and not {SHORT_S:g}: what deploy/ quotes"
    )
    seconds = LONG_S if parser.parse_args().long else SHORT_S
    machine = this_machine()
    raise_open_files()
    with tempfile.TemporaryDirectory(prefix="mcp-sidecar-bench-") as folder:
        try:
            taken = uvloop.run(measure(seconds, Path(folder)))
        except (ProcessFailed, OSError) as failed:
            print(failed, file=sys.stderr)
            return 1
    print(table(machine, figures(taken)))
    print()
    print(advice(*taken))
    return 0


if __name__ == "__main__":
    sys.exit(main())
