"""What must the first answer look like, in either form of refusing? Evidence → None or what was seen instead.

The corpus states `refusals: http`. In the default form the same refusal looks otherwise: what the protocol
itself wants at HTTP level stays, a refused `tools/call` becomes a result the model can read, a notification
is accepted and dropped, the two handshakes stay plain 5xx, everything else is 200 with an error.
"""

from tests.corpus.checks.common import nothing_forwarded, sent_document
from tests.corpus.checks.kept import is_new
from tests.corpus.checks.reloads import REFUSED_RELOAD, old_settings_stay
from tests.corpus.evidence import Evidence

AT_HTTP_LEVEL = frozenset(
    {
        *("malformed", "header_mismatch", "version_unsupported", "too_large", "too_slow"),
        *(
            "no_credential",
            "bad_credential",
            "scope_missing",
            "idp_unavailable",
            "session_unknown",
            "draining",
            "too_many_failures",
        ),
        *("origin_not_allowed", "host_not_allowed", "path_unknown", "method_not_allowed"),
        *("media_type", "expectation_failed"),
    }
)
"""Reasons whose refusal is the same in both forms: the protocol itself, or HTTP, says so."""
AS_RESULT = frozenset(
    {
        *("not_allowed", "not_visible", "approval_required", "argument_invalid", "mode"),
        *("rate_limited", "quota_spent", "overloaded", "breaker_open", "quarantined"),
        "task_unknown",
    }
)
"""Reasons of our own that the default form turns into something the client's session survives."""
OUTAGES = frozenset(
    {"upstream_unreachable", "upstream_broke", "upstream_nonsense", "outcome_unknown", "deadline", "internal"}
)
"""Reasons that are turned likewise, but that a notification is told: what was lost may matter."""
_HANDSHAKES = frozenset({"initialize", "server/discover"})


def was_refused(e: Evidence) -> bool:
    """The sidecar itself said no at HTTP level, so the second form has something to show."""
    return e.status is not None and e.status >= 400 and not e.upstream


def status(e: Evidence) -> str | None:
    """The first answer's status is among the allowed ones."""
    if e.case.expect.status and e.status not in e.case.expect.status:
        return f"expected {list(e.case.expect.status)}, got {e.status if e.answers else 'no answer'}{_why(e)}"
    return repetitions(e)


def repetitions(e: Evidence) -> str | None:
    """Every repetition of a `then` step was answered, with an allowed status."""
    odd = sorted({code for code in e.repeats if code not in e.case.expect.status})
    if odd or len(e.repeats) != e.asked:
        return f"{len(e.repeats)} of {e.asked} repetitions were answered, with {odd or 'allowed statuses'}"
    return None


def jsonrpc_error(e: Evidence) -> str | None:
    """The error's code is among the allowed ones; none is fine where None is allowed."""
    allowed = e.case.expect.jsonrpc_error
    if allowed is None:
        return None
    code = e.refusal.get("code") if e.refusal is not None else None
    if code not in allowed:
        return f"expected an error of {list(allowed)}, got {code}{_why(e)}"
    return None


def upstream_must_not_see(e: Evidence) -> str | None:
    """Not one byte of the case reached upstream."""
    return nothing_forwarded(e) if e.case.expect.upstream_must_not_see else None


def still_serves(e: Evidence) -> str | None:
    """Whatever the case was, the sidecar serves the next call. Asked of every case."""
    if not e.alive:
        return "the process ended"
    return None if e.serves_after else "the next call got no answer"


def no_false_alarm(e: Evidence) -> str | None:
    """Where nothing changed that means anything, the log says nothing of tools. Asked of every case."""
    if "(must not alarm)" not in e.case.title:
        return None
    alarms = [entry.get("tool") for entry in e.log_entries if "flags" in entry]
    return f"the log tells of {alarms}" if alarms else None


def counts_networks(e: Evidence) -> str | None:
    """Whoever has a whole network is one source, and its neighbour another. Asked of every case whose note says so."""
    if e.case.note != "limit per /64":
        return None
    rotated, beside = e.crowds.get("one network", ()), e.crowds.get("another network", ())
    if not rotated or rotated[0] != "bad_credential" or rotated[-1] != "too_many_failures":
        return (
            f"{len(rotated)} wrong keys, each from another address of a network: {rotated[:1] + rotated[-1:]}"
        )
    return None if beside == ("bad_credential",) else f"the network beside it was answered with {beside}"


def tells_no_wreck(e: Evidence) -> str | None:
    """Who asks after an answer that was none is answered by the server. Asked of every case whose title says so."""
    return is_new(e) if e.case.title.endswith("is not cached") else None


def keeps_its_settings(e: Evidence) -> str | None:
    """Whoever runs goes on by the settings of before. Asked of every case that says so, also where that waits."""
    return old_settings_stay(e) if REFUSED_RELOAD in e.case.texts() else None


def same_refusal(asked: Evidence, e: Evidence) -> str | None:
    """`e`, in the default form, refuses for the same reason as `asked` did in the form `http`."""
    if asked.reason is None or asked.reason in AT_HTTP_LEVEL:
        if e.status not in (asked.status, *asked.case.expect.status):
            return f"expected {asked.status} again, got {e.status}"
        return _same_reason(asked, e)
    if asked.reason not in AS_RESULT | OUTAGES:
        return f"runner: no mapping for the reason {asked.reason}"
    document = sent_document(asked)
    method = document.get("method") if isinstance(document, dict) else None
    if isinstance(document, dict) and "id" not in document:
        told = asked.reason in OUTAGES and e.status == asked.status
        return None if told or e.status == 202 else f"expected 202 for a notification, got {e.status}"
    if method in _HANDSHAKES:
        return None if e.status in {502, 503, 504} else f"expected 502, 503 or 504, got {e.status}"
    if e.status != 200:
        return f"expected 200, got {e.status}"
    answer = e.answers[0].json
    if not isinstance(answer, dict) or answer.get("id") != document.get("id"):
        return "the answer does not carry the request's id"
    if method == "tools/call":
        result = answer.get("result")
        if not isinstance(result, dict) or result.get("isError") is not True or not result.get("content"):
            return "expected a result with isError and a text"
    elif e.refusal is None:
        return "expected a JSON-RPC error"
    return _same_reason(asked, e)


def _same_reason(asked: Evidence, e: Evidence) -> str | None:
    if e.reason != asked.reason:
        return f"expected the reason {asked.reason}, got {e.reason}"
    return None


def _why(e: Evidence) -> str:
    return f" ({e.reason})" if e.reason else ""
