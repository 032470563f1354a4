"""What every fault gets and gives: where it may work, and its line in the table."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

from msgspec import Struct

from .observed import Expected, endings, violations
from .scene import LOOK_EVERY_S, SETTLE_S, Scene
from .wired import WIRED

LONGEST_WAIT_S: Final = 20.0
FAILURES: Final = frozenset(
    {"failed", "failed in the loop", "nobody caught", "could not be raised", "warned", "a library says"}
)
"""How lines begin that tell of what nobody expected."""


class Report(Struct, kw_only=True):
    """One line of the table."""

    fault: str
    injected: int = 0
    """How often it was really there."""
    calls: int = 0
    broken: list[str] = []
    """Promises that were."""
    settled_s: float = 0.0
    """From the end of the fault until everything was as at rest."""
    figures: str = ""
    took_s: float = 0.0

    @property
    def is_good(self) -> bool:
        return not self.broken and self.injected > 0


class Lab:
    """Makes scenes. `module` is a launcher in place of the sound sidecar; `scale` multiplies the number of calls."""

    def __init__(
        self,
        *,
        seed: int,
        module: Sequence[str] = (),
        scale: float = 1.0,
        settle_s: float = SETTLE_S,
        folder: Path | None = None,
    ) -> None:
        self._folder = folder or Path(tempfile.mkdtemp(prefix="faults-"))
        self._module = tuple(module)
        self.scale = scale
        self.settle_s = settle_s
        self.seed = seed
        self._numbers = itertools.count()

    @property
    def folder(self) -> Path:
        """A new one each time."""
        folder = self._folder / str(next(self._numbers))
        folder.mkdir(parents=True)
        return folder

    def scene(
        self, *settings: str, config: Path | None = None, is_direct: bool = False, has_breaker: bool = False
    ) -> Scene:
        """Not yet started. `config` is a settings file that will change. `is_direct`: without a faulter between, so
        that the server's own door is seen. Without a breaker every call meets the fault, not the first five."""
        if "breaker" in WIRED and not has_breaker:
            settings = (*settings, "resilience.breaker.enabled=false")
        return Scene(
            self.folder,
            settings=settings,
            module=self._module,
            random=Random(f"{self.seed} {next(self._numbers)}"),
            config=config,
            is_direct=is_direct,
            settle_s=self.settle_s,
        )

    def many(self, count: int, least: int = 1) -> int:
        """So many calls, at this scale."""
        return max(least, round(count * self.scale))


async def finish(
    scene: Scene,
    report: Report,
    expected: Expected,
    figures: Mapping[str, object] | None = None,
    *,
    token: str = "",
) -> Report:
    """The fault is over: is everything as before, and what did the observers see?"""
    not_settled, report.settled_s = await scene.settled()
    ends = endings(scene.crowd.told)
    report.calls = len(scene.crowd.told)
    report.broken += not_settled
    report.broken += await scene.all_places(token)
    await scene.written()
    report.broken += violations(scene.seen(), expected)
    report.figures = "; ".join([ends, *(f"{name} {value}" for name, value in (figures or {}).items())])
    if scene.sidecar.other:
        report.broken.append(f"the sidecar said what is no line: {''.join(scene.sidecar.other)[-300:]}")
    if scene.sidecar.leaked:
        report.broken.append(f"the sidecar wrote its credential down {scene.sidecar.leaked} times")
    report.broken += failures(scene.sidecar.lines)
    return report


def failures(lines: Sequence[dict[str, Any]]) -> list[str]:
    """What the sidecar itself calls its own failure."""
    failed = [line for line in lines if line.get("msg") in FAILURES or line.get("reason") == "internal"]
    return [f"the sidecar failed {len(failed)} times: {failed[0]}"] if failed else []


async def until(is_so: Callable[[], Awaitable[bool]], seconds: float = LONGEST_WAIT_S) -> bool:
    """Look at what other processes do not tell, again and again; whether it has come to be so."""
    end = time.monotonic() + seconds
    while not await is_so():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(LOOK_EVERY_S)
    return True
