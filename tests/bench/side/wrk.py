"""The load: wrk on the core beside the proxy's.

In: a port, what is asked, how many connections, for how long. Out: an `Outcome`. Source of the numbers: wrk's own
report through its Lua `done` hook, one JSON line; CPU time of the proxy from /proc.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from tests.conformance.processes import ProcessFailed, child, tail

from ..processes import cpu_s

LOAD_CORE: Final = 1
PROXY_CORE: Final = 0
SATURATED: Final = 0.9
"""Of a core: what a proxy must use for its rate to be its own."""
LEGACY, MODERN = "2025-11-25", "2026-07-28"
_SPARE_S: Final = 15.0
TOOL: Final = "search_documents"


class Asked(Struct, frozen=True, kw_only=True):
    """What is asked again and again."""

    revision: str = LEGACY
    size: int = 1_024
    """Of the body, in bytes."""
    unique: bool = True
    """Each call has arguments of its own."""
    token: str = ""
    session: str = ""


class Outcome(Struct, frozen=True, kw_only=True):
    """One run."""

    rate: float
    """Calls a second that were answered with 200."""
    failed: int
    """Answered otherwise, or not at all."""
    p50_us: float
    p99_us: float
    cpu_us: float
    """Of the proxy, user and system, a call."""
    core_share: float
    """Of the proxy's core."""

    @property
    def is_saturated(self) -> bool:
        return self.core_share >= SATURATED


class _Said(Struct):
    requests: int
    duration_us: int
    bad: int
    p50_us: float
    p99_us: float


def script(asked: Asked) -> str:
    """The Lua program of wrk."""
    fields = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": asked.revision,
        "User-Agent": "bench/1",
    }
    if asked.token:
        fields["Authorization"] = f"Bearer {asked.token}"
    if asked.session:
        fields["Mcp-Session-Id"] = asked.session
    meta = ""
    if asked.revision == MODERN:
        fields |= {"Mcp-Method": "tools/call", "Mcp-Name": TOOL}
        stated = {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        meta = f',"_meta":{json.dumps(stated, separators=(",", ":"))}'
    begin = (
        f'{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{TOOL}","arguments":{{"query":"'
    )
    end = f'","limit":10,"tags":["one","two"],"deep":{{"a":[1,2.5,null,true]}}}}{meta}}}}}'
    digits = 9
    pad = "x" * max(0, asked.size - len(begin) - len(end) - digits)
    lines = [
        'wrk.method = "POST"',
        *(f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in fields.items()),
        f"local head = {_lua(begin + pad)}",
        f"local rest = {_lua(end)}",
        "local n = 100000000",
        "local same",
        # Not before: wrk learns the host there.
        "init = function()",
        f'  same = wrk.format(nil, "/mcp", nil, head .. "{"1" * digits}" .. rest)',
        "end",
        "request = function()",
        *(["  return same"] if not asked.unique else _UNIQUE),
        "end",
        _DONE,
    ]
    return "\n".join(lines)


def _lua(text: str) -> str:
    return f"[==[{text}]==]"


_UNIQUE: Final = ["  n = n + 1", '  return wrk.format(nil, "/mcp", nil, head .. n .. rest)']
_DONE: Final = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\n{"requests":%d,"duration_us":%d,"bad":%d,"p50_us":%.1f,"p99_us":%.1f}\\n',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50.0), latency:percentile(99.0)))
end
"""


async def load(
    port: int, asked: Asked, *, connections: int, seconds: int, pids: tuple[int, ...], logs: Path
) -> Outcome:
    """Ask for so long; `pids` are the processes of the proxy. Raises ProcessFailed."""
    program, log = logs / "call.lua", logs / "wrk.log"
    program.write_text(script(asked), encoding="utf-8")
    command = [
        *("taskset", "-c", str(LOAD_CORE), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s"),
        *("--timeout", "10s", "-s", str(program), f"http://127.0.0.1:{port}/mcp"),
    ]
    before = sum(map(cpu_s, pids))
    async with child(command, log=log, piped=True) as process:
        assert process.stdout is not None
        try:
            async with asyncio.timeout(seconds + _SPARE_S):
                said = await process.stdout.read()
        except TimeoutError:
            said = b""
    used_s = sum(map(cpu_s, pids)) - before
    lines = [line for line in said.splitlines() if line.startswith(b"{")]
    if not lines:
        raise ProcessFailed(f"wrk did not report:\n{tail(log)}")
    told = msgspec.json.decode(lines[-1], type=_Said)
    good = max(0, told.requests - told.bad)
    took_s = told.duration_us / 1e6
    return Outcome(
        rate=good / took_s,
        failed=told.bad,
        p50_us=told.p50_us,
        p99_us=told.p99_us,
        cpu_us=used_s / max(1, told.requests) * 1e6,
        core_share=used_s / took_s,
    )
