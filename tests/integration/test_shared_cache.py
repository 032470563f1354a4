"""Two replicas and a real store: what one forgets the other does not tell, and what is not ours in it is nothing."""

from __future__ import annotations

import asyncio
import math
import pickle
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
from msgspec import Struct, structs

from proxy.cache import valkey_store
from proxy.cache.entry import Entry
from proxy.cache.layered import Layered
from proxy.cache.store import Forget, Seal
from proxy.cache.valkey_store import ValkeyStore
from proxy.limits.valkey_link import Link
from proxy.limits.valkey_wire import MAX_REPLY_BYTES
from proxy.secret import Secret
from tests.unit.cache.entries import NOW, Clock, digest_of, make_entry
from tests.unit.cache.stores import PATIENT_S, SECRET, Place, make_memory, make_valkey, ready, running
from tests.valkey import Valkey

DIGEST: Final = digest_of("x")
NAME: Final = b"{mcp-sidecar:tests}:cache:1:"
LOG: Final = NAME + b"forgotten"
KEY: Final = NAME + b"entry:" + DIGEST.hex().encode()


@pytest.fixture(scope="module")
def server() -> Iterator[Valkey]:
    with Valkey() as valkey:
        yield valkey


@pytest.fixture
def place(server: Valkey, tmp_path: Path) -> Place:
    server.client.flushall()
    return Place(kind="valkey", directory=tmp_path, clock=Clock(), valkey=server)


class Replica(Struct, frozen=True):
    """One process of a deployment."""

    store: Layered
    second: ValkeyStore
    link: Link

    async def put(self, entry: Entry) -> None:
        await self.store.put(DIGEST, entry, self.store.mark())

    async def until_ready(self) -> None:
        await ready(self.second, self.link)


@asynccontextmanager
async def replica(
    place: Place, *, secret: Secret = SECRET, namespace: str = "tests", timeout_s: float = PATIENT_S
) -> AsyncIterator[Replica]:
    second, link = make_valkey(place, secret=secret, namespace=namespace, timeout_s=timeout_s)
    store = Layered(make_memory(place.clock), second)
    async with running(store):
        await ready(second, link)
        yield Replica(store, second, link)


@asynccontextmanager
async def two(place: Place, timeout_s: float = PATIENT_S) -> AsyncIterator[tuple[Replica, Replica]]:
    async with AsyncExitStack() as stack:
        yield (
            await stack.enter_async_context(replica(place, timeout_s=timeout_s)),
            await stack.enter_async_context(replica(place, timeout_s=timeout_s)),
        )


async def stored(valkey: Valkey) -> bytes:
    """What lies under the key, once it does."""
    async with asyncio.timeout(5):
        while True:
            value = valkey.client.get(KEY)
            if value is not None:
                assert isinstance(value, bytes)
                return value
            await asyncio.sleep(0.001)


async def until(holds: Callable[[], Awaitable[bool]], within_s: float = 5) -> None:
    """Ask again and again."""
    async with asyncio.timeout(within_s):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.002)


async def gone(replica: Replica, within_s: float) -> None:
    """Until it does not tell the entry any more."""

    async def is_gone() -> bool:
        return await replica.store.get(DIGEST) is None

    await until(is_gone, within_s)


async def test_what_one_stores_the_other_tells(place: Place, server: Valkey) -> None:
    """And not longer than it may: it expires with the last allowance."""
    entry = make_entry(fresh_s=60, swr_s=5, sie_s=30)
    async with two(place) as (one, other):
        await one.put(entry)
        await stored(server)
        assert await other.store.get(DIGEST) == entry
        assert 80_000 < server.client.pttl(KEY) <= 90_000
        # From its own memory now.
        server.client.flushall()
        assert other.second.is_current
        assert await other.store.get(DIGEST) == entry


async def test_what_one_forgets_the_other_does_not_tell(place: Place, server: Valkey) -> None:
    """Stated bound: BOUND_S after `forget` returned, from no memory. Others' things stay."""
    async with two(place) as (one, other):
        kept = make_entry(tenant="b")
        await one.store.put(digest_of("b"), kept, one.store.mark())
        await one.put(make_entry(tenant=""))
        await stored(server)
        assert await other.store.get(DIGEST) is not None
        assert await other.store.get(digest_of("b")) == kept
        await one.store.forget(Forget("a", ("tools/call",), ("sea*",)))
        assert await one.store.get(DIGEST) is None
        await gone(other, valkey_store.BOUND_S)
        assert await other.store.get(digest_of("b")) == kept
        # In the store it lies still, and nobody believes it.
        assert server.client.get(KEY) is not None
        async with replica(place) as third:
            assert await third.store.get(DIGEST) is None
            assert third.store.counts["forgotten"] == 1


