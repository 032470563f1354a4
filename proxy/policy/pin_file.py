"""What does a lock file of tool definitions hold? → `PinFile`, and its text. Pure but for reading the file.

One line a tool: its name, the hash that decides, and enough to read what a change would change. A tool may stand there
several times: some servers answer older revisions with other definitions, or some callers; each of them counts.
Written to be reviewed in a diff: sorted, and every character that could hide or imitate another one is escaped.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct, structs

from ..configuration.documents import document_of, read_document
from ..configuration.files import replace_file
from ..configuration.mistakes import Unfit, shown
from ..configuration.values import fit
from .definitions import FORMAT, NAMELESS, PART_DIGITS, PARTS, Definition
from .invisible import hidden_in

MOST_PINS: Final = 1_200
"""Entries of one file: what the reader of settings files takes."""

_HASH: Final = re.compile(rf"{FORMAT}:[0-9a-f]{{64}}", re.ASCII)
_PART: Final = re.compile(rf"({'|'.join(PARTS)}|other|{NAMELESS}):([0-9a-f]{{{PART_DIGITS}}})", re.ASCII)
_HEAD: Final = """\
# The tools of this server as they were approved; written by mcp-sidecar pin, which prints what has changed.
# `hash` decides, the rest is for reading. A tool may stand here twice where the server has two definitions of it.
version: 1
"""


def check_hash(text: str) -> None:
    """Raise Unfit unless this is a hash of a definition in a format that we can compare."""
    if not _HASH.fullmatch(text):
        why = f"{FORMAT}: and 64 lower-case hex digits are needed"
        raise Unfit("is no hash of a definition", why, "write the file anew with mcp-sidecar pin")


def check_parts(text: str) -> None:
    """Raise Unfit unless these are digests of parts."""
    if not all(map(_PART.fullmatch, text.split())):
        why = f"it lists parts of a definition, each with {PART_DIGITS} hex digits"
        raise Unfit("holds no digests", why, "write the file anew with mcp-sidecar pin, or remove it")


Hash = Annotated[str, fit(check_hash)]


class PinEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One definition of one tool, as it was approved."""

    name: Annotated[str, Meta(min_length=1, max_length=1_024)]
    """The tool's name, character by character."""

    hash: Hash
    """Of the whole definition but for icons and _meta. Whoever changes anything else changes it."""

    title: str = ""
    """The title for people."""

    about: str = ""
    """The first line of the description."""

    parameters: str = ""
    """Its parameters and their types."""

    hints: str = ""
    """Its annotations that are true or (with !) false."""

    parts: Annotated[str, fit(check_parts)] = ""
    """Digests of its parts, so that a change can be named."""

    @property
    def digests(self) -> Mapping[str, str]:
        matches = map(_PART.fullmatch, self.parts.split())
        return {match[1]: match[2] for match in matches if match is not None}


def check_tools(tools: tuple[PinEntry, ...]) -> None:
    """Raise Unfit where an entry is there twice, or where there are too many."""
    if len(tools) > MOST_PINS:
        raise Unfit("has too many entries", f"at most {MOST_PINS} are compared", "remove some")
    seen: set[tuple[str, str]] = set()
    for index, entry in enumerate(tools):
        if (entry.name, entry.hash) in seen:
            raise Unfit("is there twice", "one entry says it all", "remove one", key=index)
        seen.add((entry.name, entry.hash))


class PinFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file that `pins.file` names."""

    version: Literal[1]
    """The format of this file."""

    instructions: tuple[Hash, ...] = ()
    """Hashes of the server's instructions, of which one must fit. Empty: they are not compared."""

    tools: Annotated[tuple[PinEntry, ...], Meta(extra={"fit": check_tools})] = ()
    """The definitions that were approved."""


def read_pins(path: str) -> PinFile:
    """Read the file. Raises SettingsError with every mistake. IO: reads it (at most 1 MiB)."""
    return read_document(path, PinFile, environ={})


def pins_of(content: bytes, path: str) -> PinFile:
    """Like read_pins, for content that was read already."""
    return document_of(content, path, PinFile, {})


def entry_of(definition: Definition) -> PinEntry:
    """What the file says of a definition."""
    return PinEntry(
        name=definition.name,
        hash=definition.hash,
        title=definition.title,
        about=definition.about,
        parameters=definition.parameters,
        hints=definition.hints,
        parts=" ".join(f"{part}:{digest}" for part, digest in definition.parts.items()),
    )


