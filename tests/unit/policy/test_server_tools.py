"""Asking a server for its tools, whatever it speaks and however it answers."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from proxy.model import Headers
from proxy.policy.server_tools import MAX_PAGES, MAX_TOOLS, Silent, listings

MODERN, LEGACY = "2026-07-28", ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
CAPABLE = {"tools": {"listChanged": True}}


class FakeAnswer:
    """Fulfils `Answer`."""

    def __init__(self, status: int, body: bytes, *fields: tuple[bytes, bytes]) -> None:
        self.status = status
        self.headers = Headers(fields)
        self.chunks = self._chunks(body)
        self.is_closed = False

    async def _chunks(self, body: bytes) -> AsyncIterator[bytes]:
        for at in range(0, len(body), 7):
            yield body[at : at + 7]

    def close(self) -> None:
        self.is_closed = True


class FakeServer:
    """Fulfils `Send`: a server with pages of tools, of one era or both."""

    def __init__(
        self,
        pages: Sequence[tuple[list[Any], Any]] = (([{"name": "a"}], None),),
        *,
        modern: bool = True,
        legacy: Sequence[str] = LEGACY,
        streams: bool = False,
        capabilities: dict[str, Any] | None = None,
    ) -> None:
        self.pages = pages
        self.modern, self.legacy, self.streams = modern, legacy, streams
        self.about = {
            "capabilities": CAPABLE if capabilities is None else capabilities,
            "instructions": "Be kind.",
        }
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.answers: list[FakeAnswer] = []
        self.cursors: list[Any] = []
        self.sessions: set[str] = set()

    async def __call__(
        self, method: str, target: str | None, headers: Sequence[tuple[bytes, bytes]], body: bytes | None
    ) -> FakeAnswer:
        fields = {name.decode().lower(): value.decode() for name, value in headers}
        message = json.loads(body) if body else {}
        self.seen.append((method, message.get("method", ""), fields))
        answer = self._answer(method, fields, message)
        self.answers.append(answer)
        return answer

    def _answer(self, method: str, fields: dict[str, str], message: dict[str, Any]) -> FakeAnswer:
        if method == "DELETE":
            self.sessions.discard(fields["mcp-session-id"])
            return FakeAnswer(200, b"")
        asked, params = message["method"], message.get("params", {})
        is_modern = fields.get("mcp-method") == asked
        if is_modern and not self.modern:
            return FakeAnswer(400, b"no")
        if asked == "server/discover":
            return self._said(message, {**self.about, "supportedVersions": [MODERN]})
        if asked == "initialize":
            if not self.legacy:
                return FakeAnswer(404, b"")
            wanted = params["protocolVersion"]
            agreed = wanted if wanted in self.legacy else self.legacy[-1]
            session = f"s{len(self.seen)}"
            self.sessions.add(session)
            return self._said(message, {**self.about, "protocolVersion": agreed}, session)
        if asked == "notifications/initialized":
            return FakeAnswer(202, b"")
        assert is_modern or fields["mcp-session-id"] in self.sessions
        assert is_modern == ("_meta" in params)
        self.cursors.append(params.get("cursor"))
        index = [None, *(cursor for _, cursor in self.pages)].index(params.get("cursor"))
        tools, following = self.pages[index]
        more = {} if following is None else {"nextCursor": following}
        return self._said(message, {"tools": tools, **more})

    def _said(self, message: dict[str, Any], result: Any, session: str | None = None) -> FakeAnswer:
        text = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()
        fields = [] if session is None else [(b"Mcp-Session-Id", session.encode())]
        if self.streams:
            noise = b'id: 1\ndata:\n\ndata: {"jsonrpc":"2.0","id":9,"method":"ping"}\n\n'
            return FakeAnswer(
                200, noise + b"data: " + text + b"\n\n", (b"Content-Type", b"text/event-stream"), *fields
            )
        return FakeAnswer(200, text, (b"Content-Type", b"application/json"), *fields)


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize(
    ("modern", "legacy", "expected"),
    [
        (True, LEGACY, [MODERN, *reversed(LEGACY)]),
        (True, (), [MODERN]),
        (False, LEGACY, [*reversed(LEGACY)]),
        (False, ("2025-03-26",), ["2025-03-26"]),
    ],
)
async def test_every_revision_is_asked(
    streams: bool, modern: bool, legacy: Sequence[str], expected: list[str]
) -> None:
    """Servers show older clients other definitions; a revision that falls back on another is not asked twice."""
    server = FakeServer(modern=modern, legacy=legacy, streams=streams)
    found = await listings(server)
    assert [each.revision for each in found] == expected
    assert all(list(each.tools) == [{"name": "a"}] and each.instructions == "Be kind." for each in found)
    assert server.sessions == set(), "no session is left behind"
    assert all(answer.is_closed for answer in server.answers)


async def test_all_pages_are_read_with_their_cursors() -> None:
    """An empty cursor is one; absent is the end (server/utilities/pagination)."""
    server = FakeServer([([{"name": "a"}], ""), ([], "x"), ([{"name": "b"}], None)], legacy=())
    (listing,) = await listings(server)
    assert list(listing.tools) == [{"name": "a"}, {"name": "b"}]
    assert server.cursors == [None, "", "x"]


async def test_a_server_without_tools_is_not_asked_for_them() -> None:
    server = FakeServer(legacy=(), capabilities={})
    assert [list(each.tools) for each in await listings(server)] == [[]]
    assert server.cursors == []


@pytest.mark.parametrize(
    ("pages", "why"),
    [
        ([([{"name": "a"}], "x"), ([], "x")], "circle"),
        ([([], str(number)) for number in range(MAX_PAGES + 1)], "pages"),
        ([([{"name": "a"}] * (MAX_TOOLS + 1), None)], "tools"),
        ([({}, None)], "list of tools"),
    ],
)
async def test_endless_and_senseless_lists_end(pages: Any, why: str) -> None:
    """The server is not trusted."""
    with pytest.raises(Silent, match=why):
        await listings(FakeServer(pages, legacy=()))


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (401, b"", "credential"),
        (500, b"secret", "answered 500"),
        (200, b"<html>", "no JSON"),
        (200, b"[]", "no JSON-RPC"),
        (200, b'{"jsonrpc":"2.0","id":77,"result":{}}', "another request"),
        (200, b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"secret"}}', "error"),
        (200, b" " * 16_777_217, "longer"),
    ],
)
async def test_a_server_that_cannot_be_asked(status: int, body: bytes, why: str) -> None:
    """Why, in words of our own."""

    class Odd(FakeServer):
        def _answer(self, method: str, fields: dict[str, str], message: dict[str, Any]) -> FakeAnswer:
            return FakeAnswer(status, body)

    with pytest.raises(Silent, match=why) as raised:
        await listings(Odd())
    assert "secret" not in str(raised.value)
