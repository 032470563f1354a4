"""What the dashboard shows, row by row: expressions, and what to do when they look wrong.

Names of metrics are those of ../OPERATIONS.md. `$…` are the variables on top of the dashboard. Read from the top: first
what selects and sums, then the rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

# What the variables on top of the dashboard choose. A label that is not there (`pod` in a plain Prometheus) fits ".*".
POD: Final = 'job=~"$job",namespace=~"$namespace",pod=~"$pod"'
TOOL: Final = f'{POD},tool=~"$tool"'
CALL: Final = f'{TOOL},tenant=~"$tenant"'
TENANT: Final = f'{POD},tenant=~"$tenant"'
OF_SIDECAR: Final = "{{pod}} {{instance}}"

FAILED: Final = 'status=~"upstream_error|outcome_unknown|timeout|circuit_open|overloaded"'
"""Calls that a healthy server with enough room would have answered."""
LET_THROUGH: Final = 'status!~"denied|unauthenticated|rate_limited|invalid|cancelled"'
"""Calls that neither a rule nor their caller ended: shares are of these, or a flood of denied calls would dilute
them."""
REFUSED: Final = 'status=~"denied|unauthenticated|rate_limited|invalid"'
KEPT: Final = 'event=~"hit|stale|joined"'
ASKED: Final = 'event=~"hit|stale|joined|miss"'
COLOURS: Final = {
    "ok": "green",
    "tool_error": "light-yellow",
    "rpc_error": "dark-yellow",
    "denied": "light-purple",
    "unauthenticated": "dark-purple",
    "rate_limited": "light-blue",
    "invalid": "blue",
    "cancelled": "text",
    "overloaded": "light-orange",
    "timeout": "orange",
    "circuit_open": "dark-orange",
    "upstream_error": "red",
    "outcome_unknown": "dark-red",
}
"""Of statuses: what is red is harm."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture: what it shows, and what to do about it."""

    title: str
    about: str
    lines: Sequence[tuple[str, str]]
    """Expression and legend."""
    unit: str = "short"
    kind: Literal["timeseries", "stat"] = "timeseries"
    width: int = 8
    is_stacked: bool = False
    highest: float | None = None
    """Of the axis. None: as high as the values are."""
    steps: Sequence[tuple[float, str]] = ()
    """From this value on, this colour; green below."""
    words: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    """Value → what is written instead, and its colour."""
    colours: Mapping[str, str] = field(default_factory=dict)
    """Legend → colour."""


@dataclass(frozen=True, kw_only=True)
class Row:
    title: str
    panels: Sequence[Panel]
    height: int = 8


def rate(metric: str, labels: str, by: str = "") -> str:
    """How fast a counter grows: per second, summed."""
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{{{labels}}}[$__rate_interval]))"


def most(expression: str) -> str:
    """Ten lines at most: the highest at each moment."""
    return f"topk(10, {expression})"


def quantile(share: float, histogram: str, labels: str, by: str = "") -> str:
    """Of a histogram in seconds."""
    return f"histogram_quantile({share}, {rate(f'{histogram}_bucket', labels, f'{by}, le' if by else 'le')})"


FAILING: Final = (
    f"{rate('tool_calls_total', f'{CALL},{FAILED}')} / {rate('tool_calls_total', f'{CALL},{LET_THROUGH}')}"
)
STATES: Final = {0: ("closed", "green"), 1: ("half open", "yellow"), 2: ("open", "red")}

