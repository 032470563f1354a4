"""A second attempt beside a slow first one: when there is one, who wins, and what becomes of the loser.

Source: issue 7, item 2 ("Optional hedging for modern, trusted read-only rules"); protocol.md 7.1.
"""

from __future__ import annotations

import asyncio
import gc
import math
import weakref
from collections.abc import Callable
from typing import Any, Final

import pytest

from proxy.model import Ending, Headers, Kind, Permit, Reason, Refused, Reply, Rule
from proxy.protocol.revisions import REGISTER
from proxy.resilience.breaker import Breaker
from proxy.resilience.budget import Budget
from proxy.resilience.guarding import Guarding
from proxy.resilience.hedging import Hedging, hedged_after_s
from proxy.resilience.retrying import Retrying
from proxy.resilience.settings import ResilienceSettings
from tests.fakes import make_batch, make_call
from tests.unit.resilience.scripted import MODERN, SECONDS, Source, permit, until

SOON: Final = 0.001
NEVER_S: Final = 3_600.0
"""Longer than any test takes."""
READS: Final = Rule(id="r", tool_class="read", idempotent=True, hedge_after_s=SOON)
LATE: Final = Rule(id="r", tool_class="read", idempotent=True, hedge_after_s=NEVER_S)
BODY: Final = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t"}}'


def asked(rule: Rule = READS, **call: Any) -> Permit:
    return permit(make_call(**{"revision": MODERN, "target": "t", "body": BODY, **call}), rule)


def answer(status: int = 200) -> Reply:
    return Reply(status, Headers(), b'{"jsonrpc":"2.0","id":1,"result":{}}' if status < 300 else b"")


async def until_due(happened: Callable[[], bool]) -> None:
    """What comes by a timer of the loop."""
    async with asyncio.timeout(SECONDS):
        while not happened():
            await turn()


async def turn() -> None:
    await asyncio.sleep(0)


class Attempt:
    """One attempt at the server, which ends as a test says."""

    def __init__(self, permit: Permit) -> None:
        self.permit = permit
        self._ends = asyncio.Event()
        self._outcomes: list[Reply | BaseException] = []
        self.was_cancelled = False
        self.endings: list[Ending] = []

    def __call__(self, outcome: Reply | BaseException) -> None:
        if isinstance(outcome, Reply):
            outcome.when_done(self.endings.append)
        self._outcomes.append(outcome)
        self._ends.set()

    async def outcome(self) -> Reply:
        try:
            await self._ends.wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        if isinstance(self._outcomes[0], BaseException):
            raise self._outcomes.pop()  # type: ignore[misc]  # a name would hold it and its frame
        return self._outcomes.pop()  # type: ignore[return-value]  # looked at above


class Scene:
    """The stages before a server whose attempts hang until a test ends them."""

    def __init__(
        self,
        *,
        budget: Budget | None = None,
        places: int = 10,
        breaker: Breaker | None = None,
        **settings: Any,
    ) -> None:
        self.attempts: list[Attempt] = []
        self.places = places
        budget = budget or Budget(ratio=0.2, min_per_s=10)
        self.now = 0.0
        self.guarding = Guarding(self.serve, breaker, now=lambda: self.now)
        self.hedging = Hedging(self.guarding, budget, spare=self.spare)
        self.slept: list[float] = []
        self.stage = Retrying(
            self.guarding,
            ResilienceSettings(**settings),
            budget,
            deadline=lambda _: math.inf,
            token=iter(map(str, range(100))).__next__,
            chance=lambda: 0.0,
            wall=lambda: 0.0,
            hedging=self.hedging,
            sleep=self.sleep,
        )
        self.call: asyncio.Task[Reply] | None = None

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def spare(self, _: Permit) -> Callable[[], None] | None:
        if not self.places:
            return None
        self.places -= 1

        def give_back() -> None:
            self.places += 1

        return give_back

    async def serve(self, permit: Permit) -> Reply:
        attempt = Attempt(permit)
        self.attempts.append(attempt)
        return await attempt.outcome()

    async def begins(self, asked_for: Permit | None = None, attempts: int = 2) -> list[Attempt]:
        """The call, when the server has so many attempts."""
        self.call = asyncio.ensure_future(self.stage(asked_for or asked()))
        return await self.sees(attempts)

    async def sees(self, attempts: int) -> list[Attempt]:
        await until_due(lambda: len(self.attempts) >= attempts)
        return self.attempts

    async def ends(self) -> Reply | Refused:
        assert self.call is not None
        async with asyncio.timeout(SECONDS):
            try:
                return await self.call
            except Refused as refused:
                return refused

    async def is_over(self) -> None:
        """Nothing of the race is left."""
        await until(lambda: not self.hedging.under_way)
        assert self.places == 10


