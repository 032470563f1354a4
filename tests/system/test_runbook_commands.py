"""What the runbook tells somebody to type at night works: each look into the log, on the log of a bad half hour."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.system import tools
from tests.unit.monitoring.names import OURS
from tests.unit.monitoring.rules import PAGE
from tests.unit.monitoring.world import series

TEXT = PAGE.read_text(encoding="utf-8")
LOOKS = re.findall(r"(?m)^\$ (sidecar-log \|.*)$", TEXT)
NUMBERS = re.findall(r"(?m)^\$ (curl -s \S+/metrics \|.*)$", TEXT)


def call(**fields: object) -> dict[str, object]:
    """A line about a call, in the form `telemetry/logs.py` writes."""
    usual: dict[str, Any] = {
        "time": "2026-11-21T23:51:10.377+00:00",
        "level": "info",
        "msg": "tool call",
        "request_id": "3e499f339d83-1",
        "tenant": "acme",
        "principal": "ci",
        "method": "tools/call",
        "tool": "search_x",
        "outcome": "ok",
        "ending": "complete",
        "duration_s": 0.17,
        "attempts": 1,
    }
    return usual | fields


def life(msg: str, **fields: object) -> dict[str, object]:
    return {"time": "2026-11-21T23:51:12.627+00:00", "level": "warning", "msg": msg, **fields}


LOG = (
    call(),
    call(tool="export_all", waited_s=0.2),
    call(tool="watch"),
    call(level="warning", outcome="upstream_error", reason="upstream_unreachable"),
    call(level="warning", outcome="outcome_unknown", reason="outcome_unknown"),
    call(outcome="overloaded", reason="overloaded", why="It waited for its turn."),
    call(outcome="denied", reason="not_allowed", tool="delete_x"),
    call(outcome="unauthenticated", reason="bad_credential", why="The signature of the token is not valid."),
    call(
        outcome="unauthenticated", reason="idp_unavailable", why="The proxy could not check the credential."
    ),
    call(outcome="rate_limited", reason="quota_spent"),
    life("settings not reloaded", level="error", mistakes=["settings.yaml:13:1: polic: is not known"]),
    life("settings reloaded"),
    life("audit cannot be written", level="error", why="No space left on device"),
    life("memory", state="degraded", used_bytes=331_000_000, limit_bytes=402_653_184),
    life("limits are not shared", why="the store cannot be reached"),
    life("loop was blocked", lag_s=0.4, cpu_s=0.01, times=9),
    life(
        "tool is not as it was approved",
        tool="fetch",
        state="changed",
        changes=["description"],
        flags=[],
        action="block",
    ),
)


def run(look: str, command: str, says: str, folder: Path) -> str:
    """What a pipeline shows where its first command says this."""
    file = folder / "said"
    file.write_text(says, encoding="utf-8")
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f'{command}() {{ cat "$0"; }}\n{look}', file],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


@pytest.mark.system("jq")
@pytest.mark.parametrize("look", LOOKS)
def test_a_look_into_the_log_shows_what_it_is_for(look: str, tmp_path: Path) -> None:
    """Issue 8, point 6: a runbook section per alert. A filter with a slip shows nothing, which looks like peace."""
    shown = run(look, "sidecar-log", "".join(f"{json.dumps(line)}\n" for line in LOG), tmp_path)
    assert shown not in ("", "null")


@pytest.mark.parametrize("look", NUMBERS)
def test_a_look_at_the_metrics_shows_what_it_is_for(look: str, tmp_path: Path) -> None:
    page = [f"{line} 1.0\n" for name, metric in OURS.items() for line, _ in series(name, metric, scraped="")]
    assert run(look, "curl", "".join(page), tmp_path)


def test_the_runbook_looks_at_log_and_metrics() -> None:
    """Else the tests above would be about nothing."""
    assert len(LOOKS) > 15
    assert len(NUMBERS) > 10


@pytest.mark.system("promtool")
def test_prometheus_takes_the_scrape_that_is_shown(tmp_path: Path) -> None:
    """And the name of its job is one that the alerts select."""
    (shown,) = re.findall(r"(?ms)^```yaml\n(.*?)^```$", TEXT)
    file = tmp_path / "prometheus.yml"
    file.write_text(shown, encoding="utf-8")
    done = subprocess.run(
        [tools.path("promtool"), "check", "config", file], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (scrape,) = yaml.safe_load(shown)["scrape_configs"]
    assert re.fullmatch(".*mcp-sidecar.*", scrape["job_name"])
