"""Where are the wheels of a lock? In a folder that was filled once, from which they are installed as often as need be.

Of every package pip reads the page of an index with all versions for all machines, which takes ten times as long as to
install the one it looks for.

In: a lock file with hashes. Out: ``.tools/wheels-<fingerprint>`` under the repository root, complete or absent, never
half. A second call finds it and starts nothing.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import sysconfig
from functools import partial
from pathlib import Path

from tests.tools.folders import made_once
from tests.tools.node import TOOLS, ToolsUnavailable

FETCH_S = 300
"""For 30 packages; 10 s with a quick index."""


def wheels_of(lock: Path, tools: Path = TOOLS) -> Path:
    """The folder with all that a lock names for this Python and machine, fetched first where it is missing.

    Two processes may ask at once: one fetches, the other waits for it. Raises ToolsUnavailable.
    """
    fetched_for = f"{sys.implementation.cache_tag} {sysconfig.get_platform()}"
    fingerprint = hashlib.sha256(lock.read_bytes() + fetched_for.encode()).hexdigest()[:12]
    return made_once(tools / f"wheels-{fingerprint}", partial(_fetch, lock))


def _fetch(lock: Path, folder: Path) -> None:
    command = [sys.executable, "-I", "-m", "pip", "download", "--quiet", "--no-input"]
    command += ["--disable-pip-version-check", "--only-binary", ":all:", "--require-hashes"]
    command += ["--requirement", str(lock), "--dest", str(folder)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=FETCH_S, check=False
        )
        if done.returncode != 0:
            raise ToolsUnavailable(f"`pip download` of {lock} failed:\n{done.stderr[-2000:]}")
    except subprocess.TimeoutExpired:
        raise ToolsUnavailable(f"`pip download` of {lock} took longer than {FETCH_S} s") from None
