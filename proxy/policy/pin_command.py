"""How are tools approved? Asks the server for all of them → a lock file, and on `out` what changes in it.

Whoever runs it approves what it prints; a review of the file's diff says the same. `--check` changes nothing.
"""

import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Final, TextIO

from msgspec import Struct

from ..configuration.files import SETTINGS_FILE_BYTES
from ..configuration.mistakes import SettingsError, shown
from .definitions import Definition, Unreadable, define, hash_of_text
from .flags import flags_of, flags_of_text, look_alikes
from .pin_file import MOST_PINS, PinFile, differences, entry_of, pins_of, read_pins, text_of, write_pins
from .pin_settings import DefinitionSettings
from .server_tools import Listing, Silent

SAME: Final = 0
DIFFERS: Final = 1
FAILED: Final = 1
BAD_WISH: Final = 2


class PinWish(Struct, frozen=True, kw_only=True):
    """What to do with which lock file."""

    file: str
    is_check: bool = False
    """Write nothing; say by the exit code whether something differs."""
    keeps: bool = False
    """What is pinned stays pinned, and what is found comes to it: for servers that show callers different tools."""
    definitions: DefinitionSettings = DefinitionSettings()


async def pin(wish: PinWish, ask: Callable[[], Awaitable[list[Listing]]], out: TextIO, err: TextIO) -> int:
    """Write the lock file, or check it. Returns 0; 1 where the check found a difference or the server or disk failed;
    2 where the file that is there cannot be read. `ask` raises Silent. IO: reads and writes the file."""
    is_there = os.path.lexists(wish.file)
    try:
        before = read_pins(wish.file) if is_there else PinFile(version=1)
    except SettingsError as error:
        err.write(f"{error}\n")
        return BAD_WISH
    try:
        found = await ask()
    except Silent as silent:
        err.write(f"The tools cannot be listed: {silent}\n")
        return FAILED
    definitions: dict[tuple[str, str], Definition] = {}
    mistakes = list(_gather(found, definitions))
    if mistakes:
        err.writelines(f"{line}\n" for line in mistakes)
        return FAILED
    err.writelines(f"{line}\n" for line in _warnings(found, wish.definitions))
    after = _file_of(found, definitions, before if wish.keeps else None)
    lines = list(differences(before, after))
    out.writelines(f"{line}\n" for line in lines)
    what = f"{len({entry.name for entry in after.tools})} tools, {len(after.tools)} definitions"
    if wish.is_check or (is_there and not lines):
        differs = bool(lines) or not is_there
        out.write(f"{what}: {'not as' if differs else 'as'} pinned in {shown(wish.file, 4096)}\n")
        return DIFFERS if differs else SAME
    return _write(wish.file, after, what, out, err)


def _gather(found: Sequence[Listing], definitions: dict[tuple[str, str], Definition]) -> Iterator[str]:
    """Collect the definitions; what cannot be approved is told."""
    for listing in found:
        hashes: dict[str, str] = {}
        for tool in listing.tools:
            try:
                if not isinstance(tool, Mapping):
                    raise Unreadable
                definition = define(tool)
            except Unreadable:
                yield f"{listing.revision}: a tool has no definition that can be compared; nothing is written"
                continue
            name = definition.name
            if hashes.setdefault(name, definition.hash) != definition.hash:
                yield f"{listing.revision}: {shown(name)} is listed with two definitions; nothing is written"
            definitions[name, definition.hash] = definition
    if len(definitions) > MOST_PINS:
        yield f"There are more than {MOST_PINS} definitions, as many as are compared; nothing is written"


def _warnings(found: Sequence[Listing], settings: DefinitionSettings) -> Iterator[str]:
    """What is odd about the definitions, so that nobody approves it unseen."""
    told: dict[str, None] = {}
    for listing in found:
        tools = [tool for tool in listing.tools if isinstance(tool, Mapping)]
        alike = look_alikes([str(tool.get("name")) for tool in tools])
        for tool in tools:
            name = str(tool.get("name"))
            flags = flags_of(tool, settings) | ({"look_alike"} if name in alike else set())
            if flags:
                told[f"Look at {shown(name)} before you approve it: {', '.join(sorted(flags))}"] = None
        if listing.instructions and (odd := flags_of_text(listing.instructions)):
            told[f"Look at the server's instructions before you approve them: {', '.join(sorted(odd))}"] = (
                None
            )
    yield from told


def _file_of(
    found: Sequence[Listing], definitions: Mapping[tuple[str, str], Definition], kept: PinFile | None
) -> PinFile:
    entries = {key: entry_of(definition) for key, definition in definitions.items()}
    instructions = {hash_of_text(each.instructions) for each in found if each.instructions}
    if kept is not None:
        entries = {(entry.name, entry.hash): entry for entry in kept.tools} | entries
        instructions |= set(kept.instructions)
    return PinFile(version=1, tools=tuple(entries.values()), instructions=tuple(sorted(instructions)))


def _write(path: str, pins: PinFile, what: str, out: TextIO, err: TextIO) -> int:
    text = text_of(pins)
    try:
        if len(text.encode("utf-8")) > SETTINGS_FILE_BYTES:
            err.write(f"The file would be larger than {SETTINGS_FILE_BYTES} bytes; nothing is written\n")
            return FAILED
        pins_of(text.encode("utf-8"), path)  # what we write, the sidecar can read
        write_pins(path, text)
    except SettingsError as error:
        err.write(f"{error}\nNothing is written\n")
        return FAILED
    except OSError as error:
        err.write(f"{shown(path, 4096)} cannot be written: {error.strerror or type(error).__name__}\n")
        return FAILED
    out.write(f"{what}: written to {shown(path, 4096)}\n")
    return SAME
