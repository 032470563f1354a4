"""Everything an operator can set, joined: one frozen value, or every mistake at once.

The sections live beside their rooms; this file only joins them and checks what spans two of them.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from .downstream.settings import ListenSettings
from .identity.settings import IdentitySettings
from .lifecycle.settings import OperationsSettings
from .upstream.settings import UpstreamSettings


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole configuration of one sidecar."""

    version: Literal[1]
    """The format of this file."""

    refusals: Literal["result", "http"] = "result"
    """How our own no reaches a caller: as a result that agents can read, or as an HTTP status."""

    listen: ListenSettings = field(default_factory=ListenSettings)
    """The data port."""

    operations: OperationsSettings = field(default_factory=OperationsSettings)
    """The port for probes and metrics."""

    upstream: UpstreamSettings
    """The server that is guarded."""

    identity: IdentitySettings = field(default_factory=IdentitySettings)
    """Who may call."""

    drain_s: Annotated[float, Meta(ge=0, le=3600)] = 25.0
    """How long calls in flight may finish after TERM; less than the pod's grace period (30 s by default)."""
