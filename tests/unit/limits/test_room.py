"""A permit becomes a lease or a refusal; what never reached the server is given back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from proxy.limits.continuations import Continuations
from proxy.limits.demand import Demand, Denied, Granted
from proxy.limits.local import Local
from proxy.limits.room import Limits, Store
from proxy.limits.rules import Rules, Tally
from proxy.limits.settings import LimitSettings
from proxy.model import Ending, Kind, Lease, Outcome, Permit, Principal, Reason, Refused, Rule
from proxy.protocol.revisions import BY_NAME
from tests.fakes import PRINCIPAL, FakeJourney, awaited, make_call

NOON = 1_770_724_800.0
RATE = LimitSettings(name="rate", key=("tenant",), rate_per_s=1.0, burst=5)
QUOTA = LimitSettings(name="quota", key=("tenant",), quota=3, window="day")
MODERN = BY_NAME["2026-07-28"]


class Clock:
    """Both clocks of the room, set by hand."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def now(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return NOON + self.now_s


class Room:
    """The room with what stands around it."""

    def __init__(self, *limits: LimitSettings, shared: Store | None = None) -> None:
        self.clock = Clock()
        self.rules = Rules(limits)
        self.continuations = Continuations()
        self.journey = FakeJourney()
        self._limits = Limits(
            self.rules,
            local=Local(),
            shared=shared,
            continuations=self.continuations,
            now=self.clock.now,
            wall=self.clock.wall,
        )

    def permit(self, **fields: object) -> Permit:
        self.journey = FakeJourney()
        principal, rule = fields.pop("principal", PRINCIPAL), fields.pop("rule", Rule(id="r-1"))
        call = make_call(**{"target": "t", "journey": self.journey, "revision": MODERN, **fields})  # type: ignore[arg-type]  # fields of a call
        assert isinstance(principal, Principal)
        assert isinstance(rule, Rule)
        return Permit(call=call, principal=principal, rule=rule)

    async def leases(self, permit: Permit | None = None) -> Lease:
        lease = await awaited(self._limits(permit or self.permit()))
        assert lease is not None
        return lease

    async def passes(self, **fields: object) -> bool:
        try:
            lease = await awaited(self._limits(self.permit(**fields)))
        except Refused:
            return False
        self.journey.outcome_at_server = Outcome.ANSWERED
        if lease is not None:
            lease.release(Ending.COMPLETE)
        return True

    async def refusal(self, **fields: object) -> Refused:
        with pytest.raises(Refused) as caught:
            await awaited(self._limits(self.permit(**fields)))
        return caught.value

    async def how_many(self, **fields: object) -> int:
        count = 0
        while await self.passes(**fields):
            count += 1
        return count


async def test_who_asks_too_much_is_refused_in_words() -> None:
    room = Room(RATE)
    assert await room.how_many() == 5
    refusal = await room.refusal(rule=Rule(id="r", instead="wait."))
    assert (refusal.reason, refusal.retry_after_s, refusal.data) == (
        Reason.RATE_LIMITED,
        1.0,
        {"limit": "rate", "remaining": 0},
    )
    assert "Limit rate" in refusal.why
    assert refusal.why.endswith("Instead: wait.")
    room.clock.now_s = 1.0
    assert await room.how_many() == 1


async def test_every_limit_is_asked_together() -> None:
    room = Room(RATE, QUOTA)
    assert await room.how_many() == 3
    refusal = await room.refusal()
    assert (refusal.reason, refusal.data) == (
        Reason.QUOTA_SPENT,
        {"limit": "quota", "remaining": 0, "resetsAt": "2026-02-11T00:00:00Z"},
    )
    # Nothing was taken of the rate by what the quota refused.
    assert await room.how_many(method="ping") == 2


async def test_tenants_do_not_share() -> None:
    room = Room(QUOTA)
    assert await room.how_many() == 3
    assert await room.how_many(principal=Principal(issuer="test", subject="ann", tenant="b")) == 3


