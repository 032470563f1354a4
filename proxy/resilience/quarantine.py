"""Is this tool left alone? A breaker for each tool that failed of late. Pure: given `now`.

In: what attempts of a tool said. Out: a ticket for the next one, or none and how long to wait. Keeps tools that failed,
bounded: callers choose names. Those that are left alone are forgotten last.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import Final

from .breaker import Breaker, State
from .signals import Signal

MAX_TOOLS: Final = 1_000
"""Tools that failed; more than any server has."""
UNKNOWN: Final = 0
"""The ticket of a tool that has not failed yet."""


class Quarantine:
    """`failure_ratio` of at least `min_calls` attempts of a tool within `window_s`: it is left alone for `for_s`, and
    then one call at a time is let through until one succeeds."""

    def __init__(
        self,
        *,
        failure_ratio: float,
        min_calls: int,
        window_s: float,
        for_s: float,
        max_tools: int = MAX_TOOLS,
    ) -> None:
        self._failure_ratio = failure_ratio
        self._min_calls = min_calls
        self._window_s = window_s
        self._for_s = for_s
        self._max_tools = max_tools
        self._tickets = itertools.count(UNKNOWN + 1)
        # In the order in which they failed last.
        self._tools: OrderedDict[str, Breaker] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tools)

    @property
    def left_alone(self) -> tuple[str, ...]:
        """The tools in quarantine, also those that one call tries at the moment."""
        return tuple(name for name, tool in self._tools.items() if tool.state is not State.CLOSED)

    def admit(self, name: str, now: float) -> int | None:
        """A ticket for one attempt, to be handed back to `heard` once; None where there is to be none."""
        tool = self._tools.get(name)
        return UNKNOWN if tool is None else tool.admit(now)

    def is_left_alone(self, name: str) -> bool:
        """Whether it is in quarantine; asking is no attempt."""
        tool = self._tools.get(name)
        return tool is not None and tool.state is not State.CLOSED

    def wait_s(self, name: str, now: float) -> float:
        """How long until it is worth asking again."""
        tool = self._tools.get(name)
        return 0.0 if tool is None else tool.wait_s(now)

    def heard(self, name: str, ticket: int, signal: Signal, now: float) -> None:
        """What became of an attempt. What succeeded before the first failure is not counted: most tools never fail,
        and nothing is kept of them."""
        tool = self._tools.get(name)
        if tool is None:
            if ticket != UNKNOWN or signal is not Signal.BAD:
                return
            tool = self._begin(name)
        if signal is Signal.BAD:
            self._tools.move_to_end(name)
        if ticket != UNKNOWN:
            tool.heard(ticket, signal, now)
        elif not tool.opened and (begun := tool.admit(now)) is not None:
            # Sent before the tool first failed, and it has not been left alone since.
            tool.heard(begun, signal, now)

    def begun(self, name: str, ticket: int, now: float) -> None:
        """The answer to an attempt has begun to arrive."""
        tool = self._tools.get(name)
        if tool is not None:
            tool.begun(ticket, now)

    def lift(self, name: str) -> bool:
        """An operator knows better: the tool is called again. False where it is not in quarantine."""
        if not self.is_left_alone(name):
            return False
        self._tools[name].close()
        return True

    def _begin(self, name: str) -> Breaker:
        if len(self._tools) >= self._max_tools:
            usual = (each for each, tool in self._tools.items() if tool.state is State.CLOSED)
            del self._tools[next(usual, next(iter(self._tools)))]
        tool = self._tools[name] = Breaker(
            failures=None,
            failure_ratio=self._failure_ratio,
            min_calls=self._min_calls,
            window_s=self._window_s,
            open_s=self._for_s,
            max_open_s=self._for_s,
            tickets=self._tickets,
        )
        return tool
