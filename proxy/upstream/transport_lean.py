"""The transport for a server on this machine that speaks plain HTTP: sockets and llhttp, and nothing in between.

A quarter of what aiohttp's client costs: no task, timer or stream object for a request, one write for it, and an answer
that comes in one piece is whole before anybody waits for its body. Needs the extra `[fast]`.
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Callable, Sequence
from typing import Final

from ..configuration.socket_urls import socket_of
from ..configuration.values import url_host_and_port
from . import unix_socket
from .fields import Field, Fields
from .idle import Idle
from .lean_connection import Connection, Seen, Unheard
from .transport import EXHAUSTED, KEEP_ALIVE_S, Answer, NoRoom, Unreached, always

MAX_IDLE: Final = 1_024
"""Connections that wait for the next request; what is above them is closed after its answer."""
_SAFE_TO_REPEAT: Final = frozenset({"GET", "DELETE"})
_TARGET: Final = re.compile(r"/[\x21-\x7e]*", re.ASCII)
_METHOD: Final = re.compile(r"[A-Z]+", re.ASCII)


class LeanTransport:
    """Fulfils `Transport`. Build it inside a running loop."""

    def __init__(
        self, url: str, *, connect_timeout_s: float, may_connect: Callable[[], bool] = always
    ) -> None:
        """`may_connect` is asked before each new connection whether there are descriptors for it."""
        self._connect_timeout_s = connect_timeout_s
        self._may_connect = may_connect
        self._loop = asyncio.get_running_loop()
        file = socket_of(url)
        self._connect = (
            functools.partial(self._loop.create_connection, self._make, *url_host_and_port(url))
            if file is None
            else functools.partial(unix_socket.connection, self._make, file)
        )
        self._idle: Idle[Connection] = Idle(KEEP_ALIVE_S, MAX_IDLE)
        self._sweep: asyncio.TimerHandle | None = None
        self._all: set[Connection] = set()
        self._seen = Seen()
        self._is_closed = False
        self._last_asked = ("", "")
        self._last_line = b""

    async def send(self, method: str, target: str, headers: Sequence[Field], body: bytes | None) -> Answer:
        """As `Transport` says. Raises ValueError, and sends nothing, where a field would end its line."""
        asked = (method, target)
        if asked != self._last_asked:
            # Nearly every request has the same.
            self._last_line, self._last_asked = _request_line(method, target), asked
        lines = (headers if isinstance(headers, Fields) else Fields(headers)).lines
        if body is None and method == "GET":
            head = self._last_line + lines + b"\r\n"
            body = b""
        else:
            body = body or b""
            head = b"%bContent-Length: %d\r\n\r\n" % (self._last_line + lines, len(body))
        connection = self._kept()
        is_kept = connection is not None
        incoming = (connection or await self._connected()).ask(head, body)
        try:
            said = await incoming.head()
        except Unheard:
            # The server may have closed it while the request was under way, and nobody knows.
            if not is_kept or method not in _SAFE_TO_REPEAT:
                raise
            incoming = (await self._connected()).ask(head, body)
            said = await incoming.head()
        return Answer(
            status=incoming.status,
            headers=said,
            chunks=incoming,
            close=incoming.close,
            whole=incoming.whole,
        )

    def _kept(self) -> Connection | None:
        """The connection that was used last and may be used again."""
        now = self._loop.time()
        while (connection := self._idle.take(now)) is not None:
            if connection.is_quiet:
                return connection
            connection.drop()
        return None

    async def _connected(self) -> Connection:
        """A new connection. Raises Unreached or NoRoom."""
        if self._is_closed:
            raise Unreached
        if not self._may_connect():
            # Before a name is looked up: what fails there does not say that it lacked a descriptor.
            raise NoRoom
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await self._connect()
        except OSError as error:  # also when it took too long
            raise (NoRoom if error.errno in EXHAUSTED else Unreached) from error
        if self._is_closed or not connection.is_quiet:
            connection.drop()  # a server that speaks first is no HTTP server
            raise Unreached
        return connection

    def _make(self) -> Connection:
        connection = Connection(self._loop, self._free, self._all.discard, self._seen)
        self._all.add(connection)
        return connection

    def _free(self, connection: Connection) -> None:
        """Its answer is whole: the next request may have it."""
        too_many = self._idle.put(connection, self._loop.time())
        if too_many is not None:
            too_many.drop()
        if self._sweep is None:
            self._sweep_later()

    def _sweep_later(self) -> None:
        # One timer for all of them, and only while there are some.
        when = self._idle.first_end()
        self._sweep = None if when is None else self._loop.call_at(when, self._swept)

    def _swept(self) -> None:
        for connection in self._idle.ended(self._loop.time()):
            connection.drop()
        self._sweep_later()

    async def close(self) -> None:
        self._is_closed = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for connection in list(self._all):
            connection.drop()
        await asyncio.sleep(0)  # they hear of it


def _request_line(method: str, target: str) -> bytes:
    """Raises ValueError for what is no target: it would end early, or begin another line."""
    target = target.partition("#")[0]
    if not _METHOD.fullmatch(method) or not _TARGET.fullmatch(target):
        raise ValueError("no request target")
    return f"{method} {target} HTTP/1.1\r\n".encode("ascii")
