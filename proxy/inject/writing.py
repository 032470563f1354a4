"""How is a value written? Plain values in; lines of YAML in block style, or one JSON text, out. Pure.

What is written means the same to readers of YAML 1.1 (kubectl) and 1.2, and in JSON.
"""

from __future__ import annotations

import json
import re
from typing import Final, TypeAlias

Value: TypeAlias = "str | int | bool | dict[str, Value] | list[Value]"

_WORD: Final = re.compile(
    r"--[a-z][a-z-]*|[A-Za-z/](?:[A-Za-z0-9_./:@=-]*[A-Za-z0-9_/])?|[0-9]+(?:m|Ki|Mi|Gi)", re.ASCII
)
_UNPRINTABLE: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_RESERVED: Final = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null"))


class Style:
    """How the manifest is indented: what its own lists and sections do, so that ours look alike."""

    __slots__ = ("dash", "step")

    def __init__(self, step: int = 2, dash: int = 2) -> None:
        self.step = step
        """Blanks by which a section stands below its name."""
        self.dash = dash
        """Blanks by which the dash of a list stands below its name; 0 in many manifests."""


def scalar(value: str | int | bool) -> str:
    """One value on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if _WORD.fullmatch(value) and value.lower() not in _RESERVED:
        return value
    if '"' in value and "'" not in value and value.isprintable():
        return f"'{value}'"
    return _escaped(json.dumps(value, ensure_ascii=False))


def entry_lines(key: str, value: Value, style: Style) -> list[str]:
    """`key: value` in block style, as lines without indentation of their own."""
    name = scalar(key)
    if isinstance(value, dict) and value:
        return [f"{name}:", *_indented(table_lines(value, style), style.step)]
    if isinstance(value, list) and value:
        items = [line for each in value for line in item_lines(each, style)]
        return [f"{name}:", *_indented(items, style.dash)]
    return [f"{name}: {_empty_or_scalar(value)}"]


def table_lines(value: dict[str, Value], style: Style) -> list[str]:
    return [line for key, each in value.items() for line in entry_lines(key, each, style)]


def item_lines(value: Value, style: Style) -> list[str]:
    """`- value` in block style."""
    if isinstance(value, dict) and value:
        first, *rest = table_lines(value, style)
        return [f"- {first}", *_indented(rest, 2)]
    assert not isinstance(value, list), "lists in lists do not stand in what we add"
    return [f"- {_empty_or_scalar(value)}"]


def _empty_or_scalar(value: Value) -> str:
    if isinstance(value, dict):
        return "{}"
    return "[]" if isinstance(value, list) else scalar(value)


def _indented(lines: list[str], by: int) -> list[str]:
    return [" " * by + line for line in lines]


def as_json(value: Value, *, indent: int | None, is_dense: bool) -> str:
    """JSON, which is YAML in flow style too. `indent` None: on one line."""
    separators = (",", ":") if is_dense else (", " if indent is None else ",", ": ")
    return _escaped(json.dumps(value, ensure_ascii=False, indent=indent, separators=separators))


def _escaped(written: str) -> str:
    """JSON lets characters stand that end a line in YAML 1.1, or may not stand in it at all (section 5.1)."""
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", written)
