"""What has changed between a pinned definition and the one that was seen? Both in; fixed words out. Pure.

It explains only. That something has changed, the hashes have decided before.
"""

from collections.abc import Iterator
from typing import Final

from .definitions import Definition
from .pin_file import PinEntry, changed_parts

_SAFE: Final = {
    "readOnlyHint": True,
    "destructiveHint": False,
    "idempotentHint": True,
    "openWorldHint": False,
}
"""What each annotation says of a harmless tool; its default says the opposite (2025-03-26 schema, ToolAnnotations)."""


def changes(entry: PinEntry, seen: Definition) -> Iterator[str]:
    """Fixed words for what differs: title, description, schema_widened, schema_narrowed, schema, output_schema,
    annotations_downgraded, annotations, other; `definition` where the entry has no digests to tell it by."""
    parts = changed_parts(entry, seen.parts)
    if not parts:
        yield "definition"
    for part in parts:
        if part == "inputSchema":
            yield from _schema_changes(entry.parameters, seen.parameters)
        elif part == "annotations":
            yield "annotations_downgraded" if _is_downgraded(entry.hints, seen.hints) else part
        else:
            yield "output_schema" if part == "outputSchema" else part


def _schema_changes(before: str, after: str) -> Iterator[str]:
    old, new = (
        {each.partition(":")[0].removesuffix("?") for each in text.split(", ") if each}
        for text in (before, after)
    )
    if new - old:
        yield "schema_widened"
    if old - new:
        yield "schema_narrowed"
    if old == new:
        yield "schema"


def _is_downgraded(before: str, after: str) -> bool:
    """Whether some annotation no longer says that the tool is harmless."""
    old, new = ({each for each in text.split(", ") if each} for text in (before, after))
    harmless = {name if safe else f"!{name}" for name, safe in _SAFE.items()}
    return bool((old - new) & harmless)
