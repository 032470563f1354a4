"""Two sidecars and one real Valkey: together they grant what the limit says, whatever becomes of the store.

Source: issue 5, "done when"; corpus LIM-004, LIM-007, LIM-026.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence

import pytest

from tests.integration.client import Client
from tests.integration.conftest import Connect, OpenSidecar
from tests.integration.upstream import Exchange, Upstream
from tests.integration.waiting import within
from tests.integration.wire import LEGACY, message, post, result, tool_call
from tests.valkey import Valkey

ROUNDS = 20
EACH_ROUND, GRANTED = 500, 100


@pytest.fixture
def store() -> Iterator[Valkey]:
    with Valkey() as store:
        yield store


def settings(store: Valkey, quota: int = GRANTED, **more: object) -> list[str]:
    limit = {"name": "all", "key": ["tenant", "tool"], "quota": quota, "window": "day"}
    shared = {"url": store.url, "timeout_s": 0.5, **more}
    return [f"limits={json.dumps([limit])}", f"shared_state={json.dumps(shared)}"]


async def answers(exchange: Exchange) -> None:
    exchange.answer(result())


async def granted(clients: Sequence[Client], calls: int, tool: str) -> int:
    """How many of so many calls, raced over these connections, passed."""
    sent = post(tool_call(tool=tool))

    async def some(client: Client) -> int:
        count = 0
        for _ in range(calls // len(clients)):
            client.send(sent)
            count += (await client.answer()).body == result()
        return count

    async with within(30):
        return sum(await asyncio.gather(*map(some, clients)))


async def test_two_sidecars_grant_together_what_one_would(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, store: Valkey
) -> None:
    """500 racing calls, a hundred granted, each round, exactly."""
    upstream.follow(answers)
    sides = [await open_sidecar(*settings(store)) for _ in range(2)]
    clients = [await connect(side.port) for side in sides for _ in range(10)]
    found = [await granted(clients, EACH_ROUND, f"tool-{round}") for round in range(ROUNDS)]
    assert found == [GRANTED] * ROUNDS
    assert len(upstream.seen) == GRANTED * ROUNDS


@pytest.mark.parametrize(("on_outage", "passing"), [("local", 5), ("closed", 0)])
async def test_an_outage_is_what_the_settings_say(
    open_sidecar: OpenSidecar,
    connect: Connect,
    upstream: Upstream,
    store: Valkey,
    on_outage: str,
    passing: int,
) -> None:
    """A stated share, or nothing; no 500; told on /readyz, and over when the store is back."""
    upstream.follow(answers)
    side = await open_sidecar(*settings(store, quota=10, on_outage=on_outage, local_share=0.5))
    client = await connect(side.port)
    assert await granted([client], 1, "before") == 1
    store.kill()
    assert await granted([client], 10, "meanwhile") == passing
    answer = await side.probe("/readyz")
    assert answer.status == 200
    assert isinstance(answer.json, dict)
    assert answer.json["status"] == "degraded"
    assert answer.json["reasons"][0].startswith("limits are not shared: ")
    if on_outage == "closed":
        client.send(post(tool_call(tool="meanwhile")))
        assert b'"reason":"overloaded"' in (await client.answer()).body
        client.send(post(message("initialize", LEGACY, protocolVersion=LEGACY)))
        assert (await client.answer()).body == result()
    lines = len(side.lines.life)
    store.start()
    await side.lines.when(lambda seen: any(line["msg"] == "limits are shared" for line in seen.life[lines:]))
    assert await granted([client], 20, "after") == 10


async def test_a_store_that_hangs_costs_its_timeout_and_no_call(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, store: Valkey
) -> None:
    upstream.follow(answers)
    side = await open_sidecar(*settings(store, quota=10, timeout_s=0.05))
    client = await connect(side.port)
    assert await granted([client], 1, "before") == 1
    store.hang()
    try:
        assert await granted([client], 10, "meanwhile") == 5
    finally:
        store.go_on()
    assert all(line["outcome"] in ("ok", "rate_limited") for line in side.lines.calls)
