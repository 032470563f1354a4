"""Sentences of http-framing, http-path, http-encoding and http-slow."""

import json
import re

from tests.corpus.checks.common import (
    Check,
    Judge,
    Pattern,
    bytes_unchanged,
    header_lines,
    never_upstream,
    no_status,
    not_accepted,
    not_in_log,
    nothing_forwarded,
)
from tests.corpus.evidence import Evidence

WAITS_S = 1.0
"""An answer that does not wait for the body is there within this time; the body timeout is longer."""
SPARE_FDS = 8
BUFFERED_BYTES = 8 << 20
"""What may be read of an answer nobody takes: the kernel's send buffer (4 MB by default) and our own."""


def closes(e: Evidence) -> str | None:
    """After an error the connection is not used again."""
    return None if e.closed else f"the connection was still open after {e.held_s:.1f} s"


def answers_at_once(e: Evidence) -> str | None:
    """The announced length alone decides."""
    if e.first_answer_s is None:
        return "no answer"
    return f"answered after {e.first_answer_s:.2f} s" if e.first_answer_s > WAITS_S else None


def trailers_stay_trailers(e: Evidence) -> str | None:
    """No trailer field of the client is a header field upstream."""
    for request in e.upstream:
        for name, value in e.sent_trailers:
            if value in request.values(name.decode("latin-1")):
                return f"upstream received {name!r} as a header"
    return None


def no_trailers_forwarded(e: Evidence) -> str | None:
    """Trailers end at the sidecar."""
    for name, value in e.sent_trailers:
        if re.search(
            rb"(?i)\n%s[ \t]*:[ \t]*%s[ \t]*\r" % (re.escape(name), re.escape(value)), e.upstream_bytes
        ):
            return f"trailer {name!r} reached upstream"
    return "trailers reached upstream" if any(request.trailers for request in e.upstream) else None


def log_is_whole(e: Evidence) -> str | None:
    """Every log line is UTF-8, and JSON where it starts like JSON, without lone surrogates."""
    for line in e.log.splitlines():
        try:
            text = line.decode("utf-8")
            if text.startswith("{"):
                json.dumps(json.loads(text), ensure_ascii=False).encode("utf-8")
        except ValueError:
            return f"broken log line {line[:80]!r}"
    return None


def header_bytes_kept(e: Evidence) -> str | None:
    """Bytes above ASCII in a header value arrive as they were sent, or not at all."""
    for name, value in e.sent_fields:
        if value.isascii():
            continue
        for request in e.upstream:
            if any(seen != value for seen in request.values(name.decode("latin-1"))):
                return f"{name!r} was re-encoded"
    return None


def no_underscore_headers(e: Evidence) -> str | None:
    """A name that CGI-like servers would merge with another is not passed on."""
    names = sorted(name for request in e.upstream for name in header_lines(request) if b"_" in name)
    return f"upstream received {names}" if names else None


def underscores_are_not_dashes(e: Evidence) -> str | None:
    """X_Tenant does not become X-Tenant."""
    for name, value in e.sent_fields:
        dashed = name.replace(b"_", b"-").decode("latin-1")
        if b"_" in name and any(value in request.values(dashed) for request in e.upstream):
            return f"{name!r} was taken as {dashed}"
    return None


def connects_nowhere_else(e: Evidence) -> str | None:
    """A foreign authority is refused, not tried: a failed try would show as 502, 503 or 504."""
    if e.status in {502, 503, 504}:
        return f"answered {e.status}, as after an attempt to connect"
    return not_accepted(e)


def headers_not_echoed(e: Evidence) -> str | None:
    """No header line of the request stands in an answer's body, and the credential nowhere."""
    for name, value in e.sent_fields:
        if any(name + b": " + value in answer.body for answer in e.answers):
            return f"the answer holds the request's {name!r}"
        if name.lower() == b"authorization" and value in e.received:
            return "the answer holds the credential"
    return None


def upgrade_stays_here(e: Evidence) -> str | None:
    """Upgrade and HTTP2-Settings are hop-by-hop."""
    for request in e.upstream:
        if found := header_lines(request) & {b"upgrade", b"http2-settings"}:
            return f"upstream received {sorted(found)}"
        if any(b"upgrade" in value.lower() for value in request.values("connection")):
            return "upstream received Connection: upgrade"
    return None


def one_answer(e: Evidence) -> str | None:
    """What stood in a body was not taken as a further request."""
    if len(e.answers) > 1:
        return f"{len(e.answers)} answers: {[one.status for one in e.answers]}"
    return never_upstream(b"danger")(e)


def closed_or_drained(e: Evidence) -> str | None:
    """A body nobody read is not the start of the next request."""
    if not e.closed and len(e.answers) != 1:
        return f"the connection stayed open with {len(e.answers)} answers"
    return None


def own_headers_kept(e: Evidence) -> str | None:
    """What the sidecar adds cannot be removed by naming it in Connection."""
    for request in e.upstream:
        for name, value in e.credentials:
            if request.values(name) != (value.encode(),):
                return f"upstream received {name} {len(request.values(name))} times, or not as configured"
    return None


