"""How does a store decide? Demands → one command for Valkey or Redis; its reply → the answer. Pure.

In: demands, and the store's time as we know it. Out: bytes of one command; `Taken`, `Denied` or `Elsewhen`. Keeps the
script, and the calendar windows that were last asked for. `decide.lua` says what the values mean.

All keys of a deployment have one hash tag, so that one script may touch them together: in a cluster they live on one
slot. Names of keys have a version; another form of value will have another one.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypeAlias

import hiredis
from msgspec import Struct

from .demand import Demand, Denied, Granted, Quota, Rate, Window

DECIDE: Final = Path(__file__).with_name("decide.lua").read_text(encoding="utf-8")
"""Defines `decide(s, us)`, which is given the time."""
SCRIPT: Final = (
    f"{DECIDE}\nlocal clock = redis.call('TIME')\nreturn decide(tonumber(clock[1]), tonumber(clock[2]))"
)
DIGEST: Final = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
VERSION: Final = 1
SLICES: Final = 60
"""Of a sliding window: units come back when their whole slice has left it, up to a sixtieth later."""
MOST_WINDOWS: Final = 64
"""Kinds of calendar windows; settings have a handful."""

_Part: TypeAlias = str | int | float | bytes


class Taken(Granted, frozen=True):
    """Granted, and what a refund has to know."""

    costs: tuple[int, ...]
    """What was taken for each demand: less than asked only where the call had to pass."""
    at_s: float
    """When: unix seconds of the clock that decided."""
    is_local: bool = False
    """It was taken of this process, not of the store."""


class Elsewhen(Struct, frozen=True):
    """Nothing was decided: for the store it is another day than we thought."""

    now_s: float


class Nonsense(Exception):
    """A reply that is no reply to this script."""


class Said(Struct, frozen=True):
    """The reply to a take."""

    answer: Taken | Denied | Elsewhen
    now_s: float
    """The store's time."""
    poisoned: int
    """How many keys held something that was not ours."""


class Asking:
    """Writes the commands of one deployment."""

    def __init__(self, namespace: str) -> None:
        """Keys begin with `{mcp-sidecar:namespace}:`."""
        self._name = f"{{mcp-sidecar:{namespace}}}:{VERSION}:"
        self._windows: dict[Window, tuple[int, int]] = {}
        self.load = packed("SCRIPT", "LOAD", SCRIPT)

    def take(self, demands: Sequence[Demand], now_s: float) -> bytes:
        """`now_s`: unix seconds as the store has them, roughly. Each key at most once."""
        keys: list[_Part] = []
        values: list[_Part] = ["take"]
        for demand in demands:
            key, a, b = self._placed(demand, now_s)
            kind, most = _named(demand.measure)
            keys.append(key)
            values += (kind, most, demand.cost, int(demand.must_pass), a, b)
        return packed("EVALSHA", DIGEST, len(keys), *keys, *values)

    def refund(self, demands: Sequence[Demand], costs: Sequence[int], at_s: float) -> bytes | None:
        """Gives back what was taken of quotas at `at_s`; None where that is nothing."""
        keys: list[_Part] = []
        values: list[_Part] = ["refund"]
        for demand, cost in zip(demands, costs, strict=True):
            if isinstance(demand.measure, Rate) or cost <= 0:
                continue
            key, a, b = self._placed(demand, at_s)
            kind, most = _named(demand.measure)
            keys.append(key)
            moment = round(at_s * 1_000_000) if kind == "sliding" else b
            values += (kind, most, cost, 0, a, moment)
        return packed("EVALSHA", DIGEST, len(keys), *keys, *values) if keys else None

    def probe(self) -> bytes:
        """Takes one of a bucket that is only for this: it shows that the store can decide."""
        return self.take((Demand(limit="", key="probe", measure=_PROBE, cost=1, must_pass=True),), 0)

    def _placed(self, demand: Demand, now_s: float) -> tuple[str, str | int, int]:
        """The key, and what its kind says beside."""
        measure = demand.measure
        if isinstance(measure, Rate):
            return f"{self._name}rate:{demand.key}", repr(measure.per_s), 0
        window = measure.window
        if window.kind == "sliding":
            slice_us = math.ceil(window.sliding_s * 1_000_000 / SLICES)
            return f"{self._name}sliding:{slice_us}:{demand.key}", slice_us, 0
        start, end = self._edges(window, now_s)
        return f"{self._name}{window.kind}:{start}:{demand.key}", start, end

    def _edges(self, window: Window, now_s: float) -> tuple[int, int]:
        known = self._windows.get(window)
        if known is not None and known[0] <= now_s < known[1]:
            return known
        start, end = window.at(now_s)
        if len(self._windows) >= MOST_WINDOWS:
            self._windows.clear()
        edges = self._windows[window] = math.floor(start), math.floor(end)
        return edges


_PROBE: Final = Rate(per_s=1_000_000.0, burst=1)


def packed(*parts: _Part) -> bytes:
    """One command as the wire has it."""
    command: bytes = hiredis.pack_command(parts)  # type: ignore[arg-type]  # its stub means tuples of any length
    return command


@functools.lru_cache(maxsize=1_024)
def _named(measure: Rate | Quota) -> tuple[str, int]:
    """Its kind as the script knows it, and the most it gives."""
    if isinstance(measure, Rate):
        return "rate", measure.burst
    return ("sliding" if measure.window.kind == "sliding" else "calendar"), measure.units


def said(reply: object, count: int) -> Said:
    """What the reply to a take of `count` demands means. Raises Nonsense."""
    if not isinstance(reply, list) or len(reply) < 4 or not all(type(each) is int for each in reply):
        raise Nonsense
    state, s, us, poisoned, *rest = reply
    now_s = s + us / 1_000_000
    if state == 1 and len(rest) == 2 * count:
        return Said(Taken(tuple(rest[::2]), tuple(rest[1::2]), now_s), now_s, poisoned)
    if state == 0 and len(rest) == 3 and 1 <= rest[0] <= count:
        index, remaining, wait_us = rest
        return Said(
            Denied(index - 1, remaining, math.inf if wait_us < 0 else wait_us / 1_000_000), now_s, poisoned
        )
    if state == 2 and not rest:
        return Said(Elsewhen(now_s), now_s, 0)
    raise Nonsense
