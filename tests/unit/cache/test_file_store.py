"""Answers that survive a restart: what was done is done again, and what is not ours in the file is nothing."""

from __future__ import annotations

import asyncio
import pickle
import resource
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxy.cache import log_file
from proxy.cache.entry import Entry
from proxy.cache.file import File
from proxy.cache.store import Forget, Mark, Seal
from proxy.secret import Secret
from tests.unit.cache.entries import NOW, Clock, digest_of, make_entry
from tests.unit.cache.stores import MAX_BYTES, SECRET, Place, make_file, running

NAMES = ("gone", "stays", "after")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(kind="file", directory=tmp_path, clock=Clock())


@pytest.fixture
def path(place: Place) -> Path:
    return place.directory / "cache"


async def filled(place: Place) -> dict[str, Entry]:
    """Leaves a file in which one was put and forgotten, and two stay; what is in it."""
    entries = {name: make_entry(text=name * 20, target=name) for name in NAMES}
    store = make_file(place)
    async with running(store):
        await store.loaded()
        for name in ("gone", "stays"):
            await store.put(digest_of(name), entries[name], store.mark())
        await store.forget(Forget("a", (), ("gone",)))
        await store.put(digest_of("after"), entries["after"], store.mark())
    return entries


async def found(place: Place, *, secret: Secret = SECRET) -> tuple[dict[str, Entry], File]:
    """What a process that starts now gets out of the file."""
    store = make_file(place, secret=secret)
    async with running(store):
        await store.loaded()
        got = {name: await store.get(digest_of(name)) for name in NAMES}
    return {name: entry for name, entry in got.items() if entry is not None}, store


def records(data: bytes) -> list[bytes]:
    """Head and records of a file, each with its length."""
    head = len(log_file.HEAD) + 16
    pieces, at = [data[:head]], head
    while at < len(data):
        length = 4 + int.from_bytes(data[at : at + 4], "little")
        pieces.append(data[at : at + length])
        at += length
    return pieces


async def test_answers_survive_a_restart(place: Place, path: Path) -> None:
    """Issue 6; twice, and with what was changed in between. Only its owner can read it."""
    entries = await filled(place)
    kept = {name: entries[name] for name in ("stays", "after")}
    assert (await found(place))[0] == kept
    got, store = await found(place)
    assert got == kept
    assert store.counts == {"stored": 3, "forgotten": 1}
    path.chmod(0o644)
    await found(place)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    place.clock.now = NOW + 60
    assert (await found(place))[0] == {}


async def test_a_crash_does_not_bring_back_what_was_forgotten(place: Place, path: Path) -> None:
    """When `forget` has returned, it is in the file: nothing is said to a disk only at the end."""
    store = make_file(place)
    copy = Place(kind="file", directory=place.directory / "copy", clock=place.clock)
    copy.directory.mkdir()
    async with running(store):
        await store.loaded()
        for name in NAMES:
            await store.put(digest_of(name), make_entry(target=name), store.mark())
        await store.forget(Forget("a", (), ("gone",)))
        shutil.copy(path, copy.directory / "cache")
    assert sorted((await found(copy))[0]) == ["after", "stays"]


async def test_a_file_that_was_cut_gives_nothing_wrong(place: Place, path: Path) -> None:
    """Cut at the end of a record, it is the file as it was then. Cut inside an entry, that entry is not there. Cut
    inside what was to be forgotten, nothing is."""
    await filled(place)
    whole = path.read_bytes()
    ends = [0]
    for piece in records(whole):
        ends.append(ends[-1] + len(piece))
    assert len(ends) == 6
    _, head, gone, stays, forgot, after = ends
    assert after == len(whole)
    cuts: list[tuple[int, list[str]]] = [
        *(
            (0, []),
            (head - 3, []),
            (head, []),
            (gone, ["gone"]),
            (gone + 50, ["gone"]),
            (stays, ["gone", "stays"]),
        ),
        *((stays + 2, []), (stays + 20, []), (stays + 37, []), (forgot - 1, [])),
        *((forgot, ["stays"]), (forgot + 40, ["stays"]), (after - 1, ["stays"]), (after, ["after", "stays"])),
    ]
    for length, names in cuts:
        path.write_bytes(whole[:length])
        assert (length, sorted((await found(place))[0])) == (length, names)
        # What was missing is written anew.
        assert (length, sorted((await found(place))[0])) == (length, names)


