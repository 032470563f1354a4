"""Is this the moment? A stage that asks modes, approvals and the repetition guard about permitted calls.

In: a `Permit`. Out: the `Reply` of the next stage, or `Refused`. Keeps nothing; its machines do. It decides without
waiting, and only when nobody refuses is anything spent: a batch that is refused has used no release and counted
nowhere, and of two equal calls at once one uses the release.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

from ..model import Call, Kind, Permit, Principal, Reason, Reply, Rule, Stage
from . import approvals as approving
from . import repetition as repeating
from .approvals import Approvals, Challenge, Wanted, fingerprint, wanted
from .modes import Modes
from .repetition import Repetition

RuleOf: TypeAlias = Callable[[Call, Principal], Rule]
"""The rule that decides a message of a batch, whose permit names no rule for each."""
Asked: TypeAlias = Sequence[tuple[Call, Rule]]


_REQUEST: Final = Kind.REQUEST


def _untold(call: Call, challenge: Challenge) -> None:
    pass


class Guarded:
    """Fulfils `Stage`. What is None is off. A rule that only reports is recorded where it would have refused;
    what operators set at run time, and modes, hold for its tools too."""

    def __init__(
        self,
        serve: Stage,
        *,
        rule_of: RuleOf,
        modes: Modes | None = None,
        approvals: Approvals | None = None,
        repetition: Repetition | None = None,
        generation: str = "",
        used: Callable[[Call, Challenge], None] = _untold,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`generation` names the policy that makes the permits; `used` is told of each release a call spends."""
        self._serve = serve
        self._rule_of = rule_of
        self._modes = modes
        self._approvals = approvals
        self._repetition = repetition
        self._generation = generation
        self._used = used
        self._now = now

    def __call__(self, permit: Permit) -> Awaitable[Reply]:
        call, principal, rule = permit.call, permit.principal, permit.rule
        if call.parts:
            self._let_pass([(part, self._rule_of(part, principal)) for part in call.parts], principal)
        elif not self._is_quiet or rule.approval != "auto":
            self._let_pass([(call, rule)], principal)
        return self._serve(permit)

    @property
    def _is_quiet(self) -> bool:
        """Whether nothing is set, here or by operators, and only a rule could ask for something."""
        return (
            self._repetition is None
            and (self._modes is None or self._modes.is_normal)
            and (self._approvals is None or not self._approvals.has_overrides)
        )

    def _let_pass(self, asked: Asked, principal: Principal) -> None:
        """Raises Refused. No await in here: what is looked up is still true when it is spent."""
        now = self._now()
        if self._modes is not None:
            for call, rule in asked:
                refusal = self._modes.refusal(call, rule.tool_class, principal.tenant, now)
                if refusal is not None:
                    raise refusal
        gated = self._gated(asked, principal, now)
        challenges = self._released(gated, now, in_batch=len(asked) > 1) if gated else []
        repetition = self._repetition
        keys = [] if repetition is None else self._unrepeated(repetition, asked, principal, now)
        if challenges:
            self._spend(gated, challenges, now)
        if keys and repetition is not None:
            repetition.count(keys, now)

    def _gated(self, asked: Asked, principal: Principal, now: float) -> list[tuple[Call, Wanted]]:
        """Those a person decides about."""
        gated: list[tuple[Call, Wanted]] = []
        approvals = self._approvals
        if approvals is None:
            return gated
        for call, rule in asked:
            if call.method != "tools/call":
                continue
            override = approvals.override_of(principal.tenant, call.target or "", now)
            approval = rule.approval if override is None else override.approval
            if approval == "auto":
                continue
            if override is None and rule.is_reported:
                reason = Reason.NOT_ALLOWED if approval == "denied" else Reason.APPROVAL_REQUIRED
                call.journey.would_refuse(rule, reason)
                continue
            if approval == "denied":
                raise approving.denied()
            if call.kind is not _REQUEST:
                raise approving.unheard()
            gated.append((call, wanted(call, principal)))
        if len(gated) > 1 and len({each.digest for _, each in gated}) < len(gated):
            raise approving.twice()
        return gated

    def _released(
        self, gated: Sequence[tuple[Call, Wanted]], now: float, *, in_batch: bool
    ) -> list[Challenge]:
        """The releases that let these pass. All are asked for before one refuses, so that a person can decide
        about a whole batch at once."""
        assert self._approvals is not None
        challenges = [self._approvals.ask(each, self._generation, now) for _, each in gated]
        closed = [each for each in challenges if each.state != "released"]
        if closed:
            raise approving.required(closed, now, in_batch=in_batch)
        return challenges

    def _unrepeated(
        self, repetition: Repetition, asked: Asked, principal: Principal, now: float
    ) -> list[repeating.Key]:
        """What will be counted when it passes."""
        tools = [each for each in asked if each[0].method == "tools/call"]
        keys = [(principal.identity, fingerprint(call)) for call, _ in tools]
        enforced = [key for key, (_, rule) in zip(keys, tools, strict=True) if not rule.is_reported]
        wait_s = repetition.wait_s(enforced, now)
        if wait_s:
            raise repeating.refused(wait_s)
        for key, (call, rule) in zip(keys, tools, strict=True):
            if repetition.wait_s([key], now):
                call.journey.would_refuse(rule, Reason.RATE_LIMITED)
        return keys

    def _spend(
        self, gated: Sequence[tuple[Call, Wanted]], challenges: Sequence[Challenge], now: float
    ) -> None:
        assert self._approvals is not None
        spent = self._approvals.use([each.id for each in challenges], now)
        if spent is None:
            # Nothing waited in between, so this cannot be; the hall refuses what it does not expect.
            raise RuntimeError("a release was there and is not")
        for (call, _), challenge in zip(gated, spent, strict=True):
            call.journey.known_as(approval=challenge.id)
            self._used(call, challenge)
