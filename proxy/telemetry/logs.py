"""One JSON line for each call, and lines about the life of the process, to standard error.

In: finished journeys and a few words. Out: lines, which nobody waits for. Never a payload, a header value or a
credential: what is logged of calls is listed in `call_lines.py` field by field, and known secrets are taken out of
whatever a stranger chose.
"""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Callable
from typing import Final

from ..model import Reason, Refused
from .call_lines import CallLines
from .journey import Record
from .lines import as_json, as_text
from .output import CLOSING_S, Output, standard_error
from .redaction import Redactor
from .settings import Level, Life

_RANKS: Final = {"debug": 0, "info": 1, "warning": 2, "error": 3}
_WARNED: Final = frozenset({"upstream_error", "outcome_unknown", "timeout", "circuit_open"})
"""Outcomes that speak of trouble with the server."""
LINE_EVERY_S: Final = 1.0
"""Between two lines about addresses that are not listened to."""


class Log:
    """Writes lines; `write` takes whole lines of bytes and must not raise."""

    def __init__(
        self,
        write: Callable[[bytes], object] | None = None,
        wall: Callable[[], float] = time.time,  # noqa: TID251  lines are the clock on the wall
        redactor: Redactor | None = None,
    ) -> None:
        """Without `write` lines go to standard error as it is now."""
        fd = None
        self._output: Output | None = None
        if write is None:
            fd = standard_error()
            self._output = Output(fd, lost=self._lost)
            write = self._output.write
        self._write = write
        self._write_call = write if self._output is None else self._output.gather
        self._is_terminal = fd is not None and os.isatty(fd)
        self._as_line = as_text if self._is_terminal else as_json
        self.redactor = redactor or Redactor()
        self._calls = CallLines(self.redactor)
        self._now = _Clock(wall).now
        self._next_s = 0.0
        self._unsaid = 0
        self._lowest = _RANKS["info"]

    @property
    def dropped(self) -> int:
        """Lines that nobody took, since the start."""
        return 0 if self._output is None else self._output.dropped

    def say_from(self, level: Level) -> None:
        """Lines below this level are not written from now on."""
        self._lowest = _RANKS[level]

    def say_life(self, form: Life) -> None:
        """How lines about the process look from now on; "auto": for people where they go to a terminal."""
        is_text = form == "text" or (form == "auto" and self._is_terminal)
        self._as_line = as_text if is_text else as_json

    def close(self, within_s: float = CLOSING_S) -> None:
        """Write what is still to be written, as far as somebody takes it in that time."""
        if self._output is not None:
            self._output.close(within_s)

    def call(self, record: Record) -> None:
        """A sink for journeys."""
        refusal, outcome = record.refusal, record.outcome
        level: Level = "info" if refusal is None and outcome not in _WARNED else _level_of(refusal, outcome)
        if _RANKS[level] < self._lowest:
            return
        unsaid = 0
        if refusal is not None and refusal.reason is Reason.TOO_MANY_FAILURES:
            if not self._may_say(record):
                return
            unsaid, self._unsaid = self._unsaid, 0
        self._write_call(self._calls.line(record, outcome, level, self._now(), unsaid))

    def _may_say(self, record: Record) -> bool:
        """Whoever tries credentials must not fill a disk: one line a second, which counts those before it."""
        ended_s = record.received + record.duration_s
        if ended_s < self._next_s:
            self._unsaid += 1
            return False
        self._next_s = ended_s + LINE_EVERY_S
        return True

    def life(self, msg: str, level: str = "info", **fields: object) -> None:
        """Something about the process: started, draining, stopped."""
        if _RANKS[level] < self._lowest:
            return
        self._write(self._life(msg, level, fields))

    def _life(self, msg: str, level: str, fields: dict[str, object]) -> bytes:
        said = self.redactor.value(fields)
        assert isinstance(said, dict)
        return self._as_line({"time": self._now(), "level": level, "msg": msg, **said}) + b"\n"

    def debug(self, msg: str, **fields: object) -> None:
        """A line of level debug that somebody asked for by name, whatever the lowest level is."""
        said = self.redactor.value(fields)
        assert isinstance(said, dict)
        self._write(as_json({"time": self._now(), "level": "debug", "msg": msg, **said}) + b"\n")

    def _lost(self, count: int) -> bytes:
        return self._life("lines were dropped: nobody took them", "warning", {"dropped": count})


def _level_of(refusal: Refused | None, outcome: str) -> Level:
    if refusal is not None and refusal.__cause__ is not None:
        return "error"
    return "warning" if outcome in _WARNED else "info"


class _Clock:
    """The time of a line, in UTC and milliseconds. Only these are written anew within a second."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._moment = -1
        self._second = -1
        self._day = ""
        self._text = ""

    def now(self) -> str:
        moment = int(self._wall() * 1_000)
        if moment == self._moment:
            return self._text
        self._moment = moment
        second, ms = divmod(moment, 1_000)
        if second != self._second:
            self._second = second
            self._day = datetime.datetime.fromtimestamp(second, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")
        self._text = self._day + _ENDS[ms]
        return self._text


_ENDS: Final = [f".{ms:03d}+00:00" for ms in range(1_000)]
