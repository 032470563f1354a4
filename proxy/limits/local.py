"""May this pass? All limits that apply, decided at once in the memory of this process. Pure, given both clocks.

In: demands. Out: `Granted`, or `Denied` and nothing taken. Keeps one entry a key, bounded: an entry that still says
something is never forgotten, and who has many keys can fill only its share of the table. Keys for which there is no
room share one entry, so that a full table never lets anybody pass who would not pass otherwise.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final, Generic, TypeAlias, TypeVar

from .bucket import Bucket
from .demand import Demand, Denied, Granted, Quota, Rate
from .quota import Counter, fresh

Entry: TypeAlias = Bucket | Counter
_Key = TypeVar("_Key")
_Share: TypeAlias = tuple[str, Rate | Quota, str | None]
"""A limit, its measure and a holder."""

MOST_PLACES: Final = 100_000
"""Entries; those of sliding quotas take more than one."""
MOST_SHARED: Final = 1_000
"""Entries that several keys of one holder share."""
SHARE: Final = 4
"""A holder may have this many times what is free, as switches share their buffers: one alone can fill four fifths, two
four ninths each, and there is always room for who has little."""
LOOKS: Final = 64
"""Entries looked at where there is no room, and one in passing for each that comes: what is idle goes."""
LONGEST_STEP_S: Final = 366 * 86_400.0
"""A clock that moves further at once is broken, and nothing comes back for it."""
LONGEST_REST_S: Final = 60.0
"""How far a clock may go back for us to wait for it."""
LATEST_S: Final = 200_000_000_000.0


class Local:
    """The limits of one process."""

    def __init__(self, *, places: int = MOST_PLACES, shared: int = MOST_SHARED) -> None:
        self._table: _Table[str] = _Table(places)
        # By limit, measure and holder; the last resort has no holder.
        self._shared: _Table[_Share] = _Table(shared)
        self._last_resorts: dict[_Share, Entry] = {}
        self._clock = 0.0
        """Moves forward as `now` does, and never back."""
        self._now = math.nan
        self._wall = 0.0
        self.turned_away = 0
        """Takes of keys for which there was no room."""
        self.changes = 0
        """Takes and refunds: whoever keeps a copy sees by it whether it is still one."""

    def __len__(self) -> int:
        """Keys in the table."""
        return len(self._table)

    @property
    def evictions(self) -> int:
        """Entries forgotten because they said nothing any more."""
        return self._table.evictions

    def take(self, demands: Sequence[Demand], *, now: float, wall: float) -> Granted | Denied:
        """Take of all limits, or of none. `now` is monotonic seconds, `wall` unix seconds."""
        elapsed = now - self._now
        if elapsed:
            self._advance(elapsed, now)
        clock = self._clock
        if 0.0 <= wall < LATEST_S:
            self._wall = wall
        else:
            wall = self._wall
        entries = self._table.entries
        asked: list[Entry] = []
        used: list[float] = []
        remaining: list[int] = []
        denied: Denied | None = None
        for demand in demands:
            entry = entries.get(demand.key)
            if entry is None or entry.measure is not demand.measure:
                entry = self._entry_of(demand, entry, wall)
            left = entry.left(clock, wall)
            before = entry.used
            asked.append(entry)
            used.append(before)
            cost = demand.cost
            if cost > left or not cost:
                if demand.must_pass:
                    cost = min(cost, left)
                elif cost or _is_blocked(demand.measure):
                    wait_s = entry.wait_s(cost, wall)
                    if denied is None or wait_s > denied.retry_after_s:
                        denied = Denied(len(asked) - 1, left, wait_s)
                    continue
            entry.used = before + cost
            remaining.append(left - cost)
        if denied is not None:
            # Last first: one entry may have been asked twice.
            while asked:
                asked.pop().used = used.pop()
            return denied
        self.changes += 1
        return Granted(tuple(remaining))

    def refund(self, demands: Sequence[Demand], *, wall: float) -> None:
        """Give back what was taken at `wall`, as long as its window lasts: quotas only. What must pass may have taken
        less than it asked, and gets nothing back."""
        if not 0.0 <= wall < LATEST_S:
            return
        for demand in demands:
            entry = self._table.entries.get(demand.key) or self._shared.entries.get(_share_of(demand))
            if isinstance(demand.measure, Quota) and not demand.must_pass and entry is not None:
                assert not isinstance(entry, Bucket)
                entry.give_back(demand.cost, wall)
                self.changes += 1

    def quotas(self, keys: Sequence[str]) -> Iterator[tuple[str, Counter]]:
        """The counters of those of `keys` that have one and used something."""
        for key in keys:
            entry = self._table.entries.get(key)
            if entry is not None and not isinstance(entry, Bucket) and entry.used:
                yield key, entry

    @property
    def keys(self) -> list[str]:
        return list(self._table.entries)

    def restore(self, key: str, counter: Counter) -> bool:
        """Put in what was counted before a restart. False where there is no room."""
        if key in self._table.entries or not self._table.has_room(counter):
            return False
        self._table.add(key, counter)
        return True

    def _advance(self, elapsed: float, now: float) -> None:
        # 1. A step forward. 2. A small one back, or no number: time stands until the clock is where it was, or whoever
        # makes it swing would fill buckets. 3. A step that no clock makes: time goes on from there.
        if 0.0 < elapsed <= LONGEST_STEP_S:
            self._clock += elapsed
            self._now = now
        elif not (math.isnan(now) or -LONGEST_REST_S <= elapsed <= LONGEST_STEP_S):
            self._now = now

    def _entry_of(self, demand: Demand, entry: Entry | None, wall: float) -> Entry:
        """The entry of a key that has none yet, or one of other settings."""
        if entry is None:
            return self._placed(demand, wall)
        if _says_of(entry, demand.measure):
            # Other settings for the same key: what was used stays used.
            entry.measure = demand.measure
            return entry
        return self._table.replace(demand.key, _begun(demand, self._clock, wall))

    def _placed(self, demand: Demand, wall: float) -> Entry:
        share = _share_of(demand)
        shared = self._shared.entries.get(share) or self._last_resorts.get((*share[:2], None))
        # What a key used while it had no room is within what was used there: it begins with that.
        entry = _begun(demand, self._clock, wall) if shared is None else shared.copied(demand.holder)
        entry.left(self._clock, wall)
        if self._makes_room(self._table, entry, wall):
            self._table.add(demand.key, entry)
            return entry
        self.turned_away += 1
        if share in self._shared.entries:
            return self._shared.entries[share]
        if self._makes_room(self._shared, entry, wall):
            self._shared.add(share, entry)
            return entry
        return self._last_resorts.setdefault((*share[:2], None), entry)

    def _makes_room(self, table: _Table[_Key], entry: Entry, wall: float) -> bool:
        table.sweep(1, self._clock, wall)
        if table.has_room(entry):
            return True
        table.sweep(LOOKS, self._clock, wall)
        return table.has_room(entry)


class _Table(Generic[_Key]):
    """Entries by key, so many that they fill a number of places."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._held: dict[str, int] = {}
        # In turns, so that every entry is looked at.
        self._ring: deque[_Key] = deque()
        self.entries: dict[_Key, Entry] = {}
        self.evictions = 0

    def __len__(self) -> int:
        return len(self.entries)

    def has_room(self, entry: Entry) -> bool:
        return entry.places <= self._free and self._held.get(entry.holder, 0) < SHARE * self._free

    def add(self, key: _Key, entry: Entry) -> None:
        self.entries[key] = entry
        self._ring.append(key)
        self._count(entry, 1)

    def replace(self, key: _Key, entry: Entry) -> Entry:
        self._count(self.entries[key], -1)
        self.entries[key] = entry
        self._count(entry, 1)
        return entry

    def sweep(self, looks: int, clock: float, wall: float) -> None:
        """Forget what says nothing any more, of so many entries."""
        ring = self._ring
        for _ in range(min(looks, len(ring))):
            key = ring.popleft()
            entry = self.entries[key]
            if entry.is_idle(clock, wall):
                del self.entries[key]
                self._count(entry, -1)
                self.evictions += 1
            else:
                ring.append(key)

    def _count(self, entry: Entry, sign: int) -> None:
        self._free -= sign * entry.places
        held = self._held.get(entry.holder, 0) + sign * entry.places
        if held:
            self._held[entry.holder] = held
        else:
            self._held.pop(entry.holder, None)


def _begun(demand: Demand, clock: float, wall: float) -> Entry:
    measure = demand.measure
    if isinstance(measure, Rate):
        return Bucket(measure, demand.holder, 0.0, clock)
    return fresh(measure, demand.holder, wall)


def _says_of(entry: Entry, measure: Rate | Quota) -> bool:
    """Whether what an entry says is about this measure."""
    if isinstance(measure, Rate):
        return isinstance(entry, Bucket)
    return not isinstance(entry, Bucket) and entry.measure.window == measure.window


def _share_of(demand: Demand) -> _Share:
    return demand.limit, demand.measure, demand.holder


def _is_blocked(measure: Rate | Quota) -> bool:
    return not (measure.per_s if isinstance(measure, Rate) else measure.units)
