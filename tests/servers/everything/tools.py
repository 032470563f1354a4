"""What each tool does when it is called.

A tool returns a result; one that cannot do its work raises ToolFailed, which the model reads as ``isError``.
A fault of the request itself (an unknown tool, a capability the client did not declare) is an MCPError.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from mcp.server.subscriptions import PromptsListChanged, ResourceUpdated, ToolsListChanged
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp_types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    AudioContent,
    CallToolRequestParams,
    CallToolResult,
    ClientCapabilities,
    ContentBlock,
    CreateMessageResult,
    EmbeddedResource,
    ImageContent,
    InputRequiredResult,
    MissingRequiredClientCapabilityErrorData,
    SamplingCapability,
    TextContent,
    TextResourceContents,
)

from . import forms, rounds
from .contents import PNG, WAV
from .resources import WATCHED
from .state import Context, session_of

PAUSE_S = 0.05
"""Between two notifications of one call: long enough that they leave as separate writes."""

ToolResult = CallToolResult | InputRequiredResult
Run = Callable[[Context, CallToolRequestParams], Awaitable[ToolResult]]


class ToolFailed(Exception):
    """The tool could not do its work; the text is for the model."""


def text(words: str) -> CallToolResult:
    return content(TextContent(type="text", text=words))


def content(*blocks: ContentBlock) -> CallToolResult:
    return CallToolResult(content=list(blocks))


def _string(params: CallToolRequestParams, name: str) -> str:
    value = (params.arguments or {}).get(name)
    if not isinstance(value, str):
        raise ToolFailed(f"The argument {name!r} is required and must be a string")
    return value


def _resource(uri: str, mime_type: str, words: str) -> EmbeddedResource:
    contents = TextResourceContents(uri=uri, mime_type=mime_type, text=words)
    return EmbeddedResource(type="resource", resource=contents)


async def simple_text(ctx: Context, params: CallToolRequestParams) -> ToolResult:
    return text("This is a simple text response for testing.")


async def image(ctx: Context, params: CallToolRequestParams) -> ToolResult:
    return content(ImageContent(type="image", data=PNG, mime_type="image/png"))


async def audio(ctx: Context, params: CallToolRequestParams) -> ToolResult:
    return content(AudioContent(type="audio", data=WAV, mime_type="audio/wav"))


async def embedded_resource(ctx: Context, params: CallToolRequestParams) -> ToolResult:
    return content(
        _resource("test://embedded-resource", "text/plain", "This is an embedded resource content.")
    )


async def multiple_content_types(ctx: Context, params: CallToolRequestParams) -> ToolResult:
    return content(
        TextContent(type="text", text="Multiple content types test:"),
        ImageContent(type="image", data=PNG, mime_type="image/png"),
        _resource("test://mixed-content-resource", "application/json", '{"test":"data","value":123}'),
    )


async def error(ctx: Context, params: CallToolRequestParams) -> ToolResult:
    raise ToolFailed("This tool intentionally returns an error for testing")


async def json_schema(ctx: Context, params: CallToolRequestParams) -> ToolResult:
    return text(f"Received the arguments {sorted(params.arguments or {})}")


async def x_mcp_header(ctx: Context, params: CallToolRequestParams) -> ToolResult:
    return text(f"Region: {_string(params, 'region')}")


async def _log(ctx: Context, words: str) -> None:
    """Send a log message on the call's own stream, if its level was asked for."""
    if ctx.lifespan_context.wants(session_of(ctx), "info"):
        await ctx.session.send_log_message("info", words, related_request_id=ctx.request_id)


async def logging(ctx: Context, params: CallToolRequestParams) -> ToolResult:
    await _log(ctx, "Tool execution started")
    await anyio.sleep(PAUSE_S)
    await _log(ctx, "Tool processing data")
    await anyio.sleep(PAUSE_S)
    await _log(ctx, "Tool execution completed")
    return text("Three log messages were sent to whom they concern")


async def progress(ctx: Context, params: CallToolRequestParams) -> ToolResult:
    for done in (0, 50, 100):
        if done:
            await anyio.sleep(PAUSE_S)
        await ctx.session.report_progress(done, 100)
    return text("Progress was reported three times to whom asked for it")


