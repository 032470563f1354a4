"""Standard error of a real process: whoever should read it and does not, costs lines and never a call. Issue 8, 4."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from proxy.demo.ports import free_ports
from proxy.telemetry.output import MAX_WAITING_BYTES
from tests import ledger
from tests.integration.client import connected
from tests.integration.house import ROOT, run_words
from tests.integration.upstream import Exchange, Upstream
from tests.integration.waiting import within
from tests.integration.wire import LEGACY, fields_for, request, result, tool_call

LONG_NAME = "n" * 255
"""Of a tool: lines are longer, and fewer are needed."""
CALLS = 3_000


async def served(exchange: Exchange) -> None:
    exchange.answer(result(json.loads(exchange.request.body or b"{}").get("id")))


@asynccontextmanager
async def running(
    *words: str, stderr: int | None, start: tuple[str, ...] = ()
) -> AsyncIterator[asyncio.subprocess.Process]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MCP_")}
    child = await asyncio.create_subprocess_exec(
        *start, sys.executable, "-m", "proxy", *words, cwd=ROOT, env=clean, stderr=stderr
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


async def calls(port: int, count: int, tool: str = LONG_NAME) -> None:
    """One after another, each answered as the server answers it."""
    body = tool_call(tool=tool)
    sent = request("POST", "/mcp", fields_for(body, LEGACY), body)
    async with connected(port) as client:
        for _ in range(count):
            answer = await client.asked(sent)
            assert (answer.status, answer.body) == (200, result())


def until_said(pipe: int, what: bytes) -> bytes:
    """What was said up to a line that holds this."""
    data = b""
    while what not in data.rpartition(b"\n")[0]:
        assert select.select([pipe], [], [], 10)[0]
        data += os.read(pipe, 4096)
    return data


def port_in(said: bytes) -> int:
    line = next(json.loads(line) for line in said.splitlines() if b'"started"' in line)
    return int(line["listen"].split("/")[2].rpartition(":")[2])


def resident_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def rest_of(pipe: int) -> bytes:
    """All that comes until the other end is closed."""
    data = b""
    while select.select([pipe], [], [], 10)[0] and (piece := os.read(pipe, 1 << 20)):
        data += piece
    return data


async def test_a_reader_of_the_log_that_has_stopped_costs_no_call(upstream: Upstream) -> None:
    """Calls go on, memory is bounded, and when it reads again it is told how many lines it has missed."""
    upstream.follow(served)
    reads, writes = os.pipe()
    async with running(*run_words(upstream.url), stderr=writes) as child:
        os.close(writes)
        first = await asyncio.to_thread(until_said, reads, b'"started"')
        port = port_in(first)
        await calls(port, 100)
        before = resident_bytes(child.pid)
        await calls(port, CALLS)
        grown = resident_bytes(child.pid) - before
        data = first + await asyncio.to_thread(until_said, reads, b'"dropped"')
        child.send_signal(signal.SIGINT)
        async with within(10):
            assert await child.wait() == 0
        data += await asyncio.to_thread(rest_of, reads)
    os.close(reads)
    ledger.look("log", data)
    lines = [json.loads(line) for line in data.splitlines()]
    said = [line for line in lines if line["msg"] == "tool call"]
    gaps = [line for line in lines if "dropped" in line]
    assert sum(line["dropped"] for line in gaps) > 500
    assert [line["level"] for line in gaps] == ["warning"] * len(gaps)
    # Lines about other things may be missing too, but not many.
    missing = 100 + CALLS - len(said)
    assert 0 <= sum(line["dropped"] for line in gaps) - missing <= 5
    assert lines[-1]["msg"] == "stopped"
    assert grown < 4 * MAX_WAITING_BYTES


async def test_the_last_lines_are_written_when_everything_else_has_ended(upstream: Upstream) -> None:
    """At exit what is possible within half a second: a reader that was late has all of it."""
    upstream.follow(served)
    reads, writes = os.pipe()
    async with running(*run_words(upstream.url), stderr=writes) as child:
        os.close(writes)
        first = await asyncio.to_thread(until_said, reads, b'"started"')
        line = next(json.loads(line) for line in first.splitlines() if b'"started"' in line)
        await calls(port_in(first), 300)
        child.send_signal(signal.SIGINT)
        # The operations port is what it closes last.
        await until_refused(int(line["operations"].rpartition(":")[2]))
        said = await asyncio.to_thread(rest_of, reads)
        async with within(10):
            assert await child.wait() == 0
    os.close(reads)
    told = [json.loads(line)["msg"] for line in said.splitlines()]
    assert told.count("tool call") == 300
    assert told[-1] == "stopped"


async def until_refused(port: int) -> None:
    async with within(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return
            writer.close()
            await asyncio.sleep(0.002)


async def test_a_reader_of_the_log_that_is_gone_costs_no_call(upstream: Upstream) -> None:
    """SIGPIPE ends nobody, and calls are answered as before."""
    upstream.follow(served)
    reads, writes = os.pipe()
    async with running(*run_words(upstream.url), stderr=writes) as child:
        os.close(writes)
        port = port_in(await asyncio.to_thread(until_said, reads, b'"started"'))
        os.close(reads)
        await calls(port, 20)
        child.send_signal(signal.SIGINT)
        async with within(10):
            assert await child.wait() == 0


async def test_without_standard_error_no_line_goes_to_somebody_else(upstream: Upstream) -> None:
    """Closed before the start, its number is given to the next socket: no client may read our log."""
    upstream.follow(served)
    data, operations = free_ports(2)
    words = run_words(
        upstream.url, f"listen.address=127.0.0.1:{data}", f"operations.address=127.0.0.1:{operations}"
    )
    async with running(*words, stderr=None, start=("sh", "-c", 'exec "$@" 2>&-', "sh")) as child:
        await until_listening(data)
        await calls(data, 20)
        child.send_signal(signal.SIGINT)
        async with within(10):
            assert await child.wait() == 0


async def until_listening(port: int) -> None:
    async with within(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            return


async def test_on_a_terminal_people_read_about_the_process(upstream: Upstream) -> None:
    """Human lines for life events; whoever pipes them gets JSON (all other tests)."""
    upstream.follow(served)
    ours, theirs = os.openpty()
    async with running(*run_words(upstream.url), stderr=theirs) as child:
        os.close(theirs)
        said = await asyncio.to_thread(until_said, ours, b"started")
        child.send_signal(signal.SIGINT)
        async with within(10):
            assert await child.wait() == 0
    os.close(ours)
    line = next(line for line in said.splitlines() if b"started" in line).decode()
    assert not line.startswith("{")
    assert " INFO    started  listen=http://127.0.0.1:" in line


BREAKS = """
import asyncio, logging, sys, threading, warnings
import proxy.house
from proxy.__main__ import main

