"""Which settings are there? `make docs` writes the answer below the mark in configuration.md.

In: the JSON Schema that `mcp-sidecar schema` prints, drawn from the types of the settings, with the sentence below each
field there. Out: Markdown, one table for each section, in the order of the settings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from proxy.settings import schema

PAGE: Final = Path(__file__).with_name("configuration.md")
MARK: Final = (
    "<!-- Everything below is written by `make docs` from the types of the settings: change those. -->\n"
)
REFERENCE: Final = {"$ref": "#/$defs/Reference"}

Schema = Mapping[str, Any]  # any: JSON Schema is a tree of JSON values


def text() -> str:
    """The whole page: what people wrote above the mark, and the reference below it. IO: reads the page."""
    written, mark, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    if not mark:
        raise ValueError(f"{PAGE.name} has no line {MARK.strip()!r}")
    return written + mark + "\n" + "\n".join(_reference(schema()))


def _reference(drawn: Schema) -> Iterator[str]:
    sections = dict(_sections("", _definition(drawn, drawn), drawn))
    yield "## Reference\n"
    yield (
        "`[]` is each entry of a list, `*` each name of a table. Bold settings have to be written where their section "
        "is. Where no default is shown, the sentence or the section says what holds without it. A `${…}` reference may "
        "stand for every single value but `kind`.\n"
    )
    known: dict[str, str] = {}
    for path, part in sections.items():
        yield f"### {_heading(path)}\n"
        # Whatever can be one of several kinds is told where it stands first.
        if part["title"] in known:
            yield f"As [{_heading(known[part['title']])}](#{anchor(_heading(known[part['title']]))}).\n"
            continue
        known[part["title"]] = path
        if part.get("description"):
            yield f"{_cell(part['description'])}\n"
        yield "| setting | value | default | |\n|---|---|---|---|"
        for name, one in part["properties"].items():
            shown = f"`{name}`"
            shown = f"**{shown}**" if name in part.get("required", ()) or name == "kind" else shown
            value, sentence = _value(one, _path(path, name), drawn), _cell(one.get("description", ""))
            yield f"| {shown} | {value} | {_default(one)} | {sentence} |"
        yield ""


def _sections(path: str, part: Schema, drawn: Schema) -> Iterator[tuple[str, Schema]]:
    """Every section with its path, in the order of the settings."""
    yield path, part
    for name, one in part["properties"].items():
        yield from _below(_path(path, name), one, drawn)


def _below(path: str, one: Schema, drawn: Schema) -> Iterator[tuple[str, Schema]]:
    if one == REFERENCE:
        return
    if "$ref" in one:
        yield from _sections(path, _definition(one, drawn), drawn)
    elif one.get("type") == "array":
        yield from _below(f"{path}[]", one["items"], drawn)
    elif isinstance(one.get("additionalProperties"), Mapping):
        yield from _below(f"{path}.*", one["additionalProperties"], drawn)
    else:
        for option in one.get("anyOf", ()):
            for below, part in _below(path, option, drawn):
                yield (f"{below} {_kind(part)}".strip() if below == path else below), part


def _kind(part: Schema) -> str:
    """Of sections that stand for one another, which one this is."""
    kind: str = part["properties"].get("kind", {}).get("enum", [""])[0]
    return kind


def _definition(one: Schema, drawn: Schema) -> Schema:
    definition: Schema = drawn["$defs"][one["$ref"].removeprefix("#/$defs/")]
    return definition


def _path(path: str, name: str) -> str:
    return f"{path.split(' ')[0]}.{name}" if path else name


def _heading(path: str) -> str:
    return f"`{path}`" if path else "The file"


def anchor(heading: str) -> str:
    """What a heading is linked by, as GitHub makes it: words and hyphens of it, in small letters."""
    kept = "".join(each for each in heading.lower() if each.isalnum() or each in " _-")
    return kept.strip().replace(" ", "-")


def _value(one: Schema, path: str, drawn: Schema) -> str:
    """What may be written, with its bounds."""
    if one == REFERENCE:
        return ""
    if "$ref" in one:
        return f"[section](#{anchor(path)})"
    if "enum" in one:
        return ", ".join(
            f"`{json.dumps(each) if not isinstance(each, str) else each}`" for each in one["enum"]
        )
    if "anyOf" in one:
        options = [_value(each, path, drawn) for each in one["anyOf"]]
        if all("$ref" in each for each in one["anyOf"]):
            kinds = [_kind(_definition(each, drawn)) for each in one["anyOf"]]
            return " or ".join(f"[`{each}`](#{anchor(f'{path} {each}')})" for each in kinds)
        return " or ".join(dict.fromkeys(each for each in options if each))
    if one["type"] == "array":
        return f"list{_bounds(one)} of {_value(one['items'], f'{path}[]', drawn)}"
    if one["type"] == "object":
        below = one.get("additionalProperties")
        return f"table: name → {_value(below, f'{path}.*', drawn)}" if isinstance(below, Mapping) else "table"
    return {
        "integer": "whole number",
        "number": "number",
        "string": "text",
        "boolean": "`true`, `false`",
    }.get(one["type"], str(one["type"])) + _bounds(one)


def _bounds(one: Schema) -> str:
    said = [
        f"{sign} {one[key]:,}" if isinstance(one[key], int | float) else f"{sign} `{one[key]}`"
        for key, sign in (
            ("minimum", "≥"),
            ("exclusiveMinimum", ">"),
            ("maximum", "≤"),
            ("minLength", "length ≥"),
            ("maxLength", "length ≤"),
            ("minItems", "entries ≥"),
            ("maxItems", "entries ≤"),
            ("pattern", "like"),
        )
        if key in one
    ]
    return f" ({', '.join(said)})" if said else ""


def _default(one: Schema) -> str:
    if "default" not in one:
        return "—"
    value = one["default"]
    return f"`{value if isinstance(value, str) and value else json.dumps(value)}`"


def _cell(sentence: str) -> str:
    """A sentence that stays in its cell, and of which no reader makes a tag."""
    return " ".join(sentence.split()).replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
