"""Was it forgotten? A bounded list of what was forgotten, each with its number; entries carry the number they are from.

In: what to forget. Out: whether an entry that is from some number was forgotten since. Keeps one number for each
different thing, so that a thousand writes of one tool are one line; beyond its bounds it says "yes" too often, never
too seldom. Nothing is searched when something is forgotten: an entry is compared when somebody asks for it. Pure.
"""

from __future__ import annotations

import functools
import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from ..configuration.globs import has_wildcard, regex_of
from .entry import Entry
from .store import Forget

MOST_OF_ONE: Final = 1_024
"""Different things of one tenant. Beyond it, the oldest stands for everything of the tenant."""
MOST: Final = 8_192
"""Different things in all: 4 MB. Beyond it, the tenant that forgot nothing for longest loses everything."""


class _Kind:
    """Which entries, whosever they are."""

    __slots__ = ("_exact", "_methods", "_patterns")

    def __init__(self, methods: Sequence[str], targets: Sequence[str]) -> None:
        self._methods = frozenset(methods)
        self._exact = frozenset(each for each in targets if not has_wildcard(each))
        self._patterns = tuple(
            re.compile(regex_of(each), re.DOTALL) for each in targets if has_wildcard(each)
        )

    def covers(self, entry: Entry) -> bool:
        if self._methods and entry.method not in self._methods:
            return False
        if not self._exact and not self._patterns:
            return True
        return entry.target in self._exact or any(each.fullmatch(entry.target) for each in self._patterns)


@functools.lru_cache(maxsize=MOST_OF_ONE)
def _kind(methods: tuple[str, ...], targets: tuple[str, ...]) -> _Kind:
    return _Kind(methods, targets)


class _Book:
    """What was forgotten of one tenant, oldest first."""

    __slots__ = ("floor", "kinds", "last")

    def __init__(self) -> None:
        self.floor = 0
        """What is from before it counts as forgotten."""
        self.last = 0
        self.kinds: OrderedDict[_Kind, int] = OrderedDict()

    def add(self, kind: _Kind, number: int) -> None:
        self.kinds[kind] = self.last = number
        self.kinds.move_to_end(kind)
        if len(self.kinds) > MOST_OF_ONE:
            _, self.floor = self.kinds.popitem(last=False)

    def covers(self, entry: Entry, since: int) -> bool:
        if since >= self.last:
            return False
        if since < self.floor:
            return True
        for kind, number in reversed(self.kinds.items()):
            if number <= since:
                return False
            if kind.covers(entry):
                return True
        return False


class Forgotten:
    """Numbers go up, by one or as somebody else counts them."""

    def __init__(self) -> None:
        self.last = 0
        """The number of the last thing; an entry that is stored now is from it."""
        self._floor = 0
        self._size = 0
        self._books: OrderedDict[str | None, _Book] = OrderedDict()

    def add(self, what: Forget, number: int | None = None) -> None:
        """Forget it, now. `number`: larger than the last."""
        self.last = self.last + 1 if number is None else number
        kind = _kind(what.methods, what.targets)
        # What is shared by all may tell of anybody's things.
        for owner in (what.tenant,) if not what.tenant else (what.tenant, ""):
            book = self._books.setdefault(owner, _Book())
            self._books.move_to_end(owner)
            self._size -= len(book.kinds)
            book.add(kind, self.last)
            self._size += len(book.kinds)
        while self._size > MOST:
            _, book = self._books.popitem(last=False)
            self._size -= len(book.kinds)
            self._floor = max(self._floor, book.last)

    def everything(self, number: int | None = None) -> None:
        """All that is from now or before is forgotten."""
        self.last = self.last + 1 if number is None else number
        self._floor = self.last
        self._books.clear()
        self._size = 0

    def below(self, number: int) -> None:
        """What is from before that number is forgotten: nobody knows any more what was."""
        self._floor = max(self._floor, number)
        self.last = max(self.last, number)

    def covers(self, entry: Entry, since: int) -> bool:
        """Whether an entry that is from `since` was forgotten."""
        if since >= self.last:
            return False
        if since < self._floor:
            return True
        books = self._books
        for owner in (entry.tenant, None):
            book = books.get(owner)
            if book is not None and book.covers(entry, since):
                return True
        return False
