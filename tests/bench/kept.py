"""What a kept answer looks like, and who asks for it: the caller of `cache_hits`. A process.

In: a port, how many connections, for how long. Out: one JSON line (`load.Outcome`). An answer that is not the kept one,
with this call's id and our mark in it, ends it with an error.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import re
import time
from typing import Final

import msgspec
import uvloop

from .load import WARM_UP_S, Caller, Outcome, Wrong, quantile
from .messages import FIRST_ID, LAST_ID, REVISIONS, Calls, answer
from .processes import cpu_s
from .wire import body_length, head_end

_RESULT: Final = b'"result":{'
_MARK: Final = re.compile(rb'"_meta":\{"dev\.mcp-sidecar/cache":\{"age_s":[0-9]{1,4},"state":"fresh"\}\},')


def kept(id_: bytes, age_s: int = 0) -> bytes:
    """The body of the kept answer to the call with this id, as the cache writes it."""
    mark = b'"_meta":{"dev.mcp-sidecar/cache":{"age_s":%d,"state":"fresh"}},' % age_s
    return answer(id_).replace(_RESULT, _RESULT + mark, 1)


def is_kept(body: bytes, id_: bytes) -> bool:
    """Whether it is that, of whatever age."""
    plain, marks = _MARK.subn(b"", body, count=1)
    return marks == 1 and plain == answer(id_)


class KeptCaller(Caller):
    """Expects what was kept."""

    def data_received(self, data: bytes) -> None:
        self._buffer = buffer = self._buffer + data
        start = head_end(buffer)
        if start < 0 or len(buffer) < start + body_length(buffer[:start]):
            return
        took = time.perf_counter() - self._sent
        if not buffer.startswith(b"HTTP/1.1 200 ") or not is_kept(buffer[start:], self._id):
            self._fail("an answer was not the kept one: " + repr(buffer[start : start + 60]))
            return
        self._buffer = b""
        self._told(took)
        if not self.is_stopped:
            self._call()


async def run(
    port: int, *, connections: int, seconds: float, revision: str, watched: int, token: str
) -> Outcome:
    """As `load.run`. Raises Wrong."""
    loop = asyncio.get_running_loop()
    failed: asyncio.Future[None] = loop.create_future()
    took: list[float] = []
    ids = itertools.cycle(range(FIRST_ID, LAST_ID + 1))
    calls = Calls(revision, port, token)
    callers = [KeptCaller(calls, ids.__next__, took.append, failed) for _ in range(connections)]
    for each in callers:
        await loop.create_connection(lambda each=each: each, "127.0.0.1", port)  # type: ignore[misc]  # mypy knows no default of a lambda
    try:
        await _pass(min(WARM_UP_S, seconds / 4), failed)
        took.clear()
        cpu_before, started = cpu_s(watched), time.perf_counter()
        await _pass(seconds, failed)
        measured_s, cpu = time.perf_counter() - started, cpu_s(watched) - cpu_before
        times = sorted(took)
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


async def _pass(seconds: float, failed: asyncio.Future[None]) -> None:
    await asyncio.wait({failed}, timeout=seconds)
    if failed.done():
        failed.result()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.kept")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--revision", choices=REVISIONS, default=REVISIONS[-1])
    parser.add_argument("--watch", type=int, required=True, metavar="PID")
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
