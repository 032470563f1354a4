"""What is wrong with the arguments, in words a model can repair its call with? Errors of the validator → texts.

Each text names the place as a JSON pointer (RFC 6901), what is wanted there, and the keyword that wants it. What the
caller sent is never repeated: no value, and of names only those the schema has too. What the schema wants is the
server's text: it is cut short, and nothing unprintable is shown. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

MAX_PROBLEMS: Final = 3
MAX_SHOWN: Final = 10
"""Names or choices of one problem."""
MAX_CHARACTERS: Final = 64

_LIMITS: Final = {
    "minimum": "must be at least {}",
    "maximum": "must be at most {}",
    "exclusiveMinimum": "must be more than {}",
    "exclusiveMaximum": "must be less than {}",
    "multipleOf": "must be a multiple of {}",
    "minLength": "must have at least {} characters",
    "maxLength": "must have at most {} characters",
    "minItems": "must have at least {} items",
    "maxItems": "must have at most {} items",
    "minProperties": "must have at least {} members",
    "maxProperties": "must have at most {} members",
    "pattern": "must match {}",
    "const": "must be {}",
}
_PLAIN: Final = {
    "falseSchema": "is not allowed",
    "uniqueItems": "must not repeat an item",
    "contains": "lacks an item of the kind that is wanted",
    "not": "is of a kind that is excluded",
}


class Words:
    """Speaks of the arguments of one schema."""

    def __init__(self, schema: Mapping[str, object], names: Collection[str]) -> None:
        """`names` are the members the schema names anywhere."""
        self._schema = schema
        self._names = names

    def problems(self, errors: Iterable[Any]) -> str:
        """The first few, and how many more there are. `errors` are the validator's, of which there is one at least."""
        texts = list(dict.fromkeys(map(self._problem, errors)))
        more = f"; and {len(texts) - MAX_PROBLEMS} more" if len(texts) > MAX_PROBLEMS else ""
        return "; ".join(texts[:MAX_PROBLEMS]) + more

    def _problem(self, error: Any) -> str:
        kind = error.kind
        keyword = str(kind.name)
        if keyword == "required":
            return f"{self._pointer([*error.instance_path, kind.property])}: is missing (required)"
        return f"{self._pointer(error.instance_path)}: {self._wanted(error, keyword)} ({keyword})"

    def _wanted(self, error: Any, keyword: str) -> str:
        kind = error.kind
        if keyword == "type":
            return f"must be {_one_of(sorted(kind.types))}"
        if keyword == "enum":
            return f"must be one of {_choices(kind.options)}"
        if keyword in _LIMITS:
            return _LIMITS[keyword].format(_literal(getattr(kind, kind.__match_args__[0])))
        if keyword in ("additionalProperties", "unevaluatedProperties"):
            return f"has a member that is not allowed{self._allowed(error.schema_path)}"
        if keyword == "propertyNames":
            return f"a member's name {self._wanted(kind.error, str(kind.error.kind.name))}"
        if keyword in ("anyOf", "oneOf"):
            return self._none_of(error)
        return _PLAIN.get(keyword, "is not what the schema wants")

    def _none_of(self, error: Any) -> str:
        branches: list[list[Any]] = [branch for branch in error.kind.context if branch]
        if not branches:
            return "fits more than one of the alternatives"
        here = error.instance_path
        wrong_type = [b for b in branches if b[0].kind.name == "type" and b[0].instance_path == here]
        if len(wrong_type) == len(branches):
            return f"must be {_one_of(sorted({name for b in branches for name in b[0].kind.types}))}"
        # Whoever fails only inside was meant: a union is usually one of objects, and null.
        meant = min((branch for branch in branches if branch not in wrong_type), key=len)
        return f"fits none of the alternatives; of the nearest one: {self._problem(meant[0])}"

    def _allowed(self, path: Sequence[str | int]) -> str:
        """The members that are allowed where `path` (of the keyword that forbids others) stands."""
        schema: Any = self._schema
        for part in path[:-1]:
            try:
                schema = schema[part]
            except (KeyError, IndexError, TypeError):
                return ""
        properties = schema.get("properties") if isinstance(schema, dict) else None
        if not isinstance(properties, dict) or not properties:
            return ""
        shown = ", ".join(_shown(name) for name in list(properties)[:MAX_SHOWN])
        return f"; allowed are {shown}" + (", …" if len(properties) > MAX_SHOWN else "")

    def _pointer(self, path: Sequence[str | int]) -> str:
        if not path:
            return "the arguments"
        return "".join(f"/{part if isinstance(part, int) else self._name(part)}" for part in path)

    def _name(self, name: str) -> str:
        return _shown(name).replace("~", "~0").replace("/", "~1") if name in self._names else "*"


def _one_of(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _choices(options: Sequence[object]) -> str:
    shown = ", ".join(_literal(option) for option in options[:MAX_SHOWN])
    return shown + (", …" if len(options) > MAX_SHOWN else "")


def _literal(value: object) -> str:
    """A value of the schema."""
    if isinstance(value, str):
        return json.dumps(_shown(value), ensure_ascii=False)
    if isinstance(value, list | dict):
        return "a certain array" if isinstance(value, list) else "a certain object"
    if isinstance(value, Decimal):
        return _shown(str(value))
    return _shown(json.dumps(value))


def _shown(text: str) -> str:
    short = text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 1] + "…"
    return "".join(character if character.isprintable() else "?" for character in short)
