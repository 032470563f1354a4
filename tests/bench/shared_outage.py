"""What does an outage of the shared store cost a call? `python -m tests.bench.shared_outage` prints it.

In: nothing. Out: figures. Keeps nothing. Sidecar processes share limits over a real Valkey, with the default
`timeout_s`: one decides alone in an outage, one is closed. Calls arrive at both all the time, over 32 connections each,
while one fault after the other happens to the store. What a fault adds is the p99 of the calls that were due during it,
less the p99 of a third sidecar in the same seconds, which has the same settings and callers and a store of its own
that is always well: whatever else the machine does falls on all of them.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import uvloop
from msgspec import Struct

from tests.conformance.processes import ProcessFailed, child, tail
from tests.integration.keys import Who, let_in
from tests.valkey import Valkey

from .arrivals import PASSED, Said, calling
from .load import quantile
from .processes import POLL_S, READY_TIMEOUT_S, program, raise_open_files
from .report import Figure, table, this_machine

CONNECTIONS: Final = 32
PER_S: Final = 150.0
"""Calls at each of the two: far from busy, so that what is seen is waiting and not a queue for the processor."""
HEALTHY_S: Final = 1.0
"""Between two faults."""
FAULT_S: Final = 4.5
BACK_S: Final = 8.0
"""The longest that both may take to share again, once the store is well."""
AT_REST_S: Final = 8.0
"""The longest until everything is given back, when nobody calls any more."""

KEY: Final = "bench.secret-of-the-bench"
PEOPLE: Final[dict[str, Who]] = {KEY: ("acme", "somebody", ["user"])}
LIMITS: Final = (
    {"name": "tenant-rate", "key": ["tenant"], "rate_per_s": 100_000, "burst": 100_000},
    {"name": "user-tool", "key": ["tenant", "subject", "tool"], "rate_per_s": 100_000, "burst": 100_000},
    {"name": "daily", "key": ["tenant"], "quota": 1_000_000_000, "window": "day"},
)
"""Three, none of which refuses: a refusal would be an answer of its own."""


# What happens to the store.


@contextmanager
def killed(store: Valkey) -> Iterator[None]:
    store.kill()
    yield
    store.start()


@contextmanager
def stopped(store: Valkey) -> Iterator[None]:
    """SIGSTOP: the system still accepts connections for it."""
    store.hang()
    yield
    store.go_on()


@contextmanager
def flapping(store: Valkey) -> Iterator[None]:
    """Gone for a third of a second, there for a third, again and again."""

    def flap(ended: threading.Event) -> None:
        while not ended.wait(0.3):
            store.kill()
            ended.wait(0.3)
            store.start()

    with _meanwhile(flap):
        yield


@contextmanager
def full(store: Valkey) -> Iterator[None]:
    store.say("CONFIG", "SET", "maxmemory", "1")
    yield
    store.say("CONFIG", "SET", "maxmemory", "0")


@contextmanager
def read_only(store: Valkey) -> Iterator[None]:
    """A replica of nobody."""
    store.say("REPLICAOF", "127.0.0.1", "1")
    yield
    store.say("REPLICAOF", "NO", "ONE")


@contextmanager
def slow(store: Valkey) -> Iterator[None]:
    """Most replies take up to 40 ms, and are in time."""
    with _meanwhile(_stuttering(store, 0.04)):
        yield


@contextmanager
def too_slow(store: Valkey) -> Iterator[None]:
    """Most replies take up to 120 ms; some are in time."""
    with _meanwhile(_stuttering(store, 0.12)):
        yield


def _stuttering(store: Valkey, stopped_s: float) -> Callable[[threading.Event], None]:
    def stutter(ended: threading.Event) -> None:
        while not ended.wait(0.01):
            store.hang()
            ended.wait(stopped_s)
            store.go_on()

    return stutter


@contextmanager
def _meanwhile(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Let it work until the block ends: in a thread, for starting and stopping a process blocks."""
    ended = threading.Event()
    thread = threading.Thread(target=work, args=(ended,))
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


WELL: Final = "well"
"""The sidecar whose store has no faults."""
FAULTS: Final = (killed, stopped, flapping, full, read_only, slow, too_slow)


# Who is there.


class Gauges(Struct, frozen=True, kw_only=True):
    """What a sidecar keeps, as `tests.faults.watched` tells it."""

    tasks: int
    fds: int


