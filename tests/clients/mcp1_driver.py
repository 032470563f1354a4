"""PyPI mcp 1.x at work: the URL of an MCP server in, one JSON line per behaviour out.

A script for an environment of its own (tests/tools/mcp1.lock), started as `python mcp1_driver.py URL`. A
URL that ends in /sse is spoken to in 2024-11-05. A line is {"behaviour", "saw"}, or "error" instead of "saw".
"""

import asyncio
import contextlib
import importlib
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

# By name, because type checkers would look at the SDK of our own environment, which is another version.
mcp: Any = importlib.import_module("mcp")
types: Any = importlib.import_module("mcp.types")
transports: Any = importlib.import_module("mcp.client.streamable_http")
sse_transports: Any = importlib.import_module("mcp.client.sse")

ANSWER_S = 8
"""For one behaviour; the server itself gives up after 5 s."""

WATCHED = "test://watched-resource"


class Ears:
    """Everything the server says without being asked, and the answers to what it asks."""

    def __init__(self) -> None:
        self.logged: list[object] = []
        self.progress: list[tuple[float, float | None]] = []
        self.heard: asyncio.Queue[str] = asyncio.Queue()

    async def on_log(self, params: Any) -> None:
        self.logged.append(params.data)

    async def on_message(self, message: Any) -> None:
        if isinstance(message, types.ServerNotification):
            self.heard.put_nowait(message.root.method)

    async def on_progress(self, progress: float, total: float | None, message: str | None) -> None:
        self.progress.append((progress, total))
        self.heard.put_nowait("progress")

    async def answer_as_model(self, context: Any, params: Any) -> Any:
        said = types.TextContent(type="text", text=f"you asked: {params.messages[0].content.text}")
        return types.CreateMessageResult(role="assistant", content=said, model="parrot")

    async def answer_as_user(self, context: Any, params: Any) -> Any:
        fields = params.requestedSchema["properties"]
        return types.ElicitResult(action="accept", content={field: field for field in fields})

    async def wait_for(self, word: str) -> str:
        while (heard := await self.heard.get()) != word:
            pass
        return heard


Saw = Awaitable[object]
BEHAVIOURS: dict[str, Callable[[Any, Ears], Saw]] = {}


def behaviour(do: Callable[[Any, Ears], Saw]) -> Callable[[Any, Ears], Saw]:
    BEHAVIOURS[do.__name__] = do
    return do


async def _call(session: Any, name: str, **arguments: object) -> str:
    result = await session.call_tool(name, arguments)
    return f"isError: {result.content[0].text}" if result.isError else str(result.content[0].text)


@behaviour
async def lists_tools(session: Any, ears: Ears) -> object:
    names = {tool.name for tool in (await session.list_tools()).tools}
    return sorted(names & {"test_simple_text", "test_sampling", "test_wait"})


@behaviour
async def calls_a_tool(session: Any, ears: Ears) -> object:
    return await _call(session, "test_simple_text")


@behaviour
async def reads_a_failure(session: Any, ears: Ears) -> object:
    return await _call(session, "test_error_handling")


@behaviour
async def is_told_of_an_unknown_tool(session: Any, ears: Ears) -> object:
    try:
        return await _call(session, "no_such_tool")
    except mcp.McpError as refused:
        return [refused.error.code, refused.error.message]


@behaviour
async def follows_progress(session: Any, ears: Ears) -> object:
    await session.call_tool("test_tool_with_progress", {}, progress_callback=ears.on_progress)
    return ears.progress


@behaviour
async def reads_the_log(session: Any, ears: Ears) -> object:
    await _call(session, "test_tool_with_logging")
    return ears.logged


@behaviour
async def sets_the_log_level(session: Any, ears: Ears) -> object:
    await session.set_logging_level("error")
    await _call(session, "test_tool_with_logging")
    return ears.logged


@behaviour
async def answers_as_the_model(session: Any, ears: Ears) -> object:
    return await _call(session, "test_sampling", prompt="why?")


@behaviour
async def answers_as_the_user(session: Any, ears: Ears) -> object:
    return await _call(session, "test_elicitation", message="who?")


@behaviour
async def reads_resources(session: Any, ears: Ears) -> object:
    templates = await session.list_resource_templates()
    read = await session.read_resource("test://static-text")
    return [templates.resourceTemplates[0].uriTemplate, read.contents[0].text]


@behaviour
async def gets_a_prompt(session: Any, ears: Ears) -> object:
    got = await session.get_prompt("test_prompt_with_arguments", {"arg1": "a", "arg2": "ü"})
    return got.messages[0].content.text


@behaviour
async def completes_an_argument(session: Any, ears: Ears) -> object:
    prompt = types.PromptReference(type="ref/prompt", name="test_prompt_with_arguments")
    return (await session.complete(prompt, {"name": "arg1", "value": "par"})).completion.values


@behaviour
async def hears_of_a_changed_resource(session: Any, ears: Ears) -> object:
    await session.subscribe_resource(WATCHED)
    await _call(session, "test_trigger_resource_change")
    return await ears.wait_for("notifications/resources/updated")


@behaviour
async def hears_of_changed_tools(session: Any, ears: Ears) -> object:
    await _call(session, "test_announce_tools")
    return await ears.wait_for("notifications/tools/list_changed")


@behaviour
async def cancels_a_call(session: Any, ears: Ears) -> object:
    """This SDK has no way to cancel a call but to send the notification, and none to ask for the id."""
    label = {"label": f"mcp1 {sys.argv[1]}"}
    number = session._request_id

    async def wait() -> None:
        # Streamable HTTP answers the cancelled call with an error, HTTP+SSE not at all; both are allowed.
        with contextlib.suppress(mcp.McpError):
            await session.call_tool("test_wait", label, progress_callback=ears.on_progress)

    async with asyncio.TaskGroup() as tasks:
        call = tasks.create_task(wait())
        await ears.wait_for("progress")
        params = types.CancelledNotificationParams(requestId=number, reason="enough")
        notification = types.CancelledNotification(method="notifications/cancelled", params=params)
        await session.send_notification(types.ClientNotification(notification))
        was = await _call(session, "test_was_cancelled", **label)
        call.cancel()
    return was


@behaviour
async def resumes_a_cut_stream(session: Any, ears: Ears) -> object:
    return await _call(session, "test_reconnection")


@behaviour
async def pings(session: Any, ears: Ears) -> object:
    return (await session.send_ping()).model_dump(exclude_none=True)


@asynccontextmanager
async def connected(url: str, ears: Ears) -> AsyncIterator[tuple[Any, Any]]:
    is_sse = url.endswith("/sse")
    connect = sse_transports.sse_client if is_sse else transports.streamablehttp_client
    async with (
        connect(url) as (read, write, *_),
        mcp.ClientSession(
            read,
            write,
            logging_callback=ears.on_log,
            message_handler=ears.on_message,
            sampling_callback=ears.answer_as_model,
            elicitation_callback=ears.answer_as_user,
        ) as session,
    ):
        yield session, await session.initialize()


def report(name: str, **said: object) -> None:
    print(json.dumps({"behaviour": name, **said}), flush=True)


async def main(url: str) -> None:
    """Each behaviour in a session of its own: one that breaks must not hide the rest."""
    for name, do in {"connects": None, **BEHAVIOURS}.items():
        ears = Ears()
        try:
            async with asyncio.timeout(ANSWER_S), connected(url, ears) as (session, hello):
                report(name, saw=await do(session, ears) if do else hello.serverInfo.name)
        except Exception as error:
            report(name, error=repr(error))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