async def test_an_answer_in_time_is_alone() -> None:
    """No second attempt, nothing paid, and no timer that goes on."""
    scene = Scene()
    (first,) = await scene.begins(asked(LATE), attempts=1)
    reply = answer()
    first(reply)
    assert await scene.ends() is reply
    assert (scene.hedging.sent, len(scene.attempts), first.endings) == (0, 1, [])
    await scene.is_over()


@pytest.mark.parametrize("winner", [0, 1])
async def test_the_first_answer_wins_and_the_other_is_left(winner: int) -> None:
    scene = Scene()
    attempts = await scene.begins()
    reply = answer()
    attempts[winner](reply)
    assert await scene.ends() is reply
    await scene.is_over()
    assert attempts[1 - winner].was_cancelled
    assert (scene.hedging.sent, scene.hedging.won) == (1, winner)
    assert attempts[winner].endings == []
    reply.done(Ending.COMPLETE)
    assert attempts[winner].endings == [Ending.COMPLETE]


@pytest.mark.parametrize("winner", [0, 1])
async def test_the_head_of_a_stream_is_an_answer(winner: int) -> None:
    """And the stream goes on when its race is over."""
    scene = Scene()
    attempts = await scene.begins()
    source = Source()
    attempts[winner](source.reply())
    reply = await scene.ends()
    assert isinstance(reply, Reply)
    await scene.is_over()
    assert (source.closed, attempts[winner].endings) == (0, [])
    reply.done(Ending.COMPLETE)
    assert source.closed == 1


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_of_two_answers_in_one_moment_one_is_told(order: tuple[int, int]) -> None:
    """The loser gets no turn any more: it would tell the journey what it was answered."""
    scene = Scene()
    attempts = await scene.begins()
    replies = [answer(), answer()]
    for each in order:
        attempts[each](replies[each])
    assert await scene.ends() is replies[order[0]]
    await scene.is_over()
    assert attempts[order[1]].was_cancelled


@pytest.mark.parametrize("failing", [0, 1])
@pytest.mark.parametrize(
    "failure",
    [
        Refused(Reason.UPSTREAM_UNREACHABLE),
        Refused(Reason.OUTCOME_UNKNOWN),
        Refused(Reason.UPSTREAM_BROKE),
        Refused(Reason.UPSTREAM_NONSENSE),
        Refused(Reason.OVERLOADED),
        Refused(Reason.DEADLINE),
        answer(429),
        answer(503),
    ],
)
async def test_while_one_fails_the_other_is_waited_for(failing: int, failure: Any) -> None:
    failure = Reply(failure.status, failure.headers, b"") if isinstance(failure, Reply) else failure
    scene = Scene()
    attempts = await scene.begins()
    attempts[failing](failure)
    await until(lambda: scene.hedging.under_way == 1)
    assert scene.call is not None
    assert not scene.call.done()
    reply = answer()
    attempts[1 - failing](reply)
    assert await scene.ends() is reply
    await scene.is_over()
    assert len(scene.attempts) == 2
    assert not attempts[failing].was_cancelled
    assert attempts[failing].endings == ([Ending.COMPLETE] if isinstance(failure, Reply) else [])


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        (Refused(Reason.UPSTREAM_BROKE), Refused(Reason.UPSTREAM_UNREACHABLE), 0),
        (Refused(Reason.UPSTREAM_UNREACHABLE), Refused(Reason.UPSTREAM_BROKE), 1),
        (Refused(Reason.UPSTREAM_BROKE), Refused(Reason.BREAKER_OPEN), 0),
        (Refused(Reason.UPSTREAM_BROKE), 503, 1),
        (503, Refused(Reason.UPSTREAM_BROKE), 0),
    ],
)
async def test_when_both_fail_there_is_no_third(
    order: tuple[int, int], first: Any, second: Any, told: int
) -> None:
    """Although there are attempts and a budget left. Told is what the server said, else what was sent."""
    scene = Scene(attempts=10)
    attempts = await scene.begins()
    outcomes = [answer(each) if isinstance(each, int) else each for each in (first, second)]
    for each in order:
        attempts[each](outcomes[each])
    assert await scene.ends() is outcomes[told]
    await scene.is_over()
    assert (len(scene.attempts), scene.slept) == (2, [])


async def test_of_two_failing_replies_the_one_that_nobody_gets_is_closed() -> None:
    scene = Scene()
    attempts = await scene.begins()
    kept, other = answer(503), answer(503)
    attempts[1](kept)
    attempts[0](other)
    assert await scene.ends() is kept
    assert (attempts[0].endings, attempts[1].endings) == ([Ending.COMPLETE], [])


