"""A real Prometheus scrapes a real sidecar, and is asked what it has seen. Issue 8, "done when"."""

from __future__ import annotations

import asyncio
import json
import signal
from asyncio import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from proxy.demo.ports import free_ports
from tests.integration.conftest import (
    Connect,
    OpenSidecar,
    _closing,
    connect,
    open_sidecar,
    pytest_asyncio_loop_factories,
    upstream,
)
from tests.integration.house import probe
from tests.integration.upstream import Exchange, Upstream
from tests.integration.waiting import within
from tests.integration.wire import post, result, tool_call
from tests.system import tools

__all__ = ["_closing", "connect", "open_sidecar", "pytest_asyncio_loop_factories", "upstream"]  # fixtures

LONGEST_S = 60.0
"""To start, to scrape and to be asked, on a busy machine."""


class Prometheus:
    """A running one, and its API."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def ask(self, query: str) -> list[tuple[Mapping[str, str], float]]:
        """Every series that an expression gives now, with its labels."""
        answer = await probe(self.port, f"/api/v1/query?query={quote(query)}")
        said = json.loads(answer.body)
        assert said["status"] == "success", said
        return [(each["metric"], float(each["value"][1])) for each in said["data"]["result"]]

    async def sees(self, query: str, value: float) -> Mapping[str, str]:
        """Wait until an expression gives one series with this value. Its labels."""
        found: object = None
        try:
            async with within(LONGEST_S):
                while True:
                    found = await self.ask(query)
                    if len(found) == 1 and found[0][1] == value:
                        return found[0][0]
                    await asyncio.sleep(0.05)  # it is another process, which tells nobody when it has scraped
        except TimeoutError:
            raise AssertionError(f"{query} is {found}") from None


@asynccontextmanager
async def prometheus(folder: Path, target: int) -> AsyncIterator[Prometheus]:
    """One that scrapes this port of ours twice a second."""
    config = {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"},
        "scrape_configs": [
            {"job_name": "sidecar", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]},
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")
    (port,) = free_ports(1)
    process = await asyncio.create_subprocess_exec(
        tools.path("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    said: list[bytes] = []
    try:
        async with within(LONGEST_S):
            while b"Server is ready" not in b"".join(said[-1:]):
                line = await process.stderr.readline()
                assert line, b"".join(said).decode()
                said.append(line)
        drain = asyncio.get_running_loop().create_task(process.stderr.read())
        yield Prometheus(port)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()
    await drain


@pytest.mark.slow
@pytest.mark.system("prometheus")
async def test_a_real_prometheus_sees_what_happened(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, tmp_path: Path
) -> None:
    """Counters, gauges and histograms, in the format that Prometheus itself asks for."""
    side = await open_sidecar(
        'policy.tools=[{"match": "echo", "allow": ["*"]}, {"match": "no", "deny": ["*"], "id": "never"}]'
    )

    async def serve(exchange: Exchange) -> None:
        exchange.answer(result())

    upstream.follow(serve)
    client = await connect(side.port)
    for tool in ("echo", "echo", "echo", "no", "made-up"):
        client.send(post(tool_call(tool=tool)))
        await client.answer()
    async with prometheus(tmp_path, side.operations) as server:
        labels = await server.sees('tool_calls_total{tool="echo",status="ok"}', 3)
        assert labels["tenant"] == "local"
        await server.sees('tool_calls_total{tool="no",status="denied"}', 1)
        await server.sees('policy_denied_total{rule_id="never"}', 1)
        await server.sees('tool_latency_seconds_count{tool="echo"}', 3)
        await server.sees('tool_latency_seconds_bucket{tool="echo",le="+Inf"}', 3)
        await server.sees("sum(tool_calls_total)", 5)
        await server.sees("config_last_reload_successful", 1)
        await server.sees("breaker_state", 0)
        await server.sees('up{job="sidecar"}', 1)
        await server.sees("count(process_resident_memory_bytes > 0)", 1)
        assert "made-up" not in str(await server.ask("tool_calls_total"))
        # What it stands for: a series of each metric, and none too many.
        counted = await server.ask('topk(1, count by (__name__) ({job="sidecar"}))')
        assert counted[0][1] <= 1_000
        client.send(post(tool_call(tool="echo")))
        await client.answer()
        await server.sees('tool_calls_total{tool="echo",status="ok"}', 4)
