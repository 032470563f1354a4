"""Has a person agreed: what a challenge is bound to, how long it lives, and who can fill the table."""

import itertools
import math
from collections.abc import Callable
from functools import partial

import pytest

from proxy.model import Call, Principal, Reason, Refused
from proxy.policy import approvals as words
from proxy.policy.approvals import (
    MAX_OVERRIDES,
    SHOWN_BYTES,
    Approvals,
    Bounds,
    Challenge,
    Override,
    Wanted,
    wanted,
)
from proxy.policy.guard_settings import Approval
from proxy.protocol.jsonrpc import read_json
from tests.fakes import make_call, no

ANN = Principal(issuer="iss", subject="ann", tenant="acme")
OTHERS = [
    Principal(issuer="iss", subject="bob", tenant="acme"),
    Principal(issuer="iss", subject="ann", tenant="other"),
    Principal(issuer="else", subject="ann", tenant="acme"),
]
TTL_S = 600.0


def tokens() -> Callable[[], str]:
    count = itertools.count(1)
    return lambda: f"id-{next(count)}"


def table(bounds: Bounds | None = None) -> Approvals:
    return Approvals(TTL_S, "g1", tokens(), bounds)


def call_of(params: str = '{"arguments":{"n":1}}', tool: str = "delete") -> Call:
    value = read_json(params.encode())
    assert isinstance(value, dict)
    return make_call(target=tool, params={"name": tool, **value})


def wants(params: str = '{"arguments":{"n":1}}', who: Principal = ANN, tool: str = "delete") -> Wanted:
    return wanted(call_of(params, tool), who)


def many(count: int, who: Principal = ANN) -> list[Wanted]:
    return [wants(f'{{"arguments":{{"n":{number}}}}}', who) for number in range(count)]


def released(approvals: Approvals, what: Wanted | None = None, now: float = 0.0) -> str:
    """The id of a call that a person has agreed to."""
    id = approvals.ask(what or wants(), "g1", now).id
    assert approvals.release(id, "olga", now) is not None
    return id


def test_a_call_is_asked_about_decided_and_runs_once() -> None:
    """Issue 4: refused, released, runs once; a replay is asked about anew, under another id."""
    approvals = table()
    first = approvals.ask(wants(), "g1", 0.0)
    assert first == Challenge(id="id-1", wanted=wants(), state="waiting", expires=TTL_S)
    assert approvals.use([first.id], 1.0) is None
    assert approvals.pending(1.0) == (first,)
    yes = approvals.release(first.id, "olga", 2.0)
    assert yes == Challenge(
        id="id-1", wanted=wants(), state="released", expires=2.0 + TTL_S, decided_by="olga"
    )
    assert approvals.pending(3.0) == ()
    assert approvals.ask(wants(), "g1", 3.0) == yes
    assert approvals.use([first.id], 4.0) == (yes,)
    assert approvals.use([first.id], 4.0) is None
    replay = approvals.ask(wants(), "g1", 4.0)
    assert (replay.id, replay.state) == ("id-2", "waiting")


def test_the_same_call_asked_again_has_the_same_id() -> None:
    """Issue 4: no flood of challenges, however a model repeats itself; spelling and `_meta` do not matter."""
    approvals = table()
    spellings = [
        '{"arguments":{"a":1,"b":2}}',
        '{"arguments":{"b":2,"a":1}}',
        '{ "arguments" : { "\\u0062" : 2 , "a" : 1 } }',
        '{"_meta":{"progressToken":7},"arguments":{"a":1,"b":2}}',
    ]
    assert {approvals.ask(wants(each), "g1", 0.0).id for each in spellings} == {"id-1"}
    nothing = ["{}", '{"arguments":{}}', '{"arguments":null}']
    assert {approvals.ask(wants(each), "g1", 0.0).id for each in nothing} == {"id-2"}