async def test_what_fails_before_the_second_is_sent_is_repeated_as_ever() -> None:
    """And what is repeated gets no second one beside it, or there would be three."""
    scene = Scene()
    rule = Rule(id="r", tool_class="read", idempotent=True, hedge_after_s=NEVER_S)
    (first,) = await scene.begins(asked(rule), attempts=1)
    first(Refused(Reason.OUTCOME_UNKNOWN))
    _, again = await scene.sees(2)
    assert scene.hedging.under_way == 0
    reply = answer()
    again(reply)
    assert await scene.ends() is reply
    assert (len(scene.slept), scene.hedging.sent, scene.stage.repeated) == (1, 0, 1)


async def test_beyond_the_budget_there_is_no_second() -> None:
    """A slow server is not made slower: what is sent beside is paid like what is sent again."""
    budget = Budget(ratio=0, min_per_s=0.1)
    scene = Scene(budget=budget)
    await scene.begins()
    assert not budget.may_repeat(0.0)
    other = Scene(budget=budget)
    (first,) = await other.begins(attempts=1)
    await until_due(lambda: other.hedging.withheld["budget"] == 1)
    assert (len(other.attempts), other.places) == (1, 10)
    reply = answer()
    first(reply)
    assert await other.ends() is reply
    scene.attempts[0](answer())
    await scene.ends()


async def test_without_a_place_at_the_server_there_is_no_second() -> None:
    """capacity.max_in_flight is how many calls it gets at once, and hedging does not change that."""
    budget = Budget(ratio=0, min_per_s=0.1)
    scene = Scene(places=0, budget=budget)
    (first,) = await scene.begins(attempts=1)
    await until_due(lambda: scene.hedging.withheld["capacity"] == 1)
    assert budget.may_repeat(0.0), "what is not sent costs nothing"
    first(answer())
    await scene.ends()
    assert (len(scene.attempts), scene.places) == (1, 0)


async def test_the_place_of_the_second_is_free_when_one_of_them_is_over() -> None:
    scene = Scene()
    attempts = await scene.begins()
    assert scene.places == 9
    attempts[0](Refused(Reason.UPSTREAM_BROKE))
    await until(lambda: scene.places == 10)
    attempts[1](answer())
    await scene.ends()
    await scene.is_over()


async def test_the_breaker_hears_of_each_of_them_and_not_of_who_lost() -> None:
    """One failure, and one that says nothing; a half-open breaker lets no second one pass."""
    breaker = Breaker(failures=1, failure_ratio=1.0, min_calls=100, window_s=10, open_s=1, max_open_s=1)
    scene = Scene(breaker=breaker)
    attempts = await scene.begins()
    attempts[1](Refused(Reason.UPSTREAM_BROKE))
    await until(lambda: breaker.opened == 1)
    attempts[0](answer())
    await scene.ends()
    probing = Scene(breaker=breaker)
    probing.now = 2.0
    (probe,) = await probing.begins(attempts=1)
    await until_due(lambda: probing.hedging.sent == 1 and probing.hedging.under_way == 1)
    assert probing.guarding.refused["breaker"] == 1
    reply = answer()
    probe(reply)
    assert await probing.ends() is reply
    assert len(probing.attempts) == 1


@pytest.mark.parametrize("attempts", [1, 2])
async def test_whoever_leaves_leaves_both(attempts: int) -> None:
    scene = Scene()
    seen = await scene.begins(asked(READS if attempts == 2 else LATE), attempts=attempts)
    assert scene.call is not None
    scene.call.cancel()
    async with asyncio.timeout(SECONDS):
        await asyncio.wait([scene.call])
    assert scene.call.cancelled()
    await scene.is_over()
    assert all(each.was_cancelled for each in seen)


@pytest.mark.parametrize("turns", range(6))
async def test_whoever_leaves_in_the_moment_of_the_answer_leaves_nothing_open(turns: int) -> None:
    """The answer is here, and nobody will ever write it."""
    scene = Scene()
    attempts = await scene.begins()
    source = Source()
    attempts[1](source.reply())
    for _ in range(turns):
        await turn()
    assert scene.call is not None
    scene.call.cancel()
    async with asyncio.timeout(SECONDS):
        await asyncio.wait([scene.call])
    if not scene.call.cancelled():
        scene.call.result().done(Ending.CLIENT_GONE)
    await scene.is_over()
    assert attempts[0].was_cancelled
    assert attempts[1].was_cancelled or (source.closed, attempts[1].endings) == (1, [Ending.CLIENT_GONE])


