"""Who comes first? Items with keys that change. Pure.

In: items, each with the key it has now. Out: the item with the least key. Keeps each item once, and of keys that are no
longer true at most as many again: whoever comes and goes does not make it grow.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from typing import Final, Generic, TypeAlias, TypeVar

Item = TypeVar("Item")
Key: TypeAlias = tuple[float, int]

SPARE: Final = 32
"""Entries that are no longer true, in a small ranking: below that it is not worth while to clean up."""


class Ranking(Generic[Item]):
    """Items are hashed. Every step costs O(log n), averaged over the steps before it."""

    __slots__ = ("_entries", "_heap", "_keys")

    def __init__(self) -> None:
        self._keys: dict[Item, Key] = {}
        self._heap: list[tuple[Key, int, Item]] = []
        self._entries = itertools.count()  # so that two items are never compared themselves

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._keys)

    @property
    def entries(self) -> int:
        """What it costs: keys that are true, and those that are not."""
        return len(self._heap)

    def put(self, item: Item, key: Key) -> None:
        """This is its key now."""
        if self._keys.get(item) == key:
            return
        self._keys[item] = key
        if len(self._heap) > 2 * len(self._keys) + SPARE:
            self._heap = [(each, next(self._entries), item) for item, each in self._keys.items()]
            heapq.heapify(self._heap)
        else:
            heapq.heappush(self._heap, (key, next(self._entries), item))

    def remove(self, item: Item) -> None:
        """It is no longer ranked, if it was."""
        self._keys.pop(item, None)

    def first(self) -> Item | None:
        """The item with the least key; None where there is none."""
        heap = self._heap
        while heap:
            key, _, item = heap[0]
            if self._keys.get(item) == key:
                return item
            heapq.heappop(heap)
        return None
