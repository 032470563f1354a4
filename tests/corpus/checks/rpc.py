"""Sentences of json, json-rpc and header-mismatch."""

import re

from tests.corpus.checks.common import (
    Check,
    Judge,
    Pattern,
    bytes_unchanged,
    not_accepted,
    not_in_log,
    nothing_forwarded,
    sent_document,
)
from tests.corpus.evidence import Evidence
from tests.corpus.mint import EVENT_OF_BOB

SAMPLE_BYTES = 256
RETRIES = 3


def not_as_infinity(e: Evidence) -> str | None:
    """A number too large for a double is not turned into another value."""
    return "upstream received an infinity" if re.search(rb"(?i)\binf(inity)?\b", e.upstream_bytes) else None


def process_lives(e: Evidence) -> str | None:
    """The process is there and serves the next call."""
    if not e.alive:
        return "the process ended"
    return None if e.serves_after else "the next call got no answer"


def body_not_recorded(e: Evidence) -> str | None:
    """No stretch of a large body stands in a record."""
    middle = len(e.sent_body) // 2
    return not_in_log(e.sent_body[middle : middle + SAMPLE_BYTES], "the body", e)


def id_not_recorded(e: Evidence) -> str | None:
    """No stretch of a large id stands in a record."""
    document = sent_document(e)
    text = document.get("id") if isinstance(document, dict) else None
    return (
        not_in_log(str(text)[:SAMPLE_BYTES].encode(), "the id", e)
        if isinstance(text, str)
        else "no id was sent"
    )


def name_not_recorded(e: Evidence) -> str | None:
    """A long tool name makes no metric label."""
    if e.metrics is None:
        return "there are no metrics to look at"
    document = sent_document(e)
    name = str(document["params"]["name"]) if isinstance(document, dict) else ""
    return "the name is in the metrics" if name[:SAMPLE_BYTES].encode() in e.metrics else None


def inner_text_left_alone(e: Evidence) -> str | None:
    """JSON inside a string is text: forwarded as it is, and recorded as the outer call."""
    if re.search(rb'"(tool|target)":\s*"danger"', e.log):
        return "the log names the inner call"
    return bytes_unchanged(e)


def same_id(e: Evidence) -> str | None:
    """A result carries the request's id; an error carries it, or none where it could not be read."""
    document = sent_document(e)
    asked = document.get("id") if isinstance(document, dict) else None
    for answer in e.answers:
        got = answer.json
        if not isinstance(got, dict):
            return "an answer that is no JSON object"
        if "result" in got and (
            got.get("id") != asked or isinstance(got.get("id"), str) != isinstance(asked, str)
        ):
            return f"the result has id {got.get('id')!r}, asked was {asked!r}"
        if "error" in got and got.get("id") is not None and got.get("id") != asked:
            return f"the error has id {got.get('id')!r}, asked was {asked!r}"
    return None


def log_lines_intact(e: Evidence) -> str | None:
    """No ESC byte and no line that a client's newline made."""
    if b"\x1b" in e.log:
        return "ESC in the log"
    return "a line of the client's making" if re.search(rb"(?m)^\W*(\[31m)?FAKE", e.log) else None


def progress_stays_apart(e: Evidence) -> str | None:
    """Each of two callers with the same token sees its own progress only."""
    if e.twin_received is None:
        return "nobody asked beside her"
    if b"who=bob" in e.received or b"who=alice" in e.twin_received:
        return "progress of the other caller was delivered"
    if b"who=alice" not in e.received or b"who=bob" not in e.twin_received:
        return "a caller did not see its own progress"
    return None


def session_not_ended(e: Evidence) -> str | None:
    """No DELETE went upstream."""
    if any(request.method == "DELETE" for request in e.upstream):
        return "upstream received DELETE"
    return not_accepted(e)


def no_replay(e: Evidence) -> str | None:
    """No event of another caller comes back."""
    return "an event of Bob was delivered" if EVENT_OF_BOB.encode() in e.received else None


def no_denied_update(e: Evidence) -> str | None:
    """A listener hears nothing of a resource it may not read."""
    events = (line for line in e.received.splitlines() if line.startswith(b"data:"))
    if any(b"notifications/resources/updated" in event and b"file:///secret/" in event for event in events):
        return "an update of a denied resource was delivered"
    return None


def no_retry_loop(e: Evidence) -> str | None:
    """An error that invites a retry does not make the sidecar repeat itself."""
    return f"upstream was called {len(e.calls)} times" if len(e.calls) > RETRIES else None


def seen_upstream(name: str, value: str) -> Judge:
    """A judge that wants a header to arrive."""

    def judge(e: Evidence) -> str | None:
        if not e.upstream:
            return "upstream received nothing"
        if any(request.values(name) != (value.encode(),) for request in e.upstream):
            return f"upstream received {name} {[request.values(name) for request in e.upstream]}"
        return None

    return judge


TABLE: dict[str, Check] = {
    "danger reaches upstream, or the request is forwarded with both keys": Check(nothing_forwarded),
    "forwarded as Infinity": Check(not_as_infinity),
    "value changed": Check(bytes_unchanged),
    "worker crash": Check(process_lives),
    "copied into log or span": Check(body_not_recorded),
    "inner text parsed": Check(inner_text_left_alone),
    "policy compares raw bytes and misses it": Check(nothing_forwarded),
    "streaming parser stops early": Check(nothing_forwarded),
    "only the first N kB inspected": Check(nothing_forwarded),
    "forwarded as an unknown method with no policy": Check(nothing_forwarded),
    "answer carries another id than the request": Check(same_id),
    "id copied to a log or metric": Check(id_not_recorded),
    "raw bytes in a log line": Check(log_lines_intact),
    "reaches an upstream that trims, folds or normalises": Check(nothing_forwarded),
    "name used as a pattern": Check(not_accepted),
    "unanchored or prefix match": Check(nothing_forwarded),
    "metric label created": Check(name_not_recorded),
    "prefix rule bypassed": Check(nothing_forwarded),
    "progress of Bob shown to Alice": Check(progress_stays_apart),
    "policy on the undecoded header": Check(nothing_forwarded),
    "decoded to echo and allowed while the body names another tool": Check(nothing_forwarded),
    "headers trusted without validation": Check(nothing_forwarded),
    "session of Bob ended": Check(session_not_ended),
    "events of Bob replayed": Check(no_replay),
    "updates for denied resources delivered": Check(no_denied_update),
    "proxy retries in a loop": Check(no_retry_loop),
}

PATTERNS: tuple[Pattern, ...] = (
    (re.compile(r"upstream sees ([A-Za-z0-9-]+): (.+)"), lambda m: Check(seen_upstream(m[1], m[2]))),
)
