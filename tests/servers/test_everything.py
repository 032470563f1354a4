"""What the everything server does that the official suite does not look at."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from mcp import ClientSession
from mcp.client.sse import sse_client
from mcp.server.streamable_http import EventMessage
from mcp_types import (
    EmptyResult,
    JSONRPCNotification,
    LoggingMessageNotificationParams,
    ResourceUpdatedNotification,
    SetLevelRequest,
    SetLevelRequestParams,
    SubscribeRequest,
    SubscribeRequestParams,
    TextContent,
    UnsubscribeRequest,
    UnsubscribeRequestParams,
)

from tests.conformance.processes import child
from tests.conformance.stand import everything
from tests.servers.everything.replay import Replay

WATCHED = "test://watched-resource"


class Legacy:
    """A 2024-11-05 client that keeps what it was told. One stream: what was sent before an answer is here."""

    def __init__(self) -> None:
        self.logged: list[object] = []
        self.updated: list[str] = []

    @classmethod
    @asynccontextmanager
    async def connected(cls, logs: Path) -> AsyncIterator[Legacy]:
        """Start a server for this client alone."""
        legacy = cls()
        async with (
            everything(logs, "--sse") as url,
            sse_client(url) as (incoming, outgoing),
            ClientSession(
                incoming,
                outgoing,
                read_timeout_seconds=5,
                logging_callback=legacy._log,
                message_handler=legacy._hear,
            ) as legacy.client,
        ):
            await legacy.client.initialize()
            yield legacy

    client: ClientSession

    async def _log(self, params: LoggingMessageNotificationParams) -> None:
        self.logged.append(params.data)

    async def _hear(self, message: object) -> None:
        if isinstance(message, ResourceUpdatedNotification):
            self.updated.append(str(message.params.uri))

    async def call(self, tool: str) -> str:
        block = (await self.client.call_tool(tool, {})).content[0]
        assert isinstance(block, TextContent)
        return block.text


async def test_http_sse_serves_the_same_tools(tmp_path: Path) -> None:
    async with Legacy.connected(tmp_path) as session:
        assert await session.call("test_simple_text") == "This is a simple text response for testing."
        assert "test_reconnection" in [tool.name for tool in (await session.client.list_tools()).tools]


async def test_a_tool_comes_and_goes(tmp_path: Path) -> None:
    async with Legacy.connected(tmp_path) as session:

        async def listed() -> bool:
            return "test_extra_tool" in [tool.name for tool in (await session.client.list_tools()).tools]

        assert not await listed()
        await session.call("test_trigger_tool_change")
        assert await listed()
        await session.call("test_trigger_tool_change")
        assert not await listed()


async def test_only_a_session_that_watches_hears_of_a_change(tmp_path: Path) -> None:
    async with Legacy.connected(tmp_path) as session:
        await session.call("test_trigger_resource_change")
        assert session.updated == []
        subscribe = SubscribeRequest(params=SubscribeRequestParams(uri=WATCHED))
        await session.client.send_request(subscribe, EmptyResult)
        await session.call("test_trigger_resource_change")
        assert session.updated == [WATCHED]
        unsubscribe = UnsubscribeRequest(params=UnsubscribeRequestParams(uri=WATCHED))
        await session.client.send_request(unsubscribe, EmptyResult)
        await session.call("test_trigger_resource_change")
        assert session.updated == [WATCHED]


async def test_a_log_level_keeps_lesser_messages_away(tmp_path: Path) -> None:
    async with Legacy.connected(tmp_path) as session:
        error = SetLevelRequest(params=SetLevelRequestParams(level="error"))
        await session.client.send_request(error, EmptyResult)
        await session.call("test_tool_with_logging")
        assert session.logged == []
        info = SetLevelRequest(params=SetLevelRequestParams(level="info"))
        await session.client.send_request(info, EmptyResult)
        await session.call("test_tool_with_logging")
        assert session.logged == [
            "Tool execution started",
            "Tool processing data",
            "Tool execution completed",
        ]


async def test_term_ends_it_though_a_stream_is_open(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.servers.everything", "--sse"]
    async with child(command, log=tmp_path / "log", piped=True) as process:
        assert process.stdout is not None
        url = (await process.stdout.readline()).decode().removeprefix("ready ").strip()
        async with aiohttp.ClientSession() as client, client.get(url) as stream:
            assert (await stream.content.readline()) == b"event: endpoint\r\n"
            process.terminate()
            assert await process.wait() == -signal.SIGTERM


async def test_a_stream_is_replayed_after_the_last_event_seen_and_alone() -> None:
    store, sent = Replay(), []

    async def send(event: EventMessage) -> None:
        sent.append((event.event_id, event.message))

    one, two, other = (JSONRPCNotification(jsonrpc="2.0", method=name) for name in ("one", "two", "other"))
    primed = await store.store_event("a", None)
    first = await store.store_event("a", one)
    await store.store_event("b", other)
    await store.store_event("a", None)
    second = await store.store_event("a", two)
    assert await store.replay_events_after(primed, send) == "a"
    assert sent == [(first, one), (second, two)]
    sent.clear()
    assert await store.replay_events_after(second, send) == "a"
    assert await store.replay_events_after("unknown", send) is None
    assert sent == []


async def test_a_full_store_forgets_the_oldest_event() -> None:
    async def send(event: EventMessage) -> None:
        raise AssertionError("nothing follows the last event")

    store = Replay(most_events=2)
    ids = [await store.store_event("a", None) for _ in range(3)]
    assert [await store.replay_events_after(event, send) for event in ids] == [None, "a", "a"]