OTHER_CALLS = [
    *('{"arguments":{"n":1.0}}', '{"arguments":{"n":"1"}}', '{"arguments":{"n":true}}'),
    *('{"arguments":{"n":2}}', '{"arguments":{"N":1}}', '{"arguments":{"n":[1]}}', "{}"),
    *('{"arguments":{"n":1,"m":null}}', '{"arguments":{"n":1},"task":{}}'),
    *('{"arguments":{"n":1},"inputResponses":{}}', '{"arguments":{"n":1},"requestState":"s"}'),
    *('{"n":1}', '{"Arguments":{"n":1}}'),
]
ELSE = [
    *((wants(each), each) for each in OTHER_CALLS),
    *((wants(who=each), repr(each.identity)) for each in OTHERS),
    *((wants(tool=each), each) for each in ("Delete", "delete2", "delet", "delete\u200b")),
]


@pytest.mark.parametrize("what", [each for each, _ in ELSE], ids=[name for _, name in ELSE])
def test_a_release_is_for_one_call_of_one_caller(what: Wanted) -> None:
    """Issue 4: changed arguments, tool, tenant, subject or issuer: as if nobody had ever asked."""
    approvals = table()
    released(approvals)
    fresh = table()
    fresh.ask(wants(), "g1", 0.0)
    other = approvals.ask(what, "g1", 1.0)
    assert other == fresh.ask(what, "g1", 1.0)
    assert other.state == "waiting"
    assert approvals.use([other.id], 1.0) is None


def test_two_ways_to_cut_a_call_are_two_calls() -> None:
    """What is hashed says where the tool's name ends and where the arguments begin."""
    a = wants('{"arguments":{"a":1}}', tool='x",{}]')
    texts = [a, wants('{"arguments":{"a":1}}', tool="x"), wants('{"x":{"a":1}}', tool="x")]
    assert len({each.digest for each in texts}) == 3


def test_another_policy_has_to_be_asked_again() -> None:
    """Issue 4: bound to the policy generation. What operators set for tenants stays."""
    approvals = table()
    waiting, yes = approvals.ask(wants("{}"), "g1", 0.0).id, released(approvals)
    approvals.override(Override(tenant="acme", tool="x", approval="denied"), 0.0)
    approvals.begin(TTL_S, "g1")
    assert len(approvals) == 2
    approvals.begin(TTL_S, "g2")
    assert (len(approvals), approvals.pending(1.0)) == (0, ())
    assert approvals.use([yes], 1.0) is None
    assert approvals.release(waiting, "olga", 1.0) is None
    assert approvals.ask(wants(), "g2", 1.0).state == "waiting"
    assert len(approvals.overrides(1.0)) == 1


def test_a_call_judged_by_the_last_policy_is_not_let_through_by_this_one() -> None:
    """A call may be under way while the settings are read again."""
    approvals = table()
    released(approvals)
    refusal = no(lambda: approvals.ask(wants(), "g0", 1.0))
    assert (refusal.reason, refusal.data) == (Reason.APPROVAL_REQUIRED, {})
    assert "once more" in refusal.why
    assert len(approvals) == 1


@pytest.mark.parametrize("after_s", [TTL_S, TTL_S + 1e-6, 1e9])
def test_what_has_expired_is_unknown(after_s: float) -> None:
    """Issue 4: valid for minutes; the wait for a person and the wait for the call are each that long."""
    approvals = table()
    waiting = approvals.ask(wants(), "g1", 0.0).id
    assert approvals.release(waiting, "olga", after_s) is None
    assert approvals.reject(waiting, "olga", after_s) is None
    assert approvals.pending(after_s) == ()
    approvals = table()
    yes = released(approvals)
    assert approvals.use([yes], after_s) is None
    assert approvals.ask(wants(), "g1", after_s).id == "id-2"


def test_a_late_yes_still_leaves_time_for_the_call() -> None:
    """A person who decides in the last minute has not decided in vain."""
    approvals = table()
    id = approvals.ask(wants(), "g1", 0.0).id
    assert approvals.release(id, "olga", 599.0) is not None
    assert approvals.ask(wants(), "g1", 1_198.0).id == id
    assert approvals.use([id], 1_198.9) is not None


def test_a_late_yes_keeps_nothing_else_alive() -> None:
    """Each expires by itself, in whichever order they were decided."""
    approvals = table()
    first, second = (approvals.ask(each, "g1", 0.0).id for each in many(2))
    assert approvals.release(first, "olga", 599.0) is not None
    assert approvals.pending(600.0) == ()
    assert len(approvals) == 1
    assert approvals.ask(many(2)[1], "g1", 600.0).id not in (first, second)


