"""The answers of this process: a table bounded in bytes, in which whoever fills it pays for it. Given the wall clock.

In: entries. Out: entries that are neither over nor forgotten. Keeps them in the order of their last use, of all and of
each tenant, and by their end.

Who goes when it is full: first what is over. Then, of a tenant that would hold more than its share, its own oldest;
else the oldest of another tenant that holds more than its share; else the oldest of all. So one tenant may use what
nobody needs, and takes at most its share from the others.
"""

from __future__ import annotations

import zlib
from collections import Counter, OrderedDict
from collections.abc import Callable
from sys import getsizeof
from typing import Final

from cachetools import TLRUCache
from msgspec import Struct, structs

from ..model import Job
from .entry import Entry, is_over, lifetime_s
from .forgotten import Forgotten
from .store import Counts, Forget, Mark

OVERHEAD_BYTES: Final = 1_600
"""Of an entry, beside its texts: structs, numbers, and six tables (test_memory.py measures it)."""


class _Held(Struct, gc=False):
    entry: Entry
    since: int
    """The number of the last thing that was forgotten and does not cover it."""
    size_bytes: int
    is_deflated: bool


def size_bytes(entry: Entry) -> int:
    """What an entry takes of this process."""
    texts = (entry.material, entry.result, entry.tenant, entry.method, entry.target, entry.generation)
    size = sum(map(getsizeof, texts))
    # A thirty-second for what the allocator loses between texts of many lengths.
    return OVERHEAD_BYTES + size + size // 32


def _end(digest: bytes, held: _Held, now: float) -> float:
    return held.entry.stored_s + lifetime_s(held.entry)


class _Table(TLRUCache[bytes, _Held]):
    """Tells what is over and left: cachetools removes it whenever somebody asks for a size."""

    def __init__(
        self, max_bytes: int, now: Callable[[], float], left: Callable[[bytes, _Held], None]
    ) -> None:
        super().__init__(max_bytes, _end, timer=now, getsizeof=lambda held: held.size_bytes)
        self._tell_left = left

    def expire(self, time: float | None = None) -> list[tuple[bytes, _Held]]:
        gone = super().expire(time)
        for digest, held in gone:
            self._tell_left(digest, held)
        return gone


