"""The bytes of the benchmark, made once: in goes an id, out come a request and the answer it must get.

Ids have seven digits, so that every message has the same length and the responder finds its place by a search.
"""

from __future__ import annotations

import json
from typing import Final

MESSAGE_BYTES: Final = 1_024
"""Body of a call, and body of its answer."""
REVISIONS: Final = ("2025-11-25", "2026-07-28")
"""Of each era the newest: the legacy one repeats nothing in headers, the modern one repeats method and name."""

ID_DIGITS: Final = 7
FIRST_ID: Final = 1_000_000
LAST_ID: Final = 9_999_999
_ID_MARK: Final = b'"id":'


def _padded(before: str, after: str) -> tuple[bytes, bytes]:
    """`before`, id, `after` with a string of x where `after` says PAD: together MESSAGE_BYTES long."""
    room = MESSAGE_BYTES - ID_DIGITS - len(before) - len(after) + len("PAD")
    return before.encode(), after.replace("PAD", "x" * room).encode()


def _call_parts(revision: str) -> tuple[bytes, bytes]:
    arguments = '"arguments":{"query":"PAD","limit":10,"tags":["one","two"],"deep":{"a":[1,2.5,null,true]}}'
    meta = ""
    if revision == "2026-07-28":
        stated = {
            "io.modelcontextprotocol/protocolVersion": revision,
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        meta = ',"_meta":' + json.dumps(stated, separators=(",", ":"))
    return _padded(
        '{"jsonrpc":"2.0","id":',
        f',"method":"tools/call","params":{{"name":"search_documents",{arguments}{meta}}}}}',
    )


_ANSWER: Final = _padded(
    '{"jsonrpc":"2.0","id":', ',"result":{"content":[{"type":"text","text":"PAD"}],"isError":false}}'
)


def answer(id_: bytes) -> bytes:
    """The body of the answer to the call with this id."""
    return _ANSWER[0] + id_ + _ANSWER[1]


def id_of(body: bytes) -> bytes:
    """The digits of the id of a call. Raises ValueError where there is none: nothing else is sent here."""
    at = body.index(_ID_MARK) + len(_ID_MARK)
    digits = body[at : at + ID_DIGITS]
    if not digits.isdigit():
        raise ValueError("no id of seven digits")
    return digits


class Calls:
    """Requests of one revision, head and body, for any id."""

    def __init__(self, revision: str, port: int, token: str = "") -> None:
        """With a `token` the session is left out: whoever is told apart must have been given one."""
        before, self._after = _call_parts(revision)
        lines = [
            "POST /mcp HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            "Accept: application/json, text/event-stream",
            "Content-Type: application/json",
            f"Content-Length: {MESSAGE_BYTES}",
            f"MCP-Protocol-Version: {revision}",
            "User-Agent: bench/1",
        ]
        if revision == "2026-07-28":
            lines += ["Mcp-Method: tools/call", "Mcp-Name: search_documents"]
        lines += _whose(token) if token or revision == "2026-07-28" else [_SESSION]
        self._before = "\r\n".join([*lines, "", ""]).encode() + before

    def request(self, id_: bytes) -> bytes:
        """Head and body of one call."""
        return self._before + id_ + self._after


_SESSION: Final = "Mcp-Session-Id: 0123456789abcdef0123456789abcdef"


def _whose(token: str) -> list[str]:
    return [f"Authorization: Bearer {token}"] if token else []


def listening(port: int, token: str = "") -> bytes:
    """A GET that opens the stream of server messages."""
    lines = [
        "GET /mcp HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Accept: text/event-stream",
        "MCP-Protocol-Version: 2025-11-25",
        *(_whose(token) or [_SESSION]),
    ]
    return "\r\n".join([*lines, "", ""]).encode()