def test_asking_does_not_prolong_anything() -> None:
    """A model that repeats itself does not keep its own challenge alive."""
    approvals = table()
    for now in range(0, 600, 7):
        approvals.ask(wants(), "g1", float(now))
    assert approvals.ask(wants(), "g1", 600.0).id == "id-2"


def test_a_rejected_call_is_not_asked_about_again_for_a_while() -> None:
    """Own promise: nobody is worn down by being asked again; afterwards it may be asked anew."""
    approvals = table()
    id = approvals.ask(wants(), "g1", 0.0).id
    rejected = approvals.reject(id, "olga", 10.0)
    assert rejected == Challenge(id=id, wanted=wants(), state="rejected", expires=TTL_S, decided_by="olga")
    assert approvals.pending(11.0) == ()
    assert approvals.ask(wants(), "g1", 11.0) == rejected
    assert approvals.use([id], 11.0) is None
    assert approvals.release(id, "olga", 11.0) is None
    assert approvals.ask(wants(), "g1", TTL_S).id == "id-2"


def test_a_yes_can_be_taken_back_before_it_is_used() -> None:
    """A lever goes both ways."""
    approvals = table()
    id = released(approvals)
    assert approvals.reject(id, "otto", 1.0) is not None
    assert approvals.use([id], 1.0) is None
    assert approvals.reject(id, "otto", 1.0) is None


def test_a_yes_said_twice_is_one_yes() -> None:
    """Two operators at two screens: the second learns that there is nothing to decide."""
    approvals = table()
    id = released(approvals)
    assert approvals.release(id, "otto", 5.0) is None
    (used,) = approvals.use([id], 6.0) or ()
    assert (used.decided_by, used.expires) == ("olga", TTL_S)
    assert [decide(id, "otto", 7.0) for decide in (approvals.release, approvals.reject)] == [None, None]


def test_of_several_releases_all_are_used_or_none() -> None:
    """Issue 4: a batch that is refused has consumed no release."""
    approvals = table()
    one, two = (released(approvals, each) for each in many(2))
    waiting = approvals.ask(wants("{}"), "g1", 0.0).id
    for ids in ([one, waiting], [one, two, "unknown"], [one, one], [two, one, two]):
        assert approvals.use(ids, 1.0) is None
    assert approvals.use([one, two], TTL_S) is None
    spent = approvals.use([two, one], 1.0)
    assert [each.id for each in spent or ()] == [two, one]
    assert approvals.use([], 1.0) == ()


def test_operators_see_the_arguments_and_logs_do_not() -> None:
    """Nobody can decide about what nobody shows; nothing that is printed holds arguments."""
    small = wants('{"arguments":{"b":"secret","a":1}}')
    assert small.arguments == b'{"a":1,"b":"secret"}'
    assert "secret" not in repr(table().ask(small, "g1", 0.0))
    edge = '{"arguments":{"a":"%s"}}'
    assert wants(edge % ("x" * (SHOWN_BYTES - 8))).arguments is not None
    assert wants(edge % ("x" * (SHOWN_BYTES - 7))).arguments is None


def test_pending_is_told_by_tenant_and_in_order() -> None:
    """`pending(tenant=None)`: the oldest first."""
    approvals = table()
    ids = [approvals.ask(wants(who=who), "g1", 0.0).id for who in (ANN, *OTHERS)]
    assert [each.id for each in approvals.pending(1.0)] == ids
    assert [each.id for each in approvals.pending(1.0, "acme")] == [ids[0], ids[1], ids[3]]
    assert [each.id for each in approvals.pending(1.0, "other")] == [ids[2]]
    assert approvals.pending(1.0, "nobody") == ()


def test_an_id_that_comes_twice_lets_nothing_through() -> None:
    """Broken chance must not bind two calls to one yes."""
    approvals = Approvals(TTL_S, "g1", lambda: "always", None)
    approvals.ask(wants(), "g1", 0.0)
    with pytest.raises(RuntimeError, match="repeats itself"):
        approvals.ask(wants("{}"), "g1", 0.0)
    assert len(approvals) == 1


