"""Sentences of auth: who is let in, what a refusal tells, and what becomes of a credential."""

import math
import re
import statistics

from tests.corpus.checks.common import Check, never_upstream, no_status, not_accepted, not_in_log
from tests.corpus.checks.http import WAITS_S, not_executed
from tests.corpus.checks.rpc import log_lines_intact
from tests.corpus.evidence import Evidence

TRIES_PER_LINE = 10
"""A log that has fewer lines than this share of the tries is bounded."""
UNSEEN_S = 20e-6
"""A difference of medians below this is not seen from outside: the machine alone makes more."""
_ALICES = frozenset({"caller", "alice"})
_SIGMA_OF_MEDIAN = 1.2533
_SIGMA_OF_DEVIATION = 1.4826


def challenged(e: Evidence) -> str | None:
    """One challenge, Bearer first, with the URL of the document that was configured."""
    found = e.answers[0].values("www-authenticate") if e.answers else ()
    if len(found) != 1 or not found[0].startswith(b"Bearer "):
        return f"challenged with {list(found)}"
    named = re.findall(rb'resource_metadata="([^"]*)"', found[0])
    return None if named == [e.resource_metadata.encode()] else f"resource_metadata is {named}"


def challenged_for_scope(e: Evidence) -> str | None:
    """The same, with error and scope: a client can go and get what it lacks."""
    if said := challenged(e):
        return said
    value = e.answers[0].values("www-authenticate")[0]
    if b'error="insufficient_scope"' not in value:
        return f"the challenge does not say insufficient_scope: {value!r}"
    return None if re.search(rb'scope="[^"]+"', value) else f"the challenge names no scope: {value!r}"


def host_decides_nothing(e: Evidence) -> str | None:
    """The Host header stands nowhere in the answer."""
    hosts = [value for name, value in e.sent_fields if name.lower() == b"host"]
    if not hosts:
        return "no Host was sent"
    if any(host in e.received for host in hosts):
        return "the answer holds the Host header"
    return None


def no_way_around(e: Evidence) -> str | None:
    """An exception while a credential is read refuses the call."""
    return no_status(500)(e) or not_accepted(e)


def trap_untouched(e: Evidence) -> str | None:
    """Nobody connected to where the token, or a redirect, pointed."""
    return f"fetched: {list(e.trapped)}" if e.trapped else None


def nobody_by_default(e: Evidence) -> str | None:
    """Not accepted, and no record says that somebody called."""
    if re.search(rb'"(?:tenant|principal)":', e.log):
        return "the log names a caller"
    return not_accepted(e)


def keys_kept(e: Evidence) -> str | None:
    """The token is still good after its issuer's keys could not be fetched."""
    return None if e.status == 200 and e.calls else f"answered {e.status}"


def nobody_waits(e: Evidence) -> str | None:
    """Neither the case's call nor another one waits for the provider."""
    if e.first_answer_s is None or e.first_answer_s > WAITS_S:
        return f"the call was answered after {e.first_answer_s}"
    if e.valid_client_s is None or e.valid_client_s > WAITS_S:
        return f"another call was answered after {e.valid_client_s}"
    return None


def new_key_known(e: Evidence) -> str | None:
    """After one refresh the new key counts."""
    return "the new key is not known" if e.status != 200 else None


def same_median(e: Evidence) -> str | None:
    """A nearly right key takes as long as a wrong one: medians within three sigma of their difference.

    A difference of a few microseconds is below what can be told from outside; it is not called one.
    """
    if not e.near_s or len(e.near_s) != len(e.far_s):
        return "nothing was measured"
    difference = abs(statistics.median(e.near_s) - statistics.median(e.far_s))
    sigma = math.hypot(_sigma_of_median(e.near_s), _sigma_of_median(e.far_s))
    if difference > max(3 * sigma, UNSEEN_S):
        return f"the medians differ by {difference * 1e6:.0f} us, three sigma are {3 * sigma * 1e6:.0f} us"
    return None


def _sigma_of_median(times_s: tuple[float, ...]) -> float:
    """Of the median of so many times, from their median deviation: outliers of a busy machine weigh nothing."""
    middle = statistics.median(times_s)
    deviation = statistics.median([abs(one - middle) for one in times_s])
    return _SIGMA_OF_MEDIAN * _SIGMA_OF_DEVIATION * deviation / math.sqrt(len(times_s))


def key_not_recorded(e: Evidence) -> str | None:
    """A key in the query ends up in no record."""
    keys = re.findall(rb"api_key=([^&\s]+)", e.sent)
    if not keys:
        return "no key was sent"
    parts = [part for key in keys for part in (key, key.rpartition(b".")[2])]
    return next((said for part in parts if (said := not_in_log(part, "the key", e))), None)


