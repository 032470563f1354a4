"""Sentences of limits: nobody gets more than was said, nobody less, and nobody pays for others."""

from collections.abc import Iterable

from tests.corpus.allowances import ALLOWED, LOCAL, LOCAL_SHARE, OVERLAP, PER_TENANT, Moment
from tests.corpus.checks.common import Check, Judge
from tests.corpus.evidence import PASSED, Evidence, outcome

SPARE_S = 0.3
"""By which a busy machine may be late in seeing that a bucket has refilled."""
_NONE_LEFT = frozenset({"rate_limited", "quota_spent"})
_NOT_LET_IN = frozenset({"bad_credential", "scope_missing", "not_allowed"})
_FULL = frozenset({"overloaded"})
_LEFT_FULL = 10
"""Calls that LIM-004 leaves in the bucket."""
_LEFT_HEAVY = 49
"""Units that LIM-008 leaves in the quota."""


def granted(e: Evidence, name: str, passing: int, refused: frozenset[str] = _NONE_LEFT) -> str | None:
    """Of the requests of a crowd exactly so many passed, and others, at least one, were refused for these reasons."""
    found = e.crowds.get(name, ())
    passed = found.count(PASSED)
    if passed != passing:
        return f"{name}: {passed} of {len(found)} passed, expected {passing}"
    if len(found) == passed:
        return f"{name}: no more than {passed} were tried"
    odd = sorted(set(found) - refused - {PASSED})
    return f"{name}: others were answered with {odd}" if odd else None


def within_rate(name: str) -> Judge:
    """A judge of a burst: what was granted between any two moments, and that there was enough to refuse some of it."""

    def judge(e: Evidence) -> str | None:
        allowed = ALLOWED.get(e.case.id)
        if allowed is None or allowed.burst is None:
            return "runner: nobody said what this case allows"
        # Whoever was sent after one moment and answered before another was decided in between.
        for began, _ in e.granted_s:
            for _, ended in e.granted_s:
                inside = sum(began <= sent and answered <= ended for sent, answered in e.granted_s)
                most = allowed.burst + allowed.rate_per_s * (ended - began)
                if inside > most:
                    return f"{inside} were granted within {ended - began:.3f} s, allowed are {most:.2f}"
        if len(e.granted_s) < allowed.burst - 1:
            return f"only {len(e.granted_s)} were granted at all"
        return granted(e, name, len(e.granted_s))

    return judge


def ten_of_all(e: Evidence) -> str | None:
    """By one replica, and by two together."""
    return granted(e, "one replica", _LEFT_FULL) or granted(e, "two replicas", _LEFT_FULL)


def strangers_leave_nothing(e: Evidence) -> str | None:
    """Wherever something is counted the known caller has a bucket, and nobody else has come."""
    for place in ("memory", "store"):
        new = e.buckets.get(place, frozenset())
        known = {name for name in new if e.case.id.lower() in name}
        if not known:
            return f"{place}: not even a known caller has a bucket"
        if strangers := sorted(new - known):
            return f"{place}: {len(strangers)} buckets of strangers: {strangers[:3]}"
    return None


def all_or_nothing(e: Evidence) -> str | None:
    """After the refusal there is as much as before, of the quota that refused and of the rate that did not."""
    return granted(e, "left", _LEFT_HEAVY)


def quota_shrinks(e: Evidence) -> str | None:
    """The call has taken one unit, as did each of the others, whatever they said."""
    return granted(e, "again", _quota(e) - 1)


def places_come_back(e: Evidence) -> str | None:
    """No call that was cut off kept its place, neither from the others nor in the end."""
    cut = e.crowds.get("cut", ())
    if not cut or PASSED in cut:
        return f"{cut.count(PASSED)} of {len(cut)} calls were not cut off"
    if not _FULL.isdisjoint(cut):
        return f"{cut.count('overloaded')} of {len(cut)} calls found no place"
    return granted(e, "streams", PER_TENANT, _FULL)


