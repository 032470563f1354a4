"""Whatever callers, servers and clocks do: a breaker opens and closes as it is said, one call at a time tries a server
that is left alone, and nobody who leaves, at whatever moment, locks the others out."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Final, TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proxy.model import Ending, Headers, Permit, Principal, Reason, Refused, Reply, Rule, Stream
from proxy.resilience.breaker import ALIVE_S, SLICES, Breaker, State
from proxy.resilience.guarding import Guarding
from proxy.resilience.quarantine import Quarantine
from proxy.resilience.signals import Signal
from tests.fakes import make_call
from tests.fuzz.bounded import FUZZ, examples

FAILURES: Final = 3
RATIO: Final = 0.5
MIN_CALLS: Final = 6
WINDOW_S: Final = 10
OPEN_S: Final = 5
MAX_OPEN_S: Final = 20
SECONDS: Final = 5.0

signals = st.sampled_from([Signal.GOOD, Signal.BAD, Signal.BAD, Signal.SILENT])
eighths = st.sampled_from([0, 1, 4, 8, 8, 16, 40, 80, 81, 160, 800])
"""Of a second, so that sums are exact."""


class Plain:
    """The same breaker as one would write it down: everything is remembered, and counted anew each time."""

    def __init__(self) -> None:
        self.state = State.CLOSED
        self.era = 0
        self.heard: list[tuple[float, bool]] = []
        """When something was heard since it last closed, and whether that was a failure."""
        self.lengths: list[float] = []
        """How long it was to be open, each time since it last closed."""
        self.until = 0.0
        self.is_early = False
        self.probe: int | None = None
        self.begun: float | None = None
        self.probes = 0

    def admit(self, now: float) -> tuple[int, int] | None:
        """The era and the number of the try, 0 where it is none."""
        if self.state is State.OPEN and now >= self.until:
            self.state = State.HALF_OPEN
        if self.state is State.HALF_OPEN and self.begun is not None and now >= self.begun + ALIVE_S:
            self.close()
        if self.state is State.CLOSED:
            return self.era, 0
        if self.state is State.OPEN or self.probe is not None:
            return None
        self.probes += 1
        self.probe = self.probes
        return self.era, self.probe

    def tell(self, ticket: tuple[int, int], signal: Signal, now: float) -> None:
        era, probe = ticket
        if era != self.era:
            return
        if probe and probe == self.probe:
            self.probe = self.begun = None
            if signal is Signal.GOOD:
                self.close()
            if signal is Signal.BAD:
                self.open(now)
        elif not probe and signal is not Signal.SILENT:
            self.heard.append((now, signal is Signal.BAD))
            if signal is Signal.BAD and (self.row >= FAILURES or self.is_too_much(now)):
                self.open(now)

    def begin(self, ticket: tuple[int, int], now: float) -> None:
        if ticket[0] == self.era and ticket[1] and ticket[1] == self.probe:
            self.begun = now

    def sign_of_life(self) -> None:
        if self.state is State.OPEN:
            self.until, self.is_early = -math.inf, True

    @property
    def row(self) -> int:
        failed = [failed for _, failed in self.heard]
        return len(failed) if all(failed) else failed[::-1].index(False)

    def is_too_much(self, now: float) -> bool:
        slice_s = WINDOW_S / SLICES
        recent = [failed for at, failed in self.heard if at // slice_s > now // slice_s - SLICES]
        return len(recent) >= MIN_CALLS and sum(recent) >= RATIO * len(recent)

    def open(self, now: float) -> None:
        length = self.lengths[-1] * (1 if self.is_early else 2) if self.lengths else OPEN_S
        self.lengths.append(min(length, MAX_OPEN_S))
        self.until = now + self.lengths[-1]
        self.is_early = False
        self.era += 1
        self.state = State.OPEN

    def close(self) -> None:
        self.heard, self.lengths = [], []
        self.probe = self.begun = None
        self.is_early = False
        self.era += 1
        self.state = State.CLOSED


class AnyBreaker(RuleBasedStateMachine):
    """Beside the plain book: the state, every admission, and each wait are the same."""

    @initialize()
    def begin(self) -> None:
        self.breaker = Breaker(
            failures=FAILURES,
            failure_ratio=RATIO,
            min_calls=MIN_CALLS,
            window_s=WINDOW_S,
            open_s=OPEN_S,
            max_open_s=MAX_OPEN_S,
        )
        self.plain = Plain()
        self.now = 1_000.0
        self.under_way: list[tuple[int, tuple[int, int]]] = []

    @rule(times=st.integers(1, 4))
    def calls(self, times: int) -> None:
        for _ in range(times):
            found, expected = self.breaker.admit(self.now), self.plain.admit(self.now)
            assert (found is None) == (expected is None)
            if found is not None and expected is not None:
                self.under_way.append((found, expected))
            elif self.breaker.state is State.OPEN:
                assert 0 < self.breaker.wait_s(self.now) == self.plain.until - self.now
            else:
                assert self.breaker.wait_s(self.now) > 0

    @precondition(lambda self: bool(getattr(self, "under_way", None)))
    @rule(number=st.integers(0, 50), signal=signals, is_told_twice=st.booleans())
    def tells(self, number: int, signal: Signal, is_told_twice: bool) -> None:
        found, expected = self.under_way.pop(number % len(self.under_way))
        self.breaker.heard(found, signal, self.now)
        self.plain.tell(expected, signal, self.now)
        if is_told_twice and self.breaker.state is not State.CLOSED:
            # Too late: it has no say in who tries next, or in what that one says.
            self.breaker.heard(found, Signal.GOOD, self.now)

    @precondition(lambda self: bool(getattr(self, "under_way", None)))
    @rule(number=st.integers(0, 50))
    def begins_to_answer(self, number: int) -> None:
        found, expected = self.under_way[number % len(self.under_way)]
        self.breaker.begun(found, self.now)
        self.plain.begin(expected, self.now)

    @rule(step=eighths)
    def waits(self, step: int) -> None:
        self.now += step / 8

    @rule()
    def waits_as_told(self) -> None:
        self.now += self.breaker.wait_s(self.now)

    @rule()
    def is_seen_alive(self) -> None:
        self.breaker.sign_of_life()
        self.plain.sign_of_life()

    @rule()
    def is_closed_by_hand(self) -> None:
        self.breaker.close()
        if self.plain.state is not State.CLOSED:
            self.plain.close()

    @invariant()
    def is_the_same(self) -> None:
        if hasattr(self, "plain"):
            assert self.breaker.state is self.plain.state

    @invariant()
    def one_at_a_time_tries(self) -> None:
        if hasattr(self, "plain") and self.breaker.state is State.HALF_OPEN:
            trying = [found for found, _ in self.under_way if found == self.breaker._ticket]
            assert len(trying) <= 1


test_any_order_of_calls_signals_and_waits = AnyBreaker.TestCase
# All of them everywhere: a breaker that hears of old tickets is found by a third of them in six runs of seven.
AnyBreaker.TestCase.settings = settings(FUZZ, max_examples=300, stateful_step_count=60)


class AnyQuarantine(RuleBasedStateMachine):
    """Three tools in a table for two: what is in quarantine is refused, one call at a time tries it, and waiting
    helps. What is counted is the breaker's business."""

    @initialize()
    def begin(self) -> None:
        self.quarantine = Quarantine(failure_ratio=RATIO, min_calls=2, window_s=60, for_s=30, max_tools=2)
        self.now = 0.0
        self.under_way: list[tuple[str, int]] = []

    @rule(name=st.sampled_from("abc"))
    def call(self, name: str) -> None:
        was_alone = self.quarantine.is_left_alone(name)
        ticket = self.quarantine.admit(name, self.now)
        if ticket is None:
            assert was_alone
            assert self.quarantine.wait_s(name, self.now) > 0
        else:
            self.under_way.append((name, ticket))

    @precondition(lambda self: bool(getattr(self, "under_way", None)))
    @rule(number=st.integers(0, 50), signal=signals)
    def tell(self, number: int, signal: Signal) -> None:
        name, ticket = self.under_way.pop(number % len(self.under_way))
        self.quarantine.heard(name, ticket, signal, self.now)

    @precondition(lambda self: bool(getattr(self, "under_way", None)))
    @rule(number=st.integers(0, 50))
    def begin_to_answer(self, number: int) -> None:
        self.quarantine.begun(*self.under_way[number % len(self.under_way)], self.now)

    @rule(step=eighths)
    def wait(self, step: int) -> None:
        self.now += step / 8

    @rule(name=st.sampled_from("abc"))
    def lift(self, name: str) -> None:
        assert self.quarantine.lift(name) in (True, False)
        assert not self.quarantine.is_left_alone(name)

    @invariant()
    def it_is_bounded_and_says_what_it_does(self) -> None:
        if hasattr(self, "quarantine"):
            assert len(self.quarantine) <= 2
            alone = self.quarantine.left_alone
            assert [each for each in "abc" if self.quarantine.is_left_alone(each)] == sorted(alone)

    @invariant()
    def nobody_is_locked_out(self) -> None:
        """When all calls have ended and the time is over, each tool can be called, and is lifted by an answer."""
        if hasattr(self, "quarantine") and not self.under_way:
            later = self.now + 31
            for name in self.quarantine.left_alone:
                ticket = self.quarantine.admit(name, later)
                assert ticket is not None
                assert self.quarantine.admit(name, later) is None
                self.quarantine.heard(name, ticket, Signal.SILENT, later)


