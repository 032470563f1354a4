"""Which metrics there are, and with which labels: what dashboard, alerts and runbook may name."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector


class Metric(NamedTuple):
    kind: Literal["counter", "gauge", "histogram"]
    labels: Set[str] = frozenset()


DESIGN: Mapping[str, Metric] = {
    "tool_calls_total": Metric("counter", {"tool", "tenant", "status"}),
    "tool_latency_seconds": Metric("histogram", {"tool"}),
    "outbound_latency_seconds": Metric("histogram", {"dependency"}),
    "in_flight_tool_calls": Metric("gauge", {"tool"}),
    "queue_depth": Metric("gauge", {"tool"}),
    "auth_failures_total": Metric("counter", {"reason"}),
    "rate_limited_total": Metric("counter", {"tenant"}),
    "budget_exceeded_total": Metric("counter", {"tenant", "budget_type"}),
    "policy_denied_total": Metric("counter", {"rule_id"}),
    "danger_tool_attempt_total": Metric("counter", {"tool"}),
    "tool_timeouts_total": Metric("counter", {"tool"}),
    "tool_retries_total": Metric("counter", {"tool"}),
    "would_refuse_total": Metric("counter", {"rule_id"}),
    "cache_events_total": Metric("counter", {"event"}),
    "cache_bytes": Metric("gauge"),
    "breaker_state": Metric("gauge"),
    "tool_drift_total": Metric("counter", {"tool"}),
    "config_last_reload_successful": Metric("gauge"),
    "audit_write_failures_total": Metric("counter"),
    "loop_lag_seconds": Metric("histogram"),
}
"""The design's names (section 6)."""

OURS: Mapping[str, Metric] = DESIGN
"""Those of the product."""


def of_the_process() -> Mapping[str, Metric]:
    """Those the Prometheus client writes of every process."""
    collector = ProcessCollector(registry=CollectorRegistry())
    found: dict[str, Metric] = {}
    for family in collector.collect():
        if family.type == "counter":
            found[f"{family.name}_total"] = Metric("counter")
        else:
            found[family.name] = Metric("gauge")
    return found


OF_PROMETHEUS: Mapping[str, Metric] = {
    "up": Metric("gauge"),
    "ALERTS": Metric("gauge", {"alertname", "alertstate"}),
}
SCRAPED = frozenset({"job", "namespace", "pod", "instance"})
"""Labels that Prometheus adds to all of them."""

ALL: Mapping[str, Metric] = {**OURS, **of_the_process(), **OF_PROMETHEUS}


def find(name: str) -> Metric | None:
    """What a name of an expression means: of a histogram, `_bucket`, `_count` and `_sum`, and never itself."""
    for end in ("_bucket", "_count", "_sum"):
        base = ALL.get(name.removesuffix(end)) if name.endswith(end) else None
        if base is not None and base.kind == "histogram":
            return Metric("counter", base.labels | ({"le"} if end == "_bucket" else set()))
    metric = ALL.get(name)
    return None if metric is None or metric.kind == "histogram" else metric
