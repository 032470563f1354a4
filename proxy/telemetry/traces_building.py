"""Settings → traces, and what records them.

In: the `telemetry.traces` section. Out: a `Tracing`, built once for each reading of it that differs. Imports of
OpenTelemetry only what the settings ask for: its SDK costs a start 100 ms and 15 MB.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ..model import Job, Watches
from .traces import Traces
from .traces_settings import TracesSettings

if TYPE_CHECKING:
    from aiohttp import TraceConfig
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.export import SpanExporter

    from .exports import Exports, Tell

CONSOLE_S = 0.5


class Tracing:
    """Traces by one reading of their settings. Build and use it inside one running loop."""

    def __init__(
        self,
        settings: TracesSettings,
        *,
        server: tuple[str, int | None],
        bits: Callable[[int], int],
        wall: Callable[[], float],
        tell: Tell,
        watch: Watches,
        redact: Callable[[str], str] = str,
        exporter: SpanExporter | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`server` is as `Spans` has it; `bits` gives so many random bits, `wall` seconds from 1970;
        `tell` hears when spans do not arrive, and when they do; `redact` is as `Spans` has it. `exporter`
        takes spans instead of the one that is
        set."""
        self._settings = settings
        self.injects_meta = settings.inject_meta
        self._resource: Resource | None = None
        self.exports: Exports | None = None
        if settings.exporter == "none" and exporter is None:
            self.traces = Traces(settings, bits=bits, now=now)
            return
        from .exports import EVERY_S, Exports
        from .spans import Spans

        self._resource = _resource(settings.service_name, settings.resource)
        why: Callable[[], str | None] = lambda: None  # noqa: E731
        every_s = CONSOLE_S if settings.exporter == "console" else EVERY_S
        if exporter is None and settings.exporter == "otlp":
            from .otlp import Collector  # its library is an extra

            collector = Collector(settings)
            exporter, why = collector.exporter, collector.why
            watch(collector.files, collector.renew)
        elif exporter is None:
            from opentelemetry.sdk.trace.export import ConsoleSpanExporter

            exporter = ConsoleSpanExporter(
                out=sys.stdout, formatter=lambda span: span.to_json(indent=None) + "\n"
            )
        self.exports = Exports(exporter, tell=tell, why=why, every_s=every_s)
        spans = Spans(self.exports, resource=self._resource, server=server, wall=wall, redact=redact, now=now)
        self.traces = Traces(settings, spans, bits=bits, now=now)

    @property
    def jobs(self) -> tuple[Job, ...]:
        """What runs beside the calls."""
        return () if self.exports is None else self.exports.jobs

    def of_control_calls(self) -> list[TraceConfig]:
        """What makes spans of an aiohttp session that asks for keys or about tokens; never for one that carries calls:
        it costs 71 µs each, also where nothing is recorded."""
        if self.exports is None:
            return []
        from .control_calls import traced

        return [traced(self.exports, self._resource, self._settings.sample)]

    async def close(self) -> None:
        if self.exports is not None:
            await self.exports.close()


def _resource(service: str, more: Mapping[str, str]) -> Resource:
    from importlib.metadata import PackageNotFoundError, version

    from opentelemetry.sdk.resources import Resource

    try:
        own = {"service.version": version("mcp-sidecar")}
    except PackageNotFoundError:  # a checkout that was never installed
        own = {}
    return Resource.create({**own, **more, "service.name": service})
