"""What may a settings file hold, in the words of editors? The Settings' types → JSON Schema (2020-12).

msgspec draws the picture from the types; here it learns what the reader adds: references in place of scalars,
no null, texts that our own types parse, and the sentence below each field.
"""

import ast
import inspect
import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import NODEFAULT, Struct
from msgspec.structs import FieldInfo, fields

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
REFERENCE: Final = {
    "title": "Reference",
    "type": "string",
    "pattern": r"\$\{",
    "description": "A reference: ${VAR}, ${VAR:-default} or ${file:/path}.",
}

Schema = dict[str, Any]  # any: JSON Schema is a tree of JSON values, and nothing reads it here


def schema_of(settings: type[Struct]) -> Schema:
    """The JSON Schema of a settings file."""
    (drawn,), components = msgspec.json.schema_components(
        (settings,), schema_hook=lambda _: {"type": "string"}, ref_template="#/$defs/{name}"
    )
    structs = {one.__name__: one for one in _structs(settings)}
    definitions = {name: _definition(part, structs[name]) for name, part in sorted(components.items())}
    definitions["Reference"] = REFERENCE
    return {"$schema": DIALECT, "title": "mcp-sidecar settings", **drawn, "$defs": definitions}


def _structs(kind: object) -> list[type[Struct]]:
    """Every Struct that `kind` is or holds."""
    found: list[type[Struct]] = []
    waiting: list[object] = [kind]
    while waiting:
        one = waiting.pop()
        if isinstance(one, type) and issubclass(one, Struct):
            found.append(one)
            waiting.extend(field.type for field in fields(one))
        else:
            waiting.extend(getattr(one, "__args__", ()))
    return found


def _definition(part: Schema, struct: type[Struct]) -> Schema:
    """One section: its fields described, with defaults, and with references allowed."""
    sentences = _sentences(struct)
    known = {field.encode_name: field for field in fields(struct)}
    properties = {
        name: _property(drawn, known[name], sentences.get(known[name].name)) if name in known else drawn
        for name, drawn in part["properties"].items()
    }
    return {**part, "properties": properties}


def _property(drawn: Schema, field: FieldInfo, sentence: str | None) -> Schema:
    drawn = {key: value for key, value in drawn.items() if key not in ("default", "description")}
    described: Schema = {"description": sentence} if sentence else {}
    default = _default(field)
    if default is not None:
        described["default"] = default
    return {**described, **_with_references(drawn)}


def _default(field: FieldInfo) -> object:
    """The default as it would be written in a file; None where there is none to write."""
    value = field.default
    if field.default_factory is not NODEFAULT:
        value = field.default_factory()
    if value is NODEFAULT or isinstance(value, Struct):
        return None
    if isinstance(value, Mapping):
        return dict(value)
    # A type that reads itself from a text gives the text back.
    return value if isinstance(value, str | int | float | tuple | None) else str(value)


def _with_references(drawn: Schema) -> Schema:
    """Allow a reference wherever a single value stands, and take null out: the reader refuses it."""
    options = [one for one in drawn.get("anyOf", ()) if one != {"type": "null"}]
    if len(options) == 1:
        return _with_references(options[0])
    if drawn.get("type") == "array" and "items" in drawn:
        return {**drawn, "items": _with_references(drawn["items"])}
    if drawn.get("type") == "object" and isinstance(drawn.get("additionalProperties"), dict):
        return {**drawn, "additionalProperties": _with_references(drawn["additionalProperties"])}
    if "$ref" in drawn or drawn.get("type") in ("array", "object"):
        return drawn
    return {"anyOf": [drawn, {"$ref": "#/$defs/Reference"}]}


def _sentences(struct: type[Struct]) -> dict[str, str]:
    """The sentence below each field. Nothing where the source is not at hand: it is for editors only."""
    try:
        body = ast.parse(inspect.getsource(struct)).body[0]
    except (OSError, SyntaxError):
        return {}
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            sentence = _sentence(below)
            if sentence:
                found[field.target.id] = sentence
    return found


def _sentence(statement: ast.stmt) -> str | None:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        value = statement.value.value
        return " ".join(value.split()) if isinstance(value, str) else None
    return None


def as_text(schema: Schema) -> str:
    """The schema as indented JSON that ends with a newline."""
    return json.dumps(schema, indent=2) + "\n"
