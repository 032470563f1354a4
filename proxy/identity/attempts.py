"""Has this address presented too many invalid credentials? A pure sliding window, given `now`.

In: addresses and moments (seconds, monotonic). Out: how long to wait. Keeps two counters an address, bounded: of
many addresses the one that failed longest ago is forgotten first.
"""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address
from typing import Final

MAX_SOURCES: Final = 10_000


class Attempts:
    """Counts failures of the last `window_s`, the window before weighed by how much of it still lies inside.

    Two counters instead of a list of moments: the same memory whatever `most` is.
    """

    def __init__(self, most: int, window_s: float) -> None:
        self._most = most
        self._window_s = window_s
        self._sources: OrderedDict[str, tuple[int, int, int]] = OrderedDict()

    def wait_s(self, source: str, now: float) -> float:
        """How long nobody listens to `source`; 0 when it is listened to."""
        known = self._sources.get(source)
        if known is None:
            return 0.0
        before, current = self._counts(known, now)
        left_s = self._window_s - now % self._window_s
        if before * left_s / self._window_s + current < self._most:
            return 0.0
        if current < self._most:
            # The weight of the window before falls until there is room.
            return left_s - (self._most - current) / before * self._window_s
        return left_s + self._window_s * (1 - self._most / current)

    def failed(self, source: str, now: float) -> None:
        window = int(now // self._window_s)
        before, current = self._counts(self._sources.get(source, (window, 0, 0)), now)
        self._sources[source] = (window, before, current + 1)
        self._sources.move_to_end(source)
        if len(self._sources) > MAX_SOURCES:
            self._sources.popitem(last=False)

    def succeeded(self, source: str) -> None:
        """A valid credential came from there: whoever shares the address is not punished for others for long."""
        self._sources.pop(source, None)

    def _counts(self, known: tuple[int, int, int], now: float) -> tuple[int, int]:
        """Failures of the window before and of this one."""
        window, before, current = known
        passed = int(now // self._window_s) - window
        if passed == 0:
            return before, current
        return (current, 0) if passed == 1 else (0, 0)


def source_of(address: str) -> str:
    """What counts as one source: an IPv4 address, or an IPv6 network of 64 bits, which one host may have whole."""
    if ":" not in address:
        return address
    try:
        six = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(six, IPv6Address):
        return address
    if six.ipv4_mapped is not None:
        return str(six.ipv4_mapped)
    return f"{int(six) >> 64:x}/64"
