"""What an MCP server would answer: sessions, streams, tasks and tools as the corpus' fixture names them.

In: a request. Out: the parts of its answer, as bytes. Trusts everybody on purpose: an event id, a task id or a session
id of Bob's opens Bob's things to whoever names it, so that only the sidecar can keep them apart. Ids are counted, so
that the next one of a row is somebody's.
"""

import asyncio
import itertools
import json
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from tests.corpus.mint import EVENT_OF_BOB
from tests.corpus.wire import Message

WHO = "x-corpus-who"
"""Header by which the runner tells whose session it opens, and its second client from its first."""
EVENT = "corpus-event"
"""Text in every event; the session and the number of its stream follow."""
STATUS_OF_BOB = "corpus-status-of-bob"
"""Text in every status of a task of Bob's."""

ALICE, BOB = "alice", "bob"
"""Values of that header."""
NUMBER = "corpus/number"
"""Member of `_meta` of each result, no two of which have the same: whoever gets one again is known by it."""

_MODERN = "2026-07-28"
_PAUSE_S = 0.02
TOOLS: tuple[Mapping[str, Any], ...] = tuple(
    {
        "name": name,
        "description": f"Answers as {name} does.",
        "inputSchema": {"type": "object", "properties": properties},
    }
    for name, properties in {
        **{
            name: {}
            for name in ("echo", "read_doc", "pub_info", "pub_echo", "pay", "slow", "stream", "big", "ask")
        },
        **{name: {} for name in ("fetch", "heavy", "heavier", "leak", "danger", "echo_danger")},
        # Not of the fixture: another definition speaks of it.
        "send_email": {},
        "sql": {"region": {"type": "string", "x-mcp-header": "Region"}, "query": {"type": "string"}},
        "num": {"n": {"type": "integer", "x-mcp-header": "N"}},
        "flag": {"f": {"type": "boolean", "x-mcp-header": "F"}},
    }.items()
)
"""What it lists, as the fixture names them."""
HINTS: Mapping[str, Any] = {"ttlMs": 0, "cacheScope": "private"}
"""How long that is good, and for whom."""


