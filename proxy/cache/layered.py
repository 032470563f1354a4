"""Two levels: the memory of this process before the store that replicas share.

In: entries, and what is forgotten. Out: what the memory has, else what the store has, which the memory then has, too.
Keeps nothing itself. While the news of what others forgot do not come, the memory is not used: else one replica would
tell for an hour what another one's call has changed. It is used again when they come, as far as nothing in it was
forgotten meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Protocol

from ..model import Job
from .entry import Entry
from .memory import Memory
from .store import Counts, Forget, Mark, Store


class Second(Store, Protocol):
    """A store that hears what others forgot."""

    heard: Callable[[Forget | None], None]

    @property
    def is_current(self) -> bool: ...


class Layered:
    """Used inside one running loop."""

    def __init__(self, memory: Memory, second: Second) -> None:
        self.memory = memory
        """What of it is at hand."""
        self._second = second
        second.heard = self._heard

    @property
    def counts(self) -> Counts:
        """Of both levels: what is stored in two places is stored twice."""
        return Counter(self.memory.counts) + Counter(self._second.counts)

    @property
    def bytes_held(self) -> int:
        return self.memory.bytes_held

    @property
    def jobs(self) -> tuple[Job, ...]:
        return (*self.memory.jobs, *self._second.jobs)

    def mark(self) -> Mark:
        there = self._second.mark()
        return Mark(own=self.memory.mark().own, shared=there.shared, era=there.era)

    def look(self, digest: bytes) -> Entry | Awaitable[Entry | None]:
        known = self.memory.look(digest) if self._second.is_current else None
        return self._asked(digest) if known is None else known

    async def get(self, digest: bytes) -> Entry | None:
        found = self.look(digest)
        return found if isinstance(found, Entry) else await found

    async def _asked(self, digest: bytes) -> Entry | None:
        asked = self.memory.mark()
        found = await self._second.get(digest)
        if found is not None:
            self.memory.keep(digest, found, asked)
            return found
        # The store answered, and has dropped it; or there is none.
        return self.memory.look(digest) if self._second.is_current else None

    async def put(self, digest: bytes, entry: Entry, asked: Mark) -> None:
        self.memory.keep(digest, entry, asked)
        await self._second.put(digest, entry, asked)

    async def forget(self, what: Forget) -> None:
        self.memory.drop(what)
        await self._second.forget(what)

    async def flush(self) -> None:
        self.memory.empty()
        await self._second.flush()

    async def close(self) -> None:
        await self._second.close()

    def _heard(self, what: Forget | None) -> None:
        if what is None:
            self.memory.empty()
        else:
            self.memory.drop(what)
