"""Is this the moment: which guard is asked about what, and that nothing is spent by what is refused."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping

import pytest

from proxy.model import Call, Headers, Kind, Permit, Principal, Reason, Refused, Reply, Rule
from proxy.policy.approvals import Approvals, Challenge, Override
from proxy.policy.guard_settings import Approval, RepetitionSettings
from proxy.policy.guards import Guarded
from proxy.policy.modes import Modes
from proxy.policy.repetition import Repetition
from tests.fakes import Diary, FakeJourney, FakeStage, make_batch, make_call

ANN = Principal(issuer="iss", subject="ann", tenant="acme")
BOB = Principal(issuer="iss", subject="bob", tenant="acme")
FREE = Rule(id="free", tool_class="read")
GATED = Rule(id="gated", approval="gated")
DENIED = Rule(id="denied", approval="denied")
REPORTED = Rule(id="reported", approval="gated", is_reported=True)
RULES = {"free": FREE, "gated": GATED, "other": GATED, "denied": DENIED, "reported": REPORTED}
OK = Reply(200, Headers(), b"{}")


def rule_of(call: Call, principal: Principal) -> Rule:
    return RULES.get(call.target or "", FREE)


class House:
    """A guarded stage, with everything that is around it."""

    def __init__(
        self, *, modes: bool = True, approvals: bool = True, most: int | None = None, generation: str = "g1"
    ) -> None:
        count = itertools.count(1)
        self.diary: Diary = []
        self.now = 0.0
        self.modes = Modes()
        self.approvals = Approvals(600.0, "g1", lambda: f"id-{next(count)}")
        self.repetition = None if most is None else Repetition(RepetitionSettings(most=most))
        self.used: list[tuple[object, Challenge]] = []
        self.guarded = Guarded(
            FakeStage(self.diary, OK),
            rule_of=rule_of,
            modes=self.modes if modes else None,
            approvals=self.approvals if approvals else None,
            repetition=self.repetition,
            generation=generation,
            used=lambda call, challenge: self.used.append((call.id, challenge)),
            now=lambda: self.now,
        )

    async def ask(self, call: Call, who: Principal = ANN) -> Refused | None:
        try:
            reply = await self.guarded(Permit(call=call, principal=who, rule=rule_of(call, who)))
        except Refused as refused:
            return refused
        assert reply is OK
        return None

    def release(self, refusal: Refused | None) -> None:
        assert refusal is not None
        ids = refusal.data.get("confirmationIds", [refusal.data["confirmationId"]])
        assert isinstance(ids, list)
        for id in ids:
            assert self.approvals.release(id, "olga", self.now) is not None

    def override(self, approval: Approval, tenant: str = "acme") -> None:
        self.approvals.override(Override(tenant=tenant, tool="*", approval=approval), self.now)

    @property
    def served(self) -> list[tuple[object, ...]]:
        return [words[1:] for words in self.diary if words[0] == "serve"]


def tool(
    name: str, id: int = 1, *, kind: Kind = Kind.REQUEST, arguments: Mapping[str, object] | None = None
) -> Call:
    params = {"name": name, "arguments": arguments or {}}
    return make_call(target=name, id=id, kind=kind, params=params, journey=FakeJourney())


def told(call: Call) -> list[tuple[object, ...]]:
    """What the journey of the call heard."""
    assert isinstance(call.journey, FakeJourney)
    return [words[1:] for words in call.journey.diary]


def reason(refusal: Refused | None) -> Reason | None:
    return None if refusal is None else refusal.reason


async def test_a_gated_call_runs_once_after_a_person_agreed() -> None:
    """Issue 4: refused, released, runs once; a replay is refused; the audit hears what was spent."""
    house = House()
    first = await house.ask(tool("gated"))
    assert first is not None
    assert (first.reason, first.data) == (
        Reason.APPROVAL_REQUIRED,
        {"confirmationId": "id-1", "expiresInMs": 600_000},
    )
    assert first.why.count("id-1") == 1
    house.release(first)
    assert reason(await house.ask(tool("gated", arguments={"n": 1}))) is Reason.APPROVAL_REQUIRED
    assert reason(await house.ask(tool("other"))) is Reason.APPROVAL_REQUIRED
    assert reason(await house.ask(tool("gated"), BOB)) is Reason.APPROVAL_REQUIRED
    assert (house.served, house.used) == ([], [])
    assert await house.ask(tool("gated", 2)) is None
    again = await house.ask(tool("gated", 3))
    assert again is not None
    assert again.data["confirmationId"] not in ("id-1", None)
    assert house.served == [(2,)]
    assert [(id, spent.id, spent.decided_by) for id, spent in house.used] == [(2, "id-1", "olga")]


async def test_a_rejected_call_stays_refused() -> None:
    """The operator says no: the same call learns it, alone and in a batch."""
    house = House()
    await house.ask(tool("gated"))
    assert house.approvals.reject("id-1", "olga", 0.0) is not None
    for call in (tool("gated"), make_batch(tool("gated"), tool("other", 2))):
        refusal = await house.ask(call)
        assert refusal is not None
        assert refusal.data["confirmationId"] == "id-1"
        assert "rejected" in refusal.why


@pytest.mark.parametrize("leaves", [False, True])
async def test_of_two_equal_calls_at_once_one_runs(leaves: bool) -> None:
    """Issue 4: consumed atomically, although the first one is still on its way, and if it never comes back."""
    house = House()
    house.release(await house.ask(tool("gated")))
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def serve() -> Reply:
        inside.set()
        await go_on.wait()
        return OK

    house.guarded._serve = FakeStage(house.diary, serve)
    async with asyncio.TaskGroup() as group, asyncio.timeout(5):
        first = group.create_task(house.ask(tool("gated", 1)))
        await inside.wait()
        second = await house.ask(tool("gated", 2))
        assert reason(second) is Reason.APPROVAL_REQUIRED
        if leaves:
            first.cancel()
        go_on.set()
    assert reason(await house.ask(tool("gated", 3))) is Reason.APPROVAL_REQUIRED
    assert house.served == [(1,)]


async def test_many_equal_calls_in_one_turn_of_the_loop() -> None:
    """The same, with everybody at the door when it opens."""
    house = House()
    house.release(await house.ask(tool("gated")))
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(house.ask(tool("gated", number))) for number in range(20)]
    refusals = [each.result() for each in asked]
    assert refusals.count(None) == len(house.served) == len(house.used) == 1
    assert {each.data["confirmationId"] for each in refusals if each is not None} == {"id-2"}


async def test_a_release_of_another_policy_lets_nothing_through() -> None:
    """Issue 4: policy generation. A call that the last policy judged is told to come again."""
    house, late = House(), House(generation="g0")
    house.release(await house.ask(tool("gated")))
    late.approvals, late.guarded._approvals = house.approvals, house.approvals
    assert reason(await late.ask(tool("gated"))) is Reason.APPROVAL_REQUIRED
    house.approvals.begin(600.0, "g2")
    assert reason(await house.ask(tool("gated"))) is Reason.APPROVAL_REQUIRED
    assert house.served == late.served == []


@pytest.mark.parametrize(
    ("name", "override", "found"),
    [
        ("free", None, None),
        ("gated", None, Reason.APPROVAL_REQUIRED),
        ("denied", None, Reason.NOT_ALLOWED),
        ("reported", None, None),
        ("free", "gated", Reason.APPROVAL_REQUIRED),
        ("free", "denied", Reason.NOT_ALLOWED),
        ("gated", "auto", None),
        ("gated", "denied", Reason.NOT_ALLOWED),
        ("denied", "auto", None),
        ("denied", "gated", Reason.APPROVAL_REQUIRED),
        # What an operator sets now is meant, although the rule only reports.
        ("reported", "gated", Reason.APPROVAL_REQUIRED),
        ("reported", "denied", Reason.NOT_ALLOWED),
    ],
)
async def test_what_an_operator_set_is_stronger_than_the_rule(
    name: str, override: Approval | None, found: Reason | None
) -> None:
    """Issue 4: auto, gated, denied per rule and, at run time, per tenant, seen by that tenant only."""
    house = House()
    if override is not None:
        house.override(override)
    elsewhere = Principal(issuer="iss", subject="ann", tenant="other")
    before = House()
    assert reason(await house.ask(tool(name))) is found
    assert reason(await house.ask(tool(name), elsewhere)) is reason(await before.ask(tool(name), elsewhere))


@pytest.mark.parametrize(
    ("rule", "found"), [("gated", Reason.APPROVAL_REQUIRED), ("denied", Reason.NOT_ALLOWED)]
)
async def test_a_rule_that_only_reports_is_recorded_and_passes(
    rule: str, found: Reason, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 4, report mode: decision recorded, not a byte changed, nobody asked."""
    approval: Approval = "gated" if rule == "gated" else "denied"
    monkeypatch.setitem(RULES, "reported", Rule(id="reported", approval=approval, is_reported=True))
    house = House()
    call = tool("reported")
    assert await house.ask(call) is None
    assert told(call) == [("would refuse", "reported", found)]
    assert len(house.approvals) == 0