test_any_order_of_tools = AnyQuarantine.TestCase
AnyQuarantine.TestCase.settings = settings(FUZZ, max_examples=150, stateful_step_count=60)

Step: TypeAlias = tuple[str, int]

steps = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "call",
                "call",
                "call",
                "answer",
                "break",
                "break",
                "stream",
                "leave",
                "end",
                "cut",
                "go",
                "turn",
                "wait",
            ]
        ),
        st.integers(0, 7),
    ),
    max_size=60,
)


class Server:
    """Calls hang in it until a step says what becomes of them."""

    def __init__(self) -> None:
        self.calls: dict[asyncio.Future[Reply], bool] = {}
        """Those that hang, and whether each tries a server that is left alone."""
        self.tries = 0
        self.open: list[Reply] = []
        self.closed = 0
        self.guarding: Guarding | None = None

    async def __call__(self, permit: Permit) -> Reply:
        assert self.guarding is not None
        is_try = self.guarding.state is not State.CLOSED
        self.tries += is_try
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.calls[future] = is_try
        try:
            return await future
        finally:
            del self.calls[future]

    def stream(self) -> Reply:
        async def nothing() -> AsyncIterator[bytes]:
            yield b""

        reply = Reply(200, Headers([(b"Content-Type", b"text/event-stream")]), Stream(nothing(), self._close))
        self.open.append(reply)
        return reply

    def _close(self) -> None:
        self.closed += 1


