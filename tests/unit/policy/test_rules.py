"""Who may call what: without rules everybody who is known everything; with them, what the first that fits says."""

import time
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.model import Call, Kind, Permit, Principal, Reason, Refused
from proxy.policy.rules import EVERYTHING, MOST_SETTLED, Allow, Decision, Deny, Rules
from proxy.policy.settings import PackSettings, PolicySettings
from proxy.policy.tool_classes import Hints
from tests.fakes import FakeJourney, make_batch, make_call, no
from tests.fuzz.bounded import FUZZ

ALICE = Principal(issuer="i", subject="alice", tenant="a")
CALLS = [
    make_call(method="tools/call", target="delete_everything"),
    make_call(method="nobody/knows"),
    make_call(method="notifications/initialized", kind=Kind.NOTIFICATION, id=None),
    make_call(method="", kind=Kind.ANSWER),
    make_call(method="", kind=Kind.LISTEN, id=None),
    make_call(method="", kind=Kind.END, id=None),
    make_batch(make_call(id=1), make_call(id=2)),
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call.kind.value}-{call.method}")
def test_without_a_policy_section_everything_is_allowed(call: Call) -> None:
    """design section 3, defaults: no policy section = every authenticated principal may do everything."""
    assert Rules().decide(call, ALICE) == Allow(EVERYTHING)
    permit = Rules()(call, ALICE)
    assert isinstance(permit, Permit)
    assert (permit.call, permit.principal, permit.rule) == (call, ALICE, EVERYTHING)


def test_what_no_rule_names_counts_as_dangerous() -> None:
    """design section 3, `default: {class: dangerous}`: nothing is cached or repeated on the strength of it."""
    assert EVERYTHING.tool_class == "dangerous"


# With a policy section.


def rules(mode: str = "enforce", packs: Sequence[PackSettings] = (), **sections: object) -> Rules:
    policy = {"mode": mode, **sections}
    return Rules(msgspec.convert(policy, PolicySettings), packs)


def who(*roles: str, scopes: Sequence[str] = ()) -> Principal:
    return Principal(issuer="i", subject="s", tenant="t", roles=frozenset(roles), scopes=frozenset(scopes))


def tool(name: str) -> Call:
    return make_call(method="tools/call", target=name, params={"name": name})


def said(decision: Decision) -> tuple[str, object]:
    return decision.rule.id, decision.reason if isinstance(decision, Deny) else "allow"


CONTRACT: dict[str, Any] = {
    "default": {"class": "dangerous", "allow": []},
    "roles": {"viewer": {}, "editor": {"inherits": ["viewer"]}, "admin": {"inherits": ["editor"]}},
    "tools": [
        {"match": "search_*", "class": "read", "allow": ["viewer"]},
        {"match": "create_*", "class": "write", "allow": ["editor"]},
        {"match": "admin_*", "deny": ["viewer"], "allow": ["editor"], "scopes": ["tools.admin"]},
        {"match": "legacy_*", "hidden": True, "allow": ["*"]},
        {"match": "open", "allow": ["*"]},
        {"match": "closed", "allow": []},
        {"match": "op*", "allow": []},
    ],
    "methods": {
        "resources/read": {"allow": ["viewer"], "match": ["file:///public/*"]},
        "prompts/get": {"allow": ["editor"]},
        "*": {"allow": ["viewer"]},
    },
}


