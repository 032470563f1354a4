"""PyPI mcp 2.x, the client that is strictest about eras: each mode, each behaviour, both routes."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import pytest
from mcp import MCPError
from mcp.client import Client, ClientRequestContext, IncomingMessage
from mcp.client.subscriptions import ResourceUpdated, ToolsListChanged
from mcp_types import (
    CallToolResult,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequestParams,
    ElicitResult,
    ListRootsResult,
    LoggingMessageNotificationParams,
    PromptReference,
    ResourceUpdatedNotification,
    Root,
    TextContent,
    TextResourceContents,
    ToolListChangedNotification,
)
from pydantic import FileUrl

pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")

LEGACY, MODERN = "2025-11-25", "2026-07-28"
SPEAKS = {"auto": MODERN, "legacy": LEGACY, MODERN: MODERN}
"""What each mode of the client speaks with a server that speaks everything."""

WATCHED = "test://watched-resource"

ANSWER_S = 8
"""For one behaviour: milliseconds when it works; the server itself gives up after 5 s."""

labels = count(1)
"""One server serves all tests: what it remembers of one must not be taken for another's."""


@pytest.fixture(params=SPEAKS)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def connected(url: str, mode: str, **callbacks: Any) -> AsyncIterator[Client]:
    """A connected client; everything done with it, connecting included, is bounded."""
    async with asyncio.timeout(ANSWER_S), Client(url, mode=mode, **callbacks) as client:
        yield client


def text_of(result: CallToolResult) -> str:
    (block,) = result.content
    assert isinstance(block, TextContent)
    return block.text


async def test_the_client_speaks_the_revision_it_would_speak_directly(url: str, mode: str) -> None:
    """A refused probe makes clients change era for good (2026-07-28 basic/versioning)."""
    async with connected(url, mode) as client:
        listed = await client.list_tools()

        assert client.protocol_version == SPEAKS[mode]
    assert {"test_simple_text", "test_tool_with_progress", "test_wait"} <= {
        tool.name for tool in listed.tools
    }


async def test_listed_tools_are_whole(url: str, mode: str) -> None:
    """SEP-1613: no keyword of a schema is lost or rewritten on the way."""
    async with connected(url, mode) as client:
        listed = await client.list_tools()

    (rich,) = [tool for tool in listed.tools if tool.name == "json_schema_2020_12_tool"]
    assert rich.input_schema["$defs"]["address"]["$anchor"] == "addressDef"
    assert rich.input_schema["additionalProperties"] is False


async def test_a_tool_answers(url: str, mode: str) -> None:
    """Own promise: the same content as without us."""
    async with connected(url, mode) as client:
        result = await client.call_tool("test_simple_text", {})

    assert text_of(result) == "This is a simple text response for testing."
    assert result.is_error is False


async def test_pictures_and_resources_arrive_whole(url: str, mode: str) -> None:
    """Own promise: what is not text is as untouched as what is."""
    async with connected(url, mode) as client:
        result = await client.call_tool("test_multiple_content_types", {})

    assert [block.type for block in result.content] == ["text", "image", "resource"]


async def test_an_argument_mirrored_in_a_header_reaches_the_tool(url: str, mode: str) -> None:
    """2026-07-28 streamable-http: Mcp-Param-* must be forwarded, encoded where it is not ASCII."""
    async with connected(url, mode) as client:
        await client.list_tools()
        result = await client.call_tool("test_x_mcp_header", {"region": "Zürich"})

    assert text_of(result) == "Region: Zürich"


async def test_a_tool_that_fails_tells_the_model(url: str, mode: str) -> None:
    """server/tools: an error of the tool is a result the model reads."""
    async with connected(url, mode) as client:
        result = await client.call_tool("test_error_handling", {})

    assert result.is_error is True
    assert text_of(result) == "This tool intentionally returns an error for testing"


