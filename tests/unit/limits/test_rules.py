"""Which message meets which limits, at what cost, and whose bucket: decision tables."""

from __future__ import annotations

from types import MappingProxyType

import pytest

from proxy.limits.demand import Demand, Quota, Rate, Window
from proxy.limits.rules import MOST_KNOWN, Rules
from proxy.limits.settings import LimitSettings, Override
from proxy.model import Call, Kind, Permit, Principal, Rule
from tests.fakes import make_call

ANN = Principal(issuer="https://idp.test/", subject="ann", tenant="acme", client="app-7")
EXPORT = Rule(id="r", tool_class="read", cost=50)


def rate(name: str = "rate", **fields: object) -> LimitSettings:
    given = {"key": ("tenant",), "rate_per_s": 10.0, "burst": 20, **fields}
    return LimitSettings(name=name, **given)  # type: ignore[arg-type]  # tables name fields


def quota(name: str = "quota", **fields: object) -> LimitSettings:
    given: dict[str, object] = {"key": ("tenant",), "quota": 1000, **fields}
    if "sliding_s" not in given:
        given.setdefault("window", "day")
    return LimitSettings(name=name, **given)  # type: ignore[arg-type]  # tables name fields


def permit(call: Call | None = None, principal: Principal = ANN, rule: Rule = EXPORT) -> Permit:
    return Permit(call=call or make_call(target="export_all"), principal=principal, rule=rule)


def demands(limits: list[LimitSettings], asked: Permit) -> tuple[Demand, ...]:
    return Rules(limits).of(asked).demands


def tool(name: str, kind: Kind = Kind.REQUEST) -> Call:
    return make_call(target=name, kind=kind)


def other(method: str, kind: Kind = Kind.REQUEST) -> Call:
    return make_call(method=method, kind=kind)


MESSAGES = {
    "a tool": tool("export_all"),
    "another tool": tool("search"),
    "a tool, told": tool("export_all", Kind.NOTIFICATION),
    "a list": other("tools/list"),
    "a resource": make_call(method="resources/read", target="file:///x"),
    "a ping": other("ping"),
    "an answer": other("", Kind.ANSWER),
    "a stream": other("", Kind.LISTEN),
    "a goodbye": other("", Kind.END),
    "a handshake": other("initialize"),
    "a notification": other("notifications/initialized", Kind.NOTIFICATION),
    "a task poll": other("tasks/get"),
}
ALL = set(MESSAGES)
TOOLS = {"a tool", "another tool", "a tool, told"}


@pytest.mark.parametrize(
    ("limit", "meant"),
    [
        (rate(), ALL),
        (rate(tools=("export_*",)), {"a tool", "a tool, told"}),
        (rate(tools=("*",)), TOOLS),
        (rate(classes=("read",)), TOOLS),
        (rate(classes=("write", "dangerous")), set()),
        (rate(classes=("read",), tools=("search",)), {"another tool"}),
        (rate(methods=("tools/call",)), TOOLS),
        (rate(methods=("tools/*", "ping")), {*TOOLS, "a list", "a ping"}),
        (rate(methods=("*",)), ALL - {"an answer", "a stream", "a goodbye"}),
        (quota(), TOOLS),
        (quota(sliding_s=60.0), TOOLS),
        (quota(tools=("search",)), {"another tool"}),
        (quota(methods=("resources/*",)), {"a resource"}),
    ],
)
def test_a_limit_counts_what_it_is_meant_for(limit: LimitSettings, meant: set[str]) -> None:
    """LIM-020, LIM-021: floods of notifications and lists are counted; trap 39: quotas count calls of tools."""
    assert {name for name, call in MESSAGES.items() if demands([limit], permit(call))} == meant