def test_what_is_remembered_of_a_name_and_roles_decides_nothing_else() -> None:
    """Own promise: whoever asks again is judged by what counts now: arguments, hints, pins, scopes and who it is."""
    hints: dict[str, Hints] = {}
    unpinned: set[str] = set()
    policy = msgspec.convert(
        {
            "trust_annotations": True,
            "tools": [
                {"match": "a", "allow": ["viewer"], "arguments": {"n": {"max": 10}}},
                {"match": "b", "allow": ["viewer"], "scopes": ["x"], "class": "read"},
                {"match": "c", "allow": ["viewer"], "when": "principal.subject != 'mallory'"},
            ],
        },
        PolicySettings,
    )
    ruled = Rules(
        policy,
        hints=lambda _, name: hints.get(name),
        unpinned=lambda principal, name: "drifted" if name in unpinned else None,
    )

    def asked(name: str, principal: Principal, **arguments: object) -> tuple[object, ...]:
        call = make_call(method="tools/call", target=name, params={"name": name, "arguments": arguments})
        decision = ruled.decide(call, principal)
        return (*said(decision), decision.rule.tool_class)

    viewer = who("viewer")
    for _ in range(2):
        hints.clear()
        unpinned.clear()
        assert asked("a", viewer, n=1) == ("a", "allow", "dangerous")
        assert asked("a", viewer, n=11) == ("a", Reason.ARGUMENT_INVALID, "dangerous")
        hints["a"] = Hints(read_only=True)
        assert asked("a", viewer, n=1) == ("a", "allow", "read")
        unpinned.add("a")
        assert asked("a", viewer, n=1) == ("a", Reason.NOT_ALLOWED, "read")
        assert isinstance(ruled.decide_tool("a", viewer), Deny)
        assert asked("a", who("stranger"), n=1)[:2] == ("a", Reason.NOT_ALLOWED)
        assert asked("b", viewer)[:2] == ("b", Reason.SCOPE_MISSING)
        assert asked("b", who("viewer", scopes=["x"])) == ("b", "allow", "read")
        assert asked("c", viewer)[:2] == ("c", "allow")
        assert asked("c", msgspec.structs.replace(viewer, subject="mallory"))[:2] == ("c", Reason.NOT_ALLOWED)


def test_what_callers_choose_is_not_remembered_without_bound() -> None:
    """Style guide 8: every table that a client can grow is bounded."""
    ruled = rules(**CONTRACT)
    for number in range(3 * MOST_SETTLED):
        ruled.decide_tool(f"tool {number}", who("viewer"))
    ruled.decide_tool("x" * 10_000, who("viewer"))
    ruled.decide_tool("open", who(*map(str, range(1_000))))
    keys = list(ruled._settled)
    assert 0 < len(keys) <= MOST_SETTLED
    assert all(len(name) <= 256 and len(roles) + len(scopes) <= 32 for name, roles, scopes in keys)


@pytest.mark.parametrize(
    ("name", "roles", "scopes", "expected"),
    [
        ("search_docs", ["viewer"], [], ("search_*", "allow")),
        ("search_docs", ["editor"], [], ("search_*", "allow")),
        ("search_docs", ["admin"], [], ("search_*", "allow")),
        ("search_docs", ["stranger"], [], ("search_*", Reason.NOT_ALLOWED)),
        ("search_docs", [], [], ("search_*", Reason.NOT_ALLOWED)),
        ("Search_docs", ["admin"], [], ("default", Reason.NOT_VISIBLE)),
        ("create_x", ["viewer"], [], ("create_*", Reason.NOT_ALLOWED)),
        ("create_x", ["editor"], [], ("create_*", "allow")),
        ("admin_x", ["editor"], ["tools.admin"], ("admin_*", "allow")),
        ("admin_x", ["editor"], [], ("admin_*", Reason.SCOPE_MISSING)),
        ("admin_x", ["editor", "viewer"], ["tools.admin"], ("admin_*", Reason.NOT_ALLOWED)),
        ("admin_x", ["viewer"], [], ("admin_*", Reason.NOT_ALLOWED)),
        ("legacy_x", ["admin"], [], ("legacy_*", Reason.NOT_VISIBLE)),
        ("open", [], [], ("open", "allow")),
        ("opera", ["admin"], [], ("op*", Reason.NOT_ALLOWED)),
        ("closed", ["admin"], [], ("closed", Reason.NOT_ALLOWED)),
        ("unnamed", ["admin"], [], ("default", Reason.NOT_VISIBLE)),
        ("", ["admin"], [], ("default", Reason.NOT_VISIBLE)),
    ],
)
def test_the_first_rule_that_fits_decides(
    name: str, roles: list[str], scopes: list[str], expected: tuple[str, object]
) -> None:
    """design section 3: deny (roles as named) before allow (roles with what they inherit); default is nobody. Where
    something is hidden, a name that no rule fits looks hidden too."""
    assert said(rules(**CONTRACT).decide(tool(name), who(*roles, scopes=scopes))) == expected


