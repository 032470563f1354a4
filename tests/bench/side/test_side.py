"""The comparison compares what it says: equal work, refusals proven, ratios of the right rows. No number is judged."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from tests.bench.report import this_machine
from tests.bench.side.peers import Peer, body_of, must_refuse, setting
from tests.bench.side.report import AIMS, Results, is_met, markdown, row
from tests.bench.side.rounds import ALONE, ENVOY, EVERYTHING, HIT, MAIN, NGINX, STATIC, Measured, divide
from tests.bench.side.wrk import LEGACY, MODERN, SATURATED, TOOL, Asked, Outcome, script
from tests.bench.test_bench import Answers, serving
from tests.conformance.processes import ProcessFailed


def outcome(
    rate: float, p50_us: float = 100, p99_us: float = 900, core: float = 1.0, failed: int = 0
) -> Outcome:
    return Outcome(rate=rate, failed=failed, p50_us=p50_us, p99_us=p99_us, cpu_us=50, core_share=core)


@pytest.mark.parametrize("revision", [LEGACY, MODERN])
@pytest.mark.parametrize("size", [1_024, 65_536])
def test_a_call_is_json_of_its_size(revision: str, size: int) -> None:
    """Issue "As fast as the best": both eras, 1 KB and 64 KB."""
    program = script(Asked(revision=revision, size=size))
    head, rest = re.findall(r"\[==\[(.*?)\]==\]", program, re.DOTALL)
    body = f"{head}100000001{rest}"
    asked = json.loads(body)
    assert len(body) == size
    assert (asked["id"], asked["method"], asked["params"]["name"]) == (1, "tools/call", TOOL)
    assert ("_meta" in asked["params"]) is (revision == MODERN)
    assert ("Mcp-Method" in program) is (revision == MODERN)


def test_unique_calls_differ_and_repeated_ones_do_not() -> None:
    assert "n = n + 1" in script(Asked(unique=True))
    assert "return same" in script(Asked(unique=False))


@pytest.mark.parametrize("size", [1_024, 65_536])
def test_the_answer_is_that_to_the_id_and_of_its_size(size: int) -> None:
    assert len(body_of(size)) == size
    assert json.loads(body_of(size))["id"] == 1


def _saying(answer: bytes) -> Answers:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    return say


LETS_THROUGH = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
REFUSES = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"


async def test_a_peer_that_lets_a_forbidden_tool_through_does_not_count() -> None:
    """Issue "As fast as the best": before timing, every peer that claims policy must refuse one denied tool."""
    async with asyncio.timeout(5), serving(_saying(REFUSES)) as port:
        await must_refuse(Peer(port=port, pids=()), "refuses")
    async with asyncio.timeout(5), serving(_saying(LETS_THROUGH)) as port:
        with pytest.raises(ProcessFailed):
            await must_refuse(Peer(port=port, pids=()), "lets through")


def test_ratios_are_of_the_rows_they_name() -> None:
    """The names are those of the contract: latest.json, `ratios`."""
    rates = {EVERYTHING: 8_000, ENVOY: 16_000, NGINX: 40_000, HIT: 9_000, STATIC: 12_000}
    found = Measured(rows=[row(name, MAIN, [outcome(rate)]) for name, rate in rates.items()])
    found.rows += [
        row("direct", ALONE, [outcome(9, 50, 100)]),
        row(EVERYTHING, ALONE, [outcome(9, 250, 700)]),
    ]
    divide(found)
    assert found.ratios == pytest.approx(
        {
            "full_vs_envoy_mcp": 0.5,
            "full_vs_nginx": 0.2,
            "hit_vs_aiohttp_static": 0.75,
            "added_p50_ms": 0.2,
            "added_p99_ms": 0.6,
        }
    )
    assert [name for name, value in found.ratios.items() if is_met(name, value)] == [
        "hit_vs_aiohttp_static",
        "added_p50_ms",
        "added_p99_ms",
    ]


def test_a_missed_aim_a_lower_bound_and_what_was_left_out_are_said() -> None:
    rows = (
        row("idle peer", "here", [outcome(10, core=SATURATED / 2)]),
        row("busy peer", "here", [outcome(30, failed=2), outcome(10), outcome(20)]),
    )
    results = Results(
        machine=this_machine(),
        quick=True,
        rows=rows,
        ratios={"full_vs_envoy_mcp": 0.5, "ready_s": 0.1},
        left_out=("Envoy: no such package",),
    )
    said = markdown(results)
    assert "| full_vs_envoy_mcp | 0.50 | >= 1 | missed |" in said
    assert "| ready_s | 0.10 | <= 0.6 |  |" in said
    assert "| idle peer | 10 (at least) |" in said
    assert "| busy peer | 20, 2 failed |" in said
    assert said.endswith("Left out: Envoy: no such package\n")


def test_every_ratio_of_the_contract_has_an_aim() -> None:
    assert list(AIMS) == [
        "full_vs_envoy_mcp",
        "full_vs_nginx",
        "hit_vs_aiohttp_static",
        "full_vs_fastmcp",
        "added_p50_ms",
        "added_p99_ms",
        "idle_rss_mb",
        "ready_s",
        "kb_per_idle_stream",
        "full_many_keys_vs_one",
    ]


def test_a_setting_is_written_as_set_takes_it() -> None:
    assert setting("limits", [{"name": "a"}]) == 'limits=[{"name":"a"}]'
