"""On which Python is everything measured? On one that was built as the image's is, where this machine has one.

Official images and distributions build Python with profiles and across modules (PGO, LTO); pyenv and a plain `make` do
not, unless asked, and every call takes a fifth more. All that is Python in a comparison runs on the same one.

In: the interpreters of the system. Out: an environment of one of them with what ours has, kept in .tools/. Which it is
stands in the results.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.tools.python_env import TOOLS

ROOT: Final = Path(__file__).parents[3]
LOCK: Final = ROOT / "requirements" / "test.lock"
SYSTEMS: Final = tuple(Path(prefix, "bin", "python3") for prefix in ("/usr/local", "/usr"))
"""Where official images and distributions have theirs."""
_FIT: Final = (
    "import sys, sysconfig, pathlib, ensurepip;"
    "sys.exit(sys.version_info < (3, 11) or not pathlib.Path(sysconfig.get_path('include'), 'Python.h').is_file())"
)
_MAKE: Final = (
    "import pathlib, sys; from proxy.demo.environment import python_environment;"
    "print(python_environment(*map(pathlib.Path, sys.argv[1:])))"
)
ASK_S: Final = 60.0
MAKE_S: Final = 900.0
"""For an environment: see `proxy.demo.environment`."""


def optimised() -> Path | None:
    """The interpreter of an environment like ours; None: this machine has none that can have one. Raises RuntimeError
    with what a tool said."""
    for python in SYSTEMS:
        if python.exists() and _done(python, ASK_S, "-I", "-c", _FIT).returncode == 0:
            made = _done(python, MAKE_S, "-c", _MAKE, str(TOOLS), str(LOCK))
            if made.returncode:
                raise RuntimeError(made.stdout + made.stderr)
            return Path(made.stdout.strip())
    return None


def go_on_with(python: Path, module: str) -> None:
    """Be that interpreter from now on, with the same words. Returns where we are it already."""
    if not python.parents[1].samefile(sys.prefix):
        os.chdir(ROOT)
        os.execv(python, [str(python), "-m", module, *sys.argv[1:]])


def _done(python: Path, within_s: float, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, *words], cwd=ROOT, capture_output=True, text=True, timeout=within_s, check=False
    )
