"""Which attempts are repeated, when, and what becomes of what failed."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import math
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, TypeAlias

import pytest

from proxy.model import (
    Call,
    Ending,
    Headers,
    Kind,
    Permit,
    Principal,
    Reason,
    Refused,
    Reply,
    Rule,
    Stream,
)
from proxy.protocol.revisions import BY_NAME, TWO_ENDPOINTS
from proxy.resilience.budget import Budget
from proxy.resilience.idempotency import META_KEY
from proxy.resilience.retrying import Retrying
from proxy.resilience.settings import ResilienceSettings
from tests.fakes import Diary, make_batch, make_call

SECONDS: Final = 5.0
"""The bound of every wait of a test."""
LEGACY: Final = BY_NAME["2025-11-25"]
NOON: Final = 1_800_000_000.0
DOES: Final = Rule(id="r")
IDEMPOTENT: Final = Rule(id="r", idempotent=True)
RESULT: Final = b'{"jsonrpc":"2.0","id":1,"result":{"content":[]}}'
RPC_ERROR: Final = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"x"}}'
INTERNAL_ERROR: Final = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"x"}}'

Outcome: TypeAlias = "Reply | BaseException"


def permit(call: Call | None = None, rule: Rule = IDEMPOTENT) -> Permit:
    principal = Principal(issuer="test", subject="ann", tenant="acme")
    return Permit(call=call or make_call(revision=LEGACY, target="t"), principal=principal, rule=rule)


def answer(status: int = 200, body: bytes = RESULT, *retry_after: str) -> Reply:
    return Reply(status, Headers((b"Retry-After", each.encode()) for each in retry_after), body)


def streamed(status: int = 200) -> Reply:
    async def nothing() -> AsyncIterator[bytes]:
        for chunk in list[bytes]():
            yield chunk

    return Reply(status, Headers(), Stream(nothing(), lambda: None))


class Scene:
    """The stage with a clock of its own before a server that follows a script; the diary is the whole story."""

    def __init__(
        self,
        *script: Outcome,
        budget: Budget | None = None,
        ends_s: float = math.inf,
        chance: float = 0.5,
        **settings: Any,
    ) -> None:
        self.script = list(script)
        self.diary: Diary = []
        self.seen: list[Permit] = []
        self.now = 0.0
        self.asks: list[Permit] = []
        self.ends_s = ends_s
        self.sleeps: Callable[[], None] = lambda: None
        self.stage = Retrying(
            self.serve,
            ResilienceSettings(**settings),
            budget or Budget(ratio=0.2, min_per_s=10),
            deadline=self.deadline,
            token=iter(map(str, range(100))).__next__,
            chance=lambda: chance,
            wall=lambda: NOON + self.now,
            now=lambda: self.now,
            sleep=self.sleep,
        )

    def deadline(self, permit: Permit) -> float:
        self.asks.append(permit)
        return self.ends_s

    async def serve(self, permit: Permit) -> Reply:
        self.seen.append(permit)
        self.diary.append(("sent",))
        if isinstance(self.script[0], BaseException):
            raise self.script.pop(0)  # type: ignore[misc]  # looked at above; a name would hold it and its frame
        reply = self.script.pop(0)
        assert isinstance(reply, Reply)
        reply.when_done(lambda ending: self.diary.append(("done", ending)))
        return reply

    async def sleep(self, seconds: float) -> None:
        assert self.stage.waiting == 1
        self.diary.append(("wait", round(seconds, 6)))
        self.now += seconds
        self.sleeps()

    async def call(self, asked: Permit | None = None) -> Reply:
        async with asyncio.timeout(SECONDS):
            return await self.stage(asked or permit())

    async def refused(self, asked: Permit | None = None) -> Refused:
        with pytest.raises(Refused) as caught:
            await self.call(asked)
        return caught.value

    async def ends(self, asked: Permit | None = None) -> Reply | Refused:
        try:
            return await self.call(asked)
        except Refused as refused:
            return refused

    @property
    def sent(self) -> int:
        return self.diary.count(("sent",))


def unreached() -> Refused:
    return Refused(Reason.UPSTREAM_UNREACHABLE)


def lost() -> Refused:
    return Refused(Reason.OUTCOME_UNKNOWN)


def listed(**call: Any) -> Permit:
    return permit(make_call(**{"method": "tools/list", "revision": LEGACY, **call}), DOES)


async def test_an_answer_is_passed_on_as_it_is() -> None:
    reply = answer()
    scene = Scene(reply)
    asked = permit()
    assert await scene.call(asked) is reply
    assert scene.diary == [("sent",)]
    assert scene.seen == [asked]


ANY_CALL: Final = [
    make_call(revision=LEGACY),
    make_call(revision=TWO_ENDPOINTS),
    make_call(method="initialize"),
    make_call(method="ping"),
    make_call(method="tasks/cancel"),
    make_call(kind=Kind.NOTIFICATION, id=None, method="notifications/initialized"),
    make_call(kind=Kind.ANSWER, method=""),
    make_call(kind=Kind.LISTEN, method="", revision=TWO_ENDPOINTS),
    make_batch(make_call(), make_call(id=2)),
]


@pytest.mark.parametrize("call", ANY_CALL)
async def test_what_never_left_is_sent_again_whatever_it_is(call: Call) -> None:
    """Connection refused, name not found, TLS failed: nothing can have happened."""
    reply = answer()
    scene = Scene(unreached(), unreached(), reply)
    assert await scene.call(permit(call, DOES)) is reply
    assert scene.sent == 3
    assert scene.stage.repeated == 2


@pytest.mark.parametrize(
    "call",
    [
        make_call(kind=Kind.LISTEN, method="", revision=LEGACY),
        make_call(kind=Kind.END, method="", revision=LEGACY),
        make_call(method="subscriptions/listen", revision=BY_NAME["2026-07-28"]),
    ],
)
async def test_streams_that_listen_are_for_their_clients_to_open_again(call: Call) -> None:
    scene = Scene(unreached())
    assert (await scene.refused(permit(call))).reason is Reason.UPSTREAM_UNREACHABLE
    assert scene.diary == [("sent",)]


@pytest.mark.parametrize("failure", [lost(), Refused(Reason.UPSTREAM_BROKE)])
@pytest.mark.parametrize("call", ANY_CALL)
async def test_what_may_have_happened_is_never_repeated(call: Call, failure: Refused) -> None:
    """Design 1: a side effect happens once, whatever fails."""
    scene = Scene(failure)
    assert await scene.refused(permit(call, DOES)) is failure
    assert scene.diary == [("sent",)]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("call", ANY_CALL)
async def test_what_was_answered_with_a_failure_is_not_repeated_either(call: Call, status: int) -> None:
    """It may have happened before the server failed; and the answer is its own."""
    reply = answer(status, b"", "0")
    scene = Scene(reply)
    assert await scene.call(permit(call, DOES)) is reply
    assert scene.diary == [("sent",)]


async def test_a_call_that_never_left_and_then_may_have_happened_is_not_repeated() -> None:
    scene = Scene(unreached(), lost(), answer())
    assert (await scene.refused(permit(rule=DOES))).reason is Reason.OUTCOME_UNKNOWN
    assert scene.sent == 2


@pytest.mark.parametrize("asked", [permit(), listed(), listed(method="resources/read")])
@pytest.mark.parametrize(
    "failure",
    [
        unreached(),
        lost(),
        Refused(Reason.UPSTREAM_BROKE),
        answer(429, RPC_ERROR),
        answer(500, b"<html>"),
        answer(502, RPC_ERROR),
        answer(503, b""),
        answer(504, b""),
    ],
)
async def test_what_is_as_good_twice_as_once_is_repeated(asked: Permit, failure: Outcome) -> None:
    reply = answer()
    scene = Scene(failure, reply)
    assert await scene.call(asked) is reply
    assert scene.sent == 2


@pytest.mark.parametrize(
    "reply",
    [
        answer(),
        answer(200, RPC_ERROR),
        answer(200, INTERNAL_ERROR),
        answer(500, RPC_ERROR),
        answer(500, INTERNAL_ERROR),
        answer(404, b""),
        answer(400, RPC_ERROR),
        answer(501, b""),
        streamed(),
        streamed(503),
    ],
)
async def test_an_answer_is_final(reply: Reply) -> None:
    """What the server had to say it would say again; the first bytes of a stream may have been passed on."""
    scene = Scene(reply)
    assert await scene.call() is reply
    assert scene.diary == [("sent",)]


@pytest.mark.parametrize(
    "reason",
    sorted(set(Reason) - {Reason.UPSTREAM_UNREACHABLE, Reason.UPSTREAM_BROKE, Reason.OUTCOME_UNKNOWN}),
)
async def test_no_other_refusal_is_repeated(reason: Reason) -> None:
    """Ours, or nonsense that the server would repeat, or a deadline, which is over."""
    refused = Refused(reason)
    scene = Scene(refused)
    assert await scene.refused() is refused
    assert scene.diary == [("sent",)]


async def test_our_own_failures_are_not_repeated() -> None:
    error = RuntimeError()
    scene = Scene(unreached(), error)
    with pytest.raises(RuntimeError):
        await scene.call()
    assert scene.sent == 2


@pytest.mark.parametrize(("attempts", "sent"), [(1, 1), (2, 2), (3, 3), (10, 10)])
@pytest.mark.parametrize("failure", [unreached, lost, lambda: answer(503, b"")])
async def test_there_are_so_many_attempts_and_no_more(
    attempts: int, sent: int, failure: Callable[[], Outcome]
) -> None:
    scene = Scene(*(failure() for _ in range(20)), attempts=attempts)
    await scene.ends()
    assert scene.sent == sent
    assert scene.stage.repeated == sent - 1


async def test_what_failed_is_over_before_the_next_attempt() -> None:
    """Servers of older revisions mix up two requests of one id; and a probe of the breaker is given back."""
    last = answer(503, b"last")
    scene = Scene(answer(503, b""), answer(502, b""), last)
    assert await scene.call() is last
    assert scene.diary == [
        *(("sent",), ("done", Ending.COMPLETE), ("wait", 0.05)),
        *(("sent",), ("done", Ending.COMPLETE), ("wait", 0.1), ("sent",)),
    ]
    last.done(Ending.CLIENT_GONE)
    assert scene.diary[-1] == ("done", Ending.CLIENT_GONE)


@pytest.mark.parametrize(
    ("chance", "waits"),
    [(0.0, [0.0] * 9), (1.0, [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0])],
)
async def test_waits_grow_and_spread(chance: float, waits: list[float]) -> None:
    """Issue 7: full jitter, from 0.1 s to 5 s."""
    scene = Scene(*(unreached() for _ in range(10)), attempts=10, chance=chance)
    await scene.refused()
    assert [seconds for what, *seconds in scene.diary if what == "wait"] == [[each] for each in waits]


@pytest.mark.parametrize(
    ("fields", "wait_s"),
    [
        ([], 0.05),
        (["2"], 2.05),
        (["2", "7"], 7.05),
        (["0"], 0.05),
        (["Fri, 15 Jan 2027 08:00:03 GMT"], 3.05),
        (["Fri, 15 Jan 2027 07:00:00 GMT"], 0.05),
        (["-1e9"], 0.05),
        (["soon"], 0.05),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_what_the_server_asks_for_is_obeyed(status: int, fields: list[str], wait_s: float) -> None:
    """And a little on top by chance, or all that were told the same would come back together."""
    scene = Scene(answer(status, b"", *fields), answer())
    assert (await scene.call()).status == 200
    assert ("wait", wait_s) in scene.diary


@pytest.mark.parametrize("ends_s", [math.inf, 86_400.0, 1e12])
@pytest.mark.parametrize("asked", ["61", "999999999", "9" * 40, "Fri, 15 Jan 2027 09:00:00 GMT"])
async def test_nobody_sleeps_for_years_because_a_server_says_so(asked: str, ends_s: float) -> None:
    """Corpus UP-054. The caller learns how long to wait."""
    reply = answer(429, b"", asked)
    scene = Scene(reply, ends_s=ends_s)
    assert await scene.call() is reply
    assert scene.diary == [("sent",)]
    assert scene.stage.withheld == {"deadline": 1}


@pytest.mark.parametrize(("ends_s", "sent"), [(0.05, 1), (0.051, 2), (0.15, 2), (0.151, 3)])
async def test_nobody_waits_for_an_attempt_that_comes_too_late(ends_s: float, sent: int) -> None:
    """The first failure is told at once, not at the deadline."""
    scene = Scene(unreached(), unreached(), unreached(), ends_s=ends_s)
    asked = permit()
    assert (await scene.refused(asked)).reason is Reason.UPSTREAM_UNREACHABLE
    assert scene.sent == sent
    assert scene.stage.withheld == ({"deadline": 1} if sent < 3 else {})
    assert all(each is asked for each in scene.asks)
    assert scene.asks


async def test_what_is_over_is_not_repeated() -> None:
    scene = Scene(lost(), ends_s=0.0, chance=0.0)
    assert (await scene.refused()).reason is Reason.UPSTREAM_BROKE
    assert scene.sent == 1


def spent() -> Budget:
    budget = Budget(ratio=0, min_per_s=0.1)
    assert budget.repeat(0.0)
    return budget


async def test_beyond_the_budget_nothing_is_repeated_nor_waited_for() -> None:
    reply = answer(503, b"")
    scene = Scene(reply, budget=spent())
    assert await scene.call() is reply
    assert scene.diary == [("sent",)]
    assert scene.stage.withheld == {"budget": 1}


@pytest.mark.parametrize("failure", [unreached(), answer(503, b"x", "1")])
async def test_the_budget_is_asked_again_when_the_wait_is_over(failure: Outcome) -> None:
    """Many may have failed together, and waited: what counts is when an attempt leaves."""
    budget = Budget(ratio=0, min_per_s=0.1)
    scene = Scene(failure, budget=budget)
    scene.sleeps = lambda: None if budget.repeat(scene.now) else pytest.fail("there was room")
    ended: list[Ending] = []
    outcome = await scene.ends()
    if isinstance(outcome, Reply):
        # What the server said, and nobody was told yet that it has been written.
        assert (outcome.status, outcome.body, outcome.headers.get("retry-after")) == (503, b"x", "1")
        outcome.when_done(ended.append)
        assert ended == []
        outcome.done(Ending.COMPLETE)
        assert ended == [Ending.COMPLETE]
    else:
        assert outcome is failure
    assert scene.sent == 1
    assert (scene.stage.withheld, scene.stage.repeated) == ({"budget": 1}, 0)


async def test_all_calls_share_one_budget_and_pay_into_it() -> None:
    """Issue 7: 20 % + 10/s of the process. Only what may be work pays in."""
    budget = Budget(ratio=0.5, min_per_s=0.1)
    first = Scene(unreached(), answer(), *(answer() for _ in range(9)), budget=budget, chance=0.0)
    await first.call()
    for kind in (Kind.NOTIFICATION, Kind.ANSWER, Kind.LISTEN, Kind.END):
        await first.call(permit(make_call(kind=kind, method="")))
        assert not budget.may_repeat(0.0)
    await first.call(permit(ANY_CALL[-1]))
    assert not budget.may_repeat(0.0)
    await first.call()
    assert budget.may_repeat(0.0)
    second = Scene(unreached(), answer(), budget=budget, chance=0.0)
    await second.call()
    assert second.sent == 2


@pytest.mark.parametrize("reason", [Reason.BREAKER_OPEN, Reason.OVERLOADED, Reason.QUARANTINED])
async def test_our_own_no_to_a_second_attempt_does_not_hide_what_became_of_the_first(reason: Reason) -> None:
    """It says that nothing was sent, which is true of the second one only."""
    first = Refused(Reason.UPSTREAM_BROKE)
    assert await Scene(first, Refused(reason)).refused() is first
    reply = await Scene(answer(503, b"busy"), Refused(reason)).call()
    assert (reply.status, reply.body) == (503, b"busy")
    scene = Scene(unreached(), answer(503, b"busy"), Refused(reason), answer())
    assert (await scene.call()).body == b"busy"
    assert scene.sent == 3


@pytest.mark.parametrize(
    "last", [Refused(Reason.DEADLINE), Refused(Reason.SESSION_UNKNOWN), answer(404, b"")]
)
async def test_what_a_later_attempt_learnt_is_told(last: Outcome) -> None:
    assert await Scene(unreached(), last).ends() is last


async def test_who_may_repeat_is_not_told_to_check_first() -> None:
    """And audit does not call unknown what makes no difference."""
    refused = await Scene(Refused(Reason.OUTCOME_UNKNOWN, data={"a": 1}), attempts=1).refused()
    assert (refused.reason, refused.data) == (Reason.UPSTREAM_BROKE, {"a": 1})
    assert "can be repeated" in refused.why


async def test_every_attempt_carries_the_same_key() -> None:
    """Issue 7, item 2; each call another one."""
    rule = Rule(id="r", idempotent=True, idempotency_key=True)
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t"}}'
    asked = permit(make_call(revision=LEGACY, params={"name": "t"}, body=body), rule)
    scene = Scene(unreached(), lost(), answer(), answer())
    await scene.call(asked)
    await scene.call(asked)
    keys = [each.call.headers.get("idempotency-key") for each in scene.seen]
    assert len(set(keys[:3])) == 1
    assert keys[3] not in (*keys[:3], None)
    for each in scene.seen:
        told = json.loads(each.call.body)["params"]["_meta"][META_KEY]
        assert each.call.headers.all("idempotency-key") == [f'"{told}"']


async def test_a_caller_who_leaves_while_it_waits_leaves_at_once() -> None:
    """With the sleep of the loop: nothing is sent, and nothing stays."""
    waits = asyncio.Event()
    sent = 0

    async def serve(permit: Permit) -> Reply:
        nonlocal sent
        sent += 1
        raise unreached()

    async def sleep(seconds: float) -> None:
        waits.set()
        await asyncio.sleep(seconds)

    stage = Retrying(
        serve,
        ResilienceSettings(backoff_s=50, backoff_cap_s=50),
        Budget(ratio=0.2, min_per_s=10),
        deadline=lambda _: math.inf,
        token=str,
        chance=lambda: 1.0,
        wall=lambda: NOON,
        sleep=sleep,
    )
    async with asyncio.timeout(SECONDS):
        call = asyncio.ensure_future(stage(permit()))
        await waits.wait()
        assert stage.waiting == 1
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert (sent, stage.waiting, stage.repeated) == (1, 0, 0)


async def test_a_caller_who_leaves_during_an_attempt_gets_no_other() -> None:
    scene = Scene(unreached(), asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await scene.call()
    assert (scene.sent, scene.stage.waiting) == (2, 0)


class Noticed(Refused):
    """Can be seen to go."""


async def test_what_failed_is_forgotten_with_its_call() -> None:
    """No ring of an exception and its frames: what a call carried must not wait for the collector."""
    scene = Scene(*(Noticed(Reason.UPSTREAM_UNREACHABLE) for _ in range(2)), attempts=2)
    seen = [weakref.ref(each) for each in scene.script]
    gc.disable()
    try:
        with contextlib.suppress(Refused):
            await scene.stage(permit())
        assert [each() for each in seen] == [None, None]
    finally:
        gc.enable()