async def test_a_flipped_byte_gives_nothing_wrong(place: Place, path: Path) -> None:
    """Issue 6: wherever it is, what was forgotten stays forgotten, and what is given is what was stored."""
    entries = await filled(place)
    whole = path.read_bytes()
    for position in range(0, len(whole), 11):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x21]) + whole[position + 1 :])
        got, store = await found(place)
        assert got.items() <= entries.items()
        assert "gone" not in got
        # A length that reaches beyond the end looks like a last entry that was cut.
        assert store.counts["forged"] or store.trouble or "after" not in got
        path.unlink(missing_ok=True)


async def test_records_that_are_moved_are_nothing(place: Place, path: Path) -> None:
    """Taken out, doubled, in another order, from another file of the same secret: all of them are counted, and what may
    have been forgotten is not told."""
    entries = await filled(place)
    head, gone, stays, forgot, after = records(path.read_bytes())
    path.unlink()
    await filled(place)
    other_head, _, _, _, other = records(path.read_bytes())
    for pieces, names in (
        ([head, gone, stays, after], []),
        ([head, gone, forgot, stays, after], ["after"]),
        ([head, gone, stays, forgot, after, gone], []),
        ([head, gone, gone, stays, forgot, after], []),
        ([head, gone, stays, forgot, other], []),
        ([other_head, gone, stays, forgot, after], []),
        ([head, gone, stays, forgot, after, pickle.dumps(entries)], []),
        ([head, gone, stays, forgot, len(pickle.dumps(1)).to_bytes(4, "little"), pickle.dumps(1)], []),
        ([head[:-18], b"0\n", head[-16:], gone], []),
    ):
        path.write_bytes(b"".join(pieces))
        got, store = await found(place)
        assert sorted(got) == names
        assert store.counts["forged"] >= 1
        # What was left is written anew, whole.
        got, store = await found(place)
        assert sorted(got) == names
        assert store.counts.get("forged", 0) == 0


async def test_another_secret_reads_nothing(place: Place) -> None:
    await filled(place)
    got, store = await found(place, secret=Secret("another secret, of tests as well, as long"))
    assert got == {}
    assert store.counts["forged"] == 4


async def test_entries_of_another_version_are_skipped(place: Place, path: Path) -> None:
    """Signed by us, and not understood: counted, and what stands around them is read."""
    log = log_file.LogFile.made(str(path), Seal(SECRET, "file"))
    log.append(b"p" + digest_of("gone") + b"=mcp-sidecar kept 0\n")
    log.append(b"p" + digest_of("stays") + Seal(SECRET, "file").packed(make_entry()))
    log.close()
    got, store = await found(place)
    assert got == {"stays": make_entry()}
    assert store.counts["foreign"] == 1


async def test_the_file_stays_within_twice_the_bound(place: Place, path: Path) -> None:
    """It is written anew while calls go on, and what is in memory then is what a restart gives."""
    bound = 200_000
    store = make_file(place, max_bytes=bound)
    async with running(store):
        await store.loaded()
        for number in range(3_000):
            name = NAMES[number % 3]
            await store.put(digest_of(name), make_entry(text=f"{number:04}" + "x" * 1_000), store.mark())
            if number % 10 == 9:
                await store.forget(Forget("nobody", (), (str(number),)))
                assert path.stat().st_size < 2.5 * bound
        kept = {name: await store.get(digest_of(name)) for name in NAMES}
    assert (await found(place))[0] == kept
    assert not path.with_name("cache.new").exists()


