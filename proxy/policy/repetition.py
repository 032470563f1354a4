"""Is somebody calling the same thing over and over? A sliding window, given `now`.

In: who calls, and a digest of the tool and what is said to it. Out: how long to wait. Keeps the moments of the last
calls that passed, bounded: who floods the table loses its own oldest entries first.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Sequence
from typing import Final, TypeAlias

from ..model import Identity, Reason, Refused
from .guard_settings import RepetitionSettings

Key: TypeAlias = tuple[Identity, bytes]
"""Who, and a digest of what."""

MAX_OF_TENANT: Final = 1_000
"""Different calls of one tenant within a window."""
MAX_KEYS: Final = 10_000
"""Different calls of all tenants: the settings' `most` moments of eight bytes each, and the key."""


class Repetition:
    """Counts the calls that passed: what is refused does not prolong the refusal."""

    def __init__(
        self, settings: RepetitionSettings, *, share: int = MAX_OF_TENANT, total: int = MAX_KEYS
    ) -> None:
        self._most = settings.most
        self._window_s = settings.window_s
        self._share = share
        self._total = total
        # Both in the order of the last call, so that what no longer counts stands in front.
        self._calls: OrderedDict[Key, deque[float]] = OrderedDict()
        self._of_tenant: dict[str, OrderedDict[Key, None]] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def wait_s(self, keys: Sequence[Key], now: float) -> float:
        """How long until all of these may pass together; 0 when they may now. Those of a batch count as several."""
        return max((self._wait_s(key, times, now) for key, times in Counter(keys).items()), default=0.0)

    def count(self, keys: Sequence[Key], now: float) -> None:
        """These pass now."""
        self._sweep(now)
        for key in keys:
            moments = self._calls.get(key)
            if moments is None:
                moments = self._calls[key] = deque(maxlen=self._most)
            moments.append(now)
            self._calls.move_to_end(key)
            mine = self._of_tenant.setdefault(_tenant(key), OrderedDict())
            mine[key] = None
            mine.move_to_end(key)
            if len(mine) > self._share or (len(self._calls) > self._total and len(mine) > 1):
                self._forget(next(iter(mine)))
            elif len(self._calls) > self._total:
                self._forget(next(iter(self._calls)))

    def _wait_s(self, key: Key, times: int, now: float) -> float:
        if times > self._most:
            return self._window_s
        moments = self._calls.get(key)
        if moments is None or len(moments) + times <= self._most:
            return 0.0
        # The call that has to leave the window before there is room for these.
        return max(0.0, moments[len(moments) + times - self._most - 1] + self._window_s - now)

    def _sweep(self, now: float) -> None:
        while self._calls:
            key, moments = next(iter(self._calls.items()))
            if now < moments[-1] + self._window_s:
                return
            self._forget(key)

    def _forget(self, key: Key) -> None:
        del self._calls[key]
        tenant = _tenant(key)
        mine = self._of_tenant[tenant]
        del mine[key]
        if not mine:
            del self._of_tenant[tenant]


def refused(wait_s: float) -> Refused:
    """What a caller in a loop is told."""
    return Refused(
        Reason.RATE_LIMITED,
        "The same tool was called with the same arguments again and again. Repeating will not help: use the answers "
        "you have, change the arguments, or tell your user what you are stuck on.",
        data={"limit": "repetition"},
        retry_after_s=wait_s,
    )


def _tenant(key: Key) -> str:
    return key[0][2]
