"""Where in the text does an addition go? Changes of nodes in; insertions and replacements at offsets out. Pure.

An addition stands behind the last line of what it is added to: comments above and beside what was there stay with it.
In flow style, which JSON is, it stands behind the last value.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, TypeAlias

from msgspec import Struct

from .nodes import LINE_END, Items, Node, Scalar, Table
from .spots import Spot
from .writing import Style, Value, as_json, entry_lines, item_lines, scalar

_REST: Final = re.compile("(?:[ \t]+#[^\r\n\x85\u2028\u2029]*)?[ \t]*")
"""What may stand behind a value on its line in block style."""

_BREAK: Final = re.compile("\r\n|[\r\n]")


class AddEntry(Struct, frozen=True):
    """A new key at the end of a mapping."""

    spot: Spot
    key: str
    value: Value


class AddItem(Struct, frozen=True):
    """A new item at the end of a list."""

    spot: Spot
    value: Value


class Replace(Struct, frozen=True):
    """Another value for a scalar; a list or a mapping for null or for an empty one."""

    spot: Spot
    value: Value


Change: TypeAlias = AddEntry | AddItem | Replace


class Edit(Struct, frozen=True):
    """`text` in the place of what stands between two offsets. `column` orders edits of one offset: deeper first."""

    start: int
    end: int
    text: str
    column: int = 0


def apply(text: str, edits: Sequence[Edit]) -> str:
    """The text with all edits made."""
    done, pieces = 0, []
    for edit in sorted(edits, key=lambda it: (it.start, -it.column)):
        assert edit.start >= done, "edits never overlap"
        pieces += [text[done : edit.start], edit.text]
        done = edit.end
    return "".join((*pieces, text[done:]))


def edits_of(text: str, change: Change, style: Style) -> list[Edit]:
    """What has to be done to the text. Raises Refusal where that cannot be done safely."""
    spot = change.spot.to_change()
    node = spot.node
    if isinstance(change, Replace):
        return _replaced(text, spot, change.value, style)
    if isinstance(change, AddItem):
        assert isinstance(node, Items)
        if node.place.is_flow:
            return [_in_flow(text, spot, None, change.value)]
        return [_lines(text, spot, _dash_column(text, spot), item_lines(change.value, style))]
    assert isinstance(node, Table)
    if node.place.is_flow:
        return [_in_flow(text, spot, change.key, change.value)]
    column = node.entries[0][0].place.column
    return [_lines(text, spot, column, entry_lines(change.key, change.value, style))]


def style_of(text: str, table: Spot, key: str) -> Style:
    """How lists below `table` are written, judged by the one under `key`; else as kubectl writes them."""
    node = table.node
    found = table.get(key)
    if found is None or not isinstance(node, Table) or not isinstance(found.node, Items):
        return Style()
    if node.place.is_flow or found.node.place.is_flow or not found.node.items:
        return Style()
    dash = max(0, _dash_column(text, found) - node.entries[0][0].place.column)
    return Style(step=dash or 2, dash=dash)


def _lines(text: str, spot: Spot, column: int, lines: list[str]) -> Edit:
    """Whole lines behind the last line of a node in block style."""
    at, line_break, is_last = _line_end(text, spot)
    block = line_break.join(" " * column + line for line in lines)
    return Edit(at, at, line_break + block if is_last else block + line_break, column)


def _line_end(text: str, spot: Spot) -> tuple[int, str, bool]:
    """Where the line after a node begins, how lines end here, and whether the text ends before."""
    end = spot.node.place.end
    rest = _REST.match(text, end)
    at = rest.end() if rest else end
    if at == len(text):
        if _takes_the_last_line_end(text, spot.node):
            why = "it ends in a text in block style, which would get a line end with what comes behind it"
            raise spot.refused("cannot be added to", why, "end the last line")
        known = _BREAK.search(text)
        return at, known[0] if known else "\n", True
    found = _BREAK.match(text, at)
    if found is None:
        raise spot.refused(
            "cannot be added to", "something stands behind it on its line", "put it on a line of its own"
        )
    return found.end(), found[0], False


def _takes_the_last_line_end(text: str, node: Node) -> bool:
    """Whether a node ends in a block scalar whose value says how its last line ends (`|` does, `|-` does not)."""
    while isinstance(node, Table | Items) and not node.place.is_flow:
        node = node.entries[-1][1] if isinstance(node, Table) else node.items[-1]
    header = _BREAK.split(text[node.place.start : node.place.end], maxsplit=1)[0]
    is_block = (
        isinstance(node, Scalar) and not node.is_plain and re.search(r"(?:^|[ \t])[|>][0-9+]*$", header)
    )
    return bool(is_block)


def _dash_column(text: str, spot: Spot) -> int:
    """The column of the dashes of a list in block style."""
    node = spot.node
    assert isinstance(node, Items)
    before = text[: node.items[0].place.start].rstrip(" \t\r\n")
    if not before.endswith("-"):
        raise spot.refused(
            "cannot be added to",
            "its first item does not stand behind a dash",
            "write the item behind its dash",
        )
    at = len(before) - 1
    line = max((found.end() for found in LINE_END.finditer(text, max(0, at - 1000), at)), default=0)
    return at - line


def _in_flow(text: str, spot: Spot, key: str | None, value: Value) -> Edit:
    """Behind the last value between braces or brackets, with a comma where something stands before."""
    node = spot.node
    assert isinstance(node, Table | Items)
    inner: Sequence[tuple[Node, Node]] = (
        node.entries if isinstance(node, Table) else [(item, item) for item in node.items]
    )
    if not inner:
        at = node.place.end - 1
        written = _flow_text(key, value, None, is_dense=False)
        return Edit(at, at, written)
    first, last = inner[0][0], inner[-1][1]
    if isinstance(last, Scalar) and last.place.start == last.place.end:
        raise spot.refused(
            "cannot be added to", "its last value is empty", "write null, or leave the key out"
        )
    at = last.place.end
    is_dense = _is_dense(text, node)
    line_start = _line_start(text, first.place.start)
    before = text[line_start : first.place.start]
    if before.strip(" \t"):
        return Edit(at, at, ("," if is_dense else ", ") + _flow_text(key, value, None, is_dense=is_dense))
    found = _BREAK.search(text, max(0, line_start - 2), line_start)
    line_break = found[0] if found else "\n"
    step = max(1, len(before) - len(_indentation(text, spot)))
    if "\t" in before:
        step = 1
    written = _flow_text(key, value, step, is_dense=False)
    if "\t" in before:
        written = re.sub(r"(?m)^ +", lambda it: "\t" * len(it[0]), written)
    return Edit(at, at, f",{line_break}{before}" + written.replace("\n", line_break + before))


def _flow_text(key: str | None, value: Value, indent: int | None, *, is_dense: bool) -> str:
    written = as_json(value, indent=indent, is_dense=is_dense)
    return written if key is None else f'"{key}"{":" if is_dense else ": "}{written}'


def _is_dense(text: str, node: Table | Items) -> bool:
    """Whether commas and colons are written without blanks, as programs do."""
    if isinstance(node, Items):
        first = node.items[0]
        return isinstance(first, Table) and bool(first.entries) and _is_dense(text, first)
    key, value = node.entries[0]
    return text[key.place.end : value.place.start] == ":"


def _indentation(text: str, spot: Spot) -> str:
    """The blanks that begin the line in which a node begins."""
    start = _line_start(text, spot.node.place.start)
    blanks = re.compile(r"[ \t]*").match(text, start)
    return blanks[0] if blanks else ""


def _line_start(text: str, at: int) -> int:
    return max(text.rfind("\n", 0, at), text.rfind("\r", 0, at)) + 1


def _replaced(text: str, spot: Spot, value: Value, style: Style) -> list[Edit]:
    place = spot.node.place
    if place.is_marked:
        raise spot.refused("cannot be changed", "it has an anchor or a tag", "remove that")
    if isinstance(value, str | int):
        blank = " " if place.start == place.end else ""
        return [Edit(place.start, place.end, blank + scalar(value))]
    before = text[_line_start(text, place.start) : place.start]
    key = re.fullmatch(r"((?:[ \t]|- )*)[A-Za-z]+:([ \t]*)", before)
    if key is None or spot.is_in_flow:
        blank = " " if before.endswith(":") and not spot.is_in_flow else ""
        return [Edit(place.start, place.end, blank + as_json(value, indent=None, is_dense=False))]
    # `volumes: []` becomes `volumes:` with lines below it, and a comment behind it stays where it is.
    column = len(key[1])
    at, line_break, is_last = _line_end(text, spot)
    lines = entry_lines("key", value, style)[1:]
    block = line_break.join(" " * column + line for line in lines)
    emptied = Edit(place.start - len(key[2]), place.end, "")
    return [emptied, Edit(at, at, line_break + block if is_last else block + line_break, column + 1)]
