"""Every no, in one table: how a `Reason` looks on the wire.

In: `Refused` and the call it refuses (None where no call could be read). Out: a whole `Reply`, or the bytes of
one JSON-RPC message for a stream. Keeps nothing. Source: design decisions measured with real clients: any 4xx
or 5xx ends the whole session of Python 1.x clients, and JSON-RPC errors never reach the model, so our own no to
a tool call is a result with `isError`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from .model import Call, Headers, Kind, Reason, Refused, Reply

Form: TypeAlias = Literal["result", "http"]
"""How our own no reaches clients: as a result the model reads, or as an HTTP status."""

META_KEY: Final = "dev.mcp-sidecar/refusal"


class Row(Struct, frozen=True):
    """One line of the table."""

    status: int
    """HTTP status, where the refusal travels as one."""
    text: str
    """What a person or a model reads; the refusal's own `why` follows it."""
    code: int | None = None
    """JSON-RPC code; by default the status, which lies outside every reserved range."""
    at_http: bool = False
    """Always an HTTP status, in both forms, because the protocol says so."""
    plain: bool = False
    """In plain text: what was asked was not known to be JSON-RPC."""


ROWS: Final[Mapping[Reason, Row]] = {
    # The message itself is wrong: no revision leaves a choice.
    Reason.MALFORMED: Row(400, "The message was not understood.", -32600, at_http=True),
    Reason.HEADER_MISMATCH: Row(400, "Headers and body disagree.", -32020, at_http=True),
    Reason.VERSION_UNSUPPORTED: Row(400, "Unsupported protocol version.", -32022, at_http=True),
    # Who is calling?
    Reason.NO_CREDENTIAL: Row(401, "A credential is required.", at_http=True),
    Reason.BAD_CREDENTIAL: Row(401, "The credential is not valid.", at_http=True),
    Reason.SCOPE_MISSING: Row(403, "The credential lacks a scope.", at_http=True),
    Reason.IDP_UNAVAILABLE: Row(503, "The identity provider does not answer.", at_http=True),
    Reason.TOO_MANY_FAILURES: Row(
        429, "Too many credentials from this address were not valid.", at_http=True
    ),
    Reason.SESSION_UNKNOWN: Row(404, "No such session.", at_http=True),
    Reason.TASK_UNKNOWN: Row(404, "Unknown task.", -32602),
    # May they?
    Reason.NOT_ALLOWED: Row(403, "This call is not allowed."),
    Reason.NOT_VISIBLE: Row(404, "Unknown tool.", -32602),
    Reason.APPROVAL_REQUIRED: Row(403, "This call needs an approval."),
    Reason.ARGUMENT_INVALID: Row(403, "An argument is not allowed."),
    Reason.MODE: Row(403, "This kind of call is switched off at the moment."),
    # How much?
    Reason.RATE_LIMITED: Row(429, "Too many calls."),
    Reason.QUOTA_SPENT: Row(429, "The quota is spent."),
    Reason.OVERLOADED: Row(503, "The server is busy."),
    # Does it answer?
    Reason.BREAKER_OPEN: Row(503, "The server keeps failing and is left alone for a while."),
    Reason.QUARANTINED: Row(503, "This tool keeps failing and is left alone for a while."),
    Reason.UPSTREAM_UNREACHABLE: Row(502, "The server cannot be reached; nothing was sent to it."),
    Reason.UPSTREAM_BROKE: Row(502, "The server did not serve this request."),
    Reason.UPSTREAM_NONSENSE: Row(502, "The server's answer was not acceptable."),
    Reason.OUTCOME_UNKNOWN: Row(
        502,
        "The call may or may not have taken effect. Check before you repeat it; do not repeat it blindly.",
    ),
    Reason.DEADLINE: Row(504, "The server took too long."),
    Reason.DRAINING: Row(503, "The proxy is shutting down.", at_http=True),
    Reason.INTERNAL: Row(500, "The proxy failed."),
    Reason.AUDIT_UNAVAILABLE: Row(503, "What is done here has to be recorded, and cannot be at the moment."),
    # What HTTP itself says no to.
    Reason.ORIGIN_NOT_ALLOWED: Row(403, "This Origin is not allowed.", at_http=True),
    Reason.HOST_NOT_ALLOWED: Row(421, "This Host is not served here.", at_http=True),
    Reason.PATH_UNKNOWN: Row(404, "Nothing is served at this path.", at_http=True, plain=True),
    Reason.METHOD_NOT_ALLOWED: Row(405, "This HTTP method is not served here.", at_http=True, plain=True),
    Reason.MEDIA_TYPE: Row(415, "The body must be application/json in UTF-8.", at_http=True, plain=True),
    Reason.EXPECTATION_FAILED: Row(
        417, "Only `Expect: 100-continue` is understood.", at_http=True, plain=True
    ),
    Reason.TOO_LARGE: Row(413, "The request is too large.", at_http=True),
    Reason.TOO_SLOW: Row(408, "The request did not arrive in time.", 504, at_http=True),
}

