"""The comparison compares what it says: equal work, refusals proven, ratios of the right rows. No number is judged."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from tests.bench.arrivals import LOST, PASSED, Ran, Said
from tests.bench.load import WARM_UP_S
from tests.bench.report import this_machine
from tests.bench.side import interpreter
from tests.bench.side.calls import LEGACY, MODERN, TOOL, Asked, body_of
from tests.bench.side.report import AIMS, DIRECT, Results, Row, is_met, late, markdown, row, summary
from tests.bench.side.rounds import Measured
from tests.bench.side.sidecars import setting
from tests.bench.side.situations import ALONE, ENVOY, EVERYTHING, HIT, MAIN, NGINX, STATIC, divide
from tests.bench.side.wrk import SATURATED, Outcome, script


def outcome(
    rate: float,
    p50_us: float = 100,
    p99_us: float = 900,
    core: float = 1.0,
    failed: int = 0,
    rss_mb: float = 20,
) -> Outcome:
    return Outcome(
        rate=rate, failed=failed, p50_us=p50_us, p99_us=p99_us, cpu_us=50, core_share=core, rss_mb=rss_mb
    )


def measured(peer: str, situation: str, *outcomes: Outcome) -> Row:
    return row(peer, situation, outcomes, idle_mb=10)


def ran(*took_ms: float, what: str = PASSED, cpu_s: float = 0.5) -> Ran:
    """Calls that took so long, a second after the first, which was slow because all was cold."""
    cold = Said(10, 10, 11, PASSED)
    later = [Said(10 + 2 * WARM_UP_S, 12, 10 + 2 * WARM_UP_S + each / 1e3, what) for each in took_ms]
    return Ran(said=[cold, *later], cpu_s=cpu_s, short_of_connections=1)


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


def test_a_machine_without_a_python_of_its_system_measures_with_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Own promise: one that is too old, or is none, is passed by; whoever is there already stays."""
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n", encoding="ascii")
    old.chmod(0o755)
    monkeypatch.setattr(interpreter, "SYSTEMS", (tmp_path / "none", old))
    assert interpreter.optimised() is None
    interpreter.go_on_with(Path(sys.prefix, "bin", "python"), "nothing.of.that.name")


def test_unique_calls_differ_and_repeated_ones_do_not() -> None:
    assert "n = n + 1" in script(Asked(unique=True))
    assert "return same" in script(Asked(unique=False))


@pytest.mark.parametrize("size", [1_024, 65_536])
def test_the_answer_is_that_to_the_id_and_of_its_size(size: int) -> None:
    assert len(body_of(size)) == size
    assert json.loads(body_of(size))["id"] == 1


def test_only_peers_that_can_say_no_with_200_have_their_answers_read() -> None:
    """Reading costs the load, whose core proxies need to be saturated; who only passes on refuses by status."""
    assert "response = function" in script(Asked(), reads=True)
    assert "response = function" not in script(Asked())


def test_ratios_are_of_the_rows_they_name() -> None:
    """The names are those of the contract: latest.json, `ratios`."""
    rates = {EVERYTHING: 8_000, ENVOY: 16_000, NGINX: 40_000, HIT: 9_000, STATIC: 12_000}
    found = Measured(rows=[measured(name, MAIN, outcome(rate)) for name, rate in rates.items()])
    found.rows += [
        measured("direct", ALONE, outcome(9, 50, 100)),
        measured(EVERYTHING, ALONE, outcome(9, 250, 700)),
    ]
    divide(found)
    assert found.bounds == {}
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


@pytest.mark.parametrize(
    ("ours", "theirs", "bound"),
    [(1.0, 1.0, ""), (1.0, 0.5, "at most"), (0.5, 1.0, "at least"), (0.5, 0.5, "about")],
)
def test_a_ratio_of_a_core_that_had_more_to_give_is_a_bound(ours: float, theirs: float, bound: str) -> None:
    """Issue "As fast as the best": the proxy's core must be the saturated one."""
    found = Measured(
        rows=[
            measured(EVERYTHING, MAIN, outcome(10, core=ours)),
            measured(NGINX, MAIN, outcome(20, core=theirs)),
        ]
    )
    divide(found)
    assert found.ratios == {"full_vs_nginx": 0.5}
    assert found.bounds == ({"full_vs_nginx": bound} if bound else {})


def test_events_are_counted_and_streams_are_timed() -> None:
    """Issue "As fast as the best": events a second, and CPU of an event."""
    by_events = outcome(100, p50_us=7).of_events(20)
    assert (by_events.rate, by_events.cpu_us, by_events.p50_us) == (2_000, 2.5, 7)


def test_lateness_is_counted_from_the_moment_calls_were_due() -> None:
    """Issue "As fast as the best": latency at a fixed offered load; no coordinated omission, nothing cold."""
    found = late("a", "here", [ran(*range(1, 1_001)), ran(*range(2, 1_002)), ran(*range(3, 1_003))], 2.0)
    assert (found.failed, found.queued, found.caller_share) == (0, 3, 0.25)
    assert [found.p50_us, found.p95_us, found.p99_us, found.p999_us] == pytest.approx(
        [502_000, 952_000, 992_000, 1_001_000]
    )
    assert late("a", "here", [ran(1, 2, what=LOST), ran(3)], 2.0).failed == 2


def test_a_missed_aim_a_lower_bound_and_what_was_left_out_are_said() -> None:
    rows = (
        measured("idle peer", "here", outcome(10, core=SATURATED / 2)),
        measured("busy peer", "here", outcome(30, failed=2, rss_mb=25), outcome(10), outcome(20)),
    )
    results = Results(
        machine=this_machine(),
        quick=True,
        rows=rows,
        late=(late(DIRECT, "there", [ran(1)], 1), late("busy peer", "there", [ran(3)], 1)),
        ratios={"full_vs_envoy_mcp": 0.5, "ready_s": 0.1},
        bounds={"full_vs_envoy_mcp": "at most"},
        left_out=("Envoy: no such\npackage",),
    )
    said = markdown(results)
    assert "| full_vs_envoy_mcp | at most 0.50 | >= 1 | missed |" in said
    assert "| ready_s | 0.10 | <= 0.6 |  |" in said
    assert "| idle peer | 10 (at least) |" in said
    assert "| busy peer | 20, 2 failed | 50 | 0.10 | 0.90 | 10 | 25 |" in said
    assert "| direct | 1.00 | 1.00 | 1.00 | 1.00 |" in said
    assert "| busy peer | 3.00 (+2.00) | 3.00 (+2.00) | 3.00 (+2.00) | 3.00 (+2.00) |" in said
    assert said.startswith(summary(results))
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
