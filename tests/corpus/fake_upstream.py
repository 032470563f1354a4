"""An MCP server that records every byte and answers as its fixture, or the case's script, says.

Raw sockets and this package's own strict parser. The sidecar's probes (a bare connect, `server/discover` that
the case did not send) are answered but not counted as seen.
"""

import asyncio
import json
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from tests.corpus.cases import CorpusError
from tests.corpus.mint import EVENT_OF_BOB
from tests.corpus.wire import Message, WireError, read_message

WHO = "x-corpus-who"
"""Header by which the runner's second client is told from its first."""

_SEND_BUFFER_BYTES = 65536
_MODERN = "2026-07-28"
_TOOLS: Mapping[str, Mapping[str, Any]] = {
    name: {"type": "object", "properties": properties}
    for name, properties in {
        **{
            name: {}
            for name in ("echo", "read_doc", "pub_info", "pub_echo", "pay", "slow", "stream", "big", "ask")
        },
        **{name: {} for name in ("fetch", "heavy", "heavier", "leak", "danger", "echo_danger")},
        "sql": {"region": {"type": "string", "x-mcp-header": "Region"}, "query": {"type": "string"}},
        "num": {"n": {"type": "integer", "x-mcp-header": "N"}},
        "flag": {"f": {"type": "boolean", "x-mcp-header": "F"}},
    }.items()
}


