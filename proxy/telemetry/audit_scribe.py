"""Who writes audit records, and what if the disk does not take them? One thread.

In: entries, in the order in which things happened. Out: lines on the disk, many with one fsync, and a word to the loop
for each such group. Keeps the chain, and what the disk has not taken yet, bounded. The thread is a daemon: a disk that
hangs for ever holds up neither the loop nor the end of the process.

A disk that fails is tried again every `RETRY_S`. What was half written is written on from where it stopped, so that no
line is ever cut; when it works again a record tells how long it did not, and how many records are missing.
"""

from __future__ import annotations

import os
import select
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Final, Protocol

from msgspec import Struct

from .audit_chain import Chain, CheckpointLine, Entry, EventLine, Redact, encoded, signed_text
from .audit_file import AuditFile, NotOurs, Sync
from .audit_settings import STDOUT
from .audit_verifier import CLOSE, ROTATION, WRITTEN_AGAIN

RETRY_S: Final = 1.0
"""Between two attempts to write to a disk that fails."""
MOST_AT_ONCE: Final = 4_096
"""Records of one group: about two megabytes."""
PIECE: Final = 128
"""Records that are written at once. More would be a piece of memory that is new each time."""
BREATH: Final = 32
"""Records, 0.1 ms, after which calls have their turn where nobody waits for these: the interpreter would let this
thread go on for 5 ms."""
PAUSE_S: Final = 0.000_2
"""For calls to have it."""
OPEN_S: Final = 5.0
"""How long a file may take to be opened."""
CLOSE_S: Final = 5.0
"""How long the last records have to reach the disk."""
ROTATE_AGAIN_S: Final = 60.0
"""After another file could not be begun."""

Told = Callable[[int, str | None], None]
"""(records that were handed over and are on the disk, or are not; why not). Called in the thread."""


class Sign(Protocol):
    """Signs, under a name."""

    name: str

    def __call__(self, text: bytes) -> bytes: ...


class Ways(Struct, frozen=True, kw_only=True):
    """How it is written, by the settings in force."""

    checkpoint_records: int = 1_000
    checkpoint_s: float = 60.0
    max_file_bytes: int = 67_108_864
    keep_files: int | None = None
    anchor: str | None = None
    sign: Sign | None = None


