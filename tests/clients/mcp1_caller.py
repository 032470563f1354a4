"""PyPI mcp 1.x with its OAuth client, told what to do: commands on standard input, answers on standard output.

A script for an environment of its own (tests/tools/mcp1.lock). A line in is {"do", ...}: open (url, person,
token), then call (tool), watch, told, expire, trace, close. A line out is {"did"}, or {"error"} instead. A URL that
ends in /sse is spoken to in 2024-11-05.
"""

import asyncio
import importlib
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

# By name, because type checkers would look at the SDK of our own environment, which is another version.
mcp: Any = importlib.import_module("mcp")
types: Any = importlib.import_module("mcp.types")
transports: Any = importlib.import_module("mcp.client.streamable_http")
sse_transports: Any = importlib.import_module("mcp.client.sse")
client_auth: Any = importlib.import_module("mcp.client.auth")
auth_types: Any = importlib.import_module("mcp.shared.auth")
httpx: Any = importlib.import_module("httpx")

ANSWER_S = 8
"""For one command."""

HOME = "http://127.0.0.1:1/callback"
"""Where the browser would be sent back to. Nobody listens there: the answer is read off the redirect."""

WATCHED = "test://watched-resource"


class Storage:
    """Fulfils the SDK's `TokenStorage`."""

    def __init__(self, token: dict[str, Any] | None) -> None:
        self._tokens = auth_types.OAuthToken.model_validate(token) if token else None
        self._client: Any = None

    async def get_tokens(self) -> Any:
        return self._tokens

    async def set_tokens(self, tokens: Any) -> None:
        self._tokens = tokens

    async def get_client_info(self) -> Any:
        return self._client

    async def set_client_info(self, client_info: Any) -> None:
        self._client = client_info


class Person:
    """Who would sit at the browser, and agrees."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._back = ""

    async def go(self, url: str) -> None:
        async with httpx.AsyncClient(verify=False) as browser:
            answer = await browser.get(f"{url}&{urlencode({'login_hint': self._name})}")
        self._back = answer.headers["location"]

    async def come_back(self) -> tuple[str, str | None]:
        query = parse_qs(urlsplit(self._back).query)
        return query["code"][0], query["state"][0]


class Connection:
    """An open session, and what it heard."""

    def __init__(self) -> None:
        self.session: Any = None
        self.auth: Any = None
        self.news: asyncio.Queue[str] = asyncio.Queue()
        self.trace: list[list[object]] = []

    async def on_message(self, message: Any) -> None:
        if isinstance(message, types.ServerNotification):
            self.news.put_nowait(message.root.method)

    async def on_response(self, response: Any) -> None:
        url = response.request.url
        self.trace.append([response.request.method, str(url), response.status_code])

    async def follow(self, command: dict[str, Any]) -> object:
        match command["do"]:
            case "call":
                result = await self.session.call_tool(command["tool"], {})
                return result.content[0].text
            case "watch":
                await self.session.subscribe_resource(WATCHED)
                return None
            case "told":
                while (heard := await self.news.get()) != "notifications/resources/updated":
                    pass
                return heard
            case "expire":
                self.auth.context.token_expiry_time = 1.0
                return None
            case "trace":
                return self.trace
            case unknown:
                raise ValueError(unknown)


@asynccontextmanager
async def opened(url: str, person: str, token: dict[str, Any] | None) -> AsyncIterator[Connection]:
    who, connection = Person(person), Connection()
    metadata = auth_types.OAuthClientMetadata(redirect_uris=[HOME], client_name="mcp 1.x")
    auth = client_auth.OAuthClientProvider(url, metadata, Storage(token), who.go, who.come_back)
    connection.auth = auth

    def hooked(headers: Any = None, timeout: Any = None, auth: Any = None) -> Any:
        hooks = {"response": [connection.on_response]}
        return httpx.AsyncClient(headers=headers, timeout=timeout, auth=auth, event_hooks=hooks, verify=False)

    is_sse = url.endswith("/sse")
    connect = sse_transports.sse_client if is_sse else transports.streamablehttp_client
    async with (
        connect(url, auth=auth, httpx_client_factory=hooked) as (read, write, *_),
        mcp.ClientSession(read, write, message_handler=connection.on_message) as connection.session,
    ):
        async with asyncio.timeout(ANSWER_S):
            await connection.session.initialize()
        yield connection


class Commands:
    """One line in, one line out."""

    def __init__(self) -> None:
        self._lines = asyncio.StreamReader()
        self.is_answered = True

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(self._lines), sys.stdin)

    async def next(self) -> dict[str, Any] | None:
        raw = await self._lines.readline()
        self.is_answered = not raw
        return json.loads(raw) if raw else None

    def answer(self, **said: object) -> None:
        self.is_answered = True
        print(json.dumps(said), flush=True)


async def converse(commands: Commands, connection: Connection) -> None:
    while (command := await commands.next()) and command["do"] != "close":
        try:
            async with asyncio.timeout(ANSWER_S):
                commands.answer(did=await connection.follow(command))
        except Exception as error:
            commands.answer(error=repr(error))


async def main() -> None:
    commands, died = Commands(), "not connected"
    await commands.open()
    while command := await commands.next():
        if command["do"] != "open":
            commands.answer(error=died)
            continue
        died = "closed"
        try:
            async with opened(command["url"], command["person"], command["token"]) as connection:
                commands.answer(did="open")
                await converse(commands, connection)
        except Exception as error:
            died = repr(_first(error))
        if not commands.is_answered:
            commands.answer(**({"did": "close"} if died == "closed" else {"error": died}))


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


if __name__ == "__main__":
    asyncio.run(main())
