"""Files that change under a running process, as editors, operators and Kubernetes change them."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from proxy.configuration.files import SETTINGS_FILE_BYTES
from proxy.lifecycle.watch import Group, Seen, Sight, Watch, look_at


class Diary:
    """Writes down who was told of what, and what went wrong."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.errors: list[Exception] = []

    def hears(self, name: str) -> Callable[[], None]:
        return lambda: self.told.append(name)

    def raises(self, name: str) -> Callable[[], None]:
        def changed() -> None:
            self.told.append(name)
            raise RuntimeError(name)

        return changed

    def watch(self, **options: object) -> Watch:
        return Watch(report=self.errors.append, **options)  # type: ignore[arg-type]  # passed through


@pytest.fixture
def diary() -> Diary:
    return Diary()


def written(file: Path, content: str = "one") -> str:
    file.write_text(content, encoding="utf-8")
    return str(file)


async def rounds(watch: Watch, diary: Diary, count: int = 1) -> list[str]:
    """What was told in the next rounds."""
    diary.told.clear()
    for _ in range(count):
        await watch.look()
    return diary.told.copy()


async def test_a_change_is_told_once(tmp_path: Path, diary: Diary) -> None:
    """One change, one call; nothing changed, none. What a file held when it was added is known."""
    watch = diary.watch()
    file = written(tmp_path / "a")
    watch.add([file], diary.hears("a"))
    assert await rounds(watch, diary, 2) == []
    written(tmp_path / "a", "two")
    assert await rounds(watch, diary, 3) == ["a"]
    written(tmp_path / "a", "one")
    assert await rounds(watch, diary, 2) == ["a"]
    assert diary.errors == []


async def test_a_change_that_keeps_length_and_time_is_seen(tmp_path: Path, diary: Diary) -> None:
    """Contents are compared: clocks of file systems are coarse, and deployments set times to 1970."""
    watch = diary.watch()
    file = written(tmp_path / "a", "one")
    os.utime(file, (0, 0))
    watch.add([file], diary.hears("a"))
    written(tmp_path / "a", "two")
    os.utime(file, (0, 0))
    assert await rounds(watch, diary) == ["a"]


async def test_a_touched_file_has_not_changed(tmp_path: Path, diary: Diary) -> None:
    """Neither a new time nor the same content in its place is news."""
    watch = diary.watch()
    file = written(tmp_path / "a")
    watch.add([file], diary.hears("a"))
    os.utime(file, (7, 7))
    os.replace(written(tmp_path / "b"), file)
    assert await rounds(watch, diary) == []


async def test_a_swap_by_kubernetes_is_seen(tmp_path: Path, diary: Diary) -> None:
    """A mounted ConfigMap or Secret: key → ..data/key, ..data → ..<time>; ..data is replaced by rename.

    Source: kubernetes.io "Mounted ConfigMaps are updated automatically", pkg/volume/util/atomic_writer.go.
    """
    for name, content in (("..one", "one"), ("..two", "two")):
        (tmp_path / name).mkdir()
        written(tmp_path / name / "key", content)
    (tmp_path / "..data").symlink_to("..one")
    (tmp_path / "key").symlink_to("..data/key")
    watch = diary.watch()
    watch.add([str(tmp_path / "key")], diary.hears("key"))
    assert await rounds(watch, diary) == []
    (tmp_path / "..tmp").symlink_to("..two")
    (tmp_path / "..tmp").rename(tmp_path / "..data")
    assert await rounds(watch, diary, 2) == ["key"]


