"""What the kernel says of memory, in folders that look like /sys/fs/cgroup. Sources: cgroup-v2.rst, memory.rst of
the kernel; the kubelet's working set; issue 7, point 7."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxy.lifecycle.cgroup import Cgroup, Usage, own_bytes

V2 = {
    "memory.max": "1000\n",
    "memory.current": "900\n",
    "memory.stat": "anon 500\ninactive_file 300\nfile 1\n",
}
V1 = {
    "memory.limit_in_bytes": "1000\n",
    "memory.usage_in_bytes": "900\n",
    "memory.stat": "inactive_file 7\ntotal_inactive_file 300\n",
}
NO_LIMIT_V1 = "9223372036854771712\n"


def write(folder: Path, files: dict[str, str], **others: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {**files, **others}.items():
        (folder / name).write_text(text)


def group(root: Path, own: str) -> Cgroup:
    path = root / "own"
    path.write_text(own)
    return Cgroup(root, path)


def test_version_2_inside_a_container(tmp_path: Path) -> None:
    """With a namespace of its own a container sees its group at the root; what nobody touched does not count."""
    write(tmp_path, V2)
    assert group(tmp_path, "0::/\n").usage() == Usage(600, 1000)
    assert Usage(600, 1000).ratio == 0.6


def test_version_1_inside_a_container(tmp_path: Path) -> None:
    """The path is that of the host, and the mount is our own group."""
    write(tmp_path / "memory", V1)
    own = "9:name=systemd:/x\n5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/\n"
    assert group(tmp_path, own).usage() == Usage(600, 1000)


@pytest.mark.parametrize("prefix", ["", "memory"])
def test_the_nearest_limit_counts(tmp_path: Path, prefix: str) -> None:
    """From our own group upwards: a container without a limit lives in a pod with one."""
    files, none = (V1, NO_LIMIT_V1) if prefix else (V2, "max\n")
    name = "memory.limit_in_bytes" if prefix else "memory.max"
    root = tmp_path / prefix
    write(root / "pod" / "mine", files, **{name: none})
    write(root / "pod", files, **{name: "5000\n"})
    write(root, files, **{name: "7000\n"})
    own = "4:memory:/pod/mine\n" if prefix else "0::/pod/mine\n"
    assert group(tmp_path, own).usage() == Usage(600, 5000)


def test_a_limit_that_changes_is_seen(tmp_path: Path) -> None:
    """Kubernetes resizes pods in place."""
    write(tmp_path, V2)
    mine = group(tmp_path, "0::/\n")
    write(tmp_path, {"memory.max": "max\n"})
    assert mine.usage() is None
    write(tmp_path, {"memory.max": "2000\n"})
    assert mine.usage() == Usage(600, 2000)


def test_the_file_cache_is_only_looked_at_where_it_matters(tmp_path: Path) -> None:
    """memory.stat is the dear one: below the given ratio it changes nothing."""
    write(tmp_path, V2)
    mine = group(tmp_path, "0::/\n")
    assert mine.usage(exact_above=0.9) == Usage(900, 1000)
    assert mine.usage(exact_above=0.89) == Usage(600, 1000)


@pytest.mark.parametrize(
    "broken",
    [
        {"memory.max": "0\n"},
        {"memory.max": "-5\n"},
        {"memory.max": ""},
        {"memory.max": "much\n"},
        {"memory.max": NO_LIMIT_V1},
        {"memory.current": "??\n"},
    ],
)
def test_what_cannot_be_understood_is_no_limit(tmp_path: Path, broken: dict[str, str]) -> None:
    """Refusing every call because of a file nobody understands would be worse than no guard."""
    write(tmp_path, V2, **broken)
    assert group(tmp_path, "0::/\n").usage() is None


def test_odd_statistics_change_nothing(tmp_path: Path) -> None:
    """No memory.stat, or one without the field: everything counts. More cache than use: nothing is below nothing."""
    write(tmp_path, V2)
    mine = group(tmp_path, "0::/\n")
    for text, used in (("inactive_file x\nfoo\n", 900), ("inactive_file 5000\n", 0)):
        write(tmp_path, {"memory.stat": text})
        assert mine.usage() == Usage(used, 1000)
    (tmp_path / "memory.stat").unlink()
    assert mine.usage() == Usage(900, 1000)


@pytest.mark.parametrize("own", [None, "", "garbage\n", "0::/../../elsewhere\n"])
def test_without_a_group_the_mount_is_asked(tmp_path: Path, own: str | None) -> None:
    """No /proc, or a namespace below which we are not (cgroup_namespaces(7))."""
    write(tmp_path, V2)
    mine = Cgroup(tmp_path, tmp_path / "nothing") if own is None else group(tmp_path, own)
    assert mine.usage() == Usage(600, 1000)
    assert Cgroup(tmp_path / "nowhere", tmp_path / "nothing").usage() is None


def test_our_own_memory_is_measured(tmp_path: Path) -> None:
    """proc(5), statm: pages that are resident; nothing where nobody says."""
    statm = tmp_path / "statm"
    assert own_bytes(statm) == 0
    statm.write_text("900 25 1 1 0 1 0\n")
    assert own_bytes(statm) == 25 * os.sysconf("SC_PAGE_SIZE")
    assert own_bytes() > 1_000_000
