"""Mirrored parameters: what a tool declares and what a call must then say.

Source: 2026-07-28 basic/transports/streamable-http, "Custom headers from tool parameters"; SEP-2243.
"""

import pytest

from proxy.model import Headers, Reason, Refused
from proxy.protocol.mirrors import compare_params, mirrors_of
from tests.fakes import make_call

STRING = {"type": "string", "x-mcp-header": "Region"}


@pytest.mark.parametrize(
    ("properties", "mirrors"),
    [
        ({"region": STRING}, {"mcp-param-region": ("region",)}),
        ({"a": {"type": "object", "properties": {"b": STRING}}}, {"mcp-param-region": ("a", "b")}),
        ({"n": {"type": "integer", "x-mcp-header": "N"}, "s": {"type": "string"}}, {"mcp-param-n": ("n",)}),
        # Declarations that break the rules: clients drop such tools, so nothing is compared.
        ({"n": {"type": "number", "x-mcp-header": "N"}}, {}),
        ({"n": {"type": "string", "x-mcp-header": "no token"}}, {}),
        ({"n": {"type": "string", "x-mcp-header": ""}}, {}),
        ({"n": {"type": "string", "x-mcp-header": 7}}, {}),
        ({"a": STRING, "b": {"type": "string", "x-mcp-header": "REGION"}}, {}),
        # Only a pure chain of `properties` is followed.
        ({"a": {"type": "array", "items": {"properties": {"b": STRING}}}}, {}),
        ({"a": "not a schema"}, {}),
    ],
)
def test_a_tool_declares_its_mirrors(properties: object, mirrors: object) -> None:
    """Types, names and places of `x-mcp-header` (streamable-http)."""
    assert mirrors_of({"type": "object", "properties": properties}) == mirrors


@pytest.mark.parametrize("schema", [None, [], "x", {}, {"properties": []}, {"properties": {"a": None}}])
def test_a_schema_of_another_shape_declares_nothing(schema: object) -> None:
    """The server's data is hostile too (own promise)."""
    assert mirrors_of(schema) == {}


def test_a_schema_nested_without_end_is_not_followed() -> None:
    """No recursion as deep as the server likes (own promise)."""
    schema: dict[str, object] = {"properties": {"a": STRING}}
    for _ in range(5_000):
        schema = {"properties": {"a": schema}}
    assert mirrors_of(schema) == {}


@pytest.mark.parametrize(
    ("argument", "header", "agrees"),
    [
        ("eu", "eu", True),
        ("eu", "EU", False),
        ("eu", None, False),
        (None, None, True),
        (None, "eu", False),
        ("é", "=?base64?w6k=?=", True),
        ("é", "=?base64?w6k?=", False),
        (42, "42", True),
        (42, "42.0", True),
        (42, "042", True),
        (42, "4.2e1", False),
        (42.0, "42", True),
        (True, "true", True),
        (True, "True", False),
        (True, "1", False),
        (1, "true", False),
        (False, "false", True),
        (-7, "-7", True),
    ],
)
def test_a_mirror_says_what_its_argument_says(argument: object, header: str | None, agrees: bool) -> None:
    """Absent and null mean no header; integers compare as numbers, everything else exactly (streamable-http)."""
    fields = Headers([(b"Mcp-Param-Region", header.encode())] if header is not None else [])
    call = make_call(params={"name": "sql", "arguments": {"region": argument}}, headers=fields)
    if agrees:
        compare_params(call, {"mcp-param-region": ("region",)})
    else:
        with pytest.raises(Refused) as refusal:
            compare_params(call, {"mcp-param-region": ("region",)})
        assert refusal.value.reason is Reason.HEADER_MISMATCH
