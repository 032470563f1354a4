"""Accepts connections on the data port, with TLS or without, and changes certificates under way.

In: an address, and what makes a protocol for each connection. Out: connections. Keeps the listening sockets.

It listens on duplicates of sockets it keeps: the kernel's queue of connections belongs to the socket, not to its
descriptors. So servers can be closed and others opened, and nobody is turned away in between: when the files of TLS
change, and when no more clients can be taken for a while. Whoever comes then waits in that queue. Running connections
belong to nobody here. A handshake under way ends with what it began with, within `head_timeout_s`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Final

from ..configuration.values import Address
from .settings import ListenSettings
from .tls import ReadFile, context_of

BACKLOG: Final = 4_096
"""Of the kernel's queue."""
AT_ONCE: Final = 16
"""With asyncio's own loop, which accepts as many as its queue is long before it makes a protocol of the first, so that
nobody could say no."""


def always() -> bool:
    return True


def bound(where: Address, *, reuse_port: bool) -> socket.socket | None:
    """A socket at an IP address, as `create_server` binds one; None where the host is a name, which that looks up. For
    this uvloop starts four threads, also where there is nothing to look up, and they wait as long as the process lives.
    Raises OSError naming the address.
    """
    try:
        is_six = ipaddress.ip_address(where.host).version == 6
    except ValueError:
        return None
    made = socket.socket(socket.AF_INET6 if is_six else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if is_six:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((where.host, where.port))
    except OSError as error:
        made.close()
        raise OSError(error.errno, f"cannot bind {where}: {error.strerror}") from None
    return made


class Acceptor:
    """The listening sockets of one address."""

    def __init__(
        self,
        settings: ListenSettings,
        make: Callable[[], asyncio.BaseProtocol],
        read: ReadFile,
        may_accept: Callable[[], bool] = always,
    ) -> None:
        """`may_accept` is asked at each connection whether others may follow; after a no it pauses until `resume`."""
        self._settings = settings
        self._make = make
        self._read = read
        self._may_accept = may_accept
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self._context: ssl.SSLContext | None = None
        self._changing = asyncio.Lock()
        self.is_paused = False
        """Whether whoever comes waits."""
        self.address = settings.address
        """Where connections are accepted; once open, with the port that the system picked."""

    async def open(self) -> None:
        """Listen. Raises OSError naming the address that cannot be had, or `Unusable` naming the file."""
        self._context = _context_of(self._settings, self._read)
        where = self._settings.address
        socket_there = bound(where, reuse_port=self._settings.reuse_port)
        try:
            server = await self._serve(socket_there or where)
        except BaseException:
            if socket_there is not None:
                socket_there.close()
            raise
        self._servers = [server]
        self._sockets = [each.dup() for each in server.sockets]
        self._lengthen_queues()
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
        async with self._changing:
            before = self._settings, self._context
            context = _context_of(settings, self._read)
            self._settings, self._context = settings, context
            if not self.is_paused:
                try:
                    await self._change()
                except BaseException:
                    self._settings, self._context = before
                    raise

    async def resume(self) -> None:
        """Accept again, those first who came meanwhile. Raises OSError when no descriptors are left, and stays paused
        then."""
        async with self._changing:
            if not self.is_paused:
                return
            self.is_paused = False
            try:
                await self._change()
            except BaseException:
                self.is_paused = True
                raise

    def stop_accepting(self) -> None:
        """Close the listening sockets. Connections stay."""
        _close(self._servers)
        for each in self._sockets:
            each.close()
        self._servers, self._sockets = [], []

    async def _change(self) -> None:
        """Other servers instead of those there are, on the same sockets."""
        fresh = await self._beside()
        if self._sockets:
            fresh, self._servers = self._servers, fresh
            self._lengthen_queues()
        _retire(fresh)  # the older ones; the new ones where accepting has stopped meanwhile
        self._pause()  # where a no came meanwhile

    def _lengthen_queues(self) -> None:
        for each in self._sockets:
            each.listen(BACKLOG)

    def _made(self) -> asyncio.BaseProtocol:
        if not self._may_accept() and not self.is_paused:
            self.is_paused = True
            self._pause()
        return self._make()

    def _pause(self) -> None:
        if self.is_paused:
            _retire(self._servers)
            self._servers = []

    async def _beside(self) -> list[asyncio.Server]:
        """Servers on duplicates of the sockets there are."""
        duplicates: list[socket.socket] = []
        fresh: list[asyncio.Server] = []
        try:
            for listening in self._sockets:
                duplicates.append(listening.dup())
                fresh.append(await self._serve(duplicates[-1]))
        except BaseException:
            _close(fresh)
            for each in duplicates:
                each.close()
            raise
        return fresh

    async def _serve(self, where: Address | socket.socket) -> asyncio.Server:
        loop, context = asyncio.get_running_loop(), self._context
        backlog = AT_ONCE if isinstance(loop, asyncio.BaseEventLoop) else BACKLOG
        # A handshake is the beginning of a head, and a farewell the end of an answer.
        handshake_s = None if context is None else self._settings.head_timeout_s
        farewell_s = None if context is None else self._settings.write_idle_timeout_s
        if isinstance(where, Address):
            return await loop.create_server(
                self._made,
                where.host,
                where.port,
                backlog=backlog,
                reuse_port=self._settings.reuse_port or None,
                ssl=context,
                ssl_handshake_timeout=handshake_s,
                ssl_shutdown_timeout=farewell_s,
            )
        return await loop.create_server(
            self._made,
            sock=where,
            backlog=backlog,
            ssl=context,
            ssl_handshake_timeout=handshake_s,
            ssl_shutdown_timeout=farewell_s,
        )


def _context_of(settings: ListenSettings, read: ReadFile) -> ssl.SSLContext | None:
    return None if settings.tls is None else context_of(settings.tls, read)


def _retire(servers: Iterable[asyncio.Server]) -> None:
    """Accept no more on these, and lose nobody whom they have accepted."""
    loop = asyncio.get_running_loop()
    if isinstance(loop, asyncio.BaseEventLoop):
        # It makes a transport one turn after it has accepted, and cannot for a server that is closed by then.
        for each in servers:
            for listening in each.sockets:
                loop.remove_reader(listening.fileno())
    # Later: a server of uvloop must not be closed while it accepts.
    loop.call_soon(_close, tuple(servers))


def _close(servers: Iterable[asyncio.Server]) -> None:
    for each in servers:
        each.close()
