"""Answers that are told again, over real sockets: only what is safe, only to whom it may go, never twice at once.

Source: issue 6; design.md section 4 "cache"; corpus category cache.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.client import Client
from tests.integration.conftest import Connect, OpenSidecar
from tests.integration.house import Sidecar
from tests.integration.keys import key, let_in
from tests.integration.upstream import Exchange, Upstream
from tests.integration.waiting import until, within
from tests.integration.wire import LEGACY, MODERN, REVISIONS, Answer, event, message, post, result

ANN, BOB, EVE, LOW = (
    "ann.secret-of-ann-01",
    "bob.secret-of-bob-01",
    "eve.secret-of-eve-01",
    "low.secret-of-low-01",
)
PEOPLE = {
    ANN: ("acme", "ann", ["user"]),
    BOB: ("acme", "bob", ["user"]),
    EVE: ("umbrella", "eve", ["user"]),
    LOW: ("acme", "low", ["nobody"]),
}
MARK = "dev.mcp-sidecar/cache"
KEPT = {"class": "read", "cache": {"ttl_s": 60}}


def rules(*tools: dict[str, Any]) -> str:
    given = [{"allow": ["user"], **each} for each in tools]
    return "policy=" + json.dumps({"tools": given, "methods": {"*": {"allow": ["*"]}}})


READS = {"match": "read_*", **KEPT}
WRITES = {"match": "write_*", "class": "write", "forget": ["read_*"]}
TENANT = {"match": "tenant_*", "class": "read", "cache": {"ttl_s": 60, "share": "tenant"}}
ALL = {"match": "pub_*", "class": "read", "cache": {"ttl_s": 60, "share": "all"}}
PLAIN = {"match": "*"}


@pytest.fixture
def settings(tmp_path: Path) -> list[str]:
    return [let_in(tmp_path, PEOPLE), rules(READS, WRITES, TENANT, ALL, PLAIN), "cache={}"]


@pytest.fixture
async def side(open_sidecar: OpenSidecar, settings: list[str]) -> Sidecar:
    return await open_sidecar(*settings)


@pytest.fixture
async def client(side: Sidecar, connect: Connect) -> Client:
    return await connect(side.port)


def call(
    tool: str = "read_doc", who: str = ANN, id: int | str = 1, revision: str = LEGACY, **more: object
) -> bytes:
    """A whole request."""
    arguments = more.pop("arguments", {"doc": "x"})
    sent = message("tools/call", revision, id, name=tool, arguments=arguments, **more)
    return post(sent, revision, key(who))


async def asked(upstream: Upstream, client: Client, sent: bytes, answer: bytes | None = None) -> Answer:
    """The answer to a call that reaches the server."""
    before = len(upstream.seen)
    client.send(sent)
    (await upstream.next()).answer(result() if answer is None else answer)
    said = await client.answer()
    assert len(upstream.seen) == before + 1
    return said


async def kept(upstream: Upstream, client: Client, sent: bytes) -> Any:
    """The answer to a call that does not."""
    before = len(upstream.seen)
    client.send(sent)
    said = await client.answer()
    assert len(upstream.seen) == before
    assert isinstance(said.json, dict)
    assert MARK in said.json["result"]["_meta"]
    return said.json


@pytest.mark.parametrize("revision", [each for each in REVISIONS if each != "2024-11-05"])
async def test_an_equal_call_gets_the_same_answer_under_its_own_id(
    side: Sidecar, client: Client, upstream: Upstream, revision: str
) -> None:
    """CACHE-028; order of keys and blanks do not count."""
    first = await asked(upstream, client, call(revision=revision, arguments={"a": 1, "b": [2]}))
    again = await kept(upstream, client, call(revision=revision, id="mine", arguments={"b": [2], "a": 1}))
    assert again["id"] == "mine"
    mark = again["result"]["_meta"].pop(MARK)
    assert mark == {"age_s": mark["age_s"], "state": "fresh"}
    again["result"].pop("_meta")
    assert isinstance(first.json, dict)
    assert again["result"] == first.json["result"]
    lines = await side.lines.next_calls(2)
    assert [(line["cache"], line["outcome"], line["attempts"]) for line in lines] == [
        ("miss", "ok", 1),
        ("hit", "ok", 0),
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"n": 1}, {"n": "1"}),
        ({"n": 1}, {"n": 1.0}),
        ({"n": 1}, {"n": True}),
        ({"n": 2**64}, {"n": 2**64 + 1}),
        ({"doc": "x"}, {"doc": "x", "opt": None}),
        ({"doc": "\u00e9"}, {"doc": "e\u0301"}),
        ({"doc": "a", "b": ""}, {"doc": "", "b": "a"}),
    ],
)
async def test_what_differs_for_the_server_is_another_call(
    client: Client, upstream: Upstream, one: dict[str, object], other: dict[str, object]
) -> None:
    """CACHE-020, 022, 023, 025."""
    await asked(upstream, client, call(arguments=one))
    await asked(upstream, client, call(arguments=other))
    await asked(upstream, client, call(revision=MODERN, arguments=one))


@pytest.mark.parametrize(
    ("tool", "gets"),
    [("read_doc", {ANN}), ("tenant_doc", {ANN, BOB}), ("pub_doc", {ANN, BOB, EVE})],
)
async def test_an_answer_goes_to_whom_the_rule_says(
    client: Client, upstream: Upstream, tool: str, gets: set[str]
) -> None:
    """CACHE-001 to 003, 033: and never to whom the call is not allowed."""
    await asked(upstream, client, call(tool, ANN))
    for who in (ANN, BOB, EVE):
        if who in gets:
            await kept(upstream, client, call(tool, who))
        else:
            await asked(upstream, client, call(tool, who), result(text=f"for {who}"))
    client.send(call(tool, LOW))
    assert b'"reason":"not_allowed"' in (await client.answer()).body


async def test_the_server_may_narrow_and_never_widen(client: Client, upstream: Upstream) -> None:
    """CACHE-005, and a lying server: what it says of a tool makes nothing kept."""
    private = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"content": [], "cacheScope": "private"}})
    await asked(upstream, client, call("pub_doc", ANN), private.encode())
    await asked(upstream, client, call("pub_doc", EVE))
    public = {"content": [], "cacheScope": "public", "ttlMs": 60_000}
    lies = json.dumps({"jsonrpc": "2.0", "id": 1, "result": public}).encode()
    for _ in range(2):
        await asked(upstream, client, call("pay", ANN), lies)
        await asked(upstream, client, call("write_doc", ANN), lies)


@pytest.mark.parametrize(
    "bad",
    [
        b'{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"no"}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"content":[],"isError":true}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"resultType":"input_required","inputRequests":{},"requestState":"s"}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"resultType":"task","taskId":"t"}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"content":[],"ttlMs":0}}',
    ],
)
async def test_what_is_no_good_answer_is_not_kept(client: Client, upstream: Upstream, bad: bytes) -> None:
    """CACHE-006, 007, 012."""
    for _ in range(2):
        await asked(upstream, client, call(), bad)
    await asked(upstream, client, call())
    await kept(upstream, client, call())


async def test_what_was_cut_or_failed_is_not_kept(
    side: Sidecar, connect: Connect, upstream: Upstream
) -> None:
    """CACHE-008 to 010."""

    async def failed(exchange: Exchange) -> None:
        exchange.answer(b"oops", status="500 Internal Server Error", kind="text/plain")

    async def cut(exchange: Exchange) -> None:
        exchange.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + result()[:-5])
        exchange.link.close()

    async def half_a_stream(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(event(result())[:-9])
        exchange.link.close()

    for bad in (failed, cut, half_a_stream):
        client = await connect(side.port)
        client.send(call())
        await bad(await upstream.next())
        await client.answer()
    client = await connect(side.port)
    await asked(upstream, client, call())
    await kept(upstream, client, call())


@pytest.mark.parametrize(
    "more",
    [
        {"task": {"ttl": 1}},
        {"requestState": "s", "inputResponses": {}},
    ],
)
async def test_what_asks_for_more_than_an_answer_passes(
    client: Client, upstream: Upstream, more: Any
) -> None:
    """protocol.md 7.2."""
    await asked(upstream, client, call())
    for _ in range(2):
        await asked(upstream, client, call(**more))


async def test_whoever_wants_to_hear_of_progress_may_have_what_came_without(
    side: Sidecar, client: Client, connect: Connect, upstream: Upstream
) -> None:
    """protocol.md 7.2 and 7.4: it waits for nobody else's call; what came with progress is nobody else's."""
    wanting = call(_meta={"progressToken": 1})
    await asked(upstream, client, wanting)
    await kept(upstream, client, wanting)
    await kept(upstream, client, call())
    one, other = await connect(side.port), await connect(side.port)
    one.send(call(arguments={"doc": "y"}))
    first = await upstream.next()
    other.send(call(_meta={"progressToken": 2}, arguments={"doc": "y"}))
    second = await upstream.next()
    for exchange, who in ((first, one), (second, other)):
        exchange.answer(result())
        await who.answer()


async def test_the_client_may_want_its_own(client: Client, upstream: Upstream) -> None:
    """CACHE-044; RFC 9111 section 5.2.1."""
    sent = message("tools/call", LEGACY, name="read_doc", arguments={"doc": "x"})

    def wishing(wish: str) -> bytes:
        return post(sent, LEGACY, key(ANN), ("Cache-Control", wish))

    for _ in range(2):
        await asked(upstream, client, wishing("no-store"))
    await asked(upstream, client, wishing("no-cache"))
    await kept(upstream, client, call())
    await asked(upstream, client, wishing("no-cache"))


async def test_an_answer_on_a_stream_is_kept_and_told_as_json(client: Client, upstream: Upstream) -> None:
    """CACHE-030; comments and priming events say nothing."""
    client.send(call())
    exchange = await upstream.next()
    exchange.begin("Mcp-Session-Id: of-the-first")
    sent = b"id: 7\ndata:\n\n: ping\n\n" + event(result(), id="8")
    exchange.chunk(sent)
    exchange.end()
    assert (await client.answer()).body == sent
    client.send(call(id=2))
    answer = await client.answer()
    fields = {name.lower(): value for name, value in answer.fields}
    assert fields["content-type"] == "application/json"
    assert "mcp-session-id" not in fields
    assert int(fields["age"]) < 60
    assert len(upstream.seen) == 1


async def test_a_stream_that_says_more_passes_as_it_comes(
    side: Sidecar, client: Client, connect: Connect, upstream: Upstream
) -> None:
    """Trap 7: the server may ask its client something, and waits. Such an answer is nobody else's."""
    client.send(call())
    exchange = await upstream.next()
    exchange.begin()
    question = event(b'{"jsonrpc":"2.0","id":"q","method":"roots/list"}')
    exchange.chunk(question)
    await client.head()
    assert await client.until(b"roots/list") == question
    exchange.chunk(event(result()))
    exchange.end()
    assert await client.rest() == event(result())
    await asked(upstream, await connect(side.port), call())


