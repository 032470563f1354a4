"""The bytes of calls and of their only right answers: whoever knows the nonce knows both."""

from __future__ import annotations

import hashlib
import json
from typing import Final

LEGACY: Final = "2025-11-25"
MODERN: Final = "2026-07-28"
_STATED: Final = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
}


def text_for(nonce: str) -> str:
    """What the server says to a call: nobody else's words."""
    return f"{nonce} {hashlib.sha256(nonce.encode()).hexdigest()[:16]}"


def answer_body(id: int | str, nonce: str, padding: int = 0) -> bytes:
    """The JSON-RPC answer to a call."""
    text = text_for(nonce) + " " * bool(padding) + "x" * padding
    result = {"content": [{"type": "text", "text": text}], "resultType": "complete"}
    return json.dumps({"jsonrpc": "2.0", "id": id, "result": result}, separators=(",", ":")).encode()


def event(data: bytes) -> bytes:
    return b"event: message\ndata: " + data + b"\n\n"


def call(
    tool: str,
    id: int,
    arguments: dict[str, object] | None = None,
    *,
    revision: str = LEGACY,
    token: str = "",
) -> bytes:
    """Head and body of one tool call."""
    params: dict[str, object] = {"name": tool, "arguments": arguments or {}}
    lines = [
        "POST /mcp HTTP/1.1",
        "Host: 127.0.0.1",
        "Accept: application/json, text/event-stream",
        "Content-Type: application/json",
        f"MCP-Protocol-Version: {revision}",
    ]
    if revision == MODERN:
        params["_meta"] = _STATED
        lines += ["Mcp-Method: tools/call", f"Mcp-Name: {tool}"]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    said = {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}
    body = json.dumps(said, separators=(",", ":")).encode()
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def listening() -> bytes:
    """The GET that opens a stream of server messages."""
    return (
        f"GET /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\nMCP-Protocol-Version: {LEGACY}\r\n\r\n"
    ).encode()
