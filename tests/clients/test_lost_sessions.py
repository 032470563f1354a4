"""A real server is restarted between two calls of a real client: three SDKs on both sides.

Source: issue 7, item 5. How each SDK says that a session is gone, and what each client makes of it, is seen here.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.house import sidecar

from .plain import Server, command_of
from .policy_clients import Clients, Failed

TOOLS = [{"match": "*", "allow": ["*"], "reinitialise": True}]
POLICY = "policy=" + json.dumps({"tools": TOOLS, "methods": {"*": {"allow": ["*"]}}})

CLIENTS = pytest.mark.parametrize("setup", ["mcp 1.30", "mcp 2.3 legacy", "ts 1.32", "ts 2.4 legacy"])


@pytest.fixture(params=["mcp 1.x", "mcp 2.x", "ts 1.x"])
def server(request: pytest.FixtureRequest, logs: Path) -> Iterator[Server]:
    server = Server(command_of(str(request.param)), logs)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@CLIENTS
async def test_a_client_does_not_notice_that_its_server_was_restarted(
    server: Server, clients: Clients, setup: str
) -> None:
    async with (
        sidecar(server.url, POLICY) as side,
        clients.connected(setup, f"http://127.0.0.1:{side.port}/mcp") as client,
    ):
        before = await client.call("who")
        assert await client.call("who") == before
        server.restart()
        after = await client.call("who")
        assert after != before
        assert await client.call("who") == after
        renewing = side.house.rooms.resilience.renewing
        assert renewing is not None
        assert (renewing.renewed, renewing.given_up) == (1, 0)


@CLIENTS
@pytest.mark.parametrize("server", ["ts 1.x"], indirect=True)
async def test_without_the_rule_it_is_told(server: Server, clients: Clients, setup: str) -> None:
    """The test above must be able to fail: it is the rule that makes the difference."""
    async with (
        sidecar(server.url) as side,
        clients.connected(setup, f"http://127.0.0.1:{side.port}/mcp") as client,
    ):
        await client.call("who")
        server.restart()
        with pytest.raises(Failed) as failed:
            await client.call("who")
        assert "session" in failed.value.message.lower()
