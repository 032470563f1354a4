"""What outlives a reload: held by generations, closed when nobody holds it any more. Source: design.md section 3."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from proxy.lifecycle.survivors import Generation, Survivors
from proxy.lifecycle.watch import Watch
from proxy.model import Job, Watches


class Scene:
    """Survivors, and what they do."""

    def __init__(self) -> None:
        self.diary: list[str] = []
        self.errors: list[Exception] = []
        self.watch = Watch(report=self.errors.append)
        self.survivors = Survivors(self.watch, self.errors.append)

    def make(self, name: str) -> Thing:
        self.diary.append(f"make {name}")
        return Thing(name, self)


class Thing:
    """Has a life of its own."""

    def __init__(self, name: str, scene: Scene) -> None:
        self.name = name
        self._diary = scene.diary

    @property
    def jobs(self) -> tuple[Job, ...]:
        return (self._run,)

    async def _run(self) -> None:
        self._diary.append(f"run {self.name}")
        try:
            await asyncio.Event().wait()
        finally:
            self._diary.append(f"end {self.name}")

    async def close(self) -> None:
        self._diary.append(f"close {self.name}")
        if self.name == "bad":
            raise RuntimeError


@pytest.fixture
def scene() -> Scene:
    return Scene()


def running(scene: Scene, generation: Generation, name: str, made_of: object = None) -> Thing:
    return generation.running(name, made_of, lambda _: scene.make(name))


async def test_what_is_made_of_the_same_goes_on(scene: Scene) -> None:
    first, second = scene.survivors.generation(), scene.survivors.generation()
    thing = running(scene, first, "a", 1)
    first.start()
    await asyncio.sleep(0)
    assert running(scene, second, "a", 1) is thing
    second.start()
    await first.release()
    assert scene.diary == ["make a", "run a"]
    await second.release()
    assert scene.diary == ["make a", "run a", "end a", "close a"]
    assert len(scene.survivors) == 0


async def test_what_is_made_of_something_else_is_another(scene: Scene) -> None:
    """The one before is closed when those who began with it have ended, and may come back before that."""
    first, second, third = (scene.survivors.generation() for _ in range(3))
    thing = running(scene, first, "a", 1)
    assert running(scene, second, "a", 2) is not thing
    assert running(scene, third, "a", 1) is thing
    await first.release()
    await second.release()
    assert scene.diary[2:] == ["close a"]
    await third.release()
    assert scene.diary[3:] == ["close a"]


async def test_a_generation_that_never_came_leaves_the_others_alone(scene: Scene) -> None:
    """Hostile: a reload that fails half way."""
    first, second = scene.survivors.generation(), scene.survivors.generation()
    running(scene, first, "a")
    running(scene, second, "a")
    running(scene, second, "b")
    await second.release()
    assert scene.diary == ["make a", "make b", "close b"]


async def test_what_cannot_be_made_is_not_kept(scene: Scene, tmp_path: Path) -> None:
    """Hostile: and nobody looks at its files any more."""
    generation = scene.survivors.generation()

    def make(watch: Watches) -> Thing:
        watch((str(tmp_path / "f"),), lambda: None)
        raise ValueError("cannot be made")

    with pytest.raises(ValueError, match="cannot"):
        generation.running("a", None, make)
    assert (len(scene.survivors), scene.watch.paths) == (0, frozenset())


async def test_one_that_fails_to_close_keeps_no_other_open(scene: Scene) -> None:
    generation = scene.survivors.generation()
    running(scene, generation, "a")
    running(scene, generation, "bad")
    await generation.release()
    assert scene.diary[2:] == ["close bad", "close a"]
    assert [type(error) for error in scene.errors] == [RuntimeError]


async def test_files_are_looked_at_as_long_as_somebody_holds(scene: Scene, tmp_path: Path) -> None:
    """What a survivor looks at outlives the generation that made it; what a generation looks at does not."""
    file, own = str(tmp_path / "file"), str(tmp_path / "own")
    first, second = scene.survivors.generation(), scene.survivors.generation()

    def make(watch: Watches) -> Thing:
        watch((file,), lambda: scene.diary.append("changed"))
        return scene.make("a")

    first.running("a", None, make)
    first.watch((own,), lambda: scene.diary.append("own changed"))
    second.running("a", None, make)
    await first.release()
    assert scene.watch.paths == {file}
    Path(file).write_text("new", encoding="utf-8")
    await scene.watch.look()
    assert scene.diary == ["make a", "changed"]
    await second.release()
    assert scene.watch.paths == frozenset()


async def test_who_retires_hears_of_files_no_more_and_still_holds(scene: Scene, tmp_path: Path) -> None:
    """Calls that have begun need their rooms."""
    generation = scene.survivors.generation()
    running(scene, generation, "a")
    generation.watch((str(tmp_path / "own"),), lambda: None)
    generation.start()
    await generation.retire()
    assert (scene.watch.paths, len(scene.survivors)) == (frozenset(), 1)


async def test_plain_state_is_kept_like_everything_else(scene: Scene) -> None:
    first, second = scene.survivors.generation(), scene.survivors.generation()
    table: dict[str, str] = first("table", None, dict)
    assert first("table", None, dict) is table
    assert second("table", None, dict) is table
    await first.release()
    assert scene.survivors.generation()("table", None, dict) is table


async def test_nobody_hears_of_a_change_that_another_reaction_took_away(scene: Scene, tmp_path: Path) -> None:
    """Hostile: one look sees two changes, and the first is a reload that ends the second's generation."""
    generation = scene.survivors.generation()
    first, second = str(tmp_path / "1"), str(tmp_path / "2")
    scene.watch.add((first,), generation.retire)
    generation.watch((second,), lambda: scene.diary.append("changed"))
    for each in (first, second):
        Path(each).write_text("new", encoding="utf-8")
    await scene.watch.look()
    assert scene.diary == []
