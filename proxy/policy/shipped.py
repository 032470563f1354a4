"""Which packs and examples come with us, and what do they say? `mcp-sidecar policy list` and `policy show`.

In: a name. Out: the path of a file, or its text. Keeps nothing. A wheel holds the folder `policies` inside the package,
a checkout beside it.
"""

from pathlib import Path
from typing import Final, TextIO

from ..configuration.mistakes import Unfit, did_you_mean

SUFFIX: Final = ".yaml"
SHOWN: Final = 0
UNKNOWN: Final = 2


def packs() -> dict[str, Path]:
    """The shipped packs by name: rules that settings take up by `policy.packs`."""
    return _files(_folder() / "packs")


def examples() -> dict[str, Path]:
    """The shipped settings files by name, to be copied and changed."""
    return _files(_folder())


def list_shipped(out: TextIO) -> int:
    """Print each name with what its file says of itself first. Returns the exit code."""
    for kind, files in (("example", examples()), ("pack", packs())):
        for name, file in files.items():
            out.write(f"{kind:<8} {name:<17} {_first_sentence(file)}\n")
    return SHOWN


def show_shipped(name: str, out: TextIO, err: TextIO) -> int:
    """Print the file of this name as it is. Returns the exit code: 2 where there is none."""
    known = {**packs(), **examples()}
    if name not in known:
        err.write(f"{Unfit(repr(name), 'nothing of this name is shipped', did_you_mean(name, known))}\n")
        return UNKNOWN
    out.write(known[name].read_text(encoding="utf-8"))
    return SHOWN


def _folder() -> Path:
    package = Path(__file__).parents[1]
    inside = package / "policies"
    return inside if inside.is_dir() else package.parent / "policies"


def _files(folder: Path) -> dict[str, Path]:
    return {each.stem: each for each in sorted(folder.glob(f"*{SUFFIX}"))}


def _first_sentence(file: Path) -> str:
    """Of the comment at the top."""
    words: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("# "):
            break
        words.append(line.removeprefix("# "))
    return " ".join(words).partition(". ")[0].removesuffix(".") + "."
