"""Starts the programs of the benchmark, and reads the memory and CPU time of a process from /proc (Linux only).

Each program prints one line when it is ready and ends on TERM.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from msgspec import Struct

from proxy.demo.ports import free_ports
from tests.conformance.processes import ProcessFailed, child, tail

READY_TIMEOUT_S: Final = 20.0
HELD_TIMEOUT_S: Final = 90.0
POLL_S: Final = 0.002
"""Between two looks at a port that is coming up: what start-to-ready can be wrong by."""


def raise_open_files() -> int:
    """As many open files as the hard limit allows, for us and our children. Returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def term() -> asyncio.Event:
    """Set when somebody sends TERM. Ask for it before you say that you are ready: TERM may follow at once."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    return stopping


def rss_bytes(pid: int) -> int:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise ProcessFailed(f"/proc/{pid}/smaps_rollup has no line Rss")


def peak_bytes(pid: int) -> int:
    """The most resident memory a process has ever had."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ProcessFailed(f"/proc/{pid}/status has no line VmHWM")


def cpu_s(pid: int) -> float:
    """User and system time a process has used, in the kernel's ticks of usually 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def busy_s() -> float:
    """Processor time of all cores that was not idle, by whomever, in the kernel's ticks."""
    first = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0]
    user, nice, system, _idle, _iowait, *others = map(int, first.split()[1:9])
    return (user + nice + system + sum(others)) / os.sysconf("SC_CLK_TCK")


class Running(Struct, frozen=True, kw_only=True):
    """A server that is up."""

    pid: int
    port: int
    ready_s: float
    """From the start of the process to its being ready: what it says, or for the sidecar a 200 of /readyz."""
    operations_port: int = 0
    """Of a sidecar."""


@asynccontextmanager
async def program(name: str, *words: str, logs: Path) -> AsyncIterator[Running]:
    """Run `tests.bench.NAME`, which prints `ready PORT`."""
    log = logs / f"{name}.log"
    started = time.perf_counter()
    async with child([sys.executable, "-m", f"tests.bench.{name}", *words], log=log, piped=True) as process:
        port = int(await said(process, "ready", log, READY_TIMEOUT_S))
        yield Running(pid=process.pid, port=port, ready_s=time.perf_counter() - started)


async def said(process: Process, word: str, log: Path, timeout_s: float) -> str:
    """What follows `word` in the next line of a program. Raises ProcessFailed with the end of its log."""
    assert process.stdout is not None
    try:
        async with asyncio.timeout(timeout_s):
            line = (await process.stdout.readline()).decode()
    except TimeoutError:
        line = ""
    if not line.startswith(word + " "):
        raise ProcessFailed(f"a program did not say {word!r}:\n{tail(log)}")
    return line.removeprefix(word).strip()


@asynccontextmanager
async def holding(port: int, kind: str, count: int, logs: Path, token: str = "") -> AsyncIterator[None]:
    """Hold `count` idle streams or connections while the block runs. Raises ProcessFailed when one was lost."""
    log = logs / "holder.log"
    words = ("--port", str(port), "--kind", kind, "--count", str(count), "--token", token)
    async with child([sys.executable, "-m", "tests.bench.holder", *words], log=log, piped=True) as process:
        await said(process, "held", log, HELD_TIMEOUT_S)
        yield
        process.terminate()
        still = int(await said(process, "open", log, READY_TIMEOUT_S))
        if still != count:
            raise ProcessFailed(f"{count - still} of {count} {kind} were closed while they were held")


@asynccontextmanager
async def sidecar(
    upstream_port: int, logs: Path, *settings: str, config: Path | None = None, place: Path | None = None
) -> AsyncIterator[Running]:
    """Run the sidecar as a user starts it who has no configuration but `settings`, as `--set` takes them, over those
    of a file; its log lines go to a file, as in a pod. `place` is where proxy/ is, if not here."""
    port, operations_port = free_ports(2)
    log = logs / "sidecar.log"
    command = [
        *(sys.executable, "-m", "proxy", "run"),
        *(("--config", str(config)) if config is not None else ()),
        *("--upstream", f"http://127.0.0.1:{upstream_port}/mcp"),
        *("--listen", f"127.0.0.1:{port}"),
        *("--set", f"operations.address=127.0.0.1:{operations_port}"),
        *("--set", "drain_s=1"),
        *(word for each in settings for word in ("--set", each)),
    ]
    env = {name: value for name, value in os.environ.items() if not name.startswith("MCP_SIDECAR_")}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # images and packages are compiled
    started = time.perf_counter()
    async with child(command, log=log, env=env, cwd=place) as process:
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                while not await _is_ready(operations_port):
                    if process.returncode is not None:
                        raise ProcessFailed(f"the sidecar ended:\n{tail(log)}")
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise ProcessFailed(f"the sidecar did not get ready:\n{tail(log)}") from None
        yield Running(
            pid=process.pid,
            port=port,
            ready_s=time.perf_counter() - started,
            operations_port=operations_port,
        )


async def _is_ready(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        return (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False
    finally:
        writer.close()