@pytest.mark.parametrize(
    ("call", "passes"),
    [
        (other("initialize"), True),
        (other("server/discover"), True),
        (other("subscriptions/listen"), True),
        (other("notifications/initialized", Kind.NOTIFICATION), True),
        (other("notifications/cancelled", Kind.NOTIFICATION), True),
        (other("", Kind.ANSWER), True),
        (other("", Kind.LISTEN), True),
        (other("", Kind.END), True),
        (other("ping"), False),
        (other("tools/list"), False),
        (tool("search"), False),
        (tool("search", Kind.NOTIFICATION), False),
        (other("notifications/progress", Kind.NOTIFICATION), False),
        # Whoever names one of these otherwise wants to slip through.
        (other("initialize", Kind.NOTIFICATION), False),
        (other("notifications/cancelled"), False),
        (other("", Kind.NOTIFICATION), False),
        (other(""), False),
    ],
)
def test_some_messages_are_never_refused(call: Call, passes: bool) -> None:
    """Traps 2 and 39; contract."""
    (demand,) = demands([rate()], permit(call))
    assert demand.must_pass is passes


def test_a_call_costs_what_its_rule_says_and_anything_else_one() -> None:
    """LIM-010: never what a client's field says."""
    limits = [rate(), quota(methods=("*",))]
    greedy = make_call(target="t", params={"arguments": {"cost": -100, "_cost": 0}, "cost": 0})
    assert [each.cost for each in demands(limits, permit(greedy))] == [50, 50]
    assert [each.cost for each in demands(limits, permit(other("tools/list")))] == [1, 1]


def test_what_is_free_asks_nothing_but_of_what_is_blocked() -> None:
    free = Rule(id="r", cost=0)
    limits = [rate(), quota(), rate("none", rate_per_s=0.0), quota("never", quota=0)]
    assert [each.limit for each in demands(limits, permit(rule=free))] == ["none", "never"]


@pytest.mark.parametrize(
    ("key", "expected", "holder"),
    [
        (("tenant",), "rate/acme", "acme"),
        (("everyone",), "rate/", ""),
        (("issuer", "subject"), "rate/https:%2F%2Fidp.test%2F/ann", ""),
        (("client",), "rate/app-7", ""),
        (("tool", "class", "tenant"), "rate/export_all/read/acme", "acme"),
    ],
)
def test_a_key_is_made_of_what_is_proven(key: tuple[str, ...], expected: str, holder: str) -> None:
    (demand,) = demands([rate(key=key)], permit())
    assert (demand.key, demand.holder) == (expected, holder)


def test_a_caller_without_an_application_is_its_own() -> None:
    alone = Principal(issuer="i", subject="Bob ", tenant="acme")
    (demand,) = demands([rate(key=("client",))], permit(principal=alone))
    assert demand.key == "rate/bob"


def test_what_is_no_tool_shares_a_bucket() -> None:
    rules = Rules([rate(key=("tenant", "tool", "class"))])
    assert {rules.of(permit(other(method))).demands[0].key for method in ("ping", "a", "b")} == {
        "rate/acme//"
    }


@pytest.mark.parametrize("tenant", ["acme", "ACME", "acme ", "ＡＣＭＥ"])
def test_variants_of_a_name_share_a_bucket(tenant: str) -> None:
    """LIM-017."""
    principal = Principal(issuer="i", subject="s", tenant=tenant)
    (demand,) = demands([quota()], permit(principal=principal))
    assert (demand.key, demand.holder) == ("quota/acme", "acme")


OVERRIDES = MappingProxyType(
    {
        "ACME": Override(burst=5),
        "acme/ann": Override(rate_per_s=0.0),
        "umbrella/https:%2F%2Fx%2F/t": Override(rate_per_s=7.0, burst=7),
    }
)


@pytest.mark.parametrize(
    ("tenant", "subject", "name", "measure"),
    [
        ("other", "ann", "t", Rate(10, 20)),
        ("Acme", "bob", "t", Rate(10, 5)),
        ("acme", "ann", "t", Rate(0, 20)),
        ("acme", "ann/", "t", Rate(10, 5)),
        ("umbrella", "https://x/", "t", Rate(7, 7)),
        ("umbrella", "https://x/", "u", Rate(10, 20)),
        ("umbrella", "ann", "t", Rate(10, 20)),
    ],
)
def test_the_longest_override_that_fits_holds(tenant: str, subject: str, name: str, measure: Rate) -> None:
    """Contract: values of the key in order, fewer are a prefix; 0 blocks; what is absent is as the limit says."""
    limit = rate(key=("tenant", "subject", "tool"), overrides=OVERRIDES)
    principal = Principal(issuer="i", subject=subject, tenant=tenant)
    (demand,) = demands([limit], permit(tool(name), principal))
    assert demand.measure == measure


