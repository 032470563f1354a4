"""How much callers may have, over real sockets: what is counted, what is given back, and in which words it ends.

Source: issue 5; design.md section 4 "limits"; corpus category limits.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.client import Client
from tests.integration.conftest import Connect, OpenSidecar
from tests.integration.keys import key, let_in
from tests.integration.upstream import Exchange, Upstream
from tests.integration.waiting import within
from tests.integration.wire import (
    LEGACY,
    MODERN,
    REVISIONS,
    Answer,
    event,
    listen,
    message,
    post,
    result,
    tool_call,
)

ANN, BOB, EVE = "ann.secret-of-ann-01", "bob.secret-of-bob-01", "eve.secret-of-eve-01"
PEOPLE = {
    ANN: ("acme", "ann", ["user"]),
    BOB: ("acme", "bob", ["user"]),
    EVE: ("umbrella", "eve", ["user"]),
}


def limits(*each: dict[str, object]) -> str:
    return f"limits={json.dumps(each)}"


def quota(units: int, **more: object) -> dict[str, object]:
    return {"name": "daily", "key": ["tenant"], "quota": units, "window": "day", **more}


def rate(burst: int, **more: object) -> dict[str, object]:
    """So slow that nothing comes back while a test runs."""
    return {"name": "rate", "key": ["tenant"], "rate_per_s": 0.001, "burst": burst, **more}


def refusal_of(answer: Answer) -> dict[str, Any]:
    assert isinstance(answer.json, dict)
    said: dict[str, Any] = answer.json["result"]["_meta"]["dev.mcp-sidecar/refusal"]
    return said


async def answered(upstream: Upstream, client: Client, sent: bytes) -> Answer:
    """The answer to a call that passes."""
    client.send(sent)
    (await upstream.next()).answer(result())
    answer = await client.answer()
    assert answer.body == result()
    return answer


@pytest.mark.parametrize("revision", REVISIONS)
async def test_a_spent_limit_says_which_and_when(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, revision: str
) -> None:
    """Issue 5, 5: which limit, how much is left, when to come back; the session goes on."""
    side = await open_sidecar(limits(rate(2)))
    client = await connect(side.port)
    for _ in range(2):
        await answered(upstream, client, post(tool_call(revision), revision))
    client.send(post(tool_call(revision), revision))
    answer = await client.answer()
    assert answer.status == 200
    said = refusal_of(answer)
    assert said["reason"] == "rate_limited"
    assert said["limit"] == "rate"
    assert said["remaining"] == 0
    assert 990_000 < said["retryAfterMs"] <= 1_000_000
    text = answer.json["result"]["content"][0]["text"]  # type: ignore[index]
    assert "Limit rate allows" in text
    assert "Nothing is left." in text
    assert len(upstream.seen) == 2
    assert (await side.lines.next_calls(3))[2]["outcome"] == "rate_limited"


async def test_http_callers_get_429_and_fields(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """Issue 5, 5: draft-ietf-httpapi-ratelimit-headers; Retry-After of RFC 9110."""
    side = await open_sidecar(limits(quota(1)), "refusals=http")
    client = await connect(side.port)
    await answered(upstream, client, post(tool_call()))
    client.send(post(tool_call()))
    answer = await client.answer()
    assert answer.status == 429
    fields = {name.lower(): value for name, value in answer.fields}
    assert fields["ratelimit-policy"] == '"daily";q=1;w=86400'
    assert fields["ratelimit"].startswith('"daily";r=0;t=')
    assert 0 < int(fields["retry-after"]) <= 86_400


async def test_when_one_limit_refuses_no_other_is_charged(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """Issue 5, 1: all decided together, nothing taken when one refuses."""
    exports = {"name": "exports", "key": ["tenant"], "tools": ["export"], "rate_per_s": 0.001, "burst": 1}
    side = await open_sidecar(limits(quota(2), exports))
    client = await connect(side.port)
    await answered(upstream, client, post(tool_call(tool="export")))
    for _ in range(3):
        client.send(post(tool_call(tool="export")))
        assert refusal_of(await client.answer())["limit"] == "exports"
    await answered(upstream, client, post(tool_call()))
    client.send(post(tool_call()))
    assert refusal_of(await client.answer())["limit"] == "daily"


async def test_tenants_do_not_pay_for_each_other(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, tmp_path: Path
) -> None:
    """Purpose of issue 5. Two of one tenant share; what a header claims changes nothing (LIM-015)."""
    side = await open_sidecar(let_in(tmp_path, PEOPLE), limits(quota(2)))
    client = await connect(side.port)
    await answered(upstream, client, post(tool_call(), LEGACY, key(ANN)))
    await answered(upstream, client, post(tool_call(), LEGACY, key(BOB)))
    claims = (("X-Forwarded-For", "10.0.0.9"), ("X-Tenant", "umbrella"))
    for who in (ANN, BOB):
        client.send(post(tool_call(), LEGACY, key(who), *claims))
        assert refusal_of(await client.answer())["reason"] == "quota_spent"
    await answered(upstream, client, post(tool_call(), LEGACY, key(EVE)))


async def test_some_have_more_and_some_have_nothing(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, tmp_path: Path
) -> None:
    """Issue 5, 1: per-key overrides, 0 is blocked."""
    overrides = {"umbrella": {"quota": 0}, "acme/bob": {"quota": 2}}
    one = quota(1, key=["tenant", "subject"], overrides=overrides)
    side = await open_sidecar(let_in(tmp_path, PEOPLE), limits(one))
    client = await connect(side.port)
    for who, granted in ((ANN, 1), (BOB, 2), (EVE, 0)):
        for _ in range(granted):
            await answered(upstream, client, post(tool_call(), LEGACY, key(who)))
        client.send(post(tool_call(), LEGACY, key(who)))
        assert refusal_of(await client.answer())["reason"] == "quota_spent"


async def test_what_never_reached_the_server_is_given_back(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """Issue 5, 2: reserved before the call, settled after it; the rate keeps its token."""
    side = await open_sidecar(limits(quota(1), rate(2)))
    client = await connect(side.port)
    await upstream.close()
    client.send(post(tool_call()))
    assert refusal_of(await client.answer())["reason"] == "upstream_unreachable"
    await upstream.open()
    await answered(upstream, client, post(tool_call()))
    client.send(post(tool_call()))
    assert refusal_of(await client.answer())["limit"] in ("daily", "rate")
    assert len(upstream.seen) == 1


async def test_what_reached_the_server_stays_spent(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """Also where its client left, or its answer was none: the server has worked."""
    side = await open_sidecar(limits(quota(2)))
    leaving = await connect(side.port)
    leaving.send(post(tool_call(MODERN), MODERN))
    exchange = await upstream.next()
    leaving.reset()
    await exchange.left()
    await side.lines.next_calls(1)
    client = await connect(side.port)
    client.send(post(tool_call()))
    (await upstream.next()).answer(b"not JSON")
    await client.answer()
    client.send(post(tool_call()))
    assert refusal_of(await client.answer())["reason"] == "quota_spent"


async def test_what_others_wait_for_is_never_refused(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """Traps 1, 2 and 39 of the protocol: a refused handshake changes eras, a refused answer deadlocks."""
    side = await open_sidecar(limits(rate(1)))
    client = await connect(side.port)
    await answered(upstream, client, post(tool_call()))
    posted = b'{"jsonrpc":"2.0","id":"q","result":{"action":"decline"}}'
    told = [
        message("notifications/initialized", LEGACY, None),
        message("notifications/cancelled", LEGACY, None, requestId=1),
        posted,
    ]
    for sent in told:
        client.send(post(sent))
        (await upstream.next()).answer(b"", status="202 Accepted", kind="")
        assert (await client.answer()).status == 202
    await answered(upstream, client, post(message("initialize", LEGACY, protocolVersion=LEGACY)))
    client.send(listen())
    exchange = await upstream.next()
    exchange.begin()
    assert (await client.head()).status == 200
    other = await connect(side.port)
    for sent in (tool_call(), message("ping", LEGACY), message("tools/list", LEGACY)):
        other.send(post(sent))
        assert b"rate_limited" in (await other.answer()).body


@pytest.mark.parametrize(
    "flood",
    [
        message("notifications/initialized", LEGACY, None),
        message("ping", LEGACY),
        message("tools/list", LEGACY),
    ],
)
async def test_everything_a_client_sends_is_counted(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, flood: bytes
) -> None:
    """LIM-020, LIM-021: a flood of what nobody thinks of leaves nothing for calls."""

    async def answers(exchange: Exchange) -> None:
        exchange.answer(result())

    upstream.follow(answers)
    side = await open_sidecar(limits(rate(5)))
    client = await connect(side.port)
    for _ in range(5):
        client.send(post(flood))
        await client.answer()
    client.send(post(tool_call()))
    assert refusal_of(await client.answer())["reason"] == "rate_limited"


async def test_in_a_batch_only_what_is_too_much_is_refused(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """2025-03-26; each message is leased by itself."""
    side = await open_sidecar(limits(quota(1)))
    client = await connect(side.port)
    batch = b"[" + b",".join(tool_call("2025-03-26", id) for id in (1, 2)) + b"]"
    client.send(post(batch, "2025-03-26"))
    exchange = await upstream.next()
    assert [each["id"] for each in json.loads(exchange.request.body)] == [1]
    exchange.answer(b"[" + result() + b"]")
    said: Any = (await client.answer()).json
    assert [each["id"] for each in said] == [1, 2]
    assert said[1]["result"]["_meta"]["dev.mcp-sidecar/refusal"]["reason"] == "quota_spent"


async def test_a_limit_on_trial_refuses_nobody(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    side = await open_sidecar(limits(quota(1, report=True)))
    client = await connect(side.port)
    for _ in range(2):
        await answered(upstream, client, post(tool_call()))
    first, second = await side.lines.next_calls(2)
    assert "would_refuse" not in first
    assert second["would_refuse"] == {"rule": "limit daily", "reason": "quota_spent"}


async def test_a_rule_says_what_a_call_costs_and_what_is_cheaper(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """LIM-008 and LIM-010: the cost is the operator's, and a call that does not fit takes nothing."""
    tools = [
        {"match": "export", "allow": ["*"], "cost": 6, "instead": "Use search for a part of it."},
        {"match": "*", "allow": ["*"]},
    ]
    side = await open_sidecar(limits(quota(10)), f"policy.tools={json.dumps(tools)}")
    client = await connect(side.port)
    await answered(upstream, client, post(tool_call(tool="export")))
    cheap = message("tools/call", LEGACY, name="export", arguments={"cost": -100, "_cost": 0})
    client.send(post(cheap))
    answer = await client.answer()
    assert b"Use search for a part of it." in answer.body
    said = refusal_of(answer)
    assert (said["remaining"], said["cost"]) == (4, 6)
    for _ in range(4):
        await answered(upstream, client, post(tool_call()))


