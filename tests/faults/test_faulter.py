"""The wire fails as it is told, and says how often it did."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import msgspec
import pytest

from tests.faults.caller import CUT, DAMAGED, LEFT, RIGHT, UNCONNECTED, WRONG, Crowd
from tests.faults.catalog import BEHIND, PLANTED
from tests.faults.faulter import Faulter, Plan, flipped, place
from tests.faults.http import whole_length
from tests.faults.rules import Order, Rule, Struck, spoils
from tests.faults.scene import read_lines
from tests.faults.server import Link, Server


class Wire:
    """A server behind a faulter, without a sidecar between."""

    def __init__(self, faulter: Faulter, server: Server, log: Path) -> None:
        self.faulter = faulter
        self.server = server
        self.crowd = Crowd(faulter.port, Random(1))
        self._log = log

    async def follow(self, *rules: Rule) -> None:
        await self.faulter.do(msgspec.json.encode(Order(rules=rules)))

    async def ends(self, *tools: str, patience_s: float = 5.0) -> list[str]:
        """How these calls end, one after the other on one connection for as long as it lasts."""
        told = []
        for tool in tools:
            told += await self.crowd.calls(tool, count=1, at_once=1, patience_s=patience_s)
        return [each.how for each in told]

    def struck(self) -> list[Struck]:
        return [each for each in read_lines(self._log, Struck) if each.does]


@pytest.fixture
async def wire(tmp_path: Path) -> AsyncIterator[Wire]:
    server = Server(tmp_path / "server.jsonl")
    listening = await asyncio.get_running_loop().create_server(lambda: Link(server), "127.0.0.1", 0)
    log = tmp_path / "faulter.jsonl"
    faulter = Faulter(listening.sockets[0].getsockname()[1], log)
    await faulter.open()
    yield Wire(faulter, server, log)
    await faulter.do(msgspec.json.encode(Order(rules=(Rule(does="refuse"),), drops=True)))
    for task in list(faulter.tasks):
        task.cancel()
    for link in list(server.links):
        link.close()
    listening.close()
    async with asyncio.timeout(5):
        await listening.wait_closed()


@pytest.mark.parametrize(
    ("rule", "tool", "how"),
    [
        (Rule(does="latency", seconds=0.01), "do", RIGHT),
        (Rule(does="bandwidth", bytes_per_s=20_000), "do", RIGHT),
        (Rule(does="slice"), "sse", RIGHT),
        (Rule(does="slice", where="request"), "do", RIGHT),
        (Rule(does="slow_close", seconds=0.01), "till", RIGHT),
        (Rule(does="reset", at=10), "do", CUT),
        (Rule(does="reset", at=BEHIND), "do", RIGHT),
        (Rule(does="cut", at=100), "do", CUT),
        (Rule(does="half_open", at=100), "do", CUT),
        (Rule(does="swallow", at=100), "do", LEFT),
        (Rule(does="reset", where="request", at=50), "do", CUT),
        (Rule(does="swallow", where="request", at=50), "do", LEFT),
        (Rule(does="inject", payload=PLANTED), "do", WRONG),
        (Rule(does="inject", at=BEHIND, payload=PLANTED), "do", RIGHT),
        (Rule(does="flip", at=8 * 200), "do", DAMAGED),
        (Rule(does="hang_up"), "do", RIGHT),
        (Rule(does="tar_pit"), "do", LEFT),
        (Rule(does="refuse"), "do", UNCONNECTED),
    ],
    ids=lambda each: each.does + each.where if isinstance(each, Rule) else None,
)
async def test_a_caller_meets_the_fault(wire: Wire, rule: Rule, tool: str, how: str) -> None:
    """And none before it is ordered, nor after it is over."""
    assert await wire.ends("do") == [RIGHT]
    await wire.follow(rule)
    assert await wire.ends(tool, patience_s=0.2 if how == LEFT else 5) == [how]
    if rule.does != "refuse":
        assert [each.does for each in wire.struck()] == [rule.does]
    await wire.follow()
    assert await wire.ends("do") == [RIGHT]


async def test_a_black_hole_says_nothing(wire: Wire) -> None:
    """The kernel drops whoever wants to connect."""
    await wire.follow(Rule(does="black_hole"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await asyncio.open_connection("127.0.0.1", wire.faulter.port)


async def test_only_what_is_asked_on_a_used_connection_is_struck(wire: Wire) -> None:
    await wire.follow(Rule(does="reset", where="request", is_reused=True))
    told = await wire.crowd.calls("do", count=5, at_once=1)
    assert [each.how for each in told] == [RIGHT, CUT, RIGHT, CUT, RIGHT]
    assert wire.server.ran == 3


async def test_each_so_manieth_is_struck(wire: Wire) -> None:
    await wire.follow(Rule(does="reset", every=3))
    told = await wire.crowd.calls("do", count=6, at_once=1)
    assert [each.how for each in told] == [RIGHT, RIGHT, CUT, RIGHT, RIGHT, CUT]


def test_a_sweep_strikes_every_place() -> None:
    """37 and 224 have no common part, so 224 strikes are 224 places, the end among them."""
    rule = Rule(does="reset", sweeps=True)
    assert {place(rule, done, 223) for done in range(224)} == set(range(224))


def test_a_place_behind_the_end_is_the_end() -> None:
    assert place(Rule(does="reset", at=BEHIND), 0, 10) == 10


def test_one_bit_is_flipped() -> None:
    assert [flipped(b"ab", bit) for bit in (0, 15)] == [b"`b", b"a\xe2"]


def test_a_plan_takes_the_first_rule_that_strikes() -> None:
    often, seldom = Rule(does="reset"), Rule(does="cut", every=2)
    plan = Plan((seldom, often))
    struck = [plan.for_exchange(is_reused=False) for _ in range(4)]
    assert struck == [(often, 0), (seldom, 0), (often, 1), (seldom, 1)]


@pytest.mark.parametrize(
    ("struck", "is_spoilt"),
    [
        (Struck(nonce="", at_ns=1, does="reset", where="answer", place=9, of=10), True),
        (Struck(nonce="", at_ns=1, does="reset", where="answer", place=10, of=10), False),
        (Struck(nonce="", at_ns=1, does="reset", where="request", place=10, of=10), True),
        (Struck(nonce="", at_ns=1, does="latency", where="answer"), False),
    ],
)
def test_an_answer_that_was_broken_off_has_not_arrived(struck: Struck, is_spoilt: bool) -> None:
    assert spoils(struck) is is_spoilt


@pytest.mark.parametrize(
    ("raw", "length"),
    [
        (b"GET / HTTP/1.1\r\n\r\nrest", 18),
        (b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nabc", 40),
        (b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\na", None),
        (b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nx", 57),
        (b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", None),
        (b"HTTP/1.1 204 X\r\n\r\n", 18),
        (b"HTTP/1.1 200 X\r\n\r\nuntil it closes", None),
        (b"HTTP/1.1 200 X\r\n", None),
    ],
)
def test_a_message_is_as_long_as_its_framing_says(raw: bytes, length: int | None) -> None:
    assert whole_length(raw) == length
