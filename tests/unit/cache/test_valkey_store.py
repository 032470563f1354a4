"""The shared store on a connection that says what a test wants, when it wants: races that a real one seldom has."""

from __future__ import annotations

import asyncio

import hiredis

from proxy.cache.store import Forget, Seal, written
from proxy.cache.valkey_store import Greet, Tell, ValkeyStore
from tests.unit.cache.entries import Clock, digest_of, make_entry
from tests.unit.cache.stores import MAX_BYTES, SECRET

DIGEST = digest_of("x")
ERAS = ("a" * 32, "b" * 32)


class FakeLink:
    """A connection whose replies a test gives."""

    def __init__(self) -> None:
        self.sent: list[tuple[list[object], Tell]] = []
        self.troubles = 0

    def __len__(self) -> int:
        return len(self.sent)

    @property
    def wire(self) -> FakeLink:
        return self

    def send(self, command: bytes, tell: Tell) -> None:
        reader = hiredis.Reader()
        reader.feed(command)
        self.sent.append((reader.gets(), tell))

    def reply(self, *replies: object) -> None:
        """To the oldest commands."""
        for reply in replies:
            _, tell = self.sent.pop(0)
            tell(reply)

    def went_well(self) -> None:
        self.troubles = 0

    def had_trouble(self, why: str) -> None:
        self.troubles += 1

    async def run(self) -> None:
        """Nothing has to be kept up."""

    async def close(self) -> None:
        """Nothing is open."""


def make_store(link: FakeLink) -> ValkeyStore:
    def made(greet: Greet) -> FakeLink:
        return link

    return ValkeyStore(
        made,
        Seal(SECRET, "valkey"),
        namespace="n",
        max_entry_bytes=MAX_BYTES,
        max_reply_bytes=MAX_BYTES,
        wall=Clock(),
        now=lambda: 0.0,
        token=lambda: ERAS[0],
    )


def value(era: str, number: int) -> bytes:
    seal = Seal(SECRET, "valkey")
    return seal.signed(DIGEST, era.encode() + number.to_bytes(8, "little") + seal.packed(make_entry()))


def news(number: int, what: Forget) -> list[object]:
    return [Seal(SECRET, "valkey").signed(b"forgotten", written(what)), b"%d" % number]


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_news_since_a_number_of_another_era_leave_something_out() -> None:
    """Two look at once while the store is replaced. Both asked for what is new since 500; the new store has forgotten
    three things in all, and says that none is newer. Neither may be told what the third covers."""
    link = FakeLink()
    store = make_store(link)
    first = [b"era:" + ERAS[0].encode()], [b"era:" + ERAS[1].encode()]
    async with asyncio.timeout(5):
        for number in (0, 500):
            known = asyncio.ensure_future(store.get(DIGEST))
            await turns()
            link.reply(None, -2, first[0], news(500, Forget("b")) if number else [])
            assert await known is None
        assert store.mark().shared == 500
        looks = [asyncio.ensure_future(store.get(DIGEST)) for _ in range(2)]
        await turns()
        for _ in looks:
            link.reply(value(ERAS[1], 1), 60_000, first[1], [])
        assert await asyncio.gather(*looks) == [None, None]
        last = asyncio.ensure_future(store.get(DIGEST))
        await turns()
        assert link.sent[-1][0][2] == b"(0"
        link.reply(value(ERAS[1], 1), 60_000, first[1], news(3, Forget("a")))
        assert await last is None
        assert store.counts["forgotten"] == 1
        last = asyncio.ensure_future(store.get(DIGEST))
        await turns()
        link.reply(value(ERAS[1], 3), 60_000, first[1], [])
        assert await last == make_entry()


async def test_a_reply_that_does_not_come_is_a_miss_and_counted() -> None:
    """Late, lost, an error, or nonsense."""
    link = FakeLink()
    store = make_store(link)
    assert await store.get(DIGEST) is None
    assert (store.counts["outage"], link.troubles) == (1, 1)
    for reply in (object(), ValueError("WRONGTYPE"), [], 5, None, [b"era:short"], [7]):
        link.sent.clear()
        look = asyncio.ensure_future(store.get(DIGEST))
        await turns()
        link.reply(value(ERAS[0], 1), 60_000, reply, [])
        assert await look is None
    assert store.counts["outage"] == 8
    assert not store.is_current
