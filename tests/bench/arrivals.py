"""Calls that come at random moments, whatever has become of those before. A process.

In: a port, how many a second, over how many connections at most, whose key, for how long. Out: a file with a line for
each call (see `Said`), written when the last is answered, also after TERM. It judges nothing: a refusal is an answer.

Everything is counted from the moment a call was due, so that a caller that is late, or that has no connection left,
makes the figures worse and not better.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import random
import re
import selectors
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, cast

import msgspec
import uvloop
from msgspec import Struct

from tests.conformance.processes import ProcessFailed, child, tail

from .messages import FIRST_ID, LAST_ID, REVISIONS, Calls, answer
from .processes import READY_TIMEOUT_S, said, term
from .wire import body_length, head_end

LAST_ANSWERS_S: Final = 5.0
"""How long the last calls may take before they count as unanswered."""
PASSED: Final = "passed"
LOST: Final = "lost"
UNANSWERED: Final = "unanswered"
_REASON: Final = re.compile(rb'"reason":"(\w+)"')


class Said(Struct, frozen=True, array_like=True):
    """One call; moments are seconds of the monotonic clock, which all processes share."""

    due_s: float
    sent_s: float
    ended_s: float
    what: str
    """PASSED: the answer to this call and no other; the reason of a refusal; "HTTP 503" and the like; LOST with its
    connection; UNANSWERED."""

    @property
    def took_s(self) -> float:
        return self.ended_s - self.due_s


class Ran(Struct, frozen=True, kw_only=True):
    """One run of calls."""

    said: list[Said]
    cpu_s: float
    """Of the caller."""
    short_of_connections: int
    """Calls that were due while every connection was in use."""


class Connection(asyncio.Protocol):
    """One call after the other."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._buffer = b""
        self._id = b""
        self._due_s = self._sent_s = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def call(self, due_s: float, id_: bytes, request: bytes) -> None:
        assert self._transport is not None
        self._due_s, self._sent_s, self._id = due_s, time.monotonic(), id_
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer = buffer = self._buffer + data
        start = head_end(buffer)
        if start < 0:
            return
        end = start + body_length(buffer[:start])
        if len(buffer) < end:
            return
        self._buffer = b""
        self._end(_what(buffer[:start], buffer[start:], self._id))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._id:
            self._end(LOST)

    def give_up(self) -> None:
        """No call is waited for any more."""
        if self._id:
            self._end(UNANSWERED)
        if self._transport is not None:
            self._transport.close()

    @property
    def is_open(self) -> bool:
        return self._transport is not None

    def _end(self, what: str) -> None:
        self._id = b""
        self._crowd.ended(self, Said(self._due_s, self._sent_s, time.monotonic(), what))


def _what(head: bytes, body: bytes, id_: bytes) -> str:
    if head.startswith(b"HTTP/1.1 200 ") and body == answer(id_):
        return PASSED
    if (reason := _REASON.search(body)) is not None and not head.startswith(b"HTTP/1.1 5"):
        return reason[1].decode()
    return f"HTTP {head[9:12].decode()}"


