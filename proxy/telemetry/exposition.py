"""The page that Prometheus reads.

In: snapshots of metrics, and what a scraper accepts. Out: bytes and their type (`page.py`). Keeps the last
page of each format for a second: however many ask, and however often, the loop takes one snapshot and a thread makes
one page. Nobody waits for a page longer than it takes to make, and a scraper that leaves takes nothing from the others.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Sequence
from typing import Final

from .metrics import Shown

FRESH_S: Final = 1.0
"""How long a page is told again: no Prometheus asks more often."""

OPEN_METRICS: Final = "application/openmetrics-text"

Page = tuple[bytes, str]
"""The page, and its content type."""


def wants_open_metrics(accept: str) -> bool:
    """Whether the header field `Accept` names OpenMetrics, which alone has exemplars."""
    for each in accept.split(","):
        kind, *parameters = (part.strip() for part in each.lower().split(";"))
        if kind == OPEN_METRICS and not any(part.replace(" ", "") in ("q=0", "q=0.0") for part in parameters):
            return True
    return False


def rendered(shown: Sequence[Shown], *, is_open: bool) -> Page:
    """The page of a snapshot, with what the system says of this process. Runs in a thread: reads /proc, and the first
    time imports the library, for which no start need wait."""
    from .page import page_of

    return page_of(shown, is_open=is_open)


class Exposition:
    """Makes pages. Used inside one running loop."""

    def __init__(
        self,
        snapshot: Callable[[], Sequence[Shown]],
        *,
        now: Callable[[], float] = time.monotonic,
        fresh_s: float = FRESH_S,
    ) -> None:
        """`snapshot` is called on the loop."""
        self._snapshot = snapshot
        self._now = now
        self._fresh_s = fresh_s
        self._pages: dict[bool, tuple[float, asyncio.Future[Page]]] = {}
        self.made = 0
        """Pages."""

    async def __call__(self, accept: str) -> Page:
        """The page as it was a second ago at most."""
        is_open = wants_open_metrics(accept)
        began, page = self._pages.get(is_open, (0.0, None))
        now = self._now()
        if page is None or (page.done() and (_has_failed(page) or now - began >= self._fresh_s)):
            self.made += 1
            make = functools.partial(rendered, self._snapshot(), is_open=is_open)
            page = asyncio.get_running_loop().run_in_executor(None, make)
            self._pages[is_open] = now, page
        # Who leaves does not take it from those who wait, too.
        return await asyncio.shield(page)

    def forget(self) -> None:
        """What the page says is not so any more: whoever asks next gets another one."""
        self._pages.clear()


def _has_failed(page: asyncio.Future[Page]) -> bool:
    return page.cancelled() or page.exception() is not None
