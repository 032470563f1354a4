"""Which roles does somebody have, with all that they inherit? Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .settings import RoleSettings

MAX_KNOWN: Final = 1_024
"""Combinations of roles whose closure is remembered; issuers choose what is in a token."""


class Roles:
    """The closure of roles. Cycles are no trouble: a set is closed when nothing is added any more."""

    def __init__(self, settings: Mapping[str, RoleSettings]) -> None:
        self._inherits = {name: frozenset(role.inherits) for name, role in settings.items()}
        self._known: dict[frozenset[str], frozenset[str]] = {}

    def of(self, named: frozenset[str]) -> frozenset[str]:
        """The roles of whoever's credential names these."""
        known = self._known.get(named)
        if known is None:
            known = self._closed(named)
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[named] = known
        return known

    def _closed(self, named: frozenset[str]) -> frozenset[str]:
        closed: set[str] = set()
        waiting = list(named)
        while waiting:
            role = waiting.pop()
            if role not in closed:
                closed.add(role)
                waiting.extend(self._inherits.get(role, ()))
        return frozenset(closed)
