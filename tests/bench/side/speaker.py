"""The server behind peers that hold whole MCP sessions: every method has its static answer, with the caller's id. A
process: prints `ready PORT` and runs until TERM.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import uvloop

from ..messages import MESSAGE_BYTES
from ..speaking import Speaking, serve
from .calls import TOOL, body_of

_TEXT: Final = json.loads(body_of(MESSAGE_BYTES))["result"]
_SCHEMA: Final = {"type": "object", "properties": {}, "additionalProperties": True}
_HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_ACCEPTED: Final = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
_NO_STREAM: Final = b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n"
_OFTEN: Final = re.compile(rb'\{"jsonrpc":"2\.0","id":1,"method":"tools/call"')
"""What wrk asks again and again. Who passes it on as it came is not to wait for us."""
_OFTEN_SAID: Final = body_of(MESSAGE_BYTES).encode()


class Speaker(Speaking):
    """One connection of a caller."""

    def asked(self, head: bytes, body: bytes) -> None:
        self.transport.write(_reply(body) if head.startswith(b"POST") else _NO_STREAM)


def _reply(body: bytes) -> bytes:
    if _OFTEN.match(body):
        return _HEAD % len(_OFTEN_SAID) + _OFTEN_SAID
    asked: dict[str, Any] = json.loads(body)
    if "id" not in asked or "method" not in asked:
        return _ACCEPTED
    answer = {"jsonrpc": "2.0", "id": asked["id"], "result": _result(asked)}
    said = json.dumps(answer, separators=(",", ":")).encode()
    return _HEAD % len(said) + said


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


if __name__ == "__main__":
    uvloop.run(serve(Speaker))
