"""Which Node runs the official conformance suite? One of our own, installed from the committed lock.

The suite needs Node 22 (it calls ``fs.globSync``), machines often carry an older one, so the binary comes
from npm too: the ``node-<platform>`` packages hold it as a plain file. The package called ``node`` would
fetch the same file from an install script that no lock covers; with the platform packages every byte is
checked against ``package-lock.json`` and no script runs.

In: ``package.json`` and ``package-lock.json`` beside this file. Out: ``.tools/node-<hash of the lock>`` under
the repository root, complete or absent, never half. A second call finds it and starts nothing.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.tools.folders import made_once

HERE = Path(__file__).parent
TOOLS = HERE.parents[1] / ".tools"

INSTALL_TIMEOUT_S = 300
"""About 15 s with a quick registry; five minutes is for a slow one, not for a dead one."""

OLDEST_NODE = 22


class ToolsUnavailable(RuntimeError):
    """The tools could not be installed; the text says what is missing and what to do."""


@dataclass(frozen=True)
class NodeTools:
    """An installed set of npm packages and the Node that runs them."""

    node: Path
    """The Node binary; run every script with it, never with the machine's own."""
    bin: Path
    """The folder with one entry per command, such as ``conformance``."""
    root: Path
    """The folder that holds ``node_modules``."""


def node_tools(tools: Path = TOOLS, manifests: Path = HERE) -> NodeTools:
    """Return the tools, installing them first where they are missing.

    ``tools`` is the folder to install under, ``manifests`` the one with package.json and package-lock.json.
    Two processes may ask at once: one installs, the other waits for it.

    Raises:
        ToolsUnavailable: npm is missing, the install failed, or there is no Node for this platform.
    """
    lock = (manifests / "package-lock.json").read_bytes()
    root = tools / f"node-{hashlib.sha256(lock).hexdigest()[:12]}"
    return _describe(made_once(root, partial(_install, manifests)))


def _describe(root: Path) -> NodeTools:
    commands = root / "node_modules" / ".bin"
    return NodeTools(node=commands / "node", bin=commands, root=root)


def _install(manifests: Path, folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise ToolsUnavailable("npm was not found on PATH: install Node.js with npm (any version from 18 on)")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(manifests / name, folder / name)
    _npm_ci(npm, folder)
    _demand_node(_describe(folder).node)


def _npm_ci(npm: str, folder: Path) -> None:
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT_S,
            env={**os.environ, "NPM_CONFIG_UPDATE_NOTIFIER": "false"},
        )
    except subprocess.TimeoutExpired:
        raise ToolsUnavailable(
            f"`npm ci` took longer than {INSTALL_TIMEOUT_S} s: is the npm registry reachable?"
        ) from None
    if done.returncode != 0:
        raise ToolsUnavailable(f"`npm ci` failed with exit code {done.returncode}:\n{done.stderr[-2000:]}")


def _demand_node(node: Path) -> None:
    """Refuse an install without a Node that runs: npm skips packages for other platforms in silence."""
    here = f"{platform.system()} {platform.machine()}"
    try:
        done = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=30)
    except OSError as error:
        raise ToolsUnavailable(
            f"the lock holds no Node for {here}: add its package to tests/tools/package.json"
        ) from error
    version = done.stdout.strip()
    major = version.removeprefix("v").split(".")[0]
    if done.returncode != 0 or not major.isdigit() or int(major) < OLDEST_NODE:
        raise ToolsUnavailable(f"{here}: Node {OLDEST_NODE} or newer is needed, the install gave {version!r}")
