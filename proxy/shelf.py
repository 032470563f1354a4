"""What belongs to whom? A bounded table in which whoever fills it pays for it.

In: an owner, a key, a value. Out: the value, to its owner only. Keeps each owner's things, and all things, in the
order of their last use. Pure: no clock, no IO.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

from .model import Identity

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


def _one(_: Any) -> int:
    return 1


class Shelf(Generic[Key, Value]):
    """A key belongs to one owner. Who adds beyond its share, or while there is no room for anybody, loses its own
    oldest thing; only where it has nothing else does the oldest thing of all go."""

    def __init__(
        self,
        *,
        share: int,
        total: int,
        weigh: Callable[[Value], int] = _one,
        dropped: Callable[[Identity, Key, Value], None] | None = None,
    ) -> None:
        """`share` of each owner and `total` are in the unit of `weigh`, by default things. `dropped` is told what
        went for lack of room. A value that changes its weight is taken, changed and put back."""
        self._share = share
        self._most = total
        self._weigh = weigh
        self._dropped = dropped
        self._own: dict[Identity, OrderedDict[Key, Value]] = {}
        self._owners: OrderedDict[Key, Identity] = OrderedDict()
        self._held: dict[Identity, int] = {}
        self._total = 0

    def __len__(self) -> int:
        return len(self._owners)

    @property
    def weight(self) -> int:
        """Of everything that is kept."""
        return self._total

    def owner(self, key: Key) -> Identity | None:
        """Whose it is. For those who hand things out: whoever asks for one must not learn it."""
        return self._owners.get(key)

    def get(self, identity: Identity, key: Key) -> Value | None:
        """The value, used now. What is somebody else's is looked for exactly as what nobody has."""
        own = self._own.get(identity)
        value = None if own is None else own.get(key)
        if own is not None and value is not None:
            own.move_to_end(key)
            self._owners.move_to_end(key)
        return value

    def put(self, identity: Identity, key: Key, value: Value) -> None:
        """Add a thing that nobody has."""
        assert key not in self._owners, "a key belongs to one owner"
        own = self._own.setdefault(identity, OrderedDict())
        own[key] = value
        self._owners[key] = identity
        weight = self._weigh(value)
        self._held[identity] = self._held.get(identity, 0) + weight
        self._total += weight
        while len(own) > 1 and (self._held[identity] > self._share or self._total > self._most):
            self._drop(identity, next(iter(own)))
        while len(self._owners) > 1 and self._total > self._most:
            oldest, owner = next(iter(self._owners.items()))
            self._drop(owner, oldest)

    def take(self, identity: Identity, key: Key) -> Value | None:
        """Remove a thing; None when it is not this owner's."""
        own = self._own.get(identity)
        if own is None or key not in own:
            return None
        value = own.pop(key)
        del self._owners[key]
        weight = self._weigh(value)
        self._total -= weight
        if own:
            self._held[identity] -= weight
        else:
            del self._own[identity], self._held[identity]
        return value

    def _drop(self, identity: Identity, key: Key) -> None:
        value = self.take(identity, key)
        if self._dropped is not None and value is not None:
            self._dropped(identity, key, value)
