"""The decision: a pure function from call and principal to a rule, and the rule set without rules.

`decide` returns values, so that `explain` and report-only rules can ask without being refused; `authorise`
turns its answer into a permit.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from ..model import Call, Permit, Principal, Reason, Refused, Rule

EVERYTHING: Final = Rule(id="everything", tool_class="dangerous")
"""No policy section: every authenticated principal may do everything. Unknown tools count as dangerous, so that
nothing is cached or repeated on the strength of this rule."""


class Allow(Struct, frozen=True):
    rule: Rule


class Deny(Struct, frozen=True):
    rule: Rule
    reason: Reason
    why: str = ""


class Rules:
    """The rules in force."""

    def decide(self, call: Call, principal: Principal) -> Allow | Deny:
        """Which rule decides this call, and how."""
        return Allow(EVERYTHING)

    def __call__(self, call: Call, principal: Principal) -> Permit:
        """A permit for the call. Raises Refused."""
        decision = self.decide(call, principal)
        if isinstance(decision, Deny):
            raise Refused(decision.reason, decision.why)
        return Permit(call=call, principal=principal, rule=decision.rule)