async def test_a_repetition_that_is_only_reported_passes() -> None:
    """The same for the repetition guard; other tools of the same batch are still refused."""
    house = House(most=1)
    house.override("auto")
    calls = [tool("reported", number) for number in range(3)]
    for each in calls:
        assert await house.ask(each) is None
    assert [told(each) for each in calls] == [
        [],
        *([[("would refuse", "reported", Reason.RATE_LIMITED)]] * 2),
    ]
    assert reason(await house.ask(make_batch(tool("reported"), tool("free"), tool("free")))) is (
        Reason.RATE_LIMITED
    )


async def test_a_batch_that_is_refused_has_spent_nothing() -> None:
    """Issue 4: all or nothing. Whatever refuses, and wherever it stands, the release is still there."""
    house = House(most=1)
    house.release(await house.ask(tool("gated")))
    assert await house.ask(tool("free")) is None
    for bad, found in [
        (tool("other", 2), Reason.APPROVAL_REQUIRED),
        (tool("denied", 2), Reason.NOT_ALLOWED),
        (tool("free", 2), Reason.RATE_LIMITED),
        (tool("gated", 2), Reason.APPROVAL_REQUIRED),
        (tool("other", 2, kind=Kind.NOTIFICATION), Reason.APPROVAL_REQUIRED),
    ]:
        for parts in [(tool("gated", 1), bad), (bad, tool("gated", 1))]:
            assert reason(await house.ask(make_batch(*parts))) is found
    house.modes.set("read-only", 0.0)
    assert reason(await house.ask(make_batch(tool("gated", 1), tool("free", 2)))) is Reason.MODE
    house.modes.set("normal", 0.0)
    assert house.used == []
    assert await house.ask(make_batch(tool("gated", 8), tool("free", 9, arguments={"n": 1}))) is None
    assert house.served == [(1,), (8, 9)]
    assert [id for id, _ in house.used] == [8]
    assert reason(await house.ask(tool("gated"))) is Reason.APPROVAL_REQUIRED


