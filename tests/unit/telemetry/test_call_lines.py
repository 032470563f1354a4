"""What comes again in the lines of calls is encoded once: it must say of each call what is so of this call."""

from __future__ import annotations

import itertools
from typing import Any

from proxy.model import Cached, Ending, Kind, Permit, Principal, Reason, Refused, Rule, Verdict
from proxy.protocol.revisions import BY_NAME
from proxy.telemetry.call_lines import LONGEST, MOST, CallLines
from proxy.telemetry.journey import Journeys, Observers, Record
from proxy.telemetry.redaction import Redactor
from tests.fakes import make_call

NOW = "2026-01-02T03:04:05.006+00:00"
ANN = Principal(issuer="https://login", subject="ann", tenant="acme")
RULE = Rule(id="search_*", tool_class="read")


def lines() -> CallLines:
    return CallLines(Redactor(list, lambda: 0))


def record(
    principal: Principal = ANN,
    tool: str | None = "search",
    rule: Rule = RULE,
    revision: str = "2025-11-25",
    **call: Any,
) -> Record:
    made = Journeys(Observers(), lambda: 2.000_25).open(2.0)
    made.request_id = "0a-1"
    asked = make_call(target=tool, revision=BY_NAME[revision], journey=made, **{"id": 1, **call})
    made.read(asked)
    made.identified(principal)
    made.permit = Permit(call=asked, principal=principal, rule=rule)
    made.duration_s = 0.000_25
    made.ending = Ending.COMPLETE
    return made


def said(by: CallLines, of: Record, outcome: str = "ok") -> bytes:
    return by.line(of, outcome, "info", NOW, 0)


def test_the_line_of_a_call_looks_like_this() -> None:
    """Whoever reads logs has patterns for them: byte for byte as the version before wrote it."""
    one = record()
    one.verdict, one.attempts = Verdict.OK, 1
    assert said(lines(), one) == (
        b'{"time":"2026-01-02T03:04:05.006+00:00","level":"info","msg":"tool call","request_id":"0a-1",'
        b'"tenant":"acme","principal":"ann","revision":"2025-11-25","kind":"request","method":"tools/call",'
        b'"tool":"search","class":"read","rule":"search_*","outcome":"ok","ending":"complete",'
        b'"duration_s":0.00025,"attempts":1}\n'
    )


def test_a_line_with_everything_in_it_looks_like_this() -> None:
    """The same of what only some have."""
    one = record()
    one.client_request_id, one.attempts, one.waited_s = "mine", 2, 0.5
    one.cache, one.args_hash, one.altered_by = Cached.MISS, "00ff", ["redirect"]
    one.reported = "other", Reason.MODE
    refused = Refused(Reason.UPSTREAM_BROKE, "It \u2028broke.")
    refused.__cause__ = KeyError("x")
    one.refusal, one.ending, one.duration_s = refused, Ending.UPSTREAM_BROKE, 0.000_001
    assert lines().line(one, "upstream_error", "error", NOW, 3) == (
        b'{"time":"2026-01-02T03:04:05.006+00:00","level":"error","msg":"tool call","request_id":"0a-1",'
        b'"client_request_id":"mine","tenant":"acme","principal":"ann","revision":"2025-11-25","kind":"request",'
        b'"method":"tools/call","tool":"search","class":"read","rule":"search_*","outcome":"upstream_error",'
        b'"reason":"upstream_broke","why":"It \\u2028broke.","error":"KeyError","ending":"upstream_broke",'
        b'"duration_s":1e-6,"attempts":2,"waited_s":0.5,"cache":"miss","args_hash":"00ff",'
        b'"would_refuse":{"rule":"other","reason":"mode"},"altered":["redirect"],"unsaid":3}\n'
    )


CALLS: list[dict[str, Any]] = [
    {},
    {"principal": Principal(issuer="https://login", subject="bob", tenant="acme")},
    {"principal": Principal(issuer="https://login", subject="ann", tenant="other")},
    {"principal": Principal(issuer="https://login", subject="acme", tenant="ann")},
    {"tool": "delete"},
    {"tool": None},
    {"tool": ""},
    {"rule": Rule(id="other", tool_class="read")},
    {"rule": Rule(id="search_*", tool_class="write")},
    {"revision": "2025-06-18"},
    {"kind": Kind.NOTIFICATION},
    {"method": "prompts/get"},
    {"method": "resources/read", "tool": "search"},
]


def test_what_is_remembered_is_what_is_so() -> None:
    """Own promise: no two calls share a part that differ in one of its fields, in whatever order they come."""
    anew = [said(lines(), record(**each)) for each in CALLS]
    assert len(set(anew)) == len(CALLS)
    for first, second in itertools.permutations(range(len(CALLS)), 2):
        made = lines()
        said(made, record(**CALLS[first]))
        assert said(made, record(**CALLS[second])) == anew[second]
        assert said(made, record(**CALLS[first])) == anew[first]


def test_names_that_nobody_has_twice_take_no_memory() -> None:
    """Own promise: every table that a client can grow is bounded, in number and in length."""
    made = lines()
    for number in range(MOST + 10):
        said(made, record(tool=f"tool-{number}"))
    assert 0 < len(made._asked) <= MOST
    before = len(made._asked)
    said(made, record(tool="t" * LONGEST))
    assert len(made._asked) == before
