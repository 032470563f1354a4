"""How many calls the server gets at once, over real sockets: a place is held until the answer has ended, and what
others wait for never waits.

Source: issue 5, item 4; design.md section 4 "capacity"; corpus LIM-011 to LIM-013; trap 7 of the protocol.
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
from tests.integration.waiting import turns, until
from tests.integration.wire import LEGACY, MODERN, event, listen, message, post, result, tool_call

GREEDY, QUIET = "greedy.secret-greedy-01", "quiet.secret-quiet-0001"
PEOPLE = {GREEDY: ("big", "greedy", ["user"]), QUIET: ("small", "quiet", ["user"])}
LEAVERS = 1_600


def capacity(**settings: object) -> str:
    return f"capacity={json.dumps(settings)}"


async def is_overloaded(client: Client, sent: bytes) -> bool:
    client.send(sent)
    answer = await client.answer()
    assert answer.status == 200
    return b'"reason":"overloaded"' in answer.body


async def waits(side: Sidecar, count: int) -> None:
    """Until so many calls wait for a place."""
    await until(lambda: side.house.rooms.capacity.waiting == count)


async def test_a_slow_stream_holds_its_place_until_it_ends(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """A capacity of 1: the second call is refused, until the stream's end."""
    side = await open_sidecar(capacity(max_in_flight=1))
    one, other = await connect(side.port), await connect(side.port)
    one.send(post(tool_call()))
    exchange = await upstream.next()
    exchange.begin()
    exchange.chunk(event(b'{"jsonrpc":"2.0","method":"notifications/message","params":{}}'))
    await one.head()
    await one.until(b"notifications/message")
    assert await is_overloaded(other, post(tool_call()))
    exchange.chunk(event(result()))
    exchange.end()
    assert (await one.rest()).endswith(event(result()))
    other.send(post(tool_call()))
    (await upstream.next()).answer(result())
    assert (await other.answer()).body == result()
    assert side.house.rooms.capacity.in_flight == 0


