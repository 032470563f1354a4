"""The server behind the mixed run: says in every answer whose request it answers, to what, and as which of all it was;
sometimes late, in events, badly, or not at all. A process: prints `ready PORT` and runs until TERM.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final, cast

import uvloop

from .processes import term
from .wire import body_length, head_end

LATE_S: Final = 0.003
_JSON: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
_EVENTS: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n%b"
_FAILED: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\noops"
)
_NOT_FOR_US: Final = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"


class Ledger:
    """How many calls were answered, of all connections."""

    number = 0


class Nonces(asyncio.Protocol):
    """One connection of the sidecar."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (start := head_end(self._buffer)) >= 0:
            end = start + body_length(self._buffer[:start])
            if len(self._buffer) < end:
                return
            body, self._buffer = self._buffer[start:end], self._buffer[end:]
            self._answer(body)

    def _answer(self, body: bytes) -> None:
        asked: Any = json.loads(body) if body else {}
        if asked.get("method") != "tools/call":
            self._write(_NOT_FOR_US)
            return
        self._ledger.number += 1
        turn = self._ledger.number
        if turn % 101 == 0:
            self._write(_FAILED)
        elif turn % 211 == 0:
            self._lose()
        else:
            said = answer(asked, turn, is_error=turn % 97 == 0, is_private=turn % 7 == 0)
            whole = _JSON % (len(said), said)
            if turn % 17 == 0:
                event = b": ping\n\ndata: %b\n\n" % said
                whole = _EVENTS % (len(event), event)
            if turn % 3:
                # What was seen is from now; who waits meanwhile, waits for it.
                asyncio.get_running_loop().call_later(LATE_S * (turn % 5) / 5, self._write, whole)
            else:
                self._write(whole)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _lose(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def answer(asked: Any, turn: int, *, is_error: bool = False, is_private: bool = False) -> bytes:
    """The answer that says to what it is one."""
    params = asked["params"]
    nonce = [asked["id"], turn, params["name"], params["arguments"]]
    said: dict[str, object] = {
        "content": [{"type": "text", "text": json.dumps(nonce)}],
        "resultType": "complete",
    }
    if is_error:
        said["isError"] = True
    if is_private:
        said["cacheScope"] = "private"
    return json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": said}).encode()


async def main() -> None:
    ledger = Ledger()
    server = await asyncio.get_running_loop().create_server(
        lambda: Nonces(ledger), "127.0.0.1", 0, backlog=4_096
    )
    stopping = term()
    print("ready", server.sockets[0].getsockname()[1], flush=True)
    await stopping.wait()


if __name__ == "__main__":
    uvloop.run(main())
