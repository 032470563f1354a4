"""Which cases, and which single checks, wait for a later room? deferred.yaml → Deferred.

The file may only shrink: test_deferred.py holds it to the list it began with and to falling counts. A category that
begins to run may leave single cases and checks behind; those are listed in deferred_named_later.txt.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml
from msgspec import Struct

from tests.corpus.cases import Case, CorpusError

PATH = Path(__file__).with_name("deferred.yaml")
ROOMS = frozenset(
    {"identity", "policy", "limits", "cache", "resilience", "telemetry", "catalog", "reload", "beyond"}
)


class Deferred(Struct, frozen=True, kw_only=True):
    """What waits, each with the room it waits for."""

    categories: Mapping[str, str]
    cases: Mapping[str, str]
    checks: Mapping[str, Mapping[str, str]]
    """Case id → check (a sentence, or `status`, `jsonrpc_error`, `upstream_must_not_see`) → room."""
    texts: Mapping[str, str]
    """Sentence → room, in whichever case it stands."""

    def room(self, case: Case) -> str | None:
        """The room a whole case waits for, None if it runs."""
        return self.cases.get(case.id) or self.categories.get(case.category)

    def check_room(self, case: Case, check: str) -> str | None:
        """The room one check of a case waits for."""
        return self.checks.get(case.id, {}).get(check) or self.texts.get(check)

    def waiting(self, cases: Iterable[Case]) -> int:
        """How many assertions wait, however they are named: what only ever gets less."""
        return sum(
            self.room(case) is not None or self.check_room(case, name) is not None
            for case in cases
            for name in case.asserted()
        )

    def entries(self) -> frozenset[str]:
        """Everything that waits, one name each; what the shrinking list is compared by."""
        return frozenset(
            [
                *(f"category {name}" for name in self.categories),
                *(f"case {name}" for name in self.cases),
                *(f"check {name}: {check}" for name, checks in self.checks.items() for check in checks),
                *(f"text {text}" for text in self.texts),
            ]
        )


def read_deferred(path: Path = PATH) -> Deferred:
    """The list in a file. Raises CorpusError for a room nobody knows or an entry given twice."""
    raw = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    if unknown := set(raw) - {"categories", "cases", "checks", "texts"}:
        raise CorpusError(f"{path.name}: no section {sorted(unknown)}")
    return Deferred(
        categories=_by_entry(raw.get("categories") or {}),
        cases=_by_entry(raw.get("cases") or {}),
        texts=_by_entry(raw.get("texts") or {}),
        checks={name: _rooms(checks) for name, checks in (raw.get("checks") or {}).items()},
    )


def _by_entry(by_room: Mapping[str, list[str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for room, entries in by_room.items():
        for entry in entries:
            if entry in found:
                raise CorpusError(f"{entry} is deferred twice")
            found[entry] = room
    return _rooms(found)


def _rooms(found: Mapping[str, str]) -> dict[str, str]:
    if unknown := set(found.values()) - ROOMS:
        raise CorpusError(f"no room {sorted(unknown)}")
    return dict(found)
