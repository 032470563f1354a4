"""Replicas give together what one limit says, with a real Valkey: up, hung, killed, full, read-only, poisoned."""

from __future__ import annotations

import asyncio
import math
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import hiredis
import pytest
from cryptography import x509

from proxy.lifecycle.background import Background
from proxy.limits.demand import Demand, Denied, Granted, Quota, Rate, Window
from proxy.limits.local import Local
from proxy.limits.shared import MAX_UNDER_WAY, Shared
from proxy.limits.valkey_link import TROUBLES
from proxy.limits.valkey_script import Taken
from proxy.limits.valkey_url import Place, read_place
from proxy.model import Reason, Refused
from proxy.secret import Secret
from tests import ledger
from tests.certificates import Authority, Issued, a_name
from tests.integration.tls import LOOPBACK
from tests.integration.waiting import LONGEST_S, turns, within
from tests.valkey import Valkey

HOUR = Window("sliding", sliding_s=3_600)
DAY = Window("day")
PATIENT_S = 5.0
"""A timeout that is not reached on a busy machine."""
SHORT_S = 0.05


def quota(
    units: int, key: str = "daily/acme", *, cost: int = 1, must: bool = False, window: Window = HOUR
) -> Demand:
    return Demand("daily", key, Quota(units, window), cost, must)


def rate(
    burst: int, key: str = "rate/acme", *, per_s: float = 0.001, cost: int = 1, must: bool = False
) -> Demand:
    return Demand("rate", key, Rate(per_s, burst), cost, must)


class Replica:
    """One sidecar's share in it, and what its operator was told."""

    def __init__(self, place: Place, **options: Any) -> None:
        self.told: list[str | None] = []
        self.now_s = 0.0
        """Added to its clock."""
        self.when_asked: Callable[[], None] = lambda: None
        """Called whenever it looks at its clock."""
        words: dict[str, Any] = {
            "on_outage": "local",
            "local_share": 0.5,
            "timeout_s": PATIENT_S,
            "namespace": "test",
            "wall": time.time,
            "chance": lambda: random.random() / 10,
        }
        self.shared = Shared(place, Local(), now=self._now, told=self._hear, **(words | options))
        self._changed = asyncio.Event()
        self._read = 0

    def _now(self) -> float:
        self.when_asked()
        return time.monotonic() + self.now_s

    def _hear(self, why: str | None) -> None:
        ledger.look("a word to the operator", str(why).encode())
        self.told.append(why)
        self._changed.set()

    async def heard(self, what: str | None) -> None:
        """Wait for the next word that holds `what`, or for None: it is used again."""
        async with within():
            while True:
                while self._read < len(self.told):
                    word = self.told[self._read]
                    self._read += 1
                    if word == what or (what is not None and word is not None and what in word):
                        return
                self._changed.clear()
                await self._changed.wait()

    async def granted(self, *demands: Demand) -> bool:
        return isinstance(await self.shared.take(demands), Granted)


Open = Callable[..., Any]


@pytest.fixture(scope="module")
def running() -> Iterator[Valkey]:
    with Valkey("--enable-debug-command", "yes") as store:
        yield store


@pytest.fixture
def store(running: Valkey) -> Valkey:
    """One that is up and empty."""
    running.client.flushall()
    return running


@pytest.fixture
def own_store() -> Iterator[Valkey]:
    """One that a test may do anything with."""
    with Valkey() as store:
        yield store


@pytest.fixture
async def replica() -> AsyncIterator[Open]:
    """Opens replicas before a store; all tasks and connections end with the test."""
    before = asyncio.all_tasks()
    async with AsyncExitStack() as stack:

        async def opened(store: Valkey | Place, **options: Any) -> Replica:
            place = read_place(Secret(store.url)) if isinstance(store, Valkey) else store
            return await stack.enter_async_context(_running(Replica(place, **options)))

        yield opened
    assert asyncio.all_tasks() - before == {asyncio.current_task()}


@asynccontextmanager
async def _running(replica: Replica) -> AsyncIterator[Replica]:
    jobs = Background(report=lambda error: pytest.fail(f"a job failed: {error!r}"))
    for job in replica.shared.jobs:
        jobs.start(job)
    try:
        yield replica
    finally:
        async with within():
            await jobs.close()
            await replica.shared.close()


# While it is up.