async def reconnection(ctx: Context, params: CallToolRequestParams) -> ToolResult:
    """Hang up before answering; the client fetches the answer with ``Last-Event-ID`` (SEP-1699).

    Only 2025-11-25 can be hung up on; in other revisions the answer takes the ordinary way.
    """
    if ctx.close_sse_stream is not None:
        await ctx.close_sse_stream()
        await anyio.sleep(2 * PAUSE_S)
    return text("This answer may arrive on another stream than the call")


def _demand(ctx: Context, name: str) -> None:
    """Refuse the call unless the client declared the capability and can be reached."""
    declared = ctx.session.client_capabilities
    if declared is None or getattr(declared, name) is None or not ctx.session.can_send_request:
        raise ToolFailed(f"The client offers no {name} here")


async def _elicit(ctx: Context, message: str, schema: dict[str, Any]) -> str:
    _demand(ctx, "elicitation")
    answer = await ctx.session.elicit_form(message, schema, related_request_id=ctx.request_id)
    return f"action={answer.action}, content={answer.content}"


async def sampling(ctx: Context, params: CallToolRequestParams) -> ToolResult:
    prompt = _string(params, "prompt")
    _demand(ctx, "sampling")
    answer = await ctx.session.send_request(
        rounds.sample(prompt),
        CreateMessageResult,
        metadata=ServerMessageMetadata(related_request_id=ctx.request_id),
    )
    return text(f"LLM response: {rounds.said(answer)}")


async def elicitation(ctx: Context, params: CallToolRequestParams) -> ToolResult:
    return text(f"User response: {await _elicit(ctx, _string(params, 'message'), forms.CONTACT)}")


async def elicitation_defaults(ctx: Context, params: CallToolRequestParams) -> ToolResult:
    answer = await _elicit(ctx, "Please check the values and change what is wrong", forms.DEFAULTS)
    return text(f"Elicitation completed: {answer}")


async def elicitation_enums(ctx: Context, params: CallToolRequestParams) -> ToolResult:
    answer = await _elicit(ctx, "Please choose", forms.ENUMS)
    return text(f"Elicitation completed: {answer}")


async def trigger_tool_change(ctx: Context, params: CallToolRequestParams) -> ToolResult:
    state = ctx.lifespan_context
    state.extra_tool = not state.extra_tool
    await state.bus.publish(ToolsListChanged())
    return text(f"test_extra_tool is {'on' if state.extra_tool else 'off'} the list")


async def trigger_prompt_change(ctx: Context, params: CallToolRequestParams) -> ToolResult:
    state = ctx.lifespan_context
    state.extra_prompt = not state.extra_prompt
    await state.bus.publish(PromptsListChanged())
    return text(f"test_extra_prompt is {'on' if state.extra_prompt else 'off'} the list")


async def trigger_resource_change(ctx: Context, params: CallToolRequestParams) -> ToolResult:
    """Tell who watches: listen streams through the bus, a session of the earlier revisions directly."""
    await ctx.lifespan_context.bus.publish(ResourceUpdated(WATCHED))
    if ctx.lifespan_context.watches(session_of(ctx), WATCHED):
        await ctx.session.send_resource_updated(WATCHED)
    return text(f"{WATCHED} counts as changed")


async def missing_capability(ctx: Context, params: CallToolRequestParams) -> ToolResult:
    declared = ctx.session.client_capabilities
    if declared is None or declared.sampling is None:
        needed = ClientCapabilities(sampling=SamplingCapability())
        data = MissingRequiredClientCapabilityErrorData(required_capabilities=needed)
        raise MCPError(
            MISSING_REQUIRED_CLIENT_CAPABILITY,
            "This tool needs the sampling capability",
            data.model_dump(by_alias=True, mode="json", exclude_none=True),
        )
    return text("The client declared the sampling capability")


async def streaming_elicitation(ctx: Context, params: CallToolRequestParams) -> ToolResult:
    """Progress first, then a question: the answer is a stream that ends in ``input_required``."""
    await ctx.session.report_progress(0, 1, "One question first")
    return _finish(rounds.ask_elicitation(params))


async def ask_what_the_client_can(ctx: Context, params: CallToolRequestParams) -> ToolResult:
    return _finish(rounds.ask_what_the_client_can(params, ctx.session.client_capabilities))


def in_rounds(ask: Callable[[CallToolRequestParams], rounds.Round]) -> Run:
    async def run(ctx: Context, params: CallToolRequestParams) -> ToolResult:
        return _finish(ask(params))

    return run


def _finish(answer: rounds.Round) -> ToolResult:
    return text(answer) if isinstance(answer, str) else answer
