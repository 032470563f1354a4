"""Why would this call be allowed, or not? Rules, a call and a caller in; lines for people out. Pure.

Nothing here knows what a rule means: `Rules` is asked, about the policy as it is and about policies that differ from
it in one rule. So the story cannot drift from what is enforced. Patterns alone are compared here, to leave out the
hundreds that do not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from msgspec import Struct, structs

from ..configuration.globs import fits
from ..configuration.mistakes import shown
from ..model import Call, Kind, Permit, Principal, Reason, Refused, Reply
from .approvals import denied
from .asked import TOOL_CALL
from .modes import Modes
from .roles import Roles
from .rules import Allow, Decision, Deny, Rules
from .settings import DefaultSettings, MethodRule, PackSettings, PolicySettings, ToolRule

ALLOWED: Final = 0
REFUSED: Final = 1
_GATED: Final = "A confirmation id stands here; it counts once a person has agreed."
MOST_LISTED: Final = 12
"""Rules that do not fit, one a line; the others are counted."""

_ALL_MAY: Final = DefaultSettings(allow=("*",))
_PASSES: Final = MethodRule(allow=("*",))
_REFUSES: Final = MethodRule(deny=("*",))

OWN: Final = -1
"""Where a rule stands: in the pack of this number, or in one's own file."""

Where: TypeAlias = tuple[int, int]
MethodWhere: TypeAlias = tuple[int, str]
Answer: TypeAlias = Callable[[Refused, Call], Reply]


class Policy(Struct, frozen=True):
    """What is asked: the settings, and the packs with the names they are known by."""

    settings: PolicySettings | None
    packs: tuple[PackSettings, ...] = ()

    @property
    def rules(self) -> Rules:
        return Rules(self.settings, self.packs)

    @property
    def named_packs(self) -> list[tuple[str, PackSettings]]:
        names = [shown(Path(each).stem) for each in self.settings.packs] if self.settings else []
        return list(zip(names, self.packs, strict=True))


def explain(policy: Policy, call: Call, principal: Principal, answer: Answer) -> tuple[list[str], int]:
    """The way through every rule and the outcome, and 0 where the call passes, 1 where it is refused."""
    lines = list(_asked(policy, call, principal))
    settings = policy.settings
    if settings is None:
        lines += ["", "no policy section: everybody who may call at all may call everything"]
    elif call.method == TOOL_CALL:
        lines += _through_tools(policy, settings, call, principal)
    else:
        lines += _through_methods(policy, settings, call, principal)
    outcome, code = _outcome(policy, call, principal, answer)
    return [*lines, "", *outcome], code


def _asked(policy: Policy, call: Call, principal: Principal) -> Iterator[str]:
    roles = Roles(policy.settings.roles if policy.settings else {}).of(principal.roles)
    inherited = sorted(roles - principal.roles)
    named = _list(sorted(principal.roles), "none")
    inheriting = f" (and inherits {_list(inherited)})" if inherited else ""
    yield f"caller  tenant {shown(principal.tenant)}, subject {shown(principal.subject, 200)}"
    scopes = _list(sorted(principal.scopes), "none")
    yield f"        roles: {named}{inheriting}; scopes: {scopes}"
    yield f"call    {shown(call.method)} {shown(call.target or '', 200)}".rstrip()


# Tools.


def _through_tools(
    policy: Policy, settings: PolicySettings, call: Call, principal: Principal
) -> Iterator[str]:
    name = call.target or ""
    decision = policy.rules.decide(call, principal)
    where = _decider(policy, settings, call, principal)
    pack_denied = False
    for at, (title, pack) in enumerate(policy.named_packs):
        denying = [
            (index, rule) for index, rule in enumerate(pack.tools) if rule.deny and fits(rule.match, name)
        ]
        yield from (
            "",
            f"pack {title}: {len(denying)} of its {len(pack.tools)} rules deny a tool of this name",
        )
        for index, rule in denying:
            is_meant = _denies(settings, rule, call, principal)
            decides = is_meant and where == (at, index)
            said = f"denies {_list(rule.deny)}"
            if not is_meant:
                said += ", not this caller"
            elif not decides:
                said += "; an earlier rule decided" if pack_denied else "; lifted by your rule below"
            pack_denied = pack_denied or decides
            yield _line(rule.match, said, decides)
    yield from ("", f"your rules: {len(settings.tools)}")
    if pack_denied:
        yield "    not asked: denies of packs come before them"
        return
    said = _said(settings, where, policy, decision)
    yield from _until_first(settings.tools, name, said)
    if where is None:
        yield from ("", _line("default", said, True))
    elif where[0] != OWN:
        title, pack = policy.named_packs[where[0]]
        yield from ("", f"pack {title}, because none of your rules fits")
        yield from _until_first(pack.tools, name, said)