def spoofed_header_stays_here(e: Evidence) -> str | None:
    """A header that claims an identity is not passed on as it was sent, with no call."""
    for name, value in _spoofed(e):
        if any(value in request.values(name.decode("latin-1")) for request in (*e.upstream, *e.permitted)):
            return f"upstream received {name!r}"
    if not e.permitted:
        return "no call with the header arrived"
    return None if _spoofed(e) else "no header was spoofed"


def spoofed_header_means_nothing(e: Evidence) -> str | None:
    """The caller is whom the credential proves, and failures count for the address they came from."""
    if e.owners != _ALICES:
        return f"a session opened with the header belongs to {sorted(e.owners or ())}"
    if not e.burst or e.burst[-1] != 429:
        return f"new values of the header were listened to: {sorted(set(e.burst))}"
    names = [value for _, value in _spoofed(e)]
    if any(b'"%s"' % value in e.log for value in names):
        return "the log names the spoofed value"
    return None


def _spoofed(e: Evidence) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in e.sent_fields if name.lower().startswith(b"x-")]


def still_alice(e: Evidence) -> str | None:
    """Naming Authorization in Connection does not take the caller's identity away."""
    if e.status is not None and 200 <= e.status < 300 and e.owners != _ALICES:
        return f"a session opened so belongs to {sorted(e.owners or ())}"
    return None


def separator_is_no_boundary(e: Evidence) -> str | None:
    """Subject and tenant are two values: whoever's joined name would be the same is somebody else."""
    return None if e.owners == frozenset({"caller"}) else f"the session belongs to {sorted(e.owners or ())}"


def no_foreign_origin(e: Evidence) -> str | None:
    """No answer lets a foreign page read it."""
    origins = {value for name, value in e.sent_fields if name.lower() == b"origin"}
    for answer in e.answers:
        if any(value == b"*" or value in origins for value in answer.values("access-control-allow-origin")):
            return "a foreign origin is allowed"
    return None


def stays_here(which: int) -> Check:
    """A judge of one of the presented secrets: its call arrived, and it did not."""

    def judge(e: Evidence) -> str | None:
        if len(e.presented) <= which or not e.presented_calls:
            return "no call with it arrived"
        if e.presented[which] in e.presented_upstream:
            return "upstream received it"
        token = e.sent_value("authorization").rpartition(b" ")[2]
        return never_upstream(token)(e) if token else None

    return Check(judge)


def bounded_lines(e: Evidence) -> str | None:
    """A flood of guesses does not become a flood of lines."""
    if e.log_lines is None or not e.asked:
        return "log lines were not counted"
    return f"{e.log_lines} lines for {e.asked} tries" if e.log_lines > e.asked / TRIES_PER_LINE else None


TABLE: dict[str, Check] = {
    "WWW-Authenticate: Bearer resource_metadata=<configured URL>": Check(challenged),
    'WWW-Authenticate error="insufficient_scope" scope="..." resource_metadata': Check(challenged_for_scope),
    "resource_metadata built from the Host header": Check(host_decides_nothing),
    "exception path that lets the call through": Check(no_way_around),
    "raw kid in a log line": Check(log_lines_intact),
    "any fetch of the jku URL": Check(trap_untouched),
    "any fetch": Check(trap_untouched),
    "redirect followed": Check(trap_untouched),
    "falls into a default or shared tenant": Check(nobody_by_default),
    "default principal used": Check(nobody_by_default),
    "identity of the other token taken from a cache": Check(nobody_by_default),
    "accepted unverified": Check(not_accepted),
    "cached keys dropped": Check(keys_kept),
    "other requests wait": Check(nobody_waits, True),
    "TOK_HS_OCT accepted": Check(not_accepted),
    "TOK_ATTACKER accepted": Check(not_accepted),
    "401 for longer than one refresh": Check(new_key_known),
    "median differs from a fully wrong key by > 3 sigma over 20 000 tries": Check(same_median, True),
    "key in log": Check(key_not_recorded),
    "identity of one, limits of the other": Check(nobody_by_default),
    "header forwarded upstream": Check(spoofed_header_stays_here),
    "used for identity, limit key or IP rule": Check(spoofed_header_means_nothing),
    "call treated as anonymous": Check(still_alice),
    'key "a:b"+"c" equals "a"+"b:c"': Check(separator_is_no_boundary),
    "Access-Control-Allow-Origin: * or echo": Check(no_foreign_origin),
    "Authorization of the client seen upstream": stays_here(0),
    "API key seen upstream": stays_here(1),
    "Cookie seen upstream": stays_here(2),
    "empty list means allow all": Check(not_executed),
    "one audit line per try without limit": Check(bounded_lines),
}
