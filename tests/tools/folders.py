"""Where is what takes long to make? In a folder that is made once and then found: complete or absent, never half."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def made_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """The folder; where it is missing, `make` fills an empty one beside it, which takes its place when that is done:
    whoever is killed leaves none. Several processes may ask at once: one makes it, the others wait. Raises whatever
    `make` raises."""
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _alone(folder.with_name(f"{folder.name}.lock")):
            if not folder.is_dir():
                _make(folder, make)
    return folder


def _make(folder: Path, make: Callable[[Path], object]) -> None:
    unfinished = Path(tempfile.mkdtemp(prefix=f"{folder.name}-unfinished-", dir=folder.parent))
    try:
        make(unfinished)
        unfinished.chmod(0o755)  # mkdtemp gives 0700; nothing in here is private
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold an advisory lock on `path`; the kernel drops it when the holder dies, however it dies."""
    with path.open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
