"""Made-up evidence for the sentences of checks/telemetry.py: what honours each, and ways to break it.

Read by test_checkers.py.
"""

import json
from base64 import b64encode
from typing import Any
from urllib.parse import quote

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


PAIRS: dict[str, tuple[Change, Change]] = {
    "ESC in any log sink": (sunk(b"\\u001b"), sunk(b"\x1b[2J")),
    "line split in a log viewer": (sunk(b"\\u2028\n"), sunk("a\u2028b".encode())),
    "expanded": (agent(ODD_AGENT), agent(ODD_AGENT, b"${jndi:ldap")),
    "formatted": (agent(FORMAT), agent(FORMAT, b"(<class 'str'>, <class 'object'>)")),
    ANY_SECRET: (cookie(b"[redacted]"), cookie(KEY)),
    ANY_ARGUMENT: (argument(), argument(b"MARKER_SECRET_1")),
    IN_RESULT: (result(), result(b"MARKER_SECRET_3")),
    IN_EXCEPTION: (password(b"redis://:[redacted]@h/0"), password(b"redis://:other@h/0")),
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
)
"""Further ways to break a sentence, one per branch of its checker."""
