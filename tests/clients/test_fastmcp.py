"""PyPI fastmcp 4.x: in the era it chooses, made to speak the older one, and over HTTP+SSE; on both routes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastmcp import Client
from fastmcp.client.elicitation import ElicitResult
from fastmcp.client.logging import LogMessage
from fastmcp.exceptions import ToolError
from mcp_types import TextContent, TextResourceContents

pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")

ANSWER_S = 8
"""For one behaviour: milliseconds when it works; the server itself gives up after 5 s."""


@pytest.fixture(params=["auto", "legacy", "sse"])
def connection(request: pytest.FixtureRequest, url: str, sse_url: str) -> tuple[str, str]:
    """Where to connect, and the mode: what a user of fastmcp would write."""
    return (sse_url, "auto") if request.param == "sse" else (url, str(request.param))


@pytest.fixture(params=["legacy", "sse"])
def session(request: pytest.FixtureRequest, url: str, sse_url: str) -> tuple[str, str]:
    """Those connections on which the server may ask by itself."""
    return (sse_url, "auto") if request.param == "sse" else (url, "legacy")


@asynccontextmanager
async def connected(connection: tuple[str, str], **handlers: Any) -> AsyncIterator[Client[Any]]:
    url, mode = connection
    async with asyncio.timeout(ANSWER_S), Client(url, mode=mode, **handlers) as client:
        yield client


def text_of(result: Any) -> str:
    (block,) = result.content
    assert isinstance(block, TextContent)
    return block.text


async def test_tools_are_listed_and_called(connection: tuple[str, str]) -> None:
    """Own promise: the same as without us."""
    async with connected(connection) as client:
        names = {tool.name for tool in await client.list_tools()}
        result = await client.call_tool("test_simple_text")

    assert {"test_simple_text", "test_tool_with_progress", "test_wait"} <= names
    assert text_of(result) == "This is a simple text response for testing."


async def test_the_era_is_the_one_chosen_directly(url: str) -> None:
    """A refused probe makes clients change era for good (2026-07-28 basic/versioning)."""
    async with connected((url, "auto")) as client:
        assert client.protocol_version == "2026-07-28"


async def test_a_tool_that_fails_tells_the_model(connection: tuple[str, str]) -> None:
    """server/tools: an error of the tool is a result the model reads."""
    async with connected(connection) as client:
        with pytest.raises(ToolError, match=r"^This tool intentionally returns an error for testing$"):
            await client.call_tool("test_error_handling")


async def test_progress_arrives_in_order(connection: tuple[str, str]) -> None:
    """basic/utilities/progress."""
    seen: list[tuple[float, float | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, total))

    async with connected(connection) as client:
        await client.call_tool("test_tool_with_progress", progress_handler=on_progress)

    assert seen == [(0, 100), (50, 100), (100, 100)]


async def test_log_messages_arrive(session: tuple[str, str]) -> None:
    """server/utilities/logging, which a session of the older revisions gets unasked."""
    seen: list[object] = []

    async def on_log(message: LogMessage) -> None:
        seen.append(message.data)

    async with connected(session, log_handler=on_log) as client:
        await client.call_tool("test_tool_with_logging")

    assert seen == ["Tool execution started", "Tool processing data", "Tool execution completed"]


async def answer_as_model(messages: Any, params: Any, context: Any) -> str:
    return f"you asked: {messages[0].content.text}"


async def answer_as_user(message: str, response_type: Any, params: Any, context: Any) -> Any:
    fields = params.requested_schema["properties"]
    return ElicitResult(action="accept", content={field: field for field in fields})


async def test_the_server_asks_the_clients_model(session: tuple[str, str]) -> None:
    """client/sampling: a request of the server's, answered by another POST."""
    async with connected(session, sampling_handler=answer_as_model) as client:
        result = await client.call_tool("test_sampling", {"prompt": "why?"})

    assert text_of(result) == "LLM response: you asked: why?"


async def test_the_server_asks_the_user(session: tuple[str, str]) -> None:
    """client/elicitation: a request of the server's, answered by another POST."""
    async with connected(session, elicitation_handler=answer_as_user) as client:
        result = await client.call_tool("test_elicitation", {"message": "who?"})

    assert (
        text_of(result) == "User response: action=accept, content={'username': 'username', 'email': 'email'}"
    )


async def test_a_question_is_answered_by_calling_again(url: str) -> None:
    """2026-07-28 basic/patterns/mrtr."""
    async with connected((url, "auto"), elicitation_handler=answer_as_user) as client:
        result = await client.call_tool("test_input_required_result_multi_round")

    assert text_of(result) == "name likes color"


async def test_resources_and_prompts_arrive(connection: tuple[str, str]) -> None:
    """server/resources and server/prompts."""
    async with connected(connection) as client:
        (read,) = await client.read_resource("test://static-text")
        got = await client.get_prompt("test_prompt_with_arguments", {"arg1": "a", "arg2": "ü"})

    assert isinstance(read, TextResourceContents)
    assert read.text == "This is the content of the static text resource."
    (message,) = got.messages
    assert isinstance(message.content, TextContent)
    assert message.content.text == "Prompt with arguments: arg1='a', arg2='ü'"
