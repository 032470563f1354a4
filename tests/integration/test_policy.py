"""Rules in force: what is refused never reaches the server, and what is hidden looks like what does not exist."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from proxy.policy import pin_file
from proxy.policy.definitions import define
from tests.integration.client import Client
from tests.integration.conftest import Connect, OpenSidecar
from tests.integration.house import Sidecar
from tests.integration.upstream import Exchange, Upstream
from tests.integration.wire import LEGACY, MODERN, REVISIONS, event, message, post, result, tool_call

RULES = (
    'policy.tools=[{"match": "echo", "allow": ["*"]}, {"match": "legacy_*", "hidden": true}, '
    '{"match": "danger", "allow": []}, {"match": "watched", "allow": [], "report": true}]'
)


@pytest.fixture
async def ruled(open_sidecar: OpenSidecar) -> Sidecar:
    return await open_sidecar(RULES)


@pytest.fixture
async def client(ruled: Sidecar, connect: Connect) -> Client:
    return await connect(ruled.port)


@pytest.mark.parametrize("revision", REVISIONS)
async def test_a_refused_call_is_a_text_for_the_model(
    client: Client, upstream: Upstream, revision: str
) -> None:
    """protocol.md 5: 200 with isError keeps every client's session; the server sees nothing."""
    client.send(post(tool_call(revision, tool="danger"), revision))
    answer = await client.answer()
    assert answer.status == 200
    assert isinstance(answer.json, dict)
    assert answer.json["result"]["isError"] is True
    assert answer.json["result"]["_meta"]["dev.mcp-sidecar/refusal"]["reason"] == "not_allowed"
    assert upstream.seen == []


@pytest.mark.parametrize("name", ["Danger", "danger ", "d\u0430nger", "unnamed", "echo2", "ECHO"])
async def test_a_name_that_no_rule_allows_is_nobodys(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, name: str
) -> None:
    """Issue 4, 1: compared code point by code point; default is nobody."""
    side = await open_sidecar(RULES.replace(', "hidden": true', ', "allow": []'))
    client = await connect(side.port)
    client.send(post(tool_call(tool=name)))
    assert b'"reason":"not_allowed"' in (await client.answer()).body
    assert upstream.seen == []


@pytest.mark.parametrize("name", ["Danger", "danger ", "unnamed", "legacy_x"])
async def test_beside_hidden_tools_a_name_without_a_rule_looks_like_one(
    client: Client, upstream: Upstream, name: str
) -> None:
    """Issue 4, 3: told apart from a tool that does not exist, a hidden one would be found by trying names."""
    client.send(post(tool_call(tool=name)))
    exchange = await upstream.next()
    asked = json.loads(exchange.request.body)["params"]["name"]
    assert asked.startswith("x")
    assert len(asked) == 33
    unknown = {"jsonrpc": "2.0", "id": 1, "error": {"code": -32602, "message": f"Unknown tool: {asked}"}}
    exchange.answer(json.dumps(unknown).encode())
    assert json.loads((await client.answer()).body)["error"]["message"] == f"Unknown tool: {name}"


@pytest.mark.parametrize(
    "name", [r"\u0065cho", r"\u0065\u0063\u0068\u006f"], ids=["one escape", "all escapes"]
)
async def test_an_escaped_name_is_the_name(client: Client, upstream: Upstream, name: str) -> None:
    """The reader's string is what is judged, and its bytes are what is forwarded."""
    body = tool_call().replace(b'"echo"', f'"{name}"'.encode())
    client.send(post(body))
    exchange = await upstream.next()
    assert exchange.request.body == body
    exchange.answer(result())
    assert (await client.answer()).status == 200


async def test_a_notification_that_calls_a_tool_goes_nowhere(client: Client, upstream: Upstream) -> None:
    """Issue 4: some servers run it; 202 and dropped, because a 4xx ends Python 1.x sessions."""
    body = b'{"jsonrpc":"2.0","method":"tools/call","params":{"name":"danger","arguments":{}}}'
    client.send(post(body))
    assert (await client.answer()).status == 202
    assert upstream.seen == []


async def test_a_denied_call_in_a_batch_goes_nowhere(client: Client, upstream: Upstream) -> None:
    """design section 4: each element judged; the rest is forwarded."""
    batch = b"[" + tool_call("2025-03-26", 1) + b"," + tool_call("2025-03-26", 2, "danger") + b"]"
    client.send(post(batch, "2025-03-26"))
    exchange = await upstream.next()
    assert b"danger" not in exchange.request.body
    exchange.answer(b"[" + result(1) + b"]")
    said = (await client.answer()).json
    assert isinstance(said, list)
    assert sorted(each["id"] for each in said) == [1, 2]


