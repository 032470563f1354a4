"""What every fault gets and gives: where it may work, and its line in the table."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from msgspec import Struct

from .observed import Expected, endings, violations
from .scene import SETTLE_S, Scene


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
        folder: Path | None = None,
    ) -> None:
        self._folder = folder or Path(tempfile.mkdtemp(prefix="faults-"))
        self._module = tuple(module)
        self.scale = scale
        self.seed = seed
        self._numbers = itertools.count()

    @property
    def folder(self) -> Path:
        """A new one each time."""
        folder = self._folder / str(next(self._numbers))
        folder.mkdir(parents=True)
        return folder

    def scene(self, *settings: str, upstream: bool = False) -> Scene:
        """Not yet started. `upstream`: without a faulter between, so that the server's own door is seen."""
        return Scene(
            self.folder,
            settings=settings,
            module=self._module,
            random=Random(f"{self.seed} {next(self._numbers)}"),
            is_direct=upstream,
        )

    def many(self, count: int, least: int = 1) -> int:
        """So many calls, at this scale."""
        return max(least, round(count * self.scale))


async def finish(
    scene: Scene,
    report: Report,
    expected: Expected,
    *,
    token: str = "",
    settle_s: float = SETTLE_S,
    **figures: Any,
) -> Report:
    """The fault is over: is everything as before, and what did the observers see?"""
    not_settled, report.settled_s = await scene.settled(settle_s)
    ends = endings(scene.crowd.told)
    report.calls = len(scene.crowd.told)
    report.broken += not_settled
    report.broken += await scene.all_places(token)
    await scene.written()
    report.broken += violations(scene.seen(), expected)
    report.figures = "; ".join(
        [ends, *(f"{name.replace('_', ' ')} {value}" for name, value in figures.items())]
    )
    if scene.sidecar.other:
        report.broken.append(f"the sidecar said what is no line: {''.join(scene.sidecar.other)[-300:]}")
    report.broken += failures(scene.sidecar.lines)
    return report


def failures(lines: Sequence[dict[str, Any]]) -> list[str]:
    """What the sidecar itself calls its own failure."""
    failed = [line for line in lines if line.get("msg") == "failed" or line.get("reason") == "internal"]
    return [f"the sidecar failed {len(failed)} times: {failed[0]}"] if failed else []
