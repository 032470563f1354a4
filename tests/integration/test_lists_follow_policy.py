"""Two roles see two lists, on every way on which a list can come, and no other byte is touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.client import Client
from tests.integration.conftest import Connect, OpenSidecar
from tests.integration.house import Sidecar
from tests.integration.keys import key, let_in
from tests.integration.test_ownership import initialized, session
from tests.integration.upstream import Upstream
from tests.integration.wire import (
    LEGACY,
    MODERN,
    REVISIONS,
    event,
    events,
    listen,
    message,
    post,
    request,
    result,
    tool_call,
)

VIEWER, ADMIN = "viewer-1.secret", "admin-1.secret"
POLICY = json.dumps(
    {
        "roles": {"viewer": {}, "admin": {"inherits": ["viewer"]}},
        "default": {"allow": []},
        "tools": [{"match": "get_*", "allow": ["viewer"]}, {"match": "drop_*", "allow": ["admin"]}],
        "methods": {
            "resources/read": {"allow": ["viewer"], "match": ["file:///public/*"]},
            "*": {"allow": ["viewer"]},
        },
    }
)


@pytest.fixture
def overrides(tmp_path: Path) -> list[str]:
    people = {VIEWER: ("acme", "viewer", ["viewer"]), ADMIN: ("acme", "admin", ["admin"])}
    return [let_in(tmp_path, people), f"policy={POLICY}"]


@pytest.fixture
async def side(open_sidecar: OpenSidecar, overrides: list[str]) -> Sidecar:
    return await open_sidecar(*overrides)


def tools(*names: str, id: int = 1, pad: int = 0, **more: object) -> bytes:
    listed = [{"name": name, "description": "x" * pad, "inputSchema": {"type": "object"}} for name in names]
    return json.dumps({"jsonrpc": "2.0", "id": id, "result": {"tools": listed, **more}}).encode()


ALL, SOME = ("get_a", "drop_a", "get_b"), ("get_a", "get_b")
SEES = {VIEWER: SOME, ADMIN: ALL}


@pytest.mark.parametrize("who", [VIEWER, ADMIN])
@pytest.mark.parametrize("pad", [0, 120_000], ids=["small", "large"])
@pytest.mark.parametrize("revision", REVISIONS)
async def test_two_roles_see_two_lists(
    client: Client, upstream: Upstream, revision: str, pad: int, who: str
) -> None:
    """Issue "policy", 3: cursors and unknown members stay, and a list of 360 KB is a list."""
    client.send(post(message("tools/list", revision), revision, key(who)))
    exchange = await upstream.next()
    exchange.answer(tools(*ALL, pad=pad, nextCursor="c", x=1.0))
    answer = await client.answer()
    assert (answer.status, answer.body) == (200, tools(*SEES[who], pad=pad, nextCursor="c", x=1.0))


@pytest.mark.parametrize("who", [VIEWER, ADMIN])
@pytest.mark.parametrize("pad", [0, 120_000], ids=["small", "large"])
@pytest.mark.parametrize("revision", REVISIONS)
async def test_two_roles_see_two_lists_in_events(
    side: Sidecar, client: Client, upstream: Upstream, revision: str, pad: int, who: str
) -> None:
    """SDK servers of older revisions answer so; what comes before the list is untouched."""
    client.send(post(message("tools/list", revision), revision, key(who)))
    exchange = await upstream.next()
    before = event(b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}') + b": ping\r\n\r\n"
    exchange.begin()
    exchange.chunk(before + b"id: 7\r\ndata: " + tools(*ALL, pad=pad) + b"\r\n\r\n")
    exchange.end()
    answer = await client.answer()
    assert answer.body == before + b"id: 7\r\ndata: " + tools(*SEES[who], pad=pad) + b"\r\n\r\n"
    [line] = await side.lines.next_calls()
    assert ("list filtered" in line.get("altered", ())) == (who == VIEWER)


async def test_what_was_cut_or_differs_is_nobody_elses(client: Client, upstream: Upstream) -> None:
    """server/utilities/caching: a public list may be served to anybody."""
    for who in (VIEWER, ADMIN):
        client.send(post(message("tools/list", MODERN), MODERN, key(who)))
        (await upstream.next()).answer(tools(*ALL, ttlMs=5, cacheScope="public"))
        assert (await client.answer()).body == tools(*SEES[who], ttlMs=5, cacheScope="private")


@pytest.mark.parametrize(
    ("method", "result", "left"),
    [
        (
            "resources/list",
            {"resources": [{"uri": "file:///etc/x"}, {"uri": "file:///public/x"}]},
            {"resources": [{"uri": "file:///public/x"}]},
        ),
        (
            "resources/templates/list",
            {"resourceTemplates": [{"uriTemplate": "file:///etc/{x}"}, {"uriTemplate": "file:///{+x}"}]},
            {"resourceTemplates": [{"uriTemplate": "file:///{+x}"}]},
        ),
        ("prompts/list", {"prompts": [{"name": "p"}]}, {"prompts": [{"name": "p"}]}),
    ],
)
async def test_other_lists_follow_policy_too(
    client: Client, upstream: Upstream, method: str, result: dict[str, Any], left: dict[str, Any]
) -> None:
    client.send(post(message(method, LEGACY), LEGACY, key(VIEWER)))
    text = {"jsonrpc": "2.0", "id": 1, "result": result}
    (await upstream.next()).answer(json.dumps(text).encode())
    assert (await client.answer()).json == {**text, "result": left}


@pytest.mark.parametrize("shape", ["whole", "events", "one event"])
async def test_lists_in_a_batch_follow_policy(client: Client, upstream: Upstream, shape: str) -> None:
    """2025-03-26: in an array or in events; a refused part beside them changes nothing."""
    parts = (
        message("tools/list", "2025-03-26", 1),
        tool_call("2025-03-26", 2, "get_a"),
        tool_call("2025-03-26", 3, "drop_a"),
    )
    client.send(post(b"[" + b",".join(parts) + b"]", "2025-03-26", key(VIEWER)))
    exchange = await upstream.next()
    said = (result(2), tools(*ALL))
    if shape == "whole":
        exchange.answer(b"[" + b",".join(said) + b"]")
    else:
        exchange.begin()
        exchange.chunk(
            b"".join(map(event, said)) if shape == "events" else event(b"[" + b",".join(said) + b"]")
        )
        exchange.end()
    body = (await client.answer()).body
    assert tools(*SOME) in body
    assert b'"id":3' in body
    assert b"drop_a" not in body


async def test_a_resumed_stream_shows_no_more(client: Client, upstream: Upstream) -> None:
    """protocol.md section 4: a client comes back for an answer that it missed."""
    await initialized(client, upstream, who=VIEWER)
    client.send(post(message("tools/list", LEGACY), LEGACY, key(VIEWER), session()))
    exchange = await upstream.next()
    exchange.begin()
    exchange.chunk(b"id: 7\ndata: \n\n")
    exchange.end()
    await client.answer()
    client.send(listen(key(VIEWER), session(), ("Last-Event-ID", "7")))
    exchange = await upstream.next()
    exchange.begin()
    exchange.chunk(event(tools(*ALL), id="8"))
    exchange.end()
    assert (await client.answer()).body == event(tools(*SOME), id="8")


@pytest.mark.parametrize("who", [VIEWER, ADMIN])
async def test_lists_on_the_stream_of_a_session_follow_policy(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, overrides: list[str], who: str
) -> None:
    """2024-11-05: every answer arrives on the GET."""
    side = await open_sidecar(*overrides, url=f"http://127.0.0.1:{upstream.port}/sse")
    client, poster = await connect(side.port), await connect(side.port)
    client.send(request("GET", "/sse", [("Accept", "text/event-stream"), key(who)]))
    stream = await upstream.next()
    stream.begin()
    stream.chunk(b"event: endpoint\ndata: /messages?s=1\n\n")
    await client.head()
    uri = (await client.until(b"\n\n")).decode().split("data: ")[1].strip()
    asked = request(
        "POST", uri, [("Content-Type", "application/json"), key(who)], message("tools/list", LEGACY)
    )
    poster.send(asked)
    (await upstream.next()).answer(b"Accepted", status="202 Accepted", kind="text/plain")
    assert (await poster.answer()).status == 202
    stream.chunk(event(tools(*ALL)))
    assert await client.until(b"\n\n") == event(tools(*SEES[who]))


@pytest.mark.parametrize("is_event", [False, True])
@pytest.mark.parametrize("pad", [0, 300_000, 5_000_000], ids=["small", "large", "too large"])
async def test_a_list_that_is_not_understood_is_told_so(
    client: Client, upstream: Upstream, is_event: bool, pad: int
) -> None:
    """Own promise: rather an outage than a leak; whoever waits is told."""
    text = tools("drop_a", pad=pad)
    if pad < 5_000_000:
        text = text.replace(b'"tools"', b'"Tools"')
    client.send(post(message("tools/list", LEGACY), LEGACY, key(VIEWER)))
    exchange = await upstream.next()
    if is_event:
        exchange.begin()
        exchange.chunk(event(text))
        exchange.end()
    else:
        exchange.answer(text)
    answer = await client.answer()
    [text] = events(answer.body) if is_event else [answer.body]
    said = json.loads(text)
    assert (said["id"], said["error"]["data"]["reason"]) == (1, "upstream_nonsense")
    assert b"drop_a" not in answer.body