def _decider(policy: Policy, settings: PolicySettings, call: Call, principal: Principal) -> Where | None:
    """Which rule decides; None is the default. The same policy is asked with a number for each name, because several
    rules may go by one."""
    places: dict[str, Where] = {}

    def numbered(at: int, rules: Sequence[ToolRule]) -> tuple[ToolRule, ...]:
        ids = [f"{at}:{index}" for index in range(len(rules))]
        places.update((id, (at, index)) for index, id in enumerate(ids))
        return tuple(structs.replace(rule, id=id) for rule, id in zip(rules, ids, strict=True))

    packs = [structs.replace(pack, tools=numbered(at, pack.tools)) for at, pack in enumerate(policy.packs)]
    own = structs.replace(settings, tools=numbered(OWN, settings.tools))
    return places.get(Rules(own, packs).decide(call, principal).rule.id)


def _denies(settings: PolicySettings, rule: ToolRule, call: Call, principal: Principal) -> bool:
    """Whether the denies of this rule alone refuse the call, where everybody else may do everything."""
    alone = ToolRule(match=rule.match, deny=rule.deny)
    return isinstance(Rules(_nothing_but(settings, tools=(alone,))).decide(call, principal), Deny)


def _until_first(rules: Sequence[ToolRule], name: str, said: str) -> Iterator[str]:
    """The rules up to the first that fits, with what it said; what stands behind it is counted."""
    first = next((index for index, rule in enumerate(rules) if fits(rule.match, name)), len(rules))
    for rule in rules[: min(first, MOST_LISTED)]:
        yield _line(rule.match, "does not fit")
    if first > MOST_LISTED:
        yield f"    and {first - MOST_LISTED} more that do not fit"
    if first == len(rules):
        return
    yield _line(rules[first].match, said, True)
    behind = rules[first + 1 :]
    if behind:
        fitting = [shown(rule.match) for rule in behind if fits(rule.match, name)]
        also = f"; of these fit too: {_list(fitting[:MOST_LISTED])}" if fitting else ""
        yield f"    {len(behind)} behind it not asked{also}"


def _said(settings: PolicySettings, where: Where | None, policy: Policy, decision: Decision) -> str:
    """What the rule that decided said, in words."""
    if where is None:
        return _verdict(decision, settings.default.allow, ())
    at, index = where
    rule = (settings.tools if at == OWN else policy.packs[at].tools)[index]
    return _verdict(decision, settings.default.allow if rule.allow is None else rule.allow, rule.deny)


# Methods.


def _through_methods(
    policy: Policy, settings: PolicySettings, call: Call, principal: Principal
) -> Iterator[str]:
    decision = policy.rules.decide(call, principal)
    decider: str | None = None
    yield from ("", "rules for methods; all that are asked must agree")
    for title, where, rule in _methods(policy, settings):
        name = where[1]
        if not _is_asked(policy, settings, where, call, principal):
            yield _line(name, f"{title}: not asked")
            continue
        alone = _with_methods(policy, settings, where, rule).decide(call, principal)
        decides = decider is None and isinstance(alone, Deny) and decision.rule.id == name
        decider = name if decides else decider
        targets = "" if rule.match == ("*",) else f", for {_list(rule.match)}"
        yield _line(name, f"{title}: {_verdict(alone, rule.allow or (), rule.deny)}{targets}", decides)
    if isinstance(decision, Allow):
        why = {"protocol": "it belongs to every session", "default": "as the default says"}
        yield f"    allowed: {why.get(decision.rule.id, 'all that were asked agree')}"
    elif decider is None:
        yield _line("default", _verdict(decision, settings.default.allow, ()), True)


def _methods(policy: Policy, settings: PolicySettings) -> Iterator[tuple[str, MethodWhere, MethodRule]]:
    """Every rule for methods in the order in which they are asked: whose it is, where it stands, what it says."""
    whose = [(f"pack {title}", at, pack.methods) for at, (title, pack) in enumerate(policy.named_packs)]
    for title, at, methods in (*whose, ("yours", OWN, settings.methods)):
        for name, rule in methods.items():
            allow = settings.default.allow if rule.allow is None else rule.allow
            yield title, (at, name), structs.replace(rule, allow=allow)


def _is_asked(
    policy: Policy, settings: PolicySettings, where: MethodWhere, call: Call, principal: Principal
) -> bool:
    """Whether the rule is asked at all: would it be noticed if it refused everybody?"""
    return isinstance(_with_methods(policy, settings, where, _REFUSES).decide(call, principal), Deny)