async def test_an_answer_that_another_replica_made_old_is_not_told(place: Place) -> None:
    """One asks the server, the other one's call changes it and forgets, the first one is answered what was before."""
    async with two(place) as (one, other):
        asked = one.store.mark()
        await other.store.forget(Forget("a"))
        await one.store.put(DIGEST, make_entry(), asked)
        assert await other.store.get(DIGEST) is None
        await gone(one, valkey_store.BOUND_S)


async def test_a_flush_reaches_everybody(place: Place, server: Valkey) -> None:
    async with two(place) as (one, other):
        await one.put(make_entry(tenant="b"))
        await stored(server)
        assert await other.store.get(DIGEST) is not None
        await one.store.flush()
        await gone(other, valkey_store.BOUND_S)


# What is not ours


def flipped(value: bytes, position: int) -> bytes:
    return value[:position] + bytes([value[position] ^ 1]) + value[position + 1 :]


@pytest.mark.parametrize(
    ("change", "event"),
    [
        *((lambda value, at=at: flipped(value, at), "forged") for at in (0, 31, 32, 63, 64, 72, 90, 200, -1)),
        (lambda value: value[:-1], "forged"),
        (lambda value: value + b"\0", "forged"),
        (lambda value: value[:20], "forged"),
        (lambda value: b"", "forged"),
        (lambda value: pickle.dumps(make_entry().result), "forged"),
        (lambda value: value[32:], "forged"),
        (lambda value: Seal(SECRET, "file").signed(DIGEST, value[32:]), "forged"),
        (lambda value: Seal(SECRET, "valkey other").signed(DIGEST, value[32:]), "forged"),
        (lambda value: Seal(SECRET, "valkey tests").signed(digest_of("y"), value[32:]), "forged"),
        (lambda value: Seal(SECRET, "valkey tests").signed(DIGEST, value[32:72] + b"=older"), "foreign"),
        (lambda value: Seal(SECRET, "valkey tests").signed(DIGEST, b""), "forged"),
        (lambda value: Seal(SECRET, "valkey tests").signed(DIGEST, b"0" * 10), "foreign"),
        (lambda value: Seal(SECRET, "valkey tests").signed(DIGEST, b"0" * 32 + value[64:]), "forgotten"),
    ],
)
async def test_a_poisoned_value_is_a_miss(
    place: Place, server: Valkey, change: Callable[[bytes], bytes], event: str
) -> None:
    """CACHE-051 and 052, issue 6: ignored and counted; what is right beside it is told."""
    async with two(place) as (one, other):
        await one.put(make_entry())
        good = await stored(server)
        server.client.set(KEY, change(good), px=50_000)
        assert await other.store.get(DIGEST) is None
        assert other.store.counts[event] == 1
        server.client.set(KEY, good, px=50_000)
        assert await other.store.get(DIGEST) is not None


async def test_an_entry_under_another_key_is_a_miss(place: Place, server: Valkey) -> None:
    """CACHE-052: the value of Carol copied to the key of Alice."""
    async with two(place) as (one, other):
        await one.put(make_entry(tenant="carol"))
        await stored(server)
        alice = digest_of("alice")
        server.client.copy(KEY.decode(), f"{NAME.decode()}entry:{alice.hex()}")
        assert await other.store.get(alice) is None
        assert other.store.counts["forged"] == 1


async def test_what_the_connection_cannot_hold_is_not_stored(place: Place, server: Valkey) -> None:
    """It would break at each look for it, and everybody's looks with it. Up to there, it comes back whole."""
    async with replica(place) as one:
        for length in (MAX_REPLY_BYTES - 100, MAX_REPLY_BYTES - 400):
            await one.second.put(DIGEST, make_entry(text="x" * length), one.second.mark())
        assert len(await stored(server)) > MAX_REPLY_BYTES - 400
        assert one.second.counts["too_large"] == 1
        for what in range(40):
            await one.second.forget(Forget("b", (), (f"{what}" * 1_000,)))
        async with replica(place) as other:
            found = await other.second.get(DIGEST)
            assert found is not None
            assert len(found.result) > MAX_REPLY_BYTES - 400
            assert other.link.outages == 0


async def test_values_of_another_type_are_misses(place: Place, server: Valkey) -> None:
    async with two(place) as (one, other):
        server.client.lpush(KEY, "x")
        assert await other.store.get(DIGEST) is None
        assert other.store.counts["foreign"] == 1
        await one.put(make_entry())

        async def is_told() -> bool:
            return await other.store.get(DIGEST) is not None

        await until(is_told)