def forged_addresses_mean_nothing(e: Evidence) -> str | None:
    """Calls count for the caller, and invalid credentials for the address that they really came from."""
    allowed = ALLOWED.get(e.case.id)
    if allowed is None or allowed.burst is None:
        return "runner: nobody said what this case allows"
    if said := granted(e, "forged", allowed.burst - 1):
        return said
    wrong = e.crowds.get("wrong keys", ())
    return None if wrong[-1:] == ("too_many_failures",) else f"wrong keys were listened to: {wrong[-1:]}"


def spellings_share(e: Evidence) -> str | None:
    """What passed by another spelling of its name the tenant lacks, and when it has nothing no spelling has."""
    taken = 1 if _passed(e) else 0
    return granted(e, "own name", _quota(e) - taken) or granted(
        e, "other spellings", 0, _NONE_LEFT | _NOT_LET_IN
    )


def says_when(e: Evidence) -> str | None:
    """Who comes back when told is served, and is not told to wait a second more than that."""
    wait_ms = e.refusal_facts.get("retryAfterMs")
    fields = e.answers[0].values("retry-after") if e.answers else ()
    if e.refilled_at is None or e.answered_at is None:
        return "it never passed again"
    true_s = e.refilled_at - e.answered_at
    if not isinstance(wait_ms, int) or abs(wait_ms / 1000 - true_s) > SPARE_S:
        return f"retryAfterMs is {wait_ms}, it passed after {true_s:.2f} s"
    if e.form != "http" and not fields:
        return None
    if len(fields) != 1 or not fields[0].isdigit():
        return f"Retry-After is {fields}"
    seconds = int(fields[0])
    if not true_s - SPARE_S <= seconds <= true_s + 1:
        return f"Retry-After is {seconds}, it passed after {true_s:.2f} s"
    return None


def flood_is_counted(e: Evidence) -> str | None:
    """Who sent it has nothing left for a call."""
    if not e.asked or not _passed(e):
        return f"there was no flood: {e.asked} messages, the first answered with {e.status}"
    return granted(e, "afterwards", 0, frozenset({"rate_limited"}))


def as_days_have(moments: Iterable[Moment]) -> Judge:
    """A judge of what was granted at each of some moments."""

    def judge(e: Evidence) -> str | None:
        return next((said for each in moments if (said := granted(e, each.at, each.granted))), None)

    return judge


def poison_refuses(e: Evidence) -> str | None:
    """A number that nobody wrote is no room for calls."""
    if _passed(e):
        return "the call was allowed"
    return granted(e, "again", 0, _NONE_LEFT | _FULL)


def has_its_share(e: Evidence) -> str | None:
    """The case's call and some more, as many as one replica may grant alone."""
    return granted(e, "again", int(_quota(e) * LOCAL_SHARE) - 1)


def _passed(e: Evidence) -> bool:
    return bool(e.answers) and outcome(e.answers[0]) == PASSED


def _quota(e: Evidence) -> int:
    allowed = ALLOWED.get(e.case.id)
    return 0 if allowed is None or allowed.quota is None else allowed.quota


TABLE: dict[str, Check] = {
    "bucket or Redis key created before auth": Check(strangers_leave_nothing),
    "more than burst + rate*T in any window T": Check(within_rate("bursts")),
    "more or fewer than 10 answers 200": Check(ten_of_all),
    "sum over replicas above limit": Check(within_rate("two clocks")),
    "partial charge kept": Check(all_or_nothing),
    "quota grows": Check(quota_shrinks),
    "slot leak": Check(places_come_back),
    "limit per forged address": Check(forged_addresses_mean_nothing),
    "fresh quota for a variant of the same tenant": Check(spellings_share),
    "Retry-After within 1 s of the true refill": Check(says_when, True),
    "not counted": Check(flood_is_counted),
    "ping not counted": Check(flood_is_counted),
    "double quota in the overlap": Check(as_days_have(OVERLAP)),
    "reset in local time with DST": Check(as_days_have(LOCAL)),
    "int wrap or parse error allows": Check(poison_refuses),
    "no local fallback limit": Check(has_its_share),
}
