"""Is there enough of everything? File descriptors, memory, and what is installed.

In: settings. Out: findings about this process, which has the limits of the sidecar where it runs beside it.
"""

from __future__ import annotations

import platform
import resource
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from .. import __version__
from ..lifecycle.cgroup import Cgroup
from ..settings import Settings
from .finding import Findings, fail, ok, warn

FEW_DESCRIPTORS: Final = 4_096
TOO_FEW_DESCRIPTORS: Final = 256
OWN_BYTES: Final = 67_108_864
"""Idle, with what calls under way need; see docs/costs.md."""
FULL: Final = 0.8
"""Of the limit: above it the guard drops kept answers (lifecycle/guards.py)."""
EXTRAS: Final = ("hiredis", "httptools", "cel-expr-python", "jsonschema-rs", "google-re2")


def descriptors() -> Findings:
    """The hard limit counts: a sidecar raises its own to it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    says = f"{hard} files may be open, and each client takes one, each call another"
    remedy = "raise the limit of the container runtime (ulimit -Hn)"
    if hard == resource.RLIM_INFINITY:
        return [ok("descriptors", "any number of files may be open")]
    if hard < TOO_FEW_DESCRIPTORS:
        return [fail("descriptors", says, remedy)]
    return [warn("descriptors", says, remedy) if hard < FEW_DESCRIPTORS else ok("descriptors", says)]


def memory(settings: Settings) -> Findings:
    usage = Cgroup().usage()
    group, own = None if usage is None else usage.limit, settings.memory_limit_bytes
    limit = min((each for each in (group, own) if each is not None), default=None)
    if limit is None:
        what = "there is no limit, so nothing is refused before memory runs out"
        return [warn("memory", what, "write resources.limits.memory, or memory_limit_bytes")]
    kept = settings.cache.max_bytes if settings.cache else 0
    needed = OWN_BYTES + kept
    says = f"{_mib(limit)} are the limit; about {_mib(needed)} are needed with a full cache ({_mib(kept)})"
    if needed > limit * FULL:
        return [
            warn("memory", says, "raise the limit, or lower cache.max_bytes: above 80 % answers are dropped")
        ]
    if group is not None and own is not None and own > group:
        what = f"memory_limit_bytes is above the control group's limit of {_mib(group)}, which counts"
        return [warn("memory", what, "lower it, or remove it")]
    return [ok("memory", says)]


def versions() -> Findings:
    python = f"mcp-sidecar {__version__}, Python {platform.python_version()} on {platform.machine()}"
    extras = [f"{name} {each}" for name in EXTRAS if (each := _version(name)) is not None]
    says = f"{python}; {', '.join(extras) or 'no extras'}"
    if _version("uvloop") is None:
        return [warn("versions", f"{says}; without uvloop", "pip install uvloop: events cost half as much")]
    return [ok("versions", says)]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _mib(size: int) -> str:
    return f"{size / 1_048_576:.0f} MiB"
