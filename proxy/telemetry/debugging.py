"""What exactly happened to the calls of this tenant? For a while, and then no more, whoever forgets about it.

In: what a journey says on its way, of tenants for whom a window is open. Out: one line of level debug a call, with its
steps, the shape of its arguments and the names of its headers; never a value of them. Keeps the open windows, and until
when. Who opened one, and that it ended, is told. Where the settings name no window, nobody listens.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, Protocol

from .journey import Record, Try
from .logs import Log
from .redaction import HIDDEN, hides
from .settings import DebugWindow


class Event(Protocol):
    """Told what happened, and to whom: for records that are not lost."""

    def __call__(self, what: str, **fields: object) -> None: ...


def _nobody(what: str, **fields: object) -> None:
    """Nothing is recorded."""


OPENED: Final = "debug window opened"
CLOSED: Final = "debug window closed"
MAX_DEPTH: Final = 4
MOST_NAMES: Final = 32
"""Of one object, or of the headers."""
LONGEST_SLEEP_S: Final = 60.0
"""Until the clock on the wall is asked again: it may be put forward."""
_NAME: Final = re.compile(r"[A-Za-z_][\w.:/$-]{0,63}", re.ASCII)


class Debugging:
    """Fulfils `lifecycle.survivors.Running`: windows outlive a reload that names them again."""

    def __init__(
        self,
        log: Log,
        wall: Callable[[], float],
        event: Event = _nobody,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._wall = wall
        self._now = now
        self.event = event
        self._until: dict[str, float] = {}
        """Tenant → seconds since 1970."""
        self._look_again: asyncio.TimerHandle | None = None

    def follow(self, windows: Sequence[DebugWindow]) -> None:
        """These are open from now on, and no others. Inside a running loop where there are any."""
        wished: dict[str, float] = {}
        for window in windows:
            if window.until_s > self._wall():
                wished[window.tenant] = max(window.until_s, wished.get(window.tenant, 0.0))
        before, self._until = self._until, wished
        for tenant in before.keys() - wished.keys():
            self._tell(CLOSED, tenant, before[tenant])
        for tenant, until in wished.items():
            if before.get(tenant) != until:
                self._tell(OPENED, tenant, until)
        self._wait()

    async def close(self) -> None:
        if self._look_again is not None:
            self._look_again.cancel()

    def is_open(self, record: Record) -> bool:
        principal = record.principal
        if principal is None:
            return False
        until = self._until.get(principal.tenant)
        return until is not None and until > self._wall()

    def permitted(self, record: Record) -> None:
        """An observer: what was sent is seen now, because it may not be kept any longer."""
        if self.is_open(record):
            rule = record.permit.rule if record.permit is not None else None
            record.notes = [_sent(record)]
            if rule is not None:
                step = {"step": "permitted", "rule": rule.id, "class": rule.tool_class}
                record.notes.append({**step, "at_s": self._since(record)})

    def attempt_ended(self, attempt: Try) -> None:
        """An observer."""
        record = attempt.record
        if record.notes is None:
            return
        step: dict[str, object] = {"step": "attempt", "number": attempt.number}
        step["at_s"] = round(attempt.began - record.received, 6)
        if attempt.duration_s is not None:
            step["duration_s"] = round(attempt.duration_s, 6)
        if attempt.status is not None:
            step["status"] = attempt.status
        if attempt.refused is not None:
            step["reason"] = attempt.refused.reason
        record.notes.append(step)

    def ended(self, record: Record) -> None:
        """A sink."""
        if not self.is_open(record):
            return
        sent, *steps = record.notes or [_sent(record)]
        principal = record.principal
        assert principal is not None
        first: list[dict[str, object]] = [{"step": "identified", "issuer": principal.issuer}]
        if record.denied_by is not None:
            first.append({"step": "denied", "rule": record.denied_by.id})
        if record.waited_s:
            first.append({"step": "waited", "duration_s": round(record.waited_s, 6)})
        if record.cache is not None:
            first.append({"step": "cache", "how": record.cache})
        if record.altered_by:
            steps.append({"step": "altered", "by": list(record.altered_by)})
        end: dict[str, object] = {"step": "ended", "at_s": round(record.duration_s, 6)}
        end["outcome"] = record.outcome
        if record.refusal is not None:
            end["reason"] = record.refusal.reason
        self._log.debug(
            "call in detail",
            request_id=record.request_id,
            tenant=principal.tenant,
            principal=principal.subject,
            roles=sorted(principal.roles),
            **sent,
            steps=[*first, *steps, end],
        )

    def _since(self, record: Record) -> float:
        return round(self._now() - record.received, 6)

    def _tell(self, what: str, tenant: str, until: float) -> None:
        about = {"tenant": tenant, "until": datetime.fromtimestamp(until, UTC).isoformat()}
        self._log.life(what, "warning", **about)
        self.event(what, **about)

    def _wait(self) -> None:
        if self._look_again is not None:
            self._look_again.cancel()
            self._look_again = None
        if self._until:
            left_s = max(0.0, min(self._until.values()) - self._wall())
            loop = asyncio.get_running_loop()
            self._look_again = loop.call_later(min(left_s + 0.001, LONGEST_SLEEP_S), self._expire)

    def _expire(self) -> None:
        self._look_again = None
        for tenant, until in list(self._until.items()):
            if until <= self._wall():
                del self._until[tenant]
                self._tell(CLOSED, tenant, until)
        self._wait()


def _sent(record: Record) -> dict[str, object]:
    """What of a call may be told."""
    call = record.call
    if call is None:
        return {}
    names = [_name(each) for each in list(call.headers.names())[:MOST_NAMES]]
    said: dict[str, object] = {"kind": call.kind, "header_names": names, "body_bytes": len(call.body)}
    if call.method:
        said["method"] = call.method
    if call.method == "tools/call":
        said["tool"] = call.target
        said["arguments"] = shape(call.arguments)
    return said


def shape(value: object, depth: int = MAX_DEPTH) -> object:
    """Types and sizes, without values; of what names itself a credential not even that."""
    if isinstance(value, Mapping):
        if not depth:
            return f"object of {len(value)}"
        shown: dict[str, object] = {}
        for name, each in list(value.items())[:MOST_NAMES]:
            text = str(name)
            shown[_name(text)] = HIDDEN if hides(text) else shape(each, depth - 1)
        if len(value) > MOST_NAMES:
            shown["…"] = f"{len(value) - MOST_NAMES} more"
        return shown
    if isinstance(value, list | tuple):
        if not value or not depth:
            return f"array of {len(value)}"
        return {f"array of {len(value)}": shape(value[0], depth - 1)}
    if isinstance(value, str):
        return f"string of {len(value)}"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    return "null" if value is None else "number"


def _name(name: str) -> str:
    """Names are for programs; what looks otherwise may be a value."""
    return name if _NAME.fullmatch(name) else f"name of {len(name)}"
