"""Clients of two SDKs that sign in by themselves, all spoken to alike.

In: the URL of an MCP server, who sits before it, and a token the client already has. Out: a `Caller`.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, TypeAlias
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2
from mcp.client import Client, IncomingMessage
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import ResourceUpdated
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from mcp_types import ResourceUpdatedNotification, TextContent
from pydantic import AnyUrl

SCRIPT = Path(__file__).with_name("mcp1_caller.py")

HOME = AnyUrl("http://127.0.0.1:1/callback")
"""Where the browser would be sent back to. Nobody listens there: the answer is read off the redirect."""

WATCHED = "test://watched-resource"

ANSWER_S = 10
"""For one thing a client does. Milliseconds when it works; the script gives up after 8 s by itself."""

Token: TypeAlias = Mapping[str, object]
"""What a token endpoint answered once."""


class Trace(list[tuple[str, str, int]]):
    """Method, URL and status of everything a client asked for, in order."""

    def at(self, origin: str) -> list[tuple[str, str, int]]:
        """Method, path and status of what went there."""
        return [
            (method, url[len(origin) :], status) for method, url, status in self if url.startswith(origin)
        ]


class Caller(Protocol):
    """A connected client."""

    async def call(self, tool: str) -> str:
        """The text a tool answers."""
        ...

    async def watch(self) -> None:
        """Ask to be told when a resource changes."""
        ...

    async def told(self) -> None:
        """Wait until told so."""
        ...

    async def expire(self) -> None:
        """Let the client believe that its token has expired, as if it had waited."""
        ...

    async def trace(self) -> Trace: ...


Connect: TypeAlias = Callable[..., AbstractAsyncContextManager[Caller]]
"""(url, *, person="alice", token=None)"""


class Storage:
    """Fulfils the SDK's `TokenStorage`."""

    def __init__(self, token: Token | None = None) -> None:
        self.tokens = OAuthToken.model_validate(token) if token else None
        self.client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


class Person:
    """Who would sit at the browser, and agrees."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._back = ""

    async def go(self, url: str) -> None:
        async with httpx2.AsyncClient(verify=False) as browser:
            answer = await browser.get(f"{url}&{urlencode({'login_hint': self._name})}")
        self._back = answer.headers["location"]

    async def come_back(self) -> AuthorizationCodeResult:
        query = parse_qs(urlsplit(self._back).query)
        return AuthorizationCodeResult(code=query["code"][0], state=query["state"][0], iss=query["iss"][0])


class Mcp2:
    """Fulfils `Caller` with the SDK of our own environment."""

    def __init__(self) -> None:
        self.client: Client | None = None
        self.auth: OAuthClientProvider | None = None
        self._trace = Trace()
        self._news: asyncio.Queue[object] = asyncio.Queue()

    async def on_message(self, message: IncomingMessage) -> None:
        if isinstance(message, ResourceUpdatedNotification):
            self._news.put_nowait(message)

    async def on_response(self, response: httpx2.Response) -> None:
        self._trace.append((response.request.method, str(response.request.url), response.status_code))

    async def call(self, tool: str) -> str:
        assert self.client is not None
        async with asyncio.timeout(ANSWER_S):
            (block,) = (await self.client.call_tool(tool, {})).content
        assert isinstance(block, TextContent)
        return block.text

    async def watch(self) -> None:
        assert self.client is not None
        async with asyncio.timeout(ANSWER_S):
            await self.client.subscribe_resource(WATCHED)

    async def told(self) -> None:
        async with asyncio.timeout(ANSWER_S):
            await self._news.get()

    async def expire(self) -> None:
        assert self.auth is not None
        self.auth.context.token_expiry_time = 1.0

    async def trace(self) -> Trace:
        return self._trace


class Mcp2Modern(Mcp2):
    """2026-07-28 tells changes on a stream of their own, open for as long as somebody listens."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        super().__init__()
        self._tasks = tasks
        self._listening: asyncio.Task[None] | None = None

    async def watch(self) -> None:
        is_open = asyncio.Event()
        self._listening = self._tasks.create_task(self._listen(is_open))
        async with asyncio.timeout(ANSWER_S):
            await is_open.wait()

    async def _listen(self, is_open: asyncio.Event) -> None:
        assert self.client is not None
        async with self.client.listen(resource_subscriptions=[WATCHED]) as changes:
            is_open.set()
            async for change in changes:
                assert change == ResourceUpdated(WATCHED)
                self._news.put_nowait(change)

    def stop(self) -> None:
        if self._listening is not None:
            self._listening.cancel()


def metadata(**other: Any) -> OAuthClientMetadata:
    return OAuthClientMetadata(redirect_uris=[HOME], client_name="mcp 2.x", **other)


@asynccontextmanager
async def mcp2_legacy(
    url: str, *, person: str = "alice", token: Token | None = None
) -> AsyncIterator[Caller]:
    caller = Mcp2()
    async with _connected(url, "legacy", caller, person, token):
        yield caller


@asynccontextmanager
async def mcp2_auto(url: str, *, person: str = "alice", token: Token | None = None) -> AsyncIterator[Caller]:
    async with asyncio.TaskGroup() as tasks:
        caller = Mcp2Modern(tasks)
        async with _connected(url, "auto", caller, person, token):
            yield caller
            caller.stop()


@asynccontextmanager
async def _connected(
    url: str, mode: str, caller: Mcp2, person: str, token: Token | None
) -> AsyncIterator[None]:
    who = Person(person)
    auth = OAuthClientProvider(url, metadata(), Storage(token), who.go, who.come_back)
    caller.auth = auth
    hooks: dict[str, list[Callable[..., Any]]] = {"response": [caller.on_response]}

    def hooked(
        headers: dict[str, str] | None = None,
        timeout: httpx2.Timeout | None = None,
        auth: httpx2.Auth | None = auth,
    ) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            headers=headers, auth=auth, event_hooks=hooks, timeout=timeout or ANSWER_S, verify=False
        )

    async with hooked() as http:
        is_sse = url.endswith("/sse")
        transport = (
            sse_client(url, auth=auth, httpx_client_factory=hooked)
            if is_sse
            else (streamable_http_client(url, http_client=http))
        )
        async with Client(transport, mode=mode, message_handler=caller.on_message) as caller.client:
            yield


class Mcp1:
    """Fulfils `Caller` with mcp 1.x in a process of its own; one connection after the other."""

    def __init__(self, python: Path) -> None:
        self._process = subprocess.Popen(
            [python, SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def stop(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    async def do(self, what: str, **more: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": what, **more}).encode() + b"\n")
        self._process.stdin.flush()
        try:
            async with asyncio.timeout(ANSWER_S):
                line = await asyncio.to_thread(self._process.stdout.readline)
        except TimeoutError:
            self._process.kill()  # the thread would wait for its line for ever
            raise
        said = json.loads(line or b'{"error": "the script has ended"}')
        if "error" in said:
            raise RuntimeError(said["error"])
        return said["did"]

    @asynccontextmanager
    async def connected(
        self, url: str, *, person: str = "alice", token: Token | None = None
    ) -> AsyncIterator[Caller]:
        await self.do("open", url=url, person=person, token=token)
        try:
            yield self
        finally:
            await self.do("close")

    async def call(self, tool: str) -> str:
        return str(await self.do("call", tool=tool))

    async def watch(self) -> None:
        await self.do("watch")

    async def told(self) -> None:
        await self.do("told")

    async def expire(self) -> None:
        await self.do("expire")

    async def trace(self) -> Trace:
        return Trace((method, url, status) for method, url, status in await self.do("trace"))
