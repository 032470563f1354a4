"""What every store promises, asked of each of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeAlias

import pytest

from proxy.cache.entry import Entry
from proxy.cache.store import Forget, Mark, Store
from tests.unit.cache.entries import NOW, Clock, digest_of, make_entry
from tests.unit.cache.stores import LAYERED, MAKERS, Place
from tests.valkey import Valkey

Open: TypeAlias = Callable[[], AbstractAsyncContextManager[Store]]


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    with Valkey() as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=sorted(MAKERS))
def place(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Place:
    server = request.getfixturevalue("valkey") if request.param in LAYERED else None
    if server is not None:
        server.client.flushall()
    return Place(kind=request.param, directory=tmp_path, clock=clock, valkey=server)


@pytest.fixture
async def store(place: Place) -> AsyncIterator[Store]:
    async with MAKERS[place.kind](place) as store:
        yield store


async def test_what_was_put_is_got(store: Store) -> None:
    """The very same values, and nothing under any other digest."""
    for entry in (
        make_entry(),
        make_entry(text="", tenant="", swr_s=5, sie_s=7.25),
        make_entry(text="ü\ud800\x00", tenant="ü\udfff", target="\ud800" * 3, method="resources/read"),
    ):
        await store.put(digest_of(entry.target), entry, store.mark())
        assert await store.get(digest_of(entry.target)) == entry
    assert await store.get(digest_of("another")) is None
    assert await store.get(b"") is None


async def test_a_look_gives_what_is_got_or_somebody_who_fetches_it(store: Store, place: Place) -> None:
    """Issue 10: nobody waits for what this process has at hand, and everybody for what it has not."""

    async def looked(digest: bytes) -> Entry | None:
        found = store.look(digest)
        return found if found is None or isinstance(found, Entry) else await found

    kept, lost = digest_of("x"), digest_of("y")
    assert (await looked(kept), await looked(lost)) == (None, None)
    await store.put(kept, make_entry(), store.mark())
    assert (await looked(kept), await looked(lost)) == (make_entry(), None)
    if place.kind != "valkey":
        assert store.look(kept) == make_entry()
    await store.forget(Forget(None))
    assert await looked(kept) is None


async def test_the_last_one_counts(store: Store) -> None:
    for text in ("one", "two"):
        await store.put(digest_of("x"), make_entry(text=text), store.mark())
    found = await store.get(digest_of("x"))
    assert found is not None
    assert b"two" in found.result


async def test_what_is_over_is_a_miss(store: Store, clock: Clock) -> None:
    """Fresh for 60 s and stale for 10 more; not a moment longer."""
    await store.put(digest_of("x"), make_entry(fresh_s=60, swr_s=10), store.mark())
    clock.now = NOW + 69.9
    assert await store.get(digest_of("x")) is not None
    clock.now = NOW + 70
    assert await store.get(digest_of("x")) is None
    await store.put(digest_of("y"), make_entry(fresh_s=60, stored_s=NOW), store.mark())
    assert await store.get(digest_of("y")) is None


async def test_forgetting_is_exact(store: Store) -> None:
    """Of this tenant and of what is shared; of these methods and targets; nothing else."""
    kept = {
        "mine": make_entry(tenant="a", target="search_1"),
        "mine too": make_entry(tenant="a", target="find"),
        "shared": make_entry(tenant="", target="search_2"),
        "theirs": make_entry(tenant="b", target="search_1"),
        "a list": make_entry(tenant="a", method="tools/list", target=""),
    }
    for name, entry in kept.items():
        await store.put(digest_of(name), entry, store.mark())
    await store.forget(Forget("a", ("tools/call",), ("search_*",)))
    assert [name for name in kept if await store.get(digest_of(name)) is None] == ["mine", "shared"]
    await store.forget(Forget(None, ("tools/list",)))
    assert [name for name in kept if await store.get(digest_of(name)) is None] == ["mine", "shared", "a list"]
    await store.put(digest_of("mine"), kept["mine"], store.mark())
    assert await store.get(digest_of("mine")) == kept["mine"]


async def test_what_was_asked_before_a_write_is_not_stored_after_it(store: Store) -> None:
    """The read asks, the write is done and forgets, the read is answered: with what was there before the write."""
    asked = store.mark()
    await store.forget(Forget("a", ("tools/call",), ("search",)))
    await store.put(digest_of("old"), make_entry(tenant="a"), asked)
    assert await store.get(digest_of("old")) is None
    await store.put(digest_of("other"), make_entry(tenant="b"), asked)
    assert await store.get(digest_of("other")) is not None
    await store.put(digest_of("new"), make_entry(tenant="a"), store.mark())
    assert await store.get(digest_of("new")) is not None


async def test_a_flush_leaves_nothing(store: Store) -> None:
    """And nothing that was under way comes back."""
    asked = store.mark()
    for tenant in ("a", ""):
        await store.put(digest_of(tenant), make_entry(tenant=tenant), store.mark())
    await store.flush()
    await store.put(digest_of("late"), make_entry(tenant="c"), asked)
    assert [await store.get(digest_of(each)) for each in ("a", "", "late")] == [None] * 3
    await store.put(digest_of("a"), make_entry(), store.mark())
    assert await store.get(digest_of("a")) is not None


async def test_too_large_answers_are_not_kept(store: Store) -> None:
    """64 KiB in these tests."""
    await store.put(digest_of("x"), make_entry(text="x" * 70_000), store.mark())
    assert await store.get(digest_of("x")) is None
    assert store.counts["too_large"] >= 1


async def test_whoever_leaves_disturbs_nobody(store: Store) -> None:
    """CACHE-053: the answer to a cancelled command is never that to another one."""
    names = [f"entry {number}" for number in range(40)]
    for name in names:
        await store.put(digest_of(name), make_entry(text=name), store.mark())

    async def check(name: str) -> None:
        found = await store.get(digest_of(name))
        assert found is not None
        assert f'"{name}"'.encode() in found.result

    for turn in range(20):
        tasks = [asyncio.ensure_future(check(name)) for name in names]
        leaving = tasks[turn % 5 :: 3]
        for _ in range(turn % 4):
            await asyncio.sleep(0)
        for task in leaving:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [r for r in results if r is not None and not isinstance(r, asyncio.CancelledError)] == []
        assert sum(result is None for result in results) >= len(tasks) - len(leaving)


async def test_many_at_once(store: Store) -> None:
    """Each gets its own, or nothing; nobody waits for ever."""

    async def use(number: int) -> None:
        name = str(number % 50)
        await store.put(digest_of(name), make_entry(text=name, tenant=name), store.mark())
        if number % 7 == 0:
            await store.forget(Forget(name))
        found = await store.get(digest_of(name))
        assert found is None or found.tenant == name

    async with asyncio.timeout(5):
        await asyncio.gather(*map(use, range(300)))


@pytest.mark.parametrize("mark", [Mark(), Mark(own=10**9), Mark(own=3, shared=10**12, era="x")])
async def test_any_mark_is_taken(store: Store, mark: Mark) -> None:
    """A mark of another store or another life may lose an entry; it breaks nothing."""
    await store.put(digest_of("x"), make_entry(), mark)
    assert await store.get(digest_of("x")) in (None, make_entry())


Act: TypeAlias = Callable[[Store], Awaitable[object]]


@pytest.mark.parametrize(
    "act",
    [
        lambda store: store.get(digest_of("x")),
        lambda store: store.put(digest_of("x"), make_entry(), store.mark()),
        lambda store: store.forget(Forget("a")),
        lambda store: store.flush(),
        lambda store: store.close(),
    ],
)
async def test_nothing_raises_after_the_end(place: Place, act: Act) -> None:
    """A call may end later than its house."""
    async with MAKERS[place.kind](place) as store:
        await store.put(digest_of("x"), make_entry(), store.mark())
    async with asyncio.timeout(3):
        await act(store)
