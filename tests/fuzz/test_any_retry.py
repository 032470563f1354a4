"""Whatever fails, whenever callers leave: no effect happens twice, and repeating never becomes a storm.

Many calls at once against a server that fails at random, on a clock of their own: the calls are stepped by hand, so
that nobody waits, and so that a caller can leave at any await. What may be repeated is said here a second time, by
kind of call, and not asked of the product.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
import math
import random
import types
from collections.abc import AsyncIterator, Coroutine, Generator
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from proxy.model import Ending, Headers, Kind, Permit, Principal, Reason, Refused, Reply, Rule, Stream
from proxy.protocol.revisions import BY_NAME, TWO_ENDPOINTS
from proxy.resilience.budget import Budget
from proxy.resilience.idempotency import META_KEY
from proxy.resilience.retrying import Retrying
from proxy.resilience.settings import ResilienceSettings, RetryBudgetSettings
from tests.fakes import make_batch, make_call
from tests.fuzz.bounded import FUZZ, examples
from tests.fuzz.dice import Dice

LEGACY: Final = BY_NAME["2025-11-25"]
MODERN: Final = BY_NAME["2026-07-28"]
WINDOW_S: Final = 10.0
GRAIN_S: Final = 1e-6
"""Rounding of doubles."""
ONCE: Final = Rule(id="once")
KEYED: Final = Rule(id="keyed", idempotency_key=True)
TWICE: Final = Rule(id="twice", idempotent=True, idempotency_key=True)
BODY: Final = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t"}}'

HARMLESS, NEVER_LEFT, LISTENS = "harmless", "only if it never left", "never"
CALLS: Final[list[tuple[str, Rule, dict[str, Any]]]] = [
    (NEVER_LEFT, ONCE, {"body": BODY}),
    (NEVER_LEFT, KEYED, {"body": BODY}),
    (HARMLESS, TWICE, {"body": BODY}),
    (HARMLESS, TWICE, {"body": BODY, "revision": MODERN}),
    (HARMLESS, ONCE, {"method": "tools/list"}),
    (NEVER_LEFT, TWICE, {"body": BODY, "revision": TWO_ENDPOINTS}),
    (NEVER_LEFT, TWICE, {"body": BODY, "params": {"task": {}}}),
    (NEVER_LEFT, TWICE, {"body": BODY, "params": {"requestState": "x"}, "revision": MODERN}),
    (NEVER_LEFT, TWICE, {"method": "initialize"}),
    (NEVER_LEFT, TWICE, {"method": "tasks/cancel"}),
    (NEVER_LEFT, TWICE, {"method": "tools/call", "kind": Kind.NOTIFICATION, "id": None}),
    (NEVER_LEFT, TWICE, {"method": "", "kind": Kind.ANSWER}),
    (NEVER_LEFT, TWICE, {"parts": (make_call(method="tools/list"), make_call(id=2))}),
    (HARMLESS, ONCE, {"parts": (make_call(method="tools/list"), make_call(method="tasks/get", id=2))}),
    (LISTENS, TWICE, {"method": "", "kind": Kind.LISTEN}),
    (LISTENS, TWICE, {"method": "subscriptions/listen", "revision": MODERN}),
]
MOSTLY: Final = [each for each in CALLS if each[0] is HARMLESS]

GOES_ON: Final = {"unreached", "lost", "broke", "429", "500", "502", "503", "504"}
"""After which there may be another attempt."""
ENDS: Final = {
    *("answer", "stream", "tool error", "rpc 500", "internal", "404", "503 stream"),
    *("nonsense", "deadline", "busy", "open", "bug"),
}
OUTCOMES: Final = sorted(GOES_ON | ENDS)
ASKS: Final = ["", "0", "2", "7", "61", "999999999", "soon"]
RPC_ERROR: Final = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"x"}}'
INTERNAL: Final = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"x"}}'
RESULT: Final = b'{"jsonrpc":"2.0","id":1,"result":{}}'
REASONS: Final = {
    "unreached": Reason.UPSTREAM_UNREACHABLE,
    "lost": Reason.OUTCOME_UNKNOWN,
    "broke": Reason.UPSTREAM_BROKE,
    "nonsense": Reason.UPSTREAM_NONSENSE,
    "deadline": Reason.DEADLINE,
    "busy": Reason.OVERLOADED,
    "open": Reason.BREAKER_OPEN,
}
REPLIES: Final = {
    "answer": (200, RESULT),
    "tool error": (200, b'{"jsonrpc":"2.0","id":1,"result":{"isError":true}}'),
    "rpc 500": (500, RPC_ERROR),
    "internal": (200, INTERNAL),
    "404": (404, RPC_ERROR),
    "429": (429, b""),
    "500": (500, b"<html>"),
    "502": (502, RPC_ERROR),
    "503": (503, b""),
    "504": (504, b"gateway"),
}


class Bug(Exception):
    """Of ours, or of nobody."""


@types.coroutine
def pause(seconds: float) -> Generator[float, None, None]:
    yield seconds


class Asked:
    """One call and its story."""

    def __init__(self, number: int, at: float, roll: Dice) -> None:
        self.sort, rule, words = roll.one(roll.one([CALLS, MOSTLY]))
        parts = words.get("parts")
        call = make_batch(*parts) if parts else make_call(**{"revision": LEGACY, **words})
        who = Principal(issuer="test", subject=f"s{number}", tenant="acme")
        self.permit = Permit(call=call, principal=who, rule=rule)
        self.at = at
        self.ends = at + roll.one([math.inf, 0.05, 1.0, 60.0])
        self.leaves_at_await = roll.one([0, 0, 0, 1, 2, 3, 4])
        self.awaits = 0
        self.sent: list[tuple[float, str, str]] = []
        """When, what became of it, and what the server asked for."""
        self.keys: set[tuple[str | None, object]] = set()
        self.replies: list[list[Ending]] = []
        self.result: Reply | BaseException | None = None


class World:
    """Calls, a server, a clock."""

    def __init__(self, roll: Dice) -> None:
        self.roll = roll
        self.now = 0.0
        self.attempts = roll.one([3, 1, 2, 5])
        self.ratio, self.min_per_s = roll.one([0.2, 0.0, 1.0]), roll.one([10.0, 0.5, 0.1])
        keys = itertools.count()
        given = ResilienceSettings(
            attempts=self.attempts,
            retry_budget=RetryBudgetSettings(ratio=self.ratio, min_per_s=self.min_per_s),
        )
        self.stage = Retrying(
            self.serve,
            given,
            Budget(ratio=self.ratio, min_per_s=self.min_per_s),
            deadline=lambda permit: self.by_subject[permit.principal.subject].ends,
            token=lambda: f"k{next(keys)}",
            chance=lambda: roll.one([0.5, 0.0, 0.9]),
            wall=lambda: 1_800_000_000.0 + self.now,
            now=lambda: self.now,
            sleep=pause,
        )
        at = 0.0
        self.calls: list[Asked] = []
        for number in range(roll.one([5, 40, 120])):
            at += roll.one([0.0, 0.0, 0.01, 0.5, 4.0])
            self.calls.append(Asked(number, at, roll))
        self.by_subject = {each.permit.principal.subject: each for each in self.calls}
        self.mostly = roll.one(["unreached", "answer", "503", "lost"])

    async def serve(self, permit: Permit) -> Reply:
        asked = self.by_subject[permit.principal.subject]
        call = permit.call
        outcome = self.roll.one([self.mostly, self.roll.one(OUTCOMES)])
        wait = self.roll.one(ASKS) if outcome in ("429", "503") else ""
        asked.sent.append((self.now, outcome, wait))
        is_json = call.body.startswith(b"{")
        meta = json.loads(call.body)["params"].get("_meta", {}) if is_json else {}
        asked.keys.add((call.headers.get("idempotency-key"), meta.get(META_KEY)))
        await pause(self.roll.one([0.0, 0.001, 0.3]))
        if outcome == "bug":
            raise Bug
        if outcome in REASONS:
            raise Refused(REASONS[outcome])
        return self.replied(asked, outcome, wait)

    def replied(self, asked: Asked, outcome: str, wait: str) -> Reply:
        endings: list[Ending] = []
        asked.replies.append(endings)

        async def events() -> AsyncIterator[bytes]:
            yield b"data: {}\n\n"

        if outcome.endswith("stream"):
            status = 503 if outcome.startswith("503") else 200
            reply = Reply(status, Headers(), Stream(events(), lambda: None))
        else:
            status, body = REPLIES[outcome]
            reply = Reply(status, Headers([(b"Retry-After", wait.encode())] if wait else []), body)
        reply.when_done(endings.append)
        return reply

    def run(self) -> None:
        """Until every call has ended."""
        order = itertools.count()
        due: list[tuple[float, int, Asked, Coroutine[Any, None, Reply]]] = [
            (each.at, next(order), each, self.stage(each.permit)) for each in self.calls
        ]
        heapq.heapify(due)
        while due:
            self.now, _, asked, running = heapq.heappop(due)
            try:
                if asked.awaits and asked.awaits == asked.leaves_at_await:
                    running.throw(asyncio.CancelledError())
                    pytest.fail("it went on although its caller has left")
                seconds = running.send(None)
                asked.awaits += 1
                heapq.heappush(due, (self.now + seconds, next(order), asked, running))
            except StopIteration as stopped:
                asked.result = stopped.value
            except (Refused, Bug, asyncio.CancelledError) as error:
                asked.result = error


def check_call(world: World, asked: Asked) -> None:
    """Attempts of one call, by a rule said in other words."""
    sent = asked.sent
    assert len(sent) <= world.attempts
    for (before, failure, wait), (at, _, _) in itertools.pairwise(sent):
        assert failure in GOES_ON
        assert asked.sort != LISTENS
        assert asked.sort == HARMLESS or failure == "unreached"
        assert before <= at < asked.ends
        assert at - before >= (int(wait) if wait.isdecimal() else 0) - GRAIN_S
        assert at - before < 66
    has_key = asked.permit.rule.idempotency_key and asked.permit.call.body == BODY
    assert len(asked.keys) <= 1
    for header, meta in asked.keys:
        assert (header, meta) == ((f'"{meta}"', meta) if has_key else (None, None))
        assert (meta is not None) == has_key


def check_result(asked: Asked) -> None:
    """What its caller is told is what became of an attempt; each reply ends once, and not before it is written."""
    result = asked.result
    assert result is not None
    if isinstance(result, asyncio.CancelledError):
        assert asked.awaits == asked.leaves_at_await
    elif isinstance(result, Reply):
        told: list[Ending] = []
        result.when_done(told.append)
        assert told == []
        statuses = [REPLIES[outcome][0] for _, outcome, _ in asked.sent if outcome in REPLIES]
        assert result.status in {*statuses, 200, 503}
        result.done(Ending.COMPLETE)
        assert told == [Ending.COMPLETE]
    elif isinstance(result, Refused):
        said = {REASONS.get(outcome) for _, outcome, _ in asked.sent}
        if asked.permit.rule is TWICE and result.reason is Reason.UPSTREAM_BROKE:
            said.add(Reason.UPSTREAM_BROKE if Reason.OUTCOME_UNKNOWN in said else None)
        assert result.reason in said
    assert all(len(endings) == 1 for endings in asked.replies)


def check_budget(world: World) -> None:
    """In every window of ten seconds, wherever it begins: at most a part of the calls, and so many a second."""
    events = sorted(
        (at, is_first, each.permit.call.kind in (Kind.REQUEST, Kind.BATCH))
        for each in world.calls
        for is_first, at in zip(
            itertools.chain([True], itertools.repeat(False)), (at for at, _, _ in each.sent), strict=False
        )
    )
    for begin, (since, _, _) in enumerate(events):
        inside = [event for event in events[begin:] if event[0] <= since + WINDOW_S - GRAIN_S]
        repeated = sum(not is_first for _, is_first, _ in inside)
        calls = sum(is_first and counts for _, is_first, counts in inside)
        assert repeated <= world.ratio * calls + world.min_per_s * WINDOW_S + 1e-6
    assert world.stage.repeated == sum(not is_first for _, is_first, _ in events)


@given(seed=st.integers(0, 2**32))
@settings(FUZZ, max_examples=examples(300))
def test_no_effect_happens_twice_and_nothing_becomes_a_storm(seed: int) -> None:
    world = World(Dice(random.Random(seed).randbytes(5_000)))
    world.run()
    for asked in world.calls:
        check_call(world, asked)
        check_result(asked)
    check_budget(world)
    assert world.stage.waiting == 0


def test_the_world_is_hard_enough() -> None:
    """The test above would pass where nothing is ever repeated, withheld, or left."""
    worlds = [World(Dice(random.Random(seed).randbytes(5_000))) for seed in range(30)]
    for world in worlds:
        world.run()
    assert sum(world.stage.repeated for world in worlds) > 100
    assert sum(world.stage.withheld["budget"] for world in worlds) > 50
    assert sum(world.stage.withheld["deadline"] for world in worlds) > 50
    left = [
        each for world in worlds for each in world.calls if isinstance(each.result, asyncio.CancelledError)
    ]
    assert {each.awaits for each in left} == {1, 2, 3, 4}


@pytest.mark.parametrize("failure", ["unreached", "lost", "503"])
@pytest.mark.parametrize("leaves_at_await", range(1, 6))
def test_a_caller_may_leave_at_any_await(failure: str, leaves_at_await: int) -> None:
    """Three attempts and two waits: nothing more is sent, nothing waits, and every reply has ended."""
    world = World(Dice(b""))
    world.mostly = failure
    asked = world.calls[0]
    asked.sort, asked.permit = HARMLESS, structs.replace(asked.permit, rule=TWICE)
    asked.leaves_at_await = leaves_at_await
    world.calls = [asked]
    world.run()
    assert isinstance(asked.result, asyncio.CancelledError)
    assert len(asked.sent) == (leaves_at_await + 1) // 2
    assert len(asked.replies) == (leaves_at_await // 2 if failure == "503" else 0)
    check_result(asked)
    assert (world.stage.waiting, world.stage.repeated) == (0, (leaves_at_await - 1) // 2)
