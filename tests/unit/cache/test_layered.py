"""A memory before another store: who is asked when, and what is believed while no news come."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from proxy.cache.entry import Entry
from proxy.cache.layered import Layered
from proxy.cache.store import Counts, Forget, Mark
from proxy.model import Job
from tests.unit.cache.entries import Clock, digest_of, make_entry
from tests.unit.cache.stores import make_memory

DIGEST = digest_of("x")


class FakeSecond:
    """A second level that does as a test says."""

    def __init__(self) -> None:
        self.heard: Callable[[Forget | None], None] = lambda what: None
        self.is_current = True
        self.entry: Entry | None = None
        self.during_get: Callable[[], None] = lambda: None
        self.asked = 0
        self.put_with: list[Mark] = []
        self.forgotten: list[Forget] = []

    @property
    def counts(self) -> Counts:
        return {"outage": 2, "stored": 1}

    @property
    def jobs(self) -> tuple[Job, ...]:
        return (self.flush,)

    def mark(self) -> Mark:
        return Mark(own=99, shared=7, era="e")

    def look(self, digest: bytes) -> Awaitable[Entry | None]:
        return self.get(digest)

    async def get(self, digest: bytes) -> Entry | None:
        self.asked += 1
        self.during_get()
        return self.entry

    async def put(self, digest: bytes, entry: Entry, asked: Mark) -> None:
        self.put_with.append(asked)

    async def forget(self, what: Forget) -> None:
        self.forgotten.append(what)

    async def flush(self) -> None:
        self.forgotten.append(Forget(None))

    async def close(self) -> None:
        self.asked = -1


@pytest.fixture
def second() -> FakeSecond:
    return FakeSecond()


@pytest.fixture
def store(second: FakeSecond) -> Layered:
    return Layered(make_memory(Clock()), second)


async def test_the_memory_is_asked_first(store: Layered, second: FakeSecond) -> None:
    """What the second level had once is in memory then."""
    second.entry = make_entry()
    assert await store.get(DIGEST) == second.entry
    second.entry = None
    assert await store.get(DIGEST) == make_entry()
    assert second.asked == 1


async def test_what_is_forgotten_while_the_store_answers_is_not_kept(
    store: Layered, second: FakeSecond
) -> None:
    """The entry may be from before; whoever waits for it gets what the store said, and nobody after them."""
    second.entry = make_entry()
    second.during_get = lambda: second.heard(Forget("a"))
    await store.get(DIGEST)
    second.entry, second.during_get = None, lambda: None
    assert await store.get(DIGEST) is None


async def test_without_news_only_the_store_is_believed(store: Layered, second: FakeSecond) -> None:
    await store.put(DIGEST, make_entry(text="memory"), store.mark())
    second.is_current = False
    assert await store.get(DIGEST) is None
    second.entry = make_entry(text="store")
    assert await store.get(DIGEST) == second.entry
    second.entry, second.is_current = None, True
    assert await store.get(DIGEST) == make_entry(text="store")


async def test_the_memory_helps_when_the_store_has_just_been_heard(
    store: Layered, second: FakeSecond
) -> None:
    """It dropped the entry, but says that nothing was forgotten."""
    await store.put(DIGEST, make_entry(), store.mark())
    second.is_current = False

    def answer() -> None:
        second.is_current = True

    second.during_get = answer
    assert await store.get(DIGEST) == make_entry()


@pytest.mark.parametrize(("heard", "is_there"), [(Forget("a"), False), (None, False), (Forget("b"), True)])
async def test_what_others_forget_leaves_the_memory(
    store: Layered, second: FakeSecond, heard: Forget | None, is_there: bool
) -> None:
    await store.put(DIGEST, make_entry(), store.mark())
    second.heard(heard)
    assert (await store.get(DIGEST) is not None) is is_there


async def test_both_levels_hear_everything(store: Layered, second: FakeSecond) -> None:
    mark = store.mark()
    assert mark == Mark(own=0, shared=7, era="e")
    await store.put(DIGEST, make_entry(), mark)
    await store.forget(Forget("a"))
    assert await store.get(DIGEST) is None
    await store.put(DIGEST, make_entry(), store.mark())
    await store.flush()
    assert await store.get(DIGEST) is None
    assert store.bytes_held == 0
    assert second.put_with == [mark, Mark(own=1, shared=7, era="e")]
    assert second.forgotten == [Forget("a"), Forget(None)]
    assert store.counts["outage"] == 2
    assert store.counts["stored"] == 3
    assert store.jobs == (second.flush,)
    await store.close()
    assert second.asked == -1