async def test_five_hundred_at_once_are_one_call(side: Sidecar, connect: Connect, upstream: Upstream) -> None:
    """Issue 6, "done when"; each gets its own id."""
    clients = [await connect(side.port) for _ in range(500)]
    for id, client in enumerate(clients):
        client.send(call(id=id))
    exchange = await upstream.next()
    await until(lambda: side.house.requests_under_way == 500)
    exchange.answer(result(json.loads(exchange.request.body)["id"]))
    async with within(30):
        for id, client in enumerate(clients):
            said: Any = (await client.answer()).json
            assert (said["id"], said["result"]["content"]) == (id, [{"type": "text", "text": "hello"}])
    assert len(upstream.seen) == 1
    hows = sorted(line["cache"] for line in await side.lines.next_calls(500))
    assert hows.count("miss") == 1
    assert hows.count("joined") == 499


@pytest.mark.parametrize("leaves", ["leader", "follower", "both"])
async def test_whoever_leaves_takes_the_answer_from_nobody(
    side: Sidecar, connect: Connect, upstream: Upstream, leaves: str
) -> None:
    """CACHE-011: the server is told when the last one has gone, and not before."""
    leader, follower = [await connect(side.port) for _ in range(2)]
    leader.send(call(revision=MODERN))
    exchange = await upstream.next()
    follower.send(call(revision=MODERN, id=2))
    await until(lambda: side.house.requests_under_way == 2)
    if leaves != "follower":
        leader.reset()
        await side.lines.next_calls(1)
    if leaves != "leader":
        follower.reset()
    if leaves == "both":
        await exchange.left()
        await asked(upstream, await connect(side.port), call(revision=MODERN))
        return
    await side.lines.next_calls(1)
    exchange.answer(result())
    said: Any = (await (follower if leaves == "leader" else leader).answer()).json
    assert said["id"] == (2 if leaves == "leader" else 1)
    await kept(upstream, await connect(side.port), call(revision=MODERN))


