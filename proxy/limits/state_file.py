"""How do quotas survive a restart? The counters of this process, in a file and back.

In: a path. Out: the same counters in the next process. The file is replaced whole or not at all (written beside,
flushed to the disk, renamed), readable by us only. What it holds are names of limits and holders, and numbers; never
a secret. What does not fit is refused as a whole: a warning, and quotas begin anew.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import threading
from array import array
from collections.abc import Awaitable, Callable
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfoNotFoundError

import msgspec
from msgspec import Meta, Struct

from ..configuration.files import read_bounded, replace_file
from ..configuration.mistakes import Unfit
from .demand import Quota, Window
from .local import LATEST_S, MOST_PLACES, Local
from .quota import SLICES, Count, Counter, Slices
from .settings import MOST_UNITS, LocalStateSettings

MOST_BYTES: Final = 67_108_864
AT_ONCE: Final = 2_000
"""Counters that are written down before calls have their turn: 2 ms."""

_Units = Annotated[int, Meta(ge=1, le=1_000 * MOST_UNITS)]


class _Head(Struct, frozen=True, forbid_unknown_fields=True):
    """The first line."""

    version: Literal[1]
    entries: int
    windows: list[Window]


class _Line(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Each other line."""

    key: Annotated[str, Meta(min_length=1, max_length=256)]
    holder: Annotated[str, Meta(max_length=4_096)]
    window: Annotated[int, Meta(ge=0)]
    """Which of those in the head."""
    used: _Units
    start: Annotated[float, Meta(ge=0, le=LATEST_S)] = 0.0
    end: Annotated[float, Meta(ge=0, le=LATEST_S)] = 0.0
    steps: Annotated[list[int], Meta(max_length=2 * SLICES + 2)] = []
    """As `quota.Slices` has them."""


class StateFile:
    """Keeps the counters of `local` in a file."""

    def __init__(
        self,
        settings: LocalStateSettings,
        local: Local,
        *,
        wall: Callable[[], float],
        warn: Callable[[str], None],
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """`warn` hears what goes wrong, once for each time that it begins to."""
        self._path = settings.file
        self._every_s = settings.every_s
        self._local = local
        self._wall = wall
        self._warn = warn
        self._sleep = sleep
        self._written = 0
        """The changes of `local` that the file has."""
        self._is_failing = False
        self._turn = threading.Lock()
        self._newest = 0
        """Of the contents that threads have, the one that must be there in the end."""

    def load(self) -> int:
        """Put in what the file holds. Returns how many counters. IO: reads the file (at most 64 MiB)."""
        if not os.path.lexists(self._path):
            return 0
        try:
            counters = counters_in(read_bounded(self._path, MOST_BYTES), self._wall())
        except Unfit as unfit:
            self._warn(f"quotas begin anew: the file of local_state {unfit.what}, {unfit.why}")
            return 0
        found = sum(self._local.restore(key, counter) for key, counter in counters)
        if found < len(counters):
            self._warn(f"{len(counters) - found} quotas begin anew: there is no room for so many")
        self._written = self._local.changes
        return found

    async def run(self) -> None:
        """Write what has changed, again and again. Endless."""
        while True:
            await self._sleep(self._every_s)
            await self.save()

    async def save(self) -> None:
        """Write what has changed since the last time. IO: replaces the file, in a thread."""
        changes = self._local.changes
        if changes == self._written:
            return
        content = await self._content()
        self._newest += 1
        try:
            await asyncio.to_thread(self._replace, content, self._newest)
        except OSError as error:
            if not self._is_failing:
                self._warn(f"quotas are not kept: {error.strerror or type(error).__name__}")
            self._is_failing = True
        else:
            self._written = changes
            self._is_failing = False

    async def _content(self) -> bytes:
        windows: dict[Window, int] = {}
        lines: list[bytes] = []
        keys = self._local.keys
        for at in range(0, len(keys), AT_ONCE):
            for key, counter in self._local.quotas(keys[at : at + AT_ONCE]):
                number = windows.setdefault(counter.measure.window, len(windows))
                lines.append(msgspec.json.encode(_line(key, counter, number)))
            await asyncio.sleep(0)
        head = msgspec.json.encode(_Head(version=1, entries=len(lines), windows=list(windows)))
        return b"\n".join((head, *lines, b""))

    def _replace(self, content: bytes, number: int) -> None:
        """In a thread. One at a time: who was cancelled meanwhile may still be at it."""
        with self._turn:
            if number >= self._newest:
                replace_file(self._path, content)


def counters_in(content: bytes, wall: float) -> list[tuple[str, Counter]]:
    """What a file says that still counts at `wall`. Raises Unfit."""
    try:
        first, _, rest = content.partition(b"\n")
        head = msgspec.json.decode(first, type=_Head)
        lines = msgspec.json.Decoder(_Line).decode_lines(rest)
        if head.entries != len(lines) or len(lines) > MOST_PLACES:
            raise Unfit("is not whole", f"{head.entries} lines were written", "remove it")
        counters = [(line.key, _counter(line, head.windows[line.window])) for line in lines]
    except Unfit:
        raise
    # Its texts quote the file.
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Unfit("is not understood", "it is no file that we write", "remove it") from None
    except (IndexError, OverflowError, ValueError, ZoneInfoNotFoundError):
        raise Unfit("is not understood", "it names windows that there are not", "remove it") from None
    return [(key, counter) for key, counter in counters if _counts(counter, wall)]


def _line(key: str, counter: Counter, window: int) -> _Line:
    if isinstance(counter, Slices):
        return _Line(key, counter.holder, window, counter.used, steps=counter.noted().tolist())
    return _Line(key, counter.holder, window, counter.used, counter.start, counter.end)


def _counter(line: _Line, window: Window) -> Counter:
    # How many units there may be is for the settings to say, at the first call.
    measure = Quota(0, window)
    if window.kind != "sliding":
        if window.at(line.start) != (line.start, line.end):
            raise ValueError("no window of this calendar")
        return Count(measure, line.holder, line.used, line.start, line.end)
    numbers, units = line.steps[::2], line.steps[1::2]
    is_whole = len(numbers) == len(units) and sum(units) == line.used
    is_ordered = all(one < other for one, other in itertools.pairwise(numbers))
    if not (is_whole and is_ordered and min(numbers) >= 0 < min(units) and window.sliding_s >= 1):
        raise ValueError("no sliding window")
    return Slices(measure, line.holder, line.used, array("q", line.steps), numbers[-1])


def _counts(counter: Counter, wall: float) -> bool:
    """Not what is over, and not what a clock that was wrong by more than a window wrote down."""
    if isinstance(counter, Slices):
        return abs(math.floor(wall / counter.step_s) - counter.last) <= SLICES
    return 2 * counter.start - counter.end <= wall < counter.end
