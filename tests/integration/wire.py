"""HTTP/1.1 read and written by hand: these tests compare bytes, so no library may tidy them.

In: bytes. Out: requests and answers with their fields in the order of the wire. Keeps nothing.
"""

from __future__ import annotations

import dataclasses
import json

Fields = list[tuple[str, str]]

REVISIONS = ("2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28")
MODERN = "2026-07-28"
LEGACY = "2025-11-25"

_VERSION = "io.modelcontextprotocol/protocolVersion"
_CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """One request as it came."""

    method: str
    target: str
    fields: Fields
    body: bytes
    head: bytes

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name.lower()]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Head:
    """Status and fields of an answer."""

    status: int
    fields: Fields

    def get(self, name: str) -> str | None:
        found = [value for key, value in self.fields if key.lower() == name.lower()]
        return found[0] if found else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer(Head):
    """A whole answer."""

    body: bytes

    @property
    def json(self) -> object:
        return json.loads(self.body)


def read_head(block: bytes) -> tuple[str, Fields]:
    """First line and fields of a head without its blank line."""
    first, *lines = block.decode("utf-8", "surrogateescape").split("\r\n")
    fields = []
    for line in lines:
        name, _, value = line.partition(":")
        fields.append((name, value.strip(" \t")))
    return first, fields


def read_request(buffer: bytearray) -> Request | None:
    """Take the first whole request out of `buffer`; None while it is not whole."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return None
    first, fields = read_head(bytes(buffer[:end]))
    method, target, _ = first.split(" ")
    named = {name.lower(): value for name, value in fields}
    begin = end + 4
    if named.get("transfer-encoding") == "chunked":
        whole = _dechunked(bytes(buffer[begin:]))
        if whole is None:
            return None
        body, used = whole
    else:
        used = int(named.get("content-length", "0"))
        if len(buffer) < begin + used:
            return None
        body = bytes(buffer[begin : begin + used])
    head = bytes(buffer[:begin])
    del buffer[: begin + used]
    return Request(method=method, target=target, fields=fields, body=body, head=head)


def _dechunked(raw: bytes) -> tuple[bytes, int] | None:
    body, at = b"", 0
    while (end := raw.find(b"\r\n", at)) >= 0:
        size = int(raw[at:end], 16)
        if len(raw) < end + 2 + size + 2:
            return None
        body += raw[end + 2 : end + 2 + size]
        at = end + 2 + size + 2
        if not size:
            return body, at
    return None


def message(method: str, revision: str, id: int | str | None = 1, **params: object) -> bytes:
    """One JSON-RPC message as a client of `revision` writes it; without `id` a notification."""
    if revision == MODERN:
        params["_meta"] = {_VERSION: revision, _CAPABILITIES: {}}
    value: dict[str, object] = {"jsonrpc": "2.0"}
    if id is not None:
        value["id"] = id
    value |= {"method": method, "params": params}
    return json.dumps(value).encode()


def tool_call(revision: str = LEGACY, id: int | str = 1, tool: str = "echo") -> bytes:
    return message("tools/call", revision, id, name=tool, arguments={"text": "hello"})


def fields_for(body: bytes, revision: str) -> Fields:
    """What a client of `revision` sends with a body."""
    fields = [("Content-Type", "application/json"), ("Accept", "application/json, text/event-stream")]
    if revision != "2025-03-26":
        fields.append(("MCP-Protocol-Version", revision))
    if revision == MODERN:
        said = json.loads(body)
        fields.append(("Mcp-Method", said["method"]))
        name = said.get("params", {}).get("name") or said.get("params", {}).get("uri")
        if name:
            fields.append(("Mcp-Name", name))
    return fields


def request(
    method: str = "POST",
    target: str = "/mcp",
    fields: Fields | None = None,
    body: bytes | None = None,
    *,
    host: str = "127.0.0.1",
    version: str = "HTTP/1.1",
) -> bytes:
    """The bytes of one request; a body gets its Content-Length."""
    lines = [f"{method} {target} {version}", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in fields or []]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")


def post(body: bytes, revision: str = LEGACY, *extra: tuple[str, str], target: str = "/mcp") -> bytes:
    """The bytes of one POST as a client of `revision` sends it."""
    return request("POST", target, [*fields_for(body, revision), *extra], body)


def listen(*extra: tuple[str, str], revision: str = LEGACY, target: str = "/mcp") -> bytes:
    """The bytes of the GET that opens a stream of server messages."""
    fields = [("Accept", "text/event-stream"), ("MCP-Protocol-Version", revision), *extra]
    return request("GET", target, fields)


def result(id: int | str | None = 1, text: str = "hello") -> bytes:
    """An answer of the server."""
    said = {"content": [{"type": "text", "text": text}], "resultType": "complete"}
    return json.dumps({"jsonrpc": "2.0", "id": id, "result": said}).encode()


def event(data: bytes, *, id: str | None = None) -> bytes:
    """One event as the SDKs write it."""
    return (f"id: {id}\n".encode() if id is not None else b"") + b"event: message\ndata: " + data + b"\n\n"


def events(raw: bytes) -> list[bytes]:
    """The data of every whole event, as a client by the book reads them."""
    text = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    found = []
    for block in text.split(b"\n\n")[:-1]:
        lines = [line[5:].removeprefix(b" ") for line in block.split(b"\n") if line.startswith(b"data:")]
        if lines:
            found.append(b"\n".join(lines))
    return found


NOTE = json.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info"}}).encode()
"""A notification of the server."""
