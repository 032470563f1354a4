"""A server that does only what a test tells it, byte by byte.

In: nothing. Out: the requests as they came, and the sockets to answer them on. Keeps every byte and every
connection. The test is the script: it takes the next `Exchange` and says what goes back, and when.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

from proxy.configuration.socket_urls import url_of_socket
from proxy.demo.ports import free_ports
from tests import ledger
from tests.integration.waiting import LONGEST_S, within
from tests.integration.wire import Fields, Request, read_request

Script = Callable[["Exchange"], Coroutine[Any, Any, None]]


class Link(asyncio.Protocol):
    """One connection from the sidecar (or from a client that came straight here)."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._buffer = bytearray()
        self.received = bytearray()
        """Every byte that came, in order."""
        self.transport: asyncio.Transport | None = None
        self.left = asyncio.Event()
        """The peer closed the connection, or its half of it."""
        self.lost = asyncio.Event()
        """Nothing of the connection is left."""
        self._may_write = asyncio.Event()
        self._may_write.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one without inheriting from it
        self._upstream.links.append(self)
        if self._upstream.is_closed:
            self.reset()  # it came while the port was being closed

    def data_received(self, data: bytes) -> None:
        self.received += data
        self._buffer += data
        while (request := read_request(self._buffer)) is not None:
            self._upstream.came(Exchange(request, self))

    def eof_received(self) -> bool:
        self.left.set()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        ledger.look("upstream", bytes(self.received))
        self.left.set()
        self.lost.set()
        self._may_write.set()
        self.transport = None

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    @property
    def is_open(self) -> bool:
        return self.transport is not None and not self.transport.is_closing() and not self.left.is_set()

    @property
    def may_write(self) -> bool:
        return self._may_write.is_set()

    def write(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)

    async def drained(self) -> None:
        """Wait until the peer has taken enough of what was written."""
        await self._may_write.wait()

    def close(self) -> None:
        """Say that nothing more comes, after what was written."""
        if self.transport is not None:
            self.transport.close()

    def reset(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class Exchange:
    """One request, and the connection to answer it on."""

    def __init__(self, request: Request, link: Link) -> None:
        self.request = request
        self.link = link

    def write(self, data: bytes) -> None:
        self.link.write(data)

    def answer(
        self, body: bytes, *fields: str, status: str = "200 OK", kind: str = "application/json"
    ) -> None:
        """A whole answer with a Content-Length."""
        head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields]
        if kind:
            head.insert(1, f"Content-Type: {kind}")
        self.write("\r\n".join(head).encode() + b"\r\n\r\n" + body)

    def begin(self, *fields: str, kind: str = "text/event-stream") -> None:
        """The head of a chunked answer."""
        head = ["HTTP/1.1 200 OK", f"Content-Type: {kind}", "Transfer-Encoding: chunked", *fields]
        self.write("\r\n".join(head).encode() + b"\r\n\r\n")

    def chunk(self, data: bytes) -> None:
        self.write(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        self.write(b"0\r\n\r\n")

    async def left(self, seconds: float = LONGEST_S) -> None:
        """Wait until the peer has gone."""
        async with within(seconds):
            await self.link.left.wait()


class Upstream:
    """Listens on a port of its own, or on a socket file. Without a script every request waits for `next`."""

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self.links: list[Link] = []
        self.seen: list[Request] = []
        self._script: Script | None = None
        self._waiting: asyncio.Queue[Exchange] = asyncio.Queue()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.is_closed = False

    async def open(self) -> None:
        """Listen; where it was the last time, if there was one."""
        self.is_closed = False
        loop = asyncio.get_running_loop()
        if self.file is not None:
            self.file.unlink(missing_ok=True)
            self._server = await loop.create_unix_server(lambda: Link(self), str(self.file))
            return
        self.port = self.port or free_ports(1)[0]
        self._server = await loop.create_server(lambda: Link(self), "127.0.0.1", self.port)

    async def close(self) -> None:
        """Close the port and every connection."""
        for task in list(self._tasks):
            task.cancel()
        self.is_closed = True
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for link in self.links:
            link.reset()
            async with within():
                await link.lost.wait()
        if server is not None:
            await server.wait_closed()

    @property
    def url(self) -> str:
        if self.file is not None:
            return url_of_socket(str(self.file), "/mcp")
        return f"http://127.0.0.1:{self.port}/mcp"

    @property
    def open_links(self) -> int:
        return sum(link.is_open for link in self.links)

    def came(self, exchange: Exchange) -> None:
        self.seen.append(exchange.request)
        if self._script is None:
            self._waiting.put_nowait(exchange)
        else:
            task = asyncio.get_running_loop().create_task(self._script(exchange))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def follow(self, script: Script) -> None:
        """Answer every request by `script` from now on."""
        self._script = script

    async def next(self) -> Exchange:
        """The next request that nobody has answered yet."""
        async with within():
            return await self._waiting.get()

    @property
    def is_quiet(self) -> bool:
        """No request waits to be taken."""
        return self._waiting.empty()


def fields_of(request: Request, name: str) -> list[str]:
    """Every value of one field, as it came."""
    return [value for key, value in request.fields if key.lower() == name.lower()]


def named(fields: Fields) -> set[str]:
    return {name.lower() for name, _ in fields}
