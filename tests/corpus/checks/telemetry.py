"""Sentences of telemetry: what no sink may hold, whatever it is. `Evidence.sinks` are those there are."""

import json
import re
from base64 import b64encode
from collections.abc import Iterator
from datetime import datetime, timedelta
from hashlib import sha256
from itertools import pairwise
from typing import Any
from urllib.parse import quote

from tests.corpus.checks.common import Check, Judge
from tests.corpus.evidence import Claimed, Evidence

_SHORTEST = 8
"""Bytes that are no coincidence."""
_MARKER = re.compile(rb"MARKER_SECRET_\d")
_PASSWORD = re.compile(rb"\w+://[^\s/@\"]*:(?!\[redacted\]@)[^\s/@\"]+@")
_FORMATTED = (b"(null)", b"<class ", b"builtins.object", b"__mro__")
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SPLITS = re.compile("[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")

_CONTEXT = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context 3.2.2."""
_BACK = timedelta(seconds=-5)
"""Half of what the clock was put back."""
_HASHED = re.compile(rb'(.*),"hash":"([0-9a-f]{64})"}', re.DOTALL)

FORCED = "client can force 100 % sampling"
DISORDERED = "records without monotonic sequence"


def sinks(e: Evidence) -> Iterator[tuple[str, bytes]]:
    """Each, and what it holds because of the case: answers too, where the sidecar itself has made them."""
    yield "log of the case", e.log
    if e.reason is not None:
        yield "error body", e.received
    yield from e.sinks.items()


def told(judge: Judge) -> Check:
    """The same judge, once it is certain that there was something to look through."""

    def judged(e: Evidence) -> str | None:
        if not any(line.get("request_id") for line in e.log_entries):
            return "no line was written about the case"
        return judge(e) if e.sinks else "no sink was looked through"

    return Check(judged)


def found(e: Evidence, *words: bytes) -> str | None:
    """Where one of these stands, in any form."""
    for word in words:
        for form in forms(word):
            for name, said in sinks(e):
                if form in said:
                    return f"{word[:4]!r}… is in the {name}"
    return None


def forms(word: bytes) -> set[bytes]:
    """As it is, and as URLs and Basic have it."""
    basic = {b64encode(b"x" * before + word)[4:-4] for before in range(3)}
    quoted = {quote(word, safe=safe).encode() for safe in ("", "/")}
    return {form for form in {word, *basic, *quoted} if len(form) >= _SHORTEST}


def no_controls(e: Evidence) -> str | None:
    """Nothing in a sink that a terminal obeys."""
    for name, said in sinks(e):
        text = said.decode("utf-8", "replace").replace("\r\n", "\n")
        if match := _CONTROLS.search(text):
            return f"{match[0]!r} is in the {name}"
    return None


def no_line_is_split(e: Evidence) -> str | None:
    """Nothing but a newline ends a line, and each line of the log that begins as JSON is whole."""
    for name, said in sinks(e):
        if match := _SPLITS.search(said.decode("utf-8", "replace")):
            return f"{match[0]!r} is in the {name}"
    lines = [line for line in e.log.split(b"\n") if line.startswith(b"{")]
    return None if len(lines) == len(e.log_entries) else "a line of the log is none"


def not_expanded(e: Evidence) -> str | None:
    """What was sent is nowhere looked up: it is passed on as it was, and written down by nobody."""
    return _stays_as_it_is(e, b"jndi", b"ldap:")


def not_formatted(e: Evidence) -> str | None:
    """What was sent is nowhere taken for a format."""
    return _stays_as_it_is(e, *_FORMATTED)


def _stays_as_it_is(e: Evidence, *words: bytes) -> str | None:
    agent = e.sent_value("user-agent")
    if not e.upstream or any(request.values("user-agent") != (agent,) for request in e.upstream):
        return "upstream did not receive it as it was"
    if e.trapped:
        return f"fetched: {list(e.trapped)}"
    for name, said in sinks(e):
        if word := next((word for word in words if word in said), None):
            return f"{word!r} is in the {name}"
    return None


def no_credential(e: Evidence) -> str | None:
    """Neither those of the caller, nor those of the sidecar."""
    cookie = e.sent_value("cookie").rpartition(b"=")[2]
    if not cookie or not e.secrets:
        return "no credential was sent"
    return found(e, cookie, *e.secrets)


def no_argument(e: Evidence) -> str | None:
    """No value of an argument, whatever it is called."""
    if not _MARKER.search(b"".join(call.body for call in e.calls)):
        return "no secret arrived upstream"
    return found(e, *_MARKER.findall(e.sent_body))


def no_result(e: Evidence) -> str | None:
    """Nothing of what the server answered."""
    secrets = _MARKER.findall(e.received)
    return found(e, *secrets) if secrets else "no secret was in the answer"


def no_password(e: Evidence) -> str | None:
    """Of no URL, in no words of any exception."""
    if not e.secrets:
        return "there was no password"
    for name, said in sinks(e):
        if b"Traceback" in said:
            return f"a traceback is in the {name}"
        if match := _PASSWORD.search(said):
            return f"a URL with a password is in the {name}: {match[0][:12]!r}…"
    return found(e, *e.secrets)


def not_forced(e: Evidence) -> str | None:
    """Of traces that callers began our share is recorded, and no more than the limit where ids were chosen for it."""
    if set(e.claims) != {"spread", "chosen"}:
        return "nobody said that traces are recorded"
    spread, chosen = e.claims["spread"], e.claims["chosen"]
    if not spread.inside or not spread.outside:
        return "the ids were not spread"
    if len(chosen.inside) <= chosen.most or chosen.outside:
        return "too few ids were chosen in our share"
    for name, each in e.claims.items():
        if said := _recorded_by_us(each):
            return f"{name}: {said}"
    if missing := spread.inside - spread.recorded:
        return f"{len(missing)} of our share are not recorded: which it is was not seen"
    if len(chosen.recorded) > chosen.most:
        return (
            f"{len(chosen.recorded)} of {len(chosen.inside)} chosen ids are recorded, not {chosen.most:.0f}"
        )
    return None if chosen.recorded else "none of the chosen ids is recorded: they were not in our share"


def _recorded_by_us(claimed: Claimed) -> str | None:
    if odd := claimed.recorded & claimed.outside:
        return f"{len(odd)} outside our share are recorded"
    if odd := claimed.told ^ claimed.recorded:
        return f"of {len(odd)} the server was told otherwise than they are"
    return None


def no_garbage_forwarded(e: Evidence) -> str | None:
    """What is no context is no error either: the server gets one of ours, and the state without one goes nowhere."""
    parent, state = e.sent_value("traceparent"), e.sent_value("tracestate")
    if not parent or _CONTEXT.fullmatch(parent) or len(state) < 8_000:
        return "no garbage was sent"
    if e.status is None or e.status >= 500:
        return f"answered {e.status}"
    for request in e.upstream:
        parents = request.values("traceparent")
        if len(parents) != 1 or not _CONTEXT.fullmatch(parents[0]):
            return f"upstream received {parents!r} as traceparent"
        if any(request.values("tracestate")):
            return "upstream received a tracestate"
    piece = state[-64:]
    if piece in e.upstream_bytes:
        return "upstream received the state elsewhere"
    return found(e, piece)


def in_sequence(e: Evidence) -> str | None:
    """Numbers without a gap, each record with the hash of the one before, although time went back before the case."""
    lines = e.sinks.get("audit file", b"").splitlines()
    try:
        records = [json.loads(line) for line in lines]
    except ValueError:
        return "a line of the audit file is no record"
    if [record.get("seq") for record in records] != list(range(1, len(records) + 1)):
        return f"numbers of records: {[record.get('seq') for record in records][:20]}"
    if len({record.get("chain") for record in records}) != 1:
        return "the records are of several chains"
    before = "0" * 64
    for line, record in zip(lines, records, strict=True):
        match = _HASHED.fullmatch(line)
        if record.get("prev") != before or match is None or sha256(match[1]).hexdigest() != record["hash"]:
            return f"record {record['seq']} does not follow the one before"
        before = record["hash"]
    if e.verified != 0:
        return f"`audit verify` says {e.verified}"
    return _of_the_case_after_time_went_back(e, records)


def _of_the_case_after_time_went_back(e: Evidence, records: list[dict[str, Any]]) -> str | None:
    times = [datetime.fromisoformat(record["time"]) for record in records]
    back = [at for at, (first, second) in enumerate(pairwise(times), 1) if second - first < _BACK]
    if not back:
        return "time did not go back"
    ids = {line["request_id"] for line in e.log_entries if line.get("request_id")}
    places = [at for at, record in enumerate(records) if record.get("request_id") in ids]
    if not places:
        return "there is no record of the case"
    return None if min(places) >= back[-1] else "the case was recorded before time went back"


TABLE: dict[str, Check] = {
    "ESC in any log sink": told(no_controls),
    "line split in a log viewer": told(no_line_is_split),
    "expanded": told(not_expanded),
    "formatted": told(not_formatted),
    "any secret fixture string in logs, metrics, spans, audit, error bodies, /debug": told(no_credential),
    "MARKER_SECRET_* in any sink except the audit store that is set to keep arguments": told(no_argument),
    "MARKER_SECRET_3 in a sink": told(no_result),
    "URL with password or Redis DSN in a traceback": told(no_password),
    FORCED: told(not_forced),
    "500 or forwarded": told(no_garbage_forwarded),
    DISORDERED: told(in_sequence),
}
