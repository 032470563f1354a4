"""The audit file on a real disk: written, locked, rotated, torn, full and hanging."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import itertools
import json
import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.configuration.mistakes import SettingsError
from proxy.secret import Secret
from proxy.telemetry import audit_log, audit_scribe
from proxy.telemetry.audit_signing import make_key, read_signer
from tests.unit.telemetry.audit_scene import audit, checked, kinds_of, lines_of, until


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


async def test_records_are_chained_from_start_to_stop(file: Path) -> None:
    """Issue 8, point 5: every start and stop is recorded, and what is between them."""
    async with audit(file) as scene:
        assert await scene.written(scene.call())
        scene.log.event("mode set", by="ops", mode="read-only")
    assert kinds_of(file) == ["begins", "open", "started", "drop_table", "mode set", "stopped", "close"]
    assert lines_of(file)[4]["fields"] == {"by": "ops", "mode": "read-only"}
    assert lines_of(file)[3]["time"] == "2026-01-02T03:04:05.000006Z"
    code, said = checked(file)
    assert (code, said.splitlines()[0].split(",")[0]) == (
        0,
        f"7 records of chain {lines_of(file)[0]['chain']}",
    )


async def test_a_clock_that_goes_back_leaves_the_order_as_it_is(file: Path) -> None:
    """Corpus TEL-019: numbers count on, whatever the clock on the wall says."""
    walls = iter([1e9 + 1_000 - each for each in range(100)])
    async with audit(file, wall=lambda: next(walls)) as scene:
        for each in range(3):
            scene.call(f"t{each}")
    lines = lines_of(file)
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert [line["time"] for line in lines[2:6]] == sorted(
        (line["time"] for line in lines[2:6]), reverse=True
    )
    assert checked(file)[0] == 0


async def test_the_file_is_for_its_owner_only_and_so_is_its_lock(file: Path) -> None:
    """Issue 8: who did what is nobody else's business; also where the file was there before."""
    file.touch(mode=0o644)
    async with audit(file):
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in file.parent.iterdir()}
    assert modes == {"audit.jsonl": 0o600, "audit.jsonl.lock": 0o600}


async def test_a_restart_goes_on_in_the_same_chain(file: Path) -> None:
    """Issue 8: sequence numbers and the chain survive a restart."""
    for _ in range(3):
        async with audit(file) as scene:
            scene.call()
    lines = lines_of(file)
    assert [line["seq"] for line in lines] == list(range(1, 17))
    assert {line["chain"] for line in lines} == {lines[0]["chain"]}
    assert checked(file)[0] == 0


@pytest.mark.parametrize("left", [b'{"seq":9,"ch', b"\0" * 500, b"garbage\nmore"])
async def test_what_a_crash_left_stays_as_evidence_and_is_accounted_for(file: Path, left: bytes) -> None:
    """Issue 8: a torn last line is detected at open, kept, never silently repaired."""
    async with audit(file) as scene:
        scene.call()
    whole = file.read_bytes()
    file.write_bytes(whole + left)
    assert checked(file)[0] == 1
    async with audit(file) as scene:
        scene.call()
    assert file.read_bytes().startswith(whole + left + b"\n")
    code, said = checked(file)
    assert code == 0
    assert "left by a crash" in said
    # Who changes the evidence is found out.
    changed = file.read_bytes().replace(left, left[:-1] + b"?")
    file.write_bytes(changed)
    assert checked(file)[0] == 1


async def test_a_first_line_that_was_torn_is_evidence_too(file: Path) -> None:
    """Issue 8: the process can die at its first write."""
    file.write_bytes(b'{"seq":1,"chain":"ab')
    async with audit(file) as scene:
        scene.call()
    assert kinds_of_whole(file)[:2] == ["what a crash left", "begins"]
    assert checked(file)[0] == 0


def kinds_of_whole(file: Path) -> list[str]:
    lines = file.read_bytes().splitlines()[1:]
    return [value.get("what") or value["kind"] for value in map(json.loads, lines)]


@pytest.mark.parametrize("content", [b"somebody's file\n", b"x" * 400_000, b'{"a":1}\n'])
async def test_somebody_elses_file_is_left_alone(file: Path, content: bytes) -> None:
    """Own promise: a wrong path is a mistake of the settings, and nothing is written there."""
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=r"telemetry\.audit\.file"):
        async with audit(file):
            pass
    assert file.read_bytes() == content


