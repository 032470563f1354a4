"""Made-up evidence for the sentences of checks/telemetry.py: what honours each, and ways to break it.

Read by test_checkers.py.
"""

import json
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from typing import Any
from urllib.parse import quote

from tests.corpus.checks.telemetry import DISORDERED, FORCED
from tests.corpus.evidence import Claimed
from tests.corpus.made_up import CALL, answered, refusal, request, seen

Change = dict[str, Any]

LINE = b'{"msg":"tool call","request_id":"r-1"}\n'
KEY = b"key-of-alice-0123456789"
PASSWORD = b"p@ss/word:of-the-store"
MARKED = {**CALL, "params": {"name": "echo", "arguments": {"password": "MARKER_SECRET_1"}}}
ANY_SECRET = "any secret fixture string in logs, metrics, spans, audit, error bodies, /debug"
ANY_ARGUMENT = "MARKER_SECRET_* in any sink except the audit store that is set to keep arguments"
IN_RESULT = "MARKER_SECRET_3 in a sink"
IN_EXCEPTION = "URL with password or Redis DSN in a traceback"
ODD_AGENT = "${jndi:ldap://127.0.0.1:1389/a}"
FORMAT = "%s%n{0.__class__.__mro__}"


def sunk(said: bytes = b"", log: bytes = LINE, **more: Any) -> Change:
    """The change to Evidence: a line about the case, and this in another sink."""
    return {"log": log, "sinks": {"metrics": said}, **more}


def agent(text: str, said: bytes = b"", **more: Any) -> Change:
    """A User-Agent that arrived as it was sent."""
    sent = request(f"User-Agent: {text}")
    return sunk(said, **{"sent": sent, **seen(f"User-Agent: {text}"), **more})


def cookie(said: bytes = b"", **more: Any) -> Change:
    return sunk(said, **{"sent": request("Cookie: s=SECRET_COOKIE"), "secrets": (KEY,), **more})


def argument(said: bytes = b"", **more: Any) -> Change:
    return sunk(said, **{"sent": request(body=MARKED), **seen(body=MARKED), **more})


LEAKED = answered(200, {"jsonrpc": "2.0", "id": 1, "result": {"content": ["MARKER_SECRET_3"]}})
REFUSED = answered(403, refusal("not_allowed"))


def result(said: bytes = b"", **more: Any) -> Change:
    return sunk(said, **{**LEAKED, **more})


def password(said: bytes = b"", **more: Any) -> Change:
    return sunk(said, **{"secrets": (PASSWORD,), **more})


def repeated(secret: bytes) -> Change:
    """Our own words hold it."""
    body = {**refusal("not_allowed"), "why": secret.decode()}
    return answered(403, json.loads(json.dumps(body)))


IN, OUT = frozenset({"in-1", "in-2"}), frozenset({"out-1"})
CHOSEN = frozenset(map(str, range(90)))
FEW = frozenset(list(CHOSEN)[:31])


def claimed(spread: Change | None = None, chosen: Change | None = None, **more: Any) -> Change:
    """What became of calls that claimed to be recorded, with changes."""
    of_spread = {"inside": IN, "outside": OUT, "recorded": IN, "told": IN, "most": 31.0}
    of_chosen = {"inside": CHOSEN, "recorded": FEW, "told": FEW, "most": 40.0}
    claims = {
        "spread": Claimed(**{**of_spread, **(spread or {})}),
        "chosen": Claimed(**{**of_chosen, **(chosen or {})}),
    }
    return sunk(**{"claims": claims, **more})


ALL = {"recorded": CHOSEN, "told": CHOSEN}
NONE_RECORDED: Change = {"recorded": frozenset(), "told": frozenset()}
EVERY = {"recorded": IN | OUT, "told": IN | OUT}

OURS = "traceparent: 00-0123456789abcdef0123456789abcdef-0123456789abcdef-02"
STATE = "tracestate: a=" + "b" * 8_000
GARBAGE = request("traceparent: zz", STATE)


def garbage(*lines: str, said: bytes = b"", **more: Any) -> Change:
    """Garbage was sent, and upstream received these lines."""
    return sunk(said, **{"sent": GARBAGE, **answered(200), **seen(*lines or (OURS,)), **more})


SECONDS = (20, 21, 10, 11)
"""Of the records: the clock goes back before the third."""


def audited(
    seconds: Sequence[int] = SECONDS,
    *,
    numbers: Sequence[int] = (1, 2, 3, 4),
    of_case: int = 2,
    chains: str = "cccc",
    prev: str | None = None,
    tail: bytes = b"",
    **more: Any,
) -> Change:
    """An audit file of four records, one of which is of the case; `prev` stands in each but the first."""
    written, before = b"", "0" * 64
    for at, second in enumerate(seconds):
        record = {
            "seq": numbers[at],
            "chain": chains[at],
            "prev": prev if prev and at else before,
            "time": f"2026-11-22T01:00:{second}.000Z",
            "request_id": "r-1" if at == of_case else "r-0",
        }
        text = json.dumps(record).encode()[:-1]
        before = sha256(text).hexdigest()
        written += text + b',"hash":"' + before.encode() + b'"}\n'
    return {"log": LINE, "sinks": {"audit file": written + tail}, "verified": 0, **more}


def edited() -> Change:
    """A record that is not what its hash says."""
    good = audited()
    return {**good, "sinks": {"audit file": good["sinks"]["audit file"].replace(b"r-1", b"r-2")}}