async def test_another_secret_and_another_deployment_read_nothing(place: Place, server: Valkey) -> None:
    other_secret = Secret("another secret, which is no secret either")
    async with replica(place) as one:
        await one.put(make_entry())
        await stored(server)
        async with (
            replica(place, secret=other_secret) as other,
            replica(place, namespace="elsewhere") as third,
        ):
            assert await other.store.get(DIGEST) is None
            assert other.store.counts["forged"] == 1
            assert await third.store.get(DIGEST) is None
            # And what it forgets is not overlooked by those who cannot read it: nothing is told any more.
            await other.store.forget(Forget("a", ("tools/call",), ("search",)))
            await gone(one, valkey_store.BOUND_S)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda client: client.flushall(),
        lambda client: client.delete(LOG),
        lambda client: client.set(LOG, "somebody's"),
        lambda client: client.zadd(LOG, {"not signed": 5}),
        lambda client: client.zadd(LOG, {"not signed": 1e300}),
        lambda client: client.zadd(LOG, {"before the era": -1}),
    ],
)
async def test_a_spoiled_list_of_what_was_forgotten_costs_everything(
    place: Place, server: Valkey, spoil: Callable[[object], object]
) -> None:
    """What was forgotten is not known any more, so nothing from before is told; and it works again by itself."""
    async with two(place) as (one, other):
        await one.put(make_entry())
        value = await stored(server)
        await one.store.forget(Forget("a"))
        spoil(server.client)
        server.client.set(KEY, value, px=50_000)
        async with replica(place) as third:
            assert await third.store.get(DIGEST) is None
        await one.until_ready()
        await gone(other, valkey_store.BOUND_S)

        async def works() -> bool:
            await one.put(make_entry(text="new"))
            found = await other.second.get(DIGEST)
            return found is not None and b"new" in found.result

        await until(works)


async def test_the_list_of_what_was_forgotten_is_bounded(place: Place, server: Valkey) -> None:
    """Beyond the bound, what is older than the oldest thing known is a miss; what is younger is told."""
    async with replica(place) as one:
        await one.put(make_entry(tenant="b"))
        old = await stored(server)
        for start in range(0, 5_000, 50):
            async with asyncio.timeout(5):
                await asyncio.gather(
                    *(one.second.forget(Forget("a", (), (str(start + each),))) for each in range(50))
                )
        assert server.client.zcard(LOG) <= valkey_store.MOST_FORGOTTEN + 1
        async with replica(place) as other:
            assert await other.store.get(DIGEST) is None
            assert other.store.counts["forgotten"] == 1
            assert server.client.get(KEY) == old
            await other.put(make_entry(tenant="b"))
            assert await other.second.get(DIGEST) is not None
            await one.store.forget(Forget("b"))
            await gone(other, valkey_store.BOUND_S)


# Outages


async def test_a_store_that_hangs_is_a_miss_soon(place: Place) -> None:
    """Contract: within 50 ms; after a few of them at once. It is used again when it goes on."""
    with Valkey() as server:
        mine = structs.replace(place, valkey=server)
        async with two(mine, valkey_store.TIMEOUT_S) as (one, other):
            await one.put(make_entry())
            await stored(server)
            server.hang()
            loop = asyncio.get_running_loop()
            lengths = []
            for _ in range(8):
                begun = loop.time()
                assert await other.second.get(DIGEST) is None
                lengths.append(loop.time() - begun)
            assert max(lengths) < 10 * valkey_store.TIMEOUT_S
            assert other.link.wire is None
            assert other.store.counts["outage"] >= 8
            # What is forgotten meanwhile is told when it goes on, before anything else.
            await one.store.forget(Forget("a"))
            server.go_on()
            await one.until_ready()
            await other.until_ready()
            assert await one.store.get(DIGEST) is None
            await gone(other, valkey_store.BOUND_S)


async def test_what_could_not_be_told_is_told_later(place: Place, server: Valkey) -> None:
    """The connection is lost at the very moment; the store, and what it knows, is not."""
    async with two(place) as (one, other):
        await one.put(make_entry())
        await stored(server)
        assert await other.store.get(DIGEST) is not None
        server.client.client_kill_filter(_type="normal", skipme=True)

        async def is_lost() -> bool:
            return one.link.wire is None

        await until(is_lost)
        await one.store.forget(Forget("a"))
        assert server.client.zcard(LOG) == 1
        await one.until_ready()
        await other.until_ready()
        await gone(other, 5)
        assert server.client.zcard(LOG) == 2
        assert server.client.get(KEY) is not None


