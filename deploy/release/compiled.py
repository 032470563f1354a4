"""How does the same source become faster? A checkout → its proxy/ with an extension module beside each source that a
call passes through.

    python deploy/release/compiled.py SOURCE TARGET [--jobs N] [--cache FOLDER] [--only MODULE]...

In: a folder with proxy/ and policies/, and deploy/release/compiled.txt, which names modules. Out: TARGET/proxy and
TARGET/policies, in which Python finds `x.cpython-….so` before `x.py`; the source stays for tracebacks and people.
Cython compiles it as it is: annotations are for people and mypy, not for it, no check of bounds is left out, and
every class that can be a C struct is one (declared.py). Where attributes of other objects lie is remembered by each
place in the code (attributes.h). With --cache an object that was made of the same is taken from there.

What compiled code does not do: count towards Python's limit of recursion. No listed module may descend by itself into
what strangers sent; `_named` in policy/rules.py does, and its depth is bounded by protocol/jsonrpc.py (64), and
`_bounded` in telemetry/audit_chain.py, three times.

The same sources, Cython, compiler and Python give the same bytes: objects name `proxy/x.py` and no other place.
Needs Cython (requirements/compile.lock), a C compiler and Python's headers; raises SystemExit that names what is
missing, or what a tool said.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from declared import declarations

LIST: Final = "deploy/release/compiled.txt"
COPIED: Final = ("proxy", "policies")
TO_C: Final = (
    *("-3", "--fast-fail", "--no-docstrings", "-X", "annotation_typing=False", "-X", "infer_types=False"),
    *("-X", "auto_pickle=False", "-X", "emit_code_comments=False"),
)
"""Nothing is inferred, so that a name may hold None or something else, as in Python."""
TO_OBJECT: Final = (
    *("-shared", "-fPIC", "-O2", "-g0", "-DNDEBUG", "-fwrapv", "-fvisibility=hidden", "-w"),
    *("-Wl,--strip-all", "-Wl,--build-id=none"),
)
REMEMBERED: Final = Path(__file__).with_name("attributes.h").read_text(encoding="utf-8")
FUNCTIONS: Final = "/* #### Code section: module_code ### */", "/* #### Code section: module_exttypes ### */"
"""What Cython writes before the functions of a module, and behind them."""
REDEFINED: Final = "__Pyx_PyObject_GetAttrStr", "__Pyx_PyObject_FastCallMethod"
"""What attributes.h has of its own."""
SUFFIX: Final = str(sysconfig.get_config_var("EXT_SUFFIX"))
INCLUDE: Final = sysconfig.get_path("include")


def listed(source: Path) -> list[str]:
    """The modules, as paths below a checkout."""
    lines = (source / LIST).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def build(source: Path, target: Path, modules: Sequence[str], jobs: int, cache: Path | None) -> None:
    """Fill `target`, which must be empty or not there. Raises SystemExit."""
    _demand_tools()
    for name in COPIED:
        ignored = shutil.ignore_patterns("__pycache__", "*.py[cod]", "*.so")
        shutil.copytree(source / name, target / name, ignore=ignored)
    made_by = _made_by()
    with ThreadPoolExecutor(jobs) as pool:
        # Looked at in order, so that the first mistake is the one that is told.
        for _ in pool.map(partial(_make, target, made_by, cache), modules):
            pass


def object_of(module: str) -> str:
    """Where the object of a module lies: `proxy/x.py` → `proxy/x.cpython-….so`."""
    return module.removesuffix(".py") + SUFFIX


def _demand_tools() -> None:
    if find_spec("Cython") is None:
        raise SystemExit(
            f"{sys.executable} has no Cython: install it with pip install --require-hashes -r requirements/compile.lock"
        )
    if shutil.which("cc") is None:
        raise SystemExit(
            "there is no C compiler: `cc` is not on PATH (Debian: apt-get install gcc libc6-dev)"
        )
    if not Path(INCLUDE, "Python.h").is_file():
        raise SystemExit(f"{INCLUDE} has no Python.h: the headers of this Python are missing (python3-dev)")


def _made_by() -> bytes:
    """What an object depends on beside its source."""
    said = [_run([*tool, "--version"], Path.cwd()) for tool in ((sys.executable, "-m", "cython"), ("cc",))]
    return repr((TO_C, REMEMBERED, TO_OBJECT, said, sys.version, SUFFIX)).encode()


def _make(tree: Path, made_by: bytes, cache: Path | None, module: str) -> None:
    """The object of one module."""
    source = (tree / module).read_text(encoding="utf-8")
    declared, _ = declarations(source)
    kept = None
    if cache is not None:
        key = hashlib.sha256(repr((module, source, declared)).encode() + made_by).hexdigest()
        kept = cache / f"{key}.so"
        if kept.is_file():
            shutil.copyfile(kept, tree / object_of(module))
            return
    # Alone in a folder: nothing but its own source and declarations has a part in it.
    with tempfile.TemporaryDirectory(prefix="mcp-sidecar-compiled-") as name:
        folder = Path(name)
        place = folder / module
        place.parent.mkdir(parents=True)
        for package in place.relative_to(folder).parents[:-1]:
            (folder / package / "__init__.py").touch()
        place.write_text(source, encoding="utf-8")
        place.with_suffix(".pxd").write_text(declared, encoding="utf-8")
        full = module.removesuffix(".py").replace("/", ".")
        # Relative names, because these are the names that end up in the object.
        to_c = [sys.executable, "-m", "cython", *TO_C, "--module-name", full, "-o", "made.c", module]
        _run(to_c, folder)
        made = folder / "made.c"
        made.write_text(remembering(made.read_text(encoding="utf-8")), encoding="utf-8")
        _run(["cc", *TO_OBJECT, f"-I{INCLUDE}", "made.c", "-o", "made.so"], folder)
        shutil.copyfile(folder / "made.so", tree / object_of(module))
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            half = kept.with_suffix(f".{os.getpid()}")
            shutil.copyfile(folder / "made.so", half)
            half.rename(kept)


def remembering(made: str) -> str:
    """What Cython has made, whose functions remember where attributes lie. Raises SystemExit."""
    begin, end = FUNCTIONS
    if [made.count(begin), made.count(end)] != [1, 1]:
        raise SystemExit(f"this Cython does not mark where functions begin and end: {begin} {end}")
    before = "".join(f'#pragma push_macro("{name}")\n' for name in REDEFINED)
    after = "".join(f'#pragma pop_macro("{name}")\n' for name in REDEFINED)
    return made.replace(begin, f"{begin}\n{before}{REMEMBERED}").replace(end, f"{after}{end}")


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{(done.stdout + done.stderr)[-4000:]}")
    return done.stdout + done.stderr


def main() -> None:
    parser = argparse.ArgumentParser(prog="python deploy/release/compiled.py")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--cache", type=Path, help="a folder in which objects are kept")
    parser.add_argument("--only", action="append", metavar="MODULE", help="instead of what is listed")
    options = parser.parse_args()
    source = options.source.resolve()
    cache = None if options.cache is None else options.cache.resolve()
    build(source, options.target.resolve(), options.only or listed(source), options.jobs, cache)


if __name__ == "__main__":
    main()
