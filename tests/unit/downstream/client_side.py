"""One client's connection without a kernel: real door, listener and connection, between a wire and a hall of ours.

In: what the wire brings, in pieces. Out: what was called, what was written and how the connection stands. A twin asks
the parser each time, so that what is told of it can be compared.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any, Final

from msgspec import Struct

from proxy.downstream.connection import Connection, Server
from proxy.downstream.door import Door
from proxy.downstream.listener import Endpoint, Listener
from proxy.downstream.settings import ListenSettings
from proxy.model import Call, Headers, Page, PageRequest, Reply
from proxy.refusals import explain
from tests.fakes import Diary, FakeJourney

LOOPS: Final = 12
"""Turns of the loop in which everything that can happen has happened."""
_DATE: Final = re.compile(rb"\r\nDate: [^\r]*")


def call(id: int = 1, tool: str = "echo", text: str = "") -> bytes:
    params = {"name": tool, "arguments": {"text": text}}
    return json.dumps({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}).encode()


def posted(
    body: bytes, *fields: bytes, line: bytes = b"POST /mcp HTTP/1.1", length: int | None = None
) -> bytes:
    said = len(body) if length is None else length
    head = [
        line,
        b"Host: localhost",
        b"Content-Type: application/json",
        *fields,
        b"Content-Length: %d" % said,
    ]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def behind(message: bytes, field: bytes) -> bytes:
    """The same with a field behind Content-Length."""
    return message.replace(b"\r\n\r\n", b"\r\n" + field + b"\r\n\r\n", 1)


def chunked(body: bytes) -> bytes:
    head = b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


ONE: Final = posted(call())
OTHER: Final = posted(call(id=2))
LATER: Final = posted(call(tool="later"))
PART: Final = b"POST /mcp HTTP/1.1\r\nX: "
"""The beginning of a message: what comes next belongs to a field."""


class Wire(asyncio.Transport):
    """The transport of a connection. What comes while reading is paused waits."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 9), "sockname": ("127.0.0.1", 9)})
        self.written = b""
        self.ending = ""
        self.connection: Connection
        self._is_paused = False
        self._waits: list[bytes] = []

    def bring(self, data: bytes) -> None:
        if self.ending:
            return
        if self._is_paused:
            self._waits.append(data)
        else:
            self.connection.data_received(data)

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if not self.ending:
            self.written += data

    def is_closing(self) -> bool:
        return bool(self.ending)

    def close(self) -> None:
        self._end("closed")

    def abort(self) -> None:
        self._end("aborted")

    def _end(self, how: str) -> None:
        if not self.ending:
            self.ending = how
            asyncio.get_running_loop().call_soon(self.connection.connection_lost, None)

    def stop(self) -> None:
        """A FIN."""
        if not self.ending and not self.connection.eof_received():
            self.close()

    def reset(self) -> None:
        """An RST."""
        if not self.ending:
            self.ending = "reset"
            self.connection.connection_lost(ConnectionResetError())

    def pause_reading(self) -> None:
        self._is_paused = True

    def resume_reading(self) -> None:
        self._is_paused = False
        while self._waits and not self._is_paused:
            self.connection.data_received(self._waits.pop(0))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0


class Asking(Connection):
    """Asks the parser each time."""

    def _comes_again(self, data: bytes) -> bool:
        return False


class Counting(Connection):
    """Tells what the parser was not asked about."""

    __slots__ = ("unasked",)

    def _comes_again(self, data: bytes) -> bool:
        comes_again = super()._comes_again(data)
        self.unasked = getattr(self, "unasked", 0) + comes_again
        return comes_again


class Standing(Struct, frozen=True):
    """What can be seen of a connection, and what it believes."""

    story: Diary
    written: bytes
    ending: str
    came: int
    answered: int
    head_bytes: int
    flags: tuple[bool, ...]


class ClientSide:
    """A door with one connection. `waits` names calls that are answered when they are told to."""

    def __init__(self, kind: type[Connection], settings: ListenSettings | None = None) -> None:
        self._settings = settings or ListenSettings()
        self.diary: Diary = []
        self.calls: list[Call] = []
        self.go = asyncio.Event()
        self.door = Door(self._settings, self._listener())
        self.connection = _made(kind, self.door.server, self._settings)
        self.wire = Wire()
        self.wire.connection = self.connection
        self.connection.connection_made(self.wire)

    def _listener(self) -> Listener:
        page = Page(methods=frozenset({"GET", "POST"}), answer=self._page)
        return Listener(
            self._settings,
            endpoints=[Endpoint(path="/mcp", methods=frozenset({"POST", "GET", "DELETE"}))],
            hall=self._hall,
            open_journey=lambda _: FakeJourney(self.diary),
            explain=lambda refused: explain(refused, None, "result"),
            report=lambda error: self.diary.append(("failed", repr(error))),
            pages=lambda path: page if path == "/page" else None,
        )

    async def _hall(self, call: Call) -> Reply:
        self.calls.append(call)
        headers = call.headers
        length = headers.get("content-length"), headers.all("content-length")
        said = (call.method, call.id, call.target, call.query, headers.pairs, length, call.body)
        self.diary.append(("called", *said))
        if call.target == "later":
            await self.go.wait()
        self.diary.append(("answered", call.id))
        reply = Reply(200, Headers([(b"Content-Type", b"application/json")]), b'{"to": %r}' % call.id)
        reply.when_done(call.journey.ended)
        return reply

    async def _page(self, asked: PageRequest) -> Reply:
        self.diary.append(("page", asked.method, asked.query, asked.headers.pairs, asked.body))
        return Reply(200, Headers(), b"page")

    def reload(self) -> None:
        """From now on another listener answers."""
        self.door.let_in(self._settings, self._listener())

    async def settled(self) -> None:
        for _ in range(LOOPS):
            await asyncio.sleep(0)

    async def asked(self, data: bytes) -> bytes:
        """What is written when these bytes have come."""
        before = len(self.wire.written)
        self.wire.bring(data)
        await self.settled()
        return self.wire.written[before:]

    @property
    def standing(self) -> Standing:
        own = self.connection
        return Standing(
            story=list(self.diary),
            written=_DATE.sub(b"", self.wire.written),
            ending=self.wire.ending,
            came=own._request_count,
            answered=own.answered,
            head_bytes=own._head_bytes,
            flags=(
                own.is_idle,
                own.is_deaf,
                own._is_between,
                own._close,
                own._force_close,
                own._head_deadline is None,
                own._keepalive_handle is None,
                own._grace is None,
                own._waiter is None,
                own._request_in_progress,
                own._reading_paused,
                own._buffer_paused,
            ),
        )

    async def close(self) -> None:
        """Whoever waits is answered; the connection ends."""
        self.go.set()
        await self.settled()
        self.wire.abort()
        await self.settled()


def _made(kind: type[Connection], server: Server, settings: ListenSettings) -> Connection:
    return kind(server, settings, server._handler, server._refuse_unparsed, asyncio.get_running_loop())
