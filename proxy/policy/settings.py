"""Who may call what? The `policy` section: rules for tools and methods, roles, packs of rules.

The first rule that fits a tool decides; what no rule names is allowed to nobody.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Final, Literal, TypeAlias

from msgspec import Meta, Struct, field

from ..configuration.globs import Glob, check_glob
from ..configuration.mistakes import Unfit, joined
from ..configuration.values import fit
from .arguments import ArgumentRules
from .conditions import When
from .guard_settings import (
    Approval,
    ApprovalSettings,
    ElicitationSettings,
    ModeSettings,
    RepetitionSettings,
)
from .keep_settings import CacheRule
from .pin_settings import DefinitionSettings, PinSettings
from .redaction import Redact
from .schemas import Validate

EVERYBODY: Final = "*"
NEVER_REFUSED: Final = frozenset({"initialize", "server/discover"})
"""A refusal of these makes clients change their revision for good."""


def check_role(text: str) -> None:
    """Raise Unfit unless this names a role, or everybody."""
    if not text.strip() or text != text.strip() or not text.isprintable():
        raise Unfit("is no role", "roles are compared with what credentials say, exactly", "name one, or *")


def check_method(text: str) -> None:
    """Raise Unfit unless a rule may stand for this method."""
    if text == "tools/call":
        raise Unfit("has rules of its own", "tools are told apart by their names", "list it in policy.tools")
    if text in NEVER_REFUSED:
        raise Unfit("cannot be refused", "clients would take us for another revision", "remove it")
    check_glob(text)
    if "*" in text.removesuffix("*") or "?" in text:
        raise Unfit("is no method", "one method, or * for all others", "name each method")


def check_scope(text: str) -> None:
    """Raise Unfit unless this is one OAuth scope (RFC 6749 section 3.3)."""
    if not text or any(not 0x21 <= ord(each) <= 0x7E or each in '"\\' for each in text):
        raise Unfit("is no scope", "RFC 6749 allows printable ASCII without spaces and quotes", "rename it")


Role = Annotated[str, Meta(max_length=256), fit(check_role)]
Method = Annotated[str, Meta(max_length=256), fit(check_method)]
Scope = Annotated[str, Meta(max_length=256), fit(check_scope)]
ToolClass: TypeAlias = Literal["read", "write", "dangerous"]
Name = Annotated[str, Meta(max_length=128), fit(check_glob)]


def check_pack(text: str) -> None:
    """Raise Unfit unless this can be the name of a shipped pack or a path."""
    if not text.strip() or not text.isprintable():
        raise Unfit("is no pack", "no file is called so", "name a shipped pack, or a path from this file")


Pack = Annotated[str, Meta(max_length=4_096), fit(check_pack)]


class RoleSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One role."""

    inherits: tuple[Role, ...] = ()
    """Roles whose permissions it has too."""


class ToolRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rule for tools. The first whose `match` fits a tool's name decides, and no other is asked."""

    match: Glob
    """Which tools: the original name, character by character; `*` is any text, `?` one character."""

    id: Name | None = None
    """How records name the rule. Absent: the pattern."""

    tool_class: ToolClass | None = field(default=None, name="class")
    """What calling them means: read, write or dangerous. Absent: that of the default."""

    allow: tuple[Role, ...] | None = None
    """Roles that may call them, with those that inherit; * is everybody, an empty list nobody. Absent: as default."""

    deny: tuple[Role, ...] = ()
    """Roles that may not, as credentials name them; asked before `allow`."""

    scopes: tuple[Scope, ...] = ()
    """OAuth scopes a call needs; a token that lacks some is asked to step up."""

    arguments: ArgumentRules = field(default_factory=lambda: MappingProxyType({}))
    """What single arguments may say, by name, by /path, or * for every text; asked when a caller may call at all."""

    validate: Validate = False
    """true: the arguments must fit the tool's own inputSchema, as its list told it. Needs the extra [validate]."""

    when: When | None = None
    """A CEL expression that must be true of the call: size(args.query) < 500. Needs the extra [cel]."""

    redact: Redact = ()
    """What is counted, masked or withheld in what the tools return. Needs the extra [redact]."""

    cost: Annotated[int, Meta(ge=0, le=1_000_000)] = 1
    """What a call takes from the limits; 0 is free."""

    instead: Annotated[str, Meta(max_length=500)] = ""
    """What to do where a limit refuses, told to the model: a cheaper tool, a smaller question."""

    idempotent: bool = False
    """true: to do it twice is as good as once: a call may be repeated where nobody knows whether it happened."""

    timeout_s: Annotated[float, Meta(gt=0, le=86_400)] | None = None
    """How long a call may take, with all that it waits for. Absent: resilience.timeout_s."""

    idempotency_key: bool = False
    """true: every attempt carries the same Idempotency-Key, for servers that know it."""

    hedge_after_s: Annotated[float, Meta(ge=0.001, le=86_400)] | None = None
    """How long to wait for an answer before the call is sent a second time, beside the first; who answers first wins.
    Only where the rule says class: read and idempotent: true, and in 2026-07-28. Absent: never."""

    reinitialise: bool = False
    """true: when the server has lost the session of a call (404), a new one is begun for its client, who does not
    notice, and the call is sent in it. Only where the server keeps nothing in sessions that you would miss."""

    cache: CacheRule | None = None
    """How long answers are kept and for whom. Only where the rule says class: read; absent: they are not."""

    forget: tuple[Glob, ...] = ()
    """Tools whose kept answers are dropped after a call: what a write makes untrue."""

    approval: Approval = "auto"
    """auto: passes. gated: refused with a confirmation id until a person agrees to that very call. denied: nobody is
    asked."""

    hidden: bool = False
    """true: not listed, and calling one looks like calling a tool that does not exist."""

    report: bool = False
    """true: what this rule would refuse is recorded and passes."""

    overrides_packs: bool = False
    """true: packs do not refuse this tool. Only for one tool by its exact name, and told at every start."""


