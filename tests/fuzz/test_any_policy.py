"""Whatever the policy and whoever calls: what a list shows is exactly what a call allows, and both are what the
contract says, read plainly."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from hypothesis import given, note
from hypothesis import strategies as st

from proxy.model import Principal
from tests.fuzz.bounded import FUZZ
from tests.fuzz.dice import RARELY, Dice, dice
from tests.integration.wire import REVISIONS
from tests.unit.policy.hall import Hall, Said, Server, answering, as_event, whole

Section = dict[str, Any]

NAMES: Final = [
    "get_a",
    "get_b",
    "put_a",
    "Get_a",
    "get_",
    "x",
    "get_\u0430",
    "d\u00e9mo",
    "rm -r",
    "\U0001f600",
]
GLOBS: Final = [*NAMES, "*", "get_*", "*_a", "get_?", "?", "*e*_*", "**"]
UNCALLABLE: Final[list[object]] = ["a\nb", "", None, 7, "\x85", "n" * 1_025]
"""What a server may list and no call can name."""
URIS: Final = [
    "file:///a",
    "file:///a/b",
    "file:///a/../b",
    "db://t",
    "x",
    "file:///%2e%2e/b",
    "a/..",
    "d\u00e9",
]
URI_GLOBS: Final = ["*", "file:///*", "file:///a*", "db://t", "x", "?", "file:///a/../b", "*b"]
TEMPLATES: Final = ["file:///{path}", "{all}", "db://{t}", "file:///a", "x{y}"]
ROLES: Final = ["viewer", "editor", "admin", "guest"]
SCOPES: Final = ["one", "two"]
CLASSES: Final = ["read", "write", "dangerous"]


def tool_rule(dice: Dice) -> Section:
    rule: Section = {"match": dice.one(GLOBS), "hidden": dice.one(RARELY), "report": dice.one(RARELY)}
    rule |= {"deny": dice.some(ROLES, 1), "scopes": dice.some(SCOPES, 1)}
    if dice.one([True, True, False]):
        rule["allow"] = dice.some([*ROLES, "*"], 2)
    if dice.one([False, True]):
        rule["class"] = dice.one(CLASSES)
    if not {"*", "?"} & set(rule["match"]):
        rule["overrides_packs"] = dice.one(RARELY)
    return rule


def method_rule(dice: Dice, globs: Sequence[str]) -> Section:
    rule: Section = {"deny": dice.some(ROLES, 1), "report": dice.one(RARELY), "scopes": dice.some(SCOPES, 1)}
    rule["match"] = [dice.one(globs), *dice.some(globs, 1)]
    if dice.one([True, True, False]):
        rule["allow"] = dice.some([*ROLES, "*"], 2)
    return rule


def method_rules(dice: Dice) -> Section:
    globs = {"prompts/get": GLOBS, "resources/read": URI_GLOBS, "*": ["*", "x"]}
    return {method: method_rule(dice, globs[method]) for method in globs if dice.one([False, True])}


def a_policy(dice: Dice) -> Section:
    """Roles may inherit themselves in two steps: nothing forbids a cycle."""
    return {
        "mode": dice.one(["enforce"] * 9 + ["report"]),
        "trust_annotations": dice.one([False, True]),
        "default": {"class": dice.one(CLASSES), "allow": dice.some([*ROLES, "*"], 1)},
        "roles": {role: {"inherits": dice.some(ROLES, 2)} for role in dice.some(ROLES, 4)},
        "modes": dice.one([{}, {}, {"process": "no-delete"}, {"process": "read-only"}]),
        "methods": method_rules(dice),
        "tools": dice.times(5, lambda: tool_rule(dice)),
    }


def some_packs(dice: Dice) -> list[Section]:
    return dice.times(
        2, lambda: {"methods": method_rules(dice), "tools": dice.times(3, lambda: tool_rule(dice))}
    )


def a_caller(dice: Dice) -> Principal:
    return Principal(
        issuer="i",
        subject="s",
        tenant="t",
        roles=frozenset(dice.some([*ROLES, "stranger"], 2)),
        scopes=frozenset(dice.some(SCOPES, 2)),
    )


def a_tool(dice: Dice) -> Section:
    hints = {
        "readOnlyHint": dice.one([None, True, False]),
        "destructiveHint": dice.one([None, True, False, "no"]),
    }
    said = {name: value for name, value in hints.items() if value is not None}
    return {"name": dice.one([*NAMES, *NAMES, *UNCALLABLE])} | ({"annotations": said} if said else {})


# The contract, read plainly.


def fits(glob: str, name: str) -> bool:
    """A glob by another engine; it knows brackets, which are none here."""
    return re.fullmatch(fnmatch.translate(glob.replace("[", "[[]")), name) is not None


def has_one(wanted: Sequence[str], roles: set[str]) -> bool:
    return "*" in wanted or bool(roles & set(wanted))


def with_inherited(policy: Section, caller: Principal) -> set[str]:
    known = set(caller.roles)
    for _ in ROLES:
        known |= {each for role in known for each in policy["roles"].get(role, {}).get("inherits", ())}
    return known


def judged(rule: Section, policy: Section, caller: Principal) -> str:
    """What one rule says to one caller: yes, no, or step up. `allow` is the default's where it says nothing."""
    allow = rule.get("allow", policy["default"]["allow"])
    said = "yes"
    is_denied = rule.get("hidden") or has_one(rule.get("deny", ()), set(caller.roles))
    if is_denied or not has_one(allow, with_inherited(policy, caller)):
        said = "no"
    elif not caller.scopes.issuperset(rule.get("scopes", ())):
        said = "step up"
    return "yes" if rule.get("report") or policy["mode"] == "report" else said


