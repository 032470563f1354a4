"""A real server that hangs once, behind a sidecar that sends a slow read a second time: real clients of 2026-07-28.

Source: issue 7, item 2; basic/patterns/cancellation of 2026-07-28 (closing the response stream is the cancellation).
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.house import sidecar

from .plain import Server, command_of
from .policy_clients import Clients

READ = {"match": "slow_once", "allow": ["*"], "class": "read", "idempotent": True, "hedge_after_s": 0.05}
POLICY = "policy=" + json.dumps(
    {"tools": [READ, {"match": "*", "allow": ["*"]}], "methods": {"*": {"allow": ["*"]}}}
)


@pytest.fixture
def server(logs: Path) -> Iterator[Server]:
    server = Server(command_of("mcp 2.x"), logs)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.mark.parametrize("setup", ["mcp 2.3 auto", "ts 2.4 auto"])
async def test_a_call_that_hangs_is_answered_by_a_second_one(
    server: Server, clients: Clients, setup: str
) -> None:
    """And the server knows that nobody waits for the first any more: it would work for nobody."""
    async with (
        sidecar(server.url, POLICY) as side,
        clients.connected(setup, f"http://127.0.0.1:{side.port}/mcp") as client,
    ):
        assert (await client.call("slow_once")).text == "call 2"
        assert (await client.call("was_left")).text == "left"
        hedging = side.house.rooms.resilience.hedging
        assert hedging is not None
        assert (hedging.sent, hedging.won, hedging.under_way) == (1, 1, 0)
