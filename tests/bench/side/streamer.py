"""The server behind streams: answers every call with notifications and then the answer, each an event of its own that
leaves by itself. A process: prints `ready PORT` and runs until TERM.
"""

from __future__ import annotations

import asyncio
import json
from typing import Final

import uvloop

from ..speaking import Speaking, serve
from .calls import body_of

NOTIFICATIONS: Final = 20
EVENTS: Final = NOTIFICATIONS + 1
"""Of one answer, which is the last of them."""
ANSWER_BYTES: Final = 256
_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
_END: Final = b"0\r\n\r\n"
_NOT_FOR_US: Final = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"


def _chunk(message: str) -> bytes:
    event = f"event: message\ndata: {message}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(event), event)


def _notification(number: int) -> str:
    params = {"level": "info", "logger": "bench", "data": f"step {number} of {NOTIFICATIONS} is done"}
    return json.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": params})


_CHUNKS: Final = (
    *(_chunk(_notification(number)) for number in range(1, NOTIFICATIONS + 1)),
    _chunk(body_of(ANSWER_BYTES)) + _END,
)


class Streamer(Speaking):
    """One connection of a caller."""

    def asked(self, head: bytes, body: bytes) -> None:
        if b'"method":"tools/call"' not in body:
            self.transport.write(_NOT_FOR_US)
            return
        self.transport.write(_HEAD)
        self._say(0)

    def _say(self, number: int) -> None:
        if self.transport.is_closing():
            return
        self.transport.write(_CHUNKS[number])
        # Not at once: what is written in one turn of the loop leaves together.
        if number + 1 < len(_CHUNKS):
            asyncio.get_running_loop().call_soon(self._say, number + 1)


if __name__ == "__main__":
    uvloop.run(serve(Streamer))
