"""Does a name fit a pattern? Patterns → a compiled question, the same for ten and for a thousand. Pure.

`*` is any text, `?` one character, everything else itself, code point by code point: nothing is folded or
normalised, because servers do not either.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Final

from msgspec import Meta

from .mistakes import Unfit
from .values import fit

MAX_KNOWN: Final = 4_096
"""Names whose answer is remembered; callers choose names, so the table is emptied when it is full."""

LONGEST_KNOWN: Final = 256
"""Characters of a name that is remembered. Callers may send longer ones, and what is denied costs memory too."""


def check_glob(text: str) -> None:
    """Raise Unfit unless this can be compared with names: `*` is any text, `?` one character, all else itself."""
    if not text.strip():
        raise Unfit("matches nothing", "no name is blank", "write a name, or * for all")
    if not text.isprintable():
        raise Unfit("is no pattern", "control characters make look-alikes", "remove them")


Glob = Annotated[str, Meta(max_length=1_024), fit(check_glob)]


def regex_of(glob: str) -> str:
    """The pattern as a regular expression that never goes back: each text between two stars is looked for once,
    behind the one before (the greedy algorithm is right for globs). With plain `.*` five stars and a name of
    8,000 characters would stop the process for hours."""
    first, *others = re.split(r"\*+", glob)
    if not others:
        return _literal(first)
    middle = "".join(f"(?>.*?{_literal(each)})" for each in others[:-1])
    return f"{_literal(first)}{middle}.*{_literal(others[-1])}"


def _literal(text: str) -> str:
    return "".join("." if each == "?" else re.escape(each) for each in text)


def fits(glob: str, text: str) -> bool:
    return re.fullmatch(regex_of(glob), text, re.DOTALL) is not None


def has_wildcard(glob: str) -> bool:
    return "*" in glob or "?" in glob


class Globs:
    """Which of many patterns fit a name, in their order."""

    def __init__(self, globs: Sequence[str]) -> None:
        self._exact: dict[str, list[int]] = {}
        self._patterns: list[tuple[int, re.Pattern[str]]] = []
        for index, glob in enumerate(globs):
            if has_wildcard(glob):
                self._patterns.append((index, re.compile(regex_of(glob), re.DOTALL)))
            else:
                self._exact.setdefault(glob, []).append(index)
        self._known: dict[str, tuple[int, ...]] = {}

    def fitting(self, name: str) -> tuple[int, ...]:
        """Positions of the patterns that fit, in order."""
        known = self._known.get(name)
        if known is None:
            found = [index for index, pattern in self._patterns if pattern.fullmatch(name)]
            known = tuple(sorted(found + self._exact.get(name, [])))
            if len(name) <= LONGEST_KNOWN:
                if len(self._known) >= MAX_KNOWN:
                    self._known.clear()
                self._known[name] = known
        return known