class Crowd:
    """The connections, and the calls that wait for one."""

    def __init__(self, port: int, connections: int, key: str, token: str = "") -> None:
        self._port = port
        self._calls = Calls(REVISIONS[-1], port, token)
        self._whose = f"\r\nX-API-Key: {key}\r\n\r\n".encode() if key else b"\r\n\r\n"
        self._ids = itertools.cycle(range(FIRST_ID, LAST_ID + 1))
        self._all: list[Connection] = []
        self._count = connections
        self._free: deque[Connection] = deque()
        self._due: deque[float] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._at_rest = asyncio.Event()
        self.said: list[Said] = []
        self.short = 0

    async def open(self) -> None:
        """All connections, so that none is opened while it matters, unless one is lost."""
        for _ in range(self._count):
            await self._one_more()

    def come(self, due_s: float) -> None:
        """A call."""
        self._at_rest.clear()
        if self._free:
            self._send(self._free.popleft(), due_s)
        else:
            self.short += 1
            self._due.append(due_s)

    def ended(self, connection: Connection, said: Said) -> None:
        self.said.append(said)
        if not connection.is_open:
            task = asyncio.get_running_loop().create_task(self._one_more())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        else:
            self._is_free(connection)

    async def rest(self, timeout_s: float) -> None:
        """Wait for the last answers, and close everything."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._at_rest.wait()
        except TimeoutError:
            pass
        for each in self._all:
            each.give_up()
        now = time.monotonic()
        self.said += [Said(due_s, now, now, UNANSWERED) for due_s in self._due]

    async def _one_more(self) -> None:
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(self), "127.0.0.1", self._port
        )
        self._all.append(connection)
        self._is_free(connection)

    def _is_free(self, connection: Connection) -> None:
        if self._due:
            self._send(connection, self._due.popleft())
            return
        self._free.append(connection)
        if len(self._free) == self._count:
            self._at_rest.set()

    def _send(self, connection: Connection, due_s: float) -> None:
        id_ = b"%d" % next(self._ids)
        head, _, body = self._calls.request(id_).partition(b"\r\n\r\n")
        connection.call(due_s, id_, head + self._whose + body)


async def run(
    port: int, *, per_s: float, seconds: float, connections: int, key: str, token: str, seed: int
) -> Ran:
    """Call, `per_s` on average, for `seconds` or until TERM."""
    crowd = Crowd(port, connections, key, token)
    await crowd.open()
    stopping = term()
    print("ready", port, flush=True)
    chance = random.Random(seed)
    cpu_s = time.process_time()
    due_s = time.monotonic()
    end_s = due_s + seconds
    while (due_s := due_s + chance.expovariate(per_s)) < end_s and not stopping.is_set():
        # Timers of uvloop are whole milliseconds: what is due by then leaves together, but for --exact.
        if (left_s := due_s - time.monotonic()) > 0:
            await asyncio.sleep(left_s)
        crowd.come(due_s)
    cpu_s = time.process_time() - cpu_s
    await crowd.rest(LAST_ANSWERS_S)
    return Ran(said=crowd.said, cpu_s=cpu_s, short_of_connections=crowd.short)


class Calling:
    """Calls under way, of a process of its own."""

    def __init__(self, stop: Callable[[], None], out: Path) -> None:
        self.stop = stop
        """No call begins any more."""
        self._out = out

    def ran(self) -> Ran:
        """What was said, once the block has been left."""
        return msgspec.json.decode(self._out.read_bytes(), type=Ran)


@asynccontextmanager
async def calling(
    port: int,
    *,
    per_s: float,
    seconds: float,
    connections: int,
    logs: Path,
    key: str = "",
    token: str = "",
    seed: int = 1,
    core: int | None = None,
    is_exact: bool = False,
) -> AsyncIterator[Calling]:
    """The calls come while the block runs, and its end waits for the last of them. `is_exact`: each leaves when it is
    due, not with all of its millisecond. Raises ProcessFailed."""
    number = len(list(logs.glob("arrivals-*.log")))
    log, out = logs / f"arrivals-{number}.log", logs / f"arrivals-{number}.json"
    words = ("--port", port, "--per-s", per_s, "--seconds", seconds, "--connections", connections)
    whose = ("--key", key, "--token", token, "--seed", seed, "--out", out)
    command = [
        *(() if core is None else ("taskset", "-c", str(core))),
        *(sys.executable, "-m", "tests.bench.arrivals", *map(str, (*words, *whose))),
        *(["--exact"] if is_exact else []),
    ]
    async with child(command, log=log, piped=True) as process:
        await said(process, "ready", log, READY_TIMEOUT_S)
        yield Calling(process.terminate, out)
        try:
            async with asyncio.timeout(seconds + 2 * LAST_ANSWERS_S):
                code = await process.wait()
        except TimeoutError:
            code = None
        if code != 0:
            raise ProcessFailed(f"a run of calls failed:\n{tail(log)}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.arrivals")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--per-s", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--key", default="", help="as the header X-API-Key has it")
    parser.add_argument("--token", default="")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--exact", action="store_true", help="timers of microseconds, at a higher price")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def _exact_loop() -> asyncio.AbstractEventLoop:
    """Of what Python has, only select(2) is told how long to wait in microseconds."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


if __name__ == "__main__":
    options = _options()
    gc.disable()  # pauses of our own would be counted as the other side's
    with asyncio.Runner(loop_factory=_exact_loop if options.exact else uvloop.new_event_loop) as runner:
        ran = runner.run(
            run(
                options.port,
                per_s=options.per_s,
                seconds=options.seconds,
                connections=options.connections,
                key=options.key,
                token=options.token,
                seed=options.seed,
            )
        )
    options.out.write_bytes(msgspec.json.encode(ran))