async def test_a_link_that_leads_elsewhere_is_a_change(tmp_path: Path, diary: Diary) -> None:
    """Same content, other place: paths relative to the file mean something else now."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        written(tmp_path / name / "key", "same")
    link = tmp_path / "link"
    link.symlink_to("one")
    watch = diary.watch()
    watch.add([str(link / "key")], diary.hears("key"))
    link.unlink()
    link.symlink_to("two")
    assert await rounds(watch, diary, 2) == ["key"]


@pytest.mark.parametrize("away", ["missing", "directory", "fifo", "too big", "broken link"])
async def test_a_file_that_is_away_for_a_while_changes_nothing(
    tmp_path: Path, diary: Diary, away: str
) -> None:
    """Editors remove and write anew; what is unreadable is no news, nor is it when the same is back."""
    watch = diary.watch()
    file = tmp_path / "a"
    watch.add([written(file)], diary.hears("a"))
    for back, told in (("one", []), ("two", ["a"])):
        file.unlink()
        match away:
            case "directory":
                file.mkdir()
            case "fifo":
                os.mkfifo(file)
            case "too big":
                file.write_bytes(b"x" * (SETTINGS_FILE_BYTES + 1))
            case "broken link":
                file.symlink_to("nowhere")
        assert await rounds(watch, diary, 2) == []
        if away == "directory":
            file.rmdir()
        else:
            file.unlink(missing_ok=True)
        written(file, back)
        assert await rounds(watch, diary, 2) == told


async def test_a_file_that_was_never_there_is_told_when_it_comes(tmp_path: Path, diary: Diary) -> None:
    """Nothing was known of it, so whatever it holds is news."""
    watch = diary.watch()
    watch.add([str(tmp_path / "a")], diary.hears("a"))
    assert await rounds(watch, diary, 2) == []
    written(tmp_path / "a")
    assert await rounds(watch, diary, 2) == ["a"]


@pytest.mark.parametrize("path", ["", "\0", "a\0b", "x" * 5_000, "\udcff"])
async def test_what_is_no_path_is_a_file_that_is_away(path: str, diary: Diary) -> None:
    """Settings that nobody can fulfil end neither the round nor the process."""
    watch = diary.watch()
    watch.add([path], diary.hears("never"))
    assert await rounds(watch, diary, 2) == []
    assert diary.errors == []


async def test_a_group_is_told_once_however_many_of_its_files_change(tmp_path: Path, diary: Diary) -> None:
    """A certificate and its key are replaced together; each that comes late is a change of its own."""
    certificate, key = tmp_path / "c", tmp_path / "k"
    watch = diary.watch()
    watch.add([written(certificate), written(key)], diary.hears("pair"))
    written(certificate, "two")
    written(key, "two")
    assert await rounds(watch, diary, 2) == ["pair"]
    written(certificate, "three")
    assert await rounds(watch, diary) == ["pair"]
    written(key, "three")
    assert await rounds(watch, diary, 2) == ["pair"]


async def test_only_the_groups_of_a_file_are_told(tmp_path: Path, diary: Diary) -> None:
    """Two rooms may watch one file."""
    watch = diary.watch()
    a, b = written(tmp_path / "a"), written(tmp_path / "b")
    watch.add([a], diary.hears("a"))
    watch.add([b], diary.hears("b"))
    watch.add([a, b, a], diary.hears("both"))
    watch.add([], diary.hears("none"))
    written(tmp_path / "b", "two")
    assert await rounds(watch, diary, 2) == ["b", "both"]


async def test_who_is_removed_hears_nothing_more(tmp_path: Path, diary: Diary) -> None:
    """Regression: a method is another object each time it is named, and was never found again."""
    watch = diary.watch()
    a, b = written(tmp_path / "a"), written(tmp_path / "b")

    class Reader:
        def changed(self) -> None:
            diary.told.append("read")

    reader = Reader()
    watch.add([a], reader.changed)
    watch.add([b], diary.hears("b"))
    watch.remove(reader.changed)
    assert watch.paths == {b}
    written(tmp_path / "a", "two")
    written(tmp_path / "b", "two")
    assert await rounds(watch, diary, 2) == ["b"]


async def test_one_that_raises_is_reported_and_keeps_nobody_from_hearing(
    tmp_path: Path, diary: Diary
) -> None:
    """A file that cannot be used is no reason to stop looking; it is told anew when it changes anew."""
    watch = diary.watch()
    file = written(tmp_path / "a")
    watch.add([file], diary.raises("bad"))
    watch.add([file], diary.hears("good"))
    written(tmp_path / "a", "two")
    assert await rounds(watch, diary, 2) == ["bad", "good"]
    written(tmp_path / "a", "three")
    assert await rounds(watch, diary, 2) == ["bad", "good"]
    assert [str(error) for error in diary.errors] == ["bad", "bad"]


async def test_what_takes_its_time_is_awaited(tmp_path: Path, diary: Diary) -> None:
    """A reaction may read files itself, in a thread; what it raises there is reported as well."""
    watch = diary.watch()
    file = written(tmp_path / "a")

    async def reads() -> None:
        diary.told.append(await asyncio.to_thread(Path(file).read_text, "utf-8"))
        raise ValueError("bad file")

    watch.add([file], reads)
    watch.add([file], diary.hears("good"))
    written(tmp_path / "a", "two")
    assert await rounds(watch, diary, 2) == ["two", "good"]
    assert [str(error) for error in diary.errors] == ["bad file"]


class Eyes:
    """Sees what it is told to; knows what it was asked, and in which thread."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.threads: set[int] = set()
        self.digest = b"one"
        self.broken = 0

    def __call__(self, paths: Iterable[str]) -> Seen:
        self.asked.append(tuple(paths))
        self.threads.add(threading.get_ident())
        if self.broken:
            self.broken -= 1
            raise RuntimeError("can't start new thread")
        return {path: Sight(path, self.digest) for path in self.asked[-1]}