async def test_what_is_only_watched_passes_and_is_recorded(
    ruled: Sidecar, client: Client, upstream: Upstream
) -> None:
    """Issue 4, 10: decision recorded, not a byte changed."""
    body = tool_call(tool="watched")
    client.send(post(body))
    exchange = await upstream.next()
    assert exchange.request.body == body
    exchange.answer(result())
    assert (await client.answer()).body == result()
    [line] = await ruled.lines.next_calls()
    assert line["would_refuse"] == {"rule": "watched", "reason": "not_allowed"}
    assert line["outcome"] == "ok"


def unknown(exchange: Exchange, shape: str) -> None:
    """Answer as a server does that has no such tool, in its own words."""
    said = json.loads(exchange.request.body)
    name = said["params"]["name"]
    text = {"content": [{"type": "text", "text": f"Unknown tool: {name}"}], "isError": True}
    body = json.dumps({"jsonrpc": "2.0", "id": said["id"], "result": text}).encode()
    if shape == "error":
        failed = {"code": -32602, "message": f"Tool {name} not found"}
        body = json.dumps({"jsonrpc": "2.0", "id": said["id"], "error": failed}).encode()
    if shape == "stream":
        exchange.begin()
        exchange.chunk(event(body, id="1"))
        exchange.end()
    else:
        exchange.answer(body, "X-Server: yes")


@pytest.mark.parametrize("revision", [LEGACY, MODERN])
@pytest.mark.parametrize("shape", ["result", "error", "stream"])
async def test_a_hidden_tool_looks_like_one_that_does_not_exist(
    ruled: Sidecar, connect: Connect, open_sidecar: OpenSidecar, upstream: Upstream, shape: str, revision: str
) -> None:
    """Issue 4, 3: exactly as on that server, byte for byte but for the name; the real name never gets there."""
    bare = await open_sidecar()
    answers = []
    for side, name in ((ruled, "legacy_one"), (bare, "nobodys_on")):
        client = await connect(side.port)
        client.send(post(tool_call(revision, tool=name), revision))
        exchange = await upstream.next()
        assert (b"legacy" in exchange.link.received) is False
        assert exchange.request.all("mcp-name") in ([], [json.loads(exchange.request.body)["params"]["name"]])
        unknown(exchange, shape)
        answer = await client.answer()
        kept = [
            field
            for field in answer.fields
            if field[0] not in ("Date", "Transfer-Encoding", "Content-Length")
        ]
        answers.append((answer.status, kept, answer.body.replace(name.encode(), b"NAME")))
    assert answers[0] == answers[1]
    assert b"NAME" in answers[0][2]
    line = (await ruled.lines.next_calls())[0]
    assert (line["tool"], line["outcome"], line["reason"]) == ("legacy_one", "denied", "not_visible")


async def test_a_hidden_tool_in_a_batch_is_refused_by_us(client: Client, upstream: Upstream) -> None:
    """There the server is not asked: what is forwarded together must each be allowed."""
    client.send(post(b"[" + tool_call("2025-03-26", 2, "legacy_x") + b"]", "2025-03-26"))
    answer = await client.answer()
    assert b"not_visible" in answer.body
    assert upstream.seen == []


async def test_a_method_that_no_rule_names_is_nobodys(client: Client, upstream: Upstream) -> None:
    """Other requests get a JSON-RPC error."""
    client.send(post(message("resources/read", LEGACY, uri="file:///secret")))
    answer = await client.answer()
    assert (answer.status, upstream.seen) == (200, [])
    assert isinstance(answer.json, dict)
    assert answer.json["error"]["code"] == 403


def listed(revision: str, *names: str, scope: str | None = "public") -> bytes:
    """A page of tools as a server writes it: odd blanks, unknown members, numbers that must stay."""
    tools = ", ".join(
        f'{{"name" : "{name}","description":"\\u00e9","inputSchema":{{"type":"object","x":1.0e2}},"z":[1 ,2]}}'
        for name in names
    )
    cache = f',"cacheScope":"{scope}","ttlMs":60000' if scope and revision == MODERN else ""
    return f'{{"jsonrpc":"2.0","id":1,"result":{{"tools": [{tools}],"nextCursor":"c" {cache}}}}}'.encode()


@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_list_shows_what_may_be_called(
    client: Client, upstream: Upstream, revision: str, is_stream: bool
) -> None:
    """Issue 4, 3: cut out byte for byte, in JSON and in events; what is only watched is shown."""
    client.send(post(message("tools/list", revision), revision))
    exchange = await upstream.next()
    whole = listed(revision, "danger", "echo", "legacy_x", "unnamed", "watched", "ECHO")
    if is_stream:
        exchange.begin()
        exchange.chunk(event(b'{"jsonrpc":"2.0","method":"notifications/message","params":{}}', id="0"))
        exchange.chunk(event(whole, id="1"))
        exchange.end()
    else:
        exchange.answer(whole)
    body = (await client.answer()).body
    kept = listed(revision, "echo", "watched", scope="private")
    assert body.endswith(event(kept, id="1")) if is_stream else body == kept


