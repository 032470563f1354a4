"""The lane of tests with programs of the system: what is missing is said, and never passes for a success."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system import tools

ROOT = Path(__file__).parents[2]

PROBE = """
import pytest

@pytest.mark.system("prometheus", "promtool")
def test_it_would_start_them(): ...
"""


def run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """One test that needs Prometheus, by the rules of this repository, where `tools` finds nothing beside PATH."""
    (folder / "test_probe.py").write_text(PROBE, encoding="utf-8")
    (folder / "sitecustomize.py").write_text(
        "from tests.system import tools; tools.BESIDE = ()", encoding="utf-8"
    )
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", "--rootdir", ROOT),
            *("-p", "no:cacheprovider", "-p", "tests.conftest", folder / "test_probe.py"),
        ],
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_test_without_its_program_is_skipped_and_the_end_of_the_run_says_so(tmp_path: Path) -> None:
    """Issue 8's helpers rely on it: a developer without Prometheus sees what did not run, and how to get it."""
    done = run(tmp_path, PATH=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert tools.in_words(tools.needed()) in done.stdout, "nothing of the list is in that PATH"
    assert re.fullmatch(r"1 skipped in .*", lines[-1]), "the closing line is the runner's own"


def test_a_test_with_its_programs_runs(tmp_path: Path) -> None:
    for name in ("prometheus", "promtool"):
        (tmp_path / name).write_text("#!/bin/sh\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    done = run(tmp_path, PATH=str(tmp_path))
    assert "missing: prometheus" not in done.stdout
    assert re.fullmatch(r"1 passed in .*", done.stdout.splitlines()[-1])


def test_a_program_that_no_package_brings_is_a_mistake() -> None:
    """Else a test would wait for a program that `.ci/run` never installs."""
    with pytest.raises(KeyError):
        tools.missing(["nobody-lists-this"])


def test_programs_outside_of_a_users_path_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Debian keeps servers in /usr/sbin."""
    server = tmp_path / "prometheus"
    server.write_text("#!/bin/sh\n", encoding="utf-8")
    server.chmod(0o755)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(tools, "BESIDE", (str(tmp_path),))
    assert tools.path("prometheus") == str(server)


def test_the_list_has_a_package_for_each_program() -> None:
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9.+-]+", package) for package in tools.needed().values())