def test_where_nothing_is_hidden_a_name_without_a_rule_is_refused_openly() -> None:
    open_rules = [each for each in CONTRACT["tools"] if not each.get("hidden")]
    by = rules(**{**CONTRACT, "tools": open_rules})
    assert said(by.decide(tool("unnamed"), who("admin"))) == ("default", Reason.NOT_ALLOWED)


def test_what_the_default_allows_is_not_hidden() -> None:
    by = rules(tools=[{"match": "secret", "hidden": True}], default={"allow": ["admin"]})
    assert said(by.decide(tool("unnamed"), who("admin"))) == ("default", "allow")
    assert said(by.decide(tool("unnamed"), who("viewer"))) == ("default", Reason.NOT_VISIBLE)


@pytest.mark.parametrize(
    ("method", "params", "target", "roles", "expected"),
    [
        ("resources/read", {"uri": "file:///public/a"}, "file:///public/a", ["viewer"], "allow"),
        ("resources/read", {"uri": "file:///secret/a"}, "file:///secret/a", ["admin"], Reason.NOT_ALLOWED),
        ("resources/read", {"uri": "FILE:///public/a"}, "FILE:///public/a", ["admin"], Reason.NOT_ALLOWED),
        ("resources/subscribe", {"uri": "file:///public/a"}, None, ["viewer"], "allow"),
        ("resources/subscribe", {"uri": "file:///secret/a"}, None, ["admin"], Reason.NOT_ALLOWED),
        ("resources/subscribe", {"uri": 7}, None, ["admin"], Reason.NOT_ALLOWED),
        ("prompts/get", {"name": "p"}, "p", ["viewer"], Reason.NOT_ALLOWED),
        ("prompts/get", {"name": "p"}, "p", ["editor"], "allow"),
        (
            "completion/complete",
            {"ref": {"type": "ref/prompt", "name": "p"}},
            None,
            ["viewer"],
            Reason.NOT_ALLOWED,
        ),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "p"}}, None, ["editor"], "allow"),
        (
            "completion/complete",
            {"ref": {"type": "ref/resource", "uri": "file:///secret/{x}"}},
            None,
            ["admin"],
            Reason.NOT_ALLOWED,
        ),
        (
            "subscriptions/listen",
            {"notifications": {"resourceSubscriptions": ["file:///public/a", "file:///secret/a"]}},
            None,
            ["admin"],
            Reason.NOT_ALLOWED,
        ),
        (
            "subscriptions/listen",
            {"filter": {"resources": ["file:///secret/a"]}},
            None,
            ["admin"],
            Reason.NOT_ALLOWED,
        ),
        ("subscriptions/listen", {"filter": {"any": {"uri": "file:///s"}}}, None, [], Reason.NOT_ALLOWED),
        ("subscriptions/listen", {"resources": "file:///public/a"}, None, ["viewer"], "allow"),
        ("subscriptions/listen", {"resources": "file:///public/a"}, None, [], Reason.NOT_ALLOWED),
        ("subscriptions/listen", {"resourceSubscriptions": [7]}, None, ["admin"], Reason.NOT_ALLOWED),
        (
            "subscriptions/listen",
            {"notifications": {"toolsListChanged": True, "taskIds": ["t"]}, "_meta": {"version": "v"}},
            None,
            [],
            "allow",
        ),
        ("nobody/knows", {}, None, ["viewer"], "allow"),
        ("nobody/knows", {}, None, [], Reason.NOT_ALLOWED),
        ("notifications/nobody-knows", {}, None, [], Reason.NOT_ALLOWED),
        ("initialize", {}, None, [], "allow"),
        ("server/discover", {}, None, [], "allow"),
        ("ping", {}, None, [], "allow"),
        ("tools/list", {}, None, [], "allow"),
        ("tasks/get", {"taskId": "t"}, None, [], "allow"),
        ("notifications/cancelled", {"requestId": 1}, None, [], "allow"),
    ],
)
def test_methods_have_rules_of_their_own(
    method: str, params: dict[str, object], target: str | None, roles: list[str], expected: object
) -> None:
    """Issue 4, 1: resources by URI, prompts, completion, subscriptions, tasks, unknown methods."""
    call = make_call(method=method, params=params, target=target)
    assert said(rules(**CONTRACT).decide(call, who(*roles)))[1] == expected


