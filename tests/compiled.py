"""Where is the product, compiled? `python -m tests.compiled` makes it and prints its folder; `python -m tests.compiled
MODULE …` runs a module (pytest, tests.corpus.run, tests.bench.hot_path) in a copy of this checkout that has it inside.

In: the sources. Out: a folder with proxy/ and policies/, from which `python -m proxy` starts what the image holds.
Keeps it in .tools/compiled under a digest of whatever it depends on, and each object under one of its own: who changes
a module waits for that module.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from proxy.demo.environment import python_environment
from proxy.upstream import idle
from tests.tools.folders import made_once
from tests.tools.python_env import TOOLS

ROOT: Final = Path(__file__).parents[1]
BUILDER: Final = ROOT / "deploy" / "release"
LOCK: Final = ROOT / "requirements" / "compile.lock"
KEPT: Final = TOOLS / "compiled"
BUILD_S: Final = 1_800
"""For all modules, on a machine that is busy: three minutes on two idle cores."""


async def tree() -> Path | None:
    """The folder, made if need be; None where there is no C compiler. Raises RuntimeError with what a tool said."""
    return await asyncio.to_thread(_tree)


def runs_here() -> bool:
    """Whether it is the compiled product that this process has."""
    return not str(idle.__file__).endswith(".py")


def builder() -> Path:
    """A Python like ours, with Cython."""
    return python_environment(TOOLS, LOCK)


def compile(target: Path, *only: str) -> None:
    """Fill `target` with proxy/ and policies/; compiled is what is listed, or only these modules. Raises RuntimeError
    with what a tool said."""
    places = (builder(), BUILDER / "compiled.py", ROOT, target, "--cache", KEPT / "objects")
    done = subprocess.run(
        [*map(str, places), *(word for each in only for word in ("--only", each))],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BUILD_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)


def _tree() -> Path | None:
    if shutil.which("cc") is None:
        return None
    return made_once(KEPT / _digest(), compile)


def _digest() -> str:
    """Of sources, list, flags, the versions of Cython, compiler and Python."""
    compiler = subprocess.run(["cc", "--version"], capture_output=True, check=True).stdout
    digest = hashlib.sha256(repr((compiler, sys.version, sys.base_prefix, os.uname().machine)).encode())
    for file in _sources():
        digest.update(f"{file.relative_to(ROOT)}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _sources() -> Iterator[Path]:
    for folder in (ROOT / "proxy", ROOT / "policies"):
        yield from sorted(each for each in folder.rglob("*") if each.is_file() and _is_source(each))
    yield from (BUILDER / name for name in ("attributes.h", "compiled.py", "compiled.txt", "declared.py"))
    yield LOCK


def _is_source(file: Path) -> bool:
    return file.suffix not in (".pyc", ".so", ".md")


def run_in_copy(place: Path, words: list[str]) -> int:
    """`python -m …` in a copy of this checkout, with the objects beside their sources. Returns its exit code."""
    with tempfile.TemporaryDirectory(prefix="mcp-sidecar-compiled-") as name:
        # Not closed to others: tests start what is in it as another user.
        copy = Path(name) / "checkout"
        Path(name).chmod(0o755)
        ignored = shutil.ignore_patterns(".tools", ".venv", ".git", ".*_cache", "__pycache__", "*.so", "dist")
        shutil.copytree(ROOT, copy, symlinks=True, ignore=ignored)
        (copy / ".tools").symlink_to(TOOLS.resolve())
        for each in place.rglob("*.so"):
            shutil.copyfile(each, copy / each.relative_to(place))
        # An editable installation of the checkout itself would be found first, where tests start commands.
        environment = {**os.environ, "PYTHONPATH": str(copy)}
        command = [sys.executable, "-m", *words]
        return subprocess.run(command, cwd=copy, env=environment, check=False).returncode


def main() -> int:
    place = _tree()
    if place is None:
        print("there is no C compiler: `cc` is not on PATH", file=sys.stderr)
        return 1
    if sys.argv[1:]:
        return run_in_copy(place, sys.argv[1:])
    print(place)
    return 0


if __name__ == "__main__":
    sys.exit(main())
