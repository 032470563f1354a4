"""Who may call what? The decision: a pure function from call and principal to a rule.

In: a `Call` and a `Principal`. Out: a `Permit`, or `Refused`. Keeps the compiled rules and which of them fit a name.
`decide` returns values, so that `explain`, lists and report-only rules can ask without being refused; the room's
call turns its answer into a permit. Nothing here waits, looks at a clock or at a body again.

The order: denies of packs; the first of our own rules that fits; the first of the packs' that fits; the default.
Within a rule: hidden, deny (roles as the credential names them), allow (roles with what they inherit), scopes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from msgspec import Struct, structs

from ..configuration.globs import LONGEST_KNOWN, Globs, has_wildcard
from ..model import Call, Kind, Permit, Principal, Reason, Refused, Rule
from .arguments import Arguments
from .conditions import Condition
from .redaction import Redaction, Tell
from .roles import Roles
from .settings import EVERYBODY, MethodRule, PackSettings, PolicySettings, ToolClass, ToolRule
from .tool_classes import Hints, class_of

EVERYTHING: Final = Rule(id="everything", tool_class="dangerous")
"""No policy section: every authenticated principal may do everything. Unknown tools count as dangerous, so that
nothing is cached or repeated on the strength of this rule."""
PROTOCOL: Final = Rule(id="protocol", tool_class="read")
"""What a session cannot do without, and what only answers, begins or ends something that was allowed: handshakes,
pings, streams, answers, and lists, which show what may be used. A method rule may still refuse a method of these."""
ENVELOPE: Final = Rule(id="batch", tool_class="dangerous")
"""Several messages in one body, each of them judged by itself."""

NECESSARY: Final = frozenset(
    {
        "initialize",
        "server/discover",
        "ping",
        "logging/setLevel",
        "notifications/initialized",
        "notifications/cancelled",
        "notifications/progress",
        "notifications/roots/list_changed",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "subscriptions/listen",
        "resources/subscribe",
        "resources/unsubscribe",
        "tasks/cancel",
        "tasks/get",
        "tasks/list",
        "tasks/result",
        "tasks/update",
        "tools/list",
    }
)
"""Subscriptions are judged by the resources they name; tasks belong to whoever started them."""


MOST_SETTLED: Final = 2_048
MOST_NAMES: Final = 32
"""Decisions that are remembered, and roles and scopes of one: callers choose names, and issuers what is in a token."""

_SEPARATOR: Final = r"(?:[/\\]|%(?:25)*(?:2f|5c))"
_DOTS: Final = r"(?:\.|%(?:25)*2e){1,2}"
_AFTER: Final = r"(?:\Z|[/\\;?#]|%(?:25)*(?:2f|5c|3b|3f|23))"
_UNCERTAIN: Final = re.compile(
    rf"[\x00-\x1f]|%(?:25)*00|(?:\A|:|{_SEPARATOR}){_DOTS}(?={_AFTER})", re.IGNORECASE
)
"""What servers resolve, drop or end a path at: dot segments (RFC 3986 section 5.2.4), plain or encoded however often,
also between backslashes and before path parameters; control characters, which WHATWG URLs drop; NUL."""


class Allow(Struct, frozen=True):
    rule: Rule
    would_refuse: Deny | None = None
    """What another rule says that only records."""


class Deny(Struct, frozen=True):
    rule: Rule
    reason: Reason
    why: str = ""
    scopes: tuple[str, ...] = ()
    is_reported: bool = False
    """The rule only records what it would refuse."""


Decision: TypeAlias = Allow | Deny


class _Tool(Struct, frozen=True):
    """A rule for tools, compiled."""

    rule: Rule
    classes: Mapping[ToolClass, Rule] | None
    """The same for each class, where the server's hints may decide it."""
    arguments: Arguments | None
    condition: Condition | None
    validates: bool
    redaction: Redaction | None
    hidden: bool
    deny: frozenset[str]
    allow: frozenset[str]
    scopes: tuple[str, ...]
    is_reported: bool
    overrides_packs: bool
    looks: bool
    """What the call says matters: arguments, condition or schema."""


class _Settled(Struct, frozen=True):
    """What the name of a tool, and a caller's roles and scopes, decide."""

    tool: _Tool
    """The rule that decides."""
    decision: Decision
    by_class: Mapping[ToolClass, Decision] | None = None
    """The same for each class, where the server's hints may decide it."""