@pytest.mark.parametrize(
    ("limit", "measure"),
    [
        (quota(), Quota(1000, Window("day"))),
        (quota(window="month", timezone="Asia/Tokyo"), Quota(1000, Window("month", "Asia/Tokyo"))),
        (quota(sliding_s=90.0), Quota(1000, Window("sliding", sliding_s=90.0))),
        (quota(overrides={"acme": Override(quota=7)}), Quota(7, Window("day"))),
        (quota(overrides={"acme": Override(quota=0)}), Quota(0, Window("day"))),
        (quota(overrides={"acm": Override(quota=0)}), Quota(1000, Window("day"))),
    ],
)
def test_quotas_are_asked_for_their_window(limit: LimitSettings, measure: Quota) -> None:
    assert demands([limit], permit())[0].measure == measure


def test_limits_that_only_report_are_asked_apart() -> None:
    asked = Rules([rate(), quota(report=True), quota("q2")]).of(permit())
    assert [each.limit for each in asked.demands] == ["rate", "q2"]
    assert [each.limit for each in asked.reported] == ["quota"]
    assert asked.settles


def test_rates_leave_nothing_to_settle() -> None:
    assert not Rules([rate()]).of(permit()).settles


def test_a_continuation_is_free_of_quotas_unless_they_say_otherwise() -> None:
    limits = [rate(), quota(), quota("strict", continuations="counted"), quota("told", report=True)]
    asked = Rules(limits).of(permit())
    assert asked.eased is not None
    assert [each.limit for each in asked.eased.demands] == ["rate", "strict"]
    assert asked.eased.reported == ()
    assert Rules([rate(), limits[2]]).of(permit()).eased is None


def test_what_is_remembered_is_the_same_for_the_same_and_differs_for_others() -> None:
    limits = [rate(key=("tenant", "subject", "issuer", "client", "tool", "class")), quota(methods=("ping",))]
    rules = Rules(limits)
    asked = [
        permit(),
        permit(tool("search")),
        permit(rule=Rule(id="r", cost=1, tool_class="read")),
        permit(rule=Rule(id="r", cost=50, tool_class="write")),
        permit(principal=Principal(issuer="x", subject="ann", tenant="acme", client="app-7")),
        permit(principal=Principal(issuer="https://idp.test/", subject="bob", tenant="acme", client="app-7")),
        permit(principal=Principal(issuer="https://idp.test/", subject="ann", tenant="b", client="app-7")),
        permit(principal=Principal(issuer="https://idp.test/", subject="ann", tenant="acme", client="")),
        permit(other("ping")),
        permit(other("ping", Kind.NOTIFICATION)),
        permit(other("initialize")),
        permit(other("initialize", Kind.NOTIFICATION)),
        permit(other("initialize", Kind.ANSWER)),
        permit(tool("export_all", Kind.NOTIFICATION)),
    ]
    once = [rules.of(each).demands for each in asked]
    assert once == [Rules(limits).of(each).demands for each in asked]
    assert [rules.of(each).demands for each in reversed(asked)] == once[::-1]
    assert rules.of(asked[0]) is rules.of(permit())


def test_what_is_remembered_is_bounded() -> None:
    rules = Rules([rate(key=("tenant", "tool"))])
    for number in range(MOST_KNOWN + 10):
        rules.of(permit(tool(f"tool-{number}")))
    assert len(rules._known) <= MOST_KNOWN
    long = permit(tool("x" * 1_000))
    assert rules.of(long).demands == rules.of(long).demands
    assert not any("x" * 1_000 in key for key in rules._known)
