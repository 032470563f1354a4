"""What does a file say, and where? YAML (or JSON) text → a tree whose every node knows its line and column.

Built from parser events, never from a loader: no object is made that the text asks for, and an alias, an
anchor or a tag is a mistake before it can multiply. Nothing recurses, so depth costs no stack.
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from msgspec import Struct, field

from .mistakes import Position, Report, Unfit, joined, shown
from .scalars import plain_value

if TYPE_CHECKING:
    from yaml import MarkedYAMLError
    from yaml._yaml import Mark as FastMark
    from yaml.error import Mark as SlowMark

    Mark: TypeAlias = FastMark | SlowMark

MOST_LEVELS: Final = 32
MOST_EVENTS: Final = 20_000
"""Keys, values and brackets. Bounds what a file of the largest size can cost: megabytes, not hundreds."""

# What YAML calls unprintable (1.2.2 section 5.1), the three characters that end a line in YAML 1.1 only, and
# the byte order mark, which hides a key from whoever reads the file. Listed by what is refused: the same set
# written as what is allowed takes 5 ms longer to compile.
_UNPRINTABLE: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]"
)
_LINE_END: Final = re.compile(r"\r\n?|\n")


class Scalar(Struct, frozen=True):
    """A single value.

    `is_typed` is false where only a text was given: it takes the field's type. `is_clear` is false where
    it stands in no file and on no command line: a secret may come from there.
    """

    at: Position
    value: str | int | float | bool | None
    is_typed: bool = True
    is_clear: bool = True


class Items(Struct, frozen=True):
    at: Position
    items: list["Node"] = field(default_factory=list)


class Table(Struct, frozen=True):
    at: Position
    entries: dict[str, "Entry"] = field(default_factory=dict)


class Broken(Struct, frozen=True):
    """A mistake about this node is reported already."""

    at: Position


Node: TypeAlias = Scalar | Items | Table | Broken


class Entry(Struct, frozen=True):
    key_at: Position
    node: Node


class _Level(Struct):
    """A list or mapping that is still open. With `key_at` a value comes next; `key` None then drops it."""

    node: Items | Table
    path: str
    key: str | None = None
    key_at: Position | None = None


class _Stop(Exception):
    """Nothing after this can be trusted; the mistake is reported."""


def read_tree(data: bytes, source: str, report: Report) -> Node | None:
    """Read one document. None where the text cannot be read to its end; then the report says why."""
    text = _decode(data, source, report)
    if text is None:
        return None
    return read_text(text, lambda line, column: Position(source, line, column), report)


def read_text(
    text: str, place: Callable[[int, int], Position], report: Report, path: str = ""
) -> Node | None:
    """Like read_tree, for text that is no file: `place` makes positions, `path` is where it stands."""
    strange = _UNPRINTABLE.search(text)
    if strange:
        what = f"holds the character U+{ord(strange[0]):04X}"
        at = place(*_line_and_column(text, strange.start()))
        report.add(at, path, what, "readers disagree about it or nobody sees it", "remove or escape it")
        return None
    try:
        return _Builder(place, report, path).build(text)
    except _Stop:
        return None


def _decode(data: bytes, source: str, report: Report) -> str | None:
    remedy = "save the file as UTF-8 without byte order mark"
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        report.add(Position(source, 1, 1), "", "begins with a byte order mark", "UTF-8 needs none", remedy)
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line, column = _line_and_column(data[: error.start].decode("utf-8"), None)
        report.add(Position(source, line, column), "", "is not UTF-8", "no other encoding is read", remedy)
        return None


def _line_and_column(text: str, end: int | None) -> tuple[int, int]:
    before = text[:end]
    ends = [match.end() for match in _LINE_END.finditer(before)]
    return len(ends) + 1, len(before) - (ends[-1] if ends else 0) + 1


class _Builder:
    """Feeds on parser events; holds the open lists and mappings."""

    def __init__(self, place: Callable[[int, int], Position], report: Report, path: str) -> None:
        self._place = place
        self._report = report
        self._levels: list[_Level] = []
        self._path = path
        self._root: Node | None = None

    def build(self, text: str) -> Node:
        import yaml  # only where there is text: a start without a file saves its milliseconds

        documents = events = 0
        try:
            for event in yaml.parse(text, Loader=yaml.CSafeLoader):
                at = self._at(event.start_mark)
                events += 1
                if events > MOST_EVENTS:
                    self._stop(
                        at, "is too long", f"at most {MOST_EVENTS} keys and values are read", "shorten it"
                    )
                if isinstance(event, yaml.DocumentStartEvent):
                    documents += 1
                    if documents > 1:
                        self._stop(at, "is a second document", "one file is one document", "remove ---")
                    if event.version == (1, 1):
                        self._mistake(at, "asks for YAML 1.1", "it is read as YAML 1.2", "remove %YAML")
                elif isinstance(event, yaml.ScalarEvent):
                    self._marks(event.anchor, event.tag, at)
                    self._scalar(event.value, bool(event.implicit[0]), at)
                elif isinstance(event, yaml.AliasEvent):
                    self._mistake(at, "is an alias", "a few of them can stand for billions", "write it out")
                    self._put(Broken(at), at)
                elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                    self._marks(event.anchor, event.tag, at)
                    self._open(Table(at) if isinstance(event, yaml.MappingStartEvent) else Items(at), at)
                elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                    self._close()
        except yaml.MarkedYAMLError as error:
            self._broken(error)
        return Scalar(self._place(1, 1), None) if self._root is None else self._root

    def _broken(self, error: "MarkedYAMLError") -> None:
        at = self._at(error.problem_mark)
        why = "nothing after it can be read"
        if error.context and error.context_mark:
            why = f"{error.context} that begins in line {error.context_mark.line + 1}"
        what = f"is broken YAML ({error.problem})" if error.problem else "is broken YAML"
        self._stop(at, what, why, "close, indent or quote it")

    def _at(self, mark: "Mark | None") -> Position:
        return self._place(mark.line + 1, mark.column + 1) if mark else self._place(1, 1)

    def _scalar(self, text: str, is_plain: bool, at: Position) -> None:
        is_key = self._expects_key()
        value: str | int | float | bool | None = text
        if is_plain:
            try:
                value = plain_value(text)
            except Unfit as unfit:
                path = joined(self._here(), text) if is_key else self._here()
                self._report.add_unfit(at, path, unfit)
                self._put(Broken(at), at)
                return
        if is_key and not isinstance(value, str):
            path = joined(self._here(), text)
            self._report.add(at, path, "is not a text", "every key is a text", "quote the key")
            self._put(Broken(at), at)
            return
        self._put(Scalar(at, value), at)

    def _open(self, node: Items | Table, at: Position) -> None:
        if len(self._levels) >= MOST_LEVELS:
            self._stop(
                at, "is too deep", f"at most {MOST_LEVELS} levels are read", "remove brackets or indents"
            )
        if self._expects_key():
            self._mistake(at, "is not a text", "every key is a text", "write the key as one word")
        self._levels.append(_Level(node, self._here()))

    def _close(self) -> None:
        done = self._levels.pop()
        self._put(done.node, done.node.at)

    def _put(self, node: Node, at: Position) -> None:
        """Give a finished node to the list or mapping it stands in."""
        if not self._levels:
            self._root = node
            return
        level = self._levels[-1]
        if isinstance(level.node, Items):
            level.node.items.append(node)
        elif level.key_at is None:
            level.key = node.value if isinstance(node, Scalar) and isinstance(node.value, str) else None
            level.key_at = at
            first = level.node.entries.get(level.key) if level.key is not None else None
            if first is not None:
                why = (
                    f"the first one is in line {first.key_at.line}"
                    if first.key_at.line
                    else "one came before"
                )
                self._mistake(at, "is there twice", why, "keep one")
                level.key = None
        else:
            if level.key is not None:
                level.node.entries[level.key] = Entry(level.key_at, node)
            level.key = level.key_at = None

    def _expects_key(self) -> bool:
        return bool(self._levels) and isinstance(self._levels[-1].node, Table) and not self._levels[-1].key_at

    def _here(self) -> str:
        """The path of what is being read now."""
        if not self._levels:
            return self._path
        level = self._levels[-1]
        if isinstance(level.node, Items):
            return f"{level.path}[{len(level.node.items)}]"
        return level.path if level.key is None else joined(level.path, level.key)

    def _marks(self, anchor: str | None, tag: str | None, at: Position) -> None:
        if anchor is not None:
            self._mistake(at, f"has the anchor &{shown(anchor)}", "aliases are refused", "remove it")
        if tag is not None:
            self._mistake(at, f"has the tag {shown(tag)}", "the field decides the type", "remove the tag")

    def _mistake(self, at: Position, what: str, why: str, remedy: str) -> None:
        self._report.add(at, self._here(), what, why, remedy)

    def _stop(self, at: Position, what: str, why: str, remedy: str) -> None:
        self._mistake(at, what, why, remedy)
        raise _Stop