async def test_what_happens_while_the_file_is_written_anew_counts(place: Place, path: Path) -> None:
    """What was forgotten after it went into the new file, and what was stored after that."""
    store = make_file(place, max_bytes=200_000)
    new = path.with_name("cache.new")
    async with running(store):
        await store.loaded()
        await store.put(digest_of("gone"), make_entry(target="gone"), store.mark())
        number = 0
        async with asyncio.timeout(5):
            # Until the new file holds the first entries.
            while not (new.exists() and new.stat().st_size > 2_000):
                number += 1
                entry = make_entry(tenant="b", text="x" * 100)
                await store.put(digest_of(f"filler {number}"), entry, store.mark())
                if number % 5 == 0:
                    # No faster than the disk: more than it takes would make the new file too long to be read.
                    await store.forget(Forget("nobody", (), ("nothing",)))
            before = None
            while before != store.counts.get("unwritten", 0):
                # A slow disk leaves no room behind the fillers at first.
                before = store.counts.get("unwritten", 0)
                await store.put(digest_of("after"), make_entry(target="after"), store.mark())
                await asyncio.sleep(0)
            await store.forget(Forget("a", (), ("gone",)))
            assert new.exists()
            while True:
                await asyncio.sleep(0.001)
                if not new.exists():
                    break
        copy = Place(kind="file", directory=place.directory / "copy", clock=place.clock)
        copy.directory.mkdir()
        shutil.copy(path, copy.directory / "cache")
    assert sorted((await found(copy))[0]) == ["after"]


async def test_what_is_not_ours_is_left_alone(place: Place, path: Path) -> None:
    """A path that names somebody's file must not cost it; the store works from memory, and says why."""
    path.write_bytes(b"precious\n")
    path.chmod(0o644)
    got, store = await found(place)
    assert (got, store.trouble) == ({}, "it is not a file of this cache")
    assert path.read_bytes() == b"precious\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    path.unlink()
    path.symlink_to(place.directory / "elsewhere")
    assert (await found(place))[1].trouble == "it cannot be opened"
    path.unlink()
    path.mkdir()
    assert (await found(place))[1].counts["outage"] == 1
    nowhere = Place(kind="file", directory=place.directory / "nowhere", clock=place.clock)
    assert (await found(nowhere))[1].trouble == "its directory is not there"


async def test_only_one_process_has_the_file(place: Place) -> None:
    """Two would write into each other's records; the second one works from memory."""
    await filled(place)
    first = make_file(place)
    async with running(first):
        await first.loaded()
        got, second = await found(place)
        assert (got, second.trouble) == ({}, "another process uses it")
        assert await first.get(digest_of("stays")) is not None
    assert sorted((await found(place))[0]) == ["after", "stays"]


@contextmanager
def full_disk(most_bytes: int) -> Iterator[None]:
    """No file of this process gets longer."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room_bytes", [0, 10, 40])
async def test_a_full_disk_is_counted_and_brings_nothing_back(
    place: Place, path: Path, room_bytes: int
) -> None:
    """What cannot be written must not leave a file in which the forgotten stands."""
    await filled(place)
    store = make_file(place)
    async with running(store):
        await store.loaded()
        with full_disk(path.stat().st_size + room_bytes):
            await store.forget(Forget("a", (), ("stays",)))
            assert await store.get(digest_of("stays")) is None
            assert await store.get(digest_of("after")) is not None
        assert store.counts["unwritten"] >= 1
    assert (await found(place))[0].keys() <= {"after"}


async def test_forgetting_before_the_file_was_read_counts(place: Place) -> None:
    """Whatever comes first: it stands behind everything in the file, there and at the next start."""
    await filled(place)
    store = make_file(place)
    forgetting = asyncio.ensure_future(store.forget(Forget("a", (), ("stays",))))
    await asyncio.sleep(0)
    async with running(store):
        await store.loaded()
        await forgetting
        assert await store.get(digest_of("stays")) is None
        assert await store.get(digest_of("after")) is not None
    assert sorted((await found(place))[0]) == ["after"]
    store = make_file(place)
    forgetting = asyncio.ensure_future(store.forget(Forget("a", (), ("after",))))
    await asyncio.sleep(0)
    await store.close()
    await forgetting
    assert (await found(place))[0] == {}


async def test_a_slow_disk_costs_entries_and_not_memory(place: Place) -> None:
    """What waits for the thread is bounded; beyond it, entries are in memory only."""
    store = make_file(place)
    async with running(store):
        await store.loaded()
        for number in range(300):
            await store.put(digest_of(str(number)), make_entry(text="x" * 60_000), Mark())
        assert store.counts["unwritten"] > 100
        assert await store.get(digest_of("299")) is not None
        assert store.bytes_held <= MAX_BYTES