async def test_a_list_in_which_nothing_is_hidden_stays_as_it_is(client: Client, upstream: Upstream) -> None:
    """Not a byte is changed where no rule matched."""
    client.send(post(message("tools/list", MODERN), MODERN))
    whole = listed(MODERN, "echo", "watched")
    (await upstream.next()).answer(whole)
    assert (await client.answer()).body == whole


async def test_resources_and_prompts_follow_too(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """Issue 4, 3: by URI, by name, and templates by how they begin."""
    rules = {
        "resources/read": {"allow": ["*"], "match": ["file:///public/*"]},
        "prompts/get": {"allow": ["*"], "match": ["greet"]},
    }
    side = await open_sidecar(f"policy.methods={json.dumps(rules)}")
    client = await connect(side.port)
    for method, member, entries, kept in (
        ("resources/list", "resources", [{"uri": "file:///public/a"}, {"uri": "file:///secret"}], [0]),
        ("prompts/list", "prompts", [{"name": "greet"}, {"name": "Greet"}], [0]),
        (
            "resources/templates/list",
            "resourceTemplates",
            [{"uriTemplate": "file:///public/{x}"}, {"uriTemplate": "file:///secret/{x}"}],
            [0],
        ),
    ):
        client.send(post(message(method, LEGACY)))
        (await upstream.next()).answer(
            json.dumps({"jsonrpc": "2.0", "id": 1, "result": {member: entries}}).encode()
        )
        answer = (await client.answer()).json
        assert isinstance(answer, dict)
        assert answer["result"][member] == [entries[index] for index in kept]


async def test_a_list_that_is_not_understood_goes_nowhere(client: Client, upstream: Upstream) -> None:
    """What may not be seen must not leak by being odd."""
    client.send(post(message("tools/list", LEGACY)))
    (await upstream.next()).answer(
        b'{"jsonrpc":"2.0","id":1,"result":{"tools":{"danger":{"name":"danger"}}}}'
    )
    answer = await client.answer()
    assert b"upstream_nonsense" in answer.body
    assert b"danger" not in answer.body


GATED = 'policy.tools=[{"match": "pay", "allow": ["*"], "approval": "gated"}]'


async def test_a_gated_call_runs_once_when_a_person_agrees(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """Issue 4, 6: refused, released, runs once; a replay and altered arguments are asked about anew."""
    side = await open_sidecar(GATED)
    client = await connect(side.port)
    call = tool_call(tool="pay")

    async def refused(body: bytes) -> str:
        client.send(post(body))
        answer = (await client.answer()).json
        assert isinstance(answer, dict)
        facts = answer["result"]["_meta"]["dev.mcp-sidecar/refusal"]
        assert facts["reason"] == "approval_required"
        return str(facts["confirmationId"])

    id = await refused(call)
    assert await refused(call) == id
    assert upstream.seen == []
    side.house.rooms.policy.approvals.release(id, by="operator", now=time.monotonic())
    assert await refused(call.replace(b"hello", b"hallo")) != id
    client.send(post(call))
    (await upstream.next()).answer(result())
    assert (await client.answer()).body == result()
    assert await refused(call) != id
    assert len(upstream.seen) == 1


async def test_kinds_of_calls_can_be_switched_off(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """Issue 4, 7: read-only lets reads pass and nothing else."""
    side = await open_sidecar(
        'policy.tools=[{"match": "get", "class": "read", "allow": ["*"]}, {"match": "put", "allow": ["*"]}]',
        "policy.modes.process=read-only",
    )
    client = await connect(side.port)
    client.send(post(tool_call(tool="put")))
    assert b'"reason":"mode"' in (await client.answer()).body
    client.send(post(tool_call(tool="get")))
    (await upstream.next()).answer(result())
    assert (await client.answer()).body == result()


async def test_a_loop_is_told_that_it_is_one(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """Issue 4, 9: repetition guard, off by default."""
    side = await open_sidecar('policy.tools=[{"match": "*", "allow": ["*"]}]', "policy.repetition.most=2")
    client = await connect(side.port)
    for _ in range(2):
        client.send(post(tool_call()))
        (await upstream.next()).answer(result())
        assert (await client.answer()).body == result()
    client.send(post(tool_call()))
    assert b'"isError":true' in (await client.answer()).body
    client.send(post(tool_call(tool="other")))
    (await upstream.next()).answer(result())
    assert (await client.answer()).body == result()


async def test_results_are_redacted(open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream) -> None:
    """Issue 4, 9: masked in place, the rest byte for byte; counted without the text; off for other tools."""
    side = await open_sidecar(
        'policy.tools=[{"match": "leak", "allow": ["*"], "redact": [{"pattern": "github_token", "action": "mask"}]}, '
        '{"match": "*", "allow": ["*"]}]'
    )
    client = await connect(side.port)
    token = "ghp_" + "aB3dE6gH9jK2mN5pQ8sT1vW4xY7zA0cD3fG6"
    for name, shown in (("leak", "[redacted: github_token]"), ("echo", token)):
        client.send(post(tool_call(tool=name)))
        (await upstream.next()).answer(result(text=f"see {token}"))
        assert (await client.answer()).body == result(text=f"see {shown}")
    found = [line["pattern"] for line in side.lines.life if line["msg"] == "found in what the server says"]
    assert found == ["github_token"]
    assert token not in json.dumps(side.lines.life + side.lines.calls)


async def test_arguments_must_fit_what_the_tool_declares(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """Issue 4, 4: learnt from the list as it passes; words the model can repair its call with."""
    side = await open_sidecar('policy.tools=[{"match": "*", "allow": ["*"], "validate": true}]')
    client = await connect(side.port)
    client.send(post(tool_call()))
    assert b"argument_invalid" in (await client.answer()).body
    client.send(post(message("tools/list", LEGACY)))
    schema = {"type": "object", "properties": {"text": {"type": "integer"}}}
    page = {"tools": [{"name": "echo", "inputSchema": schema}]}
    (await upstream.next()).answer(json.dumps({"jsonrpc": "2.0", "id": 1, "result": page}).encode())
    await client.answer()
    client.send(post(tool_call()))
    body = (await client.answer()).body
    assert b"argument_invalid" in body
    assert b"text" in body
    assert b"hello" not in body
    call = tool_call().replace(b'"hello"', b"7")
    client.send(post(call))
    exchange = await upstream.next()
    assert exchange.request.body == call
    exchange.answer(result())
    assert (await client.answer()).body == result()


async def test_a_condition_must_be_true(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """Issue 4, 5: only True allows; an error (the argument is null) denies."""
    when = "size(args.text) < 6 && principal.tenant == 'local'"
    rule = {"match": "echo", "allow": ["*"], "when": when}
    side = await open_sidecar(f"policy.tools={json.dumps([rule])}")
    client = await connect(side.port)
    for text, passes in ((b'"hello"', True), (b'"too long"', False), (b"null", False)):
        client.send(post(tool_call().replace(b'"hello"', text)))
        if passes:
            (await upstream.next()).answer(result())
            assert (await client.answer()).body == result()
        else:
            assert b'"reason":"not_allowed"' in (await client.answer()).body
    assert len(upstream.seen) == 1


def entry_of(tool: Mapping[str, object]) -> object:
    """The line that `mcp-sidecar pin` writes for a tool."""
    return msgspec.to_builtins(pin_file.entry_of(define(tool)))


PINNED = {"name": "echo", "description": "Echoes.", "inputSchema": {"type": "object"}}


@pytest.mark.parametrize(
    "changed",
    [
        {"description": "Echoes. "},
        {"inputSchema": {"type": "object", "properties": {"exfil": {"type": "string"}}}},
        {"annotations": {"readOnlyHint": True}},
        {"title": "Echo"},
    ],
)
async def test_a_tool_that_changed_since_it_was_approved_is_blocked(
    open_sidecar: OpenSidecar,
    connect: Connect,
    upstream: Upstream,
    tmp_path: Path,
    changed: dict[str, object],
) -> None:
    """Issue 4, 8: a rug pull is not listed, not called, and told; another order of keys is none."""
    lock = tmp_path / "tools.lock.yaml"
    lock.write_text(json.dumps({"version": 1, "tools": [entry_of(PINNED)]}), encoding="utf-8")
    side = await open_sidecar('policy.tools=[{"match": "*", "allow": ["*"]}]', f"policy.pins.file={lock}")
    client = await connect(side.port)

    async def listing(tool: object) -> list[object]:
        client.send(post(message("tools/list", LEGACY)))
        (await upstream.next()).answer(
            json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"tools": [tool]}}).encode()
        )
        answer = (await client.answer()).json
        assert isinstance(answer, dict)
        return list(answer["result"]["tools"])

    turned = dict(reversed(PINNED.items()))
    assert await listing(turned) == [turned]
    client.send(post(tool_call()))
    (await upstream.next()).answer(result())
    assert (await client.answer()).body == result()
    assert await listing({**PINNED, **changed}) == []
    client.send(post(tool_call()))
    assert b'"reason":"not_allowed"' in (await client.answer()).body
    told = [line for line in side.lines.life if line["msg"] == "tool is not as it was approved"]
    assert [(line["tool"], line["state"]) for line in told] == [("echo", "changed")]
