"""`explain`: the way through every rule, told by asking the rules themselves."""

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.commands import run_command
from proxy.configuration.mistakes import Unfit
from proxy.model import Call, Principal, Refused
from proxy.policy.asked import asked, caller_of, object_of
from proxy.policy.explain import ALLOWED, REFUSED, Policy, explain
from proxy.policy.rules import Deny
from proxy.policy.settings import PackSettings, PolicySettings
from proxy.refusals import explain as answer
from tests.fakes import FakeJourney
from tests.fuzz.bounded import FUZZ

PACKS: dict[str, Any] = {
    "danger": {
        "version": 1,
        "tools": [
            {"match": "kubectl_scale", "deny": ["*"]},
            {"match": "kubectl_delete", "deny": ["*"]},
            {"match": "kubectl_*", "deny": ["guest"]},
        ],
    },
    "strict": {
        "version": 1,
        "tools": [{"id": "none", "match": "*", "allow": []}],
        "methods": {"*": {"allow": []}},
    },
}
SETTINGS: dict[str, Any] = {
    "roles": {"guest": {}, "viewer": {}, "operator": {"inherits": ["viewer"]}},
    "tools": [
        {"match": "kubectl_get", "class": "read", "allow": ["viewer"]},
        {"match": "kubectl_scale", "allow": ["operator"], "overrides_packs": True},
        {"match": "admin_*", "allow": ["operator"], "scopes": ["tools.admin"]},
        {"match": "legacy_*", "hidden": True},
        {"match": "trial_*", "deny": ["guest"], "allow": [], "report": True},
        {"match": "kubectl_*", "allow": ["operator"]},
    ],
    "methods": {
        "resources/read": {"allow": ["viewer"], "match": ["file:///pub/*"]},
        "*": {"allow": ["viewer"]},
    },
}


def policy(packs: Sequence[str] = ("danger", "strict"), **changed: object) -> Policy:
    settings = {**SETTINGS, "packs": [f"/etc/{name}.yaml" for name in packs], **changed}
    return Policy(
        msgspec.convert(settings, PolicySettings),
        tuple(msgspec.convert(PACKS[name], PackSettings) for name in packs),
    )


def told(
    by: Policy, who: str, method: str, target: str | None = None, params: Mapping[str, object] | None = None
) -> tuple[list[str], int]:
    call = asked(method, target, FakeJourney(), params)
    return explain(by, call, caller_of(who), lambda refused, call: answer(refused, call, "result"))


def of_tool(name: str, who: str = "acme:ann:operator", by: Policy | None = None) -> tuple[list[str], int]:
    return told(by or policy(), who, "tools/call", name)


def test_the_whole_story_of_a_call_is_one_screen() -> None:
    """Issue 4, item 11: the way through every rule."""
    lines, code = of_tool("kubectl_scale")
    assert code == ALLOWED
    assert lines == [
        "caller  tenant acme, subject ann",
        "        roles: operator (and inherits viewer); scopes: none",
        "call    tools/call kubectl_scale",
        "",
        "pack danger: 2 of its 3 rules deny a tool of this name",
        "    kubectl_scale                denies everybody; lifted by your rule below",
        "    kubectl_*                    denies guest, not this caller",
        "",
        "pack strict: 0 of its 1 rules deny a tool of this name",
        "",
        "your rules: 6",
        "    kubectl_get                  does not fit",
        "  > kubectl_scale                allows operator",
        "    4 behind it not asked; of these fit too: kubectl_*",
        "",
        "ALLOWED by the rule kubectl_scale (class dangerous)",
        "the call goes to the server as it came",
    ]