ROWS: Final = (
    Row(
        title="At a glance",
        height=4,
        panels=(
            Panel(
                title="Sidecars",
                about="How many answer /metrics. Fewer than pods: McpSidecarDown in the runbook.",
                kind="stat",
                width=3,
                lines=[(f"count(config_last_reload_successful{{{POD}}})", "sidecars")],
            ),
            Panel(
                title="Calls",
                about="Calls of tools a second, refused ones included. None at all in working hours: ask "
                "/readyz, then whether the Service points at the sidecar's port.",
                kind="stat",
                width=3,
                unit="reqps",
                lines=[(rate("tool_calls_total", CALL), "calls")],
            ),
            Panel(
                title="Failing",
                about="Share of the calls that were let through and then failed, broke, ran out of time or "
                "found no room. From 5 % on McpSidecarErrors: look at the rows Resilience and "
                "Saturation.",
                kind="stat",
                width=4,
                unit="percentunit",
                steps=[(0.01, "yellow"), (0.05, "red")],
                lines=[(FAILING, "failing")],
            ),
            Panel(
                title="Refused by rules",
                about="Share of all calls that identity, policy or limits refused, or that were malformed. "
                "It is what the settings ask for; a jump says that callers, or settings, have "
                "changed.",
                kind="stat",
                width=4,
                unit="percentunit",
                steps=[(0.2, "yellow")],
                lines=[
                    (
                        f"{rate('tool_calls_total', f'{CALL},{REFUSED}')} / {rate('tool_calls_total', CALL)}",
                        "refused",
                    )
                ],
            ),
            Panel(
                title="95 % answered within",
                about="Over all tools, the caller's view. Red: see which tool in the row Latency, and "
                "whether it is the server or the queue.",
                kind="stat",
                width=4,
                unit="s",
                steps=[(1, "yellow"), (10, "red")],
                lines=[(quantile(0.95, "tool_latency_seconds", TOOL), "p95")],
            ),
            Panel(
                title="Breaker",
                about="The worst of all sidecars. Open: the server keeps failing and is left alone; "
                "McpSidecarBreakerOpen in the runbook.",
                kind="stat",
                width=3,
                words=STATES,
                lines=[(f"max(breaker_state{{{POD}}})", "breaker")],
            ),
            Panel(
                title="Settings",
                about="Whether the newest settings are in force everywhere. Not: McpSidecarReloadFailed in "
                "the runbook.",
                kind="stat",
                width=3,
                words={0: ("not in force", "red"), 1: ("in force", "green")},
                lines=[(f"min(config_last_reload_successful{{{POD}}})", "settings")],
            ),
        ),
    ),
    Row(
        title="Traffic and outcomes",
        panels=(
            Panel(
                title="Calls by outcome",
                about="Each call counts once. Red and orange are harm: timeout, circuit_open, "
                "upstream_error, outcome_unknown, overloaded. Purple and blue are rules at work. "
                "Yellow are answers of the tool that say no: models cause them.",
                unit="reqps",
                is_stacked=True,
                colours=COLOURS,
                lines=[(rate("tool_calls_total", CALL, "status"), "{{status}}")],
            ),
            Panel(
                title="Calls by tool",
                about="The ten most called. `other` holds tools the server never listed, and whatever is "
                "too much for 1,000 series.",
                unit="reqps",
                lines=[(most(rate("tool_calls_total", CALL, "tool")), "{{tool}}")],
            ),
            Panel(
                title="Calls by tenant",
                about="The ten busiest. One that outgrows the rest: give it a limit, or a weight "
                "(`capacity.weights`).",
                unit="reqps",
                lines=[(most(rate("tool_calls_total", CALL, "tenant")), "{{tenant}}")],
            ),
            Panel(
                title="Other messages, by method",
                about="Handshakes, lists, resources, streams. Many `initialize`: clients that begin anew all the "
                "time, because sessions are lost (a server that restarts, a pod without stickiness).",
                unit="reqps",
                lines=[(most(rate("mcp_requests_total", POD, "method")), "{{method}}")],
            ),
            Panel(
                title="Failing, by tool",
                about="Share of the calls let through that failed. One tool alone: its backend; "
                "`quarantine: {}` leaves a failing tool alone. All of them: the server.",
                unit="percentunit",
                highest=1,
                lines=[
                    (
                        f"{rate('tool_calls_total', f'{CALL},{FAILED}', 'tool')} / "
                        f"{rate('tool_calls_total', f'{CALL},{LET_THROUGH}', 'tool')}",
                        "{{tool}}",
                    )
                ],
            ),
            Panel(
                title="Errors the tool answers, by tool",
                about="Share of the answers with isError or a JSON-RPC error. Mostly arguments a model got "
                "wrong: a better description of the tool helps more than anything here.",
                unit="percentunit",
                highest=1,
                lines=[
                    (
                        f"""{rate("tool_calls_total", f'{CALL},status=~"tool_error|rpc_error"', "tool")} / """
                        f"""{rate("tool_calls_total", f'{CALL},status=~"ok|tool_error|rpc_error"', "tool")}""",
                        "{{tool}}",
                    )
                ],
            ),
            Panel(
                title="Refused, by tenant",
                about="Calls that rules or limits refused, by whom. A tenant that is all alone here has "
                "lost its way, or its key: find its lines in the log by `tenant`.",
                unit="reqps",
                lines=[
                    (most(rate("tool_calls_total", f"{CALL},{REFUSED}", "tenant")), "{{tenant}}"),
                ],
            ),
        ),
    ),
    Row(
        title="Latency",
        panels=(
            *(
                Panel(
                    title=f"{share:.0%} of the calls answered within, by tool",
                    about=f"{about} The caller's view: waiting, attempts and the whole answer included. Compare "
                    "with the server's own below: the difference is the queue, attempts, and the cache.",
                    unit="s",
                    lines=[(most(quantile(share, "tool_latency_seconds", TOOL, "tool")), "{{tool}}")],
                )
                for share, about in (
                    (0.5, "The usual call."),
                    (0.95, "One in twenty takes longer. McpSidecarSlow fires from 10 s on."),
                    (0.99, "One in a hundred takes longer: what people complain of."),
                )
            ),
            *(
                Panel(
                    title=f"{share:.0%} of the requests to a dependency within",
                    about=f"{about} The server, and whatever else the sidecar asks (keys, introspection, a shared "
                    "store), each attempt by itself. Slow here and above: the server. Slow above only: waiting, see "
                    "Saturation.",
                    unit="s",
                    lines=[
                        (quantile(share, "outbound_latency_seconds", POD, "dependency"), "{{dependency}}")
                    ],
                )
                for share, about in (
                    (0.5, "The usual attempt."),
                    (0.95, "One in twenty takes longer."),
                    (0.99, "One in a hundred takes longer."),
                )
            ),
        ),
    ),
    Row(
        title="Saturation",
        panels=(
            Panel(
                title="Calls under way, by tool",
                about="Each holds a place until its answer has ended. Near `capacity.max_in_flight` "
                "(1,024): McpSidecarInFlight. Streams that never end show as a line that only rises.",
                is_stacked=True,
                lines=[(f"sum by (tool) (in_flight_tool_calls{{{TOOL}}})", "{{tool}}")],
            ),
            Panel(
                title="Places taken",
                about="Of those at the server (`capacity.max_in_flight`). Above 80 %: McpSidecarInFlight.",
                unit="percentunit",
                highest=1,
                lines=[
                    (
                        f'sum by (pod, instance) (capacity_places{{{POD},state="taken"}}) / '
                        f'sum by (pod, instance) (capacity_places{{{POD},state="limit"}})',
                        OF_SIDECAR,
                    )
                ],
            ),
            Panel(
                title="Calls that wait, by tool",
                about="For a place at the server. Short peaks are what a queue is for; a plateau wants more "
                "places, more replicas, or limits: McpSidecarQueue.",
                is_stacked=True,
                lines=[(f"sum by (tool) (queue_depth{{{TOOL}}})", "{{tool}}")],
            ),
            Panel(
                title="Refused for want of room, by tool",
                about="Calls that found no place, or waited too long for one; also what comes while a "
                "sidecar drains or is short of memory. More than 1 %: McpSidecarOverloaded.",
                unit="reqps",
                lines=[(rate("tool_calls_total", f'{CALL},status="overloaded"', "tool"), "{{tool}}")],
            ),
            Panel(
                title="How late the loop is",
                about="Every call waits that long for nothing. Promised: 20 ms for 99 % of the looks. More: "
                "no CPU (throttled? remove the CPU limit), or bodies that hold it up: "
                "McpSidecarLoopLag.",
                unit="s",
                lines=[
                    (quantile(0.5, "loop_lag_seconds", POD, "pod, instance"), f"p50 {OF_SIDECAR}"),
                    (quantile(0.99, "loop_lag_seconds", POD, "pod, instance"), f"p99 {OF_SIDECAR}"),
                ],
            ),
            Panel(
                title="Memory",
                about="Resident, by sidecar. A line that only rises with the streams: that many streams; with "
                "the cache: `cache.max_bytes`; else tell us.",
                unit="bytes",
                lines=[(f"process_resident_memory_bytes{{{POD}}}", OF_SIDECAR)],
            ),
            Panel(
                title="Memory used, of its limit",
                about="Above 80 % kept answers go (McpSidecarMemory), above 95 % new calls are refused.",
                unit="percentunit",
                highest=1,
                lines=[(f"memory_used_bytes{{{POD}}} / memory_limit_bytes{{{POD}}}", OF_SIDECAR)],
            ),
            Panel(
                title="File descriptors used",
                about="Of those allowed. Near 100 % nobody new is accepted for a while. Raise the hard "
                "limit of open files, or look for clients that open connections and never close them.",
                unit="percentunit",
                highest=1,
                lines=[(f"process_open_fds{{{POD}}} / process_max_fds{{{POD}}}", OF_SIDECAR)],
            ),
            Panel(
                title="CPU",
                about="Cores used, by sidecar. One process uses one core: near 1.0 add replicas.",
                lines=[(f"rate(process_cpu_seconds_total{{{POD}}}[$__rate_interval])", OF_SIDECAR)],
            ),
        ),
    ),
    Row(
        title="Limits and budgets",
        panels=(
            Panel(
                title="Refused, by limit",
                about="Which limit says no, and what limits that only report would have refused. A limit that "
                "never refuses may be too wide; one that always does is too narrow.",
                unit="reqps",
                lines=[
                    (
                        most(rate("limit_decisions_total", f'{POD},decision!="granted"', "limit, decision")),
                        "{{limit}} {{decision}}",
                    )
                ],
            ),
            Panel(
                title="Shared store",
                about="1: limits are decided for all replicas together. 0: each decides for itself, or refuses "
                "(`on_outage`): McpSidecarSharedLimits. Empty: none is set.",
                highest=1,
                words={0: ("away", "red"), 1: ("in use", "green")},
                lines=[(f"shared_limits_up{{{POD}}}", OF_SIDECAR)],
            ),
            Panel(
                title="Refused by a rate, by tenant",
                about="Too many calls at once. Callers are told when to come back. If it is meant: nothing. "
                "If not: raise `rate_per_s` or `burst` for that tenant (`overrides`).",
                unit="reqps",
                lines=[(most(rate("rate_limited_total", TENANT, "tenant")), "{{tenant}}")],
            ),
            Panel(
                title="Refused by a quota, by tenant",
                about="A quota is spent until its window ends: McpSidecarBudgetExceeded. Talk to the "
                "tenant, or write an override; settings are read again without a restart.",
                unit="reqps",
                lines=[
                    (
                        most(rate("budget_exceeded_total", TENANT, "tenant, budget_type")),
                        "{{tenant}} {{budget_type}}",
                    )
                ],
            ),
            Panel(
                title="Share of calls limited, by tenant",
                about="High for one tenant: its limit does not fit what it does. High for all: the limits "
                "do not fit the traffic.",
                unit="percentunit",
                highest=1,
                lines=[
                    (
                        f"""{rate("tool_calls_total", f'{CALL},status="rate_limited"', "tenant")} / """
                        f"{rate('tool_calls_total', CALL, 'tenant')}",
                        "{{tenant}}",
                    )
                ],
            ),
        ),
    ),
    Row(
        title="Policy",
        panels=(
            Panel(
                title="Denied, by rule",
                about="Which rule said no. A jump after a change of settings: `mcp-sidecar explain` says "
                "why. A jump without one: McpSidecarDeniedSpike.",
                unit="reqps",
                lines=[(most(rate("policy_denied_total", POD, "rule_id")), "{{rule_id}}")],
            ),
            Panel(
                title="Attempts at dangerous tools",
                about="Calls of tools of class dangerous, allowed or not; tools that no rule names are. "
                "Unexpected ones: who, by the audit trail or the log's `tool` and `principal`.",
                unit="reqps",
                lines=[(most(rate("danger_tool_attempt_total", TOOL, "tool")), "{{tool}}")],
            ),
            Panel(
                title="Would be refused, by rule",
                about="What rules that only report would refuse. Quiet for as long as your users' longest "
                "rhythm: take `report` away from the rule.",
                unit="reqps",
                lines=[(most(rate("would_refuse_total", POD, "rule_id")), "{{rule_id}}")],
            ),
            Panel(
                title="Tools seen to differ from their pins, since the start",
                about="Definitions that are not the approved ones; a step up is McpSidecarDrift. `mcp-sidecar "
                "pin --check` names what differs.",
                lines=[(f"sum by (tool) (tool_drift_total{{{TOOL}}})", "{{tool}}")],
            ),
        ),
    ),
    Row(
        title="Cache",
        panels=(
            Panel(
                title="Answered without the server",
                about="Share of the calls that may be kept and were answered from what is kept, or joined "
                "another's. Low: `ttl_s` is short, or the answers are not shared (`share`).",
                unit="percentunit",
                highest=1,
                lines=[
                    (
                        f"{rate('cache_events_total', f'{POD},{KEPT}')} / "
                        f"{rate('cache_events_total', f'{POD},{ASKED}')}",
                        "answered",
                    )
                ],
            ),
            Panel(
                title="What happens to kept answers",
                about="Hits, misses, stale answers, calls that joined an equal one. Many stale: the server "
                "is slow or away and `stale_if_error_s` covers for it.",
                unit="reqps",
                is_stacked=True,
                lines=[(rate("cache_events_total", POD, "event"), "{{event}}")],
            ),
            Panel(
                title="Size of what is kept",
                about="By sidecar. At `cache.max_bytes` old answers go: raise it when hits fall and memory "
                "is there.",
                unit="bytes",
                lines=[(f"cache_bytes{{{POD}}}", OF_SIDECAR)],
            ),
        ),
    ),
    Row(
        title="Resilience",
        panels=(
            Panel(
                title="Attempts repeated, by tool",
                about="Only what is harmless is sent again. Steady: the server stumbles; its own log says "
                "why. Flat while calls fail: the budget is spent, or rules do not say `idempotent`.",
                unit="reqps",
                lines=[(most(rate("tool_retries_total", TOOL, "tool")), "{{tool}}")],
            ),
            Panel(
                title="Attempts that were withheld",
                about="`budget`: too many were repeated already, so that stumbling does not become an outage. "
                "`deadline`: no time was left. Steady while calls fail: make the server well, not the budget wider.",
                unit="reqps",
                lines=[(rate("retries_withheld_total", POD, "why"), "{{why}}")],
            ),
            Panel(
                title="Ran out of time, by tool",
                about="Longer than `timeout_s` of the rule, or of the caller. A slow tool wants a rule of "
                "its own; a tool that is slow since today wants its server looked at.",
                unit="reqps",
                lines=[(most(rate("tool_timeouts_total", TOOL, "tool")), "{{tool}}")],
            ),
            Panel(
                title="Breaker",
                about="0 closed, 1 half open (one call tries), 2 open: calls are refused at once. Open for "
                "minutes: McpSidecarBreakerOpen.",
                highest=2,
                words=STATES,
                lines=[(f"breaker_state{{{POD}}}", OF_SIDECAR)],
            ),
            Panel(
                title="Left alone, by tool",
                about="Calls refused because the breaker is open or the tool is in quarantine.",
                unit="reqps",
                lines=[(most(rate("tool_calls_total", f'{CALL},status="circuit_open"', "tool")), "{{tool}}")],
            ),
            Panel(
                title="Outcome unknown since the start, by tool",
                about="Sent, and nobody knows what became of it: callers were told to check before they "
                "repeat it. Each step up is worth a look: McpSidecarOutcomeUnknown.",
                lines=[
                    (
                        f'sum by (tool) (tool_calls_total{{{CALL},status="outcome_unknown"}})',
                        "{{tool}}",
                    )
                ],
            ),
            Panel(
                title="The server fails, by tool",
                about="It broke, was not reachable, or answered nonsense. All tools at once: the process; "
                "one: its backend.",
                unit="reqps",
                lines=[
                    (most(rate("tool_calls_total", f'{CALL},status="upstream_error"', "tool")), "{{tool}}")
                ],
            ),
        ),
    ),
    Row(
        title="Identity",
        panels=(
            Panel(
                title="Not let in, by reason",
                about="no_credential: also how each OAuth session begins. bad_credential: expired, forged "
                "or of another audience; a jump is McpSidecarAuthFailures. idp_unavailable: "
                "McpSidecarIdentityProvider. too_many_failures: an address is not listened to for a "
                "while.",
                unit="reqps",
                width=16,
                is_stacked=True,
                lines=[(rate("auth_failures_total", POD, "reason"), "{{reason}}")],
            ),
            Panel(
                title="Share of calls not let in",
                about="Near 100 %: keys, issuer or audience do not fit the settings. `mcp-sidecar check` "
                "and /readyz.",
                unit="percentunit",
                highest=1,
                lines=[
                    (
                        f"""{rate("tool_calls_total", f'{CALL},status="unauthenticated"')} / """
                        f"{rate('tool_calls_total', CALL)}",
                        "not let in",
                    )
                ],
            ),
        ),
    ),
    Row(
        title="Settings and audit",
        panels=(
            Panel(
                title="Settings in force",
                about="1: the newest ones. 0: they have a mistake, and those of before are served; the log "
                "line `settings not reloaded` names all of it.",
                highest=1,
                words={0: ("not in force", "red"), 1: ("in force", "green")},
                lines=[(f"config_last_reload_successful{{{POD}}}", OF_SIDECAR)],
            ),
            Panel(
                title="Audit records not written since the start",
                about="Anything but zero: McpSidecarAuditFailures. A full or read-only disk, mostly.",
                lines=[(f"audit_write_failures_total{{{POD}}}", OF_SIDECAR)],
            ),
            Panel(
                title="Versions",
                about="Sidecars by what they run. Two for longer than a rollout: one of them is stuck.",
                is_stacked=True,
                lines=[
                    (
                        f"count by (version, python) (mcp_sidecar_build_info{{{POD}}})",
                        "{{version}} on Python {{python}}",
                    )
                ],
            ),
            Panel(
                title="Log lines dropped",
                about="Nobody took them in time: the collector of standard error is slow or stuck. Calls go on.",
                unit="reqps",
                lines=[(rate("log_lines_dropped_total", POD, "pod, instance"), OF_SIDECAR)],
            ),
            Panel(
                title="Runs since",
                about="How long each process has run. A saw: it is restarted over and over; the log's last "
                "lines before, and `kubectl describe pod`, say why.",
                unit="s",
                lines=[(f"time() - process_start_time_seconds{{{POD}}}", OF_SIDECAR)],
            ),
        ),
    ),
)