def _check_rule(rule: ToolRule) -> None:
    if rule.cache is not None and rule.tool_class != "read":
        why = "an answer that is given again must not have done anything, and only you can say so"
        raise Unfit(
            "keeps answers of tools that may do more than read",
            why,
            "write class: read beside it",
            key="cache",
        )
    if rule.hedge_after_s is not None:
        _check_hedge(rule, rule.hedge_after_s)


def _check_hedge(rule: ToolRule, after_s: float) -> None:
    key = "hedge_after_s"
    if rule.tool_class != "read" or not rule.idempotent:
        what, why = (
            "sends a call twice at once that may do something",
            "both may run, and only you can allow that",
        )
        raise Unfit(what, why, "write class: read and idempotent: true beside it", key=key)
    if rule.timeout_s is not None and after_s >= rule.timeout_s:
        raise Unfit("comes when the call is over", "its timeout_s is not longer", "write less", key=key)


_ToolRule: TypeAlias = Annotated[ToolRule, fit(_check_rule)]


class MethodRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rule for one method that is no tool call."""

    allow: tuple[Role, ...] | None = None
    """Roles that may use it; * is everybody, an empty list nobody. Absent: as default."""

    deny: tuple[Role, ...] = ()
    """Roles that may not, as credentials name them; asked before `allow`."""

    match: tuple[Glob, ...] = ("*",)
    """Which targets: URIs of resources, names of prompts."""

    scopes: tuple[Scope, ...] = ()
    """OAuth scopes it needs."""

    report: bool = False
    """true: what this rule would refuse is recorded and passes."""


class DefaultSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What holds where no rule says otherwise."""

    tool_class: ToolClass = field(default="dangerous", name="class")
    """The class of tools that no rule gives one."""

    allow: tuple[Role, ...] = ()
    """Who may call what no rule names: nobody."""


class PackSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of rules that others share. Its denies come before everything, its other rules after one's own."""

    version: Literal[1]
    """The format of the file."""

    tools: tuple[_ToolRule, ...] = ()
    """Rules for tools."""

    methods: Mapping[Method, MethodRule] = field(default_factory=lambda: MappingProxyType({}))
    """Rules for methods."""


class PolicySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may call what."""

    mode: Literal["enforce", "report"] = "enforce"
    """report: what would be refused is recorded, and everything passes."""

    packs: tuple[Pack, ...] = ()
    """Rules that others share: names of shipped packs (destructive), or paths from this file (./packs/own.yaml)."""

    trust_annotations: bool = False
    """true: what the server hints of its tools (read-only, not destructive) may loosen the class of those that no rule
    gives one. false: it may only tighten it."""

    default: DefaultSettings = field(default_factory=DefaultSettings)
    """What holds where no rule says otherwise."""

    roles: Mapping[Role, RoleSettings] = field(default_factory=lambda: MappingProxyType({}))
    """The roles there are. Empty: any name in `allow` and `deny` is one."""

    tools: tuple[_ToolRule, ...] = ()
    """Rules for tools; the first that fits decides."""

    pins: PinSettings | None = None
    """Which tool definitions were approved. Absent: none is compared."""

    definitions: DefinitionSettings | None = None
    """What may not hide in tool definitions and in the server's instructions; {} for what is usual. Absent: nobody
    looks."""

    elicitation: ElicitationSettings | None = None
    """What the server may ask its user for. Absent: anything."""

    approvals: ApprovalSettings = field(default_factory=ApprovalSettings)
    """How long approvals last."""

    modes: ModeSettings = field(default_factory=ModeSettings)
    """Kinds of calls that are switched off."""

    repetition: RepetitionSettings | None = None
    """When the same call counts as a loop. Absent: never."""

    methods: Mapping[Method, MethodRule] = field(default_factory=lambda: MappingProxyType({}))
    """Rules for methods; * stands for those that are not named."""


def roles_named(policy: PolicySettings) -> Iterator[tuple[str, str]]:
    """Every role that a rule or a role names, with the path where it stands."""
    yield from _listed("policy.default.allow", policy.default.allow)
    for name, role in policy.roles.items():
        yield from _listed(joined("policy.roles", name) + ".inherits", role.inherits)
    for index, tool in enumerate(policy.tools):
        yield from _listed(f"policy.tools[{index}].allow", tool.allow or ())
        yield from _listed(f"policy.tools[{index}].deny", tool.deny)
    for method, rule in policy.methods.items():
        here = joined("policy.methods", method)
        yield from _listed(f"{here}.allow", rule.allow or ())
        yield from _listed(f"{here}.deny", rule.deny)


def _listed(path: str, names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    return ((f"{path}[{index}]", name) for index, name in enumerate(names))
