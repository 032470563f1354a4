"""What became of one attempt, and may another one do better? Pure, but for the attempt itself.

In: a permit and the stage that serves it. Out: an `Outcome`, which `may_help` looks at. Keeps nothing.
"""

from __future__ import annotations

from typing import Final, TypeAlias, TypeVar

from ..model import Call, Ending, Permit, Reason, Refused, Reply, Stage
from .signals import Repeat, Signal, signal_of

Outcome: TypeAlias = Reply | Refused
_Outcome = TypeVar("_Outcome", Reply, Refused, Outcome)

NOT_NOW: Final = frozenset({Reason.BREAKER_OPEN, Reason.OVERLOADED, Reason.QUARANTINED})
"""What our own rooms say to an attempt."""
FAILS_FROM: Final = 429
"""What comes with an HTTP status below is final, and nothing else need be asked."""
_BROKE: Final = frozenset({Reason.UPSTREAM_BROKE, Reason.OUTCOME_UNKNOWN})


async def attempted(serve: Stage, permit: Permit) -> Outcome:
    """What becomes of it."""
    try:
        return await serve(permit)
    except Refused as refused:
        return refused


def may_help(call: Call, outcome: Outcome, repeat: Repeat) -> bool:
    """Whether an attempt failed so that another one is allowed, and might do better."""
    if isinstance(outcome, Refused):
        if outcome.reason is Reason.UPSTREAM_UNREACHABLE:
            return repeat is not Repeat.NEVER
        return repeat is Repeat.ALWAYS and outcome.reason in _BROKE
    if outcome.status < FAILS_FROM or repeat is not Repeat.ALWAYS or not isinstance(outcome.body, bytes):
        return False
    # A JSON-RPC error, -32603 too, is what the server had to say: it would say so again.
    return outcome.status == 429 or signal_of(call, outcome, counts_internal_errors=False) is Signal.BAD


def closed(outcome: _Outcome) -> _Outcome:
    """What can still be given back when an attempt has ended for everybody behind us."""
    if isinstance(outcome, Refused):
        return outcome
    outcome.done(Ending.COMPLETE)
    return Reply(outcome.status, outcome.headers, outcome.body)
