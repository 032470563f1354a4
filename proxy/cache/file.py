"""Answers that survive a restart: a `Memory`, and a file that says how it came to be what it is.

In: entries, and what is forgotten. Out: what the memory gives; the file is read once, at the start. Keeps the memory,
and a thread that writes: nothing waits for a disk but `forget`, which must not be undone by a crash.

Why a log and not a file for each entry, or a database: what is told comes from memory anyhow, one appended piece costs
the thread 10 µs, and every byte of it is signed before anything looks at it. A log that has grown to twice the memory
is written anew beside the old one, a few entries at a time, and takes its name.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Final, TypeAlias, TypeVar

from msgspec import Struct

from ..model import Job
from .entry import Entry
from .log_file import ENTRY, Broken, LogFile, NotOurs, Reading
from .memory import Memory
from .store import Counts, Forget, Mark, Seal, read_forget, unpacked, written

PAUSE_S: Final = 10.0
"""After a disk did not do as it was told."""
FORGET_S: Final = 1.0
"""How long forgetting waits for the disk. Only a crash within what is left unwritten could undo it."""
MOST_BACKLOG_BYTES: Final = 8 * 1024 * 1024
"""Of entries that wait for a slow disk; beyond it they are in memory only."""

_FORGET: Final = b"f"
_EVERYTHING: Final = b"x"
_DIGEST_BYTES: Final = 32
_SLICE: Final = 64
_SLICE_BYTES: Final = 262_144
"""Entries that are looked at in one turn of the loop: about 1 ms."""
_ROOM_BYTES: Final = 1024 * 1024
"""Of a record, beside the largest result: material, target."""


class _Put(Struct, frozen=True, gc=False):
    digest: bytes
    entry: Entry


class _Flush(Struct, frozen=True):
    """Forget everything."""


_Change: TypeAlias = _Put | Forget | _Flush
Result = TypeVar("Result")


class File:
    """A store of one process: the file is locked, and where somebody else has it, this one is memory only."""

    def __init__(
        self,
        memory: Memory,
        path: str,
        seal: Seal,
        *,
        max_bytes: int,
        max_entry_bytes: int,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """`max_bytes` as the memory has it: the file takes up to twice as much, and half as much again while it is
        written anew. Until the job has read the file, everything is a miss."""
        self.memory = memory
        """What of it is at hand."""
        self._disk = _Disk(path, seal, 2 * max_bytes, max_entry_bytes + _ROOM_BYTES)
        self._sleep = sleep
        self._thread = ThreadPoolExecutor(1, "cache-file")
        self._changes: deque[tuple[_Change, asyncio.Future[None] | None]] = deque()
        self._backlog_bytes = 0
        self._loaded = asyncio.Event()
        self._is_draining = False
        self._is_closed = False
        self._grown = asyncio.Event()
        self._own: Counter[str] = Counter()

    @property
    def counts(self) -> Counts:
        return Counter(self.memory.counts) + self._own + self._disk.counts

    @property
    def bytes_held(self) -> int:
        return self.memory.bytes_held

    async def loaded(self) -> None:
        """Wait until the file was read."""
        await self._loaded.wait()

    @property
    def trouble(self) -> str | None:
        """Why the file is not used, in fixed words for an operator."""
        return self._disk.trouble

    @property
    def jobs(self) -> tuple[Job, ...]:
        return (self._run,)

    def mark(self) -> Mark:
        return self.memory.mark()

    def look(self, digest: bytes) -> Entry | None:
        return self.memory.look(digest)

    async def get(self, digest: bytes) -> Entry | None:
        return self.memory.look(digest)

    async def put(self, digest: bytes, entry: Entry, asked: Mark) -> None:
        # What is stored before the file was read would be put below what is older.
        if self._loaded.is_set() and self.memory.keep(digest, entry, asked):
            self._write(_Put(digest, entry))

    async def forget(self, what: Forget) -> None:
        self.memory.drop(what)
        await self._written(what)

    async def flush(self) -> None:
        self.memory.empty()
        await self._written(_Flush())

    async def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        loop = asyncio.get_running_loop()
        changes = self._taken()
        await loop.run_in_executor(self._thread, self._disk.close, [change for change, _ in changes])
        self._told([told for _, told in changes])
        self._thread.shutdown(wait=False)

    # Writing

    def _write(self, change: _Change, told: asyncio.Future[None] | None = None) -> None:
        if self._is_closed:
            # A call that ends later than its house.
            self._own["unwritten"] += 1
            self._told([told])
            return
        if isinstance(change, _Put):
            size = len(change.entry.result) + len(change.entry.material)
            if self._backlog_bytes + size > MOST_BACKLOG_BYTES:
                self._own["unwritten"] += 1
                return
            self._backlog_bytes += size
        self._changes.append((change, told))
        self._drain()

    async def _written(self, change: Forget | _Flush) -> None:
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._write(change, told)
        try:
            async with asyncio.timeout(FORGET_S):
                await told
        except TimeoutError:
            self._own["unwritten"] += 1

    def _drain(self) -> None:
        """Hand everything to the thread, as one piece of work at a time."""
        if self._is_draining or not self._loaded.is_set() or not self._changes:
            return
        self._is_draining = True
        changes = self._taken()
        work = asyncio.get_running_loop().run_in_executor(
            self._thread, self._disk.write, [change for change, _ in changes]
        )

        def done(work: asyncio.Future[None]) -> None:
            self._is_draining = False
            if not work.cancelled() and work.exception() is not None:
                self._own["unwritten"] += len(changes)
            self._told([told for _, told in changes])
            if self._disk.wants_rewriting:
                self._grown.set()
            self._drain()

        work.add_done_callback(done)

    def _taken(self) -> list[tuple[_Change, asyncio.Future[None] | None]]:
        changes = list(self._changes)
        self._changes.clear()
        self._backlog_bytes = 0
        return changes

    @staticmethod
    def _told(futures: list[asyncio.Future[None] | None]) -> None:
        for future in futures:
            if future is not None and not future.done():
                future.set_result(None)

    # Beside the calls

    async def _run(self) -> None:
        if not self._loaded.is_set():
            await self._load()
        while True:
            while self._disk.wants_rewriting:
                if not await self._rewritten():
                    await self._sleep(PAUSE_S)
            self._grown.clear()
            await self._grown.wait()

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _load(self) -> None:
        """Do again what the file says was done."""
        await self._in_thread(self._disk.open)
        while changes := await self._in_thread(self._disk.read):
            for change in changes:
                self._again(change)
        for change, _ in self._changes:
            # What was forgotten meanwhile stands behind everything in the file.
            self._again(change)
        if self._disk.wants_rewriting:
            await self._rewritten()
        self._loaded.set()
        self._drain()

    def _again(self, change: _Change) -> None:
        match change:
            case _Put(digest, entry):
                self.memory.keep(digest, entry, self.memory.mark())
            case Forget():
                self.memory.drop(change)
            case _Flush():
                self.memory.empty()

    async def _rewritten(self) -> bool:
        """Write everything that is there into a new file, while others go on."""
        if not await self._in_thread(self._disk.begin):
            return False
        digests = iter(self.memory.digests())
        while some := list(islice(digests, _SLICE)):
            found = [(digest, self.memory.look(digest)) for digest in some]
            puts = [_Put(digest, entry) for digest, entry in found if entry is not None]
            # Whoever changes them from now on stands behind them in the thread's queue.
            await self._in_thread(partial(self._disk.copy, puts))
        return bool(await self._in_thread(self._disk.end))


class _Disk:
    """What the thread does. Only `trouble`, `wants_rewriting` and `counts` are read by others."""

    def __init__(self, path: str, seal: Seal, most_bytes: int, most_record_bytes: int) -> None:
        self.trouble: str | None = None
        self.counts: Counter[str] = Counter()
        self._path = path
        self._seal = seal
        self._most_bytes = most_bytes
        self._most_record_bytes = most_record_bytes
        self._was_opened = False
        self._lock: int | None = None
        self._changes: Iterator[_Change] = iter(())
        self._log: LogFile | None = None
        self._next: LogFile | None = None

    @property
    def wants_rewriting(self) -> bool:
        """The file is too long, or there is none."""
        return self._lock is not None and (self._log is None or self._log.size > self._most_bytes)

    def open(self) -> None:
        """Take the file for this process."""
        self._was_opened = True
        try:
            self._lock = os.open(
                f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            reading = Reading(
                self._path,
                self._seal,
                # Longer than we ever let it grow, by a whole rewriting of it.
                most_bytes=2 * self._most_bytes,
                most_record_bytes=self._most_record_bytes,
            )
        except FileNotFoundError:
            if self._lock is None:
                self._give_up("its directory is not there")
        except BlockingIOError:
            self._give_up("another process uses it")
        except NotOurs as other:
            self._give_up(str(other))
        except OSError:
            self._give_up("it cannot be opened")
        else:
            self._changes = self._all(reading)

    def _give_up(self, why: str) -> None:
        self.trouble = why
        self.counts["outage"] += 1
        self._unlock()

    def _unlock(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def read(self) -> list[_Change]:
        """Some of what the file says; nothing at its end."""
        some: list[_Change] = []
        size = 0
        for change in self._changes:
            some.append(change)
            size += len(change.entry.result) if isinstance(change, _Put) else 0
            if len(some) >= _SLICE or size >= _SLICE_BYTES:
                break
        return some

    def _all(self, reading: Reading) -> Iterator[_Change]:
        for text in reading.texts():
            if isinstance(text, Broken):
                self.counts["forged"] += 1
                yield _Flush()
            elif text[:1] == ENTRY:
                entry = unpacked(text[1 + _DIGEST_BYTES :])
                if entry is None:
                    self.counts["foreign"] += 1
                else:
                    yield _Put(text[1 : 1 + _DIGEST_BYTES], entry)
            elif text[:1] == _FORGET:
                yield read_forget(text[1:])
            else:
                yield _Flush()
        self._log = reading.whole()
        if self._log is None:
            self._remove()

    def _remove(self) -> None:
        """It must not be read again: what is forgotten from now on would not be in it."""
        with suppress(OSError):
            os.unlink(self._path)

    def write(self, changes: list[_Change]) -> None:
        for change in changes:
            text = self._text(change)
            if self._log is None:
                self.counts["unwritten"] += 1
            self._log = self._appended(self._log, text, self._path)
            self._next = self._appended(self._next, text, self._new_path)

    def _text(self, change: _Change) -> bytes:
        match change:
            case _Put(digest, entry):
                return ENTRY + digest + self._seal.packed(entry)
            case Forget():
                return _FORGET + written(change)
            case _Flush():
                return _EVERYTHING

    def _appended(self, log: LogFile | None, text: bytes, path: str) -> LogFile | None:
        """The file; None where it cannot be written any more. Then it must not be read again, either: what was to be
        forgotten is still in it."""
        if log is None:
            return None
        try:
            log.append(text)
        except OSError:
            self.counts["unwritten"] += 1
            log.emptied()
            log.close()
            with suppress(OSError):
                os.unlink(path)
            return None
        return log

    # A new file

    @property
    def _new_path(self) -> str:
        return f"{self._path}.new"

    def begin(self) -> bool:
        """Open a file beside the old one."""
        try:
            self._next = LogFile.made(self._new_path, self._seal)
        except OSError:
            self.counts["unwritten"] += 1
            return False
        return True

    def copy(self, puts: list[_Put]) -> None:
        """Write what was there before into the new file only."""
        for put in puts:
            self._next = self._appended(self._next, self._text(put), self._new_path)

    def end(self) -> bool:
        """The new file takes the name of the old one."""
        if self._next is None:
            return False
        try:
            self._next.synced()
            os.rename(self._new_path, self._path)
        except OSError:
            self.counts["unwritten"] += 1
            self._abandon()
            return False
        if self._log is not None:
            self._log.close()
        self._log, self._next = self._next, None
        return True

    def _abandon(self) -> None:
        new, self._next = self._next, None
        if new is not None:
            new.close()
            with suppress(OSError):
                os.unlink(self._new_path)

    def close(self, changes: list[_Change]) -> None:
        if self._log is None and changes:
            # The job never came so far. What was to be forgotten may be in the file.
            if not self._was_opened:
                self.open()
            if self._lock is not None:
                self._remove()
        self.write(changes)
        self._abandon()
        log, self._log = self._log, None
        if log is not None:
            log.close()
        self._unlock()