async def test_two_replicas_give_together_what_the_limit_says(store: Valkey, replica: Open) -> None:
    """Issue 5: quota 100, 500 racing calls, 20 rounds; a rate beside it."""
    replicas = [await replica(store), await replica(store)]
    for round in range(20):
        demands = quota(100, f"q/{round}"), rate(100, f"r/{round}")
        takes = [replicas[n % 2].granted(*demands) for n in range(500)]
        assert sum(await asyncio.gather(*takes)) == 100
    assert [each.shared.fallbacks for each in replicas] == [0, 0]


async def test_it_tells_how_long_the_store_took(store: Valkey, replica: Open) -> None:
    """Metric outbound_latency_seconds; also of a take that it did not answer in time."""
    took: list[tuple[str, float]] = []
    one = await replica(store, timeout_s=SHORT_S, took=lambda who, seconds: took.append((who, seconds)))
    await one.shared.take([quota(10)])
    store.hang()
    await one.shared.take([quota(10)])
    store.go_on()
    assert [who for who, _ in took] == ["valkey", "valkey"]
    assert 0 <= took[0][1] < LONGEST_S
    assert took[1][1] >= SHORT_S * 0.9


async def test_a_thousand_takes_at_once(store: Valkey, replica: Open) -> None:
    one = await replica(store)
    answers = await asyncio.gather(*(one.shared.take((quota(1_000), rate(2_000))) for _ in range(1_000)))
    assert sorted(each.remaining for each in answers) == [(left, left + 1_000) for left in range(1_000)]
    assert isinstance(await one.shared.take((quota(1_000),)), Denied)


async def test_nothing_is_taken_where_one_limit_refuses(store: Valkey, replica: Open) -> None:
    one = await replica(store)
    denied = await one.shared.take((quota(5), rate(1, cost=2)))
    assert denied == Denied(1, 1, math.inf)
    taken = await one.shared.take((quota(5),))
    assert (taken.remaining, taken.costs) == ((4,), (1,))
    assert await one.shared.take(()) == Taken((), (), 0.0)


async def test_clocks_of_replicas_need_not_agree(store: Valkey, replica: Open) -> None:
    """LIM-007: half a minute, or years; what counts is the store's."""
    replicas = [await replica(store, wall=lambda skew=skew: time.time() + skew) for skew in (0, 30, -9e8)]
    replicas[1].now_s = 30
    demand = quota(10, window=Window("month"))
    assert sum([await each.granted(demand) for each in replicas * 5]) == 10


async def test_a_window_that_ends_on_the_way_is_asked_for_again(store: Valkey, replica: Open) -> None:
    """LIM-022: the store says which window it is; the units are taken there, and once."""
    one = await replica(store)
    demand = quota(10, window=Window("month"))
    for skew_s in (40 * 86_400, 0):
        taken = await one.shared.take((demand,))
        one.now_s = skew_s
        assert isinstance(taken, Taken)
        assert not taken.is_local
    assert taken.remaining == (8,)
    assert len(store.client.keys("*month*")) == 1
    assert one.shared.fallbacks == 0


async def test_a_refund_gives_back_units_and_no_tokens(store: Valkey, replica: Open) -> None:
    one, other = await replica(store), await replica(store)
    demands = quota(2), quota(2, "month/acme", window=Window("month")), rate(2)
    taken = await one.shared.take(demands)
    one.shared.refund(demands, taken)
    again = await one.shared.take(demands)
    assert again.remaining == (1, 1, 0)
    one.shared.refund(demands)
    await one.shared.take((rate(9, "other"),))
    assert (await other.shared.take(demands[:2])).remaining == (1, 1)


async def test_what_is_given_back_can_be_taken_at_once(store: Valkey, replica: Open) -> None:
    """However fresh the last no is."""
    one = await replica(store)
    taken = await one.shared.take((quota(1),))
    assert not await one.granted(quota(1))
    one.shared.refund((quota(1),), taken)
    assert await one.granted(quota(1))


async def test_a_refund_of_another_window_changes_nothing(store: Valkey, replica: Open) -> None:
    one = await replica(store)
    demand = quota(5, window=DAY)
    taken = await one.shared.take((demand,))
    one.shared.refund((demand,), Taken((4,), (1,), taken.at_s - 86_400))
    assert (await one.shared.take((demand,))).remaining == (3,)


