"""What is told of calls, and to whom? The `telemetry` section."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal, TypeAlias

from msgspec import Meta, Struct

from ..configuration.mistakes import Unfit
from ..configuration.moments import moment_of
from ..configuration.values import fit
from ..protocol.headers import HOP_BY_HOP, TOKEN
from ..secret import Secret
from .audit_settings import Audit
from .traces_settings import Traces

Level: TypeAlias = Literal["debug", "info", "warning", "error"]
Life: TypeAlias = Literal["auto", "json", "text"]

LONGEST_WINDOW: Final = timedelta(hours=24)
MOST_WINDOWS: Final = 16
SHORTEST_KEY_BYTES: Final = 16


def check_until(text: str) -> None:
    """Raise Unfit unless a debug window may end then: what is forgotten must end by itself, and soon."""
    if moment_of(text) > (datetime.now(UTC) + LONGEST_WINDOW).timestamp():
        raise Unfit("is too far away", "a debug window ends within 24 hours", "choose an earlier moment")


def check_id_header(name: str) -> None:
    """Raise Unfit unless requests and replies may carry an id in a header of this name."""
    if not TOKEN.fullmatch(name):
        raise Unfit("is no header name", "RFC 9110 allows letters, digits and !#$%&'*+-.^_`|~", "rename it")
    lower = name.lower()
    is_taken = lower.encode() in HOP_BY_HOP or lower.startswith(("mcp-", "content-", "access-control-"))
    if is_taken or lower in _TAKEN:
        raise Unfit("cannot hold an id", "this header has a meaning of its own", "choose X-Request-Id")


_TAKEN: Final = frozenset(
    (
        *("accept", "age", "allow", "authorization", "cache-control", "cookie", "date", "etag", "expect"),
        *("host", "last-event-id", "location", "origin", "proxy-authenticate", "retry-after", "server"),
        *("set-cookie", "traceparent", "tracestate", "vary", "www-authenticate", "x-api-key"),
    )
)


def check_hash_key(key: Secret) -> None:
    """Raise Unfit for a key that could be guessed."""
    if len(key.reveal().encode("utf-8", "surrogatepass")) < SHORTEST_KEY_BYTES:
        raise Unfit("is too short", f"at least {SHORTEST_KEY_BYTES} bytes are needed", "make a random one")


class DebugWindow(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Lines of level debug for the calls of one tenant, for a while."""

    tenant: Annotated[str, Meta(min_length=1, max_length=256)]
    """Whose calls."""

    until: Annotated[str, fit(check_until)]
    """When it ends by itself: a date-time with offset, at most 24 hours after it was read."""

    @property
    def until_s(self) -> float:
        """Seconds since 1970."""
        return moment_of(self.until)


class TelemetrySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happened: lines on standard error, one for each call, and records in a file."""

    log_level: Level = "info"
    """Lines below it are not written. Calls that end well, or are refused as they should be, are info; trouble with
    the server is a warning; what failed with an exception is an error."""
    metrics: bool = True
    """`/metrics` on the operations port. Off: nothing is counted, and the page is not there."""
    metrics_tenants: Annotated[int, Meta(ge=0, le=900)] = 100
    """So many tenants have labels of their own, those that come first; the others are `other`. 0: none has."""

    traces: Traces | None = None
    """Calls belong to traces, which are passed on and recorded. Absent: what callers say of traces passes untouched."""

    audit: Audit | None = None
    """Records of calls that may change something, in a file that shows whether anybody changed it. Absent: none."""

    life: Life = "auto"
    """How lines about the process look: `json`, `text` for people, or `auto`: text where standard error is a terminal.
    Lines about calls are always JSON."""

    args_hash: bool = False
    """Lines about tool calls carry a keyed hash of the arguments, by which equal ones are known. It takes 1 µs a call,
    and more for long arguments."""

    args_hash_key: Annotated[Secret, fit(check_hash_key)] | None = None
    """The key of that hash, where hashes of several processes are to be compared. Absent: each has a random one."""

    request_id_header: Annotated[str, fit(check_id_header)] | None = None
    """A header by which clients name their requests, and every reply ours or theirs: `X-Request-Id`. Absent: replies
    are those of the server, to the byte."""

    debug: Annotated[tuple[DebugWindow, ...], Meta(max_length=MOST_WINDOWS)] = ()
    """Whose calls are told in detail, and until when."""
