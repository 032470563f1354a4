"""PyPI mcp 1.x with headers of its own, told what to do: commands on standard input, answers on standard output.

A script for an environment of its own (tests/tools/mcp1.lock). A line in is {"do", ...}: open (url, headers), then
tools, call (tool, arguments), prompt (name), read (uri), roots, close. A line out is {"did"}; {"failed": {kind, code,
message}} where the SDK raised, and for every line after the session has died. A URL that ends in /sse is spoken to
in 2024-11-05.
"""

import asyncio
import importlib
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

# By name, because type checkers would look at the SDK of our own environment, which is another version.
mcp: Any = importlib.import_module("mcp")
transports: Any = importlib.import_module("mcp.client.streamable_http")
sse_transports: Any = importlib.import_module("mcp.client.sse")

ANSWER_S = 8
"""For one command."""


@asynccontextmanager
async def opened(url: str, headers: dict[str, str]) -> AsyncIterator[tuple[Any, str]]:
    connect = sse_transports.sse_client if url.endswith("/sse") else transports.streamablehttp_client
    async with connect(url, headers=headers) as (read, write, *_), mcp.ClientSession(read, write) as session:
        async with asyncio.timeout(ANSWER_S):
            hello = await session.initialize()
        yield session, hello.protocolVersion


async def follow(session: Any, command: dict[str, Any]) -> object:
    match command["do"]:
        case "tools":
            listed = (await session.list_tools()).tools
            return [tool.model_dump(mode="json", by_alias=True, exclude_unset=True) for tool in listed]
        case "call":
            result = await session.call_tool(command["tool"], command["arguments"])
            said = result.model_dump(mode="json", by_alias=True)
            return {"content": said["content"], "isError": said["isError"], "meta": said["_meta"] or {}}
        case "prompt":
            return (await session.get_prompt(command["name"])).messages[0].content.text
        case "read":
            return (await session.read_resource(command["uri"])).contents[0].text
        case "roots":
            return await session.send_roots_list_changed()
        case unknown:
            raise ValueError(unknown)


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

    def did(self, what: object) -> None:
        self._say({"did": what})

    def failed(self, error: BaseException) -> None:
        said = getattr(error, "error", None)
        code, message = (None, str(error)) if said is None else (said.code, said.message)
        self._say({"failed": {"kind": type(error).__name__, "code": code, "message": message}})

    def _say(self, answer: object) -> None:
        self.is_answered = True
        print(json.dumps(answer), flush=True)


async def converse(commands: Commands, session: Any) -> None:
    while (command := await commands.next()) and command["do"] != "close":
        try:
            async with asyncio.timeout(ANSWER_S):
                commands.did(await follow(session, command))
        except Exception as error:
            commands.failed(error)


async def main() -> None:
    commands, died = Commands(), None
    await commands.open()
    while command := await commands.next():
        if command["do"] == "close":
            commands.did(None)
        elif command["do"] != "open":
            commands.failed(died or RuntimeError("not connected"))
        else:
            died = None
            try:
                async with opened(command["url"], command["headers"]) as (session, speaks):
                    commands.did(speaks)
                    await converse(commands, session)
            except BaseExceptionGroup as errors:
                died = first(errors)
                if not commands.is_answered:
                    commands.failed(died)
            if not commands.is_answered:
                commands.did(None)


def first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


if __name__ == "__main__":
    asyncio.run(main())
