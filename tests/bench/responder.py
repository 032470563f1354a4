"""The server behind: answers every POST at once with a static result that carries the caller's id, and every GET
with a stream that is opened and says nothing. A process: prints `ready PORT` and runs until TERM.
"""

from __future__ import annotations

import uvloop

from .messages import MESSAGE_BYTES, answer, id_of
from .speaking import Speaking, serve

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


class Responder(Speaking):
    """One connection of a caller."""

    def asked(self, head: bytes, body: bytes) -> None:
        self.transport.write(_reply(head, body))


def _reply(head: bytes, body: bytes) -> bytes:
    if head.startswith(b"GET"):
        return _STREAM_HEAD
    try:
        return _RESULT_HEAD + answer(id_of(body))
    except ValueError:
        return _NOT_FOR_US


if __name__ == "__main__":
    uvloop.run(serve(Responder))