_JSON: Final = (b"Content-Type", b"application/json")
_PLAIN: Final = (b"Content-Type", b"text/plain; charset=utf-8")
FALLS_BACK: Final = frozenset({"initialize", "server/discover"})
"""Requests whose failure decides which revision a client speaks for good: a plain 5xx, nothing it could read as
"this server is older"."""
_STANDS_FOR_OUTAGE: Final = frozenset({502, 503, 504, 500})


def explain(refused: Refused, call: Call | None, form: Form) -> Reply:
    """The answer to a refused request, in the form its kind, its revision and the settings ask for."""
    row = ROWS[refused.reason]
    status = refused.status or row.status
    if call is None or row.at_http or call.kind in (Kind.LISTEN, Kind.END):
        return _over_http(refused, status, refused.id if call is None else call.id)
    if call.kind is Kind.BATCH and call.wants_answer:
        # Each request of it waits for its own answer.
        words = [message(refused, each, form) for each in call.parts if each.wants_answer]
        body = b"[" + b",".join(words) + b"]"
        return Reply(status if form == "http" else 200, _fields(_JSON, refused), body)
    if not call.wants_answer:
        # Nobody waits for an answer. Taken and dropped for policy and quota: a 4xx ends the sessions of Python
        # 1.x clients. An outage is told, because what was lost may have been `notifications/initialized`.
        return _over_http(refused, status, None) if status in _STANDS_FOR_OUTAGE else Reply(202, Headers())
    if call.method in FALLS_BACK:
        failed = status if status in _STANDS_FOR_OUTAGE else 503
        return Reply(failed, _fields(_PLAIN, refused), _sentence(refused).encode())
    if form == "http":
        return _over_http(refused, status, call.id)
    return Reply(200, _fields(_JSON, refused), message(refused, call, form))


def message(refused: Refused, call: Call, form: Form = "result") -> bytes:
    """One JSON-RPC message that answers `call`: for a body, a batch or an event."""
    if call.method == "tools/call" and form == "result":
        result: dict[str, object] = {
            "content": [{"type": "text", "text": _sentence(refused)}],
            "isError": True,
            "_meta": {META_KEY: _facts(refused)},
        }
        if call.revision.has_result_type:
            result["resultType"] = "complete"
        return msgspec.json.encode({"jsonrpc": "2.0", "id": call.id, "result": result})
    return _error(refused, call.id)


def status_of(refused: Refused) -> int:
    return refused.status or ROWS[refused.reason].status


def is_at_http(refused: Refused) -> bool:
    """Whether this refusal is an HTTP status in both forms, and so refuses a whole request, batch or not."""
    return ROWS[refused.reason].at_http


def _over_http(refused: Refused, status: int, id: object) -> Reply:
    if ROWS[refused.reason].plain:
        return Reply(status, _fields(_PLAIN, refused), _sentence(refused).encode())
    return Reply(status, _fields(_JSON, refused), _error(refused, id))


def _error(refused: Refused, id: object) -> bytes:
    row = ROWS[refused.reason]
    code = refused.code if refused.code is not None else row.code
    return msgspec.json.encode(
        {
            "jsonrpc": "2.0",
            "id": id,
            "error": {
                "code": status_of(refused) if code is None else code,
                "message": _sentence(refused),
                "data": {"origin": "proxy", **_facts(refused)},
            },
        }
    )


def _facts(refused: Refused) -> dict[str, object]:
    facts: dict[str, object] = {"reason": refused.reason.value, **refused.data}
    if refused.retry_after_s is not None:
        facts["retryAfterMs"] = math.ceil(max(0.0, refused.retry_after_s * 1000))
    return facts


def _sentence(refused: Refused) -> str:
    text = ROWS[refused.reason].text
    return f"{text} {refused.why}" if refused.why else text


def _fields(content_type: tuple[bytes, bytes], refused: Refused) -> Headers:
    fields = [content_type, *refused.headers]
    if refused.retry_after_s is not None:
        # Whole seconds, rounded up: a client that obeys must not come back too early (RFC 9110, 10.2.3).
        fields.append((b"Retry-After", b"%d" % math.ceil(max(0.0, refused.retry_after_s))))
    return Headers(fields)
