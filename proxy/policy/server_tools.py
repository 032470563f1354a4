"""Which tools does a server have? Asked as clients of every revision would, page by page.

In: a way to send requests. Out: a `Listing` for each revision that the server speaks, or `Silent`. Keeps nothing. Every
answer, page and list is bounded: the server is not trusted. Sources: 2026-07-28 server/discover and server/tools,
2025-11-25 basic/lifecycle, 2024-11-05 basic/transports (HTTP with SSE).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final, Protocol

import msgspec
from msgspec import Struct

from ..model import Headers, Revision
from ..protocol.answers import Malformed, read_tree
from ..protocol.headers import media_type
from ..protocol.jsonrpc import META_CAPABILITIES, META_PREFIX, META_VERSION
from ..protocol.revisions import REGISTER
from ..protocol.sse import Splitter, TooLong

MAX_PAGES: Final = 200
MAX_TOOLS: Final = 2_000
MAX_ANSWER_BYTES: Final = 16_777_216

_CLIENT: Final = {"name": "mcp-sidecar-pin", "version": "1"}
_Pairs = Sequence[tuple[bytes, bytes]]


class Silent(Exception):
    """The server gave no answer that can be used; the text says why, without what it sent."""


class Answer(Protocol):
    """An answer whose head has arrived; upstream.transport.Answer is one."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Headers: ...
    @property
    def chunks(self) -> AsyncIterator[bytes]: ...
    @property
    def close(self) -> Callable[[], None]: ...


class Send(Protocol):
    async def __call__(self, method: str, target: str | None, headers: _Pairs, body: bytes | None) -> Answer:
        """Send a request to the server's endpoint, or to `target`, which it named. Raises Silent; so do the chunks
        of the answer."""
        ...


class Listing(Struct, frozen=True, kw_only=True):
    """What the server shows clients of one revision."""

    revision: str
    tools: Sequence[object]
    """As they were read, in the server's order."""
    instructions: str | None = None


class _Failed(Exception):
    """The server said no: an HTTP status, or an error of JSON-RPC."""


class _Conversation(Protocol):
    async def ask(self, method: str, params: Mapping[str, object]) -> Mapping[str, object]:
        """The result of a request. Raises Silent or _Failed."""
        ...


async def listings(send: Send, *, is_http_sse: bool = False) -> list[Listing]:
    """One listing for each revision that the server speaks, newest first. Raises Silent when it speaks none."""
    found: list[Listing] = []
    whys: list[str] = []
    for revision in reversed(REGISTER):
        if is_http_sse and not revision.answers_elsewhere:
            continue
        try:
            listing = await _listing(
                send, revision, {each.revision for each in found}, is_http_sse=is_http_sse
            )
        except (Silent, _Failed) as error:
            whys.append(f"{revision.name}: {error}")
            continue
        if listing is not None:
            found.append(listing)
    if not found:
        raise Silent("; ".join(dict.fromkeys(whys)))
    return found


async def _listing(send: Send, revision: Revision, known: set[str], *, is_http_sse: bool) -> Listing | None:
    """What clients of this revision see; None where the server falls back on a revision that was asked."""
    if revision.is_modern:
        modern = _Modern(send, revision)
        about = await modern.ask("server/discover", {})
        versions = about.get("supportedVersions")
        if not isinstance(versions, list) or revision.name not in versions:
            raise _Failed("it speaks other revisions")
        return await _listed(modern, revision.name, about)
    legacy = _TwoEndpoints(send) if is_http_sse else _Session(send, revision)
    try:
        about = await legacy.begin(revision)
        agreed = about.get("protocolVersion")
        if not isinstance(agreed, str) or agreed in known:
            return None
        return await _listed(legacy, agreed, about)
    finally:
        await legacy.end()


async def _listed(conversation: _Conversation, revision: str, about: Mapping[str, object]) -> Listing:
    capabilities = about.get("capabilities")
    instructions = about.get("instructions")
    has_tools = isinstance(capabilities, dict) and "tools" in capabilities
    return Listing(
        revision=revision,
        tools=await _pages(conversation) if has_tools else (),
        instructions=instructions if isinstance(instructions, str) else None,
    )


async def _pages(conversation: _Conversation) -> list[object]:
    tools: list[object] = []
    cursor: str | None = None
    seen: set[str] = set()
    for _ in range(MAX_PAGES):
        page = await conversation.ask("tools/list", {} if cursor is None else {"cursor": cursor})
        more = page.get("tools")
        if not isinstance(more, list):
            raise Silent("its list of tools is none")
        tools.extend(more)
        if len(tools) > MAX_TOOLS:
            raise Silent(f"it lists more than {MAX_TOOLS} tools")
        cursor = _text(page.get("nextCursor"))
        if cursor is None:
            return tools
        if cursor in seen:
            raise Silent("its pages go in a circle")
        seen.add(cursor)
    raise Silent(f"its list has more than {MAX_PAGES} pages")


class _Modern:
    """Fulfils _Conversation without a handshake: the revision rides in every request."""

    def __init__(self, send: Send, revision: Revision) -> None:
        self._send = send
        self._revision = revision.name
        self._id = 0

    async def ask(self, method: str, params: Mapping[str, object]) -> Mapping[str, object]:
        self._id += 1
        meta = {META_VERSION: self._revision, META_CAPABILITIES: {}, META_PREFIX + "clientInfo": _CLIENT}
        fields = [
            *_BOTH,
            (b"MCP-Protocol-Version", self._revision.encode("ascii")),
            (b"Mcp-Method", method.encode("ascii")),
        ]
        body = _request(self._id, method, {**params, "_meta": meta})
        return _result(await _message(await self._send("POST", None, fields, body), self._id))


