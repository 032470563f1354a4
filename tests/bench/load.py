"""The caller: keeps one call under way on each connection, checks every answer, times each. A process.

In: a port, how many connections, for how long. Out: one JSON line (see `Outcome`). A wrong answer ends it with an
error: a fast no is not a call.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import time
from collections.abc import Callable
from typing import Final, cast

import msgspec
import uvloop
from msgspec import Struct

from .messages import FIRST_ID, LAST_ID, REVISIONS, Calls, answer
from .processes import cpu_s
from .wire import body_length, head_end

WARM_UP_S: Final = 0.5
"""Not counted: connections, caches and branch predictors are new. A quarter of the run where that is shorter."""
ANSWER_TIMEOUT_S: Final = 10.0
"""After which a run without any answer is given up."""


class Outcome(Struct, frozen=True, kw_only=True):
    """One run."""

    calls: int
    """Answered while it was measured."""
    seconds: float
    p50_us: float
    p99_us: float
    cpu_us_per_call: float
    """User and system time of the watched process over its calls."""


class Wrong(Exception):
    """An answer was not the one to its call, or the connection was lost."""


class Caller(asyncio.Protocol):
    """One connection: the next call when the last is answered."""

    def __init__(
        self,
        calls: Calls,
        next_id: Callable[[], int],
        told: Callable[[float], None],
        failed: asyncio.Future[None],
    ) -> None:
        self._calls = calls
        self._next_id = next_id
        self._told = told
        self._failed = failed
        self._buffer = b""
        self._id = b""
        self._sent = 0.0
        self._transport: asyncio.Transport | None = None
        self.is_stopped = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._call()

    def _call(self) -> None:
        assert self._transport is not None
        self._id = b"%d" % self._next_id()
        self._sent = time.perf_counter()
        self._transport.write(self._calls.request(self._id))

    def data_received(self, data: bytes) -> None:
        self._buffer = buffer = self._buffer + data
        start = head_end(buffer)
        if start < 0:
            return
        end = start + body_length(buffer[:start])
        if len(buffer) < end:
            return
        took = time.perf_counter() - self._sent
        if not buffer.startswith(b"HTTP/1.1 200 ") or buffer[start:] != answer(self._id):
            self._fail("an answer was not the one to its call: " + repr(buffer[:60]))
            return
        self._buffer = b""
        self._told(took)
        if not self.is_stopped:
            self._call()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.is_stopped:
            self._fail("a connection was lost")

    def _fail(self, why: str) -> None:
        self.is_stopped = True
        if not self._failed.done():
            self._failed.set_exception(Wrong(why))

    def close(self) -> None:
        self.is_stopped = True
        if self._transport is not None:
            self._transport.close()


async def run(
    port: int, *, connections: int, seconds: float, revision: str, watched: int, token: str = ""
) -> Outcome:
    """Call for `seconds` on `connections`. Raises Wrong."""
    loop = asyncio.get_running_loop()
    failed: asyncio.Future[None] = loop.create_future()
    took: list[float] = []
    ids = itertools.cycle(range(FIRST_ID, LAST_ID + 1))
    calls = Calls(revision, port, token)
    callers: list[Caller] = []

    def make() -> Caller:
        callers.append(Caller(calls, ids.__next__, took.append, failed))
        return callers[-1]

    for _ in range(connections):
        await loop.create_connection(make, "127.0.0.1", port)
    try:
        await _pass(min(WARM_UP_S, seconds / 4), failed)
        took.clear()
        cpu_before = cpu_s(watched)
        started = time.perf_counter()
        await _pass(seconds, failed)
        measured_s = time.perf_counter() - started
        times = sorted(took)
        cpu = cpu_s(watched) - cpu_before
    finally:
        for each in callers:
            each.close()
    if not times:
        raise Wrong(f"no call was answered in {measured_s:.1f} s")
    return Outcome(
        calls=len(times),
        seconds=measured_s,
        p50_us=quantile(times, 0.5) * 1e6,
        p99_us=quantile(times, 0.99) * 1e6,
        cpu_us_per_call=cpu / len(times) * 1e6,
    )


async def answer_times(port: int, *, count: int, revision: str, token: str = "") -> list[float]:
    """Seconds of `count` calls, one after the other on one connection. Raises Wrong, also after 10 s without."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    took: list[float] = []

    def told(seconds: float) -> None:
        took.append(seconds)
        if len(took) == count:
            caller.is_stopped = True
            done.set_result(None)

    caller = Caller(Calls(revision, port, token), itertools.count(FIRST_ID).__next__, told, done)
    await loop.create_connection(lambda: caller, "127.0.0.1", port)
    try:
        await _pass(ANSWER_TIMEOUT_S, done)
    finally:
        caller.close()
    if len(took) < count:
        raise Wrong(f"{count - len(took)} of {count} calls were not answered in {ANSWER_TIMEOUT_S:g} s")
    return took


async def _pass(seconds: float, done: asyncio.Future[None]) -> None:
    """Wait so long, or until it is done. Raises what it failed with."""
    await asyncio.wait({done}, timeout=seconds)
    if done.done():
        done.result()


def quantile(ordered: list[float], share: float) -> float:
    """The value below which `share` of `ordered` lies; `ordered` is sorted and not empty."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.load")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--revision", choices=REVISIONS, default=REVISIONS[0])
    parser.add_argument(
        "--watch", type=int, required=True, metavar="PID", help="the process whose CPU time is counted"
    )
    parser.add_argument("--token", default="")
    return parser.parse_args()


if __name__ == "__main__":
    options = _options()
    gc.disable()  # pauses of our own would be counted as the other side's
    outcome = uvloop.run(
        run(
            options.port,
            connections=options.connections,
            seconds=options.seconds,
            revision=options.revision,
            watched=options.watch,
            token=options.token,
        )
    )
    print(msgspec.json.encode(outcome).decode(), flush=True)
