"""Does the policy say what people think it says? Cases and a policy in; every wrong one as a difference. Pure.

A case names a caller, a call and what is expected. Judged is what the rules say, also where they only report:
a policy is tested before it is enforced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias

from msgspec import Meta, Struct, field

from ..configuration.mistakes import Unfit, shown
from ..configuration.values import fit
from ..model import Journey, Principal, Reason, Refused
from .asked import TOOL_CALL, asked
from .rules import Allow, Rules
from .settings import Role, Scope

Expected: TypeAlias = Literal["allow", "deny", "hidden", "step_up", "gated"]
_OTHERS: Final = {Reason.NOT_VISIBLE: "hidden", Reason.SCOPE_MISSING: "step_up"}
_PASSED: Final = {"auto": "allow", "gated": "gated", "denied": "deny"}
AS_EXPECTED: Final = 0
DIFFERS: Final = 1


def check_some(text: str) -> None:
    """Raise Unfit for a name that nobody has."""
    if not text.strip():
        raise Unfit("is blank", "nobody is called so", "write a name")


Text = Annotated[str, Meta(max_length=4_096), fit(check_some)]


class Caller(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who calls."""

    tenant: Text
    """The tenant that a credential would prove."""

    subject: Text
    """The name that it would prove."""

    roles: tuple[Role, ...] = ()
    """The roles that it names."""

    scopes: tuple[Scope, ...] = ()
    """The OAuth scopes that it has."""


class Case(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One call, and what should become of it."""

    caller: Caller = field(name="as")
    """Who calls."""

    call: Text | None = None
    """The tool that is called. Or `method`."""

    method: Text | None = None
    """A method that is no tool call."""

    target: Text | None = None
    """What the method names: the URI of a resource, the name of a prompt."""

    arguments: Mapping[str, Any] | None = None
    """Arguments of the tool or prompt."""

    params: Mapping[str, Any] | None = None
    """What else the params of a method hold."""

    expect: Expected
    """allow, deny, hidden (as if it did not exist), step_up (a scope is missing), or gated (a person decides)."""

    rule: Text | None = None
    """The id of the rule that should decide."""


def check_case(case: Case) -> None:
    """Raise Unfit unless the case names one thing that can be called."""
    if (case.call is None) == (case.method is None):
        raise Unfit("names no call, or two", "a tool or another method is judged", "write call or method")
    if case.call is not None and (case.target is not None or case.params is not None):
        raise Unfit("has a target beside call", "call names the tool itself", "remove target and params")
    if case.method == TOOL_CALL:
        raise Unfit("calls a tool by its method", "tools have a key of their own", "write call: NAME")


class Vectors(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of cases."""

    version: Literal[1] = 1
    """The format of the file."""

    config: Text
    """The settings that are tested: a path from this file."""

    set: tuple[Text, ...] = ()
    """Settings to override, as after --set: policy.packs=[destructive]."""

    cases: Annotated[
        tuple[Annotated[Case, Meta(extra={"fit": check_case})], ...],
        Meta(min_length=1),
    ]
    """What is expected."""


def differences(vectors: Vectors, rules: Rules, open_journey: Callable[[], Journey]) -> Iterator[list[str]]:
    """The lines about each case that is not as expected."""
    for index, case in enumerate(vectors.cases):
        got, rule = _judged(case, rules, open_journey())
        if got != case.expect or case.rule not in (None, rule):
            by = "" if case.rule is None else f", by {shown(case.rule)}"
            yield [
                f"cases[{index}]: {_about(case)}",
                f"  - {case.expect}{by}",
                f"  + {got}" + ("" if rule is None else f", by {shown(rule)}"),
            ]


def _judged(case: Case, rules: Rules, journey: Journey) -> tuple[str, str | None]:
    """What becomes of the call, and the rule that decides."""
    principal = Principal(
        issuer="vectors",
        subject=case.caller.subject,
        tenant=case.caller.tenant,
        roles=frozenset(case.caller.roles),
        scopes=frozenset(case.caller.scopes),
    )
    params = {
        **(case.params or {}),
        **({} if case.arguments is None else {"arguments": dict(case.arguments)}),
    }
    try:
        call = asked(case.method or TOOL_CALL, case.call or case.target, journey, params)
    except Refused as refused:
        return f"no call at all: {refused.why}", None
    except Unfit as unfit:
        return f"no call at all: {unfit}", None
    decision = rules.decide(call, principal)
    if isinstance(decision, Allow):
        return _PASSED[decision.rule.approval], decision.rule.id
    return _OTHERS.get(decision.reason, "deny"), decision.rule.id


def _about(case: Case) -> str:
    who = f"{shown(case.caller.tenant)}:{shown(case.caller.subject)}"
    roles = f" ({', '.join(map(shown, case.caller.roles))})" if case.caller.roles else ""
    what = f"{case.method or TOOL_CALL} {case.call or case.target or ''}".rstrip()
    return f"{who}{roles} {shown(what, 200)}"