async def test_what_had_to_pass_gets_back_what_it_took(store: Valkey, replica: Open) -> None:
    """At an empty bucket it took nothing; a refund of what it asked would make units."""
    one = await replica(store)
    await one.shared.take((quota(5, cost=4),))
    taken = await one.shared.take((quota(5, cost=3, must=True),))
    assert (taken.remaining, taken.costs) == ((0,), (1,))
    one.shared.refund((quota(5, cost=3, must=True),), taken)
    one.shared.refund((quota(5, cost=3, must=True),))
    assert (await one.shared.take((quota(5),))).remaining == (0,)


async def test_a_flood_of_what_is_spent_does_not_reach_the_store(store: Valkey, replica: Open) -> None:
    one = await replica(store)
    assert [await one.granted(rate(1)) for _ in range(2)] == [True, False]
    asked = _calls(store, "evalsha")
    denied = await asyncio.gather(*(one.shared.take((quota(9), rate(1))) for _ in range(300)))
    assert all(each.index == 1 and 990 < each.retry_after_s < 1_000 for each in denied)
    assert _calls(store, "evalsha") == asked
    assert one.shared.spared == 300
    one.now_s = 1.1
    assert not await one.granted(rate(1))
    assert _calls(store, "evalsha") == asked + 1, "it is asked again after a moment"


def _calls(store: Valkey, command: str) -> int:
    statistics: Any = store.client.info("commandstats")
    return int(statistics[f"cmdstat_{command}"]["calls"])


async def test_a_store_that_forgot_the_script_is_told_it(store: Valkey, replica: Open) -> None:
    """NOSCRIPT is no outage: all under way are asked again behind one SCRIPT LOAD."""
    one = await replica(store)
    taken = await one.shared.take((quota(200),))
    loads = _calls(store, "script|load")
    store.client.script_flush()
    answers = await asyncio.gather(*(one.shared.take((quota(200),)) for _ in range(100)))
    assert sorted(each.remaining[0] for each in answers) == list(range(99, 199))
    assert _calls(store, "script|load") == loads + 1
    store.client.script_flush()
    one.shared.refund((quota(200),), taken)
    await one.shared.take((rate(9),))
    assert (await one.shared.take((quota(200),))).remaining == (99,)
    assert (one.shared.fallbacks, one.shared.refunds_lost, one.told) == (0, 0, [])


async def test_a_store_that_was_emptied_begins_anew(store: Valkey, replica: Open) -> None:
    one = await replica(store)
    assert [await one.granted(quota(1, cost=1)) for _ in range(2)] == [True, False]
    store.client.flushall()
    one.now_s = 1
    assert await one.granted(quota(1))
    assert one.told == []


async def test_poisoned_values_pass_nobody_and_break_nothing(store: Valkey, replica: Open) -> None:
    """LIM-023: an integer that wraps, text, another type: an empty bucket, counted, and others are not concerned."""
    one = await replica(store)
    demands = rate(5, per_s=5.0), quota(5), quota(5, "day/acme", window=DAY)
    await one.shared.take(demands)
    keys = [key for key in store.client.keys("{mcp-sidecar:test}:1:*") if b"probe" not in key]
    assert len(keys) == 3
    for count, poison in enumerate((b"9223372036854775807", b"nan nan", b"x" * 1_000_000, None), 1):
        for key in keys:
            store.client.delete(key)
            store.client.rpush(key, "a") if poison is None else store.client.set(key, poison)
        one.now_s += 2
        assert isinstance(await one.shared.take(demands), Denied)
        assert one.shared.poisoned == 3 * count
        assert await one.granted(quota(5, f"daily/other{count}"))
    assert one.told == []


# Callers that leave.


async def test_who_leaves_before_the_store_has_answered_gets_it_back(store: Valkey, replica: Open) -> None:
    one = await replica(store)
    await one.shared.take((rate(9, "first"),))
    store.hang()
    try:
        takes = [asyncio.create_task(one.shared.take((quota(100),))) for _ in range(60)]
        await turns(3)
        # Some before their command is sent, as it were: all of these are one write.
        for take in takes[::2]:
            take.cancel()
        await turns(3)
    finally:
        store.go_on()
    answers = await asyncio.gather(*takes, return_exceptions=True)
    assert [isinstance(each, asyncio.CancelledError) for each in answers] == [True, False] * 30
    assert (await one.shared.take((quota(100),))).remaining == (69,)
    assert one.shared.under_way == 0


