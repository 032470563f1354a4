"""Where is a Python that has these pinned packages? A directory and a lock file in, an interpreter out.

Other people's MCP software never shares our own environment: it pins another major version of the SDK.
Keeps one environment per lock file and Python below the directory, made once and then only looked up.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SET_UP_TIMEOUT_S = 600.0
"""For one command of the set-up: on a slow line 30 packages take minutes; a dead one must not hold us."""

TAIL_LINES = 15
"""How much of a failed command's output an error quotes: pip says the reason last."""


class SetUpFailed(RuntimeError):
    """An environment could not be made; the text names the command and quotes the end of what it said."""


def cache_directory() -> Path:
    """Where environments go when nobody says: the user's cache (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The specification tells to ignore a relative path: it would mean another place in every directory.
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    return root / "mcp-sidecar"


def python_environment(directory: Path, requirements: Path) -> Path:
    """Return the interpreter of the environment that holds exactly `requirements`, making it if need be.

    `requirements` is a lock file with hashes for pip. Any number of processes may ask at once: one
    makes the environment, the others wait for it. Progress goes to stderr. Raises SetUpFailed.
    """
    home = directory / f"python-{_fingerprint(requirements)}"
    python = home / "bin" / "python"
    if _is_whole(home):
        return python
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with _only_one(directory / f"{home.name}.lock"):
            # Looked at again: whoever held the lock before us has probably just made it.
            if not _is_whole(home):
                _make(home, requirements)
    except OSError as error:
        raise SetUpFailed(f"could not make {home}: {error}") from error
    return python


def _fingerprint(requirements: Path) -> str:
    """Two environments may share a place only if lock file, Python and machine are the same."""
    digest = hashlib.sha256(requirements.read_bytes())
    built_for = (sys.implementation.cache_tag, sys.version, sys.base_prefix, os.uname().machine)
    digest.update(repr(built_for).encode())
    return digest.hexdigest()[:16]


def _is_whole(home: Path) -> bool:
    """The mark is written last, so a set-up that was killed halfway has none; a Python that was removed
    since leaves a link to nothing."""
    return (home / "ready").exists() and (home / "bin" / "python").exists()


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    """Hold `lock` among processes; the kernel lets go of it when its holder dies."""
    with lock.open("w", encoding="ascii") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another process is installing the same packages, waiting for it")
            fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _make(home: Path, requirements: Path) -> None:
    # What a killed or failed set-up left must not shine through into this one.
    shutil.rmtree(home, ignore_errors=True)
    _say(f"installing {requirements.name} into {home} (once, about 15 s)")
    python = home / "bin" / "python"
    _run([sys.executable, "-I", "-m", "venv", str(home)], "make a virtual environment")
    install = [str(python), "-I", "-m", "pip", "install", "--quiet", "--no-input"]
    install += ["--disable-pip-version-check", "--require-hashes", "--requirement", str(requirements)]
    _run(install, f"install {requirements}")
    (home / "ready").touch()


def _run(command: list[str], purpose: str) -> None:
    """Run one command of the set-up; its output is quoted only if it fails."""
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=SET_UP_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as late:
        raise SetUpFailed(
            f"could not {purpose} within {SET_UP_TIMEOUT_S:.0f} s: {' '.join(command)}"
        ) from late
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-TAIL_LINES:])
        raise SetUpFailed(f"could not {purpose} (exit code {done.returncode}): {' '.join(command)}\n{tail}")


def _say(line: str) -> None:
    print(f"mcp-sidecar: {line}", file=sys.stderr, flush=True)
