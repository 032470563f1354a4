"""When is a record safe? The loop's side of the audit file.

In: entries. Out: whether the disk has them, in time. Keeps which calls are under way and have no record yet, and who
waits; the thread (`audit_scribe.py`) keeps everything else. Outlives a reload: one process, one file, one of these.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import weakref
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol

from ..configuration.mistakes import Position, Report, SettingsError
from ..model import Job
from ..protocol.canonical import written
from .audit_chain import EventLine, encoded
from .audit_parts import Parts
from .audit_scribe import CLOSE_S, RETRY_S, Scribe, Sign, Ways
from .audit_settings import AuditSettings
from .keyed import Keyed
from .redaction import Redactor

FLUSH_S: Final = 0.5
"""Between two groups in batch mode: with what a disk takes for one, less than the second that is promised."""
MOST_WAITING: Final = 16_384
"""Records that wait for a slow disk: about 16 MB. What comes then is lost, counted and told."""
SOON: Final = 2_048
"""Waiting records that are not let wait for the next group."""

_KEY_NAME_DIGITS: Final = 8


class Life(Protocol):
    """Lines about the process."""

    def __call__(self, msg: str, level: str = "info", **fields: object) -> None: ...


class Sees(Protocol):
    """Whoever knows of calls under way."""

    def see(self) -> None:
        """Put records of those that have none."""
        ...


class Open:
    """A call that leaves a record, until it has ended."""

    __slots__ = ("head", "number", "said")

    def __init__(self, head: str) -> None:
        self.head = head
        """Who, what, where: the fields that all its records have."""
        self.number: int | None = None
        """The last record of what became of it; None: there is none yet."""
        self.said: str | None = None
        """What that says."""


class AuditLog:
    """Used inside one running loop, but for the thread's word. Fulfils `Running`."""

    def __init__(
        self,
        settings: AuditSettings,
        *,
        sign: Sign | None,
        life: Life,
        host: str,
        wall: Callable[[], float],
        redactor: Redactor | None = None,
        sync: Callable[[int], None] = os.fdatasync,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        retry_s: float = RETRY_S,
    ) -> None:
        """`life` tells people, `host` names this machine, `sync` and `retry_s` are as `Scribe` has them. Opens
        the file: waits for the disk, a few seconds at most. Raises SettingsError."""
        self._life = life
        self._host = host
        self._wall = wall
        self._sleep = sleep
        self.open: dict[str, Open] = {}
        """The calls under way that leave a record, by request id, whichever reading of the settings let them in."""
        self._sees: weakref.WeakSet[Sees] = weakref.WeakSet()
        self.write_failures = 0
        """How often the disk did not take records, or not in time, and records that were lost."""
        self.trouble: str | None = None
        """Why the disk takes nothing at the moment."""
        self._put = 0
        self._safe = 0
        """The disk has the records up to this number."""
        self._waiting: dict[object, tuple[int, asyncio.Future[bool]]] = {}
        self._loop = asyncio.get_running_loop()
        self._is_closed = False
        self._random_key = secrets.token_bytes(32)
        self._keyed = Keyed(self._random_key)
        self.instance = settings.instance or host
        redactor = redactor or Redactor()
        self._redact = redactor.bytes
        self.parts = Parts(redactor)
        """Of the records of calls."""
        self._scribe = Scribe(
            settings.file,
            _ways(settings, sign),
            told=self._told,
            token=lambda: secrets.token_hex(16),
            wall=wall,
            redact=self._redact,
            sync=sync,
            retry_s=retry_s,
        )
        self._queue = self._scribe.queue
        try:
            self._scribe.open()
        except OSError as error:
            raise _mistake(settings.file, error) from None
        self._followed: tuple[AuditSettings, str] | None = None
        self.follow(settings, sign)

    def follow(self, settings: AuditSettings, sign: Sign | None) -> None:
        """It goes by these settings from now on."""
        signed_by = "" if sign is None else sign.name
        if (settings, signed_by) == self._followed:
            return
        is_first, self._followed = self._followed is None, (settings, signed_by)
        self.instance = settings.instance or self._host
        key = settings.args_key
        self._keyed = Keyed(
            self._random_key if key is None else key.reveal().strip().encode("utf-8", "surrogatepass")
        )
        self._scribe.ways = _ways(settings, sign)
        self.event(
            "started" if is_first else "audit settings changed",
            instance=self.instance,
            mode=settings.mode,
            classes=list(settings.classes),
            signed_by=signed_by,
            # Tells apart under which key two hashes can be compared.
            args_key=self._keyed(b"mcp-sidecar audit key")[:_KEY_NAME_DIGITS],
            args_key_is="random" if settings.args_key is None else "configured",
        )

    @property
    def jobs(self) -> tuple[Job, ...]:
        return (self._run,)

    def seen_by(self, sees: Sees) -> None:
        """Ask this one at each flush, as long as there is it."""
        self._sees.add(sees)

    # What is recorded

    def event(self, what: str, **fields: object) -> None:
        """An operator or the process did something. Never a secret; texts are bounded."""
        self.put(encoded(EventLine("event", what, fields), self._redact))
        self._scribe.wake()

    def put(self, fields: str) -> int:
        """A record: its fields, encoded. The number by which to wait for it; 0 where it is lost."""
        queue = self._queue
        if len(queue) >= SOON:
            self._scribe.wake()
            if len(queue) >= MOST_WAITING:
                return self._lost()
        if self._is_closed:
            return self._lost()
        queue.append((self._wall(), fields))
        self._put += 1
        return self._put

    def _lost(self) -> int:
        self._scribe.lost.total += 1
        self.write_failures += 1
        return 0

    def soon(self) -> None:
        """Do not wait for others."""
        self._scribe.wake()

    def args_hash(self, arguments: object) -> str:
        """HMAC-SHA-256 of the canonical arguments: short ones could be guessed from a plain hash."""
        try:
            return self._keyed(written(arguments))
        except (ValueError, RecursionError):
            return ""  # nothing that a reader lets in; a record without it is better than none

    # Who waits

    async def written(self, numbers: Sequence[int], timeout_s: float, *, is_patient: bool = True) -> bool:
        """Whether the disk has these records, in time. `is_patient`: when that is over the disk hangs; else only
        whoever asks was in a hurry, which must not be held against others."""
        if 0 in numbers or self._is_closed:
            return False
        number = max(numbers)
        if number <= self._safe:
            return True
        me: asyncio.Future[bool] = self._loop.create_future()
        self._waiting[me] = number, me
        self._scribe.wake(is_awaited=True)
        try:
            async with asyncio.timeout(timeout_s):
                return await me
        except TimeoutError:
            if is_patient:
                self.write_failures += 1
                self._is_in_trouble(f"the disk did not answer within {timeout_s:g} s")
            return False
        finally:
            self._waiting.pop(me, None)

    @property
    def waiting(self) -> int:
        """Calls that wait for the disk."""
        return len(self._waiting)

    def _told(self, done: int, why: str | None) -> None:
        """In the thread."""
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._told_here, done, why)

    def _told_here(self, done: int, why: str | None) -> None:
        if why is not None:
            self.write_failures += 1
            self._is_in_trouble(why)
        else:
            self._safe = done
            if self.trouble is not None:
                self.trouble = None
                self._life("audit is written again", failures=self.write_failures)
        for number, future in list(self._waiting.values()):
            if number <= done and not future.done():
                future.set_result(why is None)

    def _is_in_trouble(self, why: str) -> None:
        if self.trouble is None:
            self._life("audit cannot be written", "error", why=why)
        self.trouble = why

    # Beside the calls

    async def _run(self) -> None:
        while True:
            await self._sleep(FLUSH_S)
            self.flush()

    def flush(self) -> None:
        """Let what there is be written. A call under way that has no record gets one: should the process die, it was
        seen."""
        for each in self._sees:
            each.see()
        if not self._scribe.is_idle:
            self._scribe.wake()

    def why_degraded(self) -> Sequence[str]:
        troubles = (
            ("audit cannot be written", self.trouble),
            ("audit is not anchored", self._scribe.anchor_trouble),
            ("audit goes on in a file that is full", self._scribe.rotation_trouble),
        )
        return [f"{what}: {why}" for what, why in troubles if why is not None]

    async def close(self) -> None:
        """What there is reaches the disk, or is given up after a few seconds."""
        if self._is_closed:
            return
        self.flush()
        self._is_closed = True
        if not await asyncio.to_thread(self._scribe.close):
            self._life("audit is not closed", "error", why=f"the disk did not answer within {CLOSE_S:g} s")


def _ways(settings: AuditSettings, sign: Sign | None) -> Ways:
    return Ways(
        checkpoint_records=settings.checkpoint_records,
        checkpoint_s=settings.checkpoint_s,
        max_file_bytes=settings.max_file_bytes,
        keep_files=settings.keep_files,
        anchor=settings.anchor,
        sign=sign,
    )


def _mistake(file: str, error: OSError) -> SettingsError:
    report = Report()
    why = str(error.args[0]) if error.strerror is None else error.strerror
    report.add(
        Position(file),
        "telemetry.audit.file",
        "cannot be written to",
        why,
        "check the path, who may write there, and who else does",
    )
    return SettingsError(report.mistakes)


__all__ = ["AuditLog", "Open"]
