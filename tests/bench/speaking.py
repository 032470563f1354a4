"""What the servers behind have in common: requests of known length come in whole, one after the other on a connection.

In: bytes. Out: whatever a subclass writes. Keeps what is there of the next request.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable
from typing import cast

from .processes import term
from .wire import body_length, head_end


class Speaking(asyncio.Protocol):
    """One connection of a caller."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (start := head_end(self._buffer)) >= 0:
            end = start + body_length(self._buffer[:start])
            if len(self._buffer) < end:
                return
            head, body = self._buffer[:start], self._buffer[start:end]
            self._buffer = self._buffer[end:]
            self.asked(head, body)

    @abstractmethod
    def asked(self, head: bytes, body: bytes) -> None:
        """A request is here."""


async def serve(make: Callable[[], Speaking]) -> None:
    """Listen on a port of 127.0.0.1, print `ready PORT`, until TERM."""
    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0, backlog=4_096)
    stopping = term()
    print("ready", server.sockets[0].getsockname()[1], flush=True)
    await stopping.wait()
