"""What is told of calls, and to whom? The `telemetry` section."""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

from .audit_settings import Audit
from .traces_settings import Traces

Level: TypeAlias = Literal["debug", "info", "warning", "error"]


class TelemetrySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happened: lines on standard error, one for each call, and records in a file."""

    log_level: Level = "info"
    """Lines below it are not written. Calls that end well, or are refused as they should be, are info; trouble with
    the server is a warning; what failed with an exception is an error."""

    traces: Traces | None = None
    """Calls belong to traces, which are passed on and recorded. Absent: what callers say of traces passes untouched."""

    audit: Audit | None = None
    """Records of calls that may change something, in a file that shows whether anybody changed it. Absent: none."""