@pytest.mark.parametrize(
    ("bounds", "room", "others"),
    [
        (Bounds(subject=2), 2, [1, 1, 1]),
        (Bounds(tenant=2), 2, [0, 1, 0]),
        (Bounds(total=2), 2, [0, 0, 0]),
        (Bounds(subject=2, tenant=3, total=4), 2, [1, 1, 0]),
    ],
)
def test_a_flood_fills_its_own_place_and_evicts_nothing(bounds: Bounds, room: int, others: list[int]) -> None:
    """Issue 4: a bounded store; by default no tenant can fill the room of another, no subject that of a tenant."""
    approvals = table(bounds)
    asked = many(room + 3)
    ids = [approvals.ask(each, "g1", 0.0).id for each in asked[:room]]
    for each in asked[room:]:
        refusal = no(partial(approvals.ask, each, "g1", 1.0))
        assert (refusal.reason, refusal.data) == (Reason.APPROVAL_REQUIRED, {})
        assert "Too many calls wait" in refusal.why
    # Those that were asked about before are still open, and still the same.
    assert [approvals.ask(each, "g1", 1.0).id for each in asked[:room]] == ids
    found = []
    for who in OTHERS:
        try:
            approvals.ask(wants(who=who), "g1", 1.0)
            found.append(1)
        except Refused:
            found.append(0)
    assert found == others
    assert len(approvals) == room + sum(others)


def test_room_comes_back_when_something_is_used_or_expires() -> None:
    """The counters follow the table."""
    approvals = table(Bounds(subject=1, tenant=1, total=1))
    for now in (0.0, 700.0, 1_400.0):
        assert approvals.use([released(approvals, now=now)], now + 1) is not None
        approvals.ask(wants("{}"), "g1", now + 2)
    approvals.begin(TTL_S, "g2")
    assert approvals.ask(wants(), "g2", 1_500.0).state == "waiting"


def test_nothing_is_kept_of_callers_who_wait_for_nothing() -> None:
    """Style guide 8: subjects come and go for months."""
    approvals = table()
    for number in range(100):
        who = Principal(issuer="iss", subject=f"s{number}", tenant=f"t{number}")
        approvals.use([released(approvals, wants(who=who))], 0.0)
    kept = approvals._open, approvals._ids, approvals._of_subject, approvals._of_tenant
    assert [len(each) for each in kept] == [0, 0, 0, 0]


def test_the_default_bounds_keep_tenants_and_subjects_apart() -> None:
    """A flood of one subject leaves room in its tenant, one of a tenant leaves room for seven others."""
    bounds = Bounds()
    assert bounds.subject * 8 <= bounds.tenant
    assert bounds.tenant * 8 <= bounds.total


OVERRIDES: list[tuple[str, Approval]] = [("*", "denied"), ("delete*", "gated"), ("delete_?", "auto")]


@pytest.mark.parametrize(
    ("order", "holds"),
    [
        ((0, 1, 2), {"delete_x": "auto", "delete_xy": "gated", "search": "denied"}),
        ((2, 1, 0), {"delete_x": "denied", "delete_xy": "denied", "search": "denied"}),
        ((2, 1), {"delete_x": "gated", "delete_xy": "gated", "search": "auto"}),
        ((1, 2, 1), {"delete_x": "gated", "delete_xy": "gated", "search": "auto"}),
        ((), {"delete_x": "auto", "delete_xy": "auto", "search": "auto"}),
    ],
)
def test_what_was_set_last_holds(order: tuple[int, ...], holds: dict[str, Approval]) -> None:
    """An operator who sets something sees it work, whatever was set before: emergencies and exceptions."""
    approvals = table()
    for index in order:
        tool, approval = OVERRIDES[index]
        approvals.override(Override(tenant="acme", tool=tool, approval=approval), 0.0)
    assert {tool: approvals.approval("acme", tool, "auto", 1.0) for tool in holds} == holds


@pytest.mark.parametrize("rule", ["auto", "gated", "denied"])
def test_one_tenants_override_is_invisible_to_another(rule: Approval) -> None:
    """Issue 4."""
    approvals = table()
    settings: list[Approval] = ["auto", "gated", "denied"]
    for number, approval in enumerate(settings):
        approvals.override(Override(tenant=f"t{number}", tool="*", approval=approval), 0.0)
    assert [approvals.approval(f"t{n}", "x", rule, 1.0) for n in range(3)] == settings
    assert approvals.approval("t", "x", rule, 1.0) == rule
    assert [each.tenant for each in approvals.overrides(1.0, "t1")] == ["t1"]


