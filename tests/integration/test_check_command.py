"""`mcp-sidecar check` as a process: what an operator, a CI job or an init container sees."""

import os
import subprocess
import sys
from pathlib import Path

from tests.unit.test_settings import TEN_LINES, TEN_MISTAKES

ROOT = Path(__file__).parents[2]


def run(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run one command of the checkout, without settings from our own environment."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MCP_")}
    return subprocess.run(
        [sys.executable, "-m", "proxy", *words],
        cwd=ROOT,
        env={**clean, **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_ten_mistakes_are_ten_lines_and_exit_2(tmp_path: Path) -> None:
    """design sections 2 and 3: all mistakes at once, each with file:line:column, and exit code 2."""
    file = tmp_path / "config.yaml"
    file.write_text(TEN_MISTAKES, encoding="utf-8")
    done = run("check", "--config", str(file))
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.replace(str(file), "F").splitlines() == TEN_LINES
    assert "hunter2" not in done.stdout


def test_a_run_with_a_bad_file_exits_2_and_tells_the_same(tmp_path: Path) -> None:
    """CFG: start: exit 2 with file:line and key."""
    file = tmp_path / "config.yaml"
    file.write_text(TEN_MISTAKES, encoding="utf-8")
    done = run("run", "--config", str(file))
    assert done.returncode == 2
    told = (done.stdout + done.stderr).replace(str(file), "F").splitlines()
    assert [line for line in told if line.startswith("F:")] == TEN_LINES


def test_the_shipped_example_is_ok() -> None:
    """policies/observe.yaml, named as its first lines say."""
    done = run("check", "--config", "policies/observe.yaml", MCP_UPSTREAM_URL="http://127.0.0.1:1/mcp")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "policies/observe.yaml: ok"


def test_the_command_line_and_the_environment_override_the_file() -> None:
    """Precedence as seen from outside; a mistake names the override, not the file."""
    done = run(
        *("check", "--config", "policies/observe.yaml", "--set", "drain_s=soon", "--listen", "127.0.0.1:1"),
        MCP_SIDECAR_LISTEN__ADDRESS="nowhere",
        MCP_SIDECAR_OPERATIONS__ADDRESS="nowhere",
    )
    assert done.returncode == 2
    assert [line.partition(": is ")[0] for line in done.stdout.splitlines()] == [
        "environment MCP_SIDECAR_OPERATIONS__ADDRESS: operations.address",
        "--set drain_s: drain_s",
    ]