async def test_whoever_waits_for_another_has_a_deadline_of_its_own(
    side: Sidecar, connect: Connect, upstream: Upstream
) -> None:
    """Issue 6, 5. How long a caller waits does not make its question another one."""
    leader, follower = [await connect(side.port) for _ in range(2)]
    leader.send(call())
    exchange = await upstream.next()
    sent = message("tools/call", LEGACY, id=2, name="read_doc", arguments={"doc": "x"})
    follower.send(post(sent, LEGACY, key(ANN), ("Mcp-Sidecar-Timeout-Ms", "50")))
    assert b'"reason":"deadline"' in (await follower.answer()).body
    exchange.answer(result())
    assert b"hello" in (await leader.answer()).body
    assert len(upstream.seen) == 1


async def test_callers_in_a_hurry_spoil_nothing_for_others(
    side: Sidecar, connect: Connect, upstream: Upstream
) -> None:
    """Hostile: whoever asks first for what is shared decides how long; two in a hurry must not refuse a third."""

    def within_ms(who: str, milliseconds: int) -> bytes:
        sent = message("tools/call", LEGACY, id=1, name="pub_doc", arguments={"doc": "x"})
        return post(sent, LEGACY, key(who), ("Mcp-Sidecar-Timeout-Ms", str(milliseconds)))

    eve, bob, ann = [await connect(side.port) for _ in range(3)]
    eve.send(within_ms(EVE, 100))
    await upstream.next()
    bob.send(within_ms(BOB, 300))
    await until(lambda: side.house.requests_under_way == 2)
    ann.send(call("pub_doc", ANN, id=9))
    await until(lambda: side.house.requests_under_way == 3)
    for hurried in (eve, bob):
        assert b"dev.mcp-sidecar/refusal" in (await hurried.answer()).body
    # Beside hers there are theirs, and what the server is told of those.
    while b'"id": 9' not in (exchange := await upstream.next()).request.body:
        pass
    exchange.answer(result(9))
    assert b"hello" in (await ann.answer()).body


