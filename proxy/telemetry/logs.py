"""One JSON line for each call, and lines about the life of the process, to standard error.

In: finished journeys and a few words. Out: lines. Keeps nothing. Never a payload, a header value or a
credential: what is logged is listed here field by field.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import sys
import time
from collections.abc import Callable
from typing import Final

import msgspec

from ..model import Reason
from .journey import Record
from .settings import Level

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
    ) -> None:
        self._write = write or _Stderr().write
        self._encode = msgspec.json.Encoder().encode  # words of closed sets as their values
        self._now = _Clock(wall).now
        self._next_s = 0.0
        self._unsaid = 0
        self._lowest = _RANKS["info"]

    def say_from(self, level: Level) -> None:
        """Lines below this level are not written from now on."""
        self._lowest = _RANKS[level]

    def call(self, record: Record) -> None:
        """A sink for journeys."""
        call, refusal = record.call, record.refusal
        outcome = record.outcome
        level = _level_of(record, outcome)
        if _RANKS[level] < self._lowest:
            return
        if refusal is not None and refusal.reason is Reason.TOO_MANY_FAILURES and not self._may_say(record):
            return
        principal = record.principal
        line: dict[str, object] = {
            "time": self._now(),
            "level": level,
            "msg": "tool call" if call is not None and call.method == "tools/call" else "message",
            "request_id": record.request_id,
        }
        if principal is not None:
            line["tenant"] = principal.tenant
            line["principal"] = principal.subject
        if call is not None:
            line["revision"] = call.revision.name
            line["kind"] = call.kind
            if call.method:
                line["method"] = call.method
            if call.method == "tools/call":
                line["tool"] = call.target
        if record.permit is not None:
            line["rule"] = record.permit.rule.id
        line["outcome"] = outcome
        if refusal is not None:
            line["reason"] = refusal.reason
            if refusal.why:
                line["why"] = refusal.why
            if refusal.__cause__ is not None:
                # The type only: the text of a foreign exception may quote what it choked on.
                line["error"] = type(refusal.__cause__).__name__
        if record.ending is not None:
            line["ending"] = record.ending
        line["duration_s"] = round(record.duration_s, 6)
        line["attempts"] = record.attempts
        if record.cache is not None:
            line["cache"] = record.cache
        if record.reported is not None:
            rule, reason = record.reported
            line["would_refuse"] = {"rule": rule, "reason": reason}
        if record.altered_by:
            line["altered"] = record.altered_by
        if self._unsaid and refusal is not None and refusal.reason is Reason.TOO_MANY_FAILURES:
            line["unsaid"], self._unsaid = self._unsaid, 0
        self._line(line)

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
        self._line({"time": self._now(), "level": level, "msg": msg, **fields})

    def _line(self, line: dict[str, object]) -> None:
        self._write(self._encode(line) + b"\n")


def _level_of(record: Record, outcome: str) -> Level:
    if record.refusal is not None and record.refusal.__cause__ is not None:
        return "error"
    return "warning" if outcome in _WARNED else "info"


class _Clock:
    """The time of a line, in UTC and milliseconds. Only these are written anew within a second."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._second = -1
        self._text = ""

    def now(self) -> str:
        second, ms = divmod(int(self._wall() * 1_000), 1_000)
        if second != self._second:
            self._second = second
            self._text = datetime.datetime.fromtimestamp(second, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._text}.{ms:03d}+00:00"


class _Stderr:
    """Writes what is said in one turn of the loop at once: to write a line costs more than to make it."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._writes_soon: asyncio.AbstractEventLoop | None = None
        """The loop in whose next turn they are written."""

    def write(self, line: bytes) -> None:
        self._lines.append(line)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._flush()  # nothing runs yet, or any more
            return
        if loop is not self._writes_soon:
            self._writes_soon = loop
            loop.call_soon(self._flush)

    def _flush(self) -> None:
        lines, self._lines, self._writes_soon = self._lines, [], None
        # A closed or broken standard error costs lines, never a call.
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.buffer.write(b"".join(lines))
            sys.stderr.buffer.flush()
