"""Every kind of store, made as the house makes it, with its jobs running."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final, TypeAlias

from msgspec import Struct

from proxy.cache.file import File
from proxy.cache.layered import Layered
from proxy.cache.memory import Memory
from proxy.cache.store import Seal, Store
from proxy.cache.valkey_store import Greet, ValkeyStore
from proxy.limits.valkey_link import Link
from proxy.limits.valkey_url import read_place
from proxy.limits.valkey_wire import MAX_REPLY_BYTES
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


PATIENT_S: Final = 2.0
"""A machine that runs tests may be late without a store being so."""


def make_valkey(
    place: Place, *, secret: Secret = SECRET, namespace: str = "tests", timeout_s: float = PATIENT_S
) -> tuple[ValkeyStore, Link]:
    """The store, and its connection. The clock of the store itself goes on."""
    assert place.valkey is not None
    links: list[Link] = []

    def link(greet: Greet) -> Link:
        assert place.valkey is not None
        url = read_place(Secret(place.valkey.url))
        links.append(Link(url, greet, told=lambda _: None, chance=lambda: 0.1, tls=None, sleep=asyncio.sleep))
        return links[0]

    store = ValkeyStore(
        link,
        Seal(secret, f"valkey {namespace}"),
        namespace=namespace,
        max_entry_bytes=MAX_ENTRY_BYTES,
        max_reply_bytes=MAX_REPLY_BYTES,
        wall=place.clock,
        now=time.monotonic,
        token=lambda: secrets.token_hex(16),
        timeout_s=timeout_s,
    )
    return store, links[0]


async def ready(store: ValkeyStore, link: Link) -> None:
    """Until it is connected and knows what was forgotten."""
    async with asyncio.timeout(5):
        await link.first_try()
        while not store.is_current:
            await store.get(b"nothing")
            await asyncio.sleep(0.001)


@asynccontextmanager
async def a_valkey(place: Place) -> AsyncIterator[ValkeyStore]:
    store, link = make_valkey(place)
    async with running(store):
        await ready(store, link)
        yield store


@asynccontextmanager
async def layers(place: Place) -> AsyncIterator[Layered]:
    second, link = make_valkey(place)
    store = Layered(make_memory(place.clock), second)
    async with running(store):
        await ready(second, link)
        yield store


MAKERS: Final[dict[str, Maker]] = {
    "memory": a_memory,
    "file": a_file,
    "valkey": a_valkey,
    "layered": layers,
}
LAYERED: Final = frozenset({"valkey", "layered"})
