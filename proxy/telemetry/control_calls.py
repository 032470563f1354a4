"""What is recorded of our own questions to identity providers? Spans by OpenTelemetry's instrumentation of aiohttp.

In: who takes spans. Out: a `TraceConfig` for one session. Keeps nothing. Of a URL its query is left out: what stands in
settings may be a key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.instrumentation.aiohttp_client import create_trace_config
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

if TYPE_CHECKING:
    from aiohttp import TraceConfig
    from opentelemetry.sdk.resources import Resource
    from yarl import URL

    from .exports import Exports


def traced(exports: Exports, resource: Resource | None, sample: float) -> TraceConfig:
    """Spans of the requests of a session, each in a trace of its own, in the same share as calls."""
    provider = TracerProvider(TraceIdRatioBased(sample), resource, shutdown_on_exit=False)
    provider.add_span_processor(exports)
    return create_trace_config(url_filter=_without_query, tracer_provider=provider)


def _without_query(url: URL) -> str:
    return str(url.with_query(None).with_fragment(None).with_user(None))
