"""What pages quote of the last results: `python -m tests.bench.side.quote` rewrites their marked blocks.

In: results/latest.md, and pages with a line BEGIN and a line END. Out: the pages, with new lines between the two. A
test holds both together.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[3]
FOLDER: Final = ROOT / "tests" / "bench" / "results"
README: Final = ROOT / "README.md"
COMPARISON: Final = ROOT / "docs" / "comparison.md"
BEGIN: Final = "<!-- from tests/bench/results/latest.md -->\n"
END: Final = "<!-- end of that -->\n"
NOTHING: Final = "No results are kept yet.\n"


def quoting(page: str, said: str) -> str:
    """The page with this between its marks. Raises ValueError where it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"a page that quotes results needs the lines {BEGIN!r} and {END!r}")
    return f"{before}{begin}\n{said}\n{end}{after}"


def summary(said: str) -> str:
    """The machine and the ratios: what stands before the first table of peers."""
    return said.partition("\n\n**")[0].rstrip("\n") + "\n"


def pages(latest: str | None) -> dict[Path, str]:
    """Each page that quotes, as it should be; `latest` is what latest.md says. IO: reads them."""
    quoted = {
        README: NOTHING if latest is None else summary(latest),
        COMPARISON: NOTHING if latest is None else latest,
    }
    return {page: quoting(page.read_text(encoding="utf-8"), said) for page, said in quoted.items()}


def latest() -> str | None:
    """What latest.md says; None where there is none. IO: reads it."""
    file = FOLDER / "latest.md"
    return file.read_text(encoding="utf-8") if file.exists() else None


def quote() -> None:
    """Bring the pages up to date. IO: reads and writes them."""
    for page, text in pages(latest()).items():
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    quote()