class Side:
    """A sidecar with a window on what it keeps."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid = pid
        self._log = log

    async def opened(self) -> None:
        """Wait until it listens. Raises ProcessFailed."""
        listening = (await self._line("started"))["listen"]
        self.port = int(listening.rpartition("/")[0].rpartition(":")[2])
        self._window = int((await self._line("gauges"))["port"])

    def is_sharing(self) -> bool:
        """Whether the store decides, as far as its operator was told."""
        told = [line["msg"] for line in self._lines(b'"limits are ')]
        return not told or told[-1] == "limits are shared"

    def outages(self) -> list[str]:
        """Why it did not share, each time."""
        return [line["why"] for line in self._lines(b'"limits are not shared"')]

    async def gauges(self) -> Gauges:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._window)
        try:
            said = json.loads(await reader.readline())
        finally:
            writer.close()
        return Gauges(tasks=said["tasks"], fds=said["fds"])

    def _lines(self, holding: bytes) -> list[dict[str, Any]]:
        lines = self._log.read_bytes().splitlines(keepends=True)
        return [json.loads(line) for line in lines if holding in line and line.endswith(b"\n")]

    async def _line(self, msg: str) -> dict[str, Any]:
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                while True:
                    if found := self._lines(json.dumps(msg).encode()):
                        return found[0]
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise ProcessFailed(f"the sidecar did not say {msg!r}:\n{tail(self._log)}") from None


@asynccontextmanager
async def side(upstream: int, store: Valkey, name: str, logs: Path) -> AsyncIterator[Side]:
    """Run one."""
    shared = {"url": store.url, "on_outage": "closed" if name == "closed" else "local"}
    settings = (
        let_in(logs, PEOPLE),
        f"limits={json.dumps(LIMITS)}",
        f"shared_state={json.dumps(shared)}",
        "operations.address=127.0.0.1:0",
        "drain_s=1",
    )
    command = [
        *(sys.executable, "-m", "tests.faults.watched", "run"),
        *("--upstream", f"http://127.0.0.1:{upstream}/mcp", "--listen", "127.0.0.1:0"),
        *(word for each in settings for word in ("--set", each)),
    ]
    env = {name: value for name, value in os.environ.items() if not name.startswith("MCP_SIDECAR_")}
    log = logs / f"sidecar-{name}.log"
    async with child(command, log=log, env=env) as process:
        one = Side(process.pid, log)
        await one.opened()
        yield one


# What is measured.


class Spell(Struct, frozen=True, kw_only=True):
    """One fault, from its first moment to the one in which all shared again."""

    name: str
    since_s: float
    over_s: float
    shared_s: float


async def figures(logs: Path) -> list[Figure]:
    """Every figure of this file. Takes less than a minute."""
    with Valkey() as store, Valkey() as well:
        async with AsyncExitStack() as stack:
            port = (await stack.enter_async_context(program("responder", logs=logs))).port
            sides = {
                name: await stack.enter_async_context(side(port, at, name, logs))
                for name, at in (("local", store), ("closed", store), (WELL, well))
            }
            at_rest = {name: await one.gauges() for name, one in sides.items()}
            seen = _connected(store)
            healthy, spells, heard = await _faults(store, sides, logs)
            left = {name: await _left(one, at_rest[name]) for name, one in sides.items()}
            remained = _connected(store) - seen
            whys = {name: Counter(one.outages()) for name, one in sides.items()}
    for name, counted in whys.items():
        print(f"{name}: not shared, times: {dict(counted)}", file=sys.stderr)
    return [
        *(figure for name in ("local", "closed") for figure in _costs(name, heard, healthy, spells)),
        *_callers(heard),
        *(
            Figure(name=f"{each.name}, shared again after", value=each.shared_s - each.over_s, unit="s")
            for each in spells
        ),
        *(
            Figure(name=f"{name}, {what} more than before", value=more, unit="", at_most=0)
            for name, gauges in left.items()
            for what, more in gauges.items()
        ),
        Figure(name="connections at the store, more than before", value=remained, unit="", at_most=0),
    ]


async def _faults(
    store: Valkey, sides: dict[str, Side], logs: Path
) -> tuple[list[tuple[float, float]], list[Spell], dict[str, list[Said]]]:
    """When all was well, what happened, and what the callers of each heard."""
    healthy: list[tuple[float, float]] = []
    spells: list[Spell] = []
    longest_s = (HEALTHY_S + FAULT_S + BACK_S) * (len(FAULTS) + 1)
    async with AsyncExitStack() as stack:
        callers = {
            name: await stack.enter_async_context(
                calling(one.port, per_s=PER_S, seconds=longest_s, connections=CONNECTIONS, key=KEY, logs=logs)
            )
            for name, one in sides.items()
        }
        await asyncio.sleep(HEALTHY_S / 4)
        for fault in FAULTS:
            since_s = time.monotonic()
            await asyncio.sleep(HEALTHY_S)
            healthy.append((since_s, time.monotonic()))
            spells.append(await _spell(fault, store, sides))
        for caller in callers.values():
            caller.stop()
    return healthy, spells, {name: caller.ran().said for name, caller in callers.items()}


async def _spell(fault: Callable[[Valkey], Any], store: Valkey, sides: dict[str, Side]) -> Spell:
    since_s = time.monotonic()
    happening = fault(store)
    await asyncio.to_thread(happening.__enter__)
    try:
        await asyncio.sleep(FAULT_S)
    finally:
        over_s = time.monotonic()
        await asyncio.to_thread(happening.__exit__, None, None, None)
    try:
        async with asyncio.timeout(BACK_S):
            while True:
                if all(one.is_sharing() for one in sides.values()):
                    break
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise ProcessFailed(f"{fault.__name__}: limits are not shared again after {BACK_S:g} s") from None
    return Spell(name=fault.__name__, since_s=since_s, over_s=over_s, shared_s=time.monotonic())


def _connected(store: Valkey) -> int:
    """Connections that the store has, ours included."""
    clients = store.say("CLIENT", "LIST")
    assert isinstance(clients, list | bytes | str)
    return len(clients if isinstance(clients, list) else clients.splitlines())


async def _left(one: Side, at_rest: Gauges) -> dict[str, int]:
    """What it keeps more than before anybody called, once all had time to go."""
    end_s = time.monotonic() + AT_REST_S
    while True:
        now = await one.gauges()
        if now == at_rest or time.monotonic() > end_s:
            return {"tasks": now.tasks - at_rest.tasks, "file descriptors": now.fds - at_rest.fds}
        await asyncio.sleep(0.1)


def _costs(
    side: str, heard: dict[str, list[Said]], healthy: list[tuple[float, float]], spells: list[Spell]
) -> list[Figure]:
    """In a fault, on the way back, and what was said."""
    figures = []
    for spell in spells:
        spans = [(spell.since_s, spell.over_s)]
        during, usual = _due(heard[side], spans), _due(heard[WELL], spans)
        whole = _due(heard[side], [(spell.since_s, spell.shared_s)])
        added_ms = _p99_ms(during) - _p99_ms(usual)
        longest_s = max((said.took_s for said in whole), default=math.nan)
        figures += [
            Figure(name=f"{side}, {spell.name}, added p99", value=added_ms, unit="ms", at_most=50),
            Figure(
                name=f"{side}, {spell.name}, longest until shared again", value=longest_s * 1e3, unit="ms"
            ),
        ]
        print(f"{side}, {spell.name}: {dict(Counter(said.what for said in whole))}", file=sys.stderr)
    expected = {PASSED} if side == "local" else {PASSED, "overloaded"}
    well = Counter(said.what for said in _due(heard[side], healthy))
    what = Counter(said.what for said in heard[side])
    broken = sum(count for each, count in what.items() if each.startswith("HTTP 5"))
    strange = sum(count for each, count in what.items() if each not in expected)
    return [
        *figures,
        Figure(
            name=f"{side}, did not pass between the faults",
            value=well.total() - well[PASSED],
            unit="calls",
            at_most=0,
        ),
        Figure(name=f"{side}, HTTP 5xx", value=broken, unit="calls", at_most=0),
        Figure(name=f"{side}, neither passed nor as configured", value=strange, unit="calls", at_most=0),
    ]


def _callers(heard: dict[str, list[Said]]) -> list[Figure]:
    """What says how much of it was the machine's."""
    late = [sorted(said.sent_s - said.due_s for said in each) for each in heard.values()]
    latest_s = max(quantile(each, 0.99) for each in late)
    return [
        Figure(name="store well all the time, p50", value=_ms(heard[WELL], 0.5), unit="ms"),
        Figure(name="store well all the time, p99", value=_ms(heard[WELL], 0.99), unit="ms"),
        Figure(name="callers, sent late, p99 of the latest", value=latest_s * 1e3, unit="ms", at_most=10),
    ]


def _due(heard: list[Said], spans: list[tuple[float, float]]) -> list[Said]:
    return [said for said in heard if any(begin <= said.due_s < end for begin, end in spans)]


def _p99_ms(heard: list[Said]) -> float:
    return _ms(heard, 0.99)


def _ms(heard: list[Said], share: float) -> float:
    return quantile(sorted(said.took_s for said in heard), share) * 1e3 if heard else math.nan


def main() -> int:
    machine = this_machine()
    raise_open_files()
    with tempfile.TemporaryDirectory(prefix="mcp-sidecar-outage-") as folder:
        try:
            found = uvloop.run(figures(Path(folder)))
        except ProcessFailed as failed:
            print(failed, file=sys.stderr)
            return 1
    print(table(machine, found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
