"""One run of the client: `python -m tests.conformance.client URL`. The suite says in the environment what it is.

Exit 0: everything the scenario asks of a client was done. Anything else: it could not be, and stderr says why.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import httpx2
from mcp.client.client import Client
from mcp.client.context import ClientRequestContext
from mcp.client.streamable_http import streamable_http_client
from mcp_types import (
    CreateMessageResult,
    ElicitRequestParams,
    ElicitResult,
    ListRootsResult,
    TextContent,
    Tool,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from .sign_in import sign_in

RUN_TIMEOUT_S = 25

METADATA_URL = "https://conformance-test.local/client-metadata.json"
"""The one the suite expects; nobody fetches it."""


async def elicited(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
    """Accept, with the default of every field, and a yes where there is none (SEP-1034)."""
    schema = getattr(params, "requested_schema", None) or {}
    fields: Mapping[str, Mapping[str, Any]] = schema.get("properties", {})
    return ElicitResult(
        action="accept", content={name: field.get("default", True) for name, field in fields.items()}
    )


async def sampled(context: ClientRequestContext, params: object) -> CreateMessageResult:
    return CreateMessageResult(
        role="assistant", content=TextContent(type="text", text="yes"), model="none", stop_reason="endTurn"
    )


async def roots(context: ClientRequestContext) -> ListRootsResult:
    return ListRootsResult(roots=[])


def arguments_for(tool: Tool) -> dict[str, Any]:
    """The least a tool can be called with: its required arguments, one value per type."""
    properties = tool.input_schema.get("properties", {})
    return {
        name: _VALUES.get(properties.get(name, {}).get("type"), "value")
        for name in tool.input_schema.get("required", ())
    }


_VALUES: Mapping[object, object] = {"number": 2.5, "integer": 2, "boolean": True, "object": {}, "array": []}


async def use_everything(client: Client, context: Mapping[str, Any]) -> None:
    """List what there is and use each once."""
    capabilities = client.server_capabilities
    for tool in (await client.list_tools()).tools:
        await client.call_tool(tool.name, arguments_for(tool))
    if capabilities.resources is not None:
        for resource in (await client.list_resources()).resources:
            await client.read_resource(resource.uri)
    if capabilities.prompts is not None:
        for prompt in (await client.list_prompts()).prompts:
            await client.get_prompt(prompt.name)


async def only_list_tools(client: Client, context: Mapping[str, Any]) -> None:
    await client.list_tools()


async def make_the_calls_asked_for(client: Client, context: Mapping[str, Any]) -> None:
    await client.list_tools()
    for call in context["toolCalls"]:
        await client.call_tool(call["name"], call["arguments"])


async def return_the_schema(client: Client, context: Mapping[str, Any]) -> None:
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    await client.call_tool("json_schema_echo", {"schema": tools["json_schema_2020_12_tool"].input_schema})


async def answer_questions(client: Client, context: Mapping[str, Any]) -> None:
    """Call every tool; those that ask are answered. One gives a result without `resultType`: the suite wants to
    see that this is no question, and the SDK calls it invalid."""
    for tool in (await client.list_tools()).tools:
        try:
            await client.call_tool(tool.name, arguments_for(tool))
        except ValidationError:
            if tool.name != "test_mrtr_no_result_type":
                raise


Use = Callable[[Client, Mapping[str, Any]], Awaitable[None]]

USES: Mapping[str, Use] = {
    "initialize": only_list_tools,
    "http-custom-headers": make_the_calls_asked_for,
    "sep-2322-client-request-state": answer_questions,
    "json-schema-ref-no-deref": only_list_tools,
    "json-schema-2020-12-preservation": return_the_schema,
}
"""What a scenario wants that is not `use_everything`."""


async def run(url: str, scenario: str, revision: str, context: Mapping[str, Any]) -> None:
    auth = None
    if scenario.startswith("auth/"):
        auth = sign_in(
            url,
            registered=dict(context) if "client_secret" in context else None,
            metadata_url=METADATA_URL if scenario == "auth/basic-cimd" else None,
        )
    async with (
        httpx2.AsyncClient(auth=auth, timeout=RUN_TIMEOUT_S) as http,
        Client(
            streamable_http_client(url, http_client=http),
            mode="auto" if revision in MODERN_PROTOCOL_VERSIONS else "legacy",
            elicitation_callback=elicited,
            sampling_callback=sampled,
            list_roots_callback=roots,
        ) as client,
    ):
        await USES.get(scenario, use_everything)(client, context)


async def main() -> None:
    async with asyncio.timeout(RUN_TIMEOUT_S):
        await run(
            sys.argv[-1],
            os.environ["MCP_CONFORMANCE_SCENARIO"],
            os.environ["MCP_CONFORMANCE_PROTOCOL_VERSION"],
            json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}")),
        )


if __name__ == "__main__":
    asyncio.run(main())
