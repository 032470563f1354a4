"""May we write where we shall have to? The files that outlive a restart, and the folders they lie in.

In: settings. Out: findings. Writes one file without a name into each folder, or one that is removed at once.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import Final

from ..configuration.mistakes import shown
from ..settings import Settings
from .finding import Finding, Findings, fail, ok, warn

LEAST_FREE_BYTES: Final = 67_108_864
LONGEST_PATH: Final = 4_096


def written(settings: Settings) -> dict[str, str]:
    """The files that the sidecar writes, by setting."""
    audit = getattr(settings.telemetry, "audit", None)
    named = {
        "local_state.file": settings.local_state and settings.local_state.file,
        "cache.file": settings.cache and settings.cache.file,
        "telemetry.audit.file": getattr(audit, "file", None),
    }
    return {setting: str(file) for setting, file in named.items() if file}


def places(settings: Settings) -> Findings:
    files = written(settings)
    if not files:
        return [ok("files", "nothing is written")]
    return [each for setting, file in files.items() for each in _place(setting, Path(file))]


def _place(setting: str, file: Path) -> list[Finding]:
    name, folder = shown(str(file), LONGEST_PATH), file.absolute().parent
    try:
        mode = folder.stat().st_mode
        with tempfile.TemporaryFile(dir=folder) as trial:
            trial.write(b"mcp-sidecar doctor")
        space = os.statvfs(folder)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else "the system refused"
        remedy = f"mount a volume there that user {os.geteuid()} may write"
        return [
            fail("files", f"{setting}: {shown(str(folder), LONGEST_PATH)} cannot be written: {why}", remedy)
        ]
    found: list[Finding] = []
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        what = f"{setting}: everybody may write and replace files in {shown(str(folder), LONGEST_PATH)}"
        found.append(warn("files", what, "chmod o-w, or a folder of its own"))
    if (free := space.f_bavail * space.f_frsize) < LEAST_FREE_BYTES:
        what = f"{setting}: {free // 1_048_576} MiB are free where {name} lies"
        found.append(warn("files", what, "make room, or a larger volume"))
    found += _file(setting, file, name)
    return found or [ok("files", f"{setting}: {name} can be written")]


def _file(setting: str, file: Path, name: str) -> list[Finding]:
    """What lies there already."""
    try:
        mode = file.stat().st_mode
    except FileNotFoundError:
        return []
    if not stat.S_ISREG(mode) or not os.access(file, os.R_OK | os.W_OK):
        return [
            fail("files", f"{setting}: {name} is no file that we may read and write", "remove or chown it")
        ]
    if mode & (stat.S_IWOTH | stat.S_IROTH):
        return [warn("files", f"{setting}: {name} can be read or written by everybody", f"chmod 600 {name}")]
    return []
