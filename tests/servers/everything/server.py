"""Puts tools, resources and prompts behind the SDK's server, and that behind HTTP. Opens no socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from mcp.server.caching import CacheHint
from mcp.server.lowlevel.server import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.sse import SseServerTransport
from mcp.server.subscriptions import ListenHandler
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    CompleteRequestParams,
    CompleteResult,
    Completion,
    EmptyResult,
    GetPromptRequestParams,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    SetLevelRequestParams,
    SubscribeRequestParams,
    TextContent,
    UnsubscribeRequestParams,
)
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from . import resources
from .listing import EXTRA_TOOL, TOOLS, ToolEntry
from .prompts import EXTRA_PROMPT, PROMPTS, PromptEntry, PromptResult
from .replay import Replay
from .state import Context, State, session_of
from .tools import ToolFailed, ToolResult

NAME = "everything-fixture"

RETRY_MS = 500
"""What a client waits before it fetches the rest of a stream that we cut."""

COMPLETIONS = ("paris", "park", "party", "prague", "test", "testing")

_SELDOM_CHANGING = CacheHint(ttl_ms=60_000, scope="public")


def _tools(state: State) -> Mapping[str, ToolEntry]:
    return {**TOOLS, EXTRA_TOOL.listed.name: EXTRA_TOOL} if state.extra_tool else TOOLS


def _prompts(state: State) -> Mapping[str, PromptEntry]:
    return {**PROMPTS, EXTRA_PROMPT.listed.name: EXTRA_PROMPT} if state.extra_prompt else PROMPTS


async def _list_tools(ctx: Context, params: PaginatedRequestParams | None) -> ListToolsResult:
    return ListToolsResult(tools=[entry.listed for entry in _tools(ctx.lifespan_context).values()])


async def _call_tool(ctx: Context, params: CallToolRequestParams) -> ToolResult:
    entry = _tools(ctx.lifespan_context).get(params.name)
    if entry is None:
        raise MCPError(INVALID_PARAMS, f"Unknown tool: {params.name}")
    try:
        return await entry.run(ctx, params)
    except ToolFailed as failed:
        return CallToolResult(content=[TextContent(type="text", text=str(failed))], is_error=True)


async def _list_prompts(ctx: Context, params: PaginatedRequestParams | None) -> ListPromptsResult:
    return ListPromptsResult(prompts=[entry.listed for entry in _prompts(ctx.lifespan_context).values()])


async def _get_prompt(ctx: Context, params: GetPromptRequestParams) -> PromptResult:
    entry = _prompts(ctx.lifespan_context).get(params.name)
    if entry is None:
        raise MCPError(INVALID_PARAMS, f"Unknown prompt: {params.name}")
    return entry.get(params)


async def _list_resources(ctx: Context, params: PaginatedRequestParams | None) -> ListResourcesResult:
    return ListResourcesResult(resources=resources.RESOURCES)


async def _list_templates(ctx: Context, params: PaginatedRequestParams | None) -> ListResourceTemplatesResult:
    return ListResourceTemplatesResult(resource_templates=resources.TEMPLATES)


async def _read_resource(ctx: Context, params: ReadResourceRequestParams) -> ReadResourceResult:
    return resources.read(str(params.uri))


async def _subscribe(ctx: Context, params: SubscribeRequestParams) -> EmptyResult:
    ctx.lifespan_context.watch(session_of(ctx), str(params.uri))
    return EmptyResult()


async def _unsubscribe(ctx: Context, params: UnsubscribeRequestParams) -> EmptyResult:
    ctx.lifespan_context.forget(session_of(ctx), str(params.uri))
    return EmptyResult()


async def _set_level(ctx: Context, params: SetLevelRequestParams) -> EmptyResult:
    ctx.lifespan_context.set_level(session_of(ctx), params.level)
    return EmptyResult()


async def _complete(ctx: Context, params: CompleteRequestParams) -> CompleteResult:
    found = [word for word in COMPLETIONS if word.startswith(params.argument.value)]
    return CompleteResult(completion=Completion(values=found, total=len(found), has_more=False))


def build() -> Server[State]:
    """Return a server with a memory of its own."""
    state = State()

    @asynccontextmanager
    async def remember(_: Server[State]) -> AsyncIterator[State]:
        # HTTP+SSE enters this once per connection, streamable HTTP once: the memory is the server's in both.
        yield state

    def input_schema(name: str) -> Mapping[str, Any] | None:
        entry = _tools(state).get(name)
        return entry.listed.input_schema if entry else None

    server: Server[State] = Server(
        NAME,
        version="1.0.0",
        lifespan=remember,
        get_tool_input_schema=input_schema,
        cache_hints={"resources/list": _SELDOM_CHANGING, "resources/templates/list": _SELDOM_CHANGING},
        on_list_tools=_list_tools,
        on_call_tool=_call_tool,
        on_list_prompts=_list_prompts,
        on_get_prompt=_get_prompt,
        on_list_resources=_list_resources,
        on_list_resource_templates=_list_templates,
        on_read_resource=_read_resource,
        on_subscribe_resource=_subscribe,
        on_unsubscribe_resource=_unsubscribe,
        on_subscriptions_listen=ListenHandler(state.bus),
        on_completion=_complete,
    )
    # The constructor's own argument for this one is deprecated; the method is still part of four revisions.
    server.add_request_handler("logging/setLevel", SetLevelRequestParams, _set_level)
    server.middleware.append(RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience=NAME))
    return server


def streamable_app(host: str) -> Starlette:
    """Serve the streamable revisions on ``/mcp``, with streams that can be resumed."""
    return build().streamable_http_app(event_store=Replay(), retry_interval=RETRY_MS, host=host)


def sse_app() -> Starlette:
    """Serve 2024-11-05: the stream at ``GET /sse``, messages to ``POST /messages/``. Loopback names only."""
    server = build()
    loopback = ("127.0.0.1", "localhost", "[::1]")
    transport = SseServerTransport(
        "/messages/",
        TransportSecuritySettings(
            enable_dns_rebinding_protection=True,
            allowed_hosts=[f"{name}:*" for name in loopback],
            allowed_origins=[f"http://{name}:*" for name in loopback],
        ),
    )

    class Stream:
        """An ASGI application: the transport answers by itself, Starlette must not answer again."""

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            request = Request(scope, receive)
            if request.method != "GET":
                await Response(status_code=405, headers={"Allow": "GET"})(scope, receive, send)
                return
            async with transport.connect_sse(scope, receive, send) as (incoming, outgoing):
                await server.run(incoming, outgoing, server.create_initialization_options())

    return Starlette(
        routes=[Route("/sse", endpoint=Stream()), Mount("/messages/", app=transport.handle_post_message)]
    )
