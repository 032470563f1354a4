"""How long will it be until so many places have come free? Pure, given `now`.

In: moments at which places came free while there were too few. Out: an estimate. Keeps the mean time between two.
"""

from __future__ import annotations

from typing import Final

RECENT: Final = 0.1
"""How much the newest counts."""
ENOUGH: Final = 5
"""Times between two that make an estimate."""


class Turnover:
    """A mean of the times between two places that came free. Only while there are too few: otherwise they say how
    often calls come."""

    __slots__ = ("_gap_s", "_known", "_last")

    def __init__(self) -> None:
        self._gap_s = 0.0
        self._known = 0
        self._last: float | None = None

    def freed(self, now: float) -> None:
        """A place came free, and there were too few."""
        if self._last is not None:
            self._known += 1
            part = max(RECENT, 1 / self._known)
            self._gap_s += part * (max(0.0, now - self._last) - self._gap_s)
        self._last = now

    def rest(self) -> None:
        """There are enough places."""
        self._last = None

    def wait_s(self, places: float, now: float) -> float | None:
        """How long until so many have come free; None while nobody knows. Where none has come free for longer than
        usual, it takes that long."""
        if self._known < ENOUGH:
            return None
        silence_s = 0.0 if self._last is None else now - self._last
        return places * max(self._gap_s, silence_s)
