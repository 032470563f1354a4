"""What do Python and its libraries say, and where does it go? Their words become lines about the process.

In: `logging`, `warnings`, exceptions that nobody caught, in the loop, in threads or in destructors. Out: one line each,
with the kind of an exception and the place where it was raised. Never its text, never a local variable, never what a
library put into its words: all of them may quote what they choked on. Source: docs.python.org, `logging`, `warnings`,
`sys.excepthook`, `threading.excepthook`, `sys.unraisablehook`, `loop.set_exception_handler`.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from pathlib import PurePath
from types import TracebackType
from typing import Any, Final, Protocol

MOST_FRAMES: Final = 3
LONGEST_WORDS: Final = 200
_BEGINNING: Final = re.compile(r"[A-Za-z ,!'_-]{0,80}", re.ASCII)
_LEVELS: Final = ((logging.ERROR, "error"), (logging.WARNING, "warning"), (logging.INFO, "info"))


class Life(Protocol):
    def __call__(self, msg: str, level: str = "info", **fields: object) -> None: ...


def redirect(life: Life) -> Callable[[], None]:
    """From now on everything that Python would print goes to `life`. Returns what puts the ways of before back."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level, logging.raiseExceptions, logging.lastResort)
    hooks = (sys.excepthook, threading.excepthook, sys.unraisablehook, warnings.showwarning)
    handler = _Lines(life)
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.raiseExceptions = False  # else a line that cannot be formatted is printed, with all that is in it
    logging.lastResort = handler

    def uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            life("nobody caught", "error", error=kind.__name__, at=place(trace))

    def in_thread(said: threading.ExceptHookArgs) -> None:
        if not issubclass(said.exc_type, SystemExit):
            life("nobody caught", "error", error=said.exc_type.__name__, at=place(said.exc_traceback))

    def unraisable(said: sys.UnraisableHookArgs) -> None:
        kind = said.exc_type.__name__ if said.exc_type is not None else "unknown"
        life("could not be raised", "error", error=kind, at=place(said.exc_traceback))

    def warned(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object, **__: object
    ) -> None:
        life("warned", "warning", category=category.__name__, at=[f"{_short(filename)}:{lineno}"])

    sys.excepthook, threading.excepthook, sys.unraisablehook = uncaught, in_thread, unraisable
    warnings.showwarning = warned

    def restore() -> None:
        root.handlers[:], logging.raiseExceptions, logging.lastResort = before[0], before[2], before[3]
        root.setLevel(before[1])
        sys.excepthook, threading.excepthook, sys.unraisablehook, warnings.showwarning = hooks

    return restore


def of_loop(life: Life) -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    """For `loop.set_exception_handler`."""

    def handler(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        fields: dict[str, object] = {}
        if isinstance(error, BaseException):
            fields = {"error": type(error).__name__, "at": place(error.__traceback__)}
        life("failed in the loop", "error", why=_words(context.get("message")), **fields)

    return handler


class _Lines(logging.Handler):
    """What libraries log."""

    def __init__(self, life: Life) -> None:
        super().__init__()
        self._life = life

    def emit(self, record: logging.LogRecord) -> None:
        level = next((name for least, name in _LEVELS if record.levelno >= least), "debug")
        fields: dict[str, object] = {
            "logger": record.name,
            "at": [f"{_short(record.pathname)}:{record.lineno}"],
        }
        if record.exc_info is not None and record.exc_info[0] is not None:
            fields["error"] = record.exc_info[0].__name__
            fields["at"] = place(record.exc_info[2]) or fields["at"]
        if record.args:
            # The words before anything was put into them. Without that, a library may have put it there itself.
            fields["why"] = str(record.msg)[:LONGEST_WORDS]
        self._life("a library says", level, **fields)


def place(trace: TracebackType | None) -> list[str]:
    """Where something was raised, innermost last: files and lines."""
    frames = traceback.extract_tb(trace)[-MOST_FRAMES:]
    return [f"{_short(frame.filename)}:{frame.lineno}" for frame in frames]


def _short(path: str) -> str:
    return "/".join(PurePath(path).parts[-2:])


def _words(said: object) -> str:
    """How asyncio begins: behind its own words it may show a callback and what that was given."""
    match = _BEGINNING.match(said) if isinstance(said, str) else None
    return "" if match is None else match[0].strip()