async def test_a_batch_is_asked_about_as_a_whole_and_runs_once() -> None:
    """2025-03-26: one refusal names every id, so that a person decides once."""
    house = House()
    batch = make_batch(tool("gated", 1), tool("free", 2), tool("other", 3))
    first = await house.ask(batch)
    assert first is not None
    assert first.data["confirmationIds"] == ["id-1", "id-2"]
    assert "Nothing of its batch" in first.why
    house.release(first)
    assert await house.ask(batch) is None
    assert [id for id, _ in house.used] == [1, 3]
    assert reason(await house.ask(batch)) is Reason.APPROVAL_REQUIRED


async def test_one_release_does_not_let_twins_through() -> None:
    """Single use: the same call twice in one batch would run twice."""
    house = House()
    house.release(await house.ask(tool("gated")))
    refusal = await house.ask(make_batch(tool("gated", 1), tool("gated", 2)))
    assert refusal is not None
    assert "twice" in refusal.why
    assert (house.served, len(house.approvals)) == ([], 1)


async def test_a_gated_notification_is_never_let_through() -> None:
    """A tools/call without an id runs on some servers and cannot be answered: it opens nothing, spends nothing."""
    house = House()
    assert reason(await house.ask(tool("gated", kind=Kind.NOTIFICATION))) is Reason.APPROVAL_REQUIRED
    assert len(house.approvals) == 0
    house.release(await house.ask(tool("gated")))
    assert reason(await house.ask(tool("gated", kind=Kind.NOTIFICATION))) is Reason.APPROVAL_REQUIRED
    assert (house.served, house.used) == ([], [])
    assert await house.ask(tool("gated")) is None


