"""A sidecar between a faulter and a recording server, each a process of its own, and what all of them wrote down.

    async with Scene(folder, settings=("capacity.max_in_flight=64",)) as scene:
        await scene.faulter.order(Order(rules=(Rule(does="reset", at=10),)))
        await scene.crowd.calls("do", count=100, at_once=8)
        await scene.settled()
        scene.seen()

In: settings as `--set` takes them, and a settings file where they are to change. Keeps three processes, which end when
the block is left.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from random import Random
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from proxy.demo.ports import free_ports
from tests import ledger
from tests.conformance.processes import end_with_parent

from .caller import RIGHT, Crowd, Told
from .observed import Ran, Seen
from .rules import Order, Rule, Struck

ROOT: Final = Path(__file__).parents[2]
START_S: Final = 30.0
ORDER_S: Final = 30.0
PLACES: Final = 64
SETTLE_S: Final = 10.0
"""Idle connections to the server are closed after 3 s, looked at every 3 s."""
HOLD_S: Final = 5.0
LOOK_EVERY_S: Final = 0.05
CREDENTIAL_NAME: Final = "LABORATORY_CREDENTIAL"
CREDENTIAL: Final = secrets.token_hex(24)
"""What sidecars present to the server. No fault makes one write it down."""


Line = TypeVar("Line")


class SceneFailed(RuntimeError):
    """Something of the laboratory itself does not work."""


class Gauges(Struct, frozen=True, kw_only=True):
    """What a sidecar holds at one moment."""

    tasks: int
    places: int
    waiting: int
    requests: int
    connections: int
    fds: int
    retiring: int
    """Readings of the settings in which calls are still under way, beside the one in force."""
    kept: int
    """Things that outlive a reload."""


async def started(
    *command: str, stdin: int = DEVNULL, stdout: int = DEVNULL, stderr: int | None = None
) -> Process:
    """A process of the checkout that ends when we do, without settings from our own environment."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MCP_")}
    clean[CREDENTIAL_NAME] = CREDENTIAL
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        cwd=ROOT,
        env=clean,
        limit=2**24,
        preexec_fn=end_with_parent(),
    )


async def ended(process: Process) -> None:
    """Kill it, whatever state it is in."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
    await process.wait()


class Program:
    """One that takes orders: faulter or server."""

    def __init__(self, name: str, *words: str) -> None:
        self._command = [sys.executable, "-m", f"tests.faults.{name}", *words]
        self._process: Process | None = None
        self._turn = asyncio.Lock()
        self.port = 0

    async def open(self) -> None:
        """Start it. Raises SceneFailed."""
        self._process = await started(*self._command, stdin=PIPE, stdout=PIPE)
        line = await self._line()
        if not line.startswith(b"ready "):
            raise SceneFailed(f"{self._command[2]} did not start: {line!r}")
        self.port = int(line.split()[1])

    async def order(self, order: object) -> dict[str, Any]:
        """What it says to an order. Raises SceneFailed."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        async with self._turn:
            process.stdin.write(msgspec.json.encode(order) + b"\n")
            said: dict[str, Any] = msgspec.json.decode(await self._line())
            return said

    async def _line(self) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        async with asyncio.timeout(ORDER_S):
            line = await self._process.stdout.readline()
        if not line:
            raise SceneFailed(f"{self._command[2]} has ended")
        return line

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def close(self) -> None:
        if self._process is not None:
            if self._process.stdin is not None:
                self._process.stdin.close()
            await ended(self._process)


class Recorder(Program):
    """The server, which may be killed and comes back on its port."""

    def __init__(self, log: Path, *, port: int = 0) -> None:
        super().__init__("server", "--port", str(port or free_ports(1)[0]), "--log", str(log))
        self.log = log

    async def restart(self) -> None:
        """SIGKILL, and start again on the same port."""
        await self.close()
        self._turn = asyncio.Lock()
        await self.open()

    def ran(self) -> list[Ran]:
        return read_lines(self.log, Ran)


