"""The prompts and what each returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    EmbeddedResource,
    GetPromptRequestParams,
    GetPromptResult,
    ImageContent,
    InputRequiredResult,
    Prompt,
    PromptArgument,
    PromptMessage,
    TextContent,
    TextResourceContents,
)

from .contents import PNG
from .rounds import ask_prompt_context

PromptResult = GetPromptResult | InputRequiredResult


@dataclass(frozen=True)
class PromptEntry:
    """A prompt as it is listed, and what it returns."""

    listed: Prompt
    get: Callable[[GetPromptRequestParams], PromptResult]


def _simple(params: GetPromptRequestParams) -> PromptResult:
    return _messages(_text("This is a simple prompt for testing."))


def _with_arguments(params: GetPromptRequestParams) -> PromptResult:
    first, second = _argument(params, "arg1"), _argument(params, "arg2")
    return _messages(_text(f"Prompt with arguments: arg1='{first}', arg2='{second}'"))


def _with_embedded_resource(params: GetPromptRequestParams) -> PromptResult:
    contents = TextResourceContents(
        uri=_argument(params, "resourceUri"),
        mime_type="text/plain",
        text="Embedded resource content for testing.",
    )
    embedded = EmbeddedResource(type="resource", resource=contents)
    return _messages(
        PromptMessage(role="user", content=embedded),
        _text("Please process the embedded resource above."),
    )


def _with_image(params: GetPromptRequestParams) -> PromptResult:
    image = ImageContent(type="image", data=PNG, mime_type="image/png")
    return _messages(PromptMessage(role="user", content=image), _text("Please analyze the image above."))


def _input_required(params: GetPromptRequestParams) -> PromptResult:
    answer = ask_prompt_context(params)
    return _messages(_text(answer)) if isinstance(answer, str) else answer


def _text(text: str) -> PromptMessage:
    return PromptMessage(role="user", content=TextContent(type="text", text=text))


def _messages(*messages: PromptMessage) -> GetPromptResult:
    return GetPromptResult(messages=list(messages))


def _argument(params: GetPromptRequestParams, name: str) -> str:
    value = (params.arguments or {}).get(name)
    if value is None:
        raise MCPError(INVALID_PARAMS, f"Missing required argument: {name}")
    return value


def _entry(
    name: str,
    description: str,
    get: Callable[[GetPromptRequestParams], PromptResult],
    arguments: Mapping[str, str] | None = None,
) -> PromptEntry:
    """``arguments`` maps names to descriptions; all are required."""
    listed = [PromptArgument(name=n, description=d, required=True) for n, d in (arguments or {}).items()]
    return PromptEntry(Prompt(name=name, description=description, arguments=listed or None), get)


_ENTRIES = (
    _entry("test_simple_prompt", "A prompt without arguments", _simple),
    _entry(
        "test_prompt_with_arguments",
        "A prompt with two arguments",
        _with_arguments,
        {"arg1": "First test argument", "arg2": "Second test argument"},
    ),
    _entry(
        "test_prompt_with_embedded_resource",
        "A prompt that embeds a resource",
        _with_embedded_resource,
        {"resourceUri": "URI of the resource to embed"},
    ),
    _entry("test_prompt_with_image", "A prompt with a picture", _with_image),
    _entry("test_input_required_result_prompt", "A prompt that asks for its context first", _input_required),
)

PROMPTS = {entry.listed.name: entry for entry in _ENTRIES}

EXTRA_PROMPT = _entry("test_extra_prompt", "Comes and goes with test_trigger_prompt_change", _simple)
