"""Which node is meant, by which path, and may it be changed? A tree and keys in; a spot in it out. Pure.

Reading looks through aliases and merge keys as kubectl does. Changing does not: what stands for something elsewhere, or
is referred to from elsewhere, would change in two places.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct, structs

from ..configuration.mistakes import joined, shown
from .nodes import Alias, Document, Items, Node, Place, Refusal, Scalar, Table, refusal


class Hold(Struct, frozen=True):
    """Why nothing at a spot, nor below it, may be changed; and the place where that is mended."""

    place: Place
    path: str
    why: str
    remedy: str


class Spot(Struct, frozen=True):
    """A node, and the way to it from the root of its document."""

    document: Document
    source: str
    node: Node
    """Never an alias: what it stands for."""

    path: str = ""
    at: Node | None = None
    """Where it was met: the alias, or the node itself."""

    hold: Hold | None = None

    is_in_flow: bool = False
    """Whether it stands between braces or brackets."""

    @property
    def is_null(self) -> bool:
        node = self.node
        return isinstance(node, Scalar) and node.is_plain and node.text in ("", "~", "null", "Null", "NULL")

    @property
    def text(self) -> str | None:
        """The text of a scalar; None for anything else, null too."""
        return self.node.text if isinstance(self.node, Scalar) and not self.is_null else None

    @property
    def number(self) -> int | None:
        """A whole number that is written as one."""
        text = self.text
        is_plain = isinstance(self.node, Scalar) and self.node.is_plain
        return (
            int(text) if text and is_plain and text.isascii() and text.isdigit() and len(text) < 10 else None
        )

    def get(self, key: str) -> Spot | None:
        """The value of `key`; None where there is none, or null. Raises Refusal where the key is there twice."""
        found = self.entry(key)
        return None if found is None or found.is_null else found

    def entry(self, key: str) -> Spot | None:
        """The value of `key`, null too."""
        return self._entry(key, self.node, set())

    def _entry(self, key: str, node: Node, seen: set[int]) -> Spot | None:
        if not isinstance(node, Table) or id(node) in seen:
            return None
        seen.add(id(node))
        values = [value for name, value in node.entries if isinstance(name, Scalar) and name.text == key]
        if len(values) > 1:
            raise self.refused("is there twice", "readers disagree which one counts", "keep one", key=key)
        if values:
            return self._below(values[0], joined(self.path, key))
        for merged in _merged(node):
            found = self._entry(key, merged, seen)
            if found is not None:
                why = "it comes from a merge key (<<), and others use what is merged"
                path = joined(self.path, key)
                return structs.replace(found, hold=Hold(node.place, path, why, f"write {key} out here"))
        return None

    def down(self, *keys: str) -> Spot | None:
        """The value at the end of a way of keys."""
        spot: Spot | None = self
        for key in keys:
            spot = spot.get(key) if spot else None
        return spot

    def text_of(self, *keys: str) -> str | None:
        """The text at the end of a way of keys."""
        found = self.down(*keys)
        return found.text if found else None

    def listed(self, key: str) -> Iterator[Spot]:
        """The items of the list under `key`; nothing where there is none."""
        found = self.get(key)
        return found.items() if found else iter(())

    def items(self) -> Iterator[Spot]:
        """The items of a list; nothing where this is none."""
        if isinstance(self.node, Items):
            for index, item in enumerate(self.node.items):
                yield self._below(item, f"{self.path}[{index}]")

    def texts(self) -> dict[str, str]:
        """The entries of a mapping from text to text: labels, annotations. Others are left out."""
        names: dict[str, None] = {}
        self._names(self.node, names, set())
        found = {name: self.get(name) for name in names}
        return {name: spot.text for name, spot in found.items() if spot is not None and spot.text is not None}

    def _names(self, node: Node, names: dict[str, None], seen: set[int]) -> None:
        if isinstance(node, Table) and id(node) not in seen:
            seen.add(id(node))
            names.update(
                (name.text, None)
                for name, _ in node.entries
                if isinstance(name, Scalar) and name.text != "<<"
            )
            for merged in _merged(node):
                self._names(merged, names, seen)

    def _below(self, node: Node, path: str) -> Spot:
        hold, is_in_flow = self._hold(), self.is_in_flow or self.node.place.is_flow
        if not isinstance(node, Alias):
            return Spot(self.document, self.source, node, path, node, hold, is_in_flow)
        why = f"it is the alias *{shown(node.name)}, and others use what it stands for"
        hold = hold or Hold(node.place, path, why, "write out what the alias stands for")
        return Spot(self.document, self.source, node.node or node, path, node, hold, is_in_flow)

    def _hold(self) -> Hold | None:
        place = self.node.place
        if self.hold is None and place.is_marked and place.start in self.document.shared:
            why = "an alias refers to it, and would change with it"
            return Hold(place, self.path, why, "write out what the alias stands for")
        return self.hold

    def to_change(self) -> Spot:
        """Itself. Raises Refusal where a change would reach further than this spot."""
        hold = self._hold()
        if hold is not None:
            raise refusal(self.source, hold.place, hold.path, "cannot be changed", hold.why, hold.remedy)
        return self

    def refused(self, what: str, why: str, remedy: str, *, key: str | None = None) -> Refusal:
        path = self.path if key is None else joined(self.path, key)
        return refusal(self.source, (self.at or self.node).place, path, what, why, remedy)


def _merged(table: Table) -> Iterator[Node]:
    """What merge keys name, in the order in which it counts (yaml.org/type/merge)."""
    for name, value in table.entries:
        if isinstance(name, Scalar) and name.is_plain and name.text == "<<":
            each = value.node if isinstance(value, Alias) else value
            for one in each.items if isinstance(each, Items) else (each,):
                node = one.node if isinstance(one, Alias) else one
                if node is not None:
                    yield node