UNCERTAIN = [
    "file:///public/../secret/key",
    "file:///public/./a",
    "file:///public/..",
    "file:///public/%2e%2e/secret/key",
    "file:///public/.%2E/secret/key",
    "file:///public/%252e%252E/secret/key",
    "file:///public/a%2f..%2f..%2fsecret/key",
    "file:///public/%252525252e./secret/key",
    "file:///public/a\\..\\..\\secret\\key",
    "file:///public/x%5c..%5c..%5csecret",
    "file:///public/..;v=1/secret/key",
    "file:///public/..?x",
    "file:///public/..#x",
    "file:///public/..%3bv/secret/key",
    "file:///public/..%3fx",
    "file:///public/..%23x",
    "file:///public/.\t./secret/key",
    "file:///public/.\n./secret/key",
    "file:///public/key\x00.txt",
    "file:///public/key%00.txt",
]


@pytest.mark.parametrize("uri", UNCERTAIN)
@pytest.mark.parametrize("method", ["resources/read", "resources/subscribe"])
def test_a_uri_that_may_mean_another_fits_no_pattern(method: str, uri: str) -> None:
    """RFC 3986 section 5.2.4: it begins as the pattern does, and the server reads something else. Whoever may read
    everything may read it, and so may who wrote it down."""
    asked = make_call(method=method, params={"uri": uri}, target=uri)
    assert isinstance(rules(**CONTRACT).decide(asked, who("viewer")), Deny)
    assert not rules(**CONTRACT).may_use("resources/read", uri, who("viewer"))
    for match in ("*", uri):
        wide = {"resources/read": {"allow": ["viewer"], "match": [match]}}
        if match.isprintable():
            assert isinstance(rules(methods=wide).decide(asked, who("viewer")), Allow)


@pytest.mark.parametrize(
    "uri",
    [
        "file:///public/a..b",
        "file:///public/...",
        "file:///public/.hidden",
        "file:///public/v1.",
        "file:///public/main...feature",
        "file:///public/100%25",
        "file:///public/%2ehidden",
        "file:///public/a%20b?from=..&to=.#..",
    ],
)
def test_a_uri_with_dots_in_it_means_itself(uri: str) -> None:
    """Only a whole segment of dots climbs."""
    asked = make_call(method="resources/read", params={"uri": uri}, target=uri)
    assert isinstance(rules(**CONTRACT).decide(asked, who("viewer")), Allow)


@pytest.mark.parametrize("part", ["%25", "%252e", "/..", "%2f", "../", "%", "."])
def test_a_long_uri_is_looked_through_once(part: str) -> None:
    """Of what the pattern for uncertain URIs looks for: 5 ms, and half a minute if it went back."""
    uri = "file:///public/" + part * (100_000 // len(part)) + "x"
    began = time.perf_counter()
    rules(**CONTRACT).may_use("resources/read", uri, who("viewer"))
    assert time.perf_counter() - began < 1


def test_a_method_without_rules_is_allowed_to_nobody() -> None:
    """Issue 4: default is nobody, and what a session cannot do without is allowed."""
    closed = rules()
    assert isinstance(
        closed.decide(make_call(method="resources/read", target="file:///x"), who("admin")), Deny
    )
    assert isinstance(closed.decide(make_call(method="x/y"), who("admin")), Deny)
    assert isinstance(closed.decide(make_call(method="tools/list"), who()), Allow)


@pytest.mark.parametrize("kind", [Kind.REQUEST, Kind.NOTIFICATION])
def test_a_call_is_judged_in_whatever_shape_it_comes(kind: Kind) -> None:
    """Issue 4: no encoding of a denied call reaches upstream; a notification runs tools too, on some servers."""
    call = make_call(method="tools/call", target="closed", kind=kind, id=1 if kind is Kind.REQUEST else None)
    assert isinstance(rules(**CONTRACT).decide(call, who("admin")), Deny)


PACK = msgspec.convert(
    {
        "version": 1,
        "tools": [
            {"match": "kubectl_*", "deny": ["*"], "class": "dangerous"},
            {"match": "get_*", "allow": ["viewer"], "class": "read"},
        ],
        "methods": {"resources/read": {"deny": ["guest"], "allow": ["*"]}},
    },
    PackSettings,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("kubectl_get", ("kubectl_*", Reason.NOT_ALLOWED)),
        ("kubectl_apply", ("kubectl_apply", "allow")),
        ("get_x", ("get_*", "allow")),
        ("get_secret", ("get_secret", Reason.NOT_ALLOWED)),
    ],
)
def test_denies_of_packs_come_first_and_their_other_rules_last(
    name: str, expected: tuple[str, object]
) -> None:
    """design section 3, `packs`: their denies come first; one loud override by exact name."""
    own = rules(
        packs=[PACK],
        tools=[
            {"match": "kubectl_apply", "allow": ["viewer"], "overrides_packs": True},
            {"match": "kubectl_*", "allow": ["*"]},
            {"match": "get_secret", "allow": []},
        ],
    )
    assert said(own.decide(tool(name), who("viewer"))) == expected


