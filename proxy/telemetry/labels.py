"""Which names may stand in the labels of a metric? Pure.

In: names that callers, issuers and servers have chosen. Out: the same, or `other`. Keeps the names it let in, and which
series there are. Every series costs the memory of whoever collects it, here and there, so one metric has never more
than `MOST_SERIES` of them, whatever is sent: first tenants become `other`, then tools. A series that exists goes on to
count: what has come later is what becomes `other`, because moving a count would make one series fall and another jump.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

MOST_SERIES: Final = 1_000
"""Of one metric; a histogram has one for each bucket, and two beside them."""
MOST_TOOLS: Final = 2_000
"""Names that are known; more than servers have."""
LONGEST: Final = 128
"""Characters of a name. Servers and issuers choose them, too."""
OTHER: Final = "other"


def is_fit(name: str) -> bool:
    """Whether a name can stand in a label. Half a surrogate pair cannot be written as UTF-8, and would cost the whole
    page."""
    return 0 < len(name) <= LONGEST and name.isprintable()


class Names:
    """Names with labels of their own, `most` at most: whoever comes first stays."""

    def __init__(self, most: int) -> None:
        self.most = most
        """Lowered, it takes no name back."""
        self._names: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def learn(self, name: str) -> str:
        """The label of this name, which is a known one from now on where there is room."""
        known = self._names.get(name)
        if known is not None:
            return known
        if len(self._names) >= self.most or not is_fit(name):
            return OTHER
        return self._names.setdefault(name, name)

    def learn_all(self, names: Iterable[object]) -> None:
        for name in names:
            if isinstance(name, str):
                self.learn(name)

    def label(self, name: str | None) -> str:
        """The label of this name: itself, where it is known."""
        return OTHER if name is None else self._names.get(name, OTHER)


class Series:
    """The series of one metric: a row (a tool, or whatever else there may be too many of), a tenant, and a word
    of a closed set. What a metric does not have is `other` in each of them."""

    def __init__(self, *, words: int = 1, each: int = 1, most: int = MOST_SERIES) -> None:
        """`words` is how many there are in the closed set, `each` how many series one combination has."""
        self._words = words
        self._most = most // each
        # The words of a row are kept free for it: a tool whose errors alone are counted elsewhere would look well.
        self._rows: set[str] = set()
        self._of_tenants: set[tuple[str, str, str]] = set()
        # The other half is for tools, however many tenants come before them.
        self._most_of_tenants = (self._most - words) // 2

    def __len__(self) -> int:
        """How many combinations there may be at the moment, those included that are kept free."""
        return self._words * (len(self._rows) + 1) + len(self._of_tenants)

    def place(self, row: str, tenant: str = OTHER, word: str = "") -> tuple[str, str, str]:
        """What to count it as: these, or others in their place."""
        if row != OTHER and row not in self._rows:
            if len(self) + self._words <= self._most:
                self._rows.add(row)
            else:
                row = OTHER
        if tenant == OTHER:
            return row, OTHER, word
        own = row, tenant, word
        if own in self._of_tenants:
            return own
        if len(self._of_tenants) >= self._most_of_tenants or len(self) >= self._most:
            return row, OTHER, word
        self._of_tenants.add(own)
        return own