async def test_a_quota_outlives_a_restart(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, tmp_path: Path
) -> None:
    """Issue 5, 2: a snapshot that survives restarts where a path is given."""
    file = tmp_path / "limits.json"
    settings = (limits(quota(2)), f"local_state.file={file}")
    first = await open_sidecar(*settings)
    client = await connect(first.port)
    await answered(upstream, client, post(tool_call()))
    client.close()
    await first.house.close(grace_s=0)
    assert file.stat().st_mode & 0o777 == 0o600

    second = await open_sidecar(*settings)
    again = await connect(second.port)
    await answered(upstream, again, post(tool_call()))
    again.send(post(tool_call()))
    assert refusal_of(await again.answer())["reason"] == "quota_spent"


async def test_five_hundred_at_once_get_just_what_there_is(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """LIM-004: no more and no fewer."""

    async def answers(exchange: Exchange) -> None:
        exchange.answer(result())

    upstream.follow(answers)
    side = await open_sidecar(limits(quota(100)))
    clients = [await connect(side.port) for _ in range(50)]

    async def ten(client: Client) -> int:
        granted = 0
        for _ in range(10):
            client.send(post(tool_call()))
            granted += (await client.answer()).body == result()
        return granted

    async with within(30):
        assert sum(await asyncio.gather(*map(ten, clients))) == 100


@pytest.mark.parametrize("in_events", [False, True], ids=["json", "events"])
async def test_a_call_in_several_rounds_costs_its_quota_once(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, in_events: bool
) -> None:
    """Issue 5, 2: multi-round-trip requests are one call; only for whom the server asked, and once."""
    side = await open_sidecar(limits(quota(2)))
    client = await connect(side.port)
    client.send(post(tool_call(MODERN), MODERN))
    wants = {"resultType": "input_required", "inputRequests": {}, "requestState": "s"}
    asked = json.dumps({"jsonrpc": "2.0", "id": 1, "result": wants}).encode()
    exchange = await upstream.next()
    if in_events:
        exchange.begin()
        exchange.chunk(event(asked))
        exchange.end()
    else:
        exchange.answer(asked)
    await client.answer()
    goes_on = message("tools/call", MODERN, name="echo", arguments={}, requestState="s", inputResponses={})
    await answered(upstream, client, post(goes_on, MODERN))
    await answered(upstream, client, post(goes_on, MODERN))
    client.send(post(goes_on, MODERN))
    assert refusal_of(await client.answer())["reason"] == "quota_spent"
    assert len(upstream.seen) == 3


async def test_hidden_tools_are_counted_by_the_name_they_are_asked_by(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """The server is asked about another name each time, which must not have a bucket of its own."""
    hidden = 'policy.tools=[{"match": "*", "hidden": true}]'
    side = await open_sidecar(hidden, limits(rate(2, key=["tenant", "tool"], tools=["*"])))
    client = await connect(side.port)
    for _ in range(2):
        await answered(upstream, client, post(tool_call(tool="secret")))
    client.send(post(tool_call(tool="secret")))
    assert refusal_of(await client.answer())["reason"] == "rate_limited"


@pytest.mark.parametrize("in_batch", [False, True], ids=["alone", "in a batch"])
async def test_what_policy_refuses_counts_where_everything_counts(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, in_batch: bool
) -> None:
    """LIM-014: whoever tries what is not allowed is slowed down, and no quota is spent by it."""
    denied = 'policy.tools=[{"match": "danger", "allow": []}, {"match": "*", "allow": ["*"]}]'
    side = await open_sidecar(denied, limits(rate(4), quota(1)))
    client = await connect(side.port)
    sent = tool_call("2025-03-26", tool="danger")
    request = post(b"[%b]" % sent if in_batch else sent, "2025-03-26")
    for _ in range(3):
        client.send(request)
        assert b'"reason":"not_allowed"' in (await client.answer()).body
    await answered(upstream, client, post(tool_call()))
    client.send(request)
    assert b'"reason":"rate_limited"' in (await client.answer()).body
    assert len(upstream.seen) == 1