@pytest.mark.parametrize(
    ("name", "who", "decider", "outcome", "code"),
    [
        (
            "kubectl_get",
            "a:b:viewer",
            "kubectl_get                  allows viewer",
            "ALLOWED by the rule kubectl_get",
            0,
        ),
        (
            "kubectl_get",
            "a:b:guest,viewer",
            "kubectl_*                    denies guest",
            "REFUSED not_allowed, by the rule kubectl_*",
            1,
        ),
        (
            "kubectl_delete",
            "a:b:operator",
            "kubectl_delete               denies everybody",
            "REFUSED not_allowed, by the rule kubectl_delete",
            1,
        ),
        (
            "kubectl_scale",
            "a:b:viewer",
            "kubectl_scale                refuses: allows operator",
            "REFUSED not_allowed, by the rule kubectl_scale",
            1,
        ),
        (
            "admin_x",
            "a:b:operator",
            "admin_*                      needs the scopes tools.admin",
            "REFUSED scope_missing, by the rule admin_*",
            1,
        ),
        (
            "legacy_x",
            "a:b:operator",
            "legacy_*                     hides it",
            "REFUSED not_visible, by the rule legacy_*",
            1,
        ),
        (
            "trial_x",
            "a:b:operator",
            "trial_*                      refuses: denies guest and allows nobody, but is report only",
            "ALLOWED, but would be refused by the rule trial_* (class dangerous): not_allowed",
            0,
        ),
        (
            "other",
            "a:b:operator",
            "*                            refuses: allows nobody",
            "REFUSED not_allowed, by the rule none",
            1,
        ),
    ],
)
def test_the_rule_that_decides_is_marked(name: str, who: str, decider: str, outcome: str, code: int) -> None:
    lines, got = of_tool(name, who)
    assert [line for line in lines if line.startswith("  > ")] == [f"  > {decider}"]
    assert [line for line in lines if line.startswith(outcome)]
    assert got == code


def test_what_a_refused_caller_sees_is_shown() -> None:
    """As the wire has it: a text that agents read; nothing of ours for a tool that is hidden."""
    lines, _ = of_tool("kubectl_delete")
    assert lines[-2] == "the caller sees HTTP 200"
    assert '"isError":true' in lines[-1]
    assert (
        of_tool("legacy_x")[0][-1]
        == "the caller sees what the server answers for a tool that it does not have"
    )


def test_the_default_decides_where_no_rule_fits() -> None:
    lines, code = of_tool("other", by=policy([]))
    assert [line for line in lines if ">" in line] == [
        "  > default                      hides it: no rule fits, and beside hidden tools that looks the same"
    ]
    assert code == REFUSED
    everybody = policy([], default={"allow": ["*"]})
    assert of_tool("other", by=everybody)[0][-4] == "  > default                      allows everybody"


def test_a_policy_that_only_reports_says_so() -> None:
    lines, code = of_tool("kubectl_delete", by=policy(mode="report"))
    assert lines[-2:] == [
        "ALLOWED, but would be refused by the rule kubectl_delete (class dangerous): not_allowed",
        "it is only recorded: policy.mode is report",
    ]
    assert code == ALLOWED


def test_without_a_policy_everything_is_allowed() -> None:
    lines, code = told(Policy(None), "a:b", "tools/call", "x")
    assert "no policy section: everybody who may call at all may call everything" in lines
    assert code == ALLOWED


def test_a_thousand_rules_still_fit_on_a_screen() -> None:
    many = [{"match": f"tool_{index}", "allow": []} for index in range(1_000)]
    lines, _ = of_tool("last", by=policy([], tools=[*many, {"match": "last", "allow": ["*"]}]))
    assert "    and 988 more that do not fit" in lines
    assert len(lines) < 25


@pytest.mark.parametrize(
    ("method", "target", "params", "rules", "code"),
    [
        (
            "resources/read",
            "file:///etc/x",
            {},
            [
                "    *                            pack strict: not asked",
                "  > resources/read               yours: refuses: allows viewer, for file:///pub/*",
                "    *                            yours: not asked",
            ],
            1,
        ),
        (
            "resources/read",
            "file:///pub/x",
            {},
            [
                "    *                            pack strict: not asked",
                "    resources/read               yours: allows viewer, for file:///pub/*",
                "    *                            yours: not asked",
                "    allowed: all that were asked agree",
            ],
            0,
        ),
        (
            "nobody/knows",
            None,
            {},
            [
                "  > *                            pack strict: refuses: allows nobody",
                "    resources/read               yours: not asked",
                "    *                            yours: allows viewer",
            ],
            1,
        ),
        (
            "resources/subscribe",
            None,
            {"uri": "file:///etc/x"},
            [
                "    *                            pack strict: not asked",
                "  > resources/read               yours: refuses: allows viewer, for file:///pub/*",
                "    *                            yours: not asked",
            ],
            1,
        ),
        (
            "tools/list",
            None,
            {},
            [
                "    *                            pack strict: not asked",
                "    resources/read               yours: not asked",
                "    *                            yours: not asked",
                "    allowed: it belongs to every session",
            ],
            0,
        ),
    ],
)
def test_methods_have_a_way_of_their_own(
    method: str, target: str | None, params: Mapping[str, object], rules: list[str], code: int
) -> None:
    """All rules that stand for a method must agree: those of packs and one's own."""
    lines, got = told(policy(), "acme:ann:operator", method, target, params)
    begins = lines.index("rules for methods; all that are asked must agree")
    assert lines[begins + 1 : begins + 1 + len(rules)] == rules
    assert got == code