async def test_when_the_first_fails_one_tries_again_for_all(
    side: Sidecar, connect: Connect, upstream: Upstream
) -> None:
    """Issue 6, 5: one further attempt, nobody hangs."""
    clients = [await connect(side.port) for _ in range(20)]
    for client in clients:
        client.send(call())
    first = await upstream.next()
    await until(lambda: side.house.requests_under_way == 20)
    first.link.reset()
    (await upstream.next()).answer(result())
    async with within(10):
        bodies = [(await client.answer()).body for client in clients]
    assert sum(b"hello" in body for body in bodies) == 19
    assert len(upstream.seen) == 2


async def test_when_it_fails_twice_everybody_is_told(
    side: Sidecar, connect: Connect, upstream: Upstream
) -> None:
    clients = [await connect(side.port) for _ in range(20)]
    for client in clients:
        client.send(call())
    first = await upstream.next()
    await until(lambda: side.house.requests_under_way == 20)
    first.link.reset()
    (await upstream.next()).link.reset()
    async with within(10):
        bodies = [(await client.answer()).body for client in clients]
    assert all(b"dev.mcp-sidecar/refusal" in body for body in bodies)
    assert len(upstream.seen) == 2


async def test_what_is_for_one_is_asked_by_each(side: Sidecar, connect: Connect, upstream: Upstream) -> None:
    """An error of the tool is no answer to keep or to give to another."""

    async def refuses(exchange: Exchange) -> None:
        id = json.loads(exchange.request.body)["id"]
        said = {"content": [{"type": "text", "text": f"no {id}"}], "isError": True}
        exchange.answer(json.dumps({"jsonrpc": "2.0", "id": id, "result": said}).encode())

    upstream.follow(refuses)
    clients = [await connect(side.port) for _ in range(10)]
    for id, client in enumerate(clients):
        client.send(call(id=id))
    for id, client in enumerate(clients):
        assert f"no {id}" in (await client.answer()).body.decode()
    assert len(upstream.seen) == 10


