"""What does a real client see? The URL of an MCP server in, one JSON line per step out.

A script, not a module of ours: it runs in the demo's own environment, whose SDK is mcp 1.x, the client
that forgives a proxy least.
"""

import asyncio
import importlib
import json
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

# By name, because type checkers would look at the SDK of our own environment, which is another version.
mcp: Any = importlib.import_module("mcp")
streamable_http: Any = importlib.import_module("mcp.client.streamable_http")

STEP_S = 10
"""One step takes milliseconds; a proxy that swallowed an answer must not hang the demo."""


async def step(name: str, act: Awaitable[Any], saw: Callable[[Any], str]) -> None:
    """Do one thing and report it; `saw` turns the answer into words and raises ValueError if it is wrong."""
    began = time.perf_counter()
    try:
        async with asyncio.timeout(STEP_S):
            words, is_ok = saw(await act), True
    except Exception as error:
        words, is_ok = f"{type(error).__name__}: {error}", False
    spent_ms = (time.perf_counter() - began) * 1000
    print(json.dumps({"step": name, "saw": words, "ms": round(spent_ms, 1), "ok": is_ok}), flush=True)


def _server(result: Any) -> str:
    return f"{result.serverInfo.name} {result.serverInfo.version}, protocol {result.protocolVersion}"


def _tools(result: Any) -> str:
    names = [tool.name for tool in result.tools]
    if "get_current_time" not in names:
        raise ValueError(f"get_current_time is not among {names}")
    return ", ".join(names)


def _time(result: Any) -> str:
    text: str = result.content[0].text
    if result.isError:
        raise ValueError(text)
    return str(json.loads(text)["datetime"])


def _error(result: Any) -> str:
    text: str = result.content[0].text
    if not result.isError:
        raise ValueError(f"an unknown time zone was accepted: {text}")
    return f"isError: {text}"


async def main(url: str) -> None:
    async with (
        streamable_http.streamablehttp_client(url) as (read, write, _),
        mcp.ClientSession(read, write, read_timeout_seconds=timedelta(seconds=STEP_S)) as session,
    ):
        await step("initialize", session.initialize(), _server)
        await step("list tools", session.list_tools(), _tools)
        zurich = session.call_tool("get_current_time", {"timezone": "Europe/Zurich"})
        await step("call a tool", zurich, _time)
        mars = session.call_tool("get_current_time", {"timezone": "Mars/Olympus_Mons"})
        await step("a call that fails", mars, _error)
        await step("ping", session.send_ping(), lambda _: "an empty result")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
