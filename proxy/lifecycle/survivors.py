"""What outlives a reload? Things that are kept as long as settings ask for the same.

In: a name, what a thing is made of, and how to make it. Out: the thing; the one there is, where it is made of the same.
Keeps each thing until no generation of settings holds it any more. A generation is one reading of the settings: the
next one takes hold before the last one lets go, so what both want never stops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar, cast

from ..model import Changed, Job, Watches
from .background import Background
from .watch import Watch

Thing = TypeVar("Thing")


class Running(Protocol):
    """A thing with a life of its own. Where it has `jobs`, they run until it is closed."""

    async def close(self) -> None: ...


Lives = TypeVar("Lives", bound=Running)


class Survivors:
    """The things of a process. Used inside one running loop."""

    def __init__(self, watch: Watch, report: Callable[[Exception], None]) -> None:
        """`watch` looks at files; `report` hears of jobs that fail."""
        self._watch = watch
        self._report = report
        self._kept: dict[str, list[_Kept[object]]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._kept.values()))

    def generation(self) -> Generation:
        """Holds nothing yet."""
        return Generation(self, self._watch, self._report)

    def find(self, name: str, made_of: object) -> _Kept[object] | None:
        return next((each for each in self._kept.get(name, ()) if each.made_of == made_of), None)

    def add(self, kept: _Kept[object]) -> None:
        self._kept.setdefault(kept.name, []).append(kept)

    def remove(self, kept: _Kept[object]) -> None:
        self._kept[kept.name].remove(kept)
        if not self._kept[kept.name]:
            del self._kept[kept.name]


class Generation:
    """What one reading of the settings holds. Fulfils `model.Shelve`."""

    def __init__(self, survivors: Survivors, watch: Watch, report: Callable[[Exception], None]) -> None:
        self._survivors = survivors
        self._own_watch = _Looks(watch)
        self._all_files = watch
        self._background = Background(report)
        self._report = report
        self._held: list[_Kept[object]] = []

    def __call__(self, name: str, made_of: object, make: Callable[[], Thing]) -> Thing:
        """State without a life of its own."""
        return cast(Thing, self._hold(name, made_of, lambda kept: make()).thing)

    def running(self, name: str, made_of: object, make: Callable[[Watches], Lives]) -> Lives:
        """Something whose jobs run, whose files are looked at, and that is closed in the end."""

        def made(kept: _Kept[object]) -> object:
            thing = make(kept.looks.add)
            kept.life = thing
            return thing

        return cast(Lives, self._hold(name, made_of, made).thing)

    def watch(self, paths: tuple[str, ...], changed: Changed) -> None:
        """Tell `changed` of these files as long as this generation lasts."""
        self._own_watch.add(paths, changed)

    def start(self, *jobs: Job) -> None:
        """Let the jobs of all it holds run, and these, as long as it lasts."""
        for each in self._held:
            each.start()
        for job in jobs:
            self._background.start(job)

    def look_away(self) -> None:
        """Hear of files no more."""
        self._own_watch.end()

    async def retire(self) -> None:
        """Calls that have begun go on; what ran beside new ones ends."""
        self.look_away()
        await self._background.close()

    async def release(self) -> None:
        """Hold nothing any more; what nobody else holds is closed, the last first."""
        await self.retire()
        held, self._held = self._held, []
        for each in reversed(held):
            each.holders -= 1
            if not each.holders:
                self._survivors.remove(each)
                try:
                    await each.close()
                except Exception as error:  # the others must be closed, too
                    self._report(error)

    def _hold(self, name: str, made_of: object, make: Callable[[_Kept[object]], object]) -> _Kept[object]:
        kept = self._survivors.find(name, made_of)
        if kept is None:
            kept = _Kept(name, made_of, _Looks(self._all_files), Background(self._report))
            try:
                kept.thing = make(kept)
            except BaseException:
                kept.looks.end()
                raise
            self._survivors.add(kept)
        if kept not in self._held:
            kept.holders += 1
            self._held.append(kept)
        return kept


class _Kept(Generic[Thing]):
    """A thing, and who holds it."""

    thing: Thing

    def __init__(self, name: str, made_of: object, looks: _Looks, background: Background) -> None:
        self.name = name
        self.made_of = made_of
        self.holders = 0
        self.life: Running | None = None
        self.looks = looks
        self._background = background
        self._is_running = False

    def start(self) -> None:
        if self.life is not None and not self._is_running:
            self._is_running = True
            jobs: Sequence[Job] = getattr(self.life, "jobs", ())
            for job in jobs:
                self._background.start(job)

    async def close(self) -> None:
        self.looks.end()
        await self._background.close()
        if self.life is not None:
            await self.life.close()


class _Looks:
    """Files that are looked at for somebody, until that is over."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._groups: list[Changed] = []
        self._is_over = False

    def add(self, paths: tuple[str, ...], changed: Changed) -> None:
        if paths and not self._is_over:
            self._watch.add(paths, changed)
            self._groups.append(changed)

    def end(self) -> None:
        self._is_over = True
        for each in self._groups:
            self._watch.remove(each)
        self._groups = []
