"""A sidecar under test: in this process with its log lines at hand, or as a process that hears signals.

In: where its server is, and settings as `--set` takes them. Out: its ports. Keeps the lines it logged.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace.export import SpanExporter

from proxy.house import House
from proxy.lifecycle.guards import Guards, Life
from proxy.lifecycle.watch import look_at
from proxy.settings import Loaded, load_with_files
from proxy.telemetry.logs import Log
from tests import ledger
from tests.integration.client import Client, connected
from tests.integration.waiting import within
from tests.integration.wire import Answer, request

ROOT = Path(__file__).parents[2]
Line = dict[str, Any]
PRINTED = re.compile(
    rb'"msg":"(?:failed in the loop|nobody caught|could not be raised|a library says|warned)"'
)


class Lines:
    """What was logged."""

    def __init__(self) -> None:
        self._lines: list[Line] = []
        self._news = asyncio.Event()

    def write(self, raw: bytes) -> None:
        ledger.look("log", raw)
        self._lines.append(json.loads(raw))
        self._news.set()

    @property
    def calls(self) -> list[Line]:
        """The lines about messages, in the order of their endings."""
        return [line for line in self._lines if "request_id" in line]

    @property
    def life(self) -> list[Line]:
        return [line for line in self._lines if "request_id" not in line]

    async def when(self, is_there: Callable[[Lines], bool]) -> None:
        """Wait until the lines are so."""
        async with within(10):
            while not is_there(self):
                self._news.clear()
                await self._news.wait()

    async def next_calls(self, count: int = 1) -> list[Line]:
        """Wait until so many messages have ended, and all of their lines."""
        await self.when(lambda lines: len(lines.calls) >= count)
        return self.calls


async def never(_: float) -> None:
    """A moment that does not come."""
    await asyncio.Event().wait()


class Sidecar:
    """A running `House`."""

    def __init__(self, house: House, lines: Lines) -> None:
        self.house = house
        self.lines = lines

    @property
    def port(self) -> int:
        return self.house.data_address.port

    @property
    def operations(self) -> int:
        return self.house.operations_address.port

    async def probe(self, path: str) -> Answer:
        return await probe(self.operations, path)


async def probe(port: int, path: str) -> Answer:
    async with connected(port) as client:
        answer = await client.asked(request("GET", path))
        ledger.look("operations port", answer.body)
        return answer


@asynccontextmanager
async def sidecar(
    url: str,
    *overrides: str,
    drain_s: float = 1.0,
    file: Path | None = None,
    sleep: Callable[[float], Awaitable[object]] = never,
    guards: Callable[[Life], Guards] | None = None,
    exporter: SpanExporter | None = None,
) -> AsyncIterator[Sidecar]:
    """A house on free ports, closed at the end. With a settings file it can be reloaded; `sleep` is how it waits for
    that file to hold still, by default for ever: then it is reloaded when the test says so."""

    def read() -> Loaded:
        return load_with_files(
            file,
            overrides=[
                f"upstream.url={url}",
                "listen.address=127.0.0.1:0",
                "operations.address=127.0.0.1:0",
                f"drain_s={drain_s}",
                *overrides,
            ],
            environ={},
        )

    loaded = read()
    seen = look_at(loaded.files)
    lines = Lines()
    log = Log(lines.write)
    house = House(
        loaded.settings,
        log,
        files=loaded.files,
        seen=seen,
        read=None if file is None else read,
        guards=None if guards is None else guards(log.life),
        sleep=sleep,
        exporter=exporter,
    )
    await house.open()
    try:
        yield Sidecar(house, lines)
    finally:
        await house.close(grace_s=0)


class Process:
    """`python -m proxy run`, and what it says on standard error."""

    def __init__(self, process: asyncio.subprocess.Process, lines: Lines) -> None:
        self.process = process
        self.lines = lines
        self.other: list[str] = []
        """What it said that is no log line, or that Python would have printed."""

    async def listening(self) -> tuple[int, int]:
        """Data port and operations port, once it serves."""
        await self.lines.when(lambda lines: any(line["msg"] == "started" for line in lines.life))
        started = next(line for line in self.lines.life if line["msg"] == "started")
        return _port(started["listen"]), _port(started["operations"])

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def exit_code(self, seconds: float = 5.0) -> int:
        async with within(seconds):
            return await self.process.wait()


def _port(url: str) -> int:
    return int(url.split("/")[2].rpartition(":")[2])


@asynccontextmanager
async def process(
    *words: str, start: Sequence[str] = ("-m", "proxy"), descriptors: str | None = None
) -> AsyncIterator[Process]:
    """A command of the checkout, without settings from our own environment; killed at the end if need be. `start` is
    how Python is told to run it, `descriptors` how many files it may open (words of `ulimit`)."""
    limited = () if descriptors is None else ("sh", "-c", f'ulimit {descriptors}; exec "$@"', "sh")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MCP_")}
    child = await asyncio.create_subprocess_exec(
        *(*limited, sys.executable, *start, *words), cwd=ROOT, env=clean, stderr=asyncio.subprocess.PIPE
    )
    running = Process(child, Lines())

    async def read() -> None:
        assert child.stderr is not None
        async for raw in child.stderr:
            try:
                running.lines.write(raw)
            except ValueError:
                running.other.append(raw.decode())
            if PRINTED.search(raw):
                running.other.append(raw.decode())

    reading = asyncio.get_running_loop().create_task(read())
    try:
        yield running
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()
        await reading


def run_words(url: str, *overrides: str) -> list[str]:
    """The command line of a sidecar on free ports."""
    settings = [
        f"upstream.url={url}",
        "listen.address=127.0.0.1:0",
        "operations.address=127.0.0.1:0",
        *overrides,
    ]
    return ["run", *(word for each in settings for word in ("--set", each))]


__all__ = [
    "Client",
    "Lines",
    "Process",
    "Sidecar",
    "connected",
    "never",
    "probe",
    "process",
    "run_words",
    "sidecar",
]
