"""Which metrics are there, and what do they say? One table.

Names and labels are those of the design, without a prefix. A `row` is a label with many values (tools, rules, limits),
a `word` one with a closed set of them; `labels.py` bounds what they make together.
"""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

from ..model import Cached, Reason
from .journey import OUTCOMES

STATUSES: Final = (
    "ok",
    "tool_error",
    "rpc_error",
    "denied",
    "unauthenticated",
    "rate_limited",
    "overloaded",
    "invalid",
    "timeout",
    "circuit_open",
    "upstream_error",
    "outcome_unknown",
    "cancelled",
)
"""What becomes of a message: `Record.outcome`."""

BOUNDS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Of the buckets of latencies; one more is beyond the last. Tools answer in milliseconds or think for a minute."""

Kind = Literal["counter", "gauge", "histogram"]


class Family(Struct, frozen=True, kw_only=True):
    """One metric."""

    name: str
    kind: Kind
    help: str
    row: str | None = None
    """The label whose values are not a closed set."""
    has_tenant: bool = False
    word: str | None = None
    words: tuple[str, ...] = ("",)
    """The closed set of the label `word`."""
    bounds: tuple[float, ...] = BOUNDS_S
    """Of a histogram, without the last, which has none."""

    @property
    def each(self) -> int:
        """Series that one combination of labels has: buckets, their sum and their count."""
        return len(self.bounds) + 3 if self.kind == "histogram" else 1


def _counter(name: str, help: str, **labels: object) -> Family:
    return Family(name=name, kind="counter", help=help, **labels)  # type: ignore[arg-type]


def _gauge(name: str, help: str, **labels: object) -> Family:
    return Family(name=name, kind="gauge", help=help, **labels)  # type: ignore[arg-type]


_AUTH: Final = tuple(reason.value for reason, outcome in OUTCOMES.items() if outcome == "unauthenticated")
_CACHED: Final = tuple(how.value for how in Cached)
_STORED: Final = (
    *("stored", "too_large", "evicted", "expired", "forgotten"),
    *("late", "forged", "foreign", "outage", "unwritten"),
)
"""`cache.store.Event`."""
_CAPACITY: Final = ("all", "tenant", "pool", "waited", "deadline", "displaced", "batch", "memory", "pace")

ALL: Final = (
    # Those of the design, section 6.
    _counter(
        "tool_calls_total",
        "Messages of tools/call, by what became of them: each counts once.",
        row="tool",
        has_tenant=True,
        word="status",
        words=STATUSES,
    ),
    Family(
        name="tool_latency_seconds",
        kind="histogram",
        help="From the first byte of a call to the end of its answer, of calls that were answered or failed, not of "
        "those refused here.",
        row="tool",
    ),
    Family(
        name="outbound_latency_seconds",
        kind="histogram",
        help="What others take: each attempt at the server up to the end of its answer, each question to an identity "
        "provider, each decision of the shared store.",
        word="dependency",
        words=("upstream", "jwks", "introspection", "valkey"),
    ),
    _gauge("in_flight_tool_calls", "Calls that policy has let pass and that have not ended.", row="tool"),
    _gauge("queue_depth", "Calls that wait for a place at the server.", row="tool"),
    _counter(
        "auth_failures_total",
        "Messages of callers who did not prove who they are.",
        word="reason",
        words=_AUTH,
    ),
    _counter("rate_limited_total", "Messages that a rate refused.", has_tenant=True),
    _counter(
        "budget_exceeded_total",
        "Messages that a quota refused; budget_type is the name of the limit.",
        has_tenant=True,
        row="budget_type",
    ),
    _counter("policy_denied_total", "Messages to which policy said no, by the rule that did.", row="rule_id"),
    _counter(
        "danger_tool_attempt_total",
        "Calls of tools of the class dangerous, refused ones included.",
        row="tool",
    ),
    _counter(
        "tool_timeouts_total",
        "Calls that were not over when their time was, whatever they did at the server.",
        row="tool",
    ),
    _counter(
        "tool_retries_total",
        "Attempts beyond the first of a call, second ones of a race included.",
        row="tool",
    ),
    _counter(
        "would_refuse_total", "Messages that a rule which only reports would have refused.", row="rule_id"
    ),
    _counter(
        "cache_events_total",
        "What kept answers were asked for (hit, miss, stale, joined), and what happened to them.",
        word="event",
        words=(*_CACHED, *_STORED),
    ),
    _gauge("cache_bytes", "Memory that kept answers take."),
    _gauge("breaker_state", "Of the server: 0 closed, 1 half open, 2 open."),
    _counter("tool_drift_total", "Definitions of tools that are not those that were approved.", row="tool"),
    _gauge(
        "config_last_reload_successful",
        "1: the settings are in force as they are now. 0: those of before are.",
    ),
    _counter("audit_write_failures_total", "Records of the audit that could not be written."),
    Family(
        name="loop_lag_seconds",
        kind="histogram",
        help="How late the event loop is, ten times a second: every call waits that long for nothing.",
        bounds=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
    ),
    # What else the rooms count.
    _counter(
        "mcp_requests_total",
        "Messages that call no tool, by method; GET and DELETE are streams and ends of sessions, unread is what could "
        "not be read.",
        row="method",
        word="status",
        words=STATUSES,
    ),
    _counter(
        "message_alterations_total", "What was changed of a message or its answer, on their way.", row="what"
    ),
    _counter(
        "hedges_total",
        "Second attempts beside a slow first one.",
        word="event",
        words=("sent", "won", "withheld_budget", "withheld_capacity"),
    ),
    _counter(
        "retries_withheld_total",
        "Attempts that could have been repeated and were not.",
        word="why",
        words=("budget", "deadline"),
    ),
    _counter(
        "session_renewals_total",
        "Sessions that the server had lost: begun anew, or not.",
        word="result",
        words=("renewed", "given_up"),
    ),
    _counter("capacity_refused_total", "Calls for which there was no room.", word="why", words=_CAPACITY),
    _gauge(
        "capacity_places",
        "Places at the server: how many there are, are taken, and are waited for.",
        word="state",
        words=("limit", "taken", "awaited"),
    ),
    _counter("breaker_opened_total", "How often the server was left alone because it failed."),
    _counter(
        "breaker_refused_total",
        "Calls refused because the server, or the tool, was left alone.",
        word="why",
        words=("breaker", "quarantine"),
    ),
    _gauge("quarantined_tools", "Tools that are left alone because they failed."),
    _counter(
        "limit_decisions_total",
        "What each limit decided.",
        row="limit",
        word="decision",
        words=("granted", "refused", "reported"),
    ),
    _gauge("limit_keys", "Buckets and counters of limits in memory."),
    _counter(
        "limit_key_events_total",
        "Keys of limits that were forgotten because they said nothing any more, or found no room.",
        word="event",
        words=("evicted", "turned_away"),
    ),
    _gauge(
        "shared_limits_up", "1: the shared store decides. 0: it cannot be asked, and each replica decides."
    ),
    _counter(
        "shared_limits_events_total",
        "Troubles with the shared store, and refusals that it was spared.",
        word="event",
        words=("outage", "fallback", "late", "spared", "poisoned", "refund_lost"),
    ),
    _counter(
        "config_reloads_total", "Reloads, by how they ended.", word="result", words=("succeeded", "failed")
    ),
    _gauge("requests_in_flight", "HTTP requests that have not ended, streams included."),
    _gauge("streams_open", "Answers that are being streamed."),
    _gauge("connections_open", "Connections of clients."),
    _gauge("memory_level", "0: well. 1: above 0.80 of the limit. 2: above 0.95, and new calls are refused."),
    _gauge("memory_used_bytes", "What counts against the limit of memory, where there is one."),
    _gauge("memory_limit_bytes", "The limit of memory, where there is one."),
    _counter(
        "descriptor_events_total",
        "Connections to the server that were not made for want of descriptors, and pauses in accepting clients.",
        word="event",
        words=("refused", "paused"),
    ),
    _counter("log_lines_dropped_total", "Lines that nobody took in time."),
    _counter(
        "trace_spans_total",
        "Spans that a collector took, did not take, or that found no place to wait.",
        word="event",
        words=("exported", "failed", "dropped"),
    ),
)
"""In the order of the page."""

BY_NAME: Final = {family.name: family for family in ALL}

METHODS: Final = frozenset(
    {
        "initialize",
        "ping",
        "server/discover",
        "subscriptions/listen",
        "tools/list",
        "prompts/list",
        "prompts/get",
        "resources/list",
        "resources/read",
        "resources/subscribe",
        "resources/unsubscribe",
        "resources/templates/list",
        "completion/complete",
        "logging/setLevel",
        "tasks/get",
        "tasks/list",
        "tasks/result",
        "tasks/update",
        "tasks/cancel",
        "notifications/initialized",
        "notifications/cancelled",
        "notifications/progress",
        "notifications/roots/list_changed",
        "notifications/tasks/status",
    }
)
"""Of clients, in any revision."""

POLICY: Final = frozenset({Reason.NOT_ALLOWED, Reason.APPROVAL_REQUIRED, Reason.MODE})
"""What guards behind the rules say no with: to a call that a rule has let pass."""
