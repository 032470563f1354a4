"""How do lines leave the process without anybody waiting for them? Standard error, never blocking.

In: whole lines of bytes, from the loop or from threads. Out: the same, in order, to a file descriptor. Keeps at most
`MAX_WAITING_BYTES` of lines that nobody takes; beyond, whole lines are dropped and counted, and a line says so when
there is room again.

The description behind standard error is shared with whoever started us, so that it is never made non-blocking:
`poll` tells that a pipe has room for a page, and no more than PIPE_BUF is written then, which cannot wait (pipe(7)). A
reader that has stopped is looked at again by a timer: uvloop's `add_writer` would make the description non-blocking.
"""

from __future__ import annotations

import asyncio
import os
import select
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from threading import get_ident
from typing import Final

MAX_WAITING_BYTES: Final = 1_048_576
"""Of lines that nobody takes: about 2,500 of them."""
FIRST_LOOK_S: Final = 0.005
LONGEST_LOOK_S: Final = 0.1
"""Between two looks whether somebody takes lines again."""
CLOSING_S: Final = 0.5
"""For the last lines."""
GATHER_S: Final = 0.02
"""How long a line that can wait does so for others: a write costs more than all else that a line does."""
GATHER_BYTES: Final = 16_384
"""What is gathered at most, where so much may be written at once."""
_FILE_BYTES: Final = 262_144
"""Written to a regular file at once."""
_BROKEN: Final = select.POLLERR | select.POLLHUP | select.POLLNVAL


