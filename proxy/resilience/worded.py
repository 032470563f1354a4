"""Can a model read what the server answered? An HTTP error without a single byte becomes a refusal that says as much: a
stage around what becomes of a call in the end.

In: a `Permit`. Out: the `Reply` of the next stage; `Refused` (upstream_broke, or outcome_unknown where the call may
have happened), with the server's own status, for 429 and 500 to 599 with an empty body. Keeps nothing. Stands around
all attempts and the place they take: what counts failures, repeats and learns has seen the reply as it was.

What a client does by status alone passes as it came: a lost session (404), a method that is not there (405), a
challenge (401), whatever nobody waits for, and handshakes, by whose failure a client picks the revision it speaks.
Source: RFC 6585 section 4, RFC 9110 section 10.2.3 (Retry-After).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from ..model import Ending, Outcome, Permit, Reason, Refused, Reply, Stage
from ..refusals import FALLS_BACK
from .backoff import asked_s
from .signals import TAKES_NOTHING, may_have_run

WORDED: Final = "words for an empty error"
"""What a journey is told."""
LONGEST_TOLD_S: Final = 86_400.0
"""Of what a server asks for: nobody waits longer than a day for an answer, and what says so is a mistake."""
_MAY_BE_WORDLESS: Final = 429
"""The least HTTP status that gets words."""


class Worded:
    """Fulfils `Stage`."""

    def __init__(self, serve: Stage, *, wall: Callable[[], float]) -> None:
        """`wall` counts seconds from 1970."""
        self._serve = serve
        self._wall = wall

    async def __call__(self, permit: Permit) -> Reply:
        reply = await self._serve(permit)
        if reply.status < _MAY_BE_WORDLESS or not _is_wordless(permit, reply):
            return reply
        for each in permit.call.parts or (permit.call,):
            each.journey.altered(WORDED)
        reply.done(Ending.COMPLETE)
        raise _in_words(permit, reply, self._wall())


def _is_wordless(permit: Permit, reply: Reply) -> bool:
    if reply.status != _MAY_BE_WORDLESS and reply.status < 500:
        return False
    call = permit.call
    if call.revision.answers_elsewhere and call.journey.outcome_at_server is Outcome.ANSWERED:
        return False  # on its stream, before this
    return reply.body == b"" and call.wants_answer and call.method not in FALLS_BACK


def _in_words(permit: Permit, reply: Reply, wall: float) -> Refused:
    status = reply.status
    why = f"It answered with HTTP {status} and nothing else."
    if may_have_run(permit.call, permit.rule, status):
        # Not when to come back: whoever obeys would repeat it blindly.
        return Refused(Reason.OUTCOME_UNKNOWN, why, status=status)
    wait_s = asked_s(reply.headers.all("retry-after"), wall)
    if wait_s is not None:
        wait_s = min(wait_s, LONGEST_TOLD_S)
    if status in TAKES_NOTHING:
        why = f"{why} It takes no calls at the moment; this one can be repeated {_when(wait_s)}."
    return Refused(Reason.UPSTREAM_BROKE, why, status=status, retry_after_s=wait_s)


def _when(wait_s: float | None) -> str:
    if wait_s is None:
        return "after a while"
    return f"after {math.ceil(wait_s)} s" if wait_s > 0 else "at once"