class _Session:
    """Fulfils _Conversation with a handshake over streamable HTTP."""

    def __init__(self, send: Send, revision: Revision) -> None:
        self._send = send
        self._fields: list[tuple[bytes, bytes]] = []
        self._session: bytes | None = None
        self._id = 0

    async def begin(self, revision: Revision) -> Mapping[str, object]:
        """The result of initialize. Raises Silent or _Failed."""
        answer = await self._post(_request(1, "initialize", _initialize(revision)))
        self._id = 1
        session = answer.headers.get("mcp-session-id")
        about = _result(await _message(answer, 1))
        if session:
            self._session = session.encode("utf-8", "surrogateescape")
            self._fields.append((b"Mcp-Session-Id", self._session))
        if version := _text(about.get("protocolVersion")):
            self._fields.append((b"MCP-Protocol-Version", version.encode("ascii", "replace")))
        (await self._post(_INITIALIZED)).close()
        return about

    async def ask(self, method: str, params: Mapping[str, object]) -> Mapping[str, object]:
        self._id += 1
        return _result(await _message(await self._post(_request(self._id, method, params)), self._id))

    async def end(self) -> None:
        """Leave no session behind, where the server lets us."""
        if self._session is not None:
            try:
                (await self._send("DELETE", None, self._fields, None)).close()
            except Silent:
                return

    async def _post(self, body: bytes) -> Answer:
        return await self._send("POST", None, [*_BOTH, *self._fields], body)


class _TwoEndpoints:
    """Fulfils _Conversation over HTTP with SSE: answers come on the one stream, not on the POST that asked."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._stream: Answer | None = None
        self._messages: AsyncIterator[tuple[str, bytes]] | None = None
        self._endpoint = ""
        self._id = 0

    async def begin(self, revision: Revision) -> Mapping[str, object]:
        """The result of initialize. Raises Silent or _Failed."""
        stream = self._stream = await self._send("GET", None, [(b"Accept", b"text/event-stream")], None)
        _check_status(stream)
        self._messages = _events(stream)
        async for name, data in self._messages:
            if name == "endpoint":
                self._endpoint = data.decode("utf-8", "replace")
                break
        else:
            raise Silent("its stream names no endpoint")
        about = await self.ask("initialize", _initialize(revision))
        await self._post(_INITIALIZED)
        return about

    async def ask(self, method: str, params: Mapping[str, object]) -> Mapping[str, object]:
        self._id += 1
        await self._post(_request(self._id, method, params))
        if self._messages is None:
            raise Silent("its stream is not open")
        return _result(await _among(self._messages, self._id))

    async def end(self) -> None:
        if self._stream is not None:
            self._stream.close()

    async def _post(self, body: bytes) -> None:
        answer = await self._send("POST", self._endpoint, _BOTH, body)
        try:
            _check_status(answer)
        finally:
            answer.close()


_BOTH: Final = (
    (b"Content-Type", b"application/json"),
    (b"Accept", b"application/json, text/event-stream"),
)
_INITIALIZED: Final = msgspec.json.encode({"jsonrpc": "2.0", "method": "notifications/initialized"})


def _initialize(revision: Revision) -> Mapping[str, object]:
    return {"protocolVersion": revision.name, "capabilities": {}, "clientInfo": _CLIENT}


def _request(id: int, method: str, params: Mapping[str, object]) -> bytes:
    return msgspec.json.encode({"jsonrpc": "2.0", "id": id, "method": method, "params": params})


def _check_status(answer: Answer) -> None:
    status = answer.status
    if status in (401, 403):
        raise _Failed(f"it answered {status}; name a credential in upstream.headers")
    if not 200 <= status <= 299:
        raise _Failed(f"it answered {status}")


async def _message(answer: Answer, id: int) -> Mapping[str, object]:
    """The answer to request `id`. Raises Silent or _Failed."""
    try:
        _check_status(answer)
        kind, _ = media_type(answer.headers.get("content-type"))
        if kind == "text/event-stream":
            return await _among(_events(answer), id)
        held = bytearray()
        async for chunk in answer.chunks:
            held += chunk
            if len(held) > MAX_ANSWER_BYTES:
                raise Silent(f"an answer is longer than {MAX_ANSWER_BYTES} bytes")
        found = _answer_in(bytes(held), id)
        if found is None:
            raise Silent("it answered another request")
        return found
    finally:
        answer.close()


async def _among(events: AsyncIterator[tuple[str, bytes]], id: int) -> Mapping[str, object]:
    async for _, data in events:
        found = _answer_in(data, id) if data.lstrip()[:1] == b"{" else None
        if found is not None:
            return found
    raise Silent("its stream ended without an answer")


async def _events(answer: Answer) -> AsyncIterator[tuple[str, bytes]]:
    """Name and data of each event. Raises Silent."""
    splitter = Splitter(MAX_ANSWER_BYTES)
    try:
        async for chunk in answer.chunks:
            for event in splitter.feed(chunk):
                if event.data is not None:
                    yield event.name, event.data
    except TooLong:
        raise Silent(f"an event is longer than {MAX_ANSWER_BYTES} bytes") from None


def _answer_in(data: bytes, id: int) -> Mapping[str, object] | None:
    """The message if it answers request `id`; None for another one. Raises Silent."""
    try:
        message = read_tree(data)
    except Malformed:
        raise Silent("an answer is no JSON") from None
    if not isinstance(message, dict):
        raise Silent("an answer is no JSON-RPC")
    is_ours = "method" not in message and type(message.get("id")) is int and message["id"] == id
    return message if is_ours else None


def _result(message: Mapping[str, object]) -> Mapping[str, object]:
    result = message.get("result")
    if not isinstance(result, dict):
        raise _Failed("it answered with an error")
    return result


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