async def test_an_answer_from_before_the_store_was_emptied_is_not_stored(
    place: Place, server: Valkey
) -> None:
    """Its mark counts as another store counted: nothing that is forgotten later would cover it."""
    async with replica(place) as one:
        for _ in range(5):
            await one.store.forget(Forget("a"))
        asked = one.store.mark()
        server.client.flushall()

        async def is_another() -> bool:
            await one.second.get(DIGEST)
            return one.second.mark().era != asked.era

        await until(is_another)
        await one.until_ready()
        await one.second.put(DIGEST, make_entry(), asked)
        assert await one.second.get(DIGEST) is None
        assert one.second.counts["late"] == 1


async def test_what_was_stored_after_forgetting_stays(place: Place) -> None:
    """A replica that hears its own news does not forget what came after them."""
    async with replica(place) as one:
        await one.store.forget(Forget("a"))
        await one.put(make_entry())
        before = one.second.mark()
        await one.second.forget(Forget("b"))

        async def heard() -> bool:
            await one.second.get(b"nothing")
            return one.second.mark() != before

        await until(heard)
        assert one.store.counts.get("forgotten", 0) == 0
        assert await one.store.get(DIGEST) is not None
        assert one.store.counts.get("forgotten", 0) == 0


async def test_without_news_the_memory_is_not_used(place: Place) -> None:
    """The bound holds in outages, too: what others forget cannot be heard. When the store returns, so does the memory,
    unless the store is another one."""
    with Valkey() as server:
        mine = structs.replace(place, valkey=server)
        async with replica(mine, timeout_s=valkey_store.TIMEOUT_S) as one:
            await one.put(make_entry())
            assert await one.store.get(DIGEST) is not None
            server.hang()
            await gone(one, valkey_store.BOUND_S + 1)
            server.go_on()
            await one.until_ready()
            assert await one.store.get(DIGEST) is not None
            era = one.store.mark().era
            server.kill()
            server.start()

            async def is_another() -> bool:
                return one.store.mark().era != era

            await until(is_another)
            assert await one.store.get(DIGEST) is None
            await one.until_ready()
            await one.put(make_entry())
            assert await one.second.get(DIGEST) is not None


async def test_nobody_gets_the_answer_of_one_who_left(place: Place, server: Valkey) -> None:
    """CACHE-053: 4,000 looks, of which one in twenty is cancelled at any moment; each finds its own or nothing."""
    async with replica(place) as one:
        for number in range(50):
            await one.second.put(digest_of(f"{number}"), make_entry(target=f"{number}"), one.second.mark())
        seen: list[tuple[int, str | None]] = []

        async def look(number: int) -> None:
            found = await one.second.get(digest_of(f"{number}"))
            seen.append((number, None if found is None else found.target))

        for start in range(100):
            tasks = [asyncio.ensure_future(look((start + each) % 60)) for each in range(40)]
            for each in range(start % 20, 40, 20):
                asyncio.get_running_loop().call_later(each / 1e5, tasks[each].cancel)
            async with asyncio.timeout(5):
                await asyncio.gather(*tasks, return_exceptions=True)
        # A store that is late is a miss; whatever comes is one's own.
        assert {(n, target) for n, target in seen if target is not None} == {(n, f"{n}") for n in range(50)}
        assert len(seen) < 4_000


@pytest.mark.parametrize("ahead_s", [50, -50])
async def test_clocks_of_replicas_make_nothing_younger(place: Place, server: Valkey, ahead_s: float) -> None:
    """Whose clock is ahead stores answers from the future; the store's own clock says how old they are."""
    ahead = structs.replace(place, clock=Clock())
    ahead.clock.now = NOW + ahead_s
    async with replica(ahead) as one, replica(place) as other:
        await one.put(make_entry(stored_s=ahead.clock.now))
        await stored(server)
        found = await other.store.get(DIGEST)
        assert found is not None
        assert found.stored_s <= NOW + valkey_store.DRIFT_S
        assert server.client.pexpire(KEY, 20_000)
        # As old as the store says: two thirds of its life have passed.
        found = await other.second.get(DIGEST)
        assert found is not None
        assert math.isclose(NOW - found.stored_s, max(40, -ahead_s), abs_tol=1)
        # Whoever writes to the store cannot make it younger.
        server.client.pexpire(KEY, 3_000_000)
        found = await other.second.get(DIGEST)
        assert found is not None
        assert found.stored_s <= NOW + ahead_s + valkey_store.DRIFT_S