def test_rules_of_packs_and_our_own_must_agree_on_a_method() -> None:
    """A pack can only take away."""
    own = rules(packs=[PACK], methods={"resources/read": {"allow": ["*"], "match": ["file:///public/*"]}})
    read = make_call(method="resources/read", target="file:///public/a")
    secret = make_call(method="resources/read", target="file:///secret")
    assert isinstance(own.decide(read, who("viewer")), Allow)
    assert isinstance(own.decide(read, who("guest")), Deny)
    assert isinstance(own.decide(secret, who("viewer")), Deny)


def test_a_cycle_of_roles_is_one_group() -> None:
    """Issue 4, 1: inheritance is cycle-safe."""
    round_about = rules(
        roles={"a": {"inherits": ["b"]}, "b": {"inherits": ["c"]}, "c": {"inherits": ["a"]}},
        tools=[{"match": "t", "allow": ["c"]}],
    )
    assert isinstance(round_about.decide(tool("t"), who("a")), Allow)


@pytest.mark.parametrize(("mode", "report"), [("report", False), ("enforce", True)])
def test_report_mode_records_and_passes(mode: str, report: bool) -> None:
    """Issue 4, 10: decision recorded, not a byte changed."""
    journey = FakeJourney()
    watching = rules(mode, tools=[{"match": "t", "allow": [], "report": report}])
    call = make_call(method="tools/call", target="t", journey=journey)
    permit = watching(call, who())
    assert (permit.call, permit.rule.id) == (call, "t")
    assert journey.diary == [("j1", "would refuse", "t", Reason.NOT_ALLOWED)]
    assert watching.may_use("tools/call", "t", who())


def test_a_refusal_names_the_scopes_of_the_operation() -> None:
    """MCP 2025-11-25: all scopes the operation needs in one challenge."""
    stepped = rules(tools=[{"match": "t", "allow": ["*"], "scopes": ["a", "b"]}])
    refused = no(lambda: stepped(tool("t"), who(scopes=["a"])))
    assert (refused.reason, refused.scopes) == (Reason.SCOPE_MISSING, ("a", "b"))
    assert stepped.may_use("tools/call", "t", who())


names = st.text("abc_", max_size=4)
globs = st.text("abc_*?", min_size=1, max_size=4)
role_names = st.sampled_from(["viewer", "editor", "admin", "*"])
tool_rules = st.fixed_dictionaries(
    {"match": globs},
    optional={
        "allow": st.lists(role_names, max_size=2),
        "deny": st.lists(role_names, max_size=1),
        "hidden": st.booleans(),
        "report": st.booleans(),
        "scopes": st.lists(st.sampled_from(["s"]), max_size=1),
    },
)


@given(
    tools=st.lists(tool_rules, max_size=6),
    default=st.lists(role_names, max_size=1),
    roles=st.sets(st.sampled_from(["viewer", "editor", "admin"]), max_size=2),
    name=names,
)
@FUZZ
def test_what_a_list_shows_is_what_a_call_allows(
    tools: list[dict[str, object]], default: list[str], roles: set[str], name: str
) -> None:
    """Issue 4: over random policies and callers; a call that only lacks a scope is shown and steps up."""
    random = rules(
        default={"allow": default},
        roles={"viewer": {}, "editor": {"inherits": ["viewer"]}, "admin": {}},
        tools=tools,
    )
    principal = who(*roles)
    try:
        random(tool(name), principal)
        passes = True
    except Refused as refused:
        passes = refused.reason is Reason.SCOPE_MISSING
    assert random.may_use("tools/call", name, principal) is passes


