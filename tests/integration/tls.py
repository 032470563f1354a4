"""TLS in tests: the files of a sidecar, and clients with and without a certificate.

In: a folder. Out: settings, contexts, connections. Keeps nothing but the files.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar, cast

from cryptography import x509

from tests.certificates import Authority, Issued, a_name
from tests.integration.client import Client, Cut
from tests.integration.waiting import within

T = TypeVar("T")
LOOPBACK = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
REFUSED = (Cut, OSError, asyncio.IncompleteReadError)
"""How a client hears that TLS said no: in its handshake, or in TLS 1.3 with its first answer."""


class Pki:
    """An authority for servers and one for clients, and the files that a sidecar reads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.servers = Authority("servers")
        self.clients = Authority("clients")
        self.certificate = folder / "own.pem"
        self.key = folder / "own.key"
        self.client_ca = folder / "clients.pem"
        self.own = self.new_own()
        self.client_ca.write_bytes(self.clients.pem)

    def new_own(self, authority: Authority | None = None) -> Issued:
        """Another certificate of the sidecar, in its files."""
        own = (authority or self.servers).issue(a_name(CN="sidecar"), names=[LOOPBACK])
        own.written(self.folder, "own")
        self.own = own
        return own

    def context(self, issued: Issued | None = None, authority: Authority | None = None) -> ssl.SSLContext:
        """What a client shakes hands with: it believes our servers' authority, and may show a certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=(authority or self.servers).pem.decode())
        if issued is not None:
            context.load_cert_chain(
                *issued.written(self.folder, f"client-{issued.certificate.serial_number}")
            )
        return context

    def overrides(self, *, mutual: bool = False, optional: bool = False) -> list[str]:
        """The settings of `listen.tls`, as `--set` takes them."""
        words = [f"listen.tls.certificate_file={self.certificate}", f"listen.tls.key_file={self.key}"]
        if mutual:
            words.append(f"listen.tls.client_ca_file={self.client_ca}")
        if optional:
            words.append("listen.tls.client_certificate=optional")
        return words


class TlsClient(Client):
    """A connection over TLS."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self._tls: ssl.SSLObject = writer.get_extra_info("ssl_object")

    @property
    def shown(self) -> bytes | None:
        """The certificate of the other side."""
        return self._tls.getpeercert(binary_form=True)


@asynccontextmanager
async def tls_connected(
    port: int, context: ssl.SSLContext, *, receive_bytes: int | None = None
) -> AsyncIterator[TlsClient]:
    """A connection to 127.0.0.1, closed at the end whatever happened. Raises OSError when TLS says no."""
    raw = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    raw.setblocking(False)
    if receive_bytes is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    async with within():
        try:
            await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", port))
            reader, writer = await asyncio.open_connection(
                sock=raw,
                ssl=context,
                server_hostname="127.0.0.1",
                limit=2**26 if receive_bytes is None else 4096,
            )
        except BaseException:
            raw.close()
            raise
    client = TlsClient(reader, writer)
    try:
        yield client
    finally:
        await client.closed()


class ByHand:
    """TLS over a connection whose every byte is ours: what no library would do can be done."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="127.0.0.1")

    async def _until(self, act: Callable[[], T]) -> T:
        """Do it, with as many bytes from the other side as it takes. Raises Cut."""
        async with within():
            while True:
                try:
                    return act()
                except ssl.SSLWantReadError:
                    self._flush()
                    came = await self._reader.read(65_536)
                    if not came:
                        raise Cut from None
                    self._incoming.write(came)
                finally:
                    self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._writer.write(self._outgoing.read())

    async def shake(self) -> None:
        await self._until(self._tls.do_handshake)

    def send(self, data: bytes) -> None:
        self._tls.write(data)
        self._flush()

    async def some(self) -> bytes:
        return await self._until(lambda: self._tls.read(65_536))

    async def cut(self) -> None:
        """Wait until the connection is closed below TLS."""
        async with within():
            try:
                while await self._reader.read(65_536):
                    pass
            except ConnectionError:
                return

    async def until(self, mark: bytes) -> bytes:
        got = b""
        while mark not in got:
            got += await self.some()
        return got

    def say_farewell(self) -> None:
        """close_notify, and no FIN."""
        try:
            self._tls.unwrap()
        except ssl.SSLWantReadError:
            self._flush()

    def half_close(self) -> None:
        """A FIN, and no close_notify."""
        self._writer.write_eof()

    def reset(self) -> None:
        linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._writer.transport.abort()

    def pause(self) -> None:
        """Take nothing from the socket any more."""
        cast(asyncio.Transport, self._writer.transport).pause_reading()

    def resume(self) -> None:
        cast(asyncio.Transport, self._writer.transport).resume_reading()


@asynccontextmanager
async def by_hand(
    port: int, context: ssl.SSLContext, *, receive_bytes: int | None = None
) -> AsyncIterator[ByHand]:
    """Such a connection, its handshake done."""
    raw = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    raw.setblocking(False)
    if receive_bytes is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=raw, limit=4096)
    try:
        client = ByHand(reader, writer, context)
        await client.shake()
        yield client
    finally:
        writer.transport.abort()
