"""How do spans reach whoever collects them, and what if nobody takes them?

In: spans that have ended. Out: batches of them to an exporter, in a thread. Keeps at most `MAX_WAITING` spans, those
that are being sent included; what comes beyond is dropped and counted. A call never waits for any of this, and neither
does a reload or the end of the process for longer than `FLUSH_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from ..model import Job

MAX_WAITING: Final = 2_048
MAX_BATCH: Final = 256
"""To write down 512, as OpenTelemetry does by default, holds the interpreter twice as long at a time."""
EVERY_S: Final = 2.0
FLUSH_S: Final = 2.0
"""How long an end waits for spans that are on their way."""
QUEUE_FULL: Final = "queue is full"

Tell = Callable[[str | None, int], None]
"""Why spans do not arrive, or None when they do again; and how many were lost since it was told last."""


class Exports(SpanProcessor):
    """Takes spans in the event loop, and hands them on. A `SpanProcessor` for whoever makes spans by the SDK."""

    def __init__(
        self, exporter: SpanExporter, *, tell: Tell, why: Callable[[], str | None], every_s: float = EVERY_S
    ) -> None:
        """`why` says in a word what became of the last export that failed."""
        quieten()
        self._watched = _Watched(exporter, self._exported)
        self._batches = BatchSpanProcessor(
            self._watched,
            max_queue_size=MAX_WAITING,
            schedule_delay_millis=every_s * 1_000,
            max_export_batch_size=MAX_BATCH,
        )
        self._tell = tell
        self._why = why
        self._news = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._trouble: str | None = None
        self._told: str | None = None
        self._taken = 0
        self.exported = 0
        """Spans that arrived."""
        self.failed = 0
        """Spans that were sent in vain."""
        self.dropped = 0
        """Spans that were not sent, because too many waited."""
        self._lost_before = 0
        self.jobs: tuple[Job, ...] = (self._tell_changes,)

    @property
    def waiting(self) -> int:
        """Spans that are on their way."""
        return self._taken - self.exported - self.failed

    def add(self, spans: Sequence[ReadableSpan]) -> None:
        """Send them, sooner or later, or never."""
        for span in spans:
            if self.waiting >= MAX_WAITING:
                self.dropped += 1
                if self._trouble is None:
                    self._trouble = QUEUE_FULL
                    self._news.set()
            else:
                self._taken += 1
                self._batches.on_end(span)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None: ...

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is not None and span.context.trace_flags.sampled:
            self.add((span,))

    def flush(self) -> None:
        """Send what waits, now. Blocks: not for the event loop."""
        self._batches.force_flush()

    async def close(self) -> None:
        """Send what waits, but do not wait for it longer than `FLUSH_S`."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def shut() -> None:
            self._batches.shutdown()  # type: ignore[no-untyped-call]
            with contextlib.suppress(RuntimeError):  # nobody waited so long
                loop.call_soon_threadsafe(done.set)

        # A thread of our own: those of the loop are waited for when the process ends.
        threading.Thread(target=shut, name="last spans", daemon=True).start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S):
                await done.wait()
        self._watched.shutdown()  # whoever waits to try again need not
        lost = self.failed + self.dropped + self.waiting - self._lost_before
        if lost:
            self._tell(self._trouble or "too slow", lost)

    def _exported(self, count: int, arrived: bool) -> None:
        """In the thread: so many were sent, and they did or did not arrive."""
        if arrived:
            self.exported += count
        else:
            self.failed += count
        self._trouble = None if arrived else self._why() or "refused"
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._news.set)

    async def _tell_changes(self) -> None:
        """Say once that spans do not arrive, and once that they do."""
        self._loop = asyncio.get_running_loop()
        while True:
            trouble = self._trouble
            if (trouble is None) != (self._told is None):
                lost = self.failed + self.dropped
                self._told = trouble
                self._tell(trouble, lost - self._lost_before)
                self._lost_before = lost
            self._news.clear()
            await self._news.wait()


class _Watched(SpanExporter):
    """An exporter whose every export is heard of, and that sends nothing when all is over."""

    def __init__(self, exporter: SpanExporter, exported: Callable[[int, bool], None]) -> None:
        self._exporter = exporter
        self._exported = exported
        self.is_closed = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        try:
            if not self.is_closed:
                result = self._exporter.export(spans)
        except Exception:  # what it says may quote what it was to send
            result = SpanExportResult.FAILURE
        finally:
            self._exported(len(spans), result is SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self._exporter.shutdown()


def quieten() -> None:
    """What libraries of exporters log goes nowhere: it quotes addresses and header fields, once for each batch. We say
    ourselves what there is to say."""
    for name in ("opentelemetry", "urllib3", "requests"):
        logger = logging.getLogger(name)
        logger.propagate = False
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())