class _Method(Struct, frozen=True):
    """A rule for a method, compiled."""

    rule: Rule
    deny: frozenset[str]
    allow: frozenset[str]
    match: tuple[str, ...]
    globs: Globs
    scopes: tuple[str, ...]
    is_reported: bool


def no_hints(principal: Principal, name: str) -> Hints | None:
    return None


def no_misfit(principal: Principal, call: Call) -> str | None:
    return None


def no_pins(principal: Principal, name: str) -> str | None:
    return None


def unheard(*words: object) -> None:
    pass


_EVERYTHING: Final = Allow(EVERYTHING)
_PROTOCOL: Final = Allow(PROTOCOL)
_ENVELOPE: Final = Allow(ENVELOPE)
# Members of an Enum are slow to look up.
_REQUEST: Final = Kind.REQUEST
_NOTIFICATION: Final = Kind.NOTIFICATION
_CONDITION: Final = "A condition of the operator's is not met by these arguments or this caller."


class Rules:
    """The rules in force. Fulfils `Authorise`; without settings everybody may do everything."""

    def __init__(
        self,
        settings: PolicySettings | None = None,
        packs: Sequence[PackSettings] = (),
        hints: Callable[[Principal, str], Hints | None] = no_hints,
        misfit: Callable[[Principal, Call], str | None] = no_misfit,
        found: Tell = unheard,
        unpinned: Callable[[Principal, str], str | None] = no_pins,
    ) -> None:
        """`hints`: what the server told this caller of a tool. `misfit`: why a call does not fit what its tool
        declares. `found` hears what redactions find. `unpinned`: why a tool is not the one that was approved."""
        self._unpinned = unpinned
        self._asks_pins = unpinned is not no_pins
        self._settled: dict[tuple[str, frozenset[str], frozenset[str]], _Settled] = {}
        self._settings = settings
        self._hints = hints
        self._misfit = misfit
        self._found = found
        chosen = settings or PolicySettings()
        self._is_enforced = chosen.mode == "enforce"
        self._roles = Roles(chosen.roles)
        own = [self._tool(each, chosen) for each in chosen.tools]
        shared = [(each, self._tool(each, chosen)) for pack in packs for each in pack.tools]
        self._tools = [*own, *(tool for _, tool in shared)]
        self._globs = Globs([each.match for each in chosen.tools] + [each.match for each, _ in shared])
        self._own = len(own)
        self._hides = any(tool.hidden for tool in self._tools)
        self._default_class = chosen.default.tool_class
        self._trusts_hints = chosen.trust_annotations
        default = Rule(id="default", tool_class=chosen.default.tool_class, is_reported=not self._is_enforced)
        allowed = frozenset(chosen.default.allow)
        self._default = _Tool(
            default,
            _of_each_class(default),
            None,
            None,
            False,
            None,
            False,
            frozenset(),
            allowed,
            (),
            False,
            False,
            False,
        )
        self._methods: dict[str, list[_Method]] = {}
        for methods in (*(pack.methods for pack in packs), chosen.methods):
            for name, rule in methods.items():
                self._methods.setdefault(name, []).append(self._method(name, rule, chosen))
        others = _Method(default, frozenset(), allowed, ("*",), Globs(("*",)), (), False)
        self._others = self._methods.pop("*", []) or [others]

    @property
    def tells_callers_apart(self) -> bool:
        """Whether two callers may be told different things: a role stands in some rule."""
        roles = set[str]().union(
            *(rule.allow | rule.deny for rule in (*self._tools, self._default)),
            *(rule.allow | rule.deny for rules in (*self._methods.values(), self._others) for rule in rules),
        )
        return bool(roles - {EVERYBODY})

    def decide(self, call: Call, principal: Principal) -> Decision:
        """Which rule decides this call, and how."""
        if self._settings is None:
            return _EVERYTHING
        kind = call.kind
        if kind is not _REQUEST and kind is not _NOTIFICATION:
            return _ENVELOPE if kind is Kind.BATCH else _PROTOCOL
        if call.method == "tools/call":
            return self.decide_tool(call.target or "", principal, call)
        return self._decide_method(call, principal)

    def decide_tool(self, name: str, principal: Principal, call: Call | None = None) -> Decision:
        """Whether the principal may call the tool of this name so; without a call, whether at all."""
        key = (name, principal.roles, principal.scopes)
        settled = self._settled.get(key)
        if settled is None:
            settled = self._settle(name, principal)
            if len(name) <= LONGEST_KNOWN and len(principal.roles) + len(principal.scopes) <= MOST_NAMES:
                if len(self._settled) >= MOST_SETTLED:
                    self._settled.clear()
                self._settled[key] = settled
        decision, tool = settled.decision, settled.tool
        if call is not None and settled.by_class is not None:
            hints = self._hints(principal, name)
            decision = settled.by_class[class_of(self._default_class, hints, are_trusted=self._trusts_hints)]
        if isinstance(decision, Deny):
            return decision
        if self._asks_pins and (why := self._unpinned(principal, name)) is not None:
            return Deny(decision.rule, Reason.NOT_ALLOWED, why, is_reported=tool.is_reported)
        if call is None or not tool.looks:
            return decision
        return self._looked_into(tool, decision, call, principal)

    def _settle(self, name: str, principal: Principal) -> _Settled:
        """What the name, and the roles and scopes of the principal, decide."""
        fitting = self._globs.fitting(name)
        decides = next(iter(fitting), None)
        first = self._default if decides is None else self._tools[decides]
        recorded: Deny | None = None
        if not first.overrides_packs:
            for index in fitting:
                if index >= self._own and self._is_denied(self._tools[index].deny, principal):
                    denied = _no(self._tools[index])
                    if not denied.is_reported:
                        return _Settled(first, denied)
                    recorded = recorded or denied
        decision = self._judged(first, principal)
        if recorded is not None and isinstance(decision, Allow):
            # A rule that only records opens nothing that another one closes.
            decision = Allow(decision.rule, recorded)
        if decides is None and self._hides and isinstance(decision, Deny):
            # A name that nobody has ruled on may not exist: told apart from a hidden one, it would give that away.
            decision = Deny(decision.rule, Reason.NOT_VISIBLE, is_reported=decision.is_reported)
        passes = isinstance(decision, Allow) or decision.is_reported or not self._is_enforced
        if first.classes is None or not passes:
            return _Settled(first, decision)
        # Also of what is only recorded: it passes, and modes ask what it is.
        by_class = {each: structs.replace(decision, rule=rule) for each, rule in first.classes.items()}
        return _Settled(first, decision, by_class)

    def _looked_into(self, tool: _Tool, allowed: Allow, call: Call, principal: Principal) -> Decision:
        """Whether what the call says may be said, by somebody who may call."""
        wrong = None if tool.arguments is None else tool.arguments.check(call.arguments)
        if wrong is None and tool.validates:
            wrong = self._misfit(principal, call)
        if wrong is not None:
            return Deny(allowed.rule, Reason.ARGUMENT_INVALID, wrong, is_reported=tool.is_reported)
        if tool.condition is not None and not tool.condition.holds(call, principal):
            return Deny(allowed.rule, Reason.NOT_ALLOWED, _CONDITION, is_reported=tool.is_reported)
        return allowed

    def validates(self, name: str) -> bool:
        """Whether a rule may want the arguments of this tool checked against its schema."""
        return any(self._tools[index].validates for index in self._globs.fitting(name))

    @property
    def validates_any(self) -> bool:
        """Whether any rule wants arguments checked against schemas."""
        return any(tool.validates for tool in self._tools)

    @property
    def reinitialises_any(self) -> bool:
        """Whether any rule lets a lost session be begun anew."""
        return any(tool.rule.reinitialise for tool in self._tools)

    def redaction_of(self, call: Call, principal: Principal) -> Redaction | None:
        """What is searched for in the answer to a call."""
        if call.method != "tools/call":
            return None
        decides = next(iter(self._globs.fitting(call.target or "")), None)
        return None if decides is None else self._tools[decides].redaction

    @property
    def redactions(self) -> list[Redaction]:
        """All of them."""
        return [each.redaction for each in self._tools if each.redaction is not None]

    def may_use(self, method: str, target: str, principal: Principal) -> bool:
        """Whether a list may show the target: "tools/call" and a tool, "prompts/get" and a prompt, "resources/read"
        and a URI. What is only reported is shown, as it passes when it is called."""
        if self._settings is None or not self._is_enforced:
            return True
        decision = (
            self.decide_tool(target, principal)
            if method == "tools/call"
            else self._decide_target(method, target, principal)
        )
        if isinstance(decision, Deny):
            # What only lacks a scope is shown: whoever calls it is asked to step up.
            return decision.is_reported or decision.reason is Reason.SCOPE_MISSING
        return True

    def may_use_template(self, template: str, principal: Principal) -> bool:
        """Whether some URI of a resource template may be read, as far as its beginning tells."""
        if self._settings is None or not self._is_enforced:
            return True
        begins = template.partition("{")[0]
        for rule in self._for_method("resources/read"):
            if rule.is_reported or (
                not self._is_denied(rule.deny, principal)
                and self._is_allowed(rule.allow, principal)
                and any(_may_begin(each, begins) for each in rule.match)
            ):
                return True
        return False

    def __call__(self, call: Call, principal: Principal) -> Permit:
        """A permit for the call. Raises Refused."""
        decision = self.decide(call, principal)
        if isinstance(decision, Deny):
            if self._is_enforced and not decision.is_reported:
                call.journey.denied(decision.rule)
                raise Refused(decision.reason, decision.why, id=call.id, scopes=decision.scopes)
            call.journey.would_refuse(decision.rule, decision.reason)
        elif decision.would_refuse is not None:
            call.journey.would_refuse(decision.would_refuse.rule, decision.would_refuse.reason)
        return Permit(call=call, principal=principal, rule=decision.rule)

    def _judged(self, tool: _Tool, principal: Principal) -> Decision:
        if tool.hidden:
            return Deny(tool.rule, Reason.NOT_VISIBLE, is_reported=tool.is_reported)
        if self._is_denied(tool.deny, principal) or not self._is_allowed(tool.allow, principal):
            return _no(tool)
        return _with_scopes(tool, principal)

    def _decide_method(self, call: Call, principal: Principal) -> Decision:
        """Everything that a call names must be allowed. A rule that only records closes nothing, and opens nothing
        that another one closes."""
        method = call.method
        asked = [("resources/read", uri) for uri in _subscribed(call)]
        if method == "completion/complete" and (named := _completed(call)) is not None:
            asked.append(named)
        if method not in NECESSARY or method in self._methods:
            asked.append((method, call.target or ""))
        decision: Decision = _PROTOCOL
        recorded: Deny | None = None
        for each in asked:
            decision = self._decide_target(*each, principal)
            if isinstance(decision, Deny):
                if not decision.is_reported:
                    return decision
                recorded = recorded or decision
        return recorded or decision

    def _decide_target(self, method: str, target: str, principal: Principal) -> Decision:
        """Every rule that stands for a method must agree: those of packs and our own."""
        decision: Decision = _PROTOCOL
        recorded: Deny | None = None
        for rule in self._for_method(method):
            denied = self._is_denied(rule.deny, principal) or not self._is_allowed(rule.allow, principal)
            is_denied = denied or not _fits(rule, method, target)
            decision = _no(rule) if is_denied else _with_scopes(rule, principal)
            if isinstance(decision, Deny):
                if not decision.is_reported:
                    return decision
                recorded = recorded or decision
        return recorded or decision

    def _for_method(self, method: str) -> Sequence[_Method]:
        return self._methods.get(method) or self._others

    def _is_denied(self, roles: frozenset[str], principal: Principal) -> bool:
        return bool(roles) and (EVERYBODY in roles or not roles.isdisjoint(principal.roles))

    def _is_allowed(self, roles: frozenset[str], principal: Principal) -> bool:
        return EVERYBODY in roles or not roles.isdisjoint(self._roles.of(principal.roles))

    def _tool(self, settings: ToolRule, policy: PolicySettings) -> _Tool:
        tool_class = settings.tool_class or policy.default.tool_class
        allow = policy.default.allow if settings.allow is None else settings.allow
        reports = settings.report or policy.mode == "report"
        rule = Rule(
            id=settings.id or settings.match,
            tool_class=tool_class,
            approval=settings.approval,
            is_reported=reports,
            cost=settings.cost,
            instead=settings.instead,
            idempotent=settings.idempotent,
            timeout_s=settings.timeout_s,
            idempotency_key=settings.idempotency_key,
            hedge_after_s=settings.hedge_after_s,
            reinitialise=settings.reinitialise,
            keep=None if settings.cache is None else settings.cache.keep(),
            forget=settings.forget,
        )
        return _Tool(
            rule=rule,
            classes=None if settings.tool_class else _of_each_class(rule),
            arguments=Arguments(settings.arguments) if settings.arguments else None,
            condition=None if settings.when is None else Condition(settings.when),
            validates=settings.validate,
            redaction=Redaction(settings.redact, self._found, only_report=reports)
            if settings.redact
            else None,
            hidden=settings.hidden,
            deny=frozenset(settings.deny),
            allow=frozenset(allow),
            scopes=settings.scopes,
            is_reported=settings.report,
            overrides_packs=settings.overrides_packs,
            looks=bool(settings.arguments) or settings.when is not None or settings.validate,
        )

    def _method(self, name: str, settings: MethodRule, policy: PolicySettings) -> _Method:
        allow = policy.default.allow if settings.allow is None else settings.allow
        return _Method(
            rule=Rule(id=name, tool_class="read"),
            deny=frozenset(settings.deny),
            allow=frozenset(allow),
            match=settings.match,
            globs=Globs(settings.match),
            scopes=settings.scopes,
            is_reported=settings.report,
        )