@pytest.mark.parametrize("ending", list(Ending))
@pytest.mark.parametrize("outcome", list(Outcome))
async def test_a_call_that_never_reached_the_server_gets_its_quota_back(
    outcome: Outcome, ending: Ending
) -> None:
    """Issue 5: settled by what became of the call at the server, however its stream ended; rates never."""
    room = Room(RATE, QUOTA)
    lease = await room.leases()
    room.journey.outcome_at_server = outcome
    lease.release(ending)
    assert await room.how_many() == (3 if outcome is Outcome.NOT_REACHED else 2)
    assert await room.how_many(method="ping") == (1 if outcome is Outcome.NOT_REACHED else 2)


async def test_a_lease_settles_once() -> None:
    room = Room(QUOTA)
    lease = await room.leases()
    assert await room.passes()
    for _ in range(5):
        lease.release(Ending.CLIENT_GONE)
    assert await room.how_many() == 2


async def test_a_call_of_yesterday_gives_nothing_back_today() -> None:
    room = Room(QUOTA)
    lease = await room.leases()
    room.clock.now_s = 12 * 3600
    assert await room.how_many() == 3
    lease.release(Ending.CLIENT_GONE)
    assert not await room.passes()


async def test_a_cost_that_is_too_high_takes_nothing() -> None:
    """LIM-008."""
    room = Room(QUOTA)
    refusal = await room.refusal(rule=Rule(id="r", cost=4))
    assert refusal.data == {"limit": "quota", "remaining": 3, "cost": 4}
    assert refusal.retry_after_s is None
    assert await room.how_many() == 3


async def test_what_must_pass_passes_and_empties_the_bucket() -> None:
    room = Room(RATE)
    for _ in range(20):
        assert await room.passes(method="notifications/initialized", id=None, kind=Kind.NOTIFICATION)
    assert not await room.passes()


async def test_without_a_limit_that_is_meant_nothing_is_asked() -> None:
    room = Room(QUOTA)
    for _ in range(10):
        assert await room.passes(method="tools/list", target=None)


# Limits that only report


async def test_a_limit_that_only_reports_is_recorded_and_passes() -> None:
    """Contract: counted, recorded, never refused."""
    room = Room(LimitSettings(name="tight", key=("tenant",), quota=2, window="day", report=True), RATE)
    told = []
    for _ in range(4):
        assert await room.passes()
        told.append([each[1:] for each in room.journey.diary])
    would = [("would refuse", "limit tight", Reason.QUOTA_SPENT)]
    assert told == [[], [], would, would]
    assert room.rules.tallies == {"tight": Tally(granted=2, reported=2), "rate": Tally(granted=4)}


async def test_what_is_refused_is_not_asked_of_those_that_report() -> None:
    room = Room(
        LimitSettings(name="told", key=("tenant",), quota=10, window="day", report=True),
        LimitSettings(name="rate", key=("tenant",), rate_per_s=1.0, burst=1),
    )
    assert await room.how_many() == 1
    assert room.rules.tallies["told"] == Tally(granted=1)
    assert room.rules.tallies["rate"] == Tally(granted=1, refused=1)


async def test_those_that_report_are_settled_too() -> None:
    room = Room(LimitSettings(name="told", key=("tenant",), quota=1, window="day", report=True))
    for _ in range(3):
        lease = await room.leases()
        lease.release(Ending.CLIENT_GONE)
        assert room.journey.diary == []


# Continuations


def asked(room: Room, target: str = "t") -> None:
    ear = room.continuations.listen(room.permit(target=target), None)
    assert ear is not None
    ear.result("tools/call", {"resultType": "input_required"})


ANSWERS = {"inputResponses": {}, "requestState": "s"}


async def test_the_answer_to_a_question_is_free_of_quotas_once_and_costs_a_rate_token() -> None:
    room = Room(RATE, QUOTA)
    assert await room.how_many() == 3
    asked(room)
    assert await room.passes(params=ANSWERS)
    assert not await room.passes(params=ANSWERS)
    assert await room.how_many(method="ping") == 1


async def test_a_question_nobody_asked_is_not_answered_for_free() -> None:
    room = Room(QUOTA)
    assert await room.how_many(params=ANSWERS) == 3


