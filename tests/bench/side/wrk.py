"""The load: wrk on the core beside the proxy's.

In: a peer, what is asked, how many connections, for how long. Out: an `Outcome`. Source of the numbers: wrk's own
report through its Lua `done` hook, one JSON line; CPU time and memory of the proxy from /proc.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from tests.conformance.processes import ProcessFailed, child, tail

from ..processes import cpu_s, rss_bytes
from .calls import ANSWERED, ONES, Asked

LOAD_CORE: Final = 1
PROXY_CORE: Final = 0
SATURATED: Final = 0.9
"""Of a core: what a proxy must use for its rate to be its own."""
_SPARE_S: Final = 15.0
_MB: Final = 1_024 * 1_024


class Peer(Struct, frozen=True, kw_only=True):
    """Something that answers calls."""

    port: int
    pids: tuple[int, ...]
    says_no_with_200: bool = False
    """It speaks MCP itself: only reading an answer tells whether it counts."""
    asked: Asked = Asked()
    """A call as this peer wants to see it."""
    idle_mb: float = 0.0
    """Resident when it was ready and nobody called; 0 before it was looked at."""

    @property
    def resident_mb(self) -> float:
        """IO: reads /proc."""
        return sum(map(rss_bytes, self.pids)) / _MB


class Outcome(Struct, frozen=True, kw_only=True):
    """One run."""

    rate: float
    """Calls a second that were answered with 200 and no error."""
    failed: int
    """Answered otherwise, or not at all."""
    p50_us: float
    p99_us: float
    cpu_us: float
    """Of the proxy, user and system, a call."""
    core_share: float
    """Of the proxy's core."""
    rss_mb: float
    """Resident, of the proxy, in the middle of the run."""

    @property
    def is_saturated(self) -> bool:
        return self.core_share >= SATURATED

    def of_events(self, count: int) -> Outcome:
        """The same run by events, of which each answer has so many; the latency stays that of answers."""
        return msgspec.structs.replace(self, rate=self.rate * count, cpu_us=self.cpu_us / count)


class _Said(Struct):
    requests: int
    duration_us: int
    bad: int
    p50_us: float
    p99_us: float


def script(asked: Asked, *, reads: bool = False) -> str:
    """The Lua program of wrk; `reads`: it looks into every answer, which costs wrk about 2 µs each."""
    begin, end = asked.body
    lines = [
        'wrk.method = "POST"',
        *(f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in asked.fields.items()),
        f"local head = {_lua(begin)}",
        f"local rest = {_lua(end)}",
        "local n = 100000000",
        "local same",
        # Not before: wrk learns the host there.
        "init = function()",
        f'  same = wrk.format(nil, "/mcp", nil, head .. "{ONES}" .. rest)',
        "end",
        "request = function()",
        *(["  return same"] if not asked.unique else _UNIQUE),
        "end",
        *([_READS] if reads else []),
        _DONE,
    ]
    return "\n".join(lines)


def _lua(text: str) -> str:
    return f"[==[{text}]==]"


_UNIQUE: Final = ["  n = n + 1", '  return wrk.format(nil, "/mcp", nil, head .. n .. rest)']
_READS: Final = f"""
wrong = 0
response = function(status, headers, body)
  if status < 400 and (status ~= 200 or not body:find('{ANSWERED}', 1, true)) then wrong = wrong + 1 end
end
"""
"""wrk counts a status of 400 and more by itself."""
_DONE: Final = """
local threads = {}
setup = function(thread) table.insert(threads, thread) end
done = function(summary, latency, requests)
  local e = summary.errors
  local bad = e.connect + e.read + e.write + e.status + e.timeout
  for _, thread in ipairs(threads) do bad = bad + (thread:get("wrong") or 0) end
  io.write(string.format('\\n{"requests":%d,"duration_us":%d,"bad":%d,"p50_us":%.1f,"p99_us":%.1f}\\n',
    summary.requests, summary.duration, bad, latency:percentile(50.0), latency:percentile(99.0)))
end
"""


async def load(peer: Peer, asked: Asked, *, connections: int, seconds: int, logs: Path) -> Outcome:
    """Ask for so long. Raises ProcessFailed, also where no call was answered."""
    program, log = logs / "call.lua", logs / "wrk.log"
    program.write_text(script(asked, reads=peer.says_no_with_200), encoding="utf-8")
    command = [
        *("taskset", "-c", str(LOAD_CORE), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s"),
        *("--timeout", "10s", "-s", str(program), f"http://127.0.0.1:{peer.port}/mcp"),
    ]
    before_s = sum(map(cpu_s, peer.pids))
    async with child(command, log=log, piped=True) as process:
        assert process.stdout is not None
        try:
            async with asyncio.timeout(seconds + _SPARE_S):
                await asyncio.sleep(seconds / 2)
                rss_mb = peer.resident_mb
                said = await process.stdout.read()
        except TimeoutError:
            said = b""
    used_s = sum(map(cpu_s, peer.pids)) - before_s
    lines = [line for line in said.splitlines() if line.startswith(b"{")]
    if not lines:
        raise ProcessFailed(f"wrk did not report:\n{tail(log)}")
    told = msgspec.json.decode(lines[-1], type=_Said)
    took_s = told.duration_us / 1e6
    if (good := told.requests - told.bad) <= 0:
        raise ProcessFailed(f"no call was answered in {took_s:.0f} s, {told.bad} failed")
    return Outcome(
        rate=good / took_s,
        failed=told.bad,
        p50_us=told.p50_us,
        p99_us=told.p99_us,
        cpu_us=used_s / told.requests * 1e6,
        core_share=used_s / took_s,
        rss_mb=rss_mb,
    )