def _with_methods(policy: Policy, settings: PolicySettings, where: MethodWhere, rule: MethodRule) -> Rules:
    """The same methods with rules that refuse nothing, but for this one."""

    def opened(at: int, methods: Mapping[str, MethodRule]) -> Mapping[str, MethodRule]:
        return {name: rule if (at, name) == where else _PASSES for name in methods}

    packs = [
        structs.replace(pack, methods=opened(at, pack.methods), tools=())
        for at, pack in enumerate(policy.packs)
    ]
    own = structs.replace(settings, tools=(), methods=opened(OWN, settings.methods), default=_ALL_MAY)
    return Rules(own, packs)


# Words.


def _nothing_but(settings: PolicySettings, tools: tuple[ToolRule, ...]) -> PolicySettings:
    return structs.replace(settings, tools=tools, methods={}, default=_ALL_MAY)


def _verdict(decision: Decision, allow: Sequence[str], deny: Sequence[str]) -> str:
    if isinstance(decision, Allow):
        return f"allows {_list(allow)}"
    only = ", but is report only" if decision.is_reported else ""
    if decision.reason is Reason.NOT_ALLOWED:
        denies = f"denies {_list(deny)} and " if deny else ""
        return f"refuses: {denies}allows {_list(allow)}{only}"
    if decision.reason is Reason.NOT_VISIBLE:
        because = (
            ": no rule fits, and beside hidden tools that looks the same"
            if decision.rule.id == "default"
            else ""
        )
        return f"hides it{because}{only}"
    if decision.reason is Reason.SCOPE_MISSING:
        return f"needs the scopes {_list(decision.scopes)}{only}"
    return f"refuses: {decision.reason.value}. {decision.why}{only}"


def _outcome(policy: Policy, call: Call, principal: Principal, answer: Answer) -> tuple[list[str], int]:
    rules = policy.rules
    decision = rules.decide(call, principal)
    try:
        permit = rules(call, principal)
    except Refused as refused:
        first = f"REFUSED {refused.reason.value}, by the rule {shown(decision.rule.id)}"
        return [first, *_seen(refused, call, answer)], REFUSED
    by = f"by the rule {shown(permit.rule.id)} (class {permit.rule.tool_class})"
    if isinstance(decision, Deny):
        why = "the rule is report: true" if decision.is_reported else "policy.mode is report"
        would = f"ALLOWED, but would be refused {by}: {decision.reason.value}"
        return [would, f"it is only recorded: {why}"], ALLOWED
    held = _held(policy, permit)
    if held is not None:
        return [f"REFUSED {held.reason.value}, though allowed {by}", *_seen(held, call, answer)], REFUSED
    recorded = decision.would_refuse
    also = [] if recorded is None else [f"it is recorded: the rule {shown(recorded.rule.id)} would refuse it"]
    return [f"ALLOWED {by}", *also, f"the call goes to the server as it came{_unless(policy)}"], ALLOWED


def _held(policy: Policy, permit: Permit) -> Refused | None:
    """What a fresh start would refuse all the same: a mode of the settings, an approval that nobody has given yet."""
    call, rule = permit.call, permit.rule
    if policy.settings is None:
        return None
    off = Modes(policy.settings.modes).refusal(call, rule.tool_class, permit.principal.tenant, 0.0)
    if off is not None or call.method != TOOL_CALL or rule.is_reported:
        return off
    if rule.approval == "denied":
        return denied()
    return Refused(Reason.APPROVAL_REQUIRED, _GATED) if rule.approval == "gated" else None


def _unless(policy: Policy) -> str:
    """What cannot be said here, because only the server or earlier calls know it."""
    settings = policy.settings
    unknown = []
    if settings is not None and any(rule.validate for rule in settings.tools):
        unknown.append("the tool's own schema")
    if settings is not None and settings.repetition is not None:
        unknown.append("earlier calls")
    return f"; not asked: {' and '.join(unknown)}" if unknown else ""


def _seen(refused: Refused, call: Call, answer: Answer) -> Iterator[str]:
    """The answer as it reaches the caller."""
    if refused.reason is Reason.NOT_VISIBLE and call.kind is Kind.REQUEST:
        yield "the caller sees what the server answers for a tool that it does not have"
        return
    reply = answer(refused, call)
    yield f"the caller sees HTTP {reply.status}"
    challenge = reply.headers.get("www-authenticate")
    if challenge:
        yield f"  WWW-Authenticate: {shown(challenge, 400)}"
    if isinstance(reply.body, bytes) and reply.body:
        yield f"  {shown(reply.body.decode(), 2_000)}"


def _list(names: Sequence[str], none: str = "nobody") -> str:
    if not names:
        return none
    return ", ".join("everybody" if each == "*" else shown(each) for each in names)


def _line(name: str, said: str, decides: bool = False) -> str:
    return f"  {'>' if decides else ' '} {shown(name):<28} {said}"