async def test_a_path_is_read_once_a_round_and_off_the_loop(diary: Diary) -> None:
    """Ten rooms cost one reading; a slow disk keeps no call waiting."""
    eyes = Eyes()
    watch = diary.watch(look_at=eyes)
    for _ in range(3):
        watch.add(["a", "b"], diary.hears("x"))
    eyes.asked.clear()
    eyes.threads.clear()
    await watch.look()
    assert eyes.asked == [("a", "b")]
    assert threading.get_ident() not in eyes.threads


async def test_nobody_watches_nothing_is_read(diary: Diary) -> None:
    """What is off costs nothing."""
    eyes = Eyes()
    watch = diary.watch(look_at=eyes)
    await watch.look()
    watch.add([], diary.hears("none"))
    eyes.asked.clear()
    await watch.look()
    assert eyes.asked == []


async def test_it_looks_every_two_seconds_until_it_is_cancelled(diary: Diary) -> None:
    """design section 3: a 2 s poll. A round that fails is reported, and the next one comes."""
    eyes = Eyes()
    pauses: list[float] = []
    rested = asyncio.Event()

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            eyes.broken = 1
        if len(pauses) == 3:
            eyes.digest = b"two"
        if len(pauses) == 4:
            rested.set()
            await asyncio.Event().wait()

    watch = diary.watch(look_at=eyes, sleep=sleep)
    watch.add(["a"], diary.hears("a"))
    running = asyncio.ensure_future(watch.run())
    async with asyncio.timeout(5):
        await rested.wait()
    assert (pauses, diary.told) == ([2.0] * 4, ["a"])
    assert [str(error) for error in diary.errors] == ["can't start new thread"]
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_who_is_added_while_it_looks_waits_for_the_next_round(tmp_path: Path, diary: Diary) -> None:
    """A round may have looked before what the newcomer knows already: older is not newer."""
    started, go = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    first = True

    def slow(paths: Iterable[str]) -> Seen:
        nonlocal first
        seen = look_at(paths)
        if not first and not go.is_set():
            loop.call_soon_threadsafe(started.set)
            assert go.wait(5)
        first = False
        return seen

    watch = diary.watch(look_at=slow)
    a = written(tmp_path / "a")
    watch.add([a], diary.hears("a"))
    written(tmp_path / "a", "two")
    looking = asyncio.ensure_future(watch.look())
    async with asyncio.timeout(5):
        await started.wait()
        go.set()
        watch.add([written(tmp_path / "a", "three")], diary.hears("late"))
        await looking
    assert diary.told == ["a"]
    assert await rounds(watch, diary, 2) == ["a"]
    written(tmp_path / "a", "four")
    assert await rounds(watch, diary, 2) == ["a", "late"]


ONE, TWO = Sight("/a", b"1"), Sight("/a", b"2")


@pytest.mark.parametrize(
    ("known", "looks", "changes"),
    [
        (ONE, [ONE], [False]),
        (ONE, [TWO, TWO, ONE], [True, False, True]),
        (ONE, [Sight("/b", b"1")], [True]),
        (ONE, [None, ONE], [False, False]),
        (ONE, [None, None, TWO], [False, False, True]),
        (ONE, [TWO, None, ONE], [True, False, True]),
        (None, [None, ONE, None, ONE], [False, True, False, False]),
    ],
)
def test_a_change_is_another_sight_than_the_last_one(
    known: Sight | None, looks: list[Sight | None], changes: list[bool]
) -> None:
    """The pure part, as a table."""
    group = Group(["p"], {"p": known})
    assert [group.has_changed({"p": look}) for look in looks] == changes
