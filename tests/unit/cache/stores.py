"""Every kind of store, made as the house makes it, with its jobs running."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final, TypeAlias

from msgspec import Struct

from proxy.cache.file import File
from proxy.cache.memory import Memory
from proxy.cache.store import Seal, Store
from proxy.secret import Secret
from tests.unit.cache.entries import Clock
from tests.valkey import Valkey

SECRET: Final = Secret("a secret of tests, which are no secrets")
MAX_BYTES: Final = 1_048_576
MAX_ENTRY_BYTES: Final = 65_536


class Place(Struct, frozen=True, kw_only=True):
    """Where a store may put its things."""

    kind: str
    directory: Path
    clock: Clock
    valkey: Valkey | None = None


Maker: TypeAlias = Callable[[Place], AbstractAsyncContextManager[Store]]


def make_memory(clock: Clock) -> Memory:
    return Memory(max_bytes=MAX_BYTES, max_entry_bytes=MAX_ENTRY_BYTES, per_tenant_share=1, wall=clock)


def make_file(place: Place, *, max_bytes: int = MAX_BYTES, secret: Secret = SECRET) -> File:
    return File(
        make_memory(place.clock),
        str(place.directory / "cache"),
        Seal(secret, "file"),
        max_bytes=max_bytes,
        max_entry_bytes=MAX_ENTRY_BYTES,
    )


@asynccontextmanager
async def running(store: Store) -> AsyncIterator[None]:
    """Its jobs run; at the end they are cancelled, and then it is closed, as the house does."""
    tasks = [asyncio.ensure_future(job()) for job in store.jobs]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await store.close()
        assert all(isinstance(each, asyncio.CancelledError) for each in results), results


@asynccontextmanager
async def a_memory(place: Place) -> AsyncIterator[Store]:
    store = make_memory(place.clock)
    async with running(store):
        yield store


@asynccontextmanager
async def a_file(place: Place) -> AsyncIterator[File]:
    store = make_file(place)
    async with running(store):
        async with asyncio.timeout(5):
            await store.loaded()
        yield store


MAKERS: Final[dict[str, Maker]] = {"memory": a_memory, "file": a_file}
LAYERED: Final = frozenset({"valkey", "layered"})
