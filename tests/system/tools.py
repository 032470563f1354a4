"""Which programs of the system do tests need, and which of them are missing here?

    python3 tests/system/tools.py              what is missing, in words
    python3 tests/system/tools.py --packages   the Debian packages that bring it, one a line

In: packages.txt, and what is installed. Out: paths, or what is missing. Keeps nothing. Nothing but the standard
library: `.ci/run` asks before there is an environment.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

LIST = Path(__file__).with_name("packages.txt")
BESIDE = ("/usr/sbin", "/sbin")
"""Where Debian keeps servers; users do not have it in their PATH."""


def needed(file: Path = LIST) -> Mapping[str, str]:
    """Program → package, of all that the list names."""
    lines = (line.partition("#")[0].split() for line in file.read_text(encoding="utf-8").splitlines())
    return dict(filter(None, lines))


def found(program: str) -> str | None:
    """Where a program is, or None."""
    return shutil.which(program, path=os.pathsep.join((os.environ.get("PATH", ""), *BESIDE)))


def path(program: str) -> str:
    """Where a program is. Raises FileNotFoundError."""
    where = found(program)
    if where is None:
        raise FileNotFoundError(in_words([program]))
    return where


def missing(programs: Iterable[str] | None = None) -> list[str]:
    """Those of the programs (None: of all) that are not here, in the order given. Raises KeyError for a program that
    the list does not name: nobody would install it."""
    packages = needed()
    return [each for each in programs or packages if packages[each] and found(each) is None]


def packages_of(programs: Iterable[str]) -> list[str]:
    packages = needed()
    return sorted({packages[each] for each in programs})


def in_words(programs: Iterable[str]) -> str:
    """What is missing, and the remedy."""
    programs = list(programs)
    return f"missing: {', '.join(programs)} (apt-get install {' '.join(packages_of(programs))})"


if __name__ == "__main__":
    lacking = missing()
    if "--packages" in sys.argv[1:]:
        print("\n".join(packages_of(lacking)))
    else:
        print(in_words(lacking) if lacking else "every program is here")
