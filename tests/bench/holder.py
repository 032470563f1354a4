"""The idle crowd: opens many streams, or many connections that make one call each, and then says nothing more.

A process. Prints `held N` when all are open; on TERM `open N`, how many of them still are, and ends.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
from typing import Final, cast

import uvloop

from .messages import FIRST_ID, REVISIONS, Calls, listening
from .processes import term
from .wire import body_length, head_end

AT_ONCE: Final = 32
"""How many are being opened at the same time: a crowd that comes in, not one that is already there."""
OPEN_TIMEOUT_S: Final = 60.0


class Member(asyncio.Protocol):
    """One client: sends its request, waits for the head (a stream) or the whole answer, and stays."""

    def __init__(self, request: bytes, arrived: asyncio.Future[None]) -> None:
        self._request = request
        self._arrived = arrived
        self._buffer = b""
        self.is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.is_open = True
        cast(asyncio.Transport, transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        if self._arrived.done():
            return
        self._buffer += data
        start = head_end(self._buffer)
        if start < 0 or len(self._buffer) < start + body_length(self._buffer[:start]):
            return
        if self._buffer.startswith(b"HTTP/1.1 200 "):
            self._arrived.set_result(None)
        else:
            self._arrived.set_exception(ConnectionError(repr(self._buffer[:60])))

    def eof_received(self) -> None:
        # Counted at once: what follows from it comes a turn of the loop later, and TERM may be in between.
        self.is_open = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if not self._arrived.done():
            self._arrived.set_exception(ConnectionError("closed before it was answered"))


async def hold(port: int, kind: str, count: int, token: str) -> list[Member]:
    """Open `count` streams or connections. Raises ConnectionError or TimeoutError when one is not answered."""
    loop = asyncio.get_running_loop()
    calls = Calls(REVISIONS[0], port, token)
    members: list[Member] = []
    waiting = iter(range(count))

    async def open_some() -> None:
        for number in waiting:
            arrived: asyncio.Future[None] = loop.create_future()
            request = (
                listening(port, token) if kind == "streams" else calls.request(b"%d" % (FIRST_ID + number))
            )
            member = Member(request, arrived)
            members.append(member)
            await loop.create_connection(functools.partial(_same, member), "127.0.0.1", port)
            await arrived

    async with asyncio.timeout(OPEN_TIMEOUT_S), asyncio.TaskGroup() as crowd:
        for _ in range(AT_ONCE):
            crowd.create_task(open_some())
    return members


def _same(member: Member) -> Member:
    return member


async def main(port: int, kind: str, count: int, token: str) -> None:
    members = await hold(port, kind, count, token)
    stopping = term()
    print("held", len(members), flush=True)
    await stopping.wait()
    print("open", sum(each.is_open for each in members), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.bench.holder")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--kind", choices=("streams", "connections"), required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--token", default="")
    options = parser.parse_args()
    uvloop.run(main(options.port, options.kind, options.count, options.token))