def called_at_most_once(e: Evidence) -> str | None:
    """One request, at most one call."""
    return f"upstream was called {len(e.calls)} times" if len(e.calls) > 1 else None


def no_call_counted(e: Evidence) -> str | None:
    """Neither executed nor recorded as executed."""
    if e.calls:
        return f"upstream executed {len(e.calls)} calls"
    return "the log records a call that went well" if re.search(rb'"outcome":\s*"ok"', e.log) else None


def no_event_stream(e: Evidence) -> str | None:
    """A client that takes JSON only gets no event stream."""
    for answer in e.answers:
        if any(value.startswith(b"text/event-stream") for value in answer.values("content-type")):
            return "answered with an event stream"
    return None


def not_executed(e: Evidence) -> str | None:
    """No call reached upstream, and none was answered."""
    if e.calls:
        return f"upstream was asked for {e.tools}"
    document = e.answers[0].json if e.answers else None
    result = document.get("result") if isinstance(document, dict) else None
    return "answered with a result" if isinstance(result, dict) and not result.get("isError") else None


def no_redirect(e: Evidence) -> str | None:
    """No 3xx at all: clients drop the body or the credential on one."""
    return f"answered {e.status}" if e.status is not None and 300 <= e.status < 400 else None


def token_not_recorded(e: Evidence) -> str | None:
    """A token in the query ends up in no record."""
    for value in re.findall(rb"access_token=([^&\s]+)", e.sent):
        if found := not_in_log(value, "the token", e) or not_in_log(
            value.split(b".")[-1], "the signature", e
        ):
            return found
    return None


def query_names_nobody(e: Evidence) -> str | None:
    """A tenant in the query is neither recorded as the caller's nor passed on as a header."""
    for value in re.findall(rb"[?&]tenant=([^&\s]+)", e.sent.split(b"\r\n", 1)[0]):
        if any(value in request.values("x-tenant") for request in e.upstream):
            return "upstream received the query's tenant as a header"
    return "the log shows tenant b" if re.search(rb'"tenant":\s*"b"', e.log) else None


def not_mislabelled(e: Evidence) -> str | None:
    """A body labelled gzip is gzip."""
    for request in e.upstream:
        if b"gzip" in request.values("content-encoding") and not request.body.startswith(b"\x1f\x8b"):
            return "upstream received a decoded body labelled gzip"
    return None


def judged_is_forwarded(e: Evidence) -> str | None:
    """Upstream parses what was judged: no coding is left on a body, and its length fits."""
    for request in e.upstream:
        if any(value.lower() != b"identity" for value in request.values("content-encoding")):
            return "upstream received a body with a content coding"
    return None


def no_encode_error(e: Evidence) -> str | None:
    """No 500 and no UnicodeEncodeError in any record."""
    return "UnicodeEncodeError in the log" if b"UnicodeEncodeError" in e.log else no_status(500)(e)


def no_truncated_name(e: Evidence) -> str | None:
    """A NUL does not end a name."""
    return "upstream was asked for echo" if "echo" in e.tools else nothing_forwarded(e)


def memory_bounded(megabytes: int) -> Judge:
    """A judge of the resident memory's growth."""

    def judge(e: Evidence) -> str | None:
        if e.rss_growth_bytes is None:
            return "memory was not measured"
        return f"grew by {e.rss_growth_bytes >> 20} MB" if e.rss_growth_bytes > megabytes << 20 else None

    return judge


def back_pressure(e: Evidence) -> str | None:
    """What the client does not read, the sidecar does not fetch."""
    if not e.calls:
        return "upstream was never asked"
    if e.upstream_read_bytes > BUFFERED_BYTES:
        return f"{e.upstream_read_bytes >> 20} MB were read"
    return None


def others_are_served(seconds: int) -> Judge:
    """A judge of the time a well-behaved client waited."""

    def judge(e: Evidence) -> str | None:
        if e.valid_client_s is None:
            return "the valid client got no answer"
        return f"the valid client waited {e.valid_client_s:.2f} s" if e.valid_client_s > seconds else None

    return judge


def no_fd_leak(e: Evidence) -> str | None:
    """File descriptors are back where they were."""
    if e.fds_growth is None:
        return "file descriptors were not counted"
    return f"{e.fds_growth} more file descriptors" if e.fds_growth > SPARE_FDS else None


def quiet_log(per_second: int) -> Judge:
    """A judge of the number of lines a storm leaves."""

    def judge(e: Evidence) -> str | None:
        if e.log_lines is None:
            return "log lines were not counted"
        allowed = per_second * max(1.0, e.storm_s)
        return f"{e.log_lines} lines in {e.storm_s:.1f} s" if e.log_lines > allowed else None

    return judge