class Faulty(Program):
    """The faulter."""

    def __init__(self, target: int, log: Path) -> None:
        super().__init__("faulter", "--target", str(target), "--log", str(log))
        self.log = log

    async def follow(self, *rules: Rule) -> None:
        """From now on these rules; none: nothing fails."""
        await self.order(Order(rules=rules))

    async def injected(self) -> int:
        """How many deeds it has done."""
        return int((await self.order(Order(reports=True)))["injected"])

    def struck(self) -> list[Struck]:
        return read_lines(self.log, Struck)


def read_lines(log: Path, kind: type[Line]) -> list[Line]:
    """What a program has written down; a line that a SIGKILL cut short is left out."""
    if not log.exists():
        return []
    whole = log.read_bytes().rpartition(b"\n")[0]
    decode = msgspec.json.Decoder(kind).decode
    return [decode(line) for line in whole.split(b"\n") if line]


class Sidecar:
    """The product under test; `module` is a launcher of the laboratory."""

    def __init__(
        self, upstream: int, *settings: str, module: Sequence[str] = (), config: Path | None = None
    ) -> None:
        """`config` is a settings file, which HUP reads again; `settings` win over it."""
        words = [
            f"upstream.url=http://127.0.0.1:{upstream}/mcp",
            "listen.address=127.0.0.1:0",
            "operations.address=127.0.0.1:0",
            f"capacity.max_in_flight={PLACES}",
            f"upstream.headers.X-Laboratory=${{{CREDENTIAL_NAME}}}",
            *settings,
        ]
        launcher = list(module) or ["tests.faults.watched"]
        file = [] if config is None else ["--config", str(config)]
        self._command = ["-m", *launcher, "run", *file, *(word for each in words for word in ("--set", each))]
        self._process: Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self.lines: list[dict[str, Any]] = []
        self.other: list[str] = []
        """What it said that is no log line."""
        self.leaked = 0
        """Lines with its credential in them."""
        self.port = 0
        self.operations = 0
        self._gauges = 0

    async def open(self) -> None:
        """Start it, and wait until it listens. Raises SceneFailed."""
        self._process = await started(sys.executable, *self._command, stderr=PIPE)
        self._reading = asyncio.get_running_loop().create_task(self._read())
        begun = await self.life("started")
        self.port, self.operations = port_of(begun["listen"]), port_of(begun["operations"])
        self._gauges = (await self.life("gauges"))["port"]

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        async for raw in self._process.stderr:
            ledger.look("fault log", raw)
            self.leaked += CREDENTIAL.encode() in raw
            try:
                self.lines.append(json.loads(raw))
            except ValueError:
                self.other.append(raw.decode(errors="replace"))
            self._news.set()
        self._news.set()

    async def life(self, message: str, seconds: float = START_S) -> dict[str, Any]:
        """The first line with this message, once it is there. Raises SceneFailed."""
        return await self.line(lambda line: line["msg"] == message, seconds=seconds)

    async def line(
        self, fits: Callable[[dict[str, Any]], bool], *, behind: int = 0, seconds: float = START_S
    ) -> dict[str, Any]:
        """The first line that fits, behind so many others, once it is there. Raises SceneFailed or TimeoutError."""
        async with asyncio.timeout(seconds):
            while True:
                found = next((line for line in self.lines[behind:] if fits(line)), None)
                if found is not None:
                    return found
                if self._reading is not None and self._reading.done():
                    raise SceneFailed(f"the sidecar ended: {self.lines[-3:]} {''.join(self.other[-20:])}")
                self._news.clear()
                await self._news.wait()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def calls(self) -> list[dict[str, Any]]:
        """Its lines about tool calls."""
        return [line for line in self.lines if "tool" in line and "request_id" in line]

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def exit_code(self, seconds: float) -> int:
        """Wait for its end. Raises TimeoutError."""
        assert self._process is not None
        assert self._reading is not None
        async with asyncio.timeout(seconds):
            code = await self._process.wait()
            await self._reading
        return code

    async def gauges(self) -> Gauges:
        """What it holds now. Raises OSError once it has ended."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._gauges)
        try:
            async with asyncio.timeout(ORDER_S):
                return msgspec.json.decode(await reader.read(), type=Gauges)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def probe(self, path: str = "/readyz") -> int:
        """The status of a probe."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.operations)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            async with asyncio.timeout(ORDER_S):
                return int((await reader.readline()).split()[1])
        finally:
            writer.close()

    def memory_bytes(self) -> int:
        """Resident now."""
        lines = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))

    async def close(self) -> None:
        if self._process is not None:
            await ended(self._process)
        if self._reading is not None:
            await self._reading


