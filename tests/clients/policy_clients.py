"""Clients of five SDKs with a key, all spoken to alike.

In: a set-up, the URL of an MCP server, and a key. Out: a `Session`. Two SDKs live in this process; the others in a
process each, which serves one connection after the other.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import warnings
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import fastmcp
import httpx2
import msgspec
from fastmcp.client.transports import StreamableHttpTransport
from mcp import MCPDeprecationWarning, MCPError
from mcp.client import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from proxy.refusals import META_KEY
from tests.tools.node import node_tools
from tests.tools.python_env import mcp1_python

HERE = Path(__file__).parent

ANSWER_S = 10
"""For one thing a client does. Milliseconds when it works; the scripts give up after 8 s by themselves."""

LEGACY, MODERN = "2025-11-25", "2026-07-28"

SIX: Mapping[str, str] = {
    "mcp 1.30": LEGACY,
    "mcp 2.3 legacy": LEGACY,
    "mcp 2.3 auto": MODERN,
    "ts 1.32": LEGACY,
    "ts 2.4 legacy": LEGACY,
    "ts 2.4 auto": MODERN,
}
"""The set-ups whose handling of refusals was measured, and what each speaks with a server that speaks everything."""

EVERY: Mapping[str, str] = {**SIX, "fastmcp auto": MODERN}

OVER_SSE = ("mcp 1.30", "mcp 2.3 legacy", "ts 1.32", "ts 2.4 legacy")
"""Those that speak 2024-11-05 as well."""

Tool: TypeAlias = dict[str, Any]


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What a client makes of the answer to tools/call: what its model reads, and what its author can see."""

    text: str
    is_error: bool = False
    refusal: Mapping[str, Any] | None = None
    """The facts of a refusal of ours."""


class Failed(Exception):
    """The SDK raised instead of returning a result: no model reads this."""

    def __init__(self, kind: str, code: int | str | None, message: str) -> None:
        super().__init__(kind, code, message)
        self.kind, self.code, self.message = kind, code, message


class Session(Protocol):
    """A connected client. Everything raises Failed."""

    @property
    def speaks(self) -> str | None:
        """The revision it settled on."""
        ...

    async def tools(self) -> list[Tool]:
        """What it lists, in order, as the wire has it."""
        ...

    async def call(self, tool: str, **arguments: object) -> Said: ...

    async def prompt(self, name: str) -> str: ...

    async def read(self, uri: str) -> str: ...

    async def tell_roots(self) -> None:
        """Send a notification."""
        ...


def said_by(content: Sequence[Mapping[str, Any]], is_error: bool, meta: Mapping[str, Any]) -> Said:
    (block,) = content
    assert block["type"] == "text"
    return Said(text=block["text"], is_error=is_error, refusal=meta.get(META_KEY))


