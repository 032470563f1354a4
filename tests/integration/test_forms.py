"""A server that asks its user for a secret in a form is kept from it, over real sockets, in every revision.

Source: 2025-11-25 client/elicitation, "Security Considerations"; corpus TOOL-027.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.conftest import Connect, OpenSidecar
from tests.integration.upstream import Upstream
from tests.integration.wire import LEGACY, MODERN, event, post, result, tool_call

ALLOW = ('policy.tools=[{"match": "*", "allow": ["*"]}]', 'policy.methods={"*": {"allow": ["*"]}}')
BLOCK = 'policy.elicitation={"secrets": "block"}'
REPORT = 'policy.elicitation={"secrets": "report"}'
FORM = {
    "message": "Enter your password",
    "requestedSchema": {"type": "object", "properties": {"password": {"type": "string"}}},
}
ASKS = {"method": "elicitation/create", "params": FORM}


@pytest.mark.parametrize("setting", [BLOCK, REPORT])
async def test_a_question_on_a_stream_reaches_the_user_without_its_form(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, setting: str
) -> None:
    """The stream goes on, and the call gets its answer."""
    side = await open_sidecar(*ALLOW, setting)
    client = await connect(side.port)
    client.send(post(tool_call()))
    exchange = await upstream.next()
    exchange.begin()
    asked = json.dumps({"jsonrpc": "2.0", "id": "q", **ASKS}).encode()
    exchange.chunk(event(asked) + event(result()))
    exchange.end()

    answer = await client.answer()

    assert (asked in answer.body) == (setting == REPORT)
    assert (b"Enter your password" in answer.body) == (setting == REPORT)
    assert (b"Please decline" in answer.body) == (setting == BLOCK)
    assert result() in answer.body
    told = [line for line in side.lines.life if line["msg"] == "found in what the server says"]
    assert [(line["pattern"], line["action"]) for line in told] == [
        ("secret_form", "block" if setting == BLOCK else "log")
    ]


@pytest.mark.parametrize("in_events", [False, True], ids=["json", "events"])
async def test_a_result_that_wants_a_secret_is_refused(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, in_events: bool
) -> None:
    """2026-07-28: the model reads why, and the form is told to nobody."""
    side = await open_sidecar(*ALLOW, BLOCK)
    client = await connect(side.port)
    client.send(post(tool_call(revision=MODERN), MODERN))
    exchange = await upstream.next()
    wants = {"resultType": "input_required", "inputRequests": {"a": ASKS}, "requestState": "s"}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": wants}).encode()
    if in_events:
        exchange.begin()
        exchange.chunk(event(body))
        exchange.end()
    else:
        exchange.answer(body)

    answer = await client.answer()

    assert b"requestedSchema" not in answer.body
    text = answer.body.decode()
    said: Any = json.loads(text.partition("data: ")[2] if in_events else text)
    assert said["result"]["isError"] is True
    assert "password" in said["result"]["content"][0]["text"]


async def test_nobody_looks_where_nothing_is_set(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """The counter-proof: the same question passes to the byte."""
    side = await open_sidecar(*ALLOW)
    client = await connect(side.port)
    client.send(post(tool_call(revision=LEGACY)))
    exchange = await upstream.next()
    exchange.begin()
    asked = event(json.dumps({"jsonrpc": "2.0", "id": "q", **ASKS}).encode())
    exchange.chunk(asked + event(result()))
    exchange.end()
    assert (await client.answer()).body == asked + event(result())
