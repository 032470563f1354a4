"""A made-up world in which every metric of the product has series, each word of its closed sets among them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from tests.unit.monitoring.names import Metric

LABELS = {
    **dict.fromkeys(("tool", "method", "what", "rule_id", "limit", "budget_type"), ("one", "other")),
    "tenant": ("acme", "other"),
    "version": ("0.1.0",),
    "python": ("3.13.0",),
}
"""Values of the labels that are no closed sets."""
SCRAPED = 'job="shop/mcp-sidecar",namespace="shop",pod="shop-1",instance="10.0.0.1:9901"'
BOUNDS = ("0.01", "0.1", "1.0", "10.0", "+Inf")


def series(name: str, metric: Metric, scraped: str = SCRAPED) -> Iterator[tuple[str, bool]]:
    """Name with labels, and whether it grows. `scraped` are labels that all of them have."""
    labels = sorted(metric.labels)
    for values in product(*(metric.words.get(label) or LABELS[label] for label in labels)):
        own = [f'{label}="{value}"' for label, value in zip(labels, values, strict=True)]
        if scraped:
            own.append(scraped)
        if metric.kind == "histogram":
            for bound in BOUNDS:
                up_to = f'le="{bound}"'
                yield f"{name}_bucket{_braced(*own, up_to)}", True
            yield f"{name}_count{_braced(*own)}", True
            yield f"{name}_sum{_braced(*own)}", True
        else:
            yield f"{name}{_braced(*own)}", metric.kind == "counter"


def _braced(*labels: str) -> str:
    return f"{{{','.join(labels)}}}" if labels else ""