async def test_who_leaves_before_anything_is_sent_gets_it_back(store: Valkey, replica: Open) -> None:
    one = await replica(store)
    await one.shared.take((rate(9, "first"),))
    take = asyncio.create_task(one.shared.take((quota(5),)))
    await asyncio.sleep(0)
    assert take.cancel()
    await asyncio.wait((take,))
    await one.shared.take((rate(9, "next"),))
    assert (await one.shared.take((quota(5),))).remaining == (4,)


async def test_who_leaves_when_the_answer_has_just_come_gets_it_back(store: Valkey, replica: Open) -> None:
    """The future is done and its task has not run yet: neither the store nor the caller would give it back."""
    one = await replica(store)
    await one.shared.take((rate(9, "first"),))
    take = asyncio.create_task(one.shared.take((quota(5),)))
    await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    one.when_asked = lambda: loop.call_soon(take.cancel) and None
    await asyncio.wait((take,))
    one.when_asked = lambda: None
    assert take.cancelled()
    await one.shared.take((rate(9, "next"),))
    assert (await one.shared.take((quota(5),))).remaining == (4,)


async def test_ten_thousand_who_leave_leave_nothing_behind(store: Valkey, replica: Open) -> None:
    """Issue 5: every gauge is where it was, and no answer is taken for another's."""
    one = await replica(store)
    chance = random.Random(5)
    granted = 0
    for _ in range(100):
        takes = [asyncio.create_task(one.shared.take((quota(1_000_000),))) for _ in range(100)]
        await turns(chance.randrange(4))
        for take in takes:
            take.cancel()
        for each in await asyncio.gather(*takes, return_exceptions=True):
            granted += isinstance(each, Taken)
        # Behind all others: no more of them are under way than there is room for.
        await one.shared.take((rate(999, "last"),))
    assert (one.told, one.shared.fallbacks) == ([], 0)
    assert (await one.shared.take((quota(1_000_000),))).remaining == (1_000_000 - granted - 1,)
    assert (one.shared.under_way, one.shared.refunds_lost) == (0, 0)


# Outages.


async def test_a_killed_store_is_replaced_by_a_share_and_used_again(own_store: Valkey, replica: Open) -> None:
    """LIM-026: fail open means a local limit, never none. It comes back empty, and with the script unknown."""
    one, other = await replica(own_store), await replica(own_store)
    demand = quota(10)
    assert [await each.granted(demand) for each in (one, other) * 2] == [True] * 4
    for outage in (1, 2):
        own_store.kill()
        for each in (one, other):
            await each.heard("connection broke")
        assert sum([await each.granted(demand) for each in (one, other) * 20]) == (10 if outage == 1 else 0)
        own_store.start()
        for each in (one, other):
            await each.heard(None)
        assert sum([await each.granted(demand) for each in (one, other) * 20]) == 10
        assert (one.shared.outages, one.shared.is_up, one.shared.why_down) == (outage, True, None)


async def test_a_store_killed_under_way_does_not_hold_its_callers(own_store: Valkey, replica: Open) -> None:
    one = await replica(own_store)
    await one.shared.take((rate(9, "first"),))
    own_store.hang()
    takes = [asyncio.create_task(one.shared.take((quota(100),))) for _ in range(100)]
    await turns()
    own_store.kill()
    async with within():
        answers = await asyncio.gather(*takes)
    assert sum(isinstance(each, Taken) and each.is_local for each in answers) == 50


async def test_a_hanging_store_costs_a_call_its_timeout_and_no_more(store: Valkey, replica: Open) -> None:
    """SIGSTOP. After a few the breaker is open and nobody waits; it is used again when it goes on."""
    one = await replica(store, timeout_s=SHORT_S)
    await _until_up(one)
    store.hang()
    try:
        loop = asyncio.get_running_loop()
        since = loop.time()
        while one.shared.is_up:
            taken = await one.shared.take((quota(1_000),))
            assert taken.is_local
        # Not more than a handful waited, each for 50 ms; a second is for busy machines.
        assert one.shared.late == 5
        assert loop.time() - since < 5 * SHORT_S + 1
        for _ in range(100):
            await one.shared.take((quota(1_000),))
        assert one.shared.late == 5
        await one.heard("too slowly")
    finally:
        store.go_on()
    await one.heard(None)
    assert not (await one.shared.take((quota(1_000),))).is_local