async def test_an_unknown_tool_is_the_servers_error(url: str, mode: str) -> None:
    """Own promise: code and words of an error are the server's, not ours."""
    async with connected(url, mode) as client:
        with pytest.raises(MCPError) as refused:
            await client.call_tool("no_such_tool", {})

    assert (refused.value.error.code, refused.value.error.message) == (-32602, "Unknown tool: no_such_tool")


async def test_progress_arrives_in_order(url: str, mode: str) -> None:
    """basic/utilities/progress: on the call's own stream, before its answer."""
    seen: list[tuple[float, float | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, total))

    async with connected(url, mode) as client:
        await client.call_tool("test_tool_with_progress", {}, progress_callback=on_progress)

    assert seen == [(0, 100), (50, 100), (100, 100)]


async def test_progress_arrives_while_the_tool_runs(url: str, mode: str) -> None:
    """Own promise: an event is passed on at once; this tool does not end before its caller has heard it."""
    heard = asyncio.Event()

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        heard.set()

    async with connected(url, mode) as client, asyncio.TaskGroup() as tasks:
        arguments = {"label": f"progress-{next(labels)}"}
        call = tasks.create_task(client.call_tool("test_wait", arguments, progress_callback=on_progress))
        await heard.wait()
        assert not call.done()
        call.cancel()


async def test_log_messages_arrive_before_the_answer(url: str, mode: str) -> None:
    """server/utilities/logging: asked for with `_meta` in 2026-07-28, unasked before."""
    seen: list[object] = []

    async def on_log(params: LoggingMessageNotificationParams) -> None:
        seen.append(params.data)

    async with connected(url, mode, logging_callback=on_log, log_level="info") as client:
        await client.call_tool("test_tool_with_logging", {})

    assert seen == ["Tool execution started", "Tool processing data", "Tool execution completed"]


async def test_a_log_level_that_was_set_is_kept(url: str) -> None:
    """2025-11-25 server/utilities/logging: logging/setLevel holds for the session."""
    seen: list[object] = []

    async def on_log(params: LoggingMessageNotificationParams) -> None:
        seen.append(params.data)

    async with connected(url, "legacy", logging_callback=on_log) as client:
        await client.set_logging_level("error")
        await client.call_tool("test_tool_with_logging", {})

    assert seen == []


async def answer_as_model(
    context: ClientRequestContext, params: CreateMessageRequestParams
) -> CreateMessageResult:
    (message,) = params.messages
    assert isinstance(message.content, TextContent)
    said = TextContent(type="text", text=f"you asked: {message.content.text}")
    return CreateMessageResult(role="assistant", content=said, model="parrot", stop_reason="endTurn")


async def answer_as_user(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
    """Fill every field of the form: a name where one is asked for, else the field's own name."""
    fields: list[str] = list(params.model_dump()["requested_schema"]["properties"])
    known: dict[str, str | bool] = {"name": "Ada", "ok": True}
    return ElicitResult(action="accept", content={field: known.get(field, field) for field in fields})


async def answer_with_roots(context: ClientRequestContext) -> ListRootsResult:
    return ListRootsResult(roots=[Root(uri=FileUrl("file:///somewhere"), name="somewhere")])


ANSWERS: dict[str, Callable[..., Awaitable[Any]]] = {
    "sampling_callback": answer_as_model,
    "elicitation_callback": answer_as_user,
    "list_roots_callback": answer_with_roots,
}


async def test_the_server_asks_the_clients_model(url: str) -> None:
    """2025-11-25 client/sampling: a request on the call's stream, answered by another POST."""
    async with connected(url, "legacy", **ANSWERS) as client:
        result = await client.call_tool("test_sampling", {"prompt": "why?"})

    assert text_of(result) == "LLM response: you asked: why?"


async def test_the_server_asks_the_user(url: str) -> None:
    """2025-11-25 client/elicitation: a request on the call's stream, answered by another POST."""
    async with connected(url, "legacy", **ANSWERS) as client:
        result = await client.call_tool("test_elicitation", {"message": "who?"})

    assert (
        text_of(result) == "User response: action=accept, content={'username': 'username', 'email': 'email'}"
    )


@pytest.mark.parametrize("mode", ["auto", MODERN])
@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("elicitation", "Hello, Ada!"),
        ("sampling", "The client's model said: you asked: What is the capital of France?"),
        ("list_roots", "Roots: file:///somewhere"),
        ("request_state", "state-ok"),
        ("multiple_inputs", "you asked: Generate a greeting Ada, 1 root(s) known"),
        ("multi_round", "Ada likes color"),
    ],
)
async def test_a_question_is_answered_by_calling_again(url: str, mode: str, kind: str, answer: str) -> None:
    """2026-07-28 basic/patterns/mrtr: the state comes back exactly as it was given."""
    async with connected(url, mode, **ANSWERS) as client:
        result = await client.call_tool(f"test_input_required_result_{kind}", {})

    assert text_of(result) == answer