@pytest.mark.parametrize("in_events", [False, True], ids=["json", "events"])
async def test_after_a_write_nothing_old_is_told(
    side: Sidecar, client: Client, connect: Connect, upstream: Upstream, in_events: bool
) -> None:
    """Issue 6, 6. Before the writer has its answer; of the same tenant and no other."""
    await asked(upstream, client, call("read_doc", ANN))
    await asked(upstream, client, call("read_doc", EVE))
    client.send(call("write_doc", BOB))
    exchange = await upstream.next()
    if in_events:
        exchange.begin()
        exchange.chunk(event(result()))
        await client.head()
        await client.until(b"hello")  # the stream is still open
        client = await connect(side.port)
    else:
        exchange.answer(result())
        await client.answer()
    await asked(upstream, client, call("read_doc", ANN), result(text="new"))
    await kept(upstream, client, call("read_doc", EVE))


async def test_a_read_that_overlaps_a_write_is_not_kept(
    side: Sidecar, connect: Connect, upstream: Upstream
) -> None:
    """It may have seen what was before."""
    reader, writer = [await connect(side.port) for _ in range(2)]
    reader.send(call("read_doc", ANN))
    reading = await upstream.next()
    await asked(upstream, writer, call("write_doc", ANN))
    reading.answer(result(text="old"))
    await reader.answer()
    await asked(upstream, writer, call("read_doc", ANN), result(text="new"))


async def test_a_write_that_never_reached_the_server_drops_nothing(
    side: Sidecar, client: Client, connect: Connect, upstream: Upstream
) -> None:
    await asked(upstream, client, call("read_doc", ANN))
    await upstream.close()
    client.send(call("write_doc", ANN))
    assert b"upstream_unreachable" in (await client.answer()).body
    await upstream.open()
    await kept(upstream, client, call("read_doc", ANN))


def lists(*names: str, **hints: object) -> bytes:
    tools = [{"name": name, "inputSchema": {"type": "object"}} for name in names]
    said = {"jsonrpc": "2.0", "id": 1, "result": {"tools": tools, "resultType": "complete", **hints}}
    return json.dumps(said).encode()


def listing(who: str = ANN, method: str = "tools/list", **params: Any) -> bytes:
    return post(message(method, MODERN, **params), MODERN, key(who))


