"""Whom does a noisy neighbour cost anything? `python -m tests.bench.noisy` prints it: a real sidecar, over HTTP.

In: nothing. Out: figures. Keeps nothing. A server process has PLACES workers and is the bottleneck; before it stands a
sidecar with as many places, and tenants with API keys call through it. `fairness.py` plays the same on a clock that
only events move; here sockets, keys, log lines and the processor take part.

What shows that it is the server that was scarce, and not those who call: its workers had something to do all the time,
and each caller is a process of its own that sent what was due when it was due, and had most of a core to spare.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, cast

import msgspec
import uvloop
from msgspec import Struct

from tests.conformance.processes import ProcessFailed
from tests.integration.keys import Who, let_in

from .arrivals import PASSED, Ran, Said, calling
from .load import quantile
from .messages import answer, id_of
from .processes import Running, busy_s, cpu_s, program, raise_open_files, sidecar, term
from .report import Figure, table, this_machine
from .wire import body_length, head_end

PLACES: Final = 8
CALL_S: Final = 0.2
"""How long a call takes on average, between half and one and a half times."""
SERVED_PER_S: Final = PLACES / CALL_S
SHARE_PER_S: Final = SERVED_PER_S / 2
"""Of each of two tenants."""
NOISY: Final = 50.0
"""Times its share."""
QUIET: Final = 0.5
OFFERED: Final = (2.0, 4.0, 8.0, 16.0, 32.0)
"""Times their share, of five tenants."""

ROUND_S: Final = 6.0
ROUNDS: Final = 2
WARM_UP_S: Final = 0.5
"""Of each round, not counted: queues fill."""
CROWD: Final = 320
"""Connections of who calls more than it may: those whose calls wait, and those that are being refused."""
DEPTH: Final = 64
"""So many are served in less than the longest wait, 2 s: who waits gets its turn."""

PEOPLE: Final[dict[str, Who]] = {
    f"key{number}.secret-of-tenant-{number}": (f"tenant{number}", "somebody", ["user"]) for number in range(5)
}
KEYS: Final = tuple(PEOPLE)


class Tenant(Struct, frozen=True):
    """Whose key, and how it calls."""

    key: str
    per_s: float
    connections: int = CROWD


class Round(Struct, frozen=True):
    """What some tenants heard within the same seconds, in their order."""

    heard: list[list[Said]]
    """Of the seconds that count."""
    ran: list[Ran]
    seconds: float
    idle: float
    """Share of the server's workers' time in which they had nothing to do."""
    most_at_once: int
    """Calls at the server, so far."""
    sidecar_cpu: float
    """Of a core."""
    machine_cpu: float
    """Of all cores, by whomever: near 1, times say more about the machine than about us."""


async def figures(logs: Path) -> list[Figure]:
    """Every figure of this file. Takes less than a minute."""
    quiet, noisy = Tenant(KEYS[0], QUIET * SHARE_PER_S, 64), Tenant(KEYS[1], NOISY * SHARE_PER_S)
    share = SERVED_PER_S / len(OFFERED)
    five = [Tenant(key, share * times) for key, times in zip(KEYS, OFFERED, strict=True)]
    alone: list[Round] = []
    beside: list[Round] = []
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(program("noisy", "--serve", logs=logs))
        fair = await stack.enter_async_context(sidecar(upstream.port, logs, *_settings(logs)))
        for _ in range(ROUNDS):
            alone.append(await _round(fair, upstream, [quiet], logs))
            beside.append(await _round(fair, upstream, [quiet, noisy], logs))
        equal = await _round(fair, upstream, five, logs)
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(program("noisy", "--serve", logs=logs))
        bound = await stack.enter_async_context(sidecar(upstream.port, logs, *_settings(logs, PLACES - 2)))
        capped = await _round(bound, upstream, [quiet, noisy], logs)
    return [
        *_neighbours(alone, beside, [capped]),
        *_shares(equal),
        *_who_was_scarce([*beside, equal], capped),
    ]


def _settings(folder: Path, per_tenant: int | None = None) -> tuple[str, str]:
    capacity = {"max_in_flight": PLACES, "overload": "queue", "queue_depth": DEPTH, "per_tenant": per_tenant}
    given = {name: value for name, value in capacity.items() if value is not None}
    return let_in(folder, PEOPLE), f"capacity={json.dumps(given)}"


async def _round(proxy: Running, upstream: Running, tenants: Sequence[Tenant], logs: Path) -> Round:
    async with AsyncExitStack() as stack:
        callers = [
            await stack.enter_async_context(
                calling(
                    proxy.port,
                    per_s=each.per_s,
                    seconds=2 * ROUND_S,
                    connections=each.connections,
                    key=each.key,
                    seed=number,
                    logs=logs,
                )
            )
            for number, each in enumerate(tenants)
        ]
        await asyncio.sleep(WARM_UP_S)
        before, cpu, begin = await _work(upstream), cpu_s(proxy.pid), time.monotonic()
        busy = busy_s()
        await asyncio.sleep(ROUND_S)
        after, end = await _work(upstream), time.monotonic()
        cpu, busy = cpu_s(proxy.pid) - cpu, busy_s() - busy
        for caller in callers:
            caller.stop()
    ran = [each.ran() for each in callers]
    return Round(
        heard=[[said for said in each.said if begin <= said.due_s < end] for each in ran],
        ran=ran,
        seconds=end - begin,
        idle=1 - (after.busy_s - before.busy_s) / (PLACES * (end - begin)),
        most_at_once=after.most_at_once,
        sidecar_cpu=cpu / (end - begin),
        machine_cpu=busy / (end - begin) / (os.cpu_count() or 1),
    )


def _neighbours(alone: list[Round], beside: list[Round], capped: list[Round]) -> list[Figure]:
    solo, fair, bound = (_times([each.heard[0] for each in rounds]) for rounds in (alone, beside, capped))
    refused = sum(said.what != PASSED for each in (*alone, *beside, *capped) for said in each.heard[0])
    noisy = [said for each in beside for said in each.heard[1]]
    seconds = sum(each.seconds for each in beside)
    passed = sum(said.what == PASSED for said in noisy)
    return [
        Figure(name="quiet alone, p50", value=_ms(solo, 0.5), unit="ms"),
        Figure(name="quiet alone, p99", value=_ms(solo, 0.99), unit="ms"),
        Figure(name="quiet beside noisy, p50", value=_ms(fair, 0.5), unit="ms"),
        Figure(name="quiet beside noisy, p99", value=_ms(fair, 0.99), unit="ms"),
        _ratio("quiet beside noisy / alone, p50", fair, solo, 0.5),
        _ratio("quiet beside noisy / alone, p99", fair, solo, 0.99, at_most=1.5),
        _ratio(f"the same with per_tenant {PLACES - 2} of {PLACES}", bound, solo, 0.99, at_most=1.5),
        Figure(name="quiet, calls that did not pass", value=refused, unit="calls", at_most=0),
        Figure(name="quiet, calls that passed beside noisy", value=len(fair), unit="calls"),
        Figure(name="noisy, offered", value=len(noisy) / seconds, unit="/s"),
        Figure(name="noisy, offered / its share", value=len(noisy) / seconds / SHARE_PER_S, unit="x"),
        Figure(name="noisy, passed", value=passed / seconds, unit="/s"),
    ]


def _times(heard: list[list[Said]]) -> list[float]:
    """Of those that passed: a fast no is not a call."""
    return sorted(said.took_s for each in heard for said in each if said.what == PASSED)


def _ms(times: list[float], share: float) -> float:
    return quantile(times, share) * 1e3 if times else math.nan


def _ratio(
    name: str, times: list[float], alone: list[float], share: float, at_most: float | None = None
) -> Figure:
    return Figure(name=name, value=_ms(times, share) / _ms(alone, share), unit="x", at_most=at_most)


def _shares(equal: Round) -> list[Figure]:
    passed = [sum(said.what == PASSED for said in each) for each in equal.heard]
    index = _jain(passed)
    return [
        Figure(
            name=f"1 - Jain's index, five tenants at {OFFERED[0]}x to {OFFERED[-1]}x",
            value=1 - index,
            unit="",
            at_most=0.05,
        ),
        Figure(name="least / most of the five, passed", value=min(passed) / max(passed), unit="x"),
    ]


def _jain(counts: Sequence[int]) -> float:
    """1 where all are equal, 1/n where one has everything (Jain, Chiu, Hawe 1984)."""
    squares = sum(each * each for each in counts)
    return sum(counts) ** 2 / (len(counts) * squares) if squares else 0.0


def _who_was_scarce(contended: list[Round], capped: Round) -> list[Figure]:
    """The server, and not those who call. With `per_tenant` it may rest: places are kept free for who may come."""
    rounds = [*contended, capped]
    everybody = [ran for each in rounds for ran in each.ran]
    late = sorted(said.sent_s - said.due_s for each in rounds for heard in each.heard for said in heard)
    cpu = [ran.cpu_s / (ROUND_S + WARM_UP_S) for ran in everybody]
    strange = Counter(
        said.what for ran in everybody for said in ran.said if said.what not in (PASSED, "overloaded")
    )
    if strange:
        print(f"answers that nobody expected: {dict(strange)}", file=sys.stderr)
    return [
        Figure(
            name="server, idle while calls waited",
            value=100 * max(each.idle for each in contended),
            unit="%",
            at_most=5,
        ),
        Figure(
            name="server, calls at once",
            value=max(each.most_at_once for each in rounds),
            unit="calls",
            at_most=PLACES,
        ),
        Figure(
            name="callers, sent late, p99",
            value=_ms(late, 0.99),
            unit="ms",
            at_most=10,
        ),
        Figure(
            name="callers, short of connections",
            value=sum(ran.short_of_connections for ran in everybody),
            unit="calls",
            at_most=0,
        ),
        Figure(name="callers, processor of the busiest", value=100 * max(cpu), unit="%", at_most=50),
        Figure(
            name="sidecar, processor at most", value=100 * max(each.sidecar_cpu for each in rounds), unit="%"
        ),
        Figure(
            name="machine, processor at most, of all cores",
            value=100 * max(each.machine_cpu for each in rounds),
            unit="%",
        ),
        Figure(name="neither passed nor overloaded", value=sum(strange.values()), unit="calls", at_most=0),
    ]


# The server.


class Work(Struct, frozen=True, kw_only=True):
    """What the server has done since it started."""

    busy_s: float
    """Of all workers together."""
    most_at_once: int
    """Calls that were there, served or not."""


class Workers:
    """Serve calls in the order in which they came, PLACES at once."""

    def __init__(self) -> None:
        self._chance = random.Random(1)
        self._waiting: deque[tuple[Server, bytes]] = deque()
        self._free = PLACES
        self._ended_s = 0.0
        self._begun: dict[int, float] = {}
        self._most = 0

    def come(self, whose: Server, id_: bytes) -> None:
        self._waiting.append((whose, id_))
        self._most = max(self._most, len(self._begun) + len(self._waiting))
        self._serve()

    @property
    def work(self) -> Work:
        now = time.monotonic()
        under_way_s = sum(now - begun for begun in self._begun.values())
        return Work(busy_s=self._ended_s + under_way_s, most_at_once=self._most)

    def _serve(self) -> None:
        while self._free and self._waiting:
            self._free -= 1
            whose, id_ = self._waiting.popleft()
            self._begun[id(whose)] = time.monotonic()
            takes_s = CALL_S * self._chance.uniform(0.5, 1.5)
            asyncio.get_running_loop().call_later(takes_s, self._served, whose, id_)

    def _served(self, whose: Server, id_: bytes) -> None:
        self._ended_s += time.monotonic() - self._begun.pop(id(whose))
        self._free += 1
        whose.answer(answer(id_))
        self._serve()


class Server(asyncio.Protocol):
    """One connection: one call at a time."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        start = head_end(self._buffer)
        if start < 0:
            return
        end = start + body_length(self._buffer[:start])
        if len(self._buffer) < end:
            return
        head, body = self._buffer[:start], self._buffer[start:end]
        self._buffer = self._buffer[end:]
        if head.startswith(b"GET /work "):
            self.answer(msgspec.json.encode(self._workers.work))
            return
        try:
            id_ = id_of(body)
        except ValueError:
            self.answer(b"{}", "400 Bad Request")  # the sidecar's own questions
            return
        self._workers.come(self, id_)

    def answer(self, body: bytes, status: str = "200 OK") -> None:
        assert self._transport is not None
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)


async def _work(upstream: Running) -> Work:
    """What the server has done."""
    reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
    try:
        writer.write(b"GET /work HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        return msgspec.json.decode(await reader.readexactly(body_length(head)), type=Work)
    finally:
        writer.close()


async def _serve() -> None:
    workers = Workers()
    server = await asyncio.get_running_loop().create_server(
        lambda: Server(workers), "127.0.0.1", 0, backlog=4_096
    )
    stopping = term()
    print("ready", server.sockets[0].getsockname()[1], flush=True)
    await stopping.wait()


def main() -> int:
    if sys.argv[1:] == ["--serve"]:
        uvloop.run(_serve())
        return 0
    machine = this_machine()
    raise_open_files()
    with tempfile.TemporaryDirectory(prefix="mcp-sidecar-noisy-") as folder:
        try:
            found = uvloop.run(figures(Path(folder)))
        except ProcessFailed as failed:
            print(failed, file=sys.stderr)
            return 1
    print(table(machine, found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
