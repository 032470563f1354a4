"""Where is the loop blocked? A thread that looks at it, because whoever is blocked cannot say so.

In: a beat for each time that the loop turned. Out: the places in the code where it stands when there was none for
`BLOCKED_S`, once each time. Keeps a thread. It tells files, lines and names of functions, never a value. Where
something holds the interpreter itself (a long C function does), it is told when that lets go, or not at all.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import PurePath
from types import FrameType
from typing import Final

BLOCKED_S: Final = 1.0
LOOK_EVERY_S: Final = 0.5
MOST_FRAMES: Final = 12
"""From the innermost outwards."""
NAMED_PARTS: Final = 3
"""Of a path, from its end: where a program is installed is nobody's business."""

CLOSE_S: Final = 1.0
"""It may be stuck where it tells, and the process ends all the same."""

Frames = Callable[[], FrameType | None]


def places(frame: FrameType | None) -> list[str]:
    """Where it stands, the innermost first: "proxy/protocol/jsonrpc.py:120 read_json"."""
    found: list[str] = []
    while frame is not None and len(found) < MOST_FRAMES:
        code = frame.f_code
        file = "/".join(PurePath(code.co_filename).parts[-NAMED_PARTS:])
        found.append(f"{file}:{frame.f_lineno} {code.co_name}")
        frame = frame.f_back
    return found


class LoopWatch:
    """Looks at the thread it was started in."""

    def __init__(
        self,
        tell: Callable[[float, Sequence[str]], None],
        *,
        blocked_s: float = BLOCKED_S,
        look_every_s: float = LOOK_EVERY_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`tell` hears how long it has been blocked by now, in seconds, and where; in the thread that looks."""
        self._tell = tell
        self._blocked_s = blocked_s
        self._look_every_s = look_every_s
        self._now = now
        self._beat_at = now()
        self._told_of = -1.0
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def beat(self) -> None:
        """The loop turned."""
        self._beat_at = self._now()

    def look(self, where: Frames) -> None:
        """One look: tell where it stands, once, if it has been silent for too long."""
        beat_at = self._beat_at
        silent_s = self._now() - beat_at
        if silent_s < self._blocked_s or beat_at == self._told_of:
            return
        self._told_of = beat_at
        self._tell(silent_s, places(where()))

    def start(self) -> None:
        """Look at the thread that calls this."""
        watched = threading.get_ident()
        self._over.clear()
        self.beat()

        def where() -> FrameType | None:
            return sys._current_frames().get(watched)

        def run() -> None:
            while not self._over.wait(self._look_every_s):
                self.look(where)

        self._thread = threading.Thread(target=run, name="loop-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(CLOSE_S)
