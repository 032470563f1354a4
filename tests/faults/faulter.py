"""A wire that fails as it is told: between sidecar and server, a process of its own.

    python -m tests.faults.faulter --target PORT --log FILE

In: orders on stdin (see rules.py). Out: a line in FILE for each exchange that carries a nonce and for each deed;
`{"injected": N}` to an order that asks for a report. Requests are passed on when they are whole, answers as they
come, except where a rule needs to know how long they are.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgspec

from proxy.demo.ports import free_ports

from .http import whole_length
from .orders import obey
from .rules import AT_THE_DOOR, IN_A_MANNER, NONCE, Order, Rule, Struck

RST = b"\x01\x00\x00\x00\x00\x00\x00\x00"
"""SO_LINGER with no time to linger."""


class Plan:
    """Which rule strikes next? Pure but for its count."""

    def __init__(self, rules: tuple[Rule, ...] = ()) -> None:
        self.rules = rules
        self._seen = [0] * len(rules)
        self._done = [0] * len(rules)

    def for_exchange(self, *, is_reused: bool) -> tuple[Rule, int] | None:
        """The first rule that strikes this exchange, and how often it has struck before."""
        for number, rule in enumerate(self.rules):
            if rule.does in AT_THE_DOOR or (rule.is_reused and not is_reused):
                continue
            self._seen[number] += 1
            if self._seen[number] % rule.every == 0:
                done = self._done[number]
                self._done[number] += 1
                return rule, done
        return None

    def door(self) -> str | None:
        """What awaits whoever wants to connect."""
        return next((rule.does for rule in self.rules if rule.does in AT_THE_DOOR), None)


def place(rule: Rule, done: int, length: int) -> int:
    """Where in a message of `length` bytes (`flip`: bits) the rule strikes the next time."""
    return (rule.at + done * rule.step) % (length + 1) if rule.sweeps else min(rule.at, length)


def flipped(message: bytes, bit: int) -> bytes:
    """The message with one bit of it the other way round."""
    changed = bytearray(message)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


class Faulter:
    """Listens, and pairs each connection with one to the target."""

    def __init__(self, target: int, log: Path) -> None:
        self.target = target
        self.plan = Plan()
        self.links: set[Link] = set()
        self.injected = 0
        self.port = 0
        self._file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._encode = msgspec.json.Encoder().encode
        self._server: asyncio.Server | None = None
        self._hole: list[socket.socket] = []
        self.tasks: set[asyncio.Task[None]] = set()

    def note(self, struck: Struck) -> None:
        if struck.does:
            self.injected += 1
        os.write(self._file, self._encode(struck) + b"\n")

    async def open(self) -> None:
        """Listen on the port of the last time, where there was one."""
        self.port = self.port or free_ports(1)[0]
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            functools.partial(Link, self), "127.0.0.1", self.port, backlog=4_096
        )

    async def _shut(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None
        for each in self._hole:
            each.close()
        self._hole = []

    async def do(self, line: bytes) -> bytes:
        order = msgspec.json.decode(line, type=Order)
        if order.rules is not None:
            self.plan = Plan(order.rules)
            await self._open_door(self.plan.door())
        if order.drops:
            for link in list(self.links):
                link.reset()
        return self._encode({"injected": self.injected, "links": len(self.links)})

    async def _open_door(self, door: str | None) -> None:
        if door in ("refuse", "black_hole"):
            await self._shut()
            for link in list(self.links):
                link.reset()
            while self.links:  # noqa: ASYNC110  they are reset in a turn of the loop to come
                await asyncio.sleep(0)
            if door == "black_hole":
                self._dig()
        elif self._server is None:
            await self._shut()
            await self.open()

    def _dig(self) -> None:
        """A listener whose queue is full: the kernel drops what else wants to connect, without a word."""
        hole = socket.socket()
        hole.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        hole.bind(("127.0.0.1", self.port))
        hole.listen(0)
        self._hole = [hole]
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(("127.0.0.1", self.port))
            self._hole.append(filler)

    def start(self, work: asyncio.Future[None] | asyncio.Task[None]) -> None:
        task = cast("asyncio.Task[None]", work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


class Link(asyncio.Protocol):
    """A connection of the sidecar, and the one to the target that belongs to it."""

    def __init__(self, faulter: Faulter) -> None:
        self._faulter = faulter
        self._down: asyncio.Transport | None = None
        self._up: asyncio.Transport | None = None
        self._asked = bytearray()
        self._answer = bytearray()
        self._exchanges = 0
        self._nonce = ""
        self._strike: tuple[Rule, int] | None = None
        self._is_deaf = False
        self._pending: asyncio.Queue[tuple[asyncio.Transport, bytes, Rule]] = asyncio.Queue()
        self._is_playing = False
        self._has_begun = False
        self._holds_closing = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._down = cast(asyncio.Transport, transport)
        self._faulter.links.add(self)
        if self._faulter.plan.door() == "tar_pit":
            self._faulter.note(
                Struck(nonce="", at_ns=time.monotonic_ns(), does="tar_pit", where="connection")
            )
            self._is_deaf = True
            return
        self._down.pause_reading()
        self._faulter.start(asyncio.get_running_loop().create_task(self._connect()))

    async def _connect(self) -> None:
        try:
            up, _ = await asyncio.get_running_loop().create_connection(
                lambda: Far(self), "127.0.0.1", self._faulter.target
            )
        except OSError:
            self.reset()
            return
        self._up = up
        if self._down is None:
            self._up.close()
        else:
            self._down.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            return
        self._asked += data
        while (length := whole_length(self._asked)) is not None:
            request = bytes(self._asked[:length])
            del self._asked[:length]
            self._exchange(request)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._down = None
        self._faulter.links.discard(self)
        if self._up is not None:
            self._up.abort()

    def _exchange(self, request: bytes) -> None:
        found = NONCE.search(request)
        self._answer.clear()
        self._nonce, self._strike, self._has_begun = "", None, False
        if found is not None:
            self._nonce = found[1].decode()
            self._faulter.note(Struck(nonce=self._nonce, at_ns=time.monotonic_ns()))
            self._strike = self._faulter.plan.for_exchange(is_reused=self._exchanges > 0)
            self._exchanges += 1
        if self._up is None:
            return
        if self._strike is None or self._strike[0].where == "answer":
            self._up.write(request)
        else:
            self._message(request, self._up)

    def came_back(self, data: bytes) -> None:
        """Bytes of the target."""
        if self._down is None or self._is_deaf:
            return
        if self._strike is None or self._strike[0].where == "request":
            self._down.write(data)
        elif self._strike[0].does in (*IN_A_MANNER, "slow_close"):
            if not self._has_begun:
                self._has_begun = True
                self._struck("answer", 0, 0)
            if self._strike[0].does == "slow_close":
                self._holds_closing = self._strike[0].seconds
                self._down.write(data)
            else:
                self._in_manner(data, self._down, self._strike[0])
        else:
            self._answer += data
            length = whole_length(self._answer)
            if length is not None:
                answer = bytes(self._answer[:length])
                self._answer.clear()
                self._message(answer, self._down)

    def far_end(self) -> None:
        """The target has closed its end."""
        self._up = None
        if self._down is None:
            return
        if self._answer:
            self._down.write(bytes(self._answer))
        self._later(self._holds_closing, self._close)

    def _struck(self, where: str, where_in_it: int, of: int) -> None:
        assert self._strike is not None
        self._faulter.note(
            Struck(
                nonce=self._nonce,
                at_ns=time.monotonic_ns(),
                does=self._strike[0].does,
                where=where,
                place=where_in_it,
                of=of,
            )
        )

    def _message(self, message: bytes, to: asyncio.Transport) -> None:
        """Pass a whole message on as the rule says."""
        assert self._strike is not None
        rule, done = self._strike
        unit = 8 if rule.does == "flip" else 1
        # A flip needs a bit to strike; everything else may strike behind the end.
        at = place(rule, done, len(message) * unit - (unit > 1))
        self._struck(rule.where, at, len(message) * unit)
        if rule.does in IN_A_MANNER:
            self._in_manner(message, to, rule)
        elif rule.does == "flip":
            to.write(flipped(message, at))
        elif rule.does == "inject":
            payload = rule.payload.encode("latin-1")
            to.write(message[:at])
            if rule.seconds:
                to.write(message[at:])
                self._later(rule.seconds, lambda: to.write(payload))
            else:
                to.write(payload + message[at:])
        elif rule.does == "hang_up":
            to.write(message)
            self._later(rule.seconds, self._close)
        else:
            to.write(message[:at])
            self._break(rule.does, to)

    def _break(self, does: str, to: asyncio.Transport) -> None:
        self._is_deaf = True
        if does == "reset":
            if to is self._up:
                to.write_eof()
            self.reset()
        elif does == "cut":
            self._close()
        elif does == "half_open":
            to.write_eof()

    def _in_manner(self, data: bytes, to: asyncio.Transport, rule: Rule) -> None:
        self._pending.put_nowait((to, data, rule))
        if not self._is_playing:
            self._is_playing = True
            self._faulter.start(asyncio.get_running_loop().create_task(self._play()))

    async def _play(self) -> None:
        try:
            while not self._pending.empty():
                to, data, rule = self._pending.get_nowait()
                if rule.does == "latency":
                    await asyncio.sleep(rule.seconds)
                    to.write(data)
                    continue
                step = 1 if rule.does == "slice" else max(1, int(rule.bytes_per_s / 20))
                for at in range(0, len(data), step):
                    if to.is_closing():
                        return
                    to.write(data[at : at + step])
                    await asyncio.sleep(step / rule.bytes_per_s if rule.bytes_per_s else 0)
        finally:
            self._is_playing = False

    def _later(self, seconds: float, do: Callable[[], object]) -> None:
        if seconds:
            asyncio.get_running_loop().call_later(seconds, do)
        else:
            do()

    def _close(self) -> None:
        if self._down is not None:
            self._down.close()

    def reset(self) -> None:
        """RST to the sidecar; the target hears of it too."""
        if self._down is not None:
            own = self._down.get_extra_info("socket")
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
            self._down.abort()


class Far(asyncio.Protocol):
    """The connection to the target."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def data_received(self, data: bytes) -> None:
        self._link.came_back(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._link.far_end()


async def main(target: int, log: Path) -> None:
    faulter = Faulter(target, log)
    await faulter.open()
    await obey(faulter.port, faulter.do)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.faults.faulter")
    parser.add_argument("--target", type=int, required=True)
    parser.add_argument("--log", type=Path, required=True)
    options = parser.parse_args()
    # Not uvloop: there a write waits for the end of the turn, and a reset would overtake it.
    asyncio.run(main(options.target, options.log))