class Mcp2:
    """Fulfils `Session` with the SDK of our own environment."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def speaks(self) -> str:
        return self._client.protocol_version

    async def tools(self) -> list[Tool]:
        with _raised():
            listed = (await self._client.list_tools()).tools
        return [tool.model_dump(mode="json", by_alias=True, exclude_unset=True) for tool in listed]

    async def call(self, tool: str, **arguments: object) -> Said:
        with _raised():
            result = await self._client.call_tool(tool, arguments)
        content = [block.model_dump(mode="json") for block in result.content]
        return said_by(content, result.is_error, result.meta or {})

    async def prompt(self, name: str) -> str:
        with _raised():
            (message,) = (await self._client.get_prompt(name)).messages
        return str(message.content.model_dump()["text"])

    async def read(self, uri: str) -> str:
        with _raised():
            (contents,) = (await self._client.read_resource(uri)).contents
        return str(contents.model_dump()["text"])

    async def tell_roots(self) -> None:
        with _raised(), warnings.catch_warnings():
            warnings.simplefilter("ignore", MCPDeprecationWarning)  # deprecated in 2026-07-28, alive before
            await self._client.send_roots_list_changed()


class Fastmcp:
    """Fulfils `Session` with fastmcp, without its wish to raise where a tool fails."""

    def __init__(self, client: fastmcp.Client[Any]) -> None:
        self._client = client

    @property
    def speaks(self) -> str | None:
        return self._client.protocol_version

    async def tools(self) -> list[Tool]:
        with _raised():
            listed = await self._client.list_tools()
        return [tool.model_dump(mode="json", by_alias=True, exclude_unset=True) for tool in listed]

    async def call(self, tool: str, **arguments: object) -> Said:
        with _raised():
            result = await self._client.call_tool(tool, arguments, raise_on_error=False)
        content = [block.model_dump(mode="json") for block in result.content]
        return said_by(content, result.is_error, result.meta or {})

    async def prompt(self, name: str) -> str:
        with _raised():
            (message,) = (await self._client.get_prompt(name)).messages
        return str(message.content.model_dump()["text"])

    async def read(self, uri: str) -> str:
        with _raised():
            (contents,) = await self._client.read_resource(uri)
        return str(contents.model_dump()["text"])

    async def tell_roots(self) -> None:
        with _raised(), warnings.catch_warnings():
            warnings.simplefilter("ignore", MCPDeprecationWarning)  # deprecated in 2026-07-28, alive before
            await self._client.send_roots_list_changed()


@contextmanager
def _raised() -> Iterator[None]:
    try:
        yield
    except MCPError as error:
        raise Failed(type(error).__name__, error.error.code, error.error.message) from error


class Script:
    """Fulfils `Session` with an SDK in a process of its own; one connection after the other."""

    def __init__(self, command: Sequence[str | Path], log: Path) -> None:
        # A corporate HTTP proxy in the environment does not know the way to our loopback.
        environment = {
            name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")
        }
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment
            )
        self.speaks: str | None = None

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
        said = json.loads(line)
        if "failed" in said:
            raise Failed(**said["failed"])
        return said["did"]

    @asynccontextmanager
    async def connected(self, url: str, headers: Mapping[str, str], **more: str) -> AsyncIterator[Session]:
        self.speaks = await self.do("open", url=url, headers=headers, **more)
        try:
            yield self
        finally:
            await self.do("close")

    async def tools(self) -> list[Tool]:
        listed = await self.do("tools")
        assert isinstance(listed, list)
        return listed

    async def call(self, tool: str, **arguments: object) -> Said:
        result = await self.do("call", tool=tool, arguments=arguments)
        return said_by(result["content"], result["isError"], result["meta"])

    async def prompt(self, name: str) -> str:
        return str(await self.do("prompt", name=name))

    async def read(self, uri: str) -> str:
        return str(await self.do("read", uri=uri))

    async def tell_roots(self) -> None:
        await self.do("roots")


class Clients:
    """Connects any of them; the scripts start when they are needed first, and are stopped once."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._scripts: dict[str, Script] = {}

    def stop(self) -> None:
        for script in self._scripts.values():
            script.stop()

    @asynccontextmanager
    async def connected(self, setup: str, url: str, key: str | None = None) -> AsyncIterator[Session]:
        """`key` is presented with every request; None: the server is spoken to directly."""
        headers = {} if key is None else {"X-API-Key": key}
        sdk, _, mode = setup.rpartition(" ")
        if setup.startswith("mcp 2.3"):
            async with _mcp2(url, mode, headers) as session:
                yield session
        elif sdk == "fastmcp":
            there = StreamableHttpTransport(url, headers=headers)
            async with asyncio.timeout(ANSWER_S), fastmcp.Client(there, mode=mode) as client:
                yield Fastmcp(client)
        elif setup == "mcp 1.30":
            async with self._mcp1().connected(url, headers) as session:
                yield session
        else:
            client = {"ts 1.32": "ts1", "ts 2.4 legacy": "ts2 legacy", "ts 2.4 auto": "ts2 auto"}[setup]
            async with self._ts().connected(url, headers, client=client) as session:
                yield session

    def _mcp1(self) -> Script:
        return self._script("mcp1", [mcp1_python(), "-I", HERE / "policy_mcp1.py"])

    def _ts(self) -> Script:
        tools = node_tools()
        return self._script("ts", [tools.node, HERE / "policy_ts.cjs", tools.root])

    def _script(self, name: str, command: Sequence[str | Path]) -> Script:
        if name not in self._scripts:
            self._scripts[name] = Script(command, self._logs / f"{name}.log")
        return self._scripts[name]


@asynccontextmanager
async def _mcp2(url: str, mode: str, headers: dict[str, str]) -> AsyncIterator[Session]:
    async with asyncio.timeout(ANSWER_S), httpx2.AsyncClient(headers=headers, timeout=ANSWER_S) as http:
        transport = (
            sse_client(url, headers=headers)
            if url.endswith("/sse")
            else streamable_http_client(url, http_client=http)
        )
        async with Client(transport, mode=mode) as client:
            yield Mcp2(client)