@pytest.mark.parametrize("there", ["directory", "fifo", "link", "missing folder"])
async def test_what_is_no_plain_file_is_refused(file: Path, there: str) -> None:
    """Issue 8: a FIFO would hold up whoever opens it, a link leads elsewhere."""
    if there == "directory":
        file.mkdir()
    elif there == "fifo":
        os.mkfifo(file)
    elif there == "link":
        file.symlink_to(file.parent / "other")
    else:
        file = file / "audit.jsonl"
    with pytest.raises(SettingsError):
        async with audit(file):
            pass


async def test_two_processes_never_write_one_file(file: Path) -> None:
    """Issue 8: a lock; whoever comes second says why it does not start."""
    with file.with_name("audit.jsonl.lock").open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(SettingsError, match="another process writes it"):
            async with audit(file):
                pass
    async with audit(file):
        pass


async def test_rotation_keeps_the_chain_and_as_many_files_as_it_should(file: Path) -> None:
    """Issue 8: the new file begins with the last hash; what is removed is said before."""
    async with audit(file, max_file_bytes=65_536, keep_files=2) as scene:
        for _ in range(60):
            numbers = [scene.call() for _ in range(20)]
            assert await scene.written(numbers[-1])
    earlier = sorted(file.parent.glob("audit.jsonl.0*"))
    assert len(earlier) == 2
    files = [*earlier, file]
    ends = [(lines_of(each)[0], lines_of(each)[-1]) for each in files]
    for (_, last), (first, _) in itertools.pairwise(ends):
        assert (last["kind"], last["why"], first["kind"], first["prev"]) == (
            "checkpoint",
            "rotation",
            "file",
            last["hash"],
        )
    assert earlier[0].name == f"audit.jsonl.{ends[0][0]['seq']:012d}"
    removed = [line for each in files for line in lines_of(each) if line.get("what") == "old file removed"]
    assert removed
    code, said = checked(*reversed(files), file.with_name("audit.jsonl.lock"))  # in any order
    assert code == 0
    assert f"It begins with record {ends[0][0]['seq']}" in said
    assert all(stat.S_IMODE(each.stat().st_mode) == 0o600 for each in files)


@pytest.mark.parametrize("at", ["between the names", "before the first line"])
async def test_a_crash_in_the_middle_of_a_rotation_loses_nothing(file: Path, at: str) -> None:
    """Issue 8: rotation keeps the chain."""
    async with audit(file) as scene:
        scene.call()
    chain = lines_of(file)[0]["chain"]
    file.rename(f"{file}.000000000001")
    (file if at == "before the first line" else file.with_name("audit.jsonl.next")).touch()
    async with audit(file) as scene:
        scene.call()
    assert (lines_of(file)[0]["seq"], lines_of(file)[0]["chain"]) == (7, chain)
    assert not file.with_name("audit.jsonl.next").exists()


async def test_checkpoints_are_signed_and_anchored(file: Path, tmp_path: Path) -> None:
    """Issue 8: every N records, at the end; a second file has them too."""
    key, anchors = tmp_path / "key", tmp_path / "anchors"
    make_key(str(key))
    sign = read_signer(str(key))
    async with audit(file, sign=sign, checkpoint_records=3, anchor=str(anchors)) as scene:
        for each in range(7):
            assert await scene.written(scene.call(f"t{each}"))
    whys = [line["why"] for line in lines_of(file) if line["kind"] == "checkpoint"]
    assert whys == ["open", "interval", "interval", "close"]
    assert all(len(line["signature"]) == 128 for line in lines_of(anchors))
    public = tmp_path / "key.pub"
    code, said = checked(file, keys=(public,), anchors=(anchors,))
    assert (code, "Behind" in said) == (0, False)
    # Cut off behind the last signature: only the anchor sees it.
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:-1]))
    assert checked(file, keys=(public,))[0] == 0
    code, said = checked(file, keys=(public,), anchors=(anchors,))
    assert (code, "truncation" in said) == (1, True)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


async def test_a_checkpoint_comes_also_when_time_has_passed(file: Path) -> None:
    """Issue 8: every T seconds, where there was anything."""
    async with audit(file, checkpoint_s=1e-9) as scene:
        assert await scene.written(scene.call())
        await until(lambda: "interval" in kinds_of(file))