def test_what_stands_for_another_method_is_asked_for_itself_alone() -> None:
    """A completion is judged by the prompt it is for, and then by itself: here the default refuses that."""
    by = policy([], methods={"prompts/get": {"allow": ["operator"]}})
    ref = {"ref": {"type": "ref/prompt", "name": "p"}, "argument": {"name": "a", "value": ""}}
    lines, code = told(by, "acme:ann:operator", "completion/complete", None, ref)
    begins = lines.index("rules for methods; all that are asked must agree")
    assert lines[begins + 1 : begins + 3] == [
        "    prompts/get                  yours: allows operator",
        "  > default                      refuses: allows nobody",
    ]
    assert code == REFUSED


@pytest.mark.parametrize(
    ("rule", "changed", "outcome", "code"),
    [
        ({"approval": "gated"}, {}, "REFUSED approval_required, though allowed by the rule x", 1),
        ({"approval": "denied"}, {}, "REFUSED not_allowed, though allowed by the rule x", 1),
        ({"approval": "gated", "report": True}, {}, "ALLOWED by the rule x", 0),
        ({}, {"modes": {"process": "read-only"}}, "REFUSED mode, though allowed by the rule x", 1),
        ({"class": "read"}, {"modes": {"process": "read-only"}}, "ALLOWED by the rule x", 0),
        ({}, {"modes": {"tenants": {"other": "maintenance"}}}, "ALLOWED by the rule x", 0),
    ],
)
def test_what_a_fresh_start_would_refuse_is_told(
    rule: dict[str, Any], changed: dict[str, Any], outcome: str, code: int
) -> None:
    """Allowed by the rules is not yet through: modes of the settings, and approvals that nobody has given."""
    lines, got = of_tool("x", by=policy([], tools=[{"match": "x", "allow": ["*"], **rule}], **changed))
    assert [line for line in lines if line.startswith(outcome)]
    assert got == code


def test_what_only_the_server_or_earlier_calls_know_is_said_to_be_unknown() -> None:
    tools = [{"match": "x", "allow": ["*"], "validate": True}]
    lines, _ = of_tool("x", by=policy([], tools=tools, repetition={}))
    assert (
        lines[-1]
        == "the call goes to the server as it came; not asked: the tool's own schema and earlier calls"
    )


def test_a_notification_is_asked_about_without_an_id() -> None:
    call = asked("notifications/anything", None, FakeJourney())
    assert (call.id, call.wants_answer) == (None, False)


NAMES = st.sampled_from(["a", "ab", "abc", "b"])
ROLES = st.lists(st.sampled_from(["*", "r", "s"]), max_size=2)
TOOL = st.fixed_dictionaries(
    {"match": st.sampled_from(["a", "a*", "*", "b", "ab"]), "deny": ROLES, "allow": ROLES},
    optional={"hidden": st.booleans(), "scopes": st.just(["x"]), "report": st.booleans()},
)
METHOD = st.dictionaries(
    st.sampled_from(["prompts/get", "*", "resources/read"]),
    st.fixed_dictionaries({"allow": ROLES, "deny": ROLES, "match": st.sampled_from([["*"], ["a*"]])}),
    max_size=2,
)
TOOLS = st.lists(TOOL, max_size=4)


