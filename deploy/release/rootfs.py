"""Which files does the image consist of? A folder of installed packages → a root file system with nothing else in it.

    python deploy/release/rootfs.py PACKAGES ROOTFS

In: packages as `pip install --target` leaves them, and the Python that runs this. Out: that interpreter with the part
of its library that a server needs, the packages, the shared libraries all of them are linked with, certificates, time
zones, and `mcp-sidecar`; no shell, no package manager, no second copy of anything. Everything is compiled, because the
file system is read-only where it runs; symbols that nobody looks up are gone. Raises SystemExit where something is
missing: an image that lacks a library would say so to its first user only. Standard library, `ldd` and `strip`.
"""

from __future__ import annotations

import compileall
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Final

USER: Final = 65532
"""As distroless images call the user without rights; numeric, so that a kubelet can see that it is not root."""
LAUNCHER: Final = "/usr/local/bin/mcp-sidecar"
CERTIFICATES: Final = "/etc/ssl/certs/ca-certificates.crt"
TIME_ZONES: Final = "/usr/share/zoneinfo"

UNUSED_LIBRARY: Final = (
    *("__pycache__", "site-packages", "dist-packages", "config-*", "*.a", "*.exe"),
    # Tests, windows on a screen, installers, help texts.
    *(
        "test",
        "tests",
        "idlelib",
        "idle_test",
        "tkinter",
        "_tkinter*",
        "turtle*",
        "ensurepip",
        "venv",
        "lib2to3",
    ),
    *("pydoc_data", "_test*", "_ctypes_test*", "_xxtestfuzz*", "xxlimited*", "xxsubtype*"),
    # Terminals and data bases, with the libraries they would bring.
    *("curses", "_curses*", "readline*", "dbm", "_dbm*", "_gdbm*", "sqlite3", "_sqlite3*"),
)
UNUSED_OF_PACKAGES: Final = (
    *("__pycache__", "bin", "tests", "*.pyi", "*.pyx", "*.pxd", "*.pxi", "*.c", "*.h", "*.hpp", "*.hash"),
)
UNUSED_PARTS: Final = ("cel_expr_python/ext",)
"""Of single packages: extensions of CEL that no rule can name."""


def build(packages: Path, rootfs: Path) -> None:
    """Fill `rootfs`, which must be empty or not there."""
    interpreter = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    library = Path(sysconfig.get_path("stdlib"))
    place = rootfs / library.relative_to("/") / "site-packages"
    shutil.copytree(library, place.parent, symlinks=True, ignore=shutil.ignore_patterns(*UNUSED_LIBRARY))
    shutil.copytree(packages, place, ignore=shutil.ignore_patterns(*UNUSED_OF_PACKAGES), dirs_exist_ok=True)
    for part in UNUSED_PARTS:
        shutil.rmtree(place / part, ignore_errors=True)
    _copy(interpreter, rootfs)
    for each in _linked([interpreter, *_elf_below(place.parent)], rootfs):
        _copy(each, rootfs)
    _strip([rootfs / interpreter.relative_to("/"), *_elf_below(rootfs)])
    _system_files(rootfs)
    launcher = rootfs / LAUNCHER[1:]
    launcher.parent.mkdir(parents=True, exist_ok=True)
    # -I: neither variables nor a home folder say what is imported; -B: nobody writes here.
    launcher.write_text(
        f"#!{interpreter} -IB\nimport sys\n\nfrom proxy.__main__ import main\n\nsys.exit(main())\n",
        encoding="ascii",
    )
    launcher.chmod(0o755)
    _compile(place.parent, rootfs)
    _same_times(rootfs)


def _copy(file: Path, rootfs: Path) -> None:
    """To the same place there, as a file: links are followed."""
    target = rootfs / file.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(file, target)


def _elf_below(folder: Path) -> Iterator[Path]:
    for each in sorted(folder.rglob("*.so*")):
        if each.is_file() and not each.is_symlink():
            with each.open("rb") as file:
                if file.read(4) == b"\x7fELF":
                    yield each


def _linked(binaries: Iterable[Path], rootfs: Path) -> list[Path]:
    """The shared libraries of the system that these need, the loader included. SystemExit where one is missing."""
    found: set[Path] = set()
    for binary in binaries:
        done = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False)
        if missing := re.findall(r"(\S+) => not found", done.stdout):
            raise SystemExit(f"{binary} needs {', '.join(missing)}, which this system does not have")
        found.update(Path(each) for each in re.findall(r"(?:=> |^\s+)(/\S+) \(0x", done.stdout, re.MULTILINE))
    # What packages bring along lies beside them.
    return sorted(each for each in found if not each.is_relative_to(rootfs))


def _strip(binaries: Iterable[Path]) -> None:
    subprocess.run(["strip", "--strip-unneeded", *map(str, binaries)], check=True)


def _system_files(rootfs: Path) -> None:
    if not Path(CERTIFICATES).is_file():
        raise SystemExit(f"{CERTIFICATES} is missing: without it no provider is believed")
    _copy(Path(CERTIFICATES), rootfs)
    if not Path(TIME_ZONES).is_dir():
        raise SystemExit(f"{TIME_ZONES} is missing: without it quotas know UTC only")
    shutil.copytree(
        TIME_ZONES,
        rootfs / TIME_ZONES[1:],
        ignore=shutil.ignore_patterns("posix", "right", "*.list", "*.tab"),
    )
    etc = rootfs / "etc"
    (etc / "passwd").write_text(f"nonroot:x:{USER}:{USER}:nonroot:/:/nonexistent\n", encoding="ascii")
    (etc / "group").write_text(f"nonroot:x:{USER}:\n", encoding="ascii")
    temporary = rootfs / "tmp"
    temporary.mkdir(exist_ok=True)
    temporary.chmod(0o1777)


def _compile(library: Path, rootfs: Path) -> None:
    """Unchecked: nobody edits an image, and a look at the source for each import would be wasted."""
    is_well = compileall.compile_dir(
        library,
        maxlevels=50,
        quiet=1,
        workers=0,
        stripdir=rootfs,
        prependdir="/",
        invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
    )
    if not is_well:
        raise SystemExit("not everything compiles")


def _same_times(rootfs: Path) -> None:
    """Of everything, so that the same sources give the same layer."""
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    for each in [rootfs, *rootfs.rglob("*")]:
        os.utime(each, (epoch, epoch), follow_symlinks=False)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("usage: python deploy/release/rootfs.py PACKAGES ROOTFS")
    build(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
