"""The server behind peers that hold whole MCP sessions: every method has its static answer, with the caller's id. A
process: prints `ready PORT` and runs until TERM.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final, cast

import uvloop

from ..messages import MESSAGE_BYTES
from ..processes import term
from ..wire import body_length, head_end
from .peers import body_of
from .wrk import TOOL

_TEXT: Final = json.loads(body_of(MESSAGE_BYTES))["result"]
_SCHEMA: Final = {"type": "object", "properties": {}, "additionalProperties": True}
_ACCEPTED: Final = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
_NO_STREAM: Final = b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n"


class Speaker(asyncio.Protocol):
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
            head, body = self._buffer[:start], self._buffer[start:end]
            self._buffer = self._buffer[end:]
            self._transport.write(_reply(body) if head.startswith(b"POST") else _NO_STREAM)


def _reply(body: bytes) -> bytes:
    asked: dict[str, Any] = json.loads(body)
    if "id" not in asked or "method" not in asked:
        return _ACCEPTED
    said = json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": _result(asked)}).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % len(said) + said


def _result(asked: dict[str, Any]) -> object:
    match asked["method"]:
        case "initialize":
            return {
                "protocolVersion": asked["params"]["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "speaker", "version": "1"},
            }
        case "tools/list":
            return {"tools": [{"name": TOOL, "description": "Searches.", "inputSchema": _SCHEMA}]}
        case "tools/call":
            return _TEXT
        case _:
            return {}


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Speaker, "127.0.0.1", 0, backlog=4_096)
    stopping = term()
    print("ready", server.sockets[0].getsockname()[1], flush=True)
    await stopping.wait()


if __name__ == "__main__":
    uvloop.run(main())