class FakeServer:
    """One server. Sessions live until DELETE; a stream of server messages stays open as long as its client."""

    def __init__(self) -> None:
        self._count = itertools.count(1_000_001)
        self._answers = itertools.count(1)
        self._owners: dict[str, str] = {}
        self._streams: dict[str, list[bytes]] = {}
        """Event id up to its last dash → the events of that stream."""
        self._listeners: dict[str, Callable[[bytes], None]] = {}
        """HTTP+SSE session → who writes on its stream."""
        self._listed: Callable[[str], tuple[Mapping[str, Any], ...]] = _usual
        self._hints: Mapping[str, Any] = HINTS
        self._indent: int | None = None

    def list_tools(
        self,
        listed: Callable[[str], tuple[Mapping[str, Any], ...]] | None,
        *,
        is_spaced: bool = False,
        hints: Mapping[str, Any] | None = None,
    ) -> None:
        """Show each caller what `listed` says, None: what is usual; with blanks in the answers or without; with `hints`
        how long that is good, None: what is usual."""
        self._listed = listed or _usual
        self._hints = HINTS if hints is None else hints
        self._indent = 2 if is_spaced else None

    def answer(self, request: Message, write: Callable[[bytes], None]) -> AsyncIterator[bytes]:
        """The parts of the answer; `write` is kept where later requests are answered on this connection."""
        path = request.target.partition("?")[0]
        if path == "/sse":
            return _one(self._open_pair(write))
        if path == "/messages":
            return _one(self._on_other_stream(request))
        if request.method == "DELETE":
            self._owners.pop(_session(request), None)
            return _one(plain(200, b""))
        if request.method == "GET":
            return _one(self._listen(request))
        return self._posted(request)

    async def _posted(self, request: Message) -> AsyncIterator[bytes]:
        document = request.json
        if isinstance(document, list):
            answers = [each for one in document if (each := self._message(one, request)) is not None]
            yield as_json(200, answers) if answers else plain(202, b"")
            return
        if isinstance(document, dict):
            params = document.get("params")
            params = params if isinstance(params, dict) else {}
            if document.get("method") == "tools/call" and params.get("name") == "stream":
                async for part in self._stream(document, params, request):
                    yield part
                return
            if document.get("method") == "subscriptions/listen":
                yield _whole_stream(_listened(document, params))
                return
        answer = self._message(document, request)
        if answer is None:
            yield plain(202, b"")
            return
        started = isinstance(document, dict) and document.get("method") == "initialize"
        fields = {"Mcp-Session-Id": self._opened(request)} if started else {}
        yield as_json(200, answer, fields, indent=self._indent)

    def _opened(self, request: Message) -> str:
        session = f"corpus-{next(self._count)}"
        self._owners[session] = _who(request)
        return session

    def _message(self, document: Any, request: Message) -> dict[str, Any] | None:
        if not isinstance(document, dict) or "id" not in document or "method" not in document:
            return None
        if not isinstance(document["method"], str):
            return {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "Invalid Request"}}
        params = document.get("params")
        result = self._result(document["method"], params if isinstance(params, dict) else {}, request)
        if result is None:
            unknown = {"code": -32601, "message": "Method not found"}
            return {"jsonrpc": "2.0", "id": document["id"], "error": unknown}
        if request.values("mcp-protocol-version") == (_MODERN.encode(),):
            result = {"resultType": "complete", **result}
        result = {**result, "_meta": {NUMBER: f"corpus-answer-{next(self._answers)}"}}
        return {"jsonrpc": "2.0", "id": document["id"], "result": result}

    def _result(self, method: str, params: Mapping[str, Any], request: Message) -> dict[str, Any] | None:
        if method == "tools/call" and isinstance(params.get("task"), dict):
            return {"task": _task(f"corpus-task-{_who(request)}-{next(self._count)}")}
        if method == "tasks/get":
            return _task(str(params.get("taskId")))
        if method == "tools/call":
            if params.get("name") == "ask":
                return {"resultType": "input_required", "requestState": f"corpus-{next(self._answers)}"}
            return _called(str(params.get("name")), params.get("arguments"))
        return _plain_results(params, self._listed(_who(request)), self._hints).get(method)

    async def _stream(
        self, document: Mapping[str, Any], params: Mapping[str, Any], request: Message
    ) -> AsyncIterator[bytes]:
        """Progress, then the result: three steps at once, or as many as asked for, fifty a second."""
        arguments = params.get("arguments")
        steps = arguments.get("n") if isinstance(arguments, dict) else None
        messages = _progress(document, params, request, steps if isinstance(steps, int) else 3)
        events: Iterable[bytes] = map(_event, messages)
        if _session(request):
            events = self._kept(_session(request), list(messages))
        yield _STREAM_HEAD
        for event in events:
            yield _chunk(event)
            if isinstance(steps, int):
                await asyncio.sleep(_PAUSE_S)
        yield _STREAM_END

    def _listen(self, request: Message) -> bytes:
        """What the server has to say: missed events, or a stream that stays open with a question on it."""
        resumed = [value.decode("latin-1") for value in request.values("last-event-id")]
        if resumed:
            stream = resumed[0].rpartition("-")[0]
            missed = self._streams.get(stream, [])
            line = f"id: {resumed[0]}\n".encode()
            at = next((at + 1 for at, event in enumerate(missed) if event.startswith(line)), 0)
            return _STREAM_HEAD + b"".join(map(_chunk, missed[at:])) + _STREAM_END
        session = _session(request)
        if not session:
            return plain(405, b"")
        asks = {
            "jsonrpc": "2.0",
            "id": f"corpus-asks-{next(self._count)}",
            "method": "elicitation/create",
            "params": {
                "message": self._text(session),
                "requestedSchema": {"type": "object", "properties": {}},
            },
        }
        told = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": 1}}
        return _STREAM_HEAD + b"".join(map(_chunk, self._kept(session, [asks, told, told])))

    def _text(self, session: str) -> str:
        return EVENT_OF_BOB if self._owners.get(session) == "bob" else EVENT

    def _kept(self, session: str, messages: list[dict[str, Any]]) -> list[bytes]:
        """The events of one more stream of the session, each with an id, to be replayed to whoever names it."""
        number = next(self._count)
        stream = f"{session}-{number}"
        kept = []
        for step, message in enumerate(messages):
            marked = json.loads(json.dumps(message))
            if "params" in marked:
                marked["params"]["_meta"] = {EVENT: f"{stream} {self._text(session)}"}
            kept.append(f"id: {stream}-{step}\n".encode() + _event(marked))
        self._streams[stream] = kept
        return kept

    def _open_pair(self, write: Callable[[bytes], None]) -> bytes:
        session = f"corpus-{next(self._count)}"
        self._listeners[session] = write
        return _STREAM_HEAD + _chunk(f"event: endpoint\ndata: /messages?sessionId={session}\n\n".encode())

    def _on_other_stream(self, request: Message) -> bytes:
        match = re.search(r"[?&]sessionId=([^&]+)", request.target)
        tell = self._listeners.get(match[1]) if match else None
        if tell is None:
            return plain(404, b"")
        answer = self._message(request.json, request)
        if answer is not None:
            tell(_chunk(_event(answer)))
        return plain(202, b"")