def text_of(pins: PinFile) -> str:
    """The file as it is written: sorted, one line a tool."""
    lines = [_HEAD]
    if pins.instructions:
        lines.append(f"instructions: [{', '.join(map(_quoted, sorted(pins.instructions)))}]\n")
    entries = sorted(pins.tools, key=lambda entry: (entry.name, entry.hash))
    lines.append("tools:\n" if entries else "tools: []\n")
    lines.extend(f"  - {{{', '.join(_members(entry))}}}\n" for entry in entries)
    return "".join(lines)


def differences(before: PinFile, after: PinFile) -> Iterator[str]:
    """What changes from one file to the other, in lines for people. None: nothing does."""
    if set(before.instructions) != set(after.instructions):
        yield "~ the server's instructions"
    old, new = _by_name(before.tools), _by_name(after.tools)
    for name in sorted({*old, *new}):
        gone = [entry for hash, entry in old.get(name, {}).items() if hash not in new.get(name, {})]
        come = [entry for hash, entry in new.get(name, {}).items() if hash not in old.get(name, {})]
        if name not in old:
            for entry in come:
                yield f"+ {_one_line(entry)}"
        elif name not in new:
            yield f"- {shown(name)}"
        elif gone and come:
            # Compared in order: there is nearly always one of each.
            for index, entry in enumerate(come):
                yield f"~ {shown(name)}"
                yield from _changed(gone[min(index, len(gone) - 1)], entry)
        else:
            more = "one more definition" if come else "one definition less"
            yield from (f"~ {shown(name)}: {more}" for _ in (*come, *gone))


def changed_parts(before: PinEntry, after: Mapping[str, str]) -> list[str]:
    """The parts whose digests differ; empty where the file has none."""
    digests = before.digests
    return [part for part in (*PARTS, "other") if digests and digests.get(part) != after.get(part)]


def _by_name(entries: Iterable[PinEntry]) -> dict[str, dict[str, PinEntry]]:
    found: dict[str, dict[str, PinEntry]] = {}
    for entry in entries:
        found.setdefault(entry.name, {})[entry.hash] = entry
    return found


def _one_line(entry: PinEntry) -> str:
    about = f": {_seen(entry.about)}" if entry.about else ""
    hints = f" [{_seen(entry.hints)}]" if entry.hints else ""
    return f"{shown(entry.name)}({_seen(entry.parameters)}){hints}{about}"


def _changed(before: PinEntry, after: PinEntry) -> Iterator[str]:
    for field in ("title", "about", "hints"):
        one, other = getattr(before, field), getattr(after, field)
        if one != other:
            yield f"    {field}: {_seen(one) or '(none)'} → {_seen(other) or '(none)'}"
    old, new = (set(filter(None, entry.parameters.split(", "))) for entry in (before, after))
    yield from (f"    parameters: - {_seen(each)}" for each in sorted(old - new))
    yield from (f"    parameters: + {_seen(each)}" for each in sorted(new - old))
    parts = changed_parts(before, after.digests)
    yield f"    changed: {', '.join(parts) or 'its definition'}"


def _seen(text: str) -> str:
    return shown(text, 200)


def _members(entry: PinEntry) -> Iterator[str]:
    for field, value in structs.asdict(entry).items():
        if value:
            # Letters of any language in what people read; but what is compared is ASCII, so that no letter poses.
            is_prose = field in ("title", "about")
            yield f"{field}: {_quoted(value, is_prose=is_prose)}"


def _quoted(text: str, *, is_prose: bool = False) -> str:
    """The text as YAML reads it back, in double quotes, and never a reference."""
    keeps = is_prose and not hidden_in(text)
    return f'"{"".join(_escaped(one, keeps=keeps) for one in text)}"'.replace("${", "$${")


def _escaped(character: str, *, keeps: bool) -> str:
    if character in '"\\':
        return f"\\{character}"
    if " " <= character <= "~" or (keeps and character.isprintable() and character < "\U00010000"):
        return character
    return f"\\U{ord(character):08x}"


def write_pins(path: str, text: str) -> None:
    """Put the text in the place of the file, whole or not at all. Raises OSError. IO."""
    # A name of its own: two people may write down their tools at once.
    replace_file(path, text.encode("utf-8"), mode=0o644, beside=f"{path}.{os.getpid()}.new")