def held(seconds: float) -> Judge:
    """A judge of how long a connection was held; `seconds` as in the corpus, scaled to our timeouts."""

    def judge(e: Evidence) -> str | None:
        scale = e.limits.head_timeout_s / e.limits.fixture_head_timeout_s
        if seconds >= e.limits.fixture_body_timeout_s:
            scale = e.limits.body_timeout_s / e.limits.fixture_body_timeout_s
        allowed_s = seconds * scale + e.limits.slack_s
        if not e.closed or e.held_s > allowed_s:
            end = "closed" if e.closed else "still open"
            return f"held for {e.held_s:.1f} s, {end}; allowed {allowed_s:.1f} s"
        return None

    return judge


def loop_turned(milliseconds: int) -> Judge:
    """A judge of the longest wait for /healthz.

    The wait holds the scheduler's share too, which on two busy cores is of the size of the bound: twice the
    bound is red, and the least of three tries counts.
    """

    def judge(e: Evidence) -> str | None:
        if e.loop_gap_s is None:
            return "the loop was not watched"
        return (
            f"{e.loop_gap_s * 1000:.0f} ms without a turn" if e.loop_gap_s > 2 * milliseconds / 1000 else None
        )

    return judge


TABLE: dict[str, Check] = {
    "proxy keeps the connection open after the error": Check(closes),
    "octal interpretation of the length": Check(not_accepted),
    "proxy waits for the body": Check(answers_at_once, True),
    "trailer fields merged into headers": Check(trailers_stay_trailers),
    "trailers forwarded": Check(no_trailers_forwarded),
    "second request bypasses policy: danger reaches upstream": Check(never_upstream(b"danger")),
    "surrogate reaches a JSON log line and breaks it": Check(log_is_whole),
    "bytes forwarded re-encoded": Check(header_bytes_kept),
    "underscore headers forwarded to upstream": Check(no_underscore_headers),
    "X_Tenant used as X-Tenant": Check(underscores_are_not_dashes),
    "first or last value silently chosen": Check(not_accepted),
    "proxy connects to evil.example": Check(connects_nowhere_else),
    "tunnel opened": Check(not_accepted),
    "request headers echoed": Check(headers_not_echoed),
    "Upgrade or HTTP2-Settings forwarded": Check(upgrade_stays_here),
    "bytes after the head tunnelled to upstream": Check(never_upstream(b"danger")),
    "second request skips policy": Check(never_upstream(b"danger")),
    "body bytes parsed as a request": Check(one_answer),
    "connection closed or body drained": Check(closed_or_drained),
    "policy headers added by the proxy removed": Check(own_headers_kept),
    "identity header missing at upstream": Check(own_headers_kept),
    "partial body forwarded": Check(nothing_forwarded),
    "call counted as executed": Check(no_call_counted),
    "non-idempotent call retried": Check(called_at_most_once),
    "body decoded with the declared charset by anyone": Check(not_accepted),
    "SSE sent to a client that did not accept it": Check(no_event_stream),
    "admin or health handler answers": Check(not_accepted),
    "upstream sees it": Check(nothing_forwarded),
    "policy skipped because raw path differs": Check(not_accepted),
    "307 redirect": Check(no_redirect),
    "route decided on one part, policy on another": Check(not_accepted),
    "token in access log, trace or metric": Check(token_not_recorded),
    "query used for identity": Check(query_names_nobody),
    "handled as /mcp": Check(not_accepted),
    "call executed": Check(not_executed),
    "decoded body forwarded with Content-Encoding: gzip": Check(not_mislabelled),
    "policy run on other bytes than upstream parses": Check(judged_is_forwarded),
    "accepted": Check(not_accepted),
    "replaced by U+FFFD and forwarded": Check(never_upstream("�".encode())),
    "500 or UnicodeEncodeError anywhere (log, cache key, hash)": Check(no_encode_error),
    "C-string truncation to echo": Check(no_truncated_name),
    "upstream read past the high-water mark": Check(back_pressure, True),
    "fd leak": Check(no_fd_leak, True),
    "bytes changed on the way": Check(bytes_unchanged),
}

PATTERNS: tuple[Pattern, ...] = (
    (re.compile(r'upstream receives "(.+)"'), lambda m: Check(never_upstream(m[1].encode()))),
    (re.compile(r'"(.+)" in any byte sent upstream'), lambda m: Check(never_upstream(m[1].encode()))),
    (re.compile(r"([1-5]\d\d)(?: answer| forwarded)?"), lambda m: Check(no_status(int(m[1])))),
    (re.compile(r"event loop blocked > (\d+) ms"), lambda m: Check(loop_turned(int(m[1])), True)),
    (
        re.compile(r"held (?:> |longer than the \w+ timeout \()(\d+) s\)?"),
        lambda m: Check(held(float(m[1])), True),
    ),
    (re.compile(r"proxy RSS \+(\d+) MB"), lambda m: Check(memory_bounded(int(m[1])), True)),
    (
        re.compile(r"a valid client gets no answer within (\d+) s"),
        lambda m: Check(others_are_served(int(m[1])), True),
    ),
    (re.compile(r"log line per reset above (\d+)/s"), lambda m: Check(quiet_log(int(m[1])), True)),
)
