"""The tools as they are listed: name, description, schema, and the function behind each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mcp_types import Tool

from . import rounds, tools


@dataclass(frozen=True)
class ToolEntry:
    """A tool as it is listed, and what it does."""

    listed: Tool
    run: tools.Run


_NOTHING: dict[str, Any] = {"type": "object", "properties": {}}


def _needs(name: str, description: str) -> dict[str, Any]:
    property_schema = {"type": "string", "description": description}
    return {"type": "object", "properties": {name: property_schema}, "required": [name]}


_HEADER_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "description": "Mirrored as Mcp-Param-Region", "x-mcp-header": "Region"},
        "shard": {"type": "integer", "description": "Mirrored as Mcp-Param-Shard", "x-mcp-header": "Shard"},
    },
    "required": ["region"],
}

_RICH_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}
"""Every keyword that SEP-1613 and SEP-2106 want preserved on the way to the client."""


def _entry(name: str, description: str, run: tools.Run, schema: dict[str, Any] = _NOTHING) -> ToolEntry:
    return ToolEntry(Tool(name=name, description=description, input_schema=schema), run)


_ENTRIES = (
    _entry("test_simple_text", "Returns a text", tools.simple_text),
    _entry("test_image_content", "Returns a picture", tools.image),
    _entry("test_audio_content", "Returns a sound", tools.audio),
    _entry("test_embedded_resource", "Returns an embedded resource", tools.embedded_resource),
    _entry("test_multiple_content_types", "Returns text, picture and resource", tools.multiple_content_types),
    _entry("test_tool_with_logging", "Logs three messages while it runs", tools.logging),
    _entry("test_logging_tool", "Logs three messages while it runs", tools.logging),
    _entry("test_tool_with_progress", "Reports progress three times", tools.progress),
    _entry("test_error_handling", "Always fails", tools.error),
    _entry("test_reconnection", "Hangs up before it answers", tools.reconnection),
    _entry("test_sampling", "Asks the client's model", tools.sampling, _needs("prompt", "What to ask")),
    _entry("test_elicitation", "Asks the user", tools.elicitation, _needs("message", "What to show")),
    _entry("test_elicitation_sep1034_defaults", "Shows a form with defaults", tools.elicitation_defaults),
    _entry("test_elicitation_sep1330_enums", "Shows a form with choices", tools.elicitation_enums),
    _entry(
        "json_schema_2020_12_tool", "Tool with JSON Schema 2020-12 features", tools.json_schema, _RICH_SCHEMA
    ),
    _entry("test_x_mcp_header", "Has arguments mirrored in headers", tools.x_mcp_header, _HEADER_SCHEMA),
    _entry("test_missing_capability", "Needs the sampling capability", tools.missing_capability),
    _entry("test_trigger_tool_change", "Adds or removes test_extra_tool", tools.trigger_tool_change),
    _entry("test_trigger_prompt_change", "Adds or removes test_extra_prompt", tools.trigger_prompt_change),
    _entry(
        "test_trigger_resource_change",
        "Counts the watched resource as changed",
        tools.trigger_resource_change,
    ),
    _entry("test_streaming_elicitation", "Reports progress, then asks", tools.streaming_elicitation),
    _entry(
        "test_input_required_result_elicitation", "Asks the user", tools.in_rounds(rounds.ask_elicitation)
    ),
    _entry(
        "test_input_required_result_sampling", "Asks the client's model", tools.in_rounds(rounds.ask_sampling)
    ),
    _entry("test_input_required_result_list_roots", "Asks for roots", tools.in_rounds(rounds.ask_list_roots)),
    _entry(
        "test_input_required_result_request_state",
        "Asks, with state",
        tools.in_rounds(rounds.ask_request_state),
    ),
    _entry(
        "test_input_required_result_tampered_state",
        "Asks, with state",
        tools.in_rounds(rounds.ask_request_state),
    ),
    _entry(
        "test_input_required_result_multiple_inputs",
        "Asks thrice",
        tools.in_rounds(rounds.ask_multiple_inputs),
    ),
    _entry(
        "test_input_required_result_multi_round",
        "Asks twice in turn",
        tools.in_rounds(rounds.ask_multi_round),
    ),
    _entry("test_input_required_result_capabilities", "Asks what it may", tools.ask_what_the_client_can),
)

TOOLS = {entry.listed.name: entry for entry in _ENTRIES}

EXTRA_TOOL = _entry("test_extra_tool", "Comes and goes with test_trigger_tool_change", tools.simple_text)