@given(own=TOOLS, shared=TOOLS, lifted=st.booleans(), methods=METHOD, theirs=METHOD, name=NAMES, roles=ROLES)
@FUZZ
def test_the_story_agrees_with_the_decision(
    own: list[Any],
    shared: list[Any],
    lifted: bool,
    methods: dict[str, Any],
    theirs: dict[str, Any],
    name: str,
    roles: list[str],
) -> None:
    """One rule is marked wherever a rule refuses, and it is the one that the decision names."""
    if lifted:
        own = [{"match": "a", "allow": ["r"], "overrides_packs": True}, *own]
    by = Policy(
        msgspec.convert({"packs": ["p"], "tools": own, "methods": methods}, PolicySettings),
        (msgspec.convert({"version": 1, "tools": shared, "methods": theirs}, PackSettings),),
    )
    principal = Principal(issuer="i", subject="s", tenant="t", roles=frozenset(roles))
    for method in ("tools/call", "prompts/get"):
        call = asked(method, name, FakeJourney())
        lines, code = explain(by, call, principal, lambda refused, call: answer(refused, call, "result"))
        marked = [line.split()[1] for line in lines if line.startswith("  > ")]
        decision = by.rules.decide(call, principal)
        is_refused = isinstance(decision, Deny) and not decision.is_reported
        assert code == (REFUSED if is_refused else ALLOWED)
        if isinstance(decision, Deny) or method == "tools/call":
            assert marked == [decision.rule.id]


@pytest.mark.parametrize(
    ("text", "tenant", "subject", "roles"),
    [
        ("acme:ann", "acme", "ann", []),
        ("acme:ann:", "acme", "ann", []),
        ("acme:ann:viewer,editor", "acme", "ann", ["editor", "viewer"]),
        ("acme:spiffe://d/x:", "acme", "spiffe://d/x", []),
        ("acme:system:serviceaccount:x:viewer", "acme", "system:serviceaccount:x", ["viewer"]),
    ],
)
def test_a_caller_is_written_in_one_word(text: str, tenant: str, subject: str, roles: list[str]) -> None:
    """Issue 4, item 11: --as tenant:subject[:role…]; subjects hold colons too."""
    who = caller_of(text)
    assert (who.tenant, who.subject, sorted(who.roles)) == (tenant, subject, roles)


@pytest.mark.parametrize("text", ["", "acme", "acme:", ":ann", "acme::viewer"])
def test_a_caller_needs_a_tenant_and_a_subject(text: str) -> None:
    with pytest.raises(Unfit, match="nobody"):
        caller_of(text)


@pytest.mark.parametrize("text", ["", "[]", "1", '{"a": 1, "a": 2}', '{"a":', "{'a': 1}", "\ud800"])
def test_arguments_are_one_strict_json_object(text: str) -> None:
    with pytest.raises(Unfit) as caught:
        object_of(text)
    assert "object" in str(caught.value)


def test_what_no_caller_gets_past_the_reader_is_refused_before_any_rule() -> None:
    with pytest.raises(Refused, match="malformed"):
        asked("tools/call", "a\x00b", FakeJourney())


@pytest.mark.parametrize(("method", "target"), [("prompts/get", None), ("tools/list", "x")])
def test_a_target_stands_where_the_method_names_one(method: str, target: str | None) -> None:
    with pytest.raises(Unfit, match="has no target"):
        asked(method, target, FakeJourney())


def run(*words: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = run_command(list(words))
    return code, out.getvalue(), err.getvalue()


def test_the_command_never_shows_arguments(tmp_path: Path) -> None:
    """House rule: no argument in any output, not of a good one and not of a bad one."""
    file = tmp_path / "settings.yaml"
    file.write_text(
        "version: 1\nupstream: {url: http://127.0.0.1:1/}\npolicy: {tools: [{match: x, allow: []}]}\n"
    )
    words = ("explain", "--config", str(file), "--as", "acme:ann", "--call", "x")
    for text, code in (('{"token": "hunter2"}', 1), ('{"token": hunter2', 2)):
        got, out, err = run(*words, text)
        assert got == code
        assert "hunter2" not in out + err
    assert isinstance(asked("tools/call", "x", FakeJourney(), {"arguments": {}}), Call)


def test_what_a_pack_only_records_is_told_beside_what_decides() -> None:
    """Regression: a rule that only records opened what another rule closes."""
    trial = {"version": 1, "tools": [{"match": "*", "deny": ["operator"], "report": True}]}
    settings = {**SETTINGS, "packs": ["/etc/trial.yaml"]}
    by = Policy(msgspec.convert(settings, PolicySettings), (msgspec.convert(trial, PackSettings),))
    lines, code = of_tool("kubectl_get", by=by)
    assert code == ALLOWED
    assert "ALLOWED by the rule kubectl_get (class read)" in lines
    assert "it is recorded: the rule * would refuse it" in lines
    assert of_tool("legacy_x", by=by)[1] == REFUSED
