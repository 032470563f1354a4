"""A file of signed records, one after another. Blocking: for a thread. In: texts. Out: the texts that are ours.

    head     the name of the format, and 16 random bytes: the file's own number
    record   4 bytes of length, 32 bytes of HMAC, a text whose first byte is its kind

The signature covers the file's number and how many records stand before: a record is nothing in another place, so none
can be copied, moved or taken out of the middle. What cannot be seen is a file that was cut at the end of a record, or
put back as it was yesterday: entries carry their own end.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from .store import Seal

HEAD: Final = b"mcp-sidecar cache file 1\n"
ANY_HEAD: Final = HEAD[:-2]
"""Of any version. What begins otherwise is somebody's file, and is left alone."""
ENTRY: Final = b"p"
"""The kind of a record that holds an entry."""

_NUMBER_BYTES: Final = 16
_LENGTH: Final = struct.Struct("<I")
_KIND_AT: Final = 32
_MODE: Final = 0o600
_READ_BYTES: Final = 1 << 20


class NotOurs(OSError):
    """`args[0]`: what is there instead, in fixed words."""


class Broken:
    """A record that is not ours, or no record at all. Whatever stood before may have been forgotten by it."""


BROKEN: Final = Broken()


class LogFile:
    """Open for appending. Raises OSError wherever the disk does not do as it is told."""

    def __init__(self, descriptor: int, seal: Seal, number: bytes, records: int, size: int) -> None:
        self.size = size
        """Bytes."""
        self._descriptor = descriptor
        self._seal = seal
        self._number = number
        self._records = records

    @classmethod
    def made(cls, path: str, seal: Seal) -> LogFile:
        """An empty one, for its owner only. What is there already is removed, not followed."""
        with suppress(FileNotFoundError):
            os.unlink(path)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
        number = os.urandom(_NUMBER_BYTES)
        made = cls(descriptor, seal, number, 0, 0)
        made._write(HEAD + number)
        return made

    def append(self, text: bytes) -> None:
        record = self._seal.signed(_context(self._number, self._records), text)
        self._write(_LENGTH.pack(len(record)) + record)
        self._records += 1

    def synced(self) -> None:
        """Wait until the disk has it."""
        os.fsync(self._descriptor)

    def emptied(self) -> None:
        """Nothing of it will be read again, whatever becomes of its name."""
        with suppress(OSError):
            os.ftruncate(self._descriptor, 0)

    def close(self) -> None:
        os.close(self._descriptor)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        self.size += len(data)


class Reading:
    """Goes through a file once; afterwards `whole` tells whether one can append to it."""

    def __init__(self, path: str, seal: Seal, *, most_bytes: int, most_record_bytes: int) -> None:
        """Raises OSError where there is no file, and NotOurs for what must not be replaced by ours."""
        self._descriptor = os.open(
            path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        )
        try:
            found = os.fstat(self._descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise NotOurs("it is no plain file")
            self._head = self._exactly(len(HEAD) + _NUMBER_BYTES)
            if self._head and not self._head.startswith(ANY_HEAD):
                raise NotOurs("it is not a file of this cache")
            os.fchmod(self._descriptor, _MODE)
        except OSError:
            os.close(self._descriptor)
            raise
        self._seal = seal
        self._size = found.st_size
        self._is_too_long = found.st_size > most_bytes
        self._most_record_bytes = most_record_bytes
        self._whole: LogFile | None = None

    def texts(self) -> Iterator[bytes | Broken]:
        """Every text, and BROKEN where one cannot be read."""
        head = self._head
        if self._is_too_long or not head.startswith(HEAD) or len(head) < len(HEAD) + _NUMBER_BYTES:
            yield BROKEN
            return
        number = head[len(HEAD) :]
        records, is_whole = 0, True
        while start := self._exactly(_LENGTH.size):
            length = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else 0
            if not _KIND_AT < length <= self._most_record_bytes:
                yield BROKEN
                return
            record = self._exactly(length)
            if len(record) < length:
                # The process died while it wrote. An entry that is not there takes nothing with it; something that was
                # to be forgotten does.
                if record[_KIND_AT : _KIND_AT + 1] != ENTRY:
                    yield BROKEN
                return
            text = self._seal.verified(_context(number, records), record)
            is_whole = is_whole and text is not None
            yield BROKEN if text is None else text
            records += 1
        if is_whole:
            self._whole = LogFile(self._descriptor, self._seal, number, records, self._size)

    def whole(self) -> LogFile | None:
        """The file to append to, where every record was ours. Else it is closed."""
        if self._whole is None:
            os.close(self._descriptor)
        return self._whole

    def _exactly(self, length: int) -> bytes:
        """That many bytes, fewer only at the end."""
        pieces = []
        while length and (piece := os.read(self._descriptor, min(length, _READ_BYTES))):
            pieces.append(piece)
            length -= len(piece)
        return b"".join(pieces)


def _context(number: bytes, records: int) -> bytes:
    return number + records.to_bytes(8, "little")
