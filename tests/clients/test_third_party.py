"""A server we did not write: PyPI mcp-server-time behind PyPI mcp-proxy, which knows older revisions only."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from mcp.client import Client
from mcp.client.sse import sse_client
from mcp_types import CallToolResult, TextContent

from proxy.demo import drive
from proxy.demo.environment import python_environment
from proxy.demo.ports import accepts, free_address
from proxy.demo.processes import Child
from proxy.demo.start import REQUIREMENTS, third_party
from tests.tools.python_env import TOOLS

from . import running

ANSWER_S = 10
"""For everything one client does: milliseconds when it works."""


@pytest.fixture(scope="module")
def demo_python() -> Path:
    """The demo's own environment, in the place where its own tests keep it."""
    return python_environment(TOOLS / "mcp-sidecar", REQUIREMENTS)


@pytest.fixture(scope="module")
def time_server(demo_python: Path, logs: Path) -> Iterator[str]:
    """The server; yields its origin."""
    address = free_address("127.0.0.1:0")
    with Child("time", third_party(demo_python, address), logs / "time.log", stop_s=2) as child:
        child.wait_until(lambda: accepts(address), "listening", timeout_s=running.READY_S)
        yield f"http://{address}"


@pytest.fixture(scope="module", params=["/mcp", "/sse"])
def time_url(request: pytest.FixtureRequest, route: str, time_server: str, logs: Path) -> Iterator[str]:
    """Both of the server's endpoints, on the route of the test."""
    url = f"{time_server}{request.param}"
    if route == "direct":
        yield url
    else:
        with running.sidecar(url, logs) as through:
            yield through


def time_zone_of(result: CallToolResult) -> str:
    (block,) = result.content
    assert isinstance(block, TextContent)
    return str(json.loads(block.text)["timezone"])


async def test_a_modern_client_falls_back_to_what_the_server_speaks(time_url: str) -> None:
    """The probe's refusal is the server's and must arrive as it is (2026-07-28 basic/versioning)."""
    server = sse_client(time_url) if time_url.endswith("/sse") else time_url
    mode = "legacy" if time_url.endswith("/sse") else "auto"

    async with asyncio.timeout(ANSWER_S), Client(server, mode=mode) as client:
        version = client.protocol_version
        names = {tool.name for tool in (await client.list_tools()).tools}
        result = await client.call_tool("get_current_time", {"timezone": "Europe/Zurich"})
        failed = await client.call_tool("get_current_time", {"timezone": "Mars/Olympus_Mons"})

    assert version == "2025-11-25"
    assert names == {"get_current_time", "convert_time"}
    assert time_zone_of(result) == "Europe/Zurich"
    assert failed.is_error is True


@pytest.mark.parametrize("time_url", ["/mcp"], indirect=True)
async def test_the_older_client_takes_every_step_of_the_demo(time_url: str, demo_python: Path) -> None:
    """Own promise: what `mcp-sidecar demo` shows holds without us as well."""
    client = await asyncio.create_subprocess_exec(
        *(demo_python, "-I", Path(drive.__file__), time_url), stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(2 * ANSWER_S):
        printed = (await client.communicate())[0].decode()

    steps = [json.loads(line) for line in printed.splitlines()]
    assert [(step["step"], step["ok"]) for step in steps] == [
        ("initialize", True),
        ("list tools", True),
        ("call a tool", True),
        ("a call that fails", True),
        ("ping", True),
    ]