@given(story=steps)
@settings(FUZZ, max_examples=examples(300))
def test_any_story_of_callers_and_servers(story: list[Step]) -> None:
    asyncio.run(_play(story))


async def _play(story: list[Step]) -> None:
    now = [0.0]
    server = Server()
    breaker = Breaker(
        failures=2, failure_ratio=1, min_calls=1_000, window_s=10, open_s=OPEN_S, max_open_s=MAX_OPEN_S
    )
    quarantine = Quarantine(failure_ratio=1, min_calls=2, window_s=60, for_s=OPEN_S)
    stage = server.guarding = Guarding(server, breaker, quarantine, now=lambda: now[0])
    tasks: list[asyncio.Task[Reply]] = []
    streams = 0
    for what, number in story:
        waiting = [call for call in server.calls if not call.done()]
        if what == "call":
            before = server.tries
            was_alone = breaker.state is not State.CLOSED
            tasks += [asyncio.ensure_future(stage(_permit(number))) for _ in range(2)]
            await _turns()
            if was_alone and breaker.state is not State.CLOSED:
                assert server.tries - before <= 1
        elif what in ("answer", "break", "stream") and waiting:
            call = waiting[number % len(waiting)]
            if what == "break":
                call.set_exception(Refused(Reason.UPSTREAM_BROKE))
            else:
                streams += what == "stream"
                call.set_result(server.stream() if what == "stream" else Reply(200, Headers(), b"{}"))
        elif what == "leave" and tasks:
            # Perhaps in the very moment in which its answer has come.
            tasks[number % len(tasks)].cancel()
        elif what in ("end", "cut", "go") and server.open:
            ending = {"end": Ending.COMPLETE, "cut": Ending.UPSTREAM_BROKE, "go": Ending.CLIENT_GONE}[what]
            server.open.pop(number % len(server.open)).done(ending)
        elif what == "turn":
            await _turns()
        elif what == "wait":
            now[0] += number
        assert breaker.state is not State.HALF_OPEN or sum(server.calls.values()) <= 1
    await _come_to_rest(server, tasks)
    assert server.closed == streams
    await _recovers(stage, server, now)
    assert (breaker.state, quarantine.left_alone) == (State.CLOSED, ())


def _permit(number: int) -> Permit:
    principal = Principal(issuer="test", subject="ann", tenant="acme")
    return Permit(call=make_call(target="ab"[number % 2]), principal=principal, rule=Rule(id="r"))


async def _turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def _come_to_rest(server: Server, tasks: list[asyncio.Task[Reply]]) -> None:
    """Everybody leaves."""
    for task in tasks:
        task.cancel()
    async with asyncio.timeout(SECONDS):
        await asyncio.gather(*tasks, return_exceptions=True)
    for reply in server.open:
        reply.done(Ending.CLIENT_GONE)
    assert server.calls == {}


async def _recovers(stage: Guarding, server: Server, now: list[float]) -> None:
    """When the time is over, one call of each tool that the server answers is enough."""
    now[0] += MAX_OPEN_S
    for number in range(2):
        task = asyncio.ensure_future(stage(_permit(number)))
        await _turns()
        assert len(server.calls) == 1
        next(iter(server.calls)).set_result(Reply(200, Headers(), b"{}"))
        async with asyncio.timeout(SECONDS):
            await task
