"""What does a manifest say, and where exactly? Text → documents whose every node knows where it begins and ends.

Unlike settings, manifests are other people's: anchors, aliases, tags and merge keys are theirs to use, and are kept as
what they are. Built from parser events without recursion; no object is made that the text asks for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, TypeAlias

from msgspec import Struct, field

from ..configuration.mistakes import Mistake, SettingsError, shown

if TYPE_CHECKING:
    from yaml import MarkedYAMLError

MOST_LEVELS: Final = 64
"""Bounds the recursion of whoever walks a tree. Manifests have twenty."""

LINE_END: Final = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
"""What ends a line for the reader that positions come from, and for the one in kubectl: YAML 1.1, section 4.2."""

TEMPLATE: Final = re.compile(r"\{\{.*?(?:\}\}|$)", re.MULTILINE)


class Place(Struct, frozen=True):
    """Where a node stands in the text: character offsets, and the line it begins in, from 1.

    `end` is where its last character was; comments and blank lines behind it are not part of it.
    """

    start: int
    end: int
    line: int
    column: int
    is_flow: bool = False
    is_marked: bool = False
    """It has an anchor or a tag, which stands at `start`, before the node itself."""


class Scalar(Struct, frozen=True):
    place: Place
    text: str
    is_plain: bool


class Items(Struct, frozen=True):
    place: Place
    items: list[Node] = field(default_factory=list)
    anchor: str | None = None


class Table(Struct, frozen=True):
    place: Place
    entries: list[tuple[Node, Node]] = field(default_factory=list)
    anchor: str | None = None


class Alias(Struct, frozen=True):
    """Stands for `node`, which stands elsewhere."""

    place: Place
    name: str
    node: Node | None


Node: TypeAlias = Scalar | Items | Table | Alias


class Document(Struct, frozen=True):
    root: Node
    shared: frozenset[int]
    """Where nodes begin that some alias refers to."""


class Refusal(SettingsError):
    """The manifest cannot be worked on: `file:line:column: path: what, why, remedy`."""


def refusal(source: str, place: Place | None, path: str, what: str, why: str, remedy: str) -> Refusal:
    line, column = (place.line, place.column + 1) if place else (None, None)
    return Refusal((Mistake(source, line, column, path, what, why, remedy),))


def read(text: str, source: str) -> list[Document]:
    """Every document of the text, empty ones left out. Raises Refusal where it cannot be read to its end."""
    import yaml

    try:
        return list(_Builder(text, source).documents())
    except yaml.MarkedYAMLError as error:
        raise _broken(error, text, source) from None
    except yaml.reader.ReaderError as error:
        line = len(LINE_END.findall(text[: error.position])) + 1
        what = f"holds the character U+{ord(text[error.position]):04X}"
        place = Place(error.position, error.position, line, 0)
        raise refusal(source, place, "", what, "no manifest may hold it", "remove or escape it") from None


def _broken(error: MarkedYAMLError, text: str, source: str) -> Refusal:
    mark = error.problem_mark
    place = Place(mark.index, mark.index, mark.line + 1, mark.column) if mark else None
    what = f"is broken YAML ({error.problem})" if error.problem else "is broken YAML"
    template = TEMPLATE.search(text)
    if template:
        line = len(LINE_END.findall(text[: template.start()])) + 1
        remedy = f"render it first with helm template: line {line} has {shown(template[0])}"
        return refusal(source, place, "", what, "this is no manifest yet", remedy)
    return refusal(source, place, "", what, "nothing after it can be read", "close, indent or quote it")


class _Open(Struct):
    node: Items | Table
    key: Node | None = None


class _Builder:
    """Feeds on parser events; holds the open lists and mappings, and which name stands for what."""

    def __init__(self, text: str, source: str) -> None:
        self._text = text
        self._source = source
        self._levels: list[_Open] = []
        self._root: Node | None = None
        self._anchors: dict[str, Node] = {}
        self._shared: set[int] = set()

    def documents(self) -> Iterator[Document]:
        import yaml

        for event in yaml.parse(self._text, Loader=yaml.CSafeLoader):
            if isinstance(event, yaml.DocumentStartEvent):
                self._root, self._anchors, self._shared = None, {}, set()
            elif isinstance(event, yaml.DocumentEndEvent):
                if self._root is not None and not _is_nothing(self._root):
                    yield Document(self._root, frozenset(self._shared))
            elif isinstance(event, yaml.ScalarEvent):
                place = self._place(event, self._end_of(event))
                node: Node = Scalar(place, event.value, bool(event.implicit[0]))
                self._name(event.anchor, node)
                self._put(node)
            elif isinstance(event, yaml.AliasEvent):
                name = str(event.anchor)
                target = self._anchors.get(name)
                if target is not None:
                    self._shared.add(target.place.start)
                self._put(Alias(self._place(event, self._end_of(event)), name, target))
            elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                self._open(event)
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                self._close(event)

    def _place(self, event: object, end: int, *, is_flow: bool = False) -> Place:
        mark = event.start_mark  # type: ignore[attr-defined]
        is_marked = bool(getattr(event, "anchor", None) or getattr(event, "tag", None))
        return Place(mark.index, end, mark.line + 1, mark.column, is_flow, is_marked)

    def _end_of(self, event: object) -> int:
        """Where the scalar ends. A block scalar is said to end where the next thing begins: blank lines behind it are
        its own only where it keeps them (`|+`)."""
        start, end = event.start_mark.index, event.end_mark.index  # type: ignore[attr-defined]
        if getattr(event, "style", None) not in ("|", ">"):
            return int(end)
        text = self._text[start:end]
        header = LINE_END.split(text, maxsplit=1)[0]
        if re.search(r"[|>][0-9]?\+", header):
            last = [
                found.end() - found.start() for found in LINE_END.finditer(text) if found.end() == len(text)
            ]
            return int(end) - sum(last)
        return int(start) + len(text.rstrip(" \t\r\n\x85\u2028\u2029"))

    def _open(self, event: object) -> None:
        import yaml

        is_flow = bool(event.flow_style)  # type: ignore[attr-defined]
        place = self._place(event, event.end_mark.index, is_flow=is_flow)  # type: ignore[attr-defined]
        if len(self._levels) >= MOST_LEVELS:
            raise refusal(
                self._source,
                place,
                "",
                "is too deep",
                f"at most {MOST_LEVELS} levels are read",
                "is it a manifest?",
            )
        anchor = event.anchor  # type: ignore[attr-defined]
        node = (
            Table(place, [], anchor)
            if isinstance(event, yaml.MappingStartEvent)
            else Items(place, [], anchor)
        )
        self._name(anchor, node)
        self._levels.append(_Open(node))

    def _close(self, event: object) -> None:
        level = self._levels.pop()
        node, place = level.node, level.node.place
        if place.is_flow:
            end = int(event.end_mark.index)  # type: ignore[attr-defined]
        else:
            inner = node.entries[-1][1] if isinstance(node, Table) else node.items[-1]
            end = inner.place.end
        whole = Place(place.start, end, place.line, place.column, place.is_flow, place.is_marked)
        done: Node = (
            Table(whole, node.entries, node.anchor)
            if isinstance(node, Table)
            else Items(whole, node.items, node.anchor)
        )
        if node.anchor is not None and self._anchors.get(node.anchor) is node:
            self._anchors[node.anchor] = done
        self._put(done)

    def _name(self, anchor: str | None, node: Node) -> None:
        if anchor is not None:
            self._anchors[anchor] = node

    def _put(self, node: Node) -> None:
        if not self._levels:
            self._root = node
            return
        level = self._levels[-1]
        if isinstance(level.node, Items):
            level.node.items.append(node)
        elif level.key is None:
            level.key = node
        else:
            level.node.entries.append((level.key, node))
            level.key = None


def _is_nothing(node: Node) -> bool:
    return isinstance(node, Scalar) and node.is_plain and node.text in ("", "~", "null")