async def test_a_stream_may_end_in_a_question(url: str) -> None:
    """2026-07-28 basic/patterns/mrtr: progress first, then input_required, on one stream."""
    seen: list[str | None] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append(message)

    async with connected(url, MODERN, **ANSWERS) as client:
        result = await client.call_tool("test_streaming_elicitation", {}, progress_callback=on_progress)

    assert text_of(result) == "Hello, Ada!"
    assert seen[0] == "One question first"


async def test_resources_are_listed_and_read(url: str, mode: str) -> None:
    """server/resources: text, binary and template; an unknown one is the server's error with its data."""
    async with connected(url, mode) as client:
        listed = await client.list_resources()
        templates = await client.list_resource_templates()
        text = await client.read_resource("test://static-text")
        binary = await client.read_resource("test://static-binary")
        from_template = await client.read_resource("test://template/7/data")
        with pytest.raises(MCPError) as unknown:
            await client.read_resource("test://nowhere")

    assert WATCHED in {resource.uri for resource in listed.resources}
    assert [template.uri_template for template in templates.resource_templates] == [
        "test://template/{id}/data"
    ]
    (words,) = text.contents
    assert isinstance(words, TextResourceContents)
    assert words.text == "This is the content of the static text resource."
    assert binary.contents[0].mime_type == "image/png"
    (data,) = from_template.contents
    assert isinstance(data, TextResourceContents)
    assert json.loads(data.text)["id"] == "7"
    assert (unknown.value.error.code, unknown.value.error.data) == (-32602, {"uri": "test://nowhere"})


async def test_prompts_are_listed_and_got(url: str, mode: str) -> None:
    """server/prompts: arguments arrive, and what is missing is the server's error."""
    async with connected(url, mode) as client:
        listed = await client.list_prompts()
        got = await client.get_prompt("test_prompt_with_arguments", {"arg1": "a", "arg2": "ü"})
        with pytest.raises(MCPError) as incomplete:
            await client.get_prompt("test_prompt_with_arguments", {"arg1": "a"})

    assert "test_simple_prompt" in {prompt.name for prompt in listed.prompts}
    (message,) = got.messages
    assert isinstance(message.content, TextContent)
    assert message.content.text == "Prompt with arguments: arg1='a', arg2='ü'"
    assert incomplete.value.error.message == "Missing required argument: arg2"


async def test_an_argument_is_completed(url: str, mode: str) -> None:
    """server/utilities/completion."""
    async with connected(url, mode) as client:
        prompt = PromptReference(type="ref/prompt", name="test_prompt_with_arguments")
        done = await client.complete(prompt, {"name": "arg1", "value": "par"})

    assert done.completion.values == ["paris", "park", "party"]


async def test_a_changed_resource_is_told_on_the_listen_stream(url: str) -> None:
    """2026-07-28 basic/patterns/subscriptions: only what was asked for, while other calls go on."""
    async with connected(url, MODERN) as client, client.listen(resource_subscriptions=[WATCHED]) as changes:
        await client.call_tool("test_trigger_tool_change", {})
        await client.call_tool("test_trigger_resource_change", {})
        first = await anext(aiter(changes))

    assert first == ResourceUpdated(WATCHED)


