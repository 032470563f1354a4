"""How much memory may this process have, and how much has it? Read where the kernel says it.

In: the folder where control groups are mounted. Out: `Usage`, or None where there is no limit. Keeps nothing. Version 2
of control groups, and version 1. What counts is the working set as the kubelet has it (what is used without the file
cache that nobody has touched lately): the kernel takes that back before it kills anybody.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Final

from msgspec import Struct

MOUNTED: Final = Path("/sys/fs/cgroup")
OWN: Final = Path("/proc/self/cgroup")
STATM: Final = Path("/proc/self/statm")
NO_LIMIT: Final = 1 << 60
"""Version 1 says "none" by a number of about 2 to the 63rd."""


class Usage(Struct, frozen=True):
    """Both in bytes."""

    used: int
    limit: int

    @property
    def ratio(self) -> float:
        return self.used / self.limit


class Files(Struct, frozen=True):
    """Where one version says it."""

    limit: str
    used: str
    inactive: str
    """The field of memory.stat with the file cache that nobody has touched lately."""


V2: Final = Files("memory.max", "memory.current", "inactive_file")
V1: Final = Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


class Cgroup:
    """The control group whose limit comes first, from our own upwards."""

    def __init__(self, mounted: Path = MOUNTED, own: Path = OWN) -> None:
        """`own` names the groups of this process, as proc(5) has /proc/PID/cgroup."""
        self._places = _places(mounted, _text(own))

    def usage(self, exact_above: float = 0.0) -> Usage | None:
        """What is used of the limit; None without one. The limit is read each time, because it can be changed
        while a pod runs. Up to `exact_above` (a ratio) the file cache counts as used, which saves a look."""
        for folder, files in self._places:
            limit = _number(folder / files.limit)
            if limit is None or not 0 < limit < NO_LIMIT:
                continue
            used = _number(folder / files.used)
            if used is None:
                continue
            if used > limit * exact_above:
                used = max(0, used - _field(folder / "memory.stat", files.inactive))
            return Usage(used, limit)
        return None


def own_bytes(statm: Path = STATM) -> int:
    """Resident memory of this process; 0 where nobody says."""
    words = _text(statm).split()
    return int(words[1]) * os.sysconf("SC_PAGE_SIZE") if len(words) > 1 and words[1].isdecimal() else 0


def _places(mounted: Path, own: str) -> list[tuple[Path, Files]]:
    found: list[tuple[Path, Files]] = []
    for line in own.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            found += [(each, V2) for each in _upwards(mounted, path)]
        elif "memory" in controllers.split(","):
            found += [(each, V1) for each in _upwards(mounted / "memory", path)]
    # In a container the mount is our own group, whatever the path says.
    return found or [(mounted, V2), (mounted / "memory", V1)]


def _upwards(root: Path, path: str) -> list[Path]:
    """From our own group to that at the root."""
    own = PurePosixPath("/") / path
    if ".." in own.parts:  # a namespace below which we are not: the mount is what we see
        return [root]
    return [root / each.relative_to("/") for each in (own, *own.parents)]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isascii() and text.isdecimal() else None


def _field(path: Path, name: str) -> int:
    for line in _text(path).splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdecimal():
            return int(value)
    return 0
