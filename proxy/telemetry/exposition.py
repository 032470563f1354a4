"""The page that Prometheus reads.

In: snapshots of metrics, and what a scraper accepts. Out: bytes and their type, by prometheus-client. Keeps the last
page of each format for a second: however many ask, and however often, the loop takes one snapshot and a thread makes
one page. Nobody waits for a page longer than it takes to make, and a scraper that leaves takes nothing from the others.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import math
import platform
import time
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

FRESH_S: Final = 1.0
"""How long a page is told again: no Prometheus asks more often."""
generate_open_metrics: Final[Callable[[CollectorRegistry], bytes]] = _open_metrics  # it has no types

OPEN_METRICS: Final = "application/openmetrics-text"

Page = tuple[bytes, str]
"""The page, and its content type."""


def wants_open_metrics(accept: str) -> bool:
    """Whether the header field `Accept` names OpenMetrics, which alone has exemplars."""
    for each in accept.split(","):
        kind, *parameters = (part.strip() for part in each.lower().split(";"))
        if kind == OPEN_METRICS and not any(part.replace(" ", "") in ("q=0", "q=0.0") for part in parameters):
            return True
    return False


def rendered(shown: Sequence[Shown], *, is_open: bool) -> Page:
    """The page of a snapshot, with what the system says of this process. Runs in a thread: reads /proc."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(shown))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    if is_open:
        return generate_open_metrics(registry), OPEN_METRICS_TYPE
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


class Exposition:
    """Makes pages. Used inside one running loop."""

    def __init__(
        self,
        snapshot: Callable[[], Sequence[Shown]],
        *,
        now: Callable[[], float] = time.monotonic,
        fresh_s: float = FRESH_S,
    ) -> None:
        """`snapshot` is called on the loop."""
        self._snapshot = snapshot
        self._now = now
        self._fresh_s = fresh_s
        self._pages: dict[bool, tuple[float, asyncio.Future[Page]]] = {}
        self.made = 0
        """Pages."""

    async def __call__(self, accept: str) -> Page:
        """The page as it was a second ago at most."""
        is_open = wants_open_metrics(accept)
        began, page = self._pages.get(is_open, (0.0, None))
        now = self._now()
        if page is None or (page.done() and (_has_failed(page) or now - began >= self._fresh_s)):
            self.made += 1
            make = functools.partial(rendered, self._snapshot(), is_open=is_open)
            page = asyncio.get_running_loop().run_in_executor(None, make)
            self._pages[is_open] = now, page
        # Who leaves does not take it from those who wait, too.
        return await asyncio.shield(page)

    def forget(self) -> None:
        """What the page says is not so any more: whoever asks next gets another one."""
        self._pages.clear()


def _has_failed(page: asyncio.Future[Page]) -> bool:
    return page.cancelled() or page.exception() is not None


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
