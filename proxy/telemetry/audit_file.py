"""A file that lines are only ever appended to, and the ones before it. Blocking: for a thread.

In: a path, whole lines. Out: how the file ended when it was opened. Keeps a descriptor, a lock, and how much there is.
Nothing that was written is ever taken away or written over; what a crash has left of a line stays where it is.

Beside `FILE` lie `FILE.lock`, so that two processes never write one file, and `FILE.<number>`: full files, named after
the number of their first record, so that their names are in their order.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from msgspec import Struct

from .audit_chain import LONGEST_LINE_BYTES
from .audit_verifier import MOST_TORN_BYTES, Read, read_line

_MODE: Final = 0o600
_DIGITS: Final = 12
_TAIL_BYTES: Final = MOST_TORN_BYTES + LONGEST_LINE_BYTES
Sync = Callable[[int], None]


class NotOurs(OSError):
    """`args[0]`: why the file is not used, in fixed words."""


class Found(Struct, frozen=True):
    """How a file ended."""

    last: tuple[Read, str] | None
    """Its last whole line, and the hash of that; None where there is none, here or in the files before."""
    left: bytes = b""
    """What a crash has left behind it."""
    is_begun: bool = True
    """Whether there is a line in this very file."""


class AuditFile:
    """Raises OSError wherever the disk does not do as it is told."""

    def __init__(self, path: str, *, sync: Sync = os.fdatasync) -> None:
        """Take the path for this process; nothing is written yet. Raises NotOurs."""
        self.path = path
        self.size = 0
        """Bytes."""
        self._sync = sync
        self._descriptor = -1
        self._lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise NotOurs("another process writes it") from None

    def open(self) -> Found:
        """Open for appending, and look how it ended. Raises NotOurs for what is no audit file."""
        with suppress(FileNotFoundError):
            os.unlink(self._next_path)  # a rotation was cut short, and nothing stands in it
        earlier = self.earlier()
        if not os.path.lexists(self.path):
            self._descriptor = _created(self.path)
            self.size = 0
            _sync_folder(self.path)
        else:
            self._descriptor = _opened(self.path)
            self.size = os.fstat(self._descriptor).st_size
        found = _end_of(self._descriptor, self.size)
        if found.last is None and earlier:
            return Found(_last_of(earlier[-1]), found.left, is_begun=False)
        return found

    def first(self) -> int:
        """The number of the first record; 1 where it cannot be read."""
        line = os.pread(self._descriptor, LONGEST_LINE_BYTES, 0).partition(b"\n")[0]
        read = read_line(line + b"\n")
        return 1 if read is None else read[0].seq

    def append(self, lines: list[bytes]) -> None:
        """Write what is there and take it away, as far as the disk goes."""
        whole, written = b"".join(lines), 0
        try:
            while written < len(whole):
                written += os.write(self._descriptor, memoryview(whole)[written:])
        finally:
            self.size += written
            lines[:] = [whole[written:]] if written < len(whole) else []

    def synced(self) -> None:
        """Wait until the disk has it."""
        self._sync(self._descriptor)

    def rotated(self, first: int) -> None:
        """Go on in an empty file; `first` is the number of the first record of the one before."""
        descriptor = _created(self._next_path)
        numbered = f"{self.path}.{first:0{_DIGITS}d}"
        try:
            os.rename(self.path, numbered)
            try:
                os.rename(self._next_path, self.path)
            except OSError:
                os.rename(numbered, self.path)
                raise
        except BaseException:
            os.close(descriptor)
            with suppress(OSError):
                os.unlink(self._next_path)
            raise
        with suppress(OSError):  # a crash may then show the old names, and no line is lost by that
            _sync_folder(self.path)
        os.close(self._descriptor)
        self._descriptor, self.size = descriptor, 0

    def earlier(self) -> list[str]:
        """The paths of the full files, the oldest first."""
        folder, name = os.path.split(os.path.abspath(self.path))
        begin = f"{name}."
        numbered = [
            each
            for each in os.listdir(folder)
            if each.startswith(begin) and len(end := each.removeprefix(begin)) == _DIGITS and end.isdecimal()
        ]
        return [os.path.join(folder, each) for each in sorted(numbered)]

    def close(self) -> None:
        """Others may have it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    @property
    def _next_path(self) -> str:
        return f"{self.path}.next"


def _created(path: str) -> int:
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, _MODE)
    try:
        os.fsync(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _opened(path: str) -> int:
    flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotOurs("it is no plain file")
        os.fchmod(descriptor, _MODE)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _sync_folder(path: str) -> None:
    """Names have to survive, too."""
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _end_of(descriptor: int, size: int) -> Found:
    """The last whole line, and what stands behind it. Raises NotOurs where there is none near the end."""
    tail = os.pread(descriptor, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
    end = len(tail)
    while end:
        stop = tail.rfind(b"\n", 0, end)
        begin = tail.rfind(b"\n", 0, stop) + 1 if stop >= 0 else 0
        read = read_line(tail[begin : stop + 1]) if stop >= 0 else None
        if read is not None:
            return Found(read, tail[stop + 1 :])
        end = begin if stop >= 0 else 0
    # The very first line can be torn, too; whatever begins otherwise is somebody's file.
    if tail and not (size == len(tail) <= LONGEST_LINE_BYTES and tail.startswith(b'{"seq":1,')):
        raise NotOurs("it does not end as an audit file does; move it away")
    return Found(None, tail, is_begun=False)


def _last_of(path: str) -> tuple[Read, str] | None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return _end_of(descriptor, os.fstat(descriptor).st_size).last
    finally:
        os.close(descriptor)
