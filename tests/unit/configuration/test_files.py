"""Files that are none, never end, or are too big: each is a mistake, and none is waited for or read into memory."""

import os
import socket
import tempfile
from pathlib import Path

import pytest

from proxy.configuration.files import read_bounded
from proxy.configuration.mistakes import Unfit


def refusal(path: str | Path, most_bytes: int = 8) -> str:
    with pytest.raises(Unfit) as caught:
        read_bounded(path, most_bytes)
    return f"{caught.value.what}: {caught.value.why}"


@pytest.mark.parametrize("content", [b"", b"1234567", b"12345678"])
def test_a_file_up_to_the_cap_is_read_whole(tmp_path: Path, content: bytes) -> None:
    """The cap is the last length that is read."""
    file = tmp_path / "f"
    file.write_bytes(content)
    assert read_bounded(file, 8) == content


def test_a_symbolic_link_is_followed(tmp_path: Path) -> None:
    """Kubernetes mounts ConfigMaps and Secrets as links to links."""
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "f").write_bytes(b"x")
    (tmp_path / "f").symlink_to(Path("..data") / "f")
    assert read_bounded(tmp_path / "f", 8) == b"x"


def test_a_longer_file_is_refused(tmp_path: Path) -> None:
    """One byte more than the cap."""
    file = tmp_path / "f"
    file.write_bytes(b"123456789")
    assert refusal(file) == "is too big: at most 8 bytes are read"


def test_a_file_of_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    """CFG-017; a sparse file, so that reading it would take memory and writing it does not."""
    file = tmp_path / "f"
    with file.open("wb") as sparse:
        sparse.truncate(1 << 30)
    assert refusal(file, 1_048_576) == "is too big: at most 1048576 bytes are read"


def test_a_size_that_lies_is_not_believed() -> None:
    """Files in /proc say that they are empty."""
    assert os.stat("/proc/self/maps").st_size == 0
    assert refusal("/proc/self/maps") == "is too big: at most 8 bytes are read"


def test_a_directory_is_refused(tmp_path: Path) -> None:
    """CFG-017; a missing ConfigMap key mounts as a directory."""
    assert refusal(tmp_path) == "is a directory: a file is needed"


def test_a_symlink_loop_is_refused(tmp_path: Path) -> None:
    """CFG-017."""
    (tmp_path / "f").symlink_to(tmp_path / "f")
    assert refusal(tmp_path / "f") == "cannot be read: Too many levels of symbolic links"


def test_a_fifo_is_refused_without_waiting_for_its_writer(tmp_path: Path) -> None:
    """Opening it for reading would wait for ever."""
    os.mkfifo(tmp_path / "f")
    assert refusal(tmp_path / "f") == "is no regular file: a device, FIFO or socket may never end"


def test_a_device_is_refused() -> None:
    """It never ends."""
    assert refusal("/dev/zero") == "is no regular file: a device, FIFO or socket may never end"


def test_a_socket_is_refused() -> None:
    """A path that is somebody's server."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{folder}/s")
        assert refusal(f"{folder}/s") == "is no regular file: a device, FIFO or socket may never end"


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """The reason is the system's, in its words."""
    assert refusal(tmp_path / "no") == "cannot be read: No such file or directory"
    assert refusal(tmp_path / ("n" * 300)) == "cannot be read: File name too long"


@pytest.mark.parametrize("path", ["/tmp/a\0b", "/tmp/\ud800"])
def test_a_path_that_no_system_knows_is_refused(path: str) -> None:
    """Such text raises ValueError in Python, not OSError."""
    assert refusal(path) == "cannot be read: no path holds such characters"


def test_a_file_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    """A Secret mounted for another user. Root may read everything, so it is somebody else for a moment."""
    file = tmp_path / "f"
    file.touch(mode=0o000)
    me = os.geteuid()
    if me == 0:
        os.seteuid(65534)
    try:
        assert refusal(file) == "cannot be read: Permission denied"
    finally:
        os.seteuid(me)
