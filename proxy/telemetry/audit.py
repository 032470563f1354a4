"""Who did what: the hook for records that must not be lost.

In: finished journeys. Out: the same, to whoever keeps them. A keeper sees every call, refused ones included,
before its line is logged. None is configured by default.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from .journey import Record, Sink

Keep: TypeAlias = Callable[[Record], None]


def audit_sink(keep: Keep, failed: Callable[[Exception], None]) -> Sink:
    """A sink that tells `keep`; a keeper that fails is reported to `failed` and harms no call."""

    def sink(record: Record) -> None:
        try:
            keep(record)
        except Exception as error:  # the call is over: there is nothing left to refuse
            failed(error)

    return sink
