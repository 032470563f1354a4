"""Accepts connections on the data port, with TLS or without, and changes certificates under way.

In: an address, and what makes a protocol for each connection. Out: connections. Keeps the listening sockets.

When the files of TLS change, servers with a new context are opened on duplicates of the listening sockets, and then
the older ones are closed. The kernel's queue of connections belongs to the socket, not to its descriptors, so that
nobody is turned away in between; running connections belong to nobody here. A handshake under way ends with what it
began with, within `head_timeout_s`.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Final

from ..configuration.values import Address
from .settings import ListenSettings
from .tls import ReadFile, context_of

BACKLOG: Final = 4_096


class Acceptor:
    """The listening sockets of one address."""

    def __init__(
        self, settings: ListenSettings, make: Callable[[], asyncio.BaseProtocol], read: ReadFile
    ) -> None:
        self._settings = settings
        self._make = make
        self._read = read
        self._servers: list[asyncio.Server] = []
        self._is_open = False
        self._renewing = asyncio.Lock()
        self.address = settings.address
        """Where connections are accepted; once open, with the port that the system picked."""

    async def open(self) -> None:
        """Listen. Raises OSError naming the address that cannot be had, or `Unusable` naming the file."""
        settings = self._settings
        server = await self._serve(settings.address, settings, _context(settings, self._read))
        self._servers, self._is_open = [server], True
        host, port = server.sockets[0].getsockname()[:2]
        self.address = Address(str(host), int(port))

    async def renew(self) -> None:
        """Let handshakes be made with what the files hold now.

        Raises `Unusable` naming the file, or OSError when no descriptors are left: then all stays as it was.
        """
        if self._settings.tls is not None:
            await self.change(self._settings)

    async def change(self, settings: ListenSettings) -> None:
        """Accept by these settings from now on, at the same address. Raises as `renew` does."""
        async with self._renewing:
            fresh = await self._beside(settings, _context(settings, self._read))
            self._settings = settings
            if self._is_open:
                fresh, self._servers = self._servers, fresh
            _close(fresh)  # the older ones; the new ones where accepting has stopped meanwhile

    def stop_accepting(self) -> None:
        """Close the listening sockets. Connections stay."""
        self._is_open = False
        _close(self._servers)

    async def _beside(self, settings: ListenSettings, context: ssl.SSLContext | None) -> list[asyncio.Server]:
        """Servers on duplicates of the sockets there are."""
        duplicates: list[socket.socket] = []
        fresh: list[asyncio.Server] = []
        try:
            for listening in [each for server in self._servers for each in server.sockets]:
                duplicates.append(listening.dup())
                fresh.append(await self._serve(duplicates[-1], settings, context))
        except BaseException:
            _close(fresh)
            for each in duplicates:
                each.close()
            raise
        return fresh

    async def _serve(
        self, where: Address | socket.socket, settings: ListenSettings, context: ssl.SSLContext | None
    ) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        # A handshake is the beginning of a head, and a farewell the end of an answer.
        handshake_s = None if context is None else settings.head_timeout_s
        farewell_s = None if context is None else settings.write_idle_timeout_s
        if isinstance(where, Address):
            return await loop.create_server(
                self._make,
                where.host,
                where.port,
                backlog=BACKLOG,
                ssl=context,
                ssl_handshake_timeout=handshake_s,
                ssl_shutdown_timeout=farewell_s,
            )
        return await loop.create_server(
            self._make,
            sock=where,
            backlog=BACKLOG,
            ssl=context,
            ssl_handshake_timeout=handshake_s,
            ssl_shutdown_timeout=farewell_s,
        )


def _context(settings: ListenSettings, read: ReadFile) -> ssl.SSLContext | None:
    return None if settings.tls is None else context_of(settings.tls, read)


def _close(servers: Iterable[asyncio.Server]) -> None:
    for each in servers:
        each.close()
