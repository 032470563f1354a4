"""Settings → the room: the stage that has places, and the stage that keeps a pace.

In: settings. Out: a `Room`, which puts its stages around the server's side. Keeps nothing; its stages do.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..configuration.folding import fold
from ..model import Deadline, Permit, Reason, Refused, Reply, Shelve, Stage, never_ends, shelve_nothing
from .gradient import Gradient
from .settings import CapacitySettings
from .slots import Slots
from .stage import Roomy, never

if TYPE_CHECKING:
    from .pace import Paced

SMALLEST_SHARE = 8
"""Places never become fewer than one in so many, where no floor is written."""


class Room:
    """The capacity room as the house uses it."""

    def __init__(
        self,
        settings: CapacitySettings,
        *,
        deadline: Deadline = never_ends,
        is_short: Callable[[], bool] = never,
        shelve: Shelve = shelve_nothing,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`deadline` says when a call is over whatever happens, `is_short` whether there is no memory for more calls;
        `now` is monotonic, in seconds. `shelve` gives the places of before a reload, with those who hold them: they
        count as long as the settings are the same."""
        self._settings = settings
        self._deadline = deadline
        self._is_short = is_short
        self._now = now
        self._shelve = shelve
        self._roomy: Roomy | None = None
        self._paced: Paced | None = None

    def guarded(self, serve: Stage) -> Stage:
        """The stage that has places. Stands before what repeats attempts."""
        self._roomy = self._shelve("places", self._settings, self._places).before(serve, self._deadline)
        return self._roomy

    def _places(self) -> Roomy:
        """The places alone. They outlive the stages of this reading of the settings, and must not keep them."""
        settings = self._settings
        gradient = _gradient(settings)
        slots = Slots(
            settings.max_in_flight if gradient is None else gradient.limit,
            per_tenant=settings.per_tenant,
            pools=tuple(settings.per_tool.values()),
            depth=settings.depth,
            weights={fold(tenant): weight for tenant, weight in settings.weights.items()},
        )
        return Roomy(
            _nowhere,
            slots,
            max_wait_s=settings.max_wait_s,
            patterns=tuple(settings.per_tool),
            sheds=settings.policy == "shed",
            gradient=gradient,
            is_short=self._is_short,
            now=self._now,
        )

    def paced(self, serve: Stage) -> Stage:
        """The stage that keeps a pace, where there is one. Stands behind what repeats attempts: each of them counts."""
        pace = self._settings.pace
        if pace is None:
            return serve
        from .pace import Paced, limiter_of  # its library reads what is installed: 7 ms

        self._paced = Paced(
            serve,
            rate_per_s=pace.rate_per_s,
            burst=pace.burst,
            max_wait_s=self._settings.max_wait_s,
            deadline=self._deadline,
            limiter=self._shelve("pace", pace, lambda: limiter_of(pace.rate_per_s, pace.burst)),
            now=self._now,
        )
        return self._paced

    def spare(self, permit: Permit) -> Callable[[], None] | None:
        """A place for a second attempt of a call, as what gives it back; None where none is free."""
        return None if self._roomy is None else self._roomy.spare(permit)

    @property
    def places(self) -> Roomy | None:
        """The stage that has places, once it stands."""
        return self._roomy

    @property
    def pace(self) -> Paced | None:
        return self._paced

    @property
    def in_flight(self) -> int:
        """Places that are held."""
        return 0 if self._roomy is None else self._roomy.in_flight

    @property
    def waiting(self) -> int:
        """Calls that wait for a place."""
        return 0 if self._roomy is None else self._roomy.waiting

    @property
    def limit(self) -> int:
        """Places there are."""
        return self._settings.max_in_flight if self._roomy is None else self._roomy.limit

    @property
    def held_back(self) -> int:
        """Calls that hold a place and wait for their moment to leave."""
        return 0 if self._paced is None else self._paced.waiting

    @property
    def refused(self) -> Counter[str]:
        """Calls refused since the start, by why: the words of `Roomy.refused`, and "pace"."""
        counts = Counter[str]() if self._roomy is None else Counter(self._roomy.refused)
        if self._paced is not None and self._paced.refused:
            counts["pace"] = self._paced.refused
        return counts

    def of_tenant(self, tenant: str) -> tuple[int, int]:
        """How many calls of a tenant hold a place, and how many wait for one."""
        return (0, 0) if self._roomy is None else self._roomy.of_tenant(tenant)


async def _nowhere(permit: Permit) -> Reply:
    """What places lead to before they stand before a stage."""
    raise Refused(Reason.INTERNAL)


def _gradient(settings: CapacitySettings) -> Gradient | None:
    adaptive = settings.adaptive
    if adaptive is None:
        return None
    ceiling = adaptive.ceiling or settings.max_in_flight
    return Gradient(
        floor=adaptive.floor or max(1, ceiling // SMALLEST_SHARE),
        ceiling=ceiling,
        tolerance=adaptive.tolerance,
        window=adaptive.window,
    )
