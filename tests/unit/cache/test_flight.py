"""Equal work at once is done once, whoever leaves. Source: issue 6, item 5."""

from __future__ import annotations

import asyncio

import pytest

from proxy.cache.flight import Flights


class Work:
    """Work that lands when it is told to."""

    def __init__(self) -> None:
        self.begun = 0
        self.cancelled = 0
        self.lands: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __call__(self) -> str:
        self.begun += 1
        try:
            return await self.lands
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


def given(result: str) -> str:
    return result


async def turns(count: int = 5) -> None:
    """Let every task that can go on do so."""
    for _ in range(count):
        await asyncio.sleep(0)


def leading(flights: Flights[str, str], work: Work, key: str = "k") -> asyncio.Task[str]:
    return asyncio.get_running_loop().create_task(flights.lead(key, work, given))


def joining(flights: Flights[str, str], key: str = "k") -> asyncio.Task[str]:
    return asyncio.get_running_loop().create_task(flights.join(key, given))


async def test_five_hundred_at_once_are_one() -> None:
    left: list[str] = []
    flights: Flights[str, str] = Flights(left.append)
    work = Work()
    first = leading(flights, work)
    await turns()
    others = [joining(flights) for _ in range(499)]
    await turns()
    assert flights.has("k")
    work.lands.set_result("done")
    assert await asyncio.gather(first, *others) == ["done"] * 500
    assert work.begun == 1
    assert left == ["done"]
    assert len(flights) == 0


async def test_the_first_may_leave() -> None:
    flights: Flights[str, str] = Flights(lambda _: None)
    work = Work()
    first = leading(flights, work)
    await turns()
    others = [joining(flights) for _ in range(3)]
    await turns()
    first.cancel()
    await turns()
    assert first.cancelled()
    work.lands.set_result("done")
    assert await asyncio.gather(*others) == ["done"] * 3
    assert work.cancelled == 0


async def test_when_the_last_one_leaves_the_work_ends() -> None:
    """In any order; and whoever comes then begins anew."""
    flights: Flights[str, str] = Flights(lambda _: None)
    work = Work()
    first = leading(flights, work)
    await turns()
    other = joining(flights)
    await turns()
    other.cancel()
    await turns()
    assert work.cancelled == 0
    first.cancel()
    await turns()
    assert work.cancelled == 1
    assert not flights.has("k")
    again = Work()
    newcomer = leading(flights, again)
    await turns()
    again.lands.set_result("new")
    assert await newcomer == "new"


async def test_what_lands_while_everybody_leaves_is_handed_back() -> None:
    """A reply that nobody took must be closed."""
    left: list[str] = []
    flights: Flights[str, str] = Flights(left.append)
    work = Work()
    first = leading(flights, work)
    await turns()
    work.lands.set_result("orphan")
    first.cancel()
    await turns()
    assert first.cancelled()
    assert left == ["orphan"]


async def test_work_that_refuses_to_be_cancelled_is_handed_back_too() -> None:
    left: list[str] = []
    flights: Flights[str, str] = Flights(left.append)
    lands: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def stubborn() -> str:
        try:
            await lands
        except asyncio.CancelledError:
            return "anyway"
        return "never"

    first = asyncio.get_running_loop().create_task(flights.lead("k", stubborn, given))
    await turns()
    first.cancel()
    await turns()
    assert left == ["anyway"]


async def test_a_failure_is_everybodys() -> None:
    left: list[str] = []
    flights: Flights[str, str] = Flights(left.append)
    work = Work()
    tasks = [leading(flights, work)]
    await turns()
    tasks += [joining(flights) for _ in range(2)]
    await turns()
    work.lands.set_exception(OSError("gone"))
    assert [type(each) for each in await asyncio.gather(*tasks, return_exceptions=True)] == [OSError] * 3
    assert left == []
    assert not flights.has("k")


async def test_keys_do_not_wait_for_each_other() -> None:
    flights: Flights[str, str] = Flights(lambda _: None)
    slow, quick = Work(), Work()
    waiting = leading(flights, slow, "a")
    other = leading(flights, quick, "b")
    await turns()
    quick.lands.set_result("b")
    assert await other == "b"
    assert not waiting.done()
    slow.lands.set_result("a")
    assert await waiting == "a"


async def test_two_never_lead() -> None:
    flights: Flights[str, str] = Flights(lambda _: None)
    work = Work()
    first = leading(flights, work)
    await turns()
    with pytest.raises(AssertionError):
        await flights.lead("k", work, given)
    work.lands.set_result("done")
    assert await first == "done"