async def test_modes_are_asked_first() -> None:
    """Nobody is asked to approve what would be refused anyway, and a release outlives the maintenance."""
    house = House(most=1)
    house.modes.set("maintenance", 0.0, tenant="acme", until=60.0)
    assert reason(await house.ask(tool("gated"))) is Reason.MODE
    assert len(house.approvals) == 0
    house.modes.set("normal", 0.0, tenant="acme")
    house.release(await house.ask(tool("gated")))
    house.modes.set("maintenance", 0.0, until=60.0)
    refusal = await house.ask(tool("gated"))
    assert refusal is not None
    assert (refusal.reason, refusal.retry_after_s) == (Reason.MODE, 60.0)
    house.now = 60.0
    assert await house.ask(tool("gated")) is None


@pytest.mark.parametrize("tenant", ["acme", None])
async def test_a_mode_holds_where_nothing_else_is_set(tenant: str | None) -> None:
    """design, policy: modes at run time hold for every call, also where a rule asks for nothing."""
    house = House()
    assert await house.ask(tool("free")) is None
    house.modes.set("maintenance", 0.0, tenant=tenant)
    assert reason(await house.ask(tool("free"))) is Reason.MODE
    house.modes.set("normal", 0.0, tenant=tenant)
    assert await house.ask(tool("free")) is None


async def test_the_class_is_that_of_the_rule() -> None:
    """Modes ask the rule that decided the call, in batches that of each part."""
    house = House()
    house.modes.set("read-only", 0.0)
    assert await house.ask(tool("free")) is None
    assert await house.ask(make_batch(tool("free"), tool("free", 2))) is None
    assert reason(await house.ask(make_batch(tool("free"), tool("reported", 2)))) is Reason.MODE


async def test_repetition_counts_what_passed() -> None:
    """Issue 4: the same identity, tool and arguments; approvals that wait are not calls."""
    house = House(most=2)
    for _ in range(5):
        assert reason(await house.ask(tool("gated"))) is Reason.APPROVAL_REQUIRED
    spellings: list[Mapping[str, object]] = [{"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1, "b": 2}]
    found = [reason(await house.ask(tool("free", arguments=each))) for each in spellings]
    assert found == [None, None, Reason.RATE_LIMITED]
    assert await house.ask(tool("free", arguments={"a": 1.0, "b": 2})) is None
    assert await house.ask(tool("free", arguments={"a": 1, "b": 2}), BOB) is None
    house.now = 60.0
    assert await house.ask(tool("free", arguments={"a": 1, "b": 2})) is None


async def test_a_repeated_call_keeps_its_release() -> None:
    """The last guard refuses: what a person agreed to is not lost."""
    house = House(most=1)
    house.release(await house.ask(tool("gated")))
    assert await house.ask(tool("gated")) is None
    house.release(await house.ask(tool("gated")))
    assert reason(await house.ask(tool("gated"))) is Reason.RATE_LIMITED
    house.now = 60.0
    assert await house.ask(tool("gated")) is None


@pytest.mark.parametrize(
    "call",
    [
        make_call(method="tools/list"),
        make_call(method="prompts/get", target="gated"),
        make_call(method="resources/read", target="denied"),
        make_call(method="notifications/initialized", kind=Kind.NOTIFICATION, id=None),
        make_call(method="", kind=Kind.ANSWER),
        make_call(method="", kind=Kind.LISTEN, id=None),
        make_call(method="", kind=Kind.END, id=None),
    ],
    ids=lambda call: f"{call.kind.value} {call.method}",
)
async def test_only_tools_are_approved_and_counted(call: Call) -> None:
    """Issue 4; whatever the rule of another message says."""
    house = House(most=1)
    house.override("denied")
    for _ in range(3):
        assert await house.ask(call) is None


async def test_what_is_off_is_not_asked() -> None:
    """A house with no guard at all lets everything pass, and looks at nothing."""
    house = House(modes=False, approvals=False)
    house.modes.set("maintenance", 0.0)
    for call in (tool("gated"), tool("denied"), make_batch(tool("gated"), tool("gated", 2))):
        assert await house.ask(call) is None
    assert len(house.approvals) == 0


async def test_the_reply_and_the_exceptions_of_the_next_stage_pass() -> None:
    """A stage is transparent; what failed after it was let through has used its release."""
    house = House()
    house.release(await house.ask(tool("gated")))
    house.guarded._serve = FakeStage(house.diary, Refused(Reason.UPSTREAM_UNREACHABLE))
    assert reason(await house.ask(tool("gated"))) is Reason.UPSTREAM_UNREACHABLE
    assert len(house.used) == 1
