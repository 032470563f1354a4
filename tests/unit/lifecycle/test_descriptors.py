"""Who may open one more file descriptor, and who waits. Source: issue 7, point 7 (fd exhaustion)."""

from __future__ import annotations

import asyncio
import os
import resource

import pytest

from proxy.lifecycle.descriptors import (
    MOST_RESERVE,
    Descriptors,
    count_open,
    open_limit,
    reserve_of,
)


class Process:
    """So many are open, of so many."""

    def __init__(self, limit: int, opened: int = 0) -> None:
        self.limit = limit
        self.opened: int | None = opened
        self.counted = 0

    def count(self) -> int | None:
        self.counted += 1
        return self.opened

    def guard(self) -> Descriptors:
        return Descriptors(self.count, lambda: self.limit)


@pytest.mark.parametrize(
    ("limit", "reserve"),
    [(16, 4), (128, 32), (256, 64), (1024, 64), (2000, 100), (20_000, 1000), (1_048_576, MOST_RESERVE)],
)
def test_the_reserve(limit: int, reserve: int) -> None:
    """One in twenty, 64 to 1,024; never more than a quarter of very few."""
    assert reserve_of(limit) == reserve


@pytest.mark.parametrize("brings", [1, 2])
@pytest.mark.parametrize("limit", [64, 256, 1024, 65_536])
def test_clients_stop_at_the_reserve(limit: int, brings: int) -> None:
    """However few times they are counted: at most a part of the reserve is taken by those that were not, also where
    each client brings a connection to the server with it."""
    process = Process(limit)
    guard = process.guard()
    while guard.may_accept():
        assert process.opened is not None
        process.opened += brings
    reserve = reserve_of(limit)
    assert process.opened is not None
    assert (
        0
        <= limit - reserve - process.opened + brings * (reserve // 8)
        <= 2 * brings * (reserve // 8) + brings
    )
    assert process.counted < 80


def test_after_a_no_nobody_is_accepted_until_they_are_called_back() -> None:
    """Pausing is the acceptor's; a handful that slips through in between is not let in by a new count."""
    process = Process(256, 200)
    guard = process.guard()
    assert not guard.may_accept()
    process.opened = 0
    assert (guard.may_accept(), guard.are_short, guard.paused) == (False, True, 1)


@pytest.mark.parametrize(
    ("left", "may_accept", "may_connect"),
    [(65, True, True), (64, False, True), (33, False, True), (32, False, False), (0, False, False)],
)
def test_connections_to_the_server_may_use_half_of_the_reserve(
    left: int, may_accept: bool, may_connect: bool
) -> None:
    """Whoever is already in is served when nobody else is let in; the rest is for probes, files and keys."""
    process = Process(256, 256 - left)
    guard = process.guard()
    assert guard.may_accept() is may_accept
    guard = process.guard()
    assert guard.may_connect() is may_connect
    assert (guard.refused, guard.are_short) == (not may_connect, False)


def test_what_was_closed_meanwhile_is_found_before_anybody_is_refused() -> None:
    """A million clients one after another never run out of a thousand descriptors."""
    process = Process(1024, 20)
    guard = process.guard()
    assert all(guard.may_accept() and guard.may_connect() for _ in range(20_000))
    assert process.counted < 200


def test_when_not_even_counting_works_there_are_none() -> None:
    """Listing a folder takes a descriptor, too."""
    process = Process(1024, 20)
    process.opened = None
    guard = process.guard()
    assert (guard.may_accept(), guard.may_connect()) == (False, False)


def test_without_a_limit_everybody_may() -> None:
    """RLIM_INFINITY is -1."""
    guard = Process(resource.RLIM_INFINITY, 1_000_000).guard()
    assert all(guard.may_accept() and guard.may_connect() for _ in range(5_000))


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


class Story:
    """A guard that looks for descriptors; each look is a step."""

    def __init__(self, opened: list[int]) -> None:
        self.process = Process(256, 250)
        self.guard = Descriptors(self.process.count, lambda: 256, sleep=self._sleep)
        self._opened = iter(opened)
        self.told: list[bool] = []
        self.resumed = 0

    async def _sleep(self, seconds: float) -> None:
        self.process.opened = next(self._opened)

    async def resume(self) -> None:
        self.resumed += 1


async def test_clients_are_accepted_again_with_room_for_more_than_one() -> None:
    """64 are the reserve, and a quarter more must be free; told when it begins and when it ends."""
    story = Story([200, 180, 256 - 64 - 16, 256 - 64 - 17])
    assert not story.guard.may_accept()
    running = asyncio.ensure_future(story.guard.run(story.resume, story.told.append))
    await turns()
    assert (story.resumed, story.told, story.guard.why_degraded()) == (1, [False, True], ())
    assert next(story._opened, None) is None
    assert story.guard.may_accept()
    running.cancel()


async def test_if_accepting_fails_it_is_tried_again() -> None:
    """OSError from the listening socket: the job is begun again (background.py), and nobody is forgotten."""
    story = Story([0])
    assert not story.guard.may_accept()

    async def fails() -> None:
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        await story.guard.run(fails, story.told.append)
    assert (story.guard.are_short, story.guard.may_accept()) == (True, False)
    assert len(story.guard.why_degraded()) == 1
    running = asyncio.ensure_future(story.guard.run(story.resume, story.told.append))
    await turns()
    assert (story.resumed, story.guard.are_short) == (1, False)
    running.cancel()


def test_what_is_open_is_counted_as_it_is() -> None:
    """Against the system itself."""
    before = count_open()
    pipes = [end for _ in range(5) for end in os.pipe()]
    try:
        assert before is not None
        assert count_open() == before + len(pipes)
    finally:
        for end in pipes:
            os.close(end)
    assert 0 < before < open_limit()