@pytest.mark.parametrize(
    ("hints", "others"),
    [
        ({"ttlMs": 60_000, "cacheScope": "public"}, True),
        ({"ttlMs": 60_000, "cacheScope": "private"}, False),
        ({"ttlMs": 60_000}, False),
    ],
)
async def test_lists_are_kept_as_the_server_says(
    client: Client, upstream: Upstream, hints: dict[str, object], others: bool
) -> None:
    """server/utilities/caching of 2026-07-28; ttlMs is lowered by the age."""
    await asked(upstream, client, listing(), lists("read_a", **hints))
    again = await kept(upstream, client, listing())
    assert 0 < again["result"]["ttlMs"] <= 60_000
    if others:
        await kept(upstream, client, listing(EVE))
    else:
        await asked(upstream, client, listing(EVE), lists("read_a", **hints))


@pytest.mark.parametrize("ttl", [-1, 0.5, None, "60000", True, 0])
async def test_an_odd_hint_keeps_nothing(client: Client, upstream: Upstream, ttl: object) -> None:
    """CACHE-038, 041, 042."""
    for _ in range(2):
        await asked(upstream, client, listing(), lists("read_a", ttlMs=ttl, cacheScope="public"))


async def test_a_kept_list_is_cut_for_each_caller(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, tmp_path: Path
) -> None:
    """Lists are filtered after the cache; and what they teach is taught to whoever gets them from it."""
    tools: list[dict[str, Any]] = [
        {"match": "read_*", "allow": ["user", "nobody"], "validate": True},
        {"match": "*", "allow": ["user"]},
    ]
    side = await open_sidecar(let_in(tmp_path, PEOPLE), rules(*tools), "cache={}")
    client = await connect(side.port)
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    said = {
        "tools": [{"name": "read_a", "inputSchema": schema}, {"name": "drop_a", "inputSchema": schema}],
        "ttlMs": 60_000,
        "cacheScope": "public",
        "resultType": "complete",
    }
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": said}).encode()
    names = [
        [tool["name"] for tool in answer["result"]["tools"]]
        for answer in (
            (await asked(upstream, client, listing(ANN), body)).json,
            await kept(upstream, client, listing(LOW)),
        )
        if isinstance(answer, dict)
    ]
    assert names == [["read_a", "drop_a"], ["read_a"]]
    client.send(call("read_a", LOW, arguments={"n": "one"}))
    assert b'"reason":"argument_invalid"' in (await client.answer()).body


@pytest.mark.parametrize(
    "told", [b"notifications/tools/list_changed", b"an error that says unknown"], ids=["told", "error"]
)
async def test_a_list_that_changed_is_asked_for_again(
    client: Client, upstream: Upstream, told: bytes
) -> None:
    """CACHE-036; protocol.md 2.9: a stale list makes -32602 permanent."""
    hints = {"ttlMs": 60_000, "cacheScope": "private"}
    await asked(upstream, client, listing(), lists("read_a", **hints))
    await kept(upstream, client, listing())
    if told.startswith(b"notifications"):
        client.send(call("tool"))
        exchange = await upstream.next()
        exchange.begin()
        exchange.chunk(event(b'{"jsonrpc":"2.0","method":"%b"}' % told) + event(result()))
        exchange.end()
        await client.answer()
    else:
        unknown = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"Unknown tool: tool"}}'
        await asked(upstream, client, call("tool"), unknown)
    await asked(upstream, client, listing(), lists("read_b", **hints))


async def test_a_tool_that_changed_is_asked_again(client: Client, upstream: Upstream) -> None:
    """The definition is part of what an answer is kept for."""
    await asked(upstream, client, listing(), lists("read_doc"))
    await asked(upstream, client, call())
    await kept(upstream, client, call())
    changed = lists("read_doc").replace(b'"type": "object"', b'"type": "object", "title": "x"')
    await asked(upstream, client, listing(), changed)
    await asked(upstream, client, call())


