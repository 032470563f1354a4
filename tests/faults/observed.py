"""Four observers of the same calls, joined by nonce, and what must be true of what they saw. Pure.

In: what callers were told, what the server ran, what the faulter did, what the sidecar wrote down. Out: violations,
in words. Sources: design.md "A side effect happens once"; protocol.md 7.1 and 7.5.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from .caller import BEHIND, CUT, DAMAGED, GONE, LEFT, RIGHT, UNCONNECTED, UNENDED, WRONG, Told
from .rules import Struck, spoils
from .wired import DOUBTED_ANSWER, ERROR_STATUS_IS_OK

NOTHING_WAS_SENT: Final = frozenset(
    {
        "upstream_unreachable",
        "not_allowed",
        "overloaded",
        "breaker_open",
        "quarantined",
        "draining",
        "rate_limited",
        "quota_spent",
        "idp_unavailable",
        "bad_credential",
        "no_credential",
    }
)
"""Reasons that promise that the server never heard of it."""
NOT_TOLD: Final = frozenset({CUT, LEFT, GONE, UNCONNECTED})
"""How a caller may end without having heard anything of the call."""
BUDGET_WINDOW_S: Final = 10.0
BUDGET_RATIO: Final = 0.2
BUDGET_PER_S: Final = 10.0
BUDGET_SLACK: Final = 1.01
"""What is seen here is when an attempt arrives, some milliseconds after it was decided: windows end amid that."""
MOST_SHOWN: Final = 3
"""Examples of one kind of violation; there may be thousands."""


class Ran(Struct, frozen=True):
    """One line of the server."""

    nonce: str
    at_ns: int
    what: str


class Seen(Struct, frozen=True, kw_only=True):
    """What the four observers saw while one fault was there."""

    told: Sequence[Told]
    ran: Sequence[Ran]
    struck: Sequence[Struck]
    lines: Sequence[Mapping[str, Any]]
    """The sidecar's lines about messages."""


class Expected(Struct, frozen=True, kw_only=True):
    """What is right under a fault."""

    may: frozenset[str]
    """How calls may end, beside the right answer."""
    is_idempotent: bool = False
    """The calls may run more than once."""
    is_audited: bool = True
    """Each call that reached the sidecar has its line; not where the sidecar itself is killed."""


def violations(seen: Seen, expected: Expected) -> list[str]:
    """Every broken promise, with a few examples of each kind."""
    found: dict[str, list[str]] = defaultdict(list)
    ran = Counter(each.nonce for each in seen.ran if each.what == "ran")
    spoilt = {each.nonce for each in seen.struck if each.does and spoils(each)}
    lines: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for line in seen.lines:
        lines[nonce_of(line)].append(line)
    if not expected.is_idempotent:
        for nonce, times in ran.items():
            if nonce and times > 1:
                found["ran more than once"].append(f"{nonce}: {times} times")
    known = {told.nonce for told in seen.told}
    found["ran although nobody called it"] += [nonce for nonce in ran if nonce and nonce not in known]
    for told in seen.told:
        for what in _of_call(told, ran[told.nonce], expected):
            found[what].append(f"{told.nonce} {told.how} {told.detail}".strip())
        if expected.is_audited:
            mine, is_spoilt = lines.get(told.nonce, []), told.nonce in spoilt and not expected.is_idempotent
            for what in _of_lines(told, ran[told.nonce], is_spoilt, mine):
                found[what].append(f"{told.nonce} {told.how}: {[_gist(line) for line in mine]}")
    return [
        f"{what}: {len(examples)} times, such as {'; '.join(examples[:MOST_SHOWN])}"
        for what, examples in sorted(found.items())
        if examples
    ]


def _of_call(told: Told, ran: int, expected: Expected) -> Iterable[str]:
    how = told.how
    if how == WRONG:
        yield "wrong answer"
    elif how == LEFT and LEFT not in expected.may:
        yield "hang"
    elif how != RIGHT and how not in expected.may:
        yield f"unexpected end ({how})"
    if how in (RIGHT, DAMAGED) and not ran:
        yield "answered although it never ran"
    if how in NOTHING_WAS_SENT and ran:
        yield "said that nothing was sent, and it ran"


def _of_lines(told: Told, ran: int, is_spoilt: bool, lines: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    if len(lines) > 1:
        yield "two lines about one call"
    if not lines:
        if told.how not in NOT_TOLD or ran:
            yield "no line about a call"
        return
    outcome, reason = lines[0].get("outcome"), lines[0].get("reason")
    if ERROR_STATUS_IS_OK and told.how.startswith("http"):
        return
    if outcome == "ok" and not ran:
        yield "written down as success, and it never ran"
    if (
        outcome == "ok" and is_spoilt and told.how != RIGHT
    ):  # who has the right words has them from the server
        yield "written down as success, and its answer was broken off"
    if told.how not in NOT_TOLD:
        if DOUBTED_ANSWER and told.detail == BEHIND and outcome == "outcome_unknown":
            return
        if (outcome == "ok") != (told.how in (RIGHT, DAMAGED, UNENDED)):
            yield "written down otherwise than told"
        elif told.how not in (RIGHT, DAMAGED, WRONG) and reason is not None and reason != told.how:
            yield "written down for another reason than told"


def _gist(line: Mapping[str, Any]) -> str:
    return " ".join(str(line[key]) for key in ("outcome", "reason", "ending", "error") if key in line)


def nonce_of(line: Mapping[str, Any]) -> str:
    """The nonce of a call a line is about, or nothing."""
    return str(line.get("tool", "")).rpartition("-")[2]


def endings(told: Iterable[Told]) -> str:
    """How calls ended, most frequent first."""
    return ", ".join(f"{how} {count}" for how, count in Counter(each.how for each in told).most_common())


def beyond_budget(asked: Iterable[tuple[str, float]]) -> list[str]:
    """Windows in which more was repeated than 20 % and 10 a second; `asked` are nonces and seconds, of each request
    that came to the server's side."""
    seen: set[str] = set()
    firsts: list[float] = []
    repeats: list[float] = []
    for nonce, at_s in sorted(asked, key=lambda each: each[1]):
        (repeats if nonce in seen else firsts).append(at_s)
        seen.add(nonce)
    found = []
    for end_s in repeats:
        begin_s = end_s - BUDGET_WINDOW_S
        repeated = sum(begin_s < at <= end_s for at in repeats)
        allowed = BUDGET_RATIO * sum(begin_s < at <= end_s for at in firsts) + BUDGET_PER_S * BUDGET_WINDOW_S
        if repeated > allowed * BUDGET_SLACK + 1:
            found.append(f"{repeated} repeated within {BUDGET_WINDOW_S:g} s, {allowed:g} allowed")
    return found[:MOST_SHOWN]
