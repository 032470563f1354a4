"""The server behind: answers every POST at once with a static result that carries the caller's id, and every GET
with a stream that is opened and says nothing. A process: prints `ready PORT` and runs until TERM.
"""

from __future__ import annotations

import asyncio
from typing import cast

import uvloop

from .messages import MESSAGE_BYTES, answer, id_of
from .processes import term
from .wire import body_length, head_end

_RESULT_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
    b"Content-Length: %d\r\n\r\n" % MESSAGE_BYTES
)
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Date: Thu, 01 Jan 2026 00:00:00 GMT\r\nTransfer-Encoding: chunked\r\n\r\n"
)
_NOT_FOR_US = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
"""To whatever is no call, such as the sidecar's own `server/discover`: any answer says that we are there."""


class Responder(asyncio.Protocol):
    """One connection of a caller."""

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        assert self._transport is not None
        while (start := head_end(self._buffer)) >= 0:
            end = start + body_length(self._buffer[:start])
            if len(self._buffer) < end:
                return
            self._transport.write(_reply(self._buffer[:start], self._buffer[start:end]))
            self._buffer = self._buffer[end:]


def _reply(head: bytes, body: bytes) -> bytes:
    if head.startswith(b"GET"):
        return _STREAM_HEAD
    try:
        return _RESULT_HEAD + answer(id_of(body))
    except ValueError:
        return _NOT_FOR_US


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Responder, "127.0.0.1", 0, backlog=4_096)
    stopping = term()
    print("ready", server.sockets[0].getsockname()[1], flush=True)
    await stopping.wait()


if __name__ == "__main__":
    uvloop.run(main())