def _of_each_class(rule: Rule) -> Mapping[ToolClass, Rule]:
    classes: tuple[ToolClass, ...] = ("read", "write", "dangerous")
    return {each: structs.replace(rule, tool_class=each) for each in classes}


def _no(rule: _Tool | _Method) -> Deny:
    return Deny(rule.rule, Reason.NOT_ALLOWED, is_reported=rule.is_reported)


def _fits(rule: _Method, method: str, target: str) -> bool:
    """Whether the target is one of the rule's. A URI that may mean another one is not told by how it begins."""
    if method.startswith("resources/") and _UNCERTAIN.search(target):
        return target in rule.match or "*" in rule.match
    return bool(rule.globs.fitting(target))


def _with_scopes(rule: _Tool | _Method, principal: Principal) -> Decision:
    if principal.scopes.issuperset(rule.scopes):
        return Allow(rule.rule)
    # All of them: clients of 2025-11-25 replace what they have by what the challenge names.
    why = "Ask the authorization server for the scopes named in the challenge."
    return Deny(rule.rule, Reason.SCOPE_MISSING, why, rule.scopes, rule.is_reported)


def _may_begin(glob: str, begins: str) -> bool:
    """Whether a text that begins so may fit the pattern. Rather yes than no: reading is judged again."""
    literal = glob.partition("*")[0].partition("?")[0]
    if not has_wildcard(glob):
        return glob.startswith(begins)
    return begins.startswith(literal) or literal.startswith(begins)


def _subscribed(call: Call) -> Iterable[str]:
    """URIs of the resources whose changes a call asks for."""
    if call.method == "resources/subscribe":
        uri = call.params.get("uri")
        return (uri,) if isinstance(uri, str) else ("",)
    if call.method != "subscriptions/listen":
        return ()
    return [uri for key, value in call.params.items() if key != "_meta" for uri in _named(key, value)]


def _named(key: str, value: object) -> Iterator[str]:
    """Every text counts as a URI, whatever its key: servers give filters names that we do not know. Only tasks have
    an owner who is asked instead. Servers in Go fold the case of keys."""
    if key.casefold() == "taskids":
        return
    if isinstance(value, Mapping):
        for inner, each in value.items():
            yield from _named(str(inner), each)
    elif isinstance(value, list):
        for each in value:
            yield from _named(key, each)
    elif not isinstance(value, bool) and value is not None:
        yield str(value)


def _completed(call: Call) -> tuple[str, str] | None:
    """What an argument is completed for: it tells about the prompt or resource that it names."""
    ref = call.params.get("ref")
    if not isinstance(ref, Mapping):
        return None
    if isinstance(ref.get("uri"), str):
        return "resources/read", str(ref["uri"])
    return "prompts/get", str(ref.get("name", ""))