class Memory:
    """Used inside one running loop; nothing waits."""

    def __init__(
        self,
        *,
        max_bytes: int,
        max_entry_bytes: int,
        per_tenant_share: float,
        wall: Callable[[], float],
        compress_above_bytes: int = 0,
    ) -> None:
        """`max_bytes` of memory, overhead included. `max_entry_bytes` of a result. `wall`: unix seconds. Results above
        `compress_above_bytes` (0: none) are kept deflated."""
        self._max_bytes = max_bytes
        self._max_entry_bytes = max_entry_bytes
        self._share_bytes = max_bytes * per_tenant_share
        self._wall = wall
        self._compress_above_bytes = compress_above_bytes
        self._forgotten = Forgotten()
        # One moment for each question: what is there when it begins must be there when it ends.
        self._now = wall()
        self._table = _Table(max_bytes, lambda: self._now, self._expired)
        # In the order of the last use: of all, and of each tenant. The table has an order of its own, which costs three
        # calls each time it is asked; it does sizes and ends.
        self._used: OrderedDict[bytes, _Held] = OrderedDict()
        self._order: dict[str, OrderedDict[bytes, None]] = {}
        self._bytes_of: Counter[str] = Counter()
        self._above: set[str] = set()
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._table)

    @property
    def bytes_held(self) -> int:
        """Of `max_bytes`."""
        return int(self._table.currsize)

    @property
    def counts(self) -> Counts:
        return self._counts

    @property
    def jobs(self) -> tuple[Job, ...]:
        return ()

    def mark(self) -> Mark:
        return Mark(own=self._forgotten.last)

    async def get(self, digest: bytes) -> Entry | None:
        return self.look(digest)

    async def put(self, digest: bytes, entry: Entry, asked: Mark) -> None:
        self.keep(digest, entry, asked)

    async def forget(self, what: Forget) -> None:
        self.drop(what)

    async def flush(self) -> None:
        self.empty()

    async def close(self) -> None:
        """Nothing is open."""

    @property
    def tenants(self) -> int:
        """How many have something here, "" among them."""
        return len(self._order)

    def digests(self) -> list[bytes]:
        """Of everything that is there, of each tenant in the order of its last use. Some may be over or forgotten."""
        return [digest for order in self._order.values() for digest in order]

    def look(self, digest: bytes) -> Entry | None:
        """`get`, at once."""
        self._now = now = self._wall()
        held = self._used.get(digest)
        if held is None:
            return None
        entry = held.entry
        if is_over(entry, now):
            # What the table knows to be over leaves when it is next asked for a size; it cannot know that a clock was
            # put back.
            if digest in self._table:
                self._remove(digest, held, "expired")
            return None
        if held.since < self._forgotten.last:
            if self._forgotten.covers(entry, held.since):
                self._remove(digest, held, "forgotten")
                return None
            held.since = self._forgotten.last
        self._used.move_to_end(digest)
        self._order[entry.tenant].move_to_end(digest)
        return structs.replace(entry, result=zlib.decompress(entry.result)) if held.is_deflated else entry

    def keep(self, digest: bytes, entry: Entry, asked: Mark) -> bool:
        """`put`, at once. Whether it is kept."""
        if self._forgotten.covers(entry, asked.own):
            self._counts["late"] += 1
            return False
        if len(entry.result) > self._max_entry_bytes:
            self._counts["too_large"] += 1
            return False
        is_deflated = 0 < self._compress_above_bytes < len(entry.result)
        if is_deflated:
            entry = structs.replace(entry, result=zlib.compress(entry.result, 1))
        size = size_bytes(entry)
        if size > self._share_bytes:
            self._counts["too_large"] += 1
            return False
        self._now = self._wall()
        if (before := self._table.get(digest)) is not None:
            self._remove(digest, before)
        if is_over(entry, self._now):
            self._counts["expired"] += 1
            return False
        self._make_room(entry.tenant, size)
        self._table[digest] = self._used[digest] = _Held(entry, self._forgotten.last, size, is_deflated)
        self._order.setdefault(entry.tenant, OrderedDict())[digest] = None
        self._weigh(entry.tenant, size)
        self._counts["stored"] += 1
        return True

    def drop(self, what: Forget) -> None:
        """`forget`, at once."""
        self._forgotten.add(what)

    def empty(self) -> None:
        """`flush`, at once."""
        self._forgotten.everything()
        self._counts["forgotten"] += len(self)
        self._table.clear()
        self._used.clear()
        self._order.clear()
        self._bytes_of.clear()
        self._above.clear()

    def shrink(self, to_bytes: float, most: int) -> bool:
        """Let those go that were used longest ago until so many bytes are held, at most so many at once. Nothing is
        forgotten by that. Whether there are more to go."""
        self._now = self._wall()
        for _ in range(most):
            if self._table.currsize <= to_bytes or not self._table:
                return False
            self._evict(next(iter(self._used)))
        return self._table.currsize > to_bytes

    def _make_room(self, tenant: str, size: int) -> None:
        while self._table.currsize + size > self._max_bytes:
            if self._bytes_of[tenant] + size > self._share_bytes:
                payer = tenant
            elif self._above:
                payer = max(self._above, key=self._bytes_of.__getitem__)
            else:
                self._evict(next(iter(self._used)))
                continue
            self._evict(next(iter(self._order[payer])))

    def _evict(self, digest: bytes) -> None:
        self._remove(digest, self._used[digest], "evicted")

    def _expired(self, digest: bytes, held: _Held) -> None:
        self._left(digest, held, "expired")

    def _remove(self, digest: bytes, held: _Held, event: str = "") -> None:
        self._table.pop(digest, None)
        self._left(digest, held, event)

    def _left(self, digest: bytes, held: _Held, event: str) -> None:
        """It is out of the table, and leaves everything beside it."""
        del self._used[digest]
        tenant = held.entry.tenant
        order = self._order[tenant]
        del order[digest]
        self._weigh(tenant, -held.size_bytes)
        if not order:
            del self._order[tenant], self._bytes_of[tenant]
        if event:
            self._counts[event] += 1

    def _weigh(self, tenant: str, change: int) -> None:
        self._bytes_of[tenant] += change
        if self._bytes_of[tenant] > self._share_bytes:
            self._above.add(tenant)
        else:
            self._above.discard(tenant)