def of_tool(policy: Section, packs: Sequence[Section], caller: Principal, name: str) -> tuple[str, Section]:
    """What is said of a tool, and the rule that says it."""
    own = [rule for rule in policy["tools"] if fits(rule["match"], name)]
    shared = [rule for pack in packs for rule in pack["tools"] if fits(rule["match"], name)]
    first: Section = next(iter([*own, *shared]), policy["default"])
    for rule in () if first.get("overrides_packs") or policy["mode"] == "report" else shared:
        if has_one(rule["deny"], set(caller.roles)) and not rule["report"]:
            return "no", rule
    return judged(first, policy, caller), first


def of_target(policy: Section, packs: Sequence[Section], caller: Principal, method: str, target: str) -> str:
    """What is said of a prompt or a resource: all rules that stand for its method must agree."""
    sources = [*(pack["methods"] for pack in packs), policy["methods"]]
    standing = [each[method] for each in sources if method in each] or [
        each["*"] for each in sources if "*" in each
    ]
    for rule in standing or [{**policy["default"], "match": ["*"]}]:
        said = judged(rule, policy, caller)
        names = rule["match"]
        is_path = method == "resources/read" and re.search(r"\.\.|%2e", target) is not None
        if not (target in names or "*" in names if is_path else any(fits(glob, target) for glob in names)):
            said = "yes" if rule["report"] or policy["mode"] == "report" else "no"
        if said != "yes":
            return said
    return "yes"


STRICT: Final = CLASSES.index


def class_of(policy: Section, rule: Section, listed: Sequence[Mapping[str, Any]], name: str) -> str:
    """What a tool counts as: the rule's word; the server's where it is trusted; else the stricter of the server's and
    the default's. Of two definitions of one name the stricter one counts."""
    if "class" in rule and rule is not policy["default"]:
        return str(rule["class"])
    default = str(policy["default"]["class"])
    said = [
        "read"
        if each["readOnlyHint"] is True
        else "write"
        if each["destructiveHint"] is False
        else "dangerous"
        for tool in listed
        if tool["name"] == name and (each := hinted(tool)) is not None
    ]
    if not said:
        return default
    strictest = max(said, key=STRICT)
    return strictest if policy["trust_annotations"] else max(default, strictest, key=STRICT)


