"""Which metrics there are, and with which labels: what dashboard, alerts and runbook may name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector

from proxy.telemetry import families
from proxy.telemetry.families import Family


class Metric(NamedTuple):
    kind: Literal["counter", "gauge", "histogram"]
    labels: Set[str] = frozenset()
    words: Mapping[str, Collection[str]] = {}
    """Label → what can stand in it, where that is a closed set."""


def _metric(family: Family) -> Metric:
    words = {family.word: family.words} if family.word is not None else {}
    labels = {family.row, family.word, "tenant" if family.has_tenant else None} - {None}
    return Metric(family.kind, frozenset(map(str, labels)), words)


OURS: Mapping[str, Metric] = {
    "mcp_sidecar_build_info": Metric("gauge", frozenset({"version", "python"})),
    **{family.name: _metric(family) for family in families.ALL},
}
"""Those of the product: design section 6, and what else its rooms count."""


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
            return Metric("counter", base.labels | ({"le"} if end == "_bucket" else set()), base.words)
    metric = ALL.get(name)
    return None if metric is None or metric.kind == "histogram" else metric