@pytest.mark.parametrize(
    ("template", "shown"),
    [
        ("file:///public/{path}", True),
        ("file:///{area}/{path}", True),
        ("file:///secret/{path}", False),
        ("{+any}", True),
        ("https://x/{y}", False),
    ],
)
def test_a_template_is_shown_if_something_of_it_may_be_read(template: str, shown: bool) -> None:
    """Rather yes than no: what it stands for is judged when it is read."""
    assert rules(**CONTRACT).may_use_template(template, who("viewer")) is shown
    assert not rules(**CONTRACT).may_use_template("file:///public/{path}", who("stranger"))


FETCH = {
    "match": "fetch",
    "allow": ["viewer"],
    "arguments": {"url": {"hosts": ["*.example.com"]}, "limit": {"max": 10}},
}


@pytest.mark.parametrize(
    ("arguments", "roles", "expected"),
    [
        ({"url": "https://a.example.com/"}, ["viewer"], "allow"),
        ({"url": "https://169.254.169.254/"}, ["viewer"], Reason.ARGUMENT_INVALID),
        ({"url": "https://a.example.com/", "limit": 11}, ["viewer"], Reason.ARGUMENT_INVALID),
        ({"url": "https://169.254.169.254/"}, [], Reason.NOT_ALLOWED),
    ],
)
def test_arguments_are_asked_of_those_who_may_call(
    arguments: dict[str, object], roles: list[str], expected: object
) -> None:
    """Issue 4, 4: who may not call at all learns nothing of the contract."""
    call = make_call(method="tools/call", target="fetch", params={"name": "fetch", "arguments": arguments})
    fetching = rules(tools=[FETCH])
    assert said(fetching.decide(call, who(*roles)))[1] == expected
    assert fetching.may_use("tools/call", "fetch", who("viewer"))


def test_a_refused_argument_is_told_and_not_repeated() -> None:
    """Own promise: words a model can repair its call with, and nothing of what it said."""
    call = make_call(
        method="tools/call", target="fetch", params={"arguments": {"url": "http://evil-one.test"}}
    )
    refused = no(lambda: rules(tools=[FETCH])(call, who("viewer")))
    assert refused.reason is Reason.ARGUMENT_INVALID
    assert "url" in refused.why
    assert "evil" not in refused.why


@pytest.mark.parametrize(
    ("rule", "trusts", "expected"),
    [
        ({"match": "t", "allow": ["*"]}, False, "dangerous"),
        ({"match": "t", "allow": ["*"]}, True, "read"),
        ({"match": "t", "allow": ["*"], "class": "write"}, True, "write"),
    ],
)
def test_the_class_is_the_rules_or_what_is_hinted(
    rule: dict[str, object], trusts: bool, expected: str
) -> None:
    """Issue 4, 2: rule, then trusted annotations, then the default."""
    policy = msgspec.convert({"tools": [rule], "trust_annotations": trusts}, PolicySettings)
    hinted = Rules(policy, hints=lambda principal, name: Hints(read_only=True))
    assert hinted(tool("t"), who()).rule.tool_class == expected


@pytest.mark.parametrize("trusts", [False, True])
def test_what_a_rule_says_for_limits_travels_with_the_permit(trusts: bool) -> None:
    """design section 3, `cost`: from the rule that decided, never from the call."""
    settings = {"match": "t", "allow": ["*"], "cost": 50, "instead": "Call summary_t."}
    policy = msgspec.convert({"tools": [settings], "trust_annotations": trusts}, PolicySettings)
    rule = Rules(policy, hints=lambda principal, name: Hints(read_only=True))(tool("t"), who()).rule
    assert (rule.cost, rule.instead) == (50, "Call summary_t.")
    assert EVERYTHING.cost == 1