def hinted(tool: Mapping[str, Any]) -> dict[str, object] | None:
    said = {key: value for key, value in tool.get("annotations", {}).items() if isinstance(value, bool)}
    return {"readOnlyHint": False, "destructiveHint": True, **said} if said else None


def in_mode(policy: Section, tool_class: str) -> bool:
    mode = policy["modes"].get("process")
    return mode is None or tool_class == "read" or (mode == "no-delete" and tool_class == "write")


revisions = st.sampled_from(REVISIONS)
shapes = st.sampled_from([whole, as_event])


@given(dice=dice, revision=revisions, say=shapes)
@FUZZ
def test_a_list_of_tools_shows_exactly_what_calls_allow(
    dice: Dice, revision: str, say: Callable[[object], Said]
) -> None:
    """Issue 4: least privilege, and impossible to talk around. What only lacks a scope is shown, because whoever calls
    it is asked to step up."""
    who, policy, packs = a_caller(dice), a_policy(dice), some_packs(dice)
    if policy["mode"] == "report":
        policy["modes"] = {}
    listed = dice.times(8, lambda: a_tool(dice))
    note(f"{who} {policy} {packs} {listed}")
    hall = Hall(policy, Server(answering({"tools/list": listed}, say=say)), who, packs=packs)
    shown = [tool["name"] for tool in hall.listed(revision=revision)]
    if policy["mode"] == "report":
        assert shown == [tool["name"] for tool in listed]
    else:
        assert len(set(shown)) == len(shown)
    for name in NAMES:
        verdict, rule = of_tool(policy, packs, who, name)
        passes = in_mode(policy, class_of(policy, rule, listed, name))
        is_there = any(tool["name"] == name for tool in listed)
        asked = len(hall.server.bodies)
        status, _ = hall.request("tools/call", revision, name=name, arguments={})
        reached = [json.loads(body)["params"]["name"] for body in hall.server.bodies[asked:]] == [name]
        assert reached == (verdict == "yes" and passes), (name, verdict, rule, passes)
        assert (status == 403) == (verdict == "step up")
        assert (name in shown) == (is_there and verdict != "no"), (name, verdict, rule)
        if is_there and passes:
            assert (name in shown) == (reached or status == 403), "a list shows exactly what a call allows"
    assert policy["mode"] == "report" or not set(map(str, shown)) & set(map(str, UNCALLABLE))


@given(dice=dice, revision=revisions, say=shapes)
@FUZZ
def test_other_lists_show_exactly_what_may_be_got(
    dice: Dice, revision: str, say: Callable[[object], Said]
) -> None:
    """Issue 4, 3: prompts and resources too. A template is shown when some URI that begins like it may be read."""
    who, policy, packs = a_caller(dice), {**a_policy(dice), "modes": {}}, some_packs(dice)
    note(f"{who} {policy} {packs}")
    lists = {
        "prompts/list": [{"name": name} for name in NAMES],
        "resources/list": [{"uri": uri, "name": "x"} for uri in URIS],
        "resources/templates/list": [{"uriTemplate": each, "name": "x"} for each in TEMPLATES],
    }
    hall = Hall(policy, Server(answering(lists, say=say)), who, packs=packs)
    for method, listing, member, targets in (
        ("prompts/get", "prompts/list", "name", NAMES),
        ("resources/read", "resources/list", "uri", URIS),
    ):
        shown = [entry[member] for entry in hall.listed(listing, revision)]
        for target in targets:
            verdict = of_target(policy, packs, who, method, target)
            asked = len(hall.server.bodies)
            status, _ = hall.request(method, revision, **{member: target})
            reached = len(hall.server.bodies) > asked
            assert (target in shown) == (reached or status == 403), "a list shows exactly what may be got"
            assert (reached, status == 403) == (verdict == "yes", verdict == "step up"), (target, verdict)
    readable = [entry["uri"] for entry in hall.listed("resources/list", revision)]
    templates = [entry["uriTemplate"] for entry in hall.listed("resources/templates/list", revision)]
    for template in TEMPLATES:
        if any(uri.startswith(template.partition("{")[0]) for uri in readable):
            assert template in templates
