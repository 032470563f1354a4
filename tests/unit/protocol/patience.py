"""Bounds on processor time and memory for work that hostile input must not make long or wide.

No stop-watch: between work that grows with the input and work that grows with its square lie factors of a
hundred and more, and the time counted is that of this process alone.
"""

import signal
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class TookTooLong(Exception):
    """The work inside used up its processor time."""


@contextmanager
def processor_seconds(limit_s: float) -> Iterator[None]:
    """Raises TookTooLong inside the block when it uses more than `limit_s` of processor time."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TookTooLong

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def peak_bytes(work: Callable[[], object]) -> int:
    """The most memory that `work` held at any moment, beyond what was held before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
