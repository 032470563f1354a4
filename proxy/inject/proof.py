"""Does the new text say what was meant, and nothing else? Trees before and after, and the changes, in; yes or no out.

The last safety: whatever went wrong in finding positions, a manifest that says something else is never printed. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from .edits import AddEntry, Change, Replace
from .nodes import Alias, Document, Items, Node, Scalar, Table
from .writing import Value

Said: TypeAlias = "tuple[str, object]"
"""What a node says, without its place: its kind, and its content."""


def is_as_meant(before: Sequence[Document], after: Sequence[Document], changes: Sequence[Change]) -> bool:
    """Whether `after` is `before` with these changes made, in order, and nothing else."""
    tag = _tagger()
    meant = [_said(each.root, changes, tag) for each in before]
    return meant == [_said(each.root, (), tag) for each in after]


def _tagger() -> Callable[[Scalar], str]:
    """What kubectl's YAML makes of a scalar: the types of YAML 1.1."""
    import yaml

    resolve: Callable[..., object] = yaml.SafeLoader("").resolve

    def tag(node: Scalar) -> str:
        return (
            str(resolve(yaml.ScalarNode, node.text, (True, False)))
            if node.is_plain
            else "tag:yaml.org,2002:str"
        )

    return tag


def _said(node: Node, changes: Sequence[Change], tag: Callable[[Scalar], str]) -> Said:
    mine = [each for each in changes if each.spot.node is node]
    for each in mine:
        if isinstance(each, Replace):
            return _written(each.value)
    if isinstance(node, Alias):
        return "alias", node.name
    if isinstance(node, Scalar):
        return tag(node), node.text
    if isinstance(node, Items):
        items = [_said(each, changes, tag) for each in node.items]
        return "list", (node.anchor, *items, *(_written(each.value) for each in mine))
    assert isinstance(node, Table)
    entries = [(_said(key, changes, tag), _said(value, changes, tag)) for key, value in node.entries]
    added = [(_written(each.key), _written(each.value)) for each in mine if isinstance(each, AddEntry)]
    return "mapping", (node.anchor, *entries, *added)


def _written(value: Value) -> Said:
    if isinstance(value, dict):
        return "mapping", (None, *((_written(key), _written(each)) for key, each in value.items()))
    if isinstance(value, list):
        return "list", (None, *(_written(each) for each in value))
    if isinstance(value, bool):
        return "tag:yaml.org,2002:bool", "true" if value else "false"
    return f"tag:yaml.org,2002:{'int' if isinstance(value, int) else 'str'}", str(value)
