"""A client that sends the bytes it is given and reads the bytes that come."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from tests import ledger
from tests.integration.waiting import within
from tests.integration.wire import Answer, Fields, Head, read_head


class Cut(Exception):
    """The connection ended before the answer did."""


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._left: int | None = 0
        self._is_chunked = False
        self._is_over = True
        self._method = ""
        self.interim: list[int] = []
        """Statuses below 200 that came before an answer."""

    def send(self, data: bytes) -> None:
        self._method = data[:8].split(b" ")[0].decode("latin-1")
        self.more(data)

    def more(self, data: bytes) -> None:
        """Bytes that continue what was sent."""
        self._writer.write(data)

    async def head(self) -> Head:
        """The head of the next answer. Raises Cut."""
        while True:
            async with within():
                try:
                    block = await self._reader.readuntil(b"\r\n\r\n")
                except (asyncio.IncompleteReadError, ConnectionError):
                    raise Cut from None
            first, fields = read_head(block[:-4])
            status = int(first.split(" ")[1])
            if status >= 200:
                break
            self.interim.append(status)
        self._frame(status, fields)
        return Head(status=status, fields=fields)

    def _frame(self, status: int, fields: Fields) -> None:
        named = {name.lower(): value for name, value in fields}
        self._is_chunked = named.get("transfer-encoding", "").lower() == "chunked"
        length = named.get("content-length")
        self._left = int(length) if length is not None else None
        if self._is_chunked:
            self._left = None
        self._is_over = status in (204, 304) or self._method == "HEAD" or self._left == 0

    async def some(self) -> bytes:
        """The next piece of the body; empty at its proper end. Raises Cut."""
        if self._is_over:
            return b""
        async with within():
            try:
                return await self._piece()
            except (asyncio.IncompleteReadError, ConnectionError):
                raise Cut from None

    async def _piece(self) -> bytes:
        if self._is_chunked:
            size = int(await self._reader.readuntil(b"\r\n"), 16)
            piece = await self._reader.readexactly(size + 2)
            self._is_over = size == 0
            return piece[:-2]
        piece = await self._reader.read(65_536 if self._left is None else min(65_536, self._left))
        if self._left is not None:
            if not piece:
                raise Cut
            self._left -= len(piece)
            self._is_over = self._left == 0
        elif not piece:
            self._is_over = True
        return piece

    async def until(self, mark: bytes) -> bytes:
        """The body up to the piece that completes `mark`. Raises Cut."""
        got = b""
        while mark not in got:
            piece = await self.some()
            if not piece:
                raise AssertionError(f"the body ended without {mark!r}: {got!r}")
            got += piece
        return got

    async def rest(self) -> bytes:
        """What is left of the body. Raises Cut."""
        got = b""
        while piece := await self.some():
            got += piece
        return got

    async def rest_or_cut(self) -> tuple[bytes, bool]:
        """What is left of the body, and whether it was cut short."""
        got = b""
        try:
            while piece := await self.some():
                got += piece
        except Cut:
            return got, True
        return got, False

    async def answer(self) -> Answer:
        """The whole next answer. Raises Cut."""
        head = await self.head()
        answer = Answer(status=head.status, fields=head.fields, body=await self.rest())
        ledger.look("answer", repr(answer).encode())
        return answer

    async def asked(self, data: bytes) -> Answer:
        """Send, and the whole answer. Raises Cut."""
        self.send(data)
        return await self.answer()

    async def ended(self) -> bytes:
        """Wait until the other side has closed; whatever came before that."""
        async with within():
            try:
                return await self._reader.read()
            except ConnectionError:
                return b""

    def half_close(self) -> None:
        self._writer.write_eof()

    def reset(self) -> None:
        """Leave without a word: RST."""
        linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._writer.transport.abort()

    def pause(self) -> None:
        """Take nothing from the socket any more."""
        cast(asyncio.Transport, self._writer.transport).pause_reading()

    def resume(self) -> None:
        cast(asyncio.Transport, self._writer.transport).resume_reading()

    def close(self) -> None:
        self._writer.close()

    async def closed(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            return


@asynccontextmanager
async def connected(port: int, *, receive_bytes: int | None = None) -> AsyncIterator[Client]:
    """A connection to 127.0.0.1, closed at the end whatever happened."""
    raw = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    raw.setblocking(False)
    if receive_bytes is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    try:
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", port))
    except OSError:
        raw.close()
        raise
    reader, writer = await asyncio.open_connection(sock=raw, limit=2**26 if receive_bytes is None else 4096)
    client = Client(reader, writer)
    try:
        yield client
    finally:
        await client.closed()
