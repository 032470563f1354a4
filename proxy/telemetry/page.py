"""How does Prometheus read it? A snapshot of metrics → bytes and their type, by prometheus-client. Keeps nothing.

Imported when somebody asks for the first page: many sidecars are asked by nobody.
"""

from __future__ import annotations

import functools
import itertools
import math
import platform
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPEN_METRICS_TYPE
from prometheus_client.openmetrics.exposition import generate_latest as _open_metrics
from prometheus_client.samples import Exemplar

from .families import Family
from .metrics import Cells, Shown
from .windows import Labels

generate_open_metrics: Final[Callable[[CollectorRegistry], bytes]] = _open_metrics  # it has no types


def page_of(shown: Sequence[Shown], *, is_open: bool) -> tuple[bytes, str]:
    """The page, and its content type. IO: reads /proc."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(shown))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    if is_open:
        return generate_open_metrics(registry), OPEN_METRICS_TYPE
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


class _Snapshot:
    """Fulfils prometheus-client's `Collector`."""

    def __init__(self, shown: Sequence[Shown]) -> None:
        self._shown = shown

    def collect(self) -> Iterable[Metric]:
        yield _build_info()
        yield from map(_metric, self._shown)


@functools.cache
def _build_info() -> Metric:
    try:
        ours = version("mcp-sidecar")
    except PackageNotFoundError:  # run from a folder
        ours = "unknown"
    metric = Metric("mcp_sidecar_build_info", "What runs here.", "gauge")
    labels = {"version": ours, "python": platform.python_version()}
    metric.add_sample("mcp_sidecar_build_info", labels, 1)
    return metric


def _metric(shown: Shown) -> Metric:
    family = shown.family
    metric = Metric(family.name.removesuffix("_total"), family.help, family.kind)
    for labels, value in shown.values:
        metric.add_sample(family.name, _labels(family, labels), float(value))
    for labels, cells in shown.histograms:
        _add_histogram(metric, _labels(family, labels), cells)
    return metric


def _labels(family: Family, labels: Labels) -> dict[str, str]:
    names = family.row, "tenant" if family.has_tenant else None, family.word
    # Words are members of enums here and there: the text alone is written.
    return {name: str(value) for name, value in zip(names, labels, strict=True) if name is not None}


def _bound(bound: float) -> str:
    """As Prometheus writes it."""
    return "+Inf" if math.isinf(bound) else repr(bound)


def _add_histogram(metric: Metric, labels: dict[str, str], cells: Cells) -> None:
    bounds = (*cells.bounds, float("inf"))
    total = 0
    for bucket, (bound, total) in enumerate(zip(bounds, itertools.accumulate(cells.counts), strict=True)):
        exemplar = cells.exemplars.get(bucket)
        metric.add_sample(
            f"{metric.name}_bucket",
            {**labels, "le": _bound(bound)},
            float(total),
            exemplar=None
            if exemplar is None
            else Exemplar({"trace_id": exemplar.trace_id}, exemplar.value, exemplar.wall),
        )
    metric.add_sample(f"{metric.name}_count", labels, float(total))
    metric.add_sample(f"{metric.name}_sum", labels, cells.sum)
