"""What is told of calls, and to whom? The `telemetry` section."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

from .traces_settings import Traces

Level: TypeAlias = Literal["debug", "info", "warning", "error"]


class TelemetrySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happened: lines on standard error, one for each call."""

    log_level: Level = "info"
    """Lines below it are not written. Calls that end well, or are refused as they should be, are info; trouble with
    the server is a warning; what failed with an exception is an error."""
    metrics: bool = True
    """`/metrics` on the operations port. Off: nothing is counted, and the page is not there."""
    metrics_tenants: Annotated[int, Meta(ge=0, le=900)] = 100
    """So many tenants have labels of their own, those that come first; the others are `other`. 0: none has."""

    traces: Traces | None = None
    """Calls belong to traces, which are passed on and recorded. Absent: what callers say of traces passes untouched."""
