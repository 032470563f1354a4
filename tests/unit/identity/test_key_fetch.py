"""Keys are fetched one at a time, whoever wants them, and nobody waits long for a provider that hangs."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from proxy.identity.key_fetch import KeyFetch
from proxy.identity.key_set import PublicKey
from proxy.identity.keys import Keys, Miss
from proxy.identity.provider import Unavailable
from tests.idp import jwk_of, key_for
from tests.integration.waiting import LONGEST_S, turns, within

URL = "https://idp.test/jwks"


def document(*kids: str) -> bytes:
    return json.dumps({"keys": [{**jwk_of(key_for(kid, "ES256")), "kid": kid} for kid in kids]}).encode()


class FakeProvider:
    """Fulfils `Fetches`: says what it is told, and holds its answer back while it is told to."""

    def __init__(self) -> None:
        self.says: bytes | Exception = document("k1")
        self.then: bytes | None = None
        """What it says from the next answer on."""
        self.max_age_s: float | None = None
        self.urls: list[str] = []
        self.under_way = 0
        self.most_under_way = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self._came = asyncio.Condition()

    async def fetch(self, url: str) -> tuple[bytes, float | None]:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            async with self._came:
                self.urls.append(url)
                self._came.notify_all()
            await self.may_answer.wait()
            says, self.says = self.says, self.then or self.says
            if isinstance(says, Exception):
                raise says
            return says, self.max_age_s
        finally:
            self.under_way -= 1

    async def asked(self, times: int) -> None:
        async with within(), self._came:
            await self._came.wait_for(lambda: len(self.urls) >= times)


class Stand:
    """A key fetch between a clock that stands still and a provider that does as it is told."""

    def __init__(self, *, refresh_s: float = 300.0, patience_s: float = LONGEST_S) -> None:
        self.now = 0.0
        self.provider = FakeProvider()
        self.keys = Keys(refresh_s=refresh_s, max_stale_s=3_600.0)
        self.forgotten = 0
        self.fetch = KeyFetch(
            self.keys,
            URL,
            self.provider,
            algorithms=("ES256",),
            forget=self._forget,
            now=lambda: self.now,
            chance=lambda: 0.0,
            patience_s=patience_s,
        )

    def _forget(self) -> None:
        self.forgotten += 1

    async def find(self, kid: str) -> str | Miss | None:
        async with within():
            found = await self.fetch.find(kid, "ES256")
        return found.kid if isinstance(found, PublicKey) else found

    async def until(self, is_true: Callable[[], bool]) -> None:
        """Let the loop turn until it is so."""
        async with within():
            while not is_true():  # noqa: ASYNC110  # turns of the loop, no time passes
                await asyncio.sleep(0)

    @asynccontextmanager
    async def running(self, *, loaded: bool = True) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            job = group.create_task(self.fetch.run())
            try:
                if loaded:
                    await self.until(lambda: self.keys.is_usable(self.now))
                yield
            finally:
                job.cancel()


async def test_keys_are_fetched_at_once_and_from_our_own_url() -> None:
    stand = Stand()
    async with stand.running():
        assert await stand.find("k1") == "k1"
    assert stand.provider.urls == [URL]


async def test_keys_are_fetched_again_when_they_are_due() -> None:
    stand = Stand(refresh_s=0.01)
    async with stand.running():
        await stand.provider.asked(1)
        stand.now = 0.01
        await stand.provider.asked(2)
    assert stand.provider.most_under_way == 1


async def test_a_max_age_is_passed_on() -> None:
    stand = Stand()
    stand.provider.max_age_s = 100
    async with stand.running():
        assert stand.keys.wait_s(0) == 100


async def test_whose_key_is_known_does_not_wait_at_all() -> None:
    """Not even for one turn of the loop, while a fetch hangs."""
    stand = Stand()
    async with stand.running():
        stand.provider.may_answer.clear()
        waiting = asyncio.ensure_future(stand.find("kx"))
        await stand.provider.asked(2)
        with pytest.raises(StopIteration) as found:
            stand.fetch.find("k1", "ES256").send(None)
        assert isinstance(found.value.value, PublicKey)
        stand.provider.may_answer.set()
        assert await waiting is Miss.UNKNOWN


async def test_a_thousand_unknown_kids_cause_one_fetch() -> None:
    """Whatever arrives: single-flight while it is under way, settled for 30 s after it."""
    stand = Stand()
    async with stand.running():
        stand.provider.may_answer.clear()
        waiting = [asyncio.ensure_future(stand.find(f"x{at}")) for at in range(1_000)]
        await stand.provider.asked(2)
        stand.provider.may_answer.set()
        assert set(await asyncio.gather(*waiting)) == {Miss.UNKNOWN}
        assert {await stand.find(f"y{at}") for at in range(1_000)} == {Miss.UNKNOWN}
    assert (len(stand.provider.urls), stand.provider.most_under_way) == (2, 1)


async def test_a_new_key_is_there_for_the_first_who_brings_its_kid() -> None:
    stand = Stand()
    async with stand.running():
        stand.provider.says = document("k1", "k2")
        assert await stand.find("k2") == "k2"
        assert (len(stand.provider.urls), stand.forgotten) == (2, 0)


async def test_a_fetch_that_began_before_is_followed_by_one_that_was_asked_for() -> None:
    """Its answer may be older than the key; the call waits for both within its patience."""
    stand = Stand(refresh_s=0.01)
    async with stand.running():
        stand.provider.may_answer.clear()
        stand.now = 0.01
        await stand.provider.asked(2)
        waiting = asyncio.ensure_future(stand.find("k2"))
        await turns()
        assert not waiting.done()
        stand.provider.then = document("k1", "k2")
        stand.provider.may_answer.set()
        assert await waiting == "k2"
    assert len(stand.provider.urls) == 3


async def test_a_provider_that_hangs_is_not_waited_for() -> None:
    """Patience ends, the fetch goes on; nobody can tell meanwhile: 503."""
    stand = Stand(patience_s=0.01)
    async with stand.running():
        stand.provider.may_answer.clear()
        assert await stand.find("k2") is Miss.NOBODY_KNOWS
        assert await stand.find("k1") == "k1"
        assert stand.provider.under_way == 1
        assert stand.provider.most_under_way == 1


async def test_before_the_first_answer_nobody_waits() -> None:
    """Clients get a 503 with Retry-After at once instead of a connection that hangs with ours."""
    stand = Stand()
    stand.provider.may_answer.clear()
    async with stand.running(loaded=False):
        await stand.provider.asked(1)
        with pytest.raises(StopIteration) as found:
            stand.fetch.find("k1", "ES256").send(None)
        assert found.value.value is Miss.NOBODY_KNOWS


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (Unavailable("timeout"), "timeout"),
        (Unavailable("status 500"), "status 500"),
        (b"<html>Sign in</html>", "not acceptable JSON"),
        (b"{}", "no list of keys"),
        (RuntimeError("secret"), "unexpected RuntimeError"),
        (TimeoutError(), "unexpected TimeoutError"),
        (KeyError("secret"), "unexpected KeyError"),
    ],
)
async def test_what_fails_keeps_the_old_keys_and_is_tried_again(says: bytes | Exception, why: str) -> None:
    stand = Stand()
    async with stand.running():
        stand.provider.says = says
        assert await stand.find("k2") is Miss.NOBODY_KNOWS
        assert stand.keys.why_degraded(0) == f"keys not renewed: {why}"
        assert await stand.find("k1") == "k1"
        assert stand.forgotten == 0
        assert stand.keys.wait_s(0) == 5.0


async def test_at_the_start_it_is_tried_again_soon() -> None:
    stand = Stand()
    stand.provider.says = Unavailable("not reached")
    async with stand.running(loaded=False):
        await stand.until(lambda: stand.keys.why_degraded(0) == "no keys: not reached")
        assert stand.keys.wait_s(0) == 0.25
        stand.now = 0.25
        stand.provider.says = document("k1")
        await stand.provider.asked(2)
        await stand.until(lambda: stand.keys.is_usable(stand.now))


@pytest.mark.parametrize(("says", "forgotten"), [(("k1", "k2"), 0), (("k2",), 1), ((), 1)])
async def test_what_was_verified_is_forgotten_with_its_key(says: tuple[str, ...], forgotten: int) -> None:
    stand = Stand()
    async with stand.running():
        stand.provider.says = document(*says)
        await stand.find("k2")
        assert stand.forgotten == forgotten


async def test_whoever_waits_is_not_left_waiting_when_the_job_ends() -> None:
    stand = Stand(patience_s=0.01)
    async with stand.running():
        stand.provider.may_answer.clear()
        waiting = asyncio.ensure_future(stand.find("k2"))
        await stand.provider.asked(2)
    assert await waiting is Miss.NOBODY_KNOWS
    assert stand.provider.under_way == 0