async def test_a_disk_that_is_full_refuses_and_recovers_by_itself(file: Path) -> None:
    """Issue 8: disk full (a real limit of the system); the gap is recorded, and no line is cut."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with audit(file) as scene:
        assert await scene.written(scene.call("before"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 100, hard))
        try:
            assert not await scene.written(scene.call("full"))
            assert scene.log.why_degraded() == ["audit cannot be written: File too large"]
            half = file.read_bytes()
            assert not half.endswith(b"\n")
            scene.call("while it is full")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        await until(lambda: not scene.log.why_degraded())
        assert await scene.written(scene.call("after"))
        failures = scene.log.write_failures
    assert failures >= 1
    assert scene.life == [("audit cannot be written", "error"), ("audit is written again", "info")]
    assert file.read_bytes().startswith(half)
    told = kinds_of(file)
    assert told[3:8] == ["before", "full", "written again", "while it is full", "after"]
    code, said = checked(file)
    assert (code, "The disk took nothing: from 2026" in said) == (0, True)


async def test_a_sync_that_fails_is_told_also_when_it_works_again(file: Path) -> None:
    """Issue 8: after a failed fsync nobody knows what the disk has; the next record says from where on."""
    async with audit(file) as scene:
        assert await scene.written(scene.call())
        seq = lines_of(file)[-1]["seq"]
        scene.disk.error = OSError(errno.EIO, os.strerror(errno.EIO))
        assert not await scene.written(scene.call("doubtful"))
        scene.disk.error = None
        await until(lambda: not scene.log.why_degraded())
    again = next(line for line in lines_of(file) if line.get("what") == "written again")
    assert again["fields"]["doubtful_from"] == seq + 1
    assert again["fields"]["why"] == "Input/output error"


async def test_a_disk_that_hangs_holds_up_nobody_but_for_the_timeout(file: Path) -> None:
    """Issue 8: a hanging disk must not hang the loop or leak."""
    async with audit(file) as scene:
        scene.disk.hang()
        numbers = [scene.call(f"t{each}") for each in range(200)]
        answers = await asyncio.gather(*(scene.written(number, 0.05) for number in numbers))
        assert answers == [False] * 200
        assert scene.log.waiting == 0
        assert scene.log.why_degraded() == ["audit cannot be written: the disk did not answer within 0.05 s"]
        scene.disk.go_on()
        assert await scene.written(scene.call("after"))
        assert scene.log.why_degraded() == []
    assert kinds_of(file).count("after") == 1
    assert checked(file)[0] == 0


async def test_what_waits_for_a_hanging_disk_is_bounded_and_counted(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 8: no leak; what is lost is counted, and told in the file."""
    monkeypatch.setattr(audit_log, "MOST_WAITING", 50)
    monkeypatch.setattr(audit_log, "SOON", 10)
    async with audit(file) as scene:
        assert await scene.written(scene.call())
        scene.disk.hang()
        first = scene.call("taken by the thread")
        scene.log.soon()
        await until(lambda: scene.log._scribe.waiting == 0)
        numbers = [scene.call(f"t{each}") for each in range(80)]
        assert numbers.count(0) == 30
        assert not await scene.written(0)
        assert scene.log.write_failures == 30
        scene.disk.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        scene.disk.go_on()
        assert not await scene.written(first)
        scene.disk.error = None
        await until(lambda: not scene.log.why_degraded())
    again = next(line for line in lines_of(file) if line.get("what") == "written again")
    assert again["fields"]["lost"] == 30
    assert checked(file)[0] == 0


