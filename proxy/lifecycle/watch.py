"""Which files have changed? One watcher for the whole process.

In: groups of paths. Out: a call for each group when one of its files is another, or holds something else. Keeps
where each path led and a digest of what was there. Looks instead of being told: inotify hears nothing of the
symlink that Kubernetes swaps above a mounted ConfigMap or Secret, nor of changes made on another machine.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, TypeAlias

from msgspec import Struct

from ..configuration.files import SETTINGS_FILE_BYTES, read_bounded
from ..configuration.mistakes import Unfit
from ..model import Changed

POLL_S: Final = 2.0
"""As often as one may look at a few small files without being noticed; Kubernetes itself takes up to a minute."""


class Sight(Struct, frozen=True):
    """What one look at a path saw: where it leads, and the digest of the content there."""

    leads_to: str
    digest: bytes


Seen: TypeAlias = Mapping[str, Sight | None]
"""What one look saw of each path; None where nothing could be read."""


def look_at(paths: Iterable[str]) -> Seen:
    """One look at each path, however often it is named. IO: reads the files."""
    return {path: _look_at(path) for path in dict.fromkeys(paths)}


def _look_at(path: str) -> Sight | None:
    try:
        # Where it leads is asked first: swapped in between, it will lead elsewhere in the next round.
        leads_to = os.path.realpath(path)
        return Sight(leads_to, hashlib.sha256(read_bounded(path, SETTINGS_FILE_BYTES)).digest())
    except (Unfit, OSError, ValueError):  # ValueError: no path holds a NUL
        return None


class Group:
    """Files that are meant together, a certificate and its key for example. Pure.

    A file that is gone or cannot be read changes nothing: whoever uses it goes on with what it held. It is compared
    with what was last read of it when it can be read again.
    """

    __slots__ = ("_known", "paths")

    def __init__(self, paths: Iterable[str], seen: Seen) -> None:
        self.paths = tuple(paths)
        self._known = {path: seen.get(path) for path in self.paths}

    def has_changed(self, seen: Seen) -> bool:
        """Whether this look saw other files than the one before; takes them for known."""
        others = {path: sight for path in self.paths if (sight := seen.get(path)) is not None}
        others = {path: sight for path, sight in others.items() if sight != self._known[path]}
        self._known.update(others)
        return bool(others)


class Watch:
    """Looks at files again and again, and tells when they change."""

    def __init__(
        self,
        poll_s: float = POLL_S,
        *,
        report: Callable[[Exception], None],
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        look_at: Callable[[Iterable[str]], Seen] = look_at,
    ) -> None:
        """`report` hears of what goes wrong while somebody is told of a change."""
        self._poll_s = poll_s
        self._report = report
        self._sleep = sleep
        self._look_at = look_at
        self._groups: list[tuple[Group, Changed]] = []

    def add(self, paths: Iterable[str], changed: Changed, seen: Seen | None = None) -> None:
        """Call `changed` when a file of these changes: once, however many of them do at a time.

        What they hold now is known, so it is read here, in the caller's thread. Whoever has read them before
        misses a change in between: add first, or say what was `seen` before. What `changed` raises is reported, and it
        is not called again before the next change.
        """
        paths = tuple(paths)
        self._groups.append((Group(paths, self._look_at(paths) if seen is None else seen), changed))

    def remove(self, changed: Changed) -> None:
        """Call it no more, whatever it was added for."""
        # Compared, because a method is another object each time it is named.
        self._groups = [each for each in self._groups if each[1] != changed]

    @property
    def paths(self) -> frozenset[str]:
        """What is looked at."""
        return frozenset(path for group, _ in self._groups for path in group.paths)

    async def run(self) -> None:
        """Look every `poll_s` seconds until cancelled."""
        while True:
            await self._sleep(self._poll_s)
            try:
                await self.look()
            except Exception as error:  # e.g. no more threads: the next round may have one
                self._report(error)

    async def look(self) -> None:
        """Look once at every path, in a thread: a network file system may take its time."""
        groups = tuple(self._groups)  # who is added meanwhile knows more than this round will have seen
        paths = dict.fromkeys(path for group, _ in groups for path in group.paths)
        if not paths:
            return
        seen = await asyncio.to_thread(self._look_at, paths)
        for group, changed in groups:
            if group.has_changed(seen) and (group, changed) in self._groups:
                try:
                    reaction = changed()
                    if reaction is not None:
                        await reaction
                except Exception as error:  # one of them must not keep the others from hearing
                    self._report(error)
