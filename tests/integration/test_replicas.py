"""Two sidecars and one real Valkey: together they grant what the limit says, whatever becomes of the store.

Source: issue 5, "done when"; corpus LIM-004, LIM-007, LIM-026.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests import ledger
from tests.integration.client import Client
from tests.integration.conftest import Connect, OpenSidecar
from tests.integration.house import Lines
from tests.integration.upstream import Exchange, Upstream
from tests.integration.waiting import within
from tests.integration.wire import LEGACY, message, post, result, tool_call
from tests.valkey import Valkey

MARK = b"dev.mcp-sidecar/cache"
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


async def test_two_sidecars_share_what_they_keep(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, store: Valkey, tmp_path: Path
) -> None:
    """Issue 6, 7: one asks for both; a write at one is known at the other within the stated second."""
    texts = ["old"]

    async def says(exchange: Exchange) -> None:
        exchange.answer(result(text=texts[0]))

    upstream.follow(says)
    tools = [
        {"match": "read", "allow": ["*"], "class": "read", "cache": {"ttl_s": 60}},
        {"match": "write", "allow": ["*"], "class": "write", "forget": ["read"]},
    ]
    (tmp_path / "secret").write_text("s" * 32, encoding="ascii")
    cache = {"shared": True, "secret": f"${{file:{tmp_path / 'secret'}}}"}
    sides = [
        await open_sidecar(
            f"policy.tools={json.dumps(tools)}",
            f"cache={json.dumps(cache)}",
            f"shared_state={json.dumps({'url': store.url, 'timeout_s': 0.5})}",
        )
        for _ in range(2)
    ]
    one, other = [await connect(side.port) for side in sides]

    async def said(client: Client, tool: str) -> bytes:
        client.send(post(tool_call(tool=tool)))
        return (await client.answer()).body

    async with within():
        while MARK not in await said(one, "read") or MARK not in await said(other, "read"):
            pass  # until both have found the store
    seen = len(upstream.seen)
    assert b"old" in await said(one, "read")
    assert b"old" in await said(other, "read")
    assert len(upstream.seen) == seen
    texts[0] = "new"
    await said(one, "write")
    assert b"new" in await said(one, "read")
    async with within(2):
        while b"new" not in await said(other, "read"):
            pass


PASSWORDS = [
    ledger.secret(f"{each}-horse-battery-staple", "the store's password") for each in ("wrong", "correct")
]


@pytest.mark.parametrize("of", ["limits", "kept answers"])
async def test_a_renewed_password_of_the_store_reaches_whoever_uses_it(
    open_sidecar: OpenSidecar, store: Valkey, tmp_path: Path, of: str
) -> None:
    """Hostile: who starts before its secret is mounted. Regression: the cache's own connection was never told."""
    wrong, correct = PASSWORDS
    store.say("CONFIG", "SET", "requirepass", correct)
    file = tmp_path / "password"
    file.write_text(wrong, encoding="utf-8")
    (tmp_path / "secret").write_text(
        ledger.secret(secrets.token_hex(24), "the cache's secret"), encoding="utf-8"
    )
    cache = {"shared": True, "secret": f"${{file:{tmp_path / 'secret'}}}"}
    chosen = settings(store, password=f"${{file:{file}}}")
    if of == "kept answers":
        chosen = [f"cache={json.dumps(cache)}", *chosen[1:]]
    side = await open_sidecar(*chosen)

    def is_said(words: str) -> Callable[[Lines], bool]:
        return lambda seen: any(line["msg"] == words for line in seen.life)

    await side.lines.when(is_said(f"{of} are not shared"))
    file.write_text(correct, encoding="utf-8")
    await side.house.watch.look()
    await side.lines.when(is_said(f"{of} are shared"))