async def test_some_late_answers_among_good_ones_are_no_outage(store: Valkey, replica: Open) -> None:
    one = await replica(store, timeout_s=SHORT_S)
    await _until_up(one)
    for _ in range(2):
        store.hang()
        try:
            for _ in range(TROUBLES - 1):
                assert (await one.shared.take((quota(1_000),))).is_local
        finally:
            store.go_on()
        # Behind the late ones, whose answers are coming now.
        one.shared.refund((quota(1_000),))
        async with within():
            while (await one.shared.take((quota(1_000),))).is_local:
                assert one.shared.is_up
    assert (one.told, one.shared.outages) == ([], 0)


async def test_a_store_that_hangs_from_the_start_holds_nobody_up(store: Valkey, replica: Open) -> None:
    store.hang()
    try:
        one = await replica(store, timeout_s=SHORT_S)
        async with within(1):
            assert (await one.shared.take((quota(10),))).is_local
        await one.heard("does not answer")
    finally:
        store.go_on()
    await one.heard(None)
    assert not (await one.shared.take((quota(10),))).is_local


async def test_a_grant_that_came_too_late_is_given_back(store: Valkey, replica: Open) -> None:
    """The call was counted here meanwhile; it must not count twice."""
    one = await replica(store, timeout_s=SHORT_S)
    await _until_up(one)
    store.hang()
    try:
        assert (await one.shared.take((quota(10),))).is_local
        assert one.shared.is_up
    finally:
        store.go_on()
    other = await replica(store)
    async with within():
        while one.shared.under_way:
            await other.shared.take((rate(9, "tick"),))
    assert (await other.shared.take((quota(10),))).remaining == (9,)
    assert one.shared.late == 1


async def test_a_refund_goes_where_it_was_taken(own_store: Valkey, replica: Open) -> None:
    """Units of an outage come back to this process, even when the store has returned; not to the store."""
    one = await replica(own_store)
    stored = await one.shared.take((quota(4),))
    own_store.kill()
    await one.heard("")
    local = await one.shared.take((quota(4),))
    assert (stored.is_local, local.is_local, local.remaining) == (False, True, (1,))
    one.shared.refund((quota(4),), stored)
    assert one.shared.refunds_lost == 1
    one.shared.refund((quota(4),), local)
    assert (await one.shared.take((quota(4),))).remaining == (1,)


async def test_more_than_the_share_is_told_when_to_come_back(own_store: Valkey, replica: Open) -> None:
    """A cost between the share and the limit: the store will grant it. Above the limit: nobody ever will."""
    own_store.kill()
    one = await replica(own_store)
    answers = [await one.shared.take((quota(10, cost=cost),)) for cost in (6, 11)]
    assert answers == [Denied(0, 5, 2.0), Denied(0, 5, math.inf)]
    assert [await one.granted(each) for each in (quota(1), quota(1), quota(0, "k"))] == [True, False, False]


async def test_closed_means_that_nothing_passes_unchecked(own_store: Valkey, replica: Open) -> None:
    """Only what must pass always does."""
    own_store.kill()
    one = await replica(own_store, on_outage="closed")
    with pytest.raises(Refused) as caught:
        await one.shared.take((quota(10), rate(5)))
    assert (caught.value.reason, caught.value.retry_after_s) == (Reason.OVERLOADED, 2.0)
    taken = await one.shared.take((quota(10, must=True),))
    assert taken.remaining == (0,)
    one.shared.refund((quota(10, must=True),), taken)
    own_store.start()
    await one.heard(None)
    assert (await one.shared.take((quota(10),))).remaining == (9,)