async def test_changed_tools_are_told_on_the_listen_stream(url: str) -> None:
    """2026-07-28 basic/patterns/subscriptions."""
    async with connected(url, MODERN) as client, client.listen(tools_list_changed=True) as changes:
        before = await client.list_tools()
        await client.call_tool("test_trigger_tool_change", {})
        first = await anext(aiter(changes))
        after = await client.list_tools()

    assert first == ToolsListChanged()
    assert {tool.name for tool in before.tools} ^ {tool.name for tool in after.tools} == {"test_extra_tool"}


class Notifications:
    """Collects what the server says by itself; `wait_for` returns the first of a kind."""

    def __init__(self) -> None:
        self._seen: asyncio.Queue[IncomingMessage] = asyncio.Queue()

    async def __call__(self, message: IncomingMessage) -> None:
        self._seen.put_nowait(message)

    async def wait_for(self, kind: type[Any]) -> Any:
        while not isinstance(message := await self._seen.get(), kind):
            pass
        return message


async def test_a_changed_resource_is_told_to_the_session_that_watches(url: str) -> None:
    """2025-11-25 server/resources: a notification on the GET stream."""
    told = Notifications()

    async with connected(url, "legacy", message_handler=told) as client:
        await client.subscribe_resource(WATCHED)
        await client.call_tool("test_trigger_resource_change", {})
        changed = await told.wait_for(ResourceUpdatedNotification)

    assert str(changed.params.uri) == WATCHED


async def test_changed_tools_are_told_to_the_session(url: str) -> None:
    """2025-11-25 server/tools: a notification on the GET stream."""
    told = Notifications()

    async with connected(url, "legacy", message_handler=told) as client:
        await client.call_tool("test_announce_tools", {})
        changed = await told.wait_for(ToolListChangedNotification)

    assert changed.method == "notifications/tools/list_changed"


async def test_the_server_notices_a_cancelled_call(url: str, mode: str) -> None:
    """basic/patterns/cancellation: 2026-07-28 closes the response, others send notifications/cancelled."""
    running = asyncio.Event()

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        running.set()

    async with connected(url, mode) as client:
        label = {"label": f"cancel-{next(labels)}"}
        async with asyncio.TaskGroup() as tasks:
            call = tasks.create_task(client.call_tool("test_wait", label, progress_callback=on_progress))
            await running.wait()
            call.cancel()
        asked = await client.call_tool("test_was_cancelled", label)
        after = await client.call_tool("test_simple_text", {})

    assert text_of(asked) == "cancelled"
    assert text_of(after) == "This is a simple text response for testing."


async def test_an_answer_is_fetched_after_the_stream_was_cut(url: str) -> None:
    """2025-11-25 basic/transports: the server hangs up, the client resumes with Last-Event-ID."""
    async with connected(url, "legacy") as client:
        result = await client.call_tool("test_reconnection", {})

    assert text_of(result) == "This answer may arrive on another stream than the call"


async def test_a_ping_is_answered(url: str) -> None:
    """2025-11-25 basic/utilities/ping."""
    async with connected(url, "legacy") as client:
        answer = await client.send_ping()

    assert answer.model_dump(by_alias=True, exclude_none=True, exclude={"result_type"}) == {}


async def test_many_calls_at_once_get_their_own_answers(url: str, mode: str) -> None:
    """Own promise: ids are not mixed up, whatever order answers come in."""
    uris = [f"test://template/{number}/data" for number in range(30)]

    async with connected(url, mode) as client, asyncio.TaskGroup() as tasks:
        reads = [tasks.create_task(client.read_resource(uri)) for uri in uris]

    assert [read.result().contents[0].uri for read in reads] == uris
