"""Settings → the limits room: who is asked, what listens, what runs beside the calls.

In: settings. Out: a `Limiting`. Without limits there is nobody to ask, and nothing listens or runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from ..model import Job, Limit, Listen
from .continuations import Continuations
from .local import Local
from .room import Limits, Store
from .rules import Rules, Tally
from .settings import LimitSettings, LocalStateSettings
from .state_file import StateFile


class Limiting:
    """The limits room as the house uses it."""

    def __init__(
        self,
        limits: Sequence[LimitSettings],
        *,
        local_state: LocalStateSettings | None = None,
        shared: Store | None = None,
        local: Local | None = None,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float],
        warn: Callable[[str], None],
    ) -> None:
        """`shared` is the store that replicas share, where there is one: quotas survive there, and `local_state` says
        nothing. `local` are the buckets of an earlier room. `now` is monotonic, `wall` counts seconds from 1970;
        `warn` hears what an operator should know, in fixed words. IO: reads the file of `local_state`."""
        self._rules = Rules(limits)
        self.local = Local() if local is None else local
        """The buckets, which outlive a change of settings."""
        self.limit: Limit | None = None
        self.listen: Listen | None = None
        """Ears for exchanges."""
        self._file: StateFile | None = None
        if not limits:
            return
        continuations = Continuations() if self._rules.eases else None
        self.listen = None if continuations is None else continuations.listen
        self.limit = Limits(
            self._rules, local=self.local, shared=shared, continuations=continuations, now=now, wall=wall
        )
        if local_state is not None and shared is None:
            self._file = StateFile(local_state, self.local, wall=wall, warn=warn)
            if not len(self.local):
                self._file.load()

    @property
    def jobs(self) -> tuple[Job, ...]:
        """What runs beside the calls."""
        return () if self._file is None else (self._file.run,)

    @property
    def tallies(self) -> Mapping[str, Tally]:
        """What each limit has granted, refused and reported, by its name."""
        return self._rules.tallies

    @property
    def keys(self) -> int:
        """Buckets and counters in memory."""
        return len(self.local)

    @property
    def evictions(self) -> int:
        """Of those, how many were forgotten because they said nothing any more."""
        return self.local.evictions

    @property
    def turned_away(self) -> int:
        """Takes of keys for which there was no room, so that they shared one with others."""
        return self.local.turned_away

    async def close(self) -> None:
        """Write the counters a last time; after the jobs have ended."""
        if self._file is not None:
            await self._file.save()
