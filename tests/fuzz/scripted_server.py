"""A server that says the bytes it is given, and hangs up; and what a transport makes of them.

In: pieces. Out: what whoever asked could observe. Keeps nothing between two exchanges.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from msgspec import Struct

from proxy.upstream.transport import Lost, Transport, Unreached

FIELDS = [(b"Host", b"server.test"), (b"X-A", b"1")]
BODY = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
LONGEST_S = 5.0


class Seen(Struct, frozen=True):
    """A whole answer."""

    status: int
    pairs: tuple[tuple[bytes, bytes], ...]
    body: bytes


class _Link(asyncio.Protocol):
    def __init__(self, server: ScriptedServer) -> None:
        self._server = server
        self._came = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._came += data
        if self._came.endswith(BODY):
            self._came = b""
            self._server.asked += 1
            self._say(list(self._server.script))

    def _say(self, pieces: list[bytes]) -> None:
        """One piece at a turn of the loop, so that they arrive one by one."""
        if self.transport is None or self.transport.is_closing():
            return  # whoever asked has heard enough
        if pieces:
            self.transport.write(pieces.pop(0))
            asyncio.get_running_loop().call_soon(self._say, pieces)
        else:
            self.transport.close()


class ScriptedServer:
    """Listens on a port of its own."""

    def __init__(self) -> None:
        self.script: Sequence[bytes] = ()
        self.asked = 0
        self.port = 0
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Link(self), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def told(self, make: Any, script: Sequence[bytes]) -> Seen | str:
        """What a new transport of this make gets to hear: an answer, or the name of what it raised."""
        self.script, self.asked = script, 0
        transport: Transport = make(f"http://127.0.0.1:{self.port}", connect_timeout_s=LONGEST_S)
        try:
            async with asyncio.timeout(LONGEST_S):
                return await _heard(transport)
        finally:
            await transport.close()


async def _heard(transport: Transport) -> Seen | str:
    try:
        answer = await transport.send("POST", "/mcp", FIELDS, BODY)
    except (Lost, Unreached) as error:
        return _name(error)
    try:
        body = b"".join([chunk async for chunk in answer.chunks])
    except Lost as error:
        return _name(error)
    finally:
        answer.close()
    return Seen(answer.status, answer.headers.pairs, body)


def _name(error: Exception) -> str:
    return "Lost" if isinstance(error, Lost) else "Unreached"