async def test_whoever_leaves_closes_what_had_failed() -> None:
    scene = Scene()
    attempts = await scene.begins()
    attempts[0](answer(503))
    await until(lambda: scene.hedging.under_way == 1)
    assert scene.call is not None
    scene.call.cancel()
    async with asyncio.timeout(SECONDS):
        await asyncio.wait([scene.call])
    await scene.is_over()
    assert attempts[0].endings == [Ending.CLIENT_GONE]


@pytest.mark.parametrize("failing", [0, 1])
async def test_our_own_failures_are_told_at_once(failing: int) -> None:
    """The hall refuses what it does not expect; nothing is left behind."""
    scene = Scene()
    attempts = await scene.begins()
    attempts[failing](RuntimeError("bug"))
    with pytest.raises(RuntimeError, match="bug"):
        await scene.ends()
    await scene.is_over()
    assert attempts[1 - failing].was_cancelled


async def test_an_attempt_that_is_cancelled_from_within_hangs_nobody() -> None:
    scene = Scene()
    (first,) = await scene.begins(asked(LATE), attempts=1)
    first(asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await scene.ends()
    await scene.is_over()


async def test_both_carry_one_key() -> None:
    """Issue 7, item 2: one idempotency key per call."""
    rule = Rule(id="r", tool_class="read", idempotent=True, hedge_after_s=SOON, idempotency_key=True)
    scene = Scene()
    first, second = await scene.begins(asked(rule))
    assert first.permit is second.permit
    assert first.permit.call.headers.get("idempotency-key") is not None
    first(answer())
    await scene.ends()


async def test_what_failed_is_forgotten_with_its_call() -> None:
    """No ring of an exception and its frames."""

    class Noticed(Refused):
        """Can be seen to go."""

    scene = Scene()
    attempts = await scene.begins()
    failures = [Noticed(Reason.UPSTREAM_BROKE), Noticed(Reason.UPSTREAM_BROKE)]
    seen = [weakref.ref(each) for each in failures]
    for attempt in attempts:
        attempt(failures.pop())
    gc.collect()
    gc.disable()
    try:
        await scene.ends()
        await scene.is_over()
        scene.call = None
        scene.attempts.clear()
        del attempts, attempt
        await asyncio.sleep(0)
        assert [each() for each in seen] == [None, None]
    finally:
        gc.enable()


CAPABILITIES: Final = "io.modelcontextprotocol/clientCapabilities"
PARAMS: Final[list[dict[str, object]]] = [
    {"task": {}},
    {"requestState": "x"},
    {"inputResponses": {}},
    {"_meta": {"progressToken": 0}},
    {"_meta": {"progressToken": None}},
    {"_meta": {CAPABILITIES: {"extensions": {"io.modelcontextprotocol/tasks": {}}}}},
    {"_meta": {CAPABILITIES: {"Extensions": {"io.modelcontextprotocol/Tasks": {}}}}},
    {"_meta": {CAPABILITIES: {"tasks": {}}}},
]


@pytest.mark.parametrize(
    "asked_for",
    [
        *(asked(revision=each) for each in REGISTER[:-1]),
        asked(Rule(id="r", tool_class="read", idempotent=True)),
        asked(Rule(id="r", tool_class="read", hedge_after_s=SOON)),
        asked(Rule(id="r", tool_class="write", idempotent=True, hedge_after_s=SOON)),
        asked(Rule(id="r", tool_class="dangerous", idempotent=True, hedge_after_s=SOON)),
        *(asked(method=each) for each in ("tools/list", "prompts/get", "subscriptions/listen", "tasks/get")),
        asked(kind=Kind.NOTIFICATION, id=None),
        permit(make_batch(make_call(revision=MODERN)), READS),
        *(asked(params=each) for each in PARAMS),
    ],
)
def test_everything_else_is_sent_once_at_a_time(asked_for: Permit) -> None:
    """protocol.md 7.1 and trap 14: older servers hang when an id is there twice; who is told on the way would hear of
    both; what goes on from another call may be allowed once."""
    assert hedged_after_s(asked_for) is None


OTHERS: Final = {"extensions": {"a/b": {}}, "roots": "tasks"}
PLAIN: Final[list[dict[str, object]]] = [
    {},
    {"_meta": {}},
    {"_meta": "x"},
    {"_meta": {CAPABILITIES: OTHERS}},
    {"_meta": {CAPABILITIES: 1}},
    {"name": "t", "arguments": {"task": 1}},
]


@pytest.mark.parametrize("params", PLAIN)
def test_a_plain_call_of_a_tool_that_reads_may_be(params: dict[str, object]) -> None:
    """The test above must be able to fail."""
    assert hedged_after_s(asked(params=params)) == SOON
