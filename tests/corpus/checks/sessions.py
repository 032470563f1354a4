"""Sentences of sessions, and of what else belongs to one caller: streams, events, tasks, questions of the server."""

import re

from tests.corpus.checks.common import Check, header_lines, not_accepted, not_in_log, nothing_forwarded
from tests.corpus.checks.http import not_executed
from tests.corpus.evidence import Evidence
from tests.corpus.fake_server import EVENT, STATUS_OF_BOB
from tests.corpus.mint import EVENT_OF_BOB
from tests.corpus.wire import Message

SAMPLE_BYTES = 256
SESSION_BYTES = 4096
"""What one more session may cost, with all that hangs on it."""
_CHANGES = frozenset({b"date"})
"""Fields that differ between two answers to the same request."""


def looks_unknown(e: Evidence) -> str | None:
    """An id of somebody else is answered as one that nobody ever had: status, fields and body."""
    if e.reference is None:
        return "nothing was compared"
    mine, unknown = [_shape(one) for one in e.answers], [_shape(one) for one in e.reference]
    return None if mine == unknown else f"answered {mine}, an unknown id is answered {unknown}"


def _shape(answer: Message) -> tuple[bytes, list[tuple[bytes, bytes]], bytes]:
    fields = [(name.lower(), value) for name, value in answer.fields if name.lower() not in _CHANGES]
    return answer.start, sorted(fields), answer.body


def bob_not_heard(e: Evidence) -> str | None:
    """Nothing the server said to Bob is told to another."""
    return "a message for Bob was delivered" if EVENT_OF_BOB.encode() in e.received else nothing_forwarded(e)


def one_stream_only(e: Evidence) -> str | None:
    """What is replayed comes from the stream whose event was named."""
    stream = e.sent_value("last-event-id").rpartition(b"-")[0]
    if not stream:
        return "no event was named"
    others = set(re.findall(rb'"%s": ?"(\S+)' % EVENT.encode(), e.received)) - {stream}
    return f"events of {sorted(others)} were replayed" if others else None


def session_id_not_recorded(e: Evidence) -> str | None:
    """No long stretch of the id stands in a record."""
    named = e.sent_value("mcp-session-id")
    if len(named) <= SAMPLE_BYTES:
        return "no long id was sent"
    return not_in_log(named[:SAMPLE_BYTES], "the session id", e)


def bound_to_none(e: Evidence) -> str | None:
    """A request without a session stays without one."""
    found = [request for request in (*e.upstream, *e.permitted) if b"mcp-session-id" in header_lines(request)]
    return "upstream received a session id" if found else None


def permitted_without_session(e: Evidence) -> str | None:
    """The same, of a call that passes."""
    return bound_to_none(e) if e.permitted else "no call without a session arrived"


def ends_with_its_token(e: Evidence) -> str | None:
    """A stream ends with the token it was opened with, or little later."""
    if e.outlived_s is None or e.status != 200:
        return "no stream was watched"
    if e.outlived_s < 0:
        return "the stream ended before its token did"
    if e.outlived_s > e.limits.stream_grace_s + e.limits.slack_s:
        return f"the stream lived {e.outlived_s:.1f} s longer than its token"
    return None


def sessions_are_bounded(e: Evidence) -> str | None:
    """Sessions cost little, and the oldest are forgotten, unless a limit ends them first."""
    if e.rss_growth_bytes is None or e.is_first_forgotten is None or not e.asked:
        return "nothing was measured"
    if not e.is_first_forgotten and 429 not in e.repeats:
        return f"the first of {e.asked} sessions is still known"
    each = e.rss_growth_bytes / e.asked
    return f"each session cost {each:.0f} bytes" if each > SESSION_BYTES else None


def nothing_overheard(e: Evidence) -> str | None:
    """Bob's stream hears of nothing that Alice asked, and upstream neither."""
    if e.overheard:
        return f"Bob's stream received {e.overheard[:80]!r}"
    return nothing_forwarded(e)


def paid_once(e: Evidence) -> str | None:
    """In no round of a race the call ran twice, or ran with nobody told and no record."""
    if not e.rounds:
        return "nothing was raced"
    if any(each.executed > 1 for each in e.rounds):
        return f"executed {max(each.executed for each in e.rounds)} times"
    if any(each.status is None for each in e.rounds):
        return "a call was not answered"
    recorded = len(re.findall(rb'"tool":\s*"pay"', e.log))
    untold = sum(each.executed for each in e.rounds if each.status != 200)
    if untold and recorded < len(e.rounds):
        return f"{untold} calls ran with nobody told, {recorded} of {len(e.rounds)} are recorded"
    return None


def bobs_question_unanswered(e: Evidence) -> str | None:
    """What the server asked Bob is not answered by another."""
    return "an answer of Alice's reached upstream" if e.upstream else not_accepted(e)


def bobs_status_kept(e: Evidence) -> str | None:
    """The status of a task is told to its owner only."""
    return (
        "the status of Bob's task was told" if STATUS_OF_BOB.encode() in e.received else nothing_forwarded(e)
    )


TABLE: dict[str, Check] = {
    "another session used": Check(not_accepted),
    "session existence revealed by a different answer": Check(looks_unknown),
    "server messages for Bob delivered": Check(bob_not_heard),
    "messages of a different stream replayed": Check(one_stream_only),
    "logged in full": Check(session_id_not_recorded),
    "bound to the only live session": Check(permitted_without_session),
    "stream lives longer than the policy cap after expiry": Check(ends_with_its_token),
    "rights cached at initialize": Check(not_executed),
    "session table grows without limit": Check(sessions_are_bounded, True),
    "call runs in the SSE session of Bob": Check(nothing_overheard),
    "pay executed twice or answered to nobody without audit": Check(paid_once),
    "elicitation of Bob answered by Alice": Check(bobs_question_unanswered),
    "status of another principal returned": Check(bobs_status_kept),
    "delivered to another session": Check(bound_to_none),
}