def test_an_override_ends_when_it_says_and_can_be_taken_back() -> None:
    """An optional end; then what was set before holds, and at last the rule."""
    approvals = table()
    approvals.override(Override(tenant="acme", tool="*", approval="gated"), 0.0)
    approvals.override(Override(tenant="acme", tool="del*", approval="denied", until=10.0), 0.0)

    def holds(now: float) -> Approval:
        return approvals.approval("acme", "delete", "auto", now)

    assert [holds(now) for now in (0.0, 9.9, 10.0)] == ["denied", "denied", "gated"]
    assert [each.tool for each in approvals.overrides(5.0)] == ["del*", "*"]
    assert [each.tool for each in approvals.overrides(10.0)] == ["*"]
    assert not approvals.clear("acme", "delete")
    assert not approvals.clear("nobody", "*")
    assert approvals.clear("acme", "*")
    assert (holds(5.0), holds(10.0)) == ("denied", "auto")
    assert approvals.clear("acme", "del*")
    assert holds(5.0) == "auto"


def test_overrides_are_bounded() -> None:
    """Each costs every call of the tenant. Those that have ended, or are set anew, need no room."""
    approvals = table()
    for number in range(MAX_OVERRIDES):
        until = 10.0 if number == 7 else math.inf
        approvals.override(Override(tenant="acme", tool=f"t{number}", approval="gated", until=until), 0.0)
    with pytest.raises(ValueError, match="at most"):
        approvals.override(Override(tenant="acme", tool="more", approval="denied"), 9.0)
    approvals.override(Override(tenant="acme", tool="t1", approval="denied"), 9.0)
    approvals.override(Override(tenant="other", tool="more", approval="denied"), 9.0)
    approvals.override(Override(tenant="acme", tool="more", approval="denied"), 10.0)
    assert approvals.approval("acme", "more", "auto", 11.0) == "denied"


def test_the_refusal_tells_a_model_what_to_do() -> None:
    """Issue 4: the id in words, because models do not see the data; never an argument."""
    approvals = table()
    challenge = approvals.ask(wants('{"arguments":{"a":"secret"}}'), "g1", 0.0)
    refusal = words.required([challenge], 0.25)
    assert refusal.reason is Reason.APPROVAL_REQUIRED
    assert refusal.data == {"confirmationId": "id-1", "expiresInMs": 599_750}
    for said in ("id-1", "Nothing was done", "do not repeat the call before", "exactly the same call once"):
        assert said in refusal.why
    assert "secret" not in refusal.why
    approvals.reject("id-1", "olga", 1.0)
    refusal = words.required([approvals.ask(wants('{"arguments":{"a":"secret"}}'), "g1", 1.0)], 1.0)
    assert refusal.data == {"confirmationId": "id-1", "expiresInMs": 599_000}
    assert "rejected" in refusal.why
    assert "Do not repeat it" in refusal.why


def test_the_refusal_of_a_batch_names_every_id() -> None:
    """A person can decide about all of it at once; a no to one call is the first thing to know."""
    approvals = table()
    one, two = (approvals.ask(each, "g1", float(now)) for now, each in enumerate(many(2)))
    refusal = words.required([one, two], 1.0, in_batch=True)
    assert refusal.data == {
        "confirmationId": one.id,
        "expiresInMs": 599_000,
        "confirmationIds": [one.id, two.id],
    }
    assert f"{one.id}, {two.id}" in refusal.why
    assert "Nothing of its batch" in refusal.why
    rejected = approvals.reject(two.id, "olga", 1.0)
    assert rejected is not None
    refusal = words.required([one, rejected], 1.0, in_batch=True)
    assert refusal.data["confirmationId"] == two.id
    assert "rejected" in refusal.why


def test_a_tool_that_is_denied_names_nobody_to_ask() -> None:
    """`denied`: a plain no."""
    refusal = words.denied()
    assert (refusal.reason, refusal.data) == (Reason.NOT_ALLOWED, {})
    assert "Do not repeat" in refusal.why