class FakeUpstream:
    """One listening server. `begin` starts a case's record, `take` ends it."""

    def __init__(self) -> None:
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._requests: list[Message] = []
        self._pending: dict[int, bytes] = {}
        self._script: Mapping[str, Any] | None = None
        self._discover_is_ours = False
        self._barriers: dict[bytes, asyncio.Event] = {}
        self._fault: Exception | None = None
        self.sent_bytes = 0

    async def start(self) -> None:
        """Listen on a free port of 127.0.0.1."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=256)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close every connection and the listener."""
        for writer in tuple(self._writers):
            writer.transport.abort()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def begin(self, script: Mapping[str, Any] | None, *, sends_discover: bool) -> None:
        """Forget what was recorded; answer from `script` if given. Raises CorpusError for one we lack."""
        if script is not None and set(script) != {"send"}:
            raise CorpusError(f"the fake upstream has no script {sorted(set(script) - {'send'})}")
        self._requests.clear()
        self._script = script
        self._discover_is_ours = sends_discover
        self.sent_bytes = 0

    def take(self) -> tuple[tuple[Message, ...], bytes]:
        """Requests since `begin`, and all their bytes, unfinished ones included.

        Raises CorpusError when this server failed meanwhile.
        """
        if self._fault is not None:
            fault, self._fault = self._fault, None
            raise CorpusError(f"the fake upstream failed: {fault!r}")
        return tuple(self._requests), b"".join(
            [*(request.raw for request in self._requests), *self._pending.values()]
        )

    def expect_barrier(self, marker: bytes) -> asyncio.Event:
        """An event set when a request holding `marker` arrives; that request is not recorded."""
        event = self._barriers[marker] = asyncio.Event()
        return event

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        sock: socket.socket = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        writer.transport.set_write_buffer_limits(high=_SEND_BUFFER_BYTES)
        try:
            await self._converse(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        except Exception as error:
            # A case must not pass because the server it would have harmed was broken by ourselves.
            self._fault = error
        finally:
            self._pending.pop(id(writer), None)
            self._writers.discard(writer)
            self._tasks.discard(task)
            writer.close()
            with suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = bytearray()
        while chunk := await reader.read(262144):
            data += chunk
            while data:
                # A pipe holds one unfinished request at most; keep its bytes where `take` finds them.
                self._pending[id(writer)] = bytes(data)
                try:
                    request = read_message(bytes(data), answers=False)
                except WireError:
                    await self._write(writer, _plain(400, b"not HTTP"))
                    return
                if request is None:
                    break
                del data[: len(request.raw)]
                self._pending.pop(id(writer), None)
                await self._answer(request, writer)

    async def _answer(self, request: Message, writer: asyncio.StreamWriter) -> None:
        barrier = next((marker for marker in self._barriers if marker in request.body), None)
        probe = b'"server/discover"' in request.body and not self._discover_is_ours
        if barrier is None and not probe:
            self._requests.append(request)
            if self._script is not None:
                await self._write(writer, self._script["send"].encode("latin-1"))
                return
        for part in respond(request):
            await self._write(writer, part)
        if barrier is not None:
            self._barriers.pop(barrier).set()

    async def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        for at in range(0, len(data), 65536):
            writer.write(data[at : at + 65536])
            await writer.drain()
            self.sent_bytes = max(self.sent_bytes, at + 65536 - writer.transport.get_write_buffer_size())


def respond(request: Message) -> list[bytes]:
    """The answer to a request, in the parts it is written in."""
    if request.method == "DELETE":
        return [_plain(200, b"")]
    if request.method == "GET":
        if request.values("last-event-id"):
            return [
                _stream(
                    [{"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": EVENT_OF_BOB}}]
                )
            ]
        return [_plain(405, b"")]
    document = request.json
    if isinstance(document, list):
        answers = [answer for one in document if (answer := _message(one, request)) is not None]
        return [_json(200, answers) if answers else _plain(202, b"")]
    if not isinstance(document, dict):
        return [
            _json(400, {"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "Parse error"}})
        ]
    params = document.get("params") if isinstance(document.get("params"), dict) else {}
    assert isinstance(params, dict)
    if document.get("method") == "tools/call" and params.get("name") == "stream":
        return [_stream(_progress(document, params, request))]
    if document.get("method") == "subscriptions/listen":
        return [_stream(_listened(document, params))]
    answer = _message(document, request)
    return [_plain(202, b"") if answer is None else _json(200, answer)]


def _message(document: Any, request: Message) -> dict[str, Any] | None:
    if not isinstance(document, dict) or "id" not in document or "method" not in document:
        return None
    if not isinstance(document["method"], str):
        return {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "Invalid Request"}}
    params = document.get("params")
    result = _result(document["method"], params if isinstance(params, dict) else {})
    if result is None:
        unknown = {"code": -32601, "message": "Method not found"}
        return {"jsonrpc": "2.0", "id": document["id"], "error": unknown}
    if request.values("mcp-protocol-version") == (_MODERN.encode(),):
        result = {**result, "resultType": "complete"}
    return {"jsonrpc": "2.0", "id": document["id"], "result": result}


def _result(method: str, params: Mapping[str, Any]) -> dict[str, Any] | None:
    if method == "tools/call":
        return _called(str(params.get("name")), params.get("arguments"))
    server = {"name": "corpus", "version": "1"}
    listed = {"ttlMs": 0, "cacheScope": "private"}
    answers: dict[str, dict[str, Any]] = {
        "initialize": {
            "protocolVersion": params.get("protocolVersion", "2025-11-25"),
            "capabilities": {"tools": {}},
            "serverInfo": server,
        },
        "ping": {},
        "server/discover": {
            "supportedVersions": [_MODERN, "2025-11-25"],
            "capabilities": {"tools": {}},
            "serverInfo": server,
            **listed,
        },
        "tools/list": {
            "tools": [{"name": name, "inputSchema": schema} for name, schema in _TOOLS.items()],
            **listed,
        },
        "prompts/list": {"prompts": [], **listed},
        "prompts/get": {"messages": []},
        "resources/list": {"resources": [], **listed},
        "resources/read": {"contents": [{"uri": params.get("uri"), "text": "corpus"}], **listed},
    }
    return answers.get(method)


def _called(name: str, arguments: Any) -> dict[str, Any]:
    if name == "big":
        megabytes = arguments.get("mb", 1) if isinstance(arguments, dict) else 1
        return {"content": [{"type": "text", "text": "x" * (int(megabytes) << 20)}]}
    if name == "ask":
        return {"resultType": "input_required", "requestState": "corpus"}
    if name == "leak":
        return {"content": [{"type": "text", "text": "MARKER_SECRET_3"}]}
    return {"content": [{"type": "text", "text": json.dumps(arguments)}]}


def _progress(
    document: Mapping[str, Any], params: Mapping[str, Any], request: Message
) -> list[dict[str, Any]]:
    token = (params.get("_meta") or {}).get("progressToken", 0)
    who = (request.values(WHO) or (b"nobody",))[0].decode("latin-1")
    steps = [
        {
            "jsonrpc": "2.0",
            "method": "notifications/progress",
            "params": {"progressToken": token, "progress": step, "message": f"who={who}"},
        }
        for step in (1, 2, 3)
    ]
    return [*steps, {"jsonrpc": "2.0", "id": document.get("id"), "result": {"content": []}}]


def _listened(document: Mapping[str, Any], params: Mapping[str, Any]) -> list[dict[str, Any]]:
    meta = {"_meta": {"io.modelcontextprotocol/subscriptionId": document.get("id")}}
    wanted = (params.get("filter") or {}).get("resources") or []
    acknowledged = {"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": meta}
    updates = [
        {"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": uri, **meta}}
        for uri in wanted
    ]
    end = {"jsonrpc": "2.0", "id": document.get("id"), "result": {"resultType": "complete", **meta}}
    return [acknowledged, *updates, end]


def _json(status: int, document: Any) -> bytes:
    return _head(status, b"application/json", json.dumps(document).encode())


def _plain(status: int, body: bytes) -> bytes:
    return _head(status, b"text/plain", body)


def _head(status: int, content_type: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 %d Corpus\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
    return head % (status, content_type, len(body)) + body


def _stream(messages: list[dict[str, Any]]) -> bytes:
    events = b"".join(b"event: message\ndata: %s\n\n" % json.dumps(message).encode() for message in messages)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(events), events)