class Output:
    """Lines for one descriptor; None: there is nobody to write to, and every line is dropped."""

    def __init__(
        self,
        fd: int | None,
        *,
        lost: Callable[[int], bytes],
        max_waiting_bytes: int = MAX_WAITING_BYTES,
    ) -> None:
        """`lost` makes the line that says how many were dropped since the last one that said so."""
        self.dropped = 0
        """Lines that nobody will ever read, since the start."""
        self._fd = fd
        self._lost = lost
        self._max = max_waiting_bytes
        self._lines: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._unsaid = 0
        self._looks_in_s = FIRST_LOOK_S
        self._notice = b""
        """The last line about lines that were dropped."""
        self._loop: asyncio.AbstractEventLoop | None = None
        """The last one that ran."""
        self._soon: asyncio.AbstractEventLoop | None = None
        """The one in which the next flush is due."""
        self._gathering: asyncio.TimerHandle | None = None
        """That flush, while all that waits can wait."""
        self._thread: int | None = None
        """The thread of that loop, where it is known."""
        # Warnings and the collector of cycles may write while we do: the same thread must not wait for itself.
        self._lock = threading.RLock()
        self._at_once, self._poll = _kind_of(fd)
        self._enough = min(self._at_once, GATHER_BYTES)

    @property
    def waiting_bytes(self) -> int:
        return self._waiting_bytes

    def write(self, line: bytes) -> None:
        """Take a line; it is written in the next turn of the loop, or at once where none runs. Raises nothing."""
        self._take(line, False)

    def gather(self, line: bytes) -> None:
        """Take a line that can wait: it is written within `GATHER_S`, together with others. Raises nothing."""
        self._take(line, True)

    def _take(self, line: bytes, can_wait: bool) -> None:
        with self._lock:
            if self._unsaid:
                self._say_lost()
            size = self._waiting_bytes + len(line)
            if size > self._max or self._unsaid:
                self.dropped += 1
                self._unsaid += 1
                return
            self._lines.append(line)
            self._waiting_bytes = size
            # Nearly always. To ask for the running loop takes a system call, to ask this one whether it runs does not.
            if self._soon is None or self._thread != get_ident() or not self._soon.is_running():
                self._make_due(can_wait and size < self._enough)
            elif self._gathering is not None and (size >= self._enough or not can_wait):
                self._gathering.cancel()
                self._gathering = None
                self._soon.call_soon(self._turn, self._soon)

    def close(self, within_s: float = CLOSING_S) -> None:
        """Write what can be written in that time."""
        ends = time.monotonic() + within_s
        with self._lock:
            while self._flush() and (left_s := ends - time.monotonic()) > 0:
                if self._poll is not None:
                    self._poll.poll(min(left_s, LONGEST_LOOK_S) * 1000)

    def _make_due(self, can_wait: bool) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._write_outside()
            return
        if loop is not self._soon:
            self._soon = self._loop = loop
            self._gathering = loop.call_later(GATHER_S, self._turn, loop) if can_wait else None
            if self._gathering is None:
                loop.call_soon(self._turn, loop)
        self._thread = get_ident()

    def _write_outside(self) -> None:
        """In a thread, before the loop runs or after: at once, because the loop may be blocked. What cannot be written
        is left to it."""
        if self._flush() and self._soon is None and self._loop is not None:
            with suppress(RuntimeError):  # it is closed: `close` does the rest
                self._loop.call_soon_threadsafe(self._turn, self._loop)
                self._soon, self._thread = self._loop, None

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            self._gathering = None
            if not self._flush():
                self._soon = None
                return
            # What is said meanwhile waits with the rest: nobody tries in every turn.
            loop.call_later(self._looks_in_s, self._turn, loop)
            self._looks_in_s = min(2 * self._looks_in_s, LONGEST_LOOK_S)

    def _flush(self) -> bool:
        """Write as long as nothing waits; whether lines are left that somebody may still take."""
        while self._lines:
            try:
                written = self._write_some() if self._is_ready() else 0
            except OSError:
                self._drop_all()
                return False
            if not written:
                return True
            self._waiting_bytes -= written
            self._looks_in_s = FIRST_LOOK_S
            if self._unsaid:
                self._say_lost()
        return False

    def _is_ready(self) -> bool:
        """Whether a write would not wait. Raises OSError where nobody will ever read."""
        if self._fd is None:
            raise OSError("it was closed before we began")
        events = [] if self._poll is None else self._poll.poll(0)
        if events and events[0][1] & _BROKEN:
            raise OSError("nobody reads any more")
        return self._poll is None or bool(events)

    def _write_some(self) -> int:
        """Write whole lines as far as they fit, or a piece of a long one. Returns how many bytes. Raises OSError."""
        lines = self._lines
        if self._waiting_bytes <= self._at_once:
            chunk = b"".join(lines)
            lines.clear()
        else:
            taken = [lines.popleft()]
            size = len(taken[0])
            while lines and (size := size + len(lines[0])) <= self._at_once:
                taken.append(lines.popleft())
            chunk = b"".join(taken)
        written = 0
        try:
            assert self._fd is not None
            written = os.write(self._fd, chunk[: self._at_once])
        except BlockingIOError:
            pass  # somebody else has made it non-blocking, and was faster than we
        finally:
            if written < len(chunk):
                lines.appendleft(chunk[written:])
        return written

    def _say_lost(self) -> None:
        """Where there is room again, say how many lines are missing here, before the next one comes."""
        if self._waiting_bytes <= self._max // 2:
            self._notice, self._unsaid = self._lost(self._unsaid), 0
            self._lines.append(self._notice)
            self._waiting_bytes += len(self._notice)

    def _drop_all(self) -> None:
        """Nobody will take them."""
        self.dropped += sum(line is not self._notice for line in self._lines)
        self._lines.clear()
        self._waiting_bytes = 0


def _kind_of(fd: int | None) -> tuple[int, select.poll | None]:
    """How many bytes may be written at once, and whom to ask before; a file is always ready."""
    if fd is None:
        return 0, None
    with suppress(OSError):
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return _FILE_BYTES, None
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return select.PIPE_BUF, poll


def standard_error() -> int | None:
    """Its descriptor; None where it was closed before we began: the number may be a client's connection by now."""
    try:
        return None if sys.stderr is None else sys.stderr.fileno()
    except (OSError, ValueError):
        return None
