"""To which trace does a call belong, is it recorded, and what is the server told?

In: the journey of each call. Out: its part in a trace (`journey.Trace`), and spans for those that are recorded. Keeps
the spans that are on their way, and the tool names that may stand in names of spans. Nothing of OpenTelemetry is
imported where nothing is recorded.

Sampling is decided once for a call, from the trace's id as OpenTelemetry's TraceIdRatioBased does it, so that retries
of a client and all hops that keep the same share decide alike. Of a trace that is not recorded there are ids, and no
spans. A span is built when it has ended and everything is known of it; before, there is only its id.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from ..model import Call
from .journey import Fields, Record, Trace, Try
from .trace_context import NOTHING, RANDOM, SAMPLED, Received, Remote, received, write_traceparent
from .traces_settings import TracesSettings

if TYPE_CHECKING:
    from .spans import Spans

_LOWER_64: Final = 0xFFFF_FFFF_FFFF_FFFF


class Sampling:
    """Which traces are recorded?"""

    def __init__(self, settings: TracesSettings, now: Callable[[], float]) -> None:
        self.bound = round(settings.sample * (_LOWER_64 + 1))
        """Traces whose lower 64 bits are below are in our share."""
        self._trusts = settings.trust_parent
        self._most_per_s = settings.max_claimed_per_s
        self._now = now
        self._spent_until = 0.0

    def follows(self, parent: Remote) -> bool:
        """Whether a call in a trace that its caller began is recorded."""
        if not parent.flags & SAMPLED:
            return False
        return self._trusts or (int(parent.trace_id[16:], 16) < self.bound and self._may_claim())

    def _may_claim(self) -> bool:
        """Whoever chooses ids could choose each in our share."""
        if not self._most_per_s:
            return False
        now = self._now()
        spent = max(self._spent_until, now)
        if spent - now > 1.0 - 1 / self._most_per_s + 1e-9:
            return False
        self._spent_until = spent + 1 / self._most_per_s
        return True


class Traces:
    """The traces of a process by one reading of their settings."""

    def __init__(
        self,
        settings: TracesSettings,
        spans: Spans | None = None,
        *,
        bits: Callable[[int], int],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`spans` records; None: contexts are only passed on. `bits` gives so many random bits; that an id is zero,
        which none may be, happens once in as many calls as there are ids."""
        self._sampling = Sampling(settings, now)
        self._bound = self._sampling.bound
        self._spans = spans
        self._bits = bits

    def opened(self, record: Record) -> Trace:
        """The part in a trace of a call that was read."""
        call = record.call
        assert call is not None
        names, meta = call.headers.names(), call.params.get("_meta")
        # Nearly every call says nothing of traces.
        if "traceparent" in names or (isinstance(meta, dict) and "traceparent" in meta):
            said = received(call)
            if said.parent is not None:
                return self._joined(said, said.parent, _others(call, said))
        elif "tracestate" not in names and "baggage" not in names:
            return self._begun(NOTHING, ())
        else:
            said = received(call)
        return self._begun(said, _others(call, said))

    def unread(self, record: Record) -> None:
        """A request has ended that never was a call: could it not be read?"""
        if record.refusal is not None:
            trace = record.trace = self._begun(NOTHING, ())
            trace.ended(record)

    def _begun(self, said: Received, others: Fields) -> Trace:
        """It begins a trace."""
        ids = self._bits(192)
        text = ids.to_bytes(24, "big").hex()  # a third of what a format takes
        trace_id = text[:32]
        is_sampled = ids >> 64 & _LOWER_64 < self._bound
        if is_sampled and self._spans is not None:
            return self._spans.opened(trace_id, SAMPLED | RANDOM, said, others, self._bits)
        flags = "03" if is_sampled else "02"  # RANDOM, and SAMPLED
        head = b"traceparent", f"00-{trace_id}-{text[32:]}-{flags}".encode()
        return Passed(trace_id, (head, *others) if others else (head,))

    def _joined(self, said: Received, parent: Remote, others: Fields) -> Trace:
        """It belongs to a trace that its caller began."""
        is_sampled = self._sampling.follows(parent)
        flags = parent.flags & RANDOM | is_sampled
        if is_sampled and self._spans is not None:
            return self._spans.opened(parent.trace_id, flags, said, others, self._bits)
        # Who records nothing is no link of the chain. Who says so instead of the caller needs an id of its own (3.4).
        span_id = parent.span_id if flags == parent.flags else f"{self._bits(64) or 1:016x}"
        return Passed(
            parent.trace_id, ((b"traceparent", write_traceparent(parent.trace_id, span_id, flags)), *others)
        )


class Passed(Struct, gc=False):
    """A call that is not recorded: its context goes on. Fulfils `Trace`."""

    trace_id: str
    _fields: Fields
    is_recorded: bool = False

    def attempted(self, attempt: Try) -> Fields:
        return self._fields

    def attempt_ended(self, attempt: Try) -> None: ...
    def ended(self, record: Record) -> None: ...


def _others(call: Call, said: Received) -> Fields:
    """The fields beside traceparent that go out, and those that may not: without a value."""
    names = call.headers.names()
    fields: list[tuple[bytes, bytes]] = []
    if said.state or "tracestate" in names:
        fields.append((b"tracestate", said.state.encode()))
    if said.baggage or "baggage" in names:
        fields.append((b"baggage", said.baggage.encode()))
    return fields