async def test_a_resource_that_was_updated_is_read_again(
    side: Sidecar, client: Client, connect: Connect, upstream: Upstream
) -> None:
    hints = {"ttlMs": 60_000, "cacheScope": "private", "resultType": "complete"}
    said = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"contents": [], **hints}}).encode()
    for uri in ("file:///a", "file:///b"):
        await asked(upstream, client, listing(ANN, "resources/read", uri=uri), said)
    client.send(call("tool"))
    exchange = await upstream.next()
    exchange.begin()
    told = {"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "file:///a"}}
    exchange.chunk(event(json.dumps(told).encode()) + event(result()))
    exchange.end()
    await client.answer()
    await asked(upstream, client, listing(ANN, "resources/read", uri="file:///a"), said)
    await kept(upstream, client, listing(ANN, "resources/read", uri="file:///b"))


async def test_a_kept_answer_costs_a_token_and_no_quota(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, settings: list[str]
) -> None:
    """design.md section 4, "limits"."""
    limits = [
        {"name": "daily", "key": ["tenant"], "quota": 3, "window": "day"},
        {"name": "rate", "key": ["tenant"], "rate_per_s": 0.001, "burst": 5},
    ]
    side = await open_sidecar(*settings, f"limits={json.dumps(limits)}")
    client = await connect(side.port)
    await asked(upstream, client, call())
    for _ in range(3):
        await kept(upstream, client, call())
    await asked(upstream, client, call(arguments={"doc": "y"}))
    client.send(call())
    assert b'"limit":"rate"' in (await client.answer()).body


async def test_what_must_not_leave_is_masked_in_kept_answers_too(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, tmp_path: Path
) -> None:
    tool = {"match": "read_*", **KEPT, "redact": [{"pattern": "github_token", "action": "mask"}]}
    side = await open_sidecar(let_in(tmp_path, PEOPLE), rules(tool), "cache={}")
    client = await connect(side.port)
    secret = "ghp_" + "a1B2c3D4e5F6g7H8i9J0" + "a1B2c3D4e5F6g7H8"
    first = await asked(upstream, client, call(), result(text=f"token {secret}"))
    again = await kept(upstream, client, call())
    assert secret.encode() not in first.body
    assert again["result"]["content"][0]["text"] == "token [redacted: github_token]"


async def test_nothing_is_kept_where_nobody_said_so(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """The counter-proof: without a cache section the server is asked every time."""
    side = await open_sidecar()
    client = await connect(side.port)
    hints = {"ttlMs": 60_000, "cacheScope": "public"}
    for _ in range(2):
        await asked(upstream, client, post(message("tools/list", MODERN), MODERN), lists("a", **hints))


async def test_what_is_kept_in_a_file_outlives_a_restart(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, settings: list[str], tmp_path: Path
) -> None:
    """And a process with another secret believes nothing of it."""

    def kept_in(secret: str) -> str:
        (tmp_path / secret).write_text(secret * 8, encoding="ascii")
        cache = {"file": str(tmp_path / "cache.log"), "secret": f"${{file:{tmp_path / secret}}}"}
        return f"cache={json.dumps(cache)}"

    first = await open_sidecar(*settings, kept_in("one-secret"))
    client = await connect(first.port)
    await loaded(first)
    await asked(upstream, client, call())
    await kept(upstream, client, call())
    client.close()
    await first.house.close(grace_s=0)
    second = await open_sidecar(*settings, kept_in("one-secret"))
    client = await connect(second.port)
    await loaded(second)
    await kept(upstream, client, call())
    client.close()
    await second.house.close(grace_s=0)
    third = await open_sidecar(*settings, kept_in("another-one"))
    client = await connect(third.port)
    await loaded(third)
    await asked(upstream, client, call())


async def loaded(side: Sidecar) -> None:
    """Wait until the file was read."""
    store: Any = side.house.rooms.caching.store
    async with within():
        await store.loaded()
