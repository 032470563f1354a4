"""What stands in the documents? Pages in; blocks, commands, links and anchors out. Pure but for reading."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/*.md", "deploy/*.md", "proxy/*.md", "tests/**/*.md", "policies/**/*.md")
    for page in ROOT.glob(pattern)
    if page.parent.name != "results"  # what a benchmark wrote here
)
PROGRAMS = ("curl", "docker", "helm", "kubectl", "make", "mcp-sidecar", "pip", "python")
"""What a block of commands without a language begins with; the older pages have such blocks."""


@dataclass(frozen=True)
class Block:
    """What stands between two fences."""

    page: Path
    line: int
    """Of its first line, counted from 1."""
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True)
class Command:
    """One command of a line: what stands between pipes and semicolons."""

    where: str
    text: str
    is_typed: bool = True
    """Else it is only mentioned, between ticks."""

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text, comments=True)

    def __str__(self) -> str:
        return f"{self.where} {self.text}"


def blocks(page: Path) -> list[Block]:
    found = []
    opened: tuple[int, str, list[str]] | None = None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = re.match(r" *```(\w*)$", line)
        if opened is None and fence:
            opened = (number + 1, fence[1], [])
        elif opened is not None and fence:
            found.append(Block(page, opened[0], opened[1], "".join(f"{each}\n" for each in opened[2])))
            opened = None
        elif opened is not None:
            opened[2].append(line)
    assert opened is None, f"{page}: a fence is not closed"
    return found


def every_block() -> list[Block]:
    return [block for page in PAGES for block in blocks(page)]


def prose(page: Path) -> str:
    """The page without its blocks."""
    return re.sub(r"(?ms)^ *```\w*$.*?^ *```$", "", page.read_text(encoding="utf-8"))


def commands_of(block: Block) -> Iterator[str]:
    """The lines that somebody types, joined where they go on: of a console only those behind a `$`."""
    text = block.text.replace("\\\n", " ")
    if block.language == "console" or (not block.language and re.search(r"(?m)^\$ ", text)):
        yield from re.findall(r"(?m)^\$ (.+)$", text)
    elif block.language == "sh" or (not block.language and _begins_with_a_program(text)):
        yield from (line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#"))


def _begins_with_a_program(text: str) -> bool:
    return bool(re.match(rf"(?:{'|'.join(PROGRAMS)})\b|\w+=\$\(", text))


def parts_of(line: str) -> list[str]:
    """The commands of a line: those in `$(…)`, then what stands between `|`, `;` and `&&`. Quotes are respected."""
    found = []
    inner = re.findall(r"\w+=\$\((.*)\)", line)
    for text in (*inner, *([] if inner else [line])):
        lexer = shlex.shlex(text, posix=False, punctuation_chars="|;&")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in (*lexer, ";"):
            if set(word) <= set("|;&"):
                if words:
                    found.append(" ".join(words))
                words = []
            else:
                words.append(word)
    return found


def every_command() -> list[Command]:
    """Those of blocks, and what stands between ticks and begins as one that is ours."""
    found = []
    for page in PAGES:
        for block in blocks(page):
            found += [Command(str(block), part) for line in commands_of(block) for part in parts_of(line)]
        where = str(page.relative_to(ROOT))
        ticks = re.findall(r"`((?:mcp-sidecar|make|python|docker|helm|kubectl|kill)\s[^`]+)`", prose(page))
        found += [
            Command(where, part, is_typed=False)
            for each in ticks
            for part in parts_of(" ".join(each.split()))
        ]
    return found


def links(page: Path) -> list[str]:
    """Where relative links lead: everything but addresses with a scheme."""
    found = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    return [each for each in found if not re.match(r"[a-z]+:", each)]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of headings; the second of one name gets -1."""
    made: dict[str, int] = {}
    found = set()
    for title in re.findall(r"(?m)^#{1,6} (.+)$", prose(page)):
        name = (
            "".join(each for each in title.lower() if each.isalnum() or each in " _-")
            .strip()
            .replace(" ", "-")
        )
        again = made.get(name, 0)
        made[name] = again + 1
        found.add(f"{name}-{again}" if again else name)
    return found