secret = "planted-secret-in-an-exception"


class Odd(Exception):
    pass


def fails(*_):
    local = secret
    raise Odd("it has " + local)


class Breaks:
    def __del__(self):
        fails()


before = proxy.house.House.open


async def opened(self):
    await before(self)
    loop = asyncio.get_running_loop()
    loop.call_soon(fails, secret)
    task = loop.create_task(asyncio.to_thread(fails))
    await asyncio.wait([task])
    del task
    threading.Thread(target=fails).start()
    Breaks()
    logging.getLogger("aiohttp.server").error("Error handling request from %s", secret, exc_info=Odd(secret))
    logging.getLogger("somebody").warning(f"it was {secret}")
    logging.getLogger("somebody").warning("%d", secret)
    warnings.warn(secret, RuntimeWarning)


proxy.house.House.open = opened
try:
    code = main()
finally:
    fails()
"""


async def test_whatever_python_prints_is_a_line_with_kind_and_place_only(
    upstream: Upstream, tmp_path: Path
) -> None:
    """Issue 8, 4: `logging`, `warnings` and what nobody caught: never a text, never a local variable."""
    upstream.follow(served)
    script = tmp_path / "breaks.py"
    script.write_text(BREAKS, encoding="utf-8")
    reads, writes = os.pipe()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MCP_")}
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "dev", str(script), *run_words(upstream.url)),
        cwd=ROOT,
        env={**clean, "PYTHONPATH": str(ROOT)},
        stderr=writes,
    )
    os.close(writes)
    first = await asyncio.to_thread(until_said, reads, b'"started"')
    child.send_signal(signal.SIGINT)
    async with within(10):
        assert await child.wait() == 1
    data = first + await asyncio.to_thread(rest_of, reads)
    os.close(reads)
    assert b"planted-secret" not in data
    lines = [json.loads(line) for line in data.splitlines()]
    kinds = [(line["msg"], line.get("error") or line.get("category") or line.get("why")) for line in lines]
    assert kinds.count(("failed in the loop", "Odd")) >= 2
    assert kinds.count(("nobody caught", "Odd")) == 2
    assert ("could not be raised", "Odd") in kinds
    assert ("warned", "RuntimeWarning") in kinds
    library = [line for line in lines if line["msg"] == "a library says"]
    named = [(line["logger"], line.get("error"), line.get("why")) for line in library]
    assert ("aiohttp.server", "Odd", "Error handling request from %s") in named
    assert named.count(("somebody", None, None)) == 1
    assert ("somebody", None, "%d") in named
    places = [
        line["at"][-1] for line in lines if line.get("error") == "Odd" and line["msg"] != "a library says"
    ]
    assert all("breaks.py:" in place for place in places)