async def test_a_disk_that_hangs_for_ever_does_not_hold_up_the_end(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 8: the process comes down, and says what was not written."""
    monkeypatch.setattr(audit_scribe, "CLOSE_S", 0.05)
    async with audit(file) as scene:
        scene.disk.hang()
        scene.call()
        await scene.log.close()
        assert ("audit is not closed", "error") in scene.life


async def test_many_calls_share_one_sync(file: Path) -> None:
    """Issue 8: group commit."""
    async with audit(file) as scene:
        assert await scene.written(scene.call())
        scene.disk.hang()
        first = scene.call()
        scene.log.soon()
        await until(lambda: scene.log._scribe.waiting == 0)
        before = scene.disk.syncs
        numbers = [scene.call() for _ in range(500)]
        waits = asyncio.gather(*(scene.written(number) for number in [first, *numbers]))
        await asyncio.sleep(0)
        scene.disk.go_on()
        assert all(await waits)
        assert scene.disk.syncs - before == 2


async def test_calls_have_turns_while_many_records_are_written(file: Path) -> None:
    """Issue 10: a thread that seals thousands of lines in one go has the interpreter for 5 ms at a time."""
    pauses: list[float] = []
    async with audit(file) as scene:
        scene.log._scribe._pause = pauses.append
        numbers = [scene.call(f"t{each}") for each in range(5 * audit_scribe.BREATH)]
        scene.log.flush()
        await until(lambda: scene.log._safe == numbers[-1])
        assert pauses == 5 * [audit_scribe.PAUSE_S]
    assert checked(file)[0] == 0


async def test_nobody_waits_for_the_turns_of_others(file: Path) -> None:
    """Own promise: a call whose record must be on the disk first does not wait for pauses."""
    pauses: list[float] = []
    async with audit(file) as scene:
        scene.log._scribe._pause = pauses.append
        numbers = [scene.call(f"t{each}") for each in range(5 * audit_scribe.BREATH)]
        assert await scene.written(numbers[-1])
        assert pauses == []
    assert checked(file)[0] == 0


async def test_many_pieces_are_one_group(file: Path) -> None:
    """Own promise: a group is written in pieces, in order, with one sync for all of it."""
    async with audit(file) as scene:
        assert await scene.written(scene.call("first"))
        syncs = scene.disk.syncs
        numbers = [scene.call(f"t{each}") for each in range(3 * audit_scribe.PIECE + 1)]
        assert await scene.written(numbers[-1])
        assert scene.disk.syncs == syncs + 1
    assert [each for each in kinds_of(file) if each.startswith("t") and each[1:].isdigit()] == [
        f"t{each}" for each in range(3 * audit_scribe.PIECE + 1)
    ]
    assert checked(file)[0] == 0


async def test_what_is_known_to_be_secret_is_taken_out_before_it_is_hashed(file: Path) -> None:
    """Issue 8, logs: redaction by value of every known secret, in this sink too."""
    secret = Secret("hunter2-hunter2")
    async with audit(file) as scene:
        scene.log.event("mode set", by="hunter2-hunter2")
    assert b"hunter2" not in file.read_bytes()
    assert secret.reveal()
    assert checked(file)[0] == 0


async def test_equal_arguments_have_equal_hashes_and_short_ones_cannot_be_guessed(file: Path) -> None:
    """Issue 8: keyed, because an argument can be a short secret."""
    async with audit(file) as scene:
        hash_ = scene.log.args_hash({"pin": "1234", "a": 1})
        assert hash_ == scene.log.args_hash({"a": 1, "pin": "1234"})
        assert hash_ != scene.log.args_hash({"a": 1.0, "pin": "1234"})
    async with audit(file) as again:
        assert again.log.args_hash({"pin": "1234", "a": 1}) != hash_
    ids = [line["fields"]["args_key"] for line in lines_of(file) if line.get("what") == "started"]
    assert len(set(ids)) == 2


CRASH = """
import os, sys, asyncio, signal
from pathlib import Path
sys.path.insert(0, os.getcwd())
from tests.unit.telemetry.audit_scene import audit
async def main():
    async with audit(Path(sys.argv[1])) as scene:
        for each in range(1000):
            number = scene.call(f"t{each}")
            if each == 500:
                assert await scene.written(number)
                os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


def test_what_was_said_to_be_written_is_there_after_a_kill(file: Path) -> None:
    """Issue 8: the word that comes back from `written` is a promise."""
    done = subprocess.run([sys.executable, "-c", CRASH, str(file)], timeout=30, check=False)
    assert done.returncode == -9
    assert "t500" in kinds_of(file)
    code, said = checked(file)
    assert (code, "the process runs, or has died" in said) == (0, True)


@pytest.mark.parametrize("words", [["missing"], ["--public-key"], ["empty"]])
def test_what_cannot_be_read_is_two(tmp_path: Path, words: list[str]) -> None:
    """Issue 8: exit 0 / 1 / 2."""
    good = tmp_path / "empty"
    good.touch()
    if words == ["missing"]:
        assert checked(tmp_path / "missing")[0] == 2
    elif words == ["--public-key"]:
        assert checked(good, keys=(good,))[0] == 2
    else:
        assert checked(good)[0] == 1
        assert checked(good, anchors=(good,))[0] == 2