PAIRS: dict[str, tuple[Change, Change]] = {
    "ESC in any log sink": (sunk(b"\\u001b"), sunk(b"\x1b[2J")),
    "line split in a log viewer": (sunk(b"\\u2028\n"), sunk("a\u2028b".encode())),
    "expanded": (agent(ODD_AGENT), agent(ODD_AGENT, b"${jndi:ldap")),
    "formatted": (agent(FORMAT), agent(FORMAT, b"(<class 'str'>, <class 'object'>)")),
    ANY_SECRET: (cookie(b"[redacted]"), cookie(KEY)),
    ANY_ARGUMENT: (argument(), argument(b"MARKER_SECRET_1")),
    IN_RESULT: (result(), result(b"MARKER_SECRET_3")),
    IN_EXCEPTION: (password(b"redis://:[redacted]@h/0"), password(b"redis://:other@h/0")),
    FORCED: (claimed(), claimed(chosen=ALL)),
    "500 or forwarded": (garbage(), garbage("traceparent: zz")),
    DISORDERED: (audited(), audited(numbers=(1, 2, 2, 3))),
}
"""Sentence → evidence that honours it, and evidence that breaks it."""

ALSO_RED: tuple[tuple[str, Change], ...] = (
    *((text, {**honoured, "log": b""}) for text, (honoured, _) in PAIRS.items()),
    *((text, {**honoured, "sinks": {}}) for text, (honoured, _) in PAIRS.items()),
    ("ESC in any log sink", sunk(log=LINE + "\x9b31m\n".encode())),
    ("ESC in any log sink", sunk(b"\x7f")),
    ("ESC in any log sink", sunk(b"\r")),
    ("line split in a log viewer", sunk(log=LINE + b'{"a":\n')),
    ("line split in a log viewer", sunk("\x85".encode())),
    ("expanded", agent(ODD_AGENT, upstream=())),
    ("expanded", {**agent(ODD_AGENT), **seen("User-Agent: expanded")}),
    ("expanded", agent(ODD_AGENT, trapped=("GET /a",))),
    ("formatted", {**agent(FORMAT), **seen("User-Agent: (null)")}),
    (ANY_SECRET, cookie(b"SECRET_COOKIE")),
    (ANY_SECRET, cookie(log=LINE + KEY)),
    (ANY_SECRET, cookie(**repeated(KEY))),
    (ANY_SECRET, cookie(b64encode(b"alice:" + KEY))),
    (ANY_SECRET, cookie(secrets=())),
    (ANY_SECRET, cookie(sent=request())),
    (ANY_ARGUMENT, argument(log=LINE + b"MARKER_SECRET_1")),
    (ANY_ARGUMENT, argument(**repeated(b"MARKER_SECRET_1"))),
    (ANY_ARGUMENT, argument(upstream=())),
    (IN_RESULT, result(log=LINE + b"MARKER_SECRET_3")),
    (IN_RESULT, result(**REFUSED)),
    (IN_EXCEPTION, password(quote(PASSWORD, safe="").encode())),
    (IN_EXCEPTION, password(b64encode(PASSWORD))),
    (IN_EXCEPTION, password(log=LINE + b"Traceback (most recent call last):\n")),
    (IN_EXCEPTION, password(secrets=())),
    (FORCED, claimed(EVERY)),
    (FORCED, claimed({"told": IN | OUT})),
    (FORCED, claimed({"told": frozenset()})),
    (FORCED, claimed(NONE_RECORDED)),
    (FORCED, claimed({"inside": IN | OUT, "outside": frozenset(), **EVERY})),
    (FORCED, claimed({"inside": frozenset(), **NONE_RECORDED})),
    (FORCED, claimed(chosen=NONE_RECORDED)),
    (FORCED, claimed(chosen={"most": 90.0})),
    (FORCED, claimed(chosen={"outside": OUT})),
    (FORCED, claimed(claims={})),
    ("500 or forwarded", garbage(**answered(500))),
    ("500 or forwarded", garbage(answers=())),
    ("500 or forwarded", garbage(OURS, OURS)),
    ("500 or forwarded", garbage("Accept: */*")),
    ("500 or forwarded", garbage(OURS.replace("0123456789abcdef", "0" * 16))),
    ("500 or forwarded", garbage(OURS, "tracestate: a=b")),
    ("500 or forwarded", garbage(OURS, STATE.replace("tracestate", "X-State"))),
    ("500 or forwarded", garbage(said=STATE.encode())),
    ("500 or forwarded", garbage(sent=request("traceparent: zz"))),
    ("500 or forwarded", garbage(sent=request(OURS, STATE))),
    (DISORDERED, audited(numbers=(1, 2, 4, 5))),
    (DISORDERED, audited(numbers=(1, 3, 2, 4))),
    (DISORDERED, audited(prev="0" * 64)),
    (DISORDERED, audited(chains="ccdd")),
    (DISORDERED, audited(tail=b'{"seq":')),
    (DISORDERED, edited()),
    (DISORDERED, audited((20, 21, 22, 23))),
    (DISORDERED, audited(of_case=1)),
    (DISORDERED, audited(of_case=9)),
    (DISORDERED, audited(verified=1)),
    (DISORDERED, audited(verified=None)),
)
"""Further ways to break a sentence, one per branch of its checker."""
