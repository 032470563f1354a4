"""Faults that need more than a wire."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from msgspec import Struct

from .lab import Lab, Report


class Script(Struct, frozen=True, kw_only=True):
    """One fault and how it is made."""

    name: str
    run: Callable[[Lab], Awaitable[Report]]
    needs: frozenset[str] = frozenset()
    until: frozenset[str] = frozenset()


SCRIPTS: Final[tuple[Script, ...]] = ()