async def test_a_call_may_wait_for_its_turn(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """The same with a queue: it is served when the stream has ended, and refused when that takes too long."""
    side = await open_sidecar(capacity(max_in_flight=1, overload="queue", queue_depth=1, max_wait_s=5))
    one, other, third = [await connect(side.port) for _ in range(3)]
    one.send(post(tool_call()))
    exchange = await upstream.next()
    exchange.begin()
    other.send(post(tool_call()))
    await waits(side, 1)
    assert await is_overloaded(third, post(tool_call()))
    assert len(upstream.seen) == 1
    exchange.chunk(event(result()))
    exchange.end()
    await one.answer()
    (await upstream.next()).answer(result())
    assert (await other.answer()).body == result()


async def test_nobody_waits_for_ever(open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream) -> None:
    side = await open_sidecar(capacity(max_in_flight=1, overload="queue", queue_depth=9, max_wait_s=0.05))
    one, other = await connect(side.port), await connect(side.port)
    one.send(post(tool_call()))
    exchange = await upstream.next()
    other.send(post(tool_call()))
    answer = await other.answer()
    said: Any = answer.json
    refusal = said["result"]["_meta"]["dev.mcp-sidecar/refusal"]
    assert (refusal["reason"], refusal["limit"]) == ("overloaded", "capacity.waited")
    assert refusal["retryAfterMs"] > 0
    exchange.answer(result())
    assert (await one.answer()).body == result()


async def test_what_somebody_waits_for_needs_no_place(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """Trap 7: the server asks its client something while every place is held, and must get the answer."""
    side = await open_sidecar(capacity(max_in_flight=1))
    one, other = await connect(side.port), await connect(side.port)
    one.send(post(tool_call()))
    exchange = await upstream.next()
    exchange.begin()
    exchange.chunk(event(b'{"jsonrpc":"2.0","id":"q","method":"elicitation/create","params":{}}'))
    await one.head()
    await one.until(b"elicitation/create")
    free = (
        (b'{"jsonrpc":"2.0","id":"q","result":{"action":"decline"}}', "202 Accepted"),
        (message("notifications/cancelled", LEGACY, None, requestId=9), "202 Accepted"),
        (message("ping", LEGACY), "200 OK"),
        (message("initialize", LEGACY, protocolVersion=LEGACY), "200 OK"),
        (message("logging/setLevel", LEGACY, level="info"), "200 OK"),
    )
    for sent, status in free:
        other.send(post(sent))
        passed = await upstream.next()
        assert passed.request.body == sent
        if status.startswith("202"):
            passed.answer(b"", status=status, kind="")
        else:
            passed.answer(result())
        assert (await other.answer()).status == int(status[:3])
    other.send(listen())
    (await upstream.next()).begin()
    assert (await other.head()).status == 200
    exchange.chunk(event(result()))
    exchange.end()
    assert (await one.rest()).endswith(event(result()))


async def test_a_tenant_has_a_share_and_a_tool_too(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, tmp_path: Path
) -> None:
    side = await open_sidecar(
        let_in(tmp_path, PEOPLE), capacity(max_in_flight=9, per_tenant=2, per_tool={"export_*": 1})
    )
    clients = [await connect(side.port) for _ in range(4)]
    exchanges: list[Exchange] = []
    for client, tool in zip(clients[:2], ("export_a", "echo"), strict=True):
        client.send(post(tool_call(tool=tool), LEGACY, key(GREEDY)))
        exchanges.append(await upstream.next())
    assert await is_overloaded(clients[2], post(tool_call(), LEGACY, key(GREEDY)))
    assert await is_overloaded(clients[2], post(tool_call(tool="export_b"), LEGACY, key(QUIET)))
    clients[2].send(post(tool_call(), LEGACY, key(QUIET)))
    (await upstream.next()).answer(result())
    assert (await clients[2].answer()).body == result()
    for client, exchange in zip(clients, exchanges, strict=False):
        exchange.answer(result())
        await client.answer()


async def test_a_tenant_that_floods_does_not_push_out_another(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, tmp_path: Path
) -> None:
    """Tenants take turns: the quiet one's only call is next, whatever waits before it."""
    side = await open_sidecar(
        let_in(tmp_path, PEOPLE), capacity(max_in_flight=1, overload="queue", queue_depth=20, max_wait_s=10)
    )
    flood = [await connect(side.port) for _ in range(11)]
    for client in flood:
        client.send(post(tool_call(tool="flood"), LEGACY, key(GREEDY)))
    exchange = await upstream.next()
    await waits(side, 10)
    quiet = await connect(side.port)
    quiet.send(post(tool_call(tool="quiet"), LEGACY, key(QUIET)))
    await waits(side, 11)
    order = []
    for _ in range(12):
        order.append(json.loads(exchange.request.body)["params"]["name"])
        exchange.answer(result())
        if len(order) < 12:
            exchange = await upstream.next()
    assert order.index("quiet") <= 2
    assert (await quiet.answer()).body == result()
    for client in flood:
        assert (await client.answer()).body == result()


async def test_whoever_leaves_takes_nothing_along(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """LIM-012: at the server, in the queue, between the two: every gauge is back where it was."""
    side = await open_sidecar(capacity(max_in_flight=8, overload="queue", queue_depth=8, max_wait_s=10))
    came: list[Exchange] = []

    async def keep(exchange: Exchange) -> None:
        came.append(exchange)

    upstream.follow(keep)
    room = side.house.rooms.capacity
    for _ in range(LEAVERS // 16):
        leavers = [await connect(side.port) for _ in range(16)]
        for client in leavers:
            client.send(post(tool_call(MODERN), MODERN))
        await until(lambda: (room.in_flight, room.waiting) == (8, 8))
        for client in leavers:
            client.reset()
        await until(lambda: (room.in_flight, room.waiting) == (0, 0))
    assert room.refused == {}


async def test_a_server_that_dies_frees_every_place(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """LIM-013."""
    side = await open_sidecar(capacity(max_in_flight=4))

    async def die(exchange: Exchange) -> None:
        exchange.link.reset()

    upstream.follow(die)
    clients = [await connect(side.port) for _ in range(4)]
    for _ in range(50):
        for client in clients:
            client.send(post(tool_call()))
        for client in clients:
            assert b"overloaded" not in (await client.answer()).body
    await turns()
    assert side.house.rooms.capacity.in_flight == 0


async def test_calls_leave_at_a_pace(open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream) -> None:
    """Design "capacity": what would wait too long for its moment is refused, and was not sent."""
    side = await open_sidecar(capacity(pace={"rate_per_s": 0.5, "burst": 2}, max_wait_s=0.05))
    client = await connect(side.port)
    for _ in range(2):
        client.send(post(tool_call()))
        (await upstream.next()).answer(result())
        assert (await client.answer()).body == result()
    assert await is_overloaded(client, post(tool_call()))
    assert len(upstream.seen) == 2
    assert side.house.rooms.capacity.in_flight == 0


@pytest.mark.parametrize("held", [3, 2])
async def test_a_batch_takes_a_place_for_each_of_its_calls(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, held: int
) -> None:
    """2025-03-26: all or nothing."""
    side = await open_sidecar(capacity(max_in_flight=held))
    client = await connect(side.port)
    batch = b"[" + b",".join(tool_call("2025-03-26", id) for id in (1, 2, 3)) + b"]"
    client.send(post(batch, "2025-03-26"))
    if held == 3:
        answer = b"[" + b",".join(result(id) for id in (1, 2, 3)) + b"]"
        (await upstream.next()).answer(answer)
        assert (await client.answer()).body == answer
    else:
        assert b"overloaded" in (await client.answer()).body
        assert upstream.seen == []
    assert side.house.rooms.capacity.in_flight == 0
