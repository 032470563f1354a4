"""What is the definition of a tool, in one number and in one line? A JSON object in, a `Definition` out. Pure.

The hash is of the JSON values: the order of keys and the blanks of a text do not count, everything else does (1, 1.0,
"1" and true are four values; texts are compared code point by code point). All members count, also those of future
revisions, but for two: `icons` (pictures for people, often with a version in their URL) and `_meta` (notes for
programs, made anew for each answer by some servers). Neither is given to a model.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Final

from msgspec import Struct

from ..protocol.canonical import canonical
from ..protocol.jsonrpc import MAX_TARGET_CHARACTERS
from .invisible import strip

NOT_COUNTED: Final = frozenset({"_meta", "icons"})
FORMAT: Final = "v1"
"""Begins every hash. Another encoding or another choice of members is another format."""
PARTS: Final = ("title", "description", "inputSchema", "outputSchema", "annotations")
"""Members whose changes are told apart; all others together are the part `other`."""
NAMELESS: Final = "nameless"
"""The digest of everything but the name and what frameworks derive from it (titles, also those of both schemas and of
the annotations). Two tools that share it are one tool with two names."""
PART_DIGITS: Final = 8
"""Hex digits of the digest of a part. It explains a change; only the hash decides that there is one."""

HINTS: Final = ("readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint")

_NAMING: Final = NOT_COUNTED | {"name", "title"}
_LONGEST_TITLE: Final = 80
_LONGEST_ABOUT: Final = 120
_LONGEST_PARAMETERS: Final = 2_000
_LONGEST_NAME: Final = 60
_MOST_PARAMETERS: Final = 64
_BLANKS: Final = re.compile(r"\s+")


class Unreadable(ValueError):
    """No definition: no object, no name, or numbers and nesting that nobody can write."""


class Definition(Struct, frozen=True, kw_only=True):
    """What is remembered of a definition: which one it is, and what people are shown of it."""

    name: str
    hash: str
    parts: Mapping[str, str] = {}
    """Digests of the parts that are there."""
    title: str = ""
    about: str = ""
    """The first line of the description."""
    parameters: str = ""
    """`name: type` for each parameter, with `?` where it may be left out, sorted."""
    hints: str = ""
    """The annotations that are booleans: `name` where true, `!name` where false."""


def written(value: object) -> bytes:
    """The value as it is hashed (protocol.canonical). Raises Unreadable."""
    try:
        return canonical(value)
    except (TypeError, ValueError, RecursionError):
        raise Unreadable from None


def hash_of(definition: Mapping[str, object], kind: str = "tool") -> str:
    """The hash of a whole definition; `kind` keeps a tool and a prompt apart. Raises Unreadable."""
    return _hash({key: value for key, value in definition.items() if key not in NOT_COUNTED}, kind)


def hash_of_text(text: str) -> str:
    """The hash of the server's `instructions`. Raises Unreadable."""
    return _hash(text, "instructions")


def _hash(value: object, kind: str) -> str:
    return f"{FORMAT}:{hashlib.sha256(f'{kind} '.encode() + written(value)).hexdigest()}"


def name_of(definition: object) -> str:
    """The name of a definition. Raises Unreadable where it is none, or has none that a call could name."""
    name = definition.get("name") if isinstance(definition, dict) else None
    if not isinstance(name, str) or not 0 < len(name) <= MAX_TARGET_CHARACTERS["name"]:
        raise Unreadable
    return name


def define(definition: Mapping[str, object], hash: str | None = None) -> Definition:
    """The definition as it is remembered; `hash` where it is known already. Raises Unreadable."""
    about = _line(definition.get("description"), _LONGEST_ABOUT)
    parameters = parameters_of(definition.get("inputSchema"))
    return Definition(
        name=name_of(definition),
        hash=hash or hash_of(definition),
        parts=dict(_digests(definition)),
        title=_line(definition.get("title"), _LONGEST_TITLE),
        about=about,
        parameters=_clipped(", ".join(parameters), _LONGEST_PARAMETERS),
        hints=_hints(definition.get("annotations")),
    )


def parameters_of(schema: object) -> list[str]:
    """`name: type` for each top-level property, sorted; at most 64 of them."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(schema, dict) or not isinstance(properties, dict):
        return []
    required = schema.get("required")
    needed = frozenset(one for one in required if isinstance(one, str)) if isinstance(required, list) else ()
    return [
        f"{plain(name, _LONGEST_NAME)}{'' if name in needed else '?'}: {_type_of(inner)}"
        for name, inner in sorted(properties.items())[:_MOST_PARAMETERS]
    ]


def plain(text: str, longest: int) -> str:
    """A text as one bounded line of printable characters."""
    line = _BLANKS.sub(" ", strip(text[: longest * 4])).strip()
    return _clipped(
        "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in line), longest
    )


def _type_of(schema: object) -> str:
    if not isinstance(schema, dict):
        return "any"
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = "|".join(one for one in kind if isinstance(one, str))
    if not isinstance(kind, str) or not kind:
        kind = "enum" if "enum" in schema else "const" if "const" in schema else "any"
    if kind == "array":
        return f"array of {_type_of(schema['items'])}" if isinstance(schema.get("items"), dict) else kind
    return plain(kind, _LONGEST_NAME)


def _hints(annotations: object) -> str:
    if not isinstance(annotations, dict):
        return ""
    return ", ".join(
        name if annotations[name] else f"!{name}" for name in HINTS if isinstance(annotations.get(name), bool)
    )


def _digests(definition: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for part in PARTS:
        if part in definition:
            yield part, _digest(definition[part])
    known = {"name", *PARTS, *NOT_COUNTED}
    other = {key: value for key, value in definition.items() if key not in known}
    if other:
        yield "other", _digest(other)
    yield (
        NAMELESS,
        _digest({key: _untitled(value) for key, value in definition.items() if key not in _NAMING}),
    )


def _untitled(value: object) -> object:
    return {key: each for key, each in value.items() if key != "title"} if isinstance(value, dict) else value


def _digest(value: object) -> str:
    return hashlib.sha256(written(value)).hexdigest()[:PART_DIGITS]


def _line(text: object, longest: int) -> str:
    if not isinstance(text, str):
        return ""
    return plain(text.lstrip().partition("\n")[0], longest)


def _clipped(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
