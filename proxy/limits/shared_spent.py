"""Has the store just said no to this? Then it need not be asked again, for a moment. Pure, given `now`.

In: what the store refused. Out: the same no, counted down. Keeps refusals for a second at most, a bounded number of
them: a tenant that has spent what it had floods this process, not the store.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from .demand import Demand, Denied, Rate

RATE_S: Final = 1.0
"""Tokens come back by time alone, so that a no holds as long as it said; settings may change meanwhile."""
QUOTA_S: Final = 0.25
"""Another replica may give units back before."""
MOST: Final = 10_000
GRAIN: Final = 1e-6
"""Of a token: rounding errors of doubles."""


class _Refusal(Struct, frozen=True):
    remaining: int
    free_at: float
    """When the store said to come back: seconds, monotonic."""
    until: float
    """Believed before."""
    per_s: float
    """How fast tokens come back meanwhile; 0 of a quota."""


class Spent:
    """Refusals of the last second, by key and cost: who asks for less may get it."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._refusals: OrderedDict[tuple[str, int], _Refusal] = OrderedDict()

    def __len__(self) -> int:
        return len(self._refusals)

    def note(self, demands: Sequence[Demand], denied: Denied, now: float) -> None:
        """The store has refused this."""
        demand = demands[denied.index]
        measure, wait_s = demand.measure, denied.retry_after_s
        is_rate = isinstance(measure, Rate)
        key = demand.key, demand.cost
        self._refusals[key] = _Refusal(
            denied.remaining,
            now + wait_s,
            now + min(wait_s, RATE_S if is_rate else QUOTA_S),
            measure.per_s if isinstance(measure, Rate) else 0.0,
        )
        self._refusals.move_to_end(key)
        if len(self._refusals) > self._most:
            self._refusals.popitem(last=False)

    def forget(self, demands: Sequence[Demand]) -> None:
        """This is given back, and might pass now."""
        for demand in demands:
            self._refusals.pop((demand.key, demand.cost), None)

    def clear(self) -> None:
        """Another store, or the same after an outage, knows better."""
        self._refusals.clear()

    def find(self, demands: Sequence[Demand], now: float) -> Denied | None:
        """What the store would say, where that is known; of several noes the longest."""
        refusals = self._refusals
        if not refusals:
            return None
        longest: Denied | None = None
        for index, demand in enumerate(demands):
            key = demand.key, demand.cost
            refusal = refusals.get(key)
            if refusal is None or demand.must_pass:
                continue
            wait_s = refusal.free_at - now
            if now >= refusal.until:
                del refusals[key]
            elif longest is None or wait_s > longest.retry_after_s:
                longest = Denied(index, _remaining(refusal, demand.cost, wait_s), wait_s)
        return longest


def _remaining(refusal: _Refusal, cost: int, wait_s: float) -> int:
    """Tokens that came back since then are there."""
    if not refusal.per_s or math.isinf(wait_s):
        return refusal.remaining
    return max(refusal.remaining, math.floor(cost - wait_s * refusal.per_s + GRAIN))
