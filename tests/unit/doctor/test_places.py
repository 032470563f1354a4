"""May we write there? Folders in, findings out; nothing is left."""

from __future__ import annotations

import os
from pathlib import Path

from proxy.doctor.finding import Finding
from proxy.doctor.places import places
from proxy.settings import load


def looked_at(file: Path) -> list[Finding]:
    limits = '[{"name":"r","key":["tenant"],"rate_per_s":1,"burst":1}]'
    overrides = ["upstream.url=http://127.0.0.1:1/mcp", f"limits={limits}", f"local_state.file={file}"]
    return list(places(load(None, overrides=overrides, environ={})))


def test_a_folder_that_is_ours_is_well_and_stays_empty(tmp_path: Path) -> None:
    """Issue 9, 3."""
    (one,) = looked_at(tmp_path / "state")
    assert (one.level, one.check) == ("ok", "files")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_or_no_folder_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in ("no", "file"):
        (one,) = looked_at(tmp_path / folder / "state")
        assert one.level == "fail"
        assert "cannot be written" in one.says


def test_a_folder_that_nobody_can_write_is_a_failure() -> None:
    """/proc refuses root too."""
    (one,) = looked_at(Path("/proc/state"))
    assert one.level == "fail"


def test_what_everybody_may_do_is_told(tmp_path: Path) -> None:
    """Replace the file, or read and write it; a sticky folder such as /tmp protects it."""
    folder, file = tmp_path / "open", tmp_path / "open" / "state"
    folder.mkdir()
    folder.chmod(0o777)
    assert [each.level for each in looked_at(file)] == ["warn"]
    folder.chmod(0o1777)
    assert [each.level for each in looked_at(file)] == ["ok"]
    file.touch()
    file.chmod(0o644)
    assert [each.level for each in looked_at(file)] == ["warn"]
    file.chmod(0o600)
    assert [each.level for each in looked_at(file)] == ["ok"]


def test_what_lies_there_and_is_no_file_is_a_failure(tmp_path: Path) -> None:
    """A FIFO would hang whoever opens it."""
    os.mkfifo(tmp_path / "state")
    assert [each.level for each in looked_at(tmp_path / "state")] == ["fail"]