@pytest.mark.parametrize(
    ("break_it", "repair_it", "why"),
    [
        (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0"), "full"),
        (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE"), "read-only"),
    ],
)
async def test_a_store_that_takes_nothing_is_an_outage(
    own_store: Valkey, replica: Open, break_it: tuple[str, ...], repair_it: tuple[str, ...], why: str
) -> None:
    """Full, or a replica after a failover: nothing is half done, and the operator is told the remedy."""
    one = await replica(own_store)
    demands = quota(100), rate(100)
    await one.shared.take(demands)
    own_store.say(*break_it)
    async with within():
        while one.shared.is_up:
            assert (await one.shared.take(demands)).is_local
            one.now_s += 0.01
    await one.heard(why)
    own_store.say(*repair_it)
    await one.heard(None)
    assert (await one.shared.take(demands)).remaining == (98, 98)


async def test_no_more_wait_than_there_is_room_for(store: Valkey, replica: Open) -> None:
    """Of callers and of refunds, while the store hangs and patience is long."""
    one = await replica(store)
    taken = await one.shared.take((quota(1_000_000),))
    store.hang()
    try:
        takes = [
            asyncio.create_task(one.shared.take((quota(1_000_000),))) for _ in range(MAX_UNDER_WAY + 100)
        ]
        await turns(3)
        assert sum(each.done() and each.result().is_local for each in takes) == 100
        one.shared.refund((quota(1_000_000),), taken)
        assert (one.shared.under_way, one.shared.refunds_lost) == (MAX_UNDER_WAY, 1)
    finally:
        store.go_on()
    async with within():
        assert len({each.remaining for each in await asyncio.gather(*takes)}) == len(takes)


# Who may use it.

PASSWORD = ledger.secret("correct-horse-battery-staple", "the store's password")
WRONG = ledger.secret("wrong-horse-battery-staple", "the store's password")
NEEDED = "+evalsha +script|load +getrange +exists +set +time +ping +select"


@pytest.fixture
def guarded(own_store: Valkey) -> Valkey:
    """It wants a password; `sidecar` may do what is needed, `reader` may not write."""
    acl = own_store.say
    acl("ACL", "SETUSER", "sidecar", "on", f">{PASSWORD}", "~{mcp-sidecar:test}:*", *NEEDED.split())
    acl(
        "ACL",
        "SETUSER",
        "reader",
        "on",
        f">{PASSWORD}",
        "~{mcp-sidecar:test}:*",
        *NEEDED.replace("+set ", "").split(),
    )
    acl("ACL", "SETUSER", "default", f">{PASSWORD}", "resetpass", f">{PASSWORD}")
    return own_store


async def test_what_the_warning_asks_for_is_enough(guarded: Valkey, replica: Open) -> None:
    place = read_place(Secret(f"redis://sidecar:{PASSWORD}@127.0.0.1:{guarded.port}/1"))
    one = await replica(place)
    demands = quota(5), quota(5, "d", window=DAY), rate(5)
    taken = await one.shared.take(demands)
    assert not taken.is_local
    one.shared.refund(demands, taken)
    assert (await one.shared.take(demands)).remaining == (4, 4, 3)
    assert one.told == []
    guarded.say("AUTH", PASSWORD)
    assert [guarded.say("SELECT", each) and guarded.say("DBSIZE") for each in "01"] == [0, 4]


@pytest.mark.parametrize(
    ("user", "why"),
    [
        ("", "wants a password"),
        (f":{WRONG}@", "does not accept the user or password"),
        (f"sidecar:{WRONG}@", "does not accept the user or password"),
        (f"reader:{PASSWORD}@", NEEDED),
    ],
)
async def test_who_is_not_let_in_is_told_why(guarded: Valkey, replica: Open, user: str, why: str) -> None:
    """In fixed words: neither the URL nor what the store says is repeated (TEL-013)."""
    one = await replica(read_place(Secret(f"redis://{user}127.0.0.1:{guarded.port}/0")))
    assert (await one.shared.take((quota(10),))).is_local
    await one.heard(why)
    assert one.shared.why_down == one.told[-1]


async def test_a_renewed_password_is_used_for_the_next_connection(guarded: Valkey, replica: Open) -> None:
    one = await replica(read_place(Secret(f"redis://:{WRONG}@127.0.0.1:{guarded.port}/0")))
    await one.heard("password")
    one.shared.move(read_place(Secret(f"redis://:{PASSWORD}@127.0.0.1:{guarded.port}/0")))
    await one.heard(None)
    assert not (await one.shared.take((quota(10),))).is_local


# Over TLS.


@pytest.fixture
async def relay(store: Valkey) -> AsyncIterator[Callable[..., Any]]:
    """Opens ports before the store, with TLS or without; the store itself has none."""
    pumps: set[asyncio.Task[None]] = set()
    servers: list[asyncio.Server] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", store.port)
        for one, other in ((reader, up_writer), (up_reader, writer)):
            pump = asyncio.create_task(_pump(one, other))
            pumps.add(pump)
            pump.add_done_callback(pumps.discard)

    async def opened(context: ssl.SSLContext | None) -> int:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    yield opened
    for server in servers:
        server.close()
    for pump in pumps:
        pump.cancel()
    await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
    except OSError:
        pass
    finally:
        writer.close()


async def test_rediss_is_encrypted_and_sees_whom_it_speaks_to(
    replica: Open, relay: Callable[..., Any], tmp_path: Path
) -> None:
    """An authority we trust, for this very name; otherwise nothing is said, and the operator hears why."""
    authority, stranger = Authority(), Authority("stranger")
    known = _server(authority.issue(a_name(CN="store"), names=[LOOPBACK]), tmp_path)
    elsewhere = _server(authority.issue(a_name(CN="store"), names=[x509.DNSName("other")]), tmp_path)
    trusting, doubting = (
        ssl.create_default_context(cadata=each.pem.decode()) for each in (authority, stranger)
    )
    port = await relay(known)

    def place(port: int) -> Place:
        return read_place(Secret(f"rediss://127.0.0.1:{port}/0"))

    one = await replica(place(port), tls=trusting)
    assert (await one.shared.take((quota(5),))).remaining == (4,)
    for wrong in (
        await replica(place(port), tls=doubting),
        await replica(place(port)),
        await replica(place(await relay(elsewhere)), tls=trusting),
    ):
        assert (await wrong.shared.take((quota(5),))).is_local
        await wrong.heard("certificate")
    plain = await replica(place(await relay(None)), tls=trusting)
    await plain.heard("reached with TLS")


def _server(issued: Issued, folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*issued.written(folder, f"s{issued.certificate.serial_number}"))
    return context


# What is no store, and the end.


async def test_another_kind_of_server_is_no_store(replica: Open) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        one = await replica(Place(host="127.0.0.1", port=port))
        assert (await one.shared.take((quota(10),))).is_local
        await one.heard("hung up")
        assert one.shared.outages == 1, "it was never up again"


@pytest.mark.parametrize("nonsense", [b"+OK\r\n", b"*4\r\n:1\r\n:2\r\n:3\r\n:0\r\n", b"*1\r\n$1\r\na\r\n"])
async def test_an_answer_that_is_none_is_believed_by_nobody(replica: Open, nonsense: bytes) -> None:
    """It may be that of another command: nothing that comes behind it on this connection is."""
    connections = 0
    probed = b"*6\r\n:1\r\n:1790000000\r\n:0\r\n:0\r\n:0\r\n:1\r\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        commands = hiredis.Reader()
        replies = iter((b"+loaded\r\n", probed, nonsense + probed))
        while data := await reader.read(65_536):
            commands.feed(data)
            while commands.gets() is not False:
                writer.write(next(replies, b""))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        one = await replica(Place(host="127.0.0.1", port=server.sockets[0].getsockname()[1]))
        takes = [asyncio.create_task(one.shared.take((quota(10),))) for _ in range(2)]
        async with within():
            assert [each.is_local for each in await asyncio.gather(*takes)] == [True, True]
        await one.heard("none")
        await one.heard(None)
        assert connections == 2
        await one.shared.close()


@pytest.mark.parametrize("host", ["a..b", "no-such-name.invalid"])
async def test_a_name_that_nobody_has_is_an_outage(replica: Open, host: str) -> None:
    one = await replica(Place(host=host))
    await one.heard("cannot be reached")
    assert (await one.shared.take((quota(10),))).is_local


async def test_last_refunds_go_out_and_nobody_waits_afterwards(store: Valkey, replica: Open) -> None:
    one, other = await replica(store), await replica(store)
    taken = await one.shared.take((quota(10),))
    one.shared.refund((quota(10),), taken)
    async with within():
        await one.shared.close()
    assert (await other.shared.take((quota(10),))).remaining == (9,)
    assert not one.shared.is_up
    assert (await one.shared.take((quota(10),))).is_local
    assert one.told == []


async def _until_up(one: Replica) -> None:
    async with within(LONGEST_S):
        while not one.shared.is_up:
            await one.shared.take((rate(9_999, "first"),))