class Scribe:
    """The thread. `queue` is filled and `wake` called by the loop, everything else in here runs in the thread."""

    def __init__(
        self,
        path: str,
        ways: Ways,
        *,
        told: Told,
        token: Callable[[], str],
        wall: Callable[[], float],
        redact: Redact = bytes,
        sync: Sync = os.fdatasync,
        now: Callable[[], float] = time.monotonic,
        retry_s: float = RETRY_S,
    ) -> None:
        """`told` hears of each group. `token` gives 128 random bits in 32 hexadecimal digits. `redact` is as
        `encoded` has it."""
        self.ways = ways
        """Others may take their place at any time."""
        self.lost: Counted = Counted()
        """Records that had to be dropped, counted by the loop and told when the disk works again."""
        self.anchor_trouble: str | None = None
        """Why the last checkpoint could not be told elsewhere."""
        self.rotation_trouble: str | None = None
        """Why no other file could be begun, so that this one grows."""
        self._path = path
        self._told = told
        self._token = token
        self._wall = wall
        self._redact = redact
        self._sync = sync
        self._now = now
        self._retry_s = retry_s
        self._pause: Callable[[float], object] = time.sleep
        self.queue: deque[Entry] = deque()
        """Entries that the thread has not taken; the loop puts them at its end."""
        self._wake = threading.Event()
        self._opened = threading.Event()
        self._why: OSError | None = None
        self._is_closing = False
        self._is_awaited = False
        """Somebody waits for what is in the queue."""
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._clock = _Clock()
        self._file: AuditFile
        self._chain: Chain
        self._lines: list[bytes] = []
        """What the disk has not taken; the first may be the rest of a line."""
        self._first = 0
        """The number of the first record of this file."""
        self._taken = 0
        self._failing_since: float | None = None
        self._why_failing = ""
        self._failures = 0
        self._unsynced_from = self._doubtful_from = 0
        self._rotate_at = 0.0
        self._since_checkpoint = 0
        self._checkpoint_at = 0.0
        self._to_anchor: bytes | None = None

    # Called by the loop

    def open(self) -> None:
        """Begin. Raises OSError (`NotOurs` for what must not be written to) where the file cannot be used. Waits for
        the disk, at most `OPEN_S`."""
        self._thread.start()
        if not self._opened.wait(OPEN_S):
            self._is_closing = True
            raise NotOurs(f"the disk did not answer within {OPEN_S:g} s")
        if self._why is not None:
            raise self._why

    @property
    def waiting(self) -> int:
        """Records that the thread has not taken."""
        return len(self.queue)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to write or to tell."""
        return not self.queue and not self._since_checkpoint and self._to_anchor is None

    def wake(self, *, is_awaited: bool = False) -> None:
        """Let what was put be written, and without a pause where somebody waits for it."""
        if is_awaited:
            self._is_awaited = True
        if not self._wake.is_set():
            self._wake.set()

    def close(self) -> bool:
        """Write what there is, say goodbye, and end. False where the disk does not let it. Blocking, at most
        `CLOSE_S`."""
        self._is_closing = True
        self._wake.set()
        self._thread.join(CLOSE_S)
        return not self._thread.is_alive()

    # In the thread

    def _run(self) -> None:
        try:
            self._open()
        except OSError as error:
            self._why = error
            self._opened.set()
            return
        self._opened.set()
        while True:
            self._wake.wait(None if self._failing_since is None else self._retry_s)
            self._wake.clear()
            is_closing = self._is_closing
            try:
                self._turn()
                while self.queue and self._failing_since is None:
                    self._turn()
                if is_closing:
                    self._say_goodbye()
            except OSError as error:
                self._failed(error)
            except (
                Exception
            ) as error:  # whatever it is, calls must hear of it, and the next record is another one
                self._failed(OSError(type(error).__name__))
            if is_closing:
                self._file.close()
                return

    def _open(self) -> None:
        file = AuditFile(self._path, sync=self._sync)
        try:
            found = file.open()
            self._file = file
            if found.last is None:
                self._chain = Chain(self._token())
            else:
                last, hash_ = found.last
                self._chain = Chain(last.chain, last.seq, hash_)
            if found.left:
                # It stays where it is, as evidence; it only gets an end, so that the next line begins a line.
                self._lines.append(b"" if found.left.endswith(b"\n") else b"\n")
                left = {"bytes": len(found.left), "sha256": sha256(found.left).hexdigest()}
                self._event("torn", "what a crash left", left)
            self._first = 1
            if not found.is_begun:
                self._begin(is_new=found.last is None)
            else:
                self._first = file.first()
            self._checkpoint("open")
            self._write()
        except BaseException:
            file.close()
            raise

    def _turn(self) -> None:
        """One group. Raises OSError."""
        if self._failing_since is not None:
            self._write()  # what was half written
            self._recovered()
        ways = self.ways
        if self._file.size >= ways.max_file_bytes and self._now() >= self._rotate_at:
            self._rotate()
        count = min(len(self.queue), MOST_AT_ONCE)
        hurries, self._is_awaited = self._is_awaited or self._is_closing, False
        take, time_of, sealed, lines = self.queue.popleft, self._clock.text, self._chain.sealed, self._lines
        for left in range(count, 0, -1):
            if not left % BREATH and not (hurries or self._is_awaited):
                self._pause(PAUSE_S)
            self._taken += 1
            at, fields = take()
            lines.append(sealed(time_of(at), fields))
            if len(lines) >= PIECE:
                self._file.append(lines)
        self._since_checkpoint += count
        is_due = self._since_checkpoint >= ways.checkpoint_records or (
            self._since_checkpoint and self._now() >= self._checkpoint_at
        )
        if is_due:
            self._checkpoint("interval")
        if self._lines or count:
            self._write()
        if count:
            self._told(self._taken, None)
        self._anchor()

    def _write(self) -> None:
        self._file.append(self._lines)
        self._file.synced()
        self._unsynced_from = self._chain.seq + 1

    def _add(self, at: float, fields: str) -> None:
        self._lines.append(self._chain.sealed(self._clock.text(at), fields))

    def _event(self, kind: str, what: str, fields: Mapping[str, object]) -> None:
        self._add(self._wall(), encoded(EventLine(kind, what, dict(fields)), self._redact))

    def _begin(self, *, is_new: bool = False) -> None:
        """The first line of a file."""
        self._first = self._chain.seq + 1
        self._event("file", "begins" if is_new else "goes on", {"format": 1})

    def _checkpoint(self, why: str) -> None:
        chain, sign, at = self._chain, self.ways.sign, self._clock.text(self._wall())
        key = signature = ""
        if sign is not None:
            key = sign.name
            signature = sign(signed_text(chain.id, chain.seq + 1, chain.last, at)).hex()
        self._to_anchor = chain.sealed(at, encoded(CheckpointLine("checkpoint", why, key, signature)))
        self._lines.append(self._to_anchor)
        self._since_checkpoint = 0
        self._checkpoint_at = self._now() + self.ways.checkpoint_s

    def _rotate(self) -> None:
        """Go on in another file. Where that cannot be begun, this one grows."""
        self._checkpoint(ROTATION)
        self._write()
        self._anchor()
        try:
            self._file.rotated(self._first)
        except OSError as error:
            self.rotation_trouble = _in_words(error)
            self._rotate_at = self._now() + ROTATE_AGAIN_S
            return
        self.rotation_trouble = None
        self._begin()
        keep = self.ways.keep_files
        for path in [] if keep is None else self._file.earlier()[:-keep]:
            self._event("event", "old file removed", {"file": os.path.basename(path)})
            self._write()  # said before it is done
            os.unlink(path)

    def _say_goodbye(self) -> None:
        self._event("event", "stopped", {})
        self._checkpoint(CLOSE)
        self._write()
        self._anchor()

    # A disk that fails

    def _failed(self, error: OSError) -> None:
        self._failures += 1
        self._why_failing = _in_words(error)
        if self._failing_since is None:
            self._failing_since = self._wall()
            self._doubtful_from = self._unsynced_from
        self._told(self._taken, self._why_failing)

    def _recovered(self) -> None:
        since, self._failing_since = self._failing_since, None
        fields = {
            "since": self._clock.text(since or 0.0),
            "why": self._why_failing,
            "failures": self._failures,
            "lost": self.lost.taken(),
            "doubtful_from": self._doubtful_from,
        }
        self._failures = 0
        self._event("event", WRITTEN_AGAIN, fields)
        self._write()
        self._told(self._taken, None)

    # Elsewhere

    def _anchor(self) -> None:
        """Tell the last checkpoint elsewhere. Nobody waits for that: a pipe that nobody reads must not stop calls."""
        line, where = self._to_anchor, self.ways.anchor
        if line is None or where is None:
            self._to_anchor = None
            return
        try:
            if where == STDOUT:
                _say(sys.stdout.fileno(), line)
            else:
                _append(where, line)
        except (OSError, ValueError) as error:
            self.anchor_trouble = _in_words(error)
        else:
            self._to_anchor = self.anchor_trouble = None


class Counted:
    """Something one thread counts and another one tells."""

    def __init__(self) -> None:
        self.total = 0
        self._told = 0

    def taken(self) -> int:
        """How many there were since the last time."""
        total = self.total
        since, self._told = total - self._told, total
        return since


def _in_words(error: Exception) -> str:
    if isinstance(error, NotOurs):
        return str(error.args[0])
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _say(descriptor: int, line: bytes) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        if not any(event & select.POLLOUT for _, event in poll.poll(0)):
            raise BlockingIOError("nobody reads it")
    os.write(descriptor, line)


def _append(path: str, line: bytes) -> None:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        os.write(descriptor, line)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Clock:
    """The time of a record: UTC, microseconds."""

    def __init__(self) -> None:
        self._second = -1
        self._form = ""

    def text(self, at: float) -> str:
        second, micros = divmod(int(at * 1_000_000 + 0.5), 1_000_000)
        if second != self._second:
            self._second = second
            self._form = time.strftime("%Y-%m-%dT%H:%M:%S.%%06dZ", time.gmtime(second))
        return self._form % micros


__all__ = ["Counted", "Scribe", "Sign", "Ways"]
