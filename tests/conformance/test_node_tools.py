"""Node and the npm packages are installed once, whole, and by nobody else at the same time.

A small script stands in for npm: it counts its calls and leaves behind what the case needs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.node import HERE, ToolsUnavailable, node_tools

GOOD = """
echo call >> "$COUNT"
mkdir -p node_modules/.bin
printf '#!/bin/sh\\necho v22.1.0\\n' > node_modules/.bin/node
chmod +x node_modules/.bin/node
"""
OLD = GOOD.replace("v22.1.0", "v20.9.0")
BARE = "mkdir -p node_modules/.bin"
FAILING = "echo 'no such package' >&2; mkdir node_modules; exit 7"


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    folder = tmp_path / "manifests"
    folder.mkdir()
    for name in ("package.json", "package-lock.json"):
        (folder / name).write_text("{}", encoding="utf-8")
    return folder


def npm_is(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put an npm that runs ``script`` first on PATH; return the file it counts its calls in."""
    folder = tmp_path / "bin"
    folder.mkdir()
    npm = folder / "npm"
    npm.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    npm.chmod(0o755)
    count = tmp_path / "count"
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("COUNT", str(count))
    return count


def test_a_second_call_installs_nothing(
    tmp_path: Path, manifests: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = npm_is(GOOD, tmp_path, monkeypatch)
    first = node_tools(tmp_path / "tools", manifests)
    assert node_tools(tmp_path / "tools", manifests) == first
    assert first.node.is_file()
    assert count.read_text(encoding="utf-8") == "call\n"


def test_another_lock_is_another_install(
    tmp_path: Path, manifests: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = npm_is(GOOD, tmp_path, monkeypatch)
    first = node_tools(tmp_path / "tools", manifests)
    (manifests / "package-lock.json").write_text('{"other": 1}', encoding="utf-8")
    assert node_tools(tmp_path / "tools", manifests).root != first.root
    assert count.read_text(encoding="utf-8") == "call\ncall\n"


def test_two_processes_at_once_install_once(
    tmp_path: Path, manifests: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is held inside npm by two pipes; the second, which npm would not hold, must wait for it."""
    inside, go = tmp_path / "inside", tmp_path / "go"
    os.mkfifo(inside)
    os.mkfifo(go)
    held = f'if mkdir "{tmp_path}/first"; then echo in > "{inside}"; cat "{go}"; fi'
    count = npm_is(held + GOOD, tmp_path, monkeypatch)
    program = (
        "import sys; from pathlib import Path; from tests.tools.node import node_tools; "
        "print(node_tools(*map(Path, sys.argv[1:])).root)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "tools"), str(manifests)]
    started = []
    try:
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert inside.read_text(encoding="utf-8") == "in\n"
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        with pytest.raises(subprocess.TimeoutExpired):
            started[1].wait(timeout=1)
        go.write_text("go", encoding="utf-8")
        first, second = (process.communicate(timeout=20)[0] for process in started)
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert first == second != ""
    assert count.read_text(encoding="utf-8") == "call\n"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        pytest.param(FAILING, "exit code 7:\nno such package", id="npm fails"),
        pytest.param(BARE, "the lock holds no Node for", id="no Node for this platform"),
        pytest.param(OLD, "Node 22 or newer is needed, the install gave 'v20.9.0'", id="Node too old"),
    ],
)
def test_a_failed_install_says_why_and_leaves_nothing(
    tmp_path: Path, manifests: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    npm_is(script, tmp_path, monkeypatch)
    with pytest.raises(ToolsUnavailable) as failed:
        node_tools(tmp_path / "tools", manifests)
    assert said in str(failed.value)
    assert [entry.name for entry in (tmp_path / "tools").iterdir() if entry.is_dir()] == []


def test_without_npm_the_remedy_is_named(
    tmp_path: Path, manifests: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolsUnavailable, match="npm was not found on PATH: install Node"):
        node_tools(tmp_path / "tools", manifests)


def test_the_committed_lock_names_no_registry_and_checks_every_package() -> None:
    """A lock with addresses would send every machine to the registry of whoever wrote it."""
    packages = json.loads((HERE / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    installed = {name: entry for name, entry in packages.items() if name}
    assert len(installed) > 100
    assert [name for name, entry in installed.items() if "resolved" in entry] == []
    assert [name for name, entry in installed.items() if not entry["integrity"].startswith("sha512-")] == []
    assert [name for name, entry in installed.items() if entry.get("hasInstallScript")] == []
