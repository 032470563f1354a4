"""What four observers saw becomes a violation exactly where a promise was broken."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.caller import CUT, DAMAGED, LEFT, RIGHT, UNENDED, WRONG, Told, read_answer
from tests.faults.lab import Report
from tests.faults.messages import answer_body, event
from tests.faults.observed import Expected, Ran, Seen, beyond_budget, violations
from tests.faults.rules import Struck

N = "0123456789abcdef"
OK = {"tool": f"do-{N}", "outcome": "ok", "ending": "complete"}
UNKNOWN = {"tool": f"do-{N}", "outcome": "outcome_unknown", "reason": "outcome_unknown"}
RESET = Struck(nonce=N, at_ns=1, does="reset", where="answer", place=10, of=200)


def seen(
    how: str, ran: int, *lines: dict[str, Any], struck: tuple[Struck, ...] = (), detail: str = ""
) -> Seen:
    told = Told(nonce=N, how=how, took_s=0.1, sent_ns=1, detail=detail)
    return Seen(told=[told], ran=[Ran(N, number, "ran") for number in range(ran)], struck=struck, lines=lines)


def kinds(of: Seen, *may: str, **expected: bool) -> set[str]:
    return {each.partition(":")[0] for each in violations(of, Expected(may=frozenset(may), **expected))}


@pytest.mark.parametrize(
    ("of", "may", "found"),
    [
        (seen(RIGHT, 1, OK), (), set()),
        (seen("outcome_unknown", 1, UNKNOWN, struck=(RESET,)), ("outcome_unknown",), set()),
        (seen("outcome_unknown", 0, UNKNOWN), ("outcome_unknown",), set()),
        (seen(LEFT, 0), (LEFT,), set()),
        (seen(RIGHT, 2, OK), (), {"ran more than once"}),
        (seen("outcome_unknown", 2, UNKNOWN), ("outcome_unknown",), {"ran more than once"}),
        (seen("outcome_unknown", 1, UNKNOWN), (), {"unexpected end (outcome_unknown)"}),
        (seen(LEFT, 1, OK), (), {"hang"}),
        (
            seen(RIGHT, 0, OK),
            (),
            {"answered although it never ran", "written down as success, and it never ran"},
        ),
        (
            seen(WRONG, 1, OK),
            (),
            {"wrong answer", "written down otherwise than told"},
        ),
        (
            seen("outcome_unknown", 1, OK, struck=(RESET,)),
            ("outcome_unknown",),
            {"written down as success, and its answer was broken off", "written down otherwise than told"},
        ),
        (
            seen("upstream_unreachable", 1, {**UNKNOWN, "reason": "upstream_unreachable"}),
            ("upstream_unreachable",),
            {"said that nothing was sent, and it ran"},
        ),
        (seen(RIGHT, 1), (), {"no line about a call"}),
        (seen(LEFT, 1), (LEFT,), {"no line about a call"}),
        (seen(RIGHT, 1, OK, OK), (), {"two lines about one call"}),
        (
            seen("deadline", 1, UNKNOWN),
            ("deadline",),
            {"written down for another reason than told"},
        ),
    ],
)
def test_a_broken_promise_is_found_and_a_kept_one_is_not(
    of: Seen, may: tuple[str, ...], found: set[str]
) -> None:
    assert kinds(of, *may) == found


def test_a_call_nobody_made_is_found() -> None:
    assert kinds(Seen(told=[], ran=[Ran(N, 1, "ran")], struck=[], lines=[])) == {
        "ran although nobody called it"
    }


def test_what_may_run_twice_may_run_twice() -> None:
    assert kinds(seen(RIGHT, 3, OK), is_idempotent=True) == set()


def head(body: bytes, kind: str = "application/json") -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


REFUSED = (
    b'{"jsonrpc":"2.0","id":7,"result":{"isError":true,"content":[],'
    b'"_meta":{"dev.mcp-sidecar/refusal":{"reason":"overloaded"}}}}'
)
PROXY_ERROR = (
    b'{"jsonrpc":"2.0","id":7,"error":{"code":503,"message":"",'
    b'"data":{"origin":"proxy","reason":"draining"}}}'
)
MINE = answer_body(7, N)
DAMAGED_ONE = MINE.replace(b"2.0", b"2.1")


@pytest.mark.parametrize(
    ("raw", "is_over", "how"),
    [
        (head(MINE), False, RIGHT),
        (head(MINE)[:-1], False, None),
        (head(MINE)[:-1], True, CUT),
        (b"", True, CUT),
        (head(answer_body(7, "f" * 16)), False, WRONG),
        (head(answer_body(8, N)), False, WRONG),
        (head(answer_body(6, N)), False, DAMAGED),
        (head(answer_body(12, N)), False, WRONG),
        (head(DAMAGED_ONE), False, DAMAGED),
        (head(b"{}"), False, WRONG),
        (head(REFUSED), False, "overloaded"),
        (head(PROXY_ERROR), False, "draining"),
        (b"HTTP/1.1 503 X\r\nContent-Length: 5\r\n\r\nlater", False, "http 503"),
        (head(event(MINE), "text/event-stream"), False, RIGHT),
        (head(event(b"") + event(MINE), "text/event-stream"), False, RIGHT),
        (head(event(MINE)[:-1], "text/event-stream"), False, UNENDED),
        (head(event(b'{"jsonrpc":"2.0","method":"x"}'), "text/event-stream"), False, WRONG),
    ],
)
def test_an_answer_is_what_its_bytes_say(raw: bytes, is_over: bool, how: str | None) -> None:
    """Id 6 for 7 is one bit, and damaged like any other; 8 for 7 are four, and another answer."""
    said = read_answer(N, 7, raw, is_over=is_over)
    assert (said and said[0]) == how


@pytest.mark.parametrize(
    ("report", "is_good"),
    [
        (Report(fault="", injected=1), True),
        (Report(fault="", injected=0), False),
        (Report(fault="", injected=1, broken=["something"]), False),
    ],
)
def test_a_fault_that_was_never_there_has_failed(report: Report, is_good: bool) -> None:
    assert report.is_good is is_good


def test_repeats_beyond_the_budget_are_found() -> None:
    """20 % and 10 a second in any ten seconds: 100 calls allow 120 repeats."""
    calls = [(f"{number}", number / 10) for number in range(100)]
    repeats = [(f"{number}", 9 + number / 1_000) for number in range(100)]
    assert beyond_budget([*calls, *repeats]) == []
    assert beyond_budget([*calls, *repeats, *((f"{number}", 9.5) for number in range(30))]) != []