async def _one(part: bytes) -> AsyncIterator[bytes]:
    yield part


def _session(request: Message) -> str:
    return (request.values("mcp-session-id") or (b"",))[0].decode("latin-1")


def _who(request: Message) -> str:
    return (request.values(WHO) or (b"nobody",))[0].decode("latin-1")


def _usual(who: str) -> tuple[Mapping[str, Any], ...]:
    return TOOLS


def _task(id: str) -> dict[str, Any]:
    at = "2026-01-01T00:00:00Z"
    about = STATUS_OF_BOB if "-bob-" in id else "corpus-status"
    times = {"createdAt": at, "lastUpdatedAt": at, "ttl": 60_000, "pollInterval": 1_000}
    return {"taskId": id, "status": "working", "statusMessage": about, **times}


def _plain_results(
    params: Mapping[str, Any], tools: tuple[Mapping[str, Any], ...], listed: Mapping[str, Any]
) -> Mapping[str, dict[str, Any]]:
    """Results by method."""
    server = {"name": "corpus", "version": "1"}
    return {
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
        "tools/list": {"tools": tools, **listed},
        "prompts/list": {"prompts": [], **listed},
        "prompts/get": {"messages": []},
        "resources/list": {"resources": [], **listed},
        "resources/read": {"contents": [{"uri": params.get("uri"), "text": "corpus"}], **listed},
    }


def _called(name: str, arguments: Any) -> dict[str, Any]:
    if name == "big":
        megabytes = arguments.get("mb", 1) if isinstance(arguments, dict) else 1
        return {"content": [{"type": "text", "text": "x" * (int(megabytes) << 20)}]}
    if name == "leak":
        return {"content": [{"type": "text", "text": "MARKER_SECRET_3"}]}
    return {"content": [{"type": "text", "text": json.dumps(arguments)}]}


def _progress(
    document: Mapping[str, Any], params: Mapping[str, Any], request: Message, steps: int
) -> Iterator[dict[str, Any]]:
    """One by one: nobody waits for the last of a hundred thousand. Who sent no token is told in log lines: progress
    without one would be another's."""
    meta = params.get("_meta") or {}
    who = _who(request)
    for step in range(1, steps + 1):
        if "progressToken" in meta:
            method = "notifications/progress"
            told = {"progressToken": meta["progressToken"], "progress": step, "message": f"who={who}"}
        else:
            method, told = "notifications/message", {"level": "info", "data": f"step={step} who={who}"}
        yield {"jsonrpc": "2.0", "method": method, "params": told}
    yield {"jsonrpc": "2.0", "id": document.get("id"), "result": {"content": []}}


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


def as_json(
    status: int,
    document: Any,
    fields: Mapping[str, str] = MappingProxyType({}),
    *,
    indent: int | None = None,
) -> bytes:
    """An answer in JSON."""
    return _head(status, b"application/json", json.dumps(document, indent=indent).encode(), fields)


def plain(status: int, body: bytes) -> bytes:
    """An answer in plain text."""
    return _head(status, b"text/plain", body, {})


def _head(status: int, content_type: bytes, body: bytes, fields: Mapping[str, str]) -> bytes:
    more = "".join(f"{name}: {value}\r\n" for name, value in fields.items()).encode()
    head = b"HTTP/1.1 %d Corpus\r\nContent-Type: %s\r\nContent-Length: %d\r\n%s\r\n"
    return head % (status, content_type, len(body), more) + body


_STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_STREAM_END = b"0\r\n\r\n"


def _event(message: Mapping[str, Any]) -> bytes:
    return b"event: message\ndata: %s\n\n" % json.dumps(message).encode()


def _chunk(part: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(part), part)


def _whole_stream(messages: list[dict[str, Any]]) -> bytes:
    return _STREAM_HEAD + _chunk(b"".join(map(_event, messages))) + _STREAM_END