async def test_a_quota_may_count_answers() -> None:
    counting = LimitSettings(name="quota", key=("tenant",), quota=3, window="day", continuations="counted")
    room = Room(counting)
    asked(room)
    assert await room.how_many(params=ANSWERS) == 3


async def test_an_answer_that_is_refused_or_never_arrives_may_be_given_again() -> None:
    room = Room(LimitSettings(name="rate", key=("tenant",), rate_per_s=1.0, burst=1), QUOTA)
    assert await room.passes()
    asked(room)
    assert not await room.passes(params=ANSWERS)
    room.clock.now_s = 1.0
    lease = await room.leases(room.permit(params=ANSWERS))
    lease.release(Ending.UPSTREAM_BROKE)
    lease.release(Ending.UPSTREAM_BROKE)
    room.clock.now_s = 2.0
    assert await room.passes(params=ANSWERS)
    # Only the first call has counted.
    room.clock.now_s = 10.0
    taken = 0
    while await room.passes():
        taken += 1
        room.clock.now_s += 10.0
    assert taken == 2


# A store that replicas share


class FakeStore:
    """Fulfils `Store`: takes of a table of its own, or does what it was told."""

    def __init__(self, *answers: BaseException | asyncio.Event) -> None:
        self.answers: list[BaseException | asyncio.Event | None] = list(answers)
        self._local = Local()
        self.refunds: list[tuple[Sequence[str], Granted | None]] = []
        self.takes: list[list[str]] = []
        self.waits = asyncio.Event()
        """It was asked and has not answered."""

    async def take(self, demands: Sequence[Demand]) -> Granted | Denied:
        self.takes.append([each.limit for each in demands])
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, asyncio.Event):
            self.waits.set()
            await answer.wait()
        elif answer is not None:
            raise answer
        return self._local.take(demands, now=0.0, wall=NOON)

    def refund(self, demands: Sequence[Demand], granted: Granted | None = None) -> None:
        self.refunds.append(([each.limit for each in demands], granted))


async def test_replicas_ask_the_store_and_give_back_what_it_granted() -> None:
    store = FakeStore()
    room = Room(RATE, QUOTA, shared=store)
    lease = await room.leases()
    lease.release(Ending.CLIENT_GONE)
    assert store.refunds == [(["rate", "quota"], Granted((4, 2)))]
    assert await room.how_many() == 2
    assert (await room.refusal()).reason is Reason.QUOTA_SPENT


async def test_a_store_that_refuses_is_heard() -> None:
    room = Room(QUOTA, shared=FakeStore(Refused(Reason.OVERLOADED)))
    assert (await room.refusal()).reason is Reason.OVERLOADED


async def test_a_store_that_refuses_does_not_refuse_for_limits_that_only_report() -> None:
    told = LimitSettings(name="told", key=("tenant",), quota=3, window="day", report=True)
    store = FakeStore(Refused(Reason.OVERLOADED))
    assert await Room(told, shared=store).passes()
    assert store.takes == [["told"]]


async def test_who_leaves_while_the_store_is_asked_gets_everything_back() -> None:
    """The first answer has come, the second has not: neither the quota nor the question is lost."""
    never = asyncio.Event()
    strict = LimitSettings(name="strict", key=("tenant",), quota=5, window="day", continuations="counted")
    told = LimitSettings(
        name="told", key=("tenant",), quota=3, window="day", continuations="counted", report=True
    )
    store = FakeStore()
    room = Room(QUOTA, strict, told, shared=store)
    asked(room)
    store.answers = [None, never]
    task = asyncio.ensure_future(room.leases(room.permit(params=ANSWERS)))
    async with asyncio.timeout(5):
        await store.waits.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert store.refunds == [(["strict"], Granted((4,)))]
    assert room.continuations.use(room.permit(params=ANSWERS)) is not None


async def test_a_continuation_survives_a_store_that_fails() -> None:
    room = Room(RATE, QUOTA, shared=FakeStore(Refused(Reason.OVERLOADED)))
    asked(room)
    assert (await room.refusal(params=ANSWERS)).reason is Reason.OVERLOADED
    assert room.continuations.use(room.permit(params=ANSWERS)) is not None
