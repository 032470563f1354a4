"""nginx before the sidecar and behind it, as an ingress and as a server; and wrk, which `make bench` asks with."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest

from tests.bench.processes import sidecar
from tests.bench.side import peers, wrk
from tests.bench.side.calls import Asked
from tests.conformance.processes import child, tail
from tests.integration.client import connected
from tests.integration.waiting import within
from tests.integration.wire import Answer, post, tool_call
from tests.system import tools

RULES = {"tools": [{"match": "search_*", "allow": ["*"]}, {"match": "delete_*", "allow": ["admin"]}]}
LONGEST_S = 60.0
"""To start and to answer, on a busy machine."""


async def called(port: int, tool: str) -> Answer:
    async with connected(port) as client:
        return await client.asked(post(tool_call(tool=tool)))


@pytest.fixture(autouse=True)
def _found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian's users do not have the folder of nginx in their PATH."""
    monkeypatch.setenv("PATH", os.pathsep.join((os.environ["PATH"], *tools.BESIDE)))


@pytest.mark.system("nginx")
async def test_calls_pass_between_two_nginx_and_forbidden_ones_do_not(
    tmp_path: Path,
) -> None:
    """Issue 9: a lane of programs of the system; nginx is what most clusters have before a sidecar. An answer of the
    server comes through both as it is, and what `make bench` compares us with starts here, too."""
    settings = f"policy={msgspec.json.encode(RULES).decode()}", 'listen.allowed_hosts=["u"]'
    async with (
        within(LONGEST_S),
        peers.server(tmp_path) as server,
        sidecar(server.port, tmp_path, *settings) as proxy,
        peers.nginx_proxy(proxy.port, tmp_path) as ingress,
    ):
        direct = await called(server.port, "search_documents")
        passed = await called(ingress.port, "search_documents")
        refused = await called(ingress.port, "delete_everything")
        by_its_name = await called(proxy.port, "search_documents")
    assert (passed.status, passed.body) == (200, direct.body)
    assert refused.status == 200
    said = json.loads(refused.body)["result"]
    assert said["_meta"]["dev.mcp-sidecar/refusal"]["reason"] == "not_allowed"
    assert by_its_name.status == 421, "only the ingress is known by that name: it was asked"


@pytest.mark.system("nginx", "wrk")
async def test_wrk_asks_as_the_benchmark_says(tmp_path: Path) -> None:
    """Its Lua program runs, and tells the numbers that are read."""
    script, log = tmp_path / "call.lua", tmp_path / "wrk.log"
    script.write_text(wrk.script(Asked()), encoding="utf-8")
    async with within(LONGEST_S), peers.server(tmp_path) as server:
        url = f"http://127.0.0.1:{server.port}/mcp"
        command = [tools.path("wrk"), "-t1", "-c2", "-d1s", "-s", str(script), url]
        async with child(command, log=log, piped=True) as process:
            assert process.stdout is not None
            lines = (await process.stdout.read()).splitlines()
    told = [json.loads(line) for line in lines if line.startswith(b"{")]
    assert told, tail(log)
    assert told[-1]["requests"] > 0
    assert told[-1]["bad"] == 0
    assert told[-1].keys() >= {"duration_us", "p50_us", "p99_us"}
