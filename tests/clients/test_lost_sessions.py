"""A real server is restarted between two calls of a real client, both SDKs on both sides.

Source: issue 7, item 5. How each SDK says that a session is gone, and what each client makes of it, is seen here.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import MCPError
from mcp.client import Client
from mcp_types import TextContent

from proxy.demo.ports import free_ports
from proxy.demo.processes import Child
from tests.integration.house import sidecar
from tests.tools.python_env import mcp1_python

from .callers import Mcp1
from .running import READY_S, STOP_S

SCRIPT = Path(__file__).with_name("plain_server.py")
ANSWER_S = 10
TOOLS = [{"match": "*", "allow": ["*"], "reinitialise": True}]
POLICY = "policy=" + json.dumps({"tools": TOOLS, "methods": {"*": {"allow": ["*"]}}})

Call = Callable[[], Any]


class Server:
    """One that can be restarted on its port."""

    def __init__(self, python: str, logs: Path) -> None:
        self.port = free_ports(1)[0]
        self._command = [python, "-I", str(SCRIPT), str(self.port)]
        self._log = logs / f"plain-{self.port}.log"
        self._child: Child | None = None

    def start(self) -> None:
        self._child = Child("plain", self._command, self._log, stop_s=STOP_S)
        child = self._child.__enter__()
        child.wait_until(lambda: "ready" in child.log.read_text(), "ready", timeout_s=READY_S)

    def restart(self) -> None:
        """The loop stands still meanwhile, and with it everybody but the server."""
        self.stop()
        self.start()

    def stop(self) -> None:
        if self._child is not None:
            self._child.__exit__(None, None, None)
            self._child = None


@pytest.fixture(params=["1.x", "2.x"])
def server(request: pytest.FixtureRequest, logs: Path) -> Iterator[Server]:
    server = Server(str(mcp1_python()) if request.param == "1.x" else sys.executable, logs)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@asynccontextmanager
async def mcp2(url: str) -> AsyncIterator[Call]:
    async with asyncio.timeout(4 * ANSWER_S), Client(url, mode="legacy") as client:

        async def call() -> str:
            async with asyncio.timeout(ANSWER_S):
                (block,) = (await client.call_tool("who", {})).content
            assert isinstance(block, TextContent)
            return block.text

        yield call


@contextmanager
def script() -> Iterator[Mcp1]:
    caller = Mcp1(mcp1_python())
    try:
        yield caller
    finally:
        caller.stop()


@asynccontextmanager
async def mcp1(url: str) -> AsyncIterator[Call]:
    with script() as caller:
        async with caller.connected(url):
            yield lambda: caller.call("who")


CLIENTS = pytest.mark.parametrize("connected", [mcp1, mcp2])


@CLIENTS
async def test_a_client_does_not_notice_that_its_server_was_restarted(server: Server, connected: Any) -> None:
    async with (
        sidecar(f"http://127.0.0.1:{server.port}/mcp", POLICY) as side,
        connected(f"http://127.0.0.1:{side.port}/mcp") as call,
    ):
        before = await call()
        assert await call() == before
        for restarts in (1, 2):
            server.restart()
            after = await call()
            assert after != before
            assert await call() == after
            renewing = side.house.resilience.renewing
            assert renewing is not None
            assert (renewing.renewed, renewing.given_up) == (restarts, 0)


@CLIENTS
async def test_without_the_rule_it_is_told(server: Server, connected: Any) -> None:
    """The test above must be able to fail: it is the rule that makes the difference."""
    async with (
        sidecar(f"http://127.0.0.1:{server.port}/mcp") as side,
        connected(f"http://127.0.0.1:{side.port}/mcp") as call,
    ):
        await call()
        server.restart()
        with pytest.raises((MCPError, RuntimeError), match=r"(?i)session"):
            await call()