def port_of(url: str) -> int:
    return int(url.split("/")[2].rpartition(":")[2])


class Scene:
    """All three, and a crowd of callers."""

    def __init__(
        self,
        folder: Path,
        *,
        settings: Sequence[str] = (),
        module: Sequence[str] = (),
        random: Random,
        config: Path | None = None,
        is_direct: bool = False,
        settle_s: float = SETTLE_S,
    ) -> None:
        """`config` is the settings file, where there is one. `is_direct`: the faulter stands beside the way, not in
        it. `settle_s`: how long everything may take to be as at rest."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._settings = tuple(settings)
        self._module = tuple(module)
        self._random = random
        self._config = config
        self._is_direct = is_direct
        self._settle_s = settle_s
        self._stack = AsyncExitStack()
        self.server = Recorder(folder / "server.jsonl")
        self.at_rest: Gauges | None = None

    async def __aenter__(self) -> Scene:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.server.close)
            await self.server.open()
            self.faulter = Faulty(self.server.port, self._folder / "faulter.jsonl")
            stack.push_async_callback(self.faulter.close)
            await self.faulter.open()
            upstream = self.server.port if self._is_direct else self.faulter.port
            self.sidecar = Sidecar(upstream, *self._settings, module=self._module, config=self._config)
            stack.push_async_callback(self.sidecar.close)
            await self.sidecar.open()
            self.crowd = Crowd(self.sidecar.port, self._random)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def warm_up(self, token: str = "") -> None:
        """What the sidecar holds at rest, and a few calls of every kind. Raises SceneFailed."""
        self.at_rest = await self.sidecar.gauges()
        for tool in ("do", "sse"):
            for told in await self.crowd.calls(tool, count=8, at_once=2, token=token):
                if told.how != RIGHT:
                    raise SceneFailed(f"before any fault: {told}")

    async def settled(self, within_s: float | None = None) -> tuple[list[str], float]:
        """What is not as it was at rest after `within_s`, and how long it took to be so."""
        assert self.at_rest is not None
        within_s = self._settle_s if within_s is None else within_s
        began = time.monotonic()
        while True:
            now = await self.sidecar.gauges()
            above = [
                f"{name}: {getattr(now, name)}, {getattr(self.at_rest, name)} at rest"
                for name in now.__struct_fields__
                if getattr(now, name) > getattr(self.at_rest, name)
            ]
            took_s = time.monotonic() - began
            if not above or took_s > within_s:
                return [f"not as at rest after {within_s:g} s: {each}" for each in above], took_s
            await asyncio.sleep(LOOK_EVERY_S)

    async def all_places(self, token: str = "", patience_s: float = 15.0) -> list[str]:
        """Whether as many calls as there are places can be at the server at once: a gauge may lie."""

        async def held() -> Told:
            return await self.crowd.call("hold", patience_s=patience_s, token=token)

        asking = [asyncio.ensure_future(held()) for _ in range(PLACES)]
        try:
            holding = (await self.server.order({"holding": PLACES, "within_s": HOLD_S}))["holding"]
        finally:
            await self.server.order({"release": True})
            told = await asyncio.gather(*asking)
        wrong = [each for each in told if each.how != RIGHT]
        found = [] if holding == PLACES else [f"{holding} of {PLACES} places can be held at once"]
        return found + ([f"{len(wrong)} of {PLACES} held calls went wrong: {wrong[0]}"] if wrong else [])

    def seen(self) -> Seen:
        """What the four observers have written down so far."""
        return Seen(
            told=self.crowd.told,
            ran=self.server.ran(),
            struck=self.faulter.struck(),
            lines=self.sidecar.calls,
        )

    async def written(self, seconds: float = 5.0) -> None:
        """Wait until the sidecar has written a line about every call that was told something."""
        known = {
            told.nonce for told in self.crowd.told if told.how not in ("unconnected", "left", "gone", "cut")
        }
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            lines = {str(line["tool"]).rpartition("-")[2] for line in self.sidecar.calls}
            if known <= lines:
                return
            await asyncio.sleep(LOOK_EVERY_S)
