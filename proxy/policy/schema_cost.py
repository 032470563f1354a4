"""What can it cost to check arguments against a schema? Schema → `Plan`; plan and arguments → a bound, or too much.

Validators take as long as the schema says: twenty definitions that each name the next one twice are a million
checks, and nothing can interrupt them. So a schema is read here as a graph (which subschemas look at the same value,
which look at the values inside), and what a call would cost is counted on that graph before the validator runs.
The count is an upper bound: every branch is taken, every `patternProperties` matches.
Sources: JSON Schema 2020-12 core section 10 (applicators), RFC 6901 (pointers). Pure.

1 unit is 20 ns, measured with jsonschema-rs 0.60 as the most a check of a small value takes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from functools import partial
from typing import Final, TypeAlias
from urllib.parse import unquote

from msgspec import Struct

MAX_UNITS: Final = 1_000_000
"""20 ms: what the check of one call may cost."""
MAX_SUBSCHEMAS: Final = 2_000
MAX_WITHIN: Final = 20_000
"""Pairs of a subschema and one that looks at the same value; long chains of references make many."""
MAX_WORK: Final = 20_000
"""Steps of one count that find which subschemas meet at a value: a schema can be written so that these sets multiply.
What was found is kept, up to ten times as much, for the next count."""
MAX_FORESEEN: Final = 200
"""Up to so many are looked at beforehand, so that small calls need no count at all."""
MAX_PATTERN_BYTES: Final = 2_097_152
"""Compiled size of all the regular expressions of one schema."""

BYTES_PER_UNIT: Final = 320
"""Matching costs each character at most 1 unit for so many bytes of a compiled expression (measured: 4 µs at 64 KiB,
where the lazy automaton gives up)."""
UNITS_PER_PAIR: Final = 25
"""`uniqueItems` compares integers beyond 2**53 pair by pair, as all have one hash there (10,000 of them took 28 s)."""
EXACT: Final = 2**53
EVALUATED_AGAIN: Final = 4
"""`unevaluated…` asks the subschemas beside it again, and they those beside theirs (27 s at a depth of 20)."""


class Flaw(StrEnum):
    """Why no arguments can be checked against a schema."""

    ABSENT = "absent"
    """The tool has no inputSchema, or one that is no object."""
    AMBIGUOUS = "ambiguous"
    """The tool was listed twice, with different schemas."""
    TOO_LARGE = "too_large"
    DIALECT = "dialect"
    REMOTE = "remote"
    """It refers to another document."""
    REFERENCE = "reference"
    """It refers to what is not there, or in a way that is not followed here: `$dynamicRef`, inner `$id`."""
    COSTLY = "costly"
    """No call could be checked in time."""
    REGEX = "regex"
    """A regular expression is not of the linear kind (look-around, backreference), or too large."""
    INVALID = "invalid"


class Unusable(Exception):
    def __init__(self, flaw: Flaw) -> None:
        super().__init__(flaw)
        self.flaw = flaw


class Cost(Struct, frozen=True):
    """Of one call."""

    checks: int
    """Of a value by a subschema."""
    copies: int
    """Of values, if every check failed and its error held the value it is about; 64 characters are one value."""


_Seeds: TypeAlias = Counter[int]
"""Subschemas by their number, and how many times each is asked."""

_DIALECTS: Final = frozenset(
    {
        "https://json-schema.org/draft/2020-12/schema",
        "https://json-schema.org/draft/2019-09/schema",
        "http://json-schema.org/draft-07/schema",
        "http://json-schema.org/draft-06/schema",
        "http://json-schema.org/draft-04/schema",
    }
)
_ONE_BESIDE: Final = ("not", "if", "then", "else")
_LIST_BESIDE: Final = ("allOf", "anyOf", "oneOf")
_MAP_BESIDE: Final = ("dependentSchemas", "dependencies")
_UNEVALUATED: Final = ("unevaluatedProperties", "unevaluatedItems")
_ANY: Final = 0
_PLAIN: Final = frozenset(
    {
        "default",
        "description",
        "examples",
        "format",
        "maxItems",
        "maxLength",
        "maximum",
        "minItems",
        "minLength",
        "minimum",
        "title",
        "type",
    }
)
"""Keywords that cost one check, whatever they say; most subschemas have no others."""


class _Node:
    """One subschema: what it costs itself, which others look at the same value, which at the values inside."""

    __slots__ = (
        "beside",
        "key_text",
        "names",
        "others",
        "own",
        "patterns",
        "prefix",
        "props",
        "rest",
        "text",
        "times",
        "unique",
    )

    def __init__(self) -> None:
        self.own = 1
        self.text = 0
        """Units for each character of a text."""
        self.key_text = 0
        """Units for each character of a member's name."""
        self.unique = False
        self.times = 1
        """How often those beside it are asked."""
        self.beside: list[int] = []
        self.props: dict[str, int] = {}
        self.patterns: list[int] = []
        self.others: list[int] = []
        self.names: list[int] = []
        self.prefix: list[int] = []
        self.rest: list[int] = []


class _State:
    """The subschemas that meet at one value."""

    __slots__ = (
        "counts",
        "key_text",
        "keys",
        "members",
        "names",
        "other",
        "places",
        "rest",
        "text",
        "unique",
        "units",
    )

    def __init__(self, counts: Mapping[int, int], nodes: list[_Node]) -> None:
        self.counts = counts
        self.units = self.text = self.key_text = 0
        self.unique = False
        self.names: set[str] = set()
        self.members: dict[str, _State] = {}
        self.places: list[_State] | None = None
        self.other: _State | None = None
        self.rest: _State | None = None
        self.keys: _State | None = None
        for number, count in counts.items():
            node = nodes[number]
            self.units += count * node.own
            self.text += count * node.text
            self.key_text += count * node.key_text
            self.unique |= node.unique
            self.names.update(node.props)


class Plan:
    """What any call can cost."""

    def __init__(self, nodes: list[_Node], within: list[_Seeds], root: int, names: frozenset[str]) -> None:
        self._nodes = nodes
        self._within = within
        self._root = root
        self.names = names
        """The members the schema names anywhere."""
        self._states: dict[frozenset[tuple[int, int]], _State] = {}
        self._work = 0
        self.kept = 0
        """Steps whose findings are kept."""
        self._start = self._state(Counter({root: 1}))
        try:
            self._per_byte = self._foreseen()
        except Unusable:
            # Deep values of a recursive schema cost too much: what a call costs is found by counting.
            self._per_byte = 0

    def is_small(self, body_bytes: int) -> bool:
        """Whether no arguments in a message of this size can cost too much."""
        return 0 < body_bytes * self._per_byte <= MAX_UNITS

    def cost(self, arguments: Mapping[str, object], max_values: int | None = None) -> Cost | None:
        """What checking these arguments costs; None where that, or the number of values, is too much."""
        self._work = 0
        if self.kept > 10 * MAX_WORK:
            self.kept = 0
            self._states.clear()
            self._start = self._state(Counter({self._root: 1}))
        try:
            return self._count(arguments, max_values or MAX_UNITS)
        except Unusable:
            return None

    def _count(self, arguments: Mapping[str, object], max_values: int) -> Cost | None:
        checks = text = values = copies = pairs = 0
        has_inexact = False
        pending: list[tuple[_State, object, int, int]] = [(self._start, arguments, 0, 0)]
        while pending:
            state, value, unique, above = pending.pop()
            values += 1
            checks += state.units + unique
            above += state.units
            copies += above
            if isinstance(value, str):
                copies += above * (len(value) >> 6)
                text += (state.text + unique) * len(value) + (len(value) >> 4)
            elif isinstance(value, dict):
                unique += state.unique
                keys, other = self._keys(state), self._other(state)
                for key, inner in value.items():
                    checks += keys.units
                    text += (state.key_text + keys.text + unique) * len(key)
                    met = self._member(state, key) if key in state.names else other
                    pending.append((met, inner, unique, above))
            elif isinstance(value, list):
                unique += state.unique
                if state.unique:
                    pairs += len(value) * len(value)
                places = self._places(state)
                for known, inner in zip(places, value, strict=False):
                    pending.append((known, inner, unique, above))
                if len(value) > len(places):
                    # Numbers are counted where they stand: an array may hold 60,000.
                    rest, left = self._rest(state), value[len(places) :]
                    inside = [
                        (rest, inner, unique, above) for inner in left if isinstance(inner, str | list | dict)
                    ]
                    pending.extend(inside)
                    values += len(left) - len(inside)
                    checks += (len(left) - len(inside)) * (rest.units + unique)
                    copies += (len(left) - len(inside)) * (rest.units + above)
                    has_inexact = has_inexact or (unique > 0 and any(map(_is_inexact, left)))
            elif unique and _is_inexact(value):
                has_inexact = True
            if checks + text > MAX_UNITS or values > max_values:
                return None
        text += UNITS_PER_PAIR * pairs if has_inexact else 0
        return None if checks + text > MAX_UNITS else Cost(checks, copies)

    def _state(self, seeds: _Seeds) -> _State:
        key = frozenset(seeds.items())
        state = self._states.get(key)
        if state is None:
            self._spend(sum(len(self._within[number]) for number in seeds) + 1)
            counts: _Seeds = Counter()
            for number, times in seeds.items():
                for inner, count in self._within[number].items():
                    counts[inner] += times * count
            state = self._states[key] = _State(counts, self._nodes)
            if state.units > MAX_UNITS:
                raise Unusable(Flaw.COSTLY)
        return state

    def _spend(self, steps: int) -> None:
        self._work += steps
        self.kept += steps
        if self._work > MAX_WORK:
            raise Unusable(Flaw.COSTLY)

    # What looks at the values inside is found when there is one.

    def _member(self, state: _State, name: str) -> _State:
        found = state.members.get(name)
        if found is None:
            found = state.members[name] = self._inside(state, partial(_of_member, name))
        return found

    def _places(self, state: _State) -> list[_State]:
        if state.places is None:
            known = max((len(self._nodes[number].prefix) for number in state.counts), default=0)
            state.places = [self._inside(state, partial(_of_place, place)) for place in range(known)]
        return state.places

    def _other(self, state: _State) -> _State:
        if state.other is None:
            state.other = self._inside(state, lambda node: [*node.others, *node.patterns])
        return state.other

    def _rest(self, state: _State) -> _State:
        if state.rest is None:
            state.rest = self._inside(state, lambda node: node.rest)
        return state.rest

    def _keys(self, state: _State) -> _State:
        if state.keys is None:
            state.keys = self._inside(state, lambda node: node.names)
        return state.keys

    def _inside(self, state: _State, look: Callable[[_Node], Iterable[int]]) -> _State:
        self._spend(len(state.counts))
        seeds: _Seeds = Counter()
        for number, count in state.counts.items():
            for inner in look(self._nodes[number]):
                seeds[inner] += count
        return self._state(seeds)

    def _foreseen(self) -> int:
        """Units a byte of a message can cost at most; 0 where that cannot be foreseen."""
        seen = {id(self._start)}
        pending = [self._start]
        units = text = 0
        while pending:
            state = pending.pop()
            keys = self._keys(state)
            units = max(units, state.units + keys.units)
            text = max(text, state.text, state.key_text + keys.text)
            if state.unique or len(seen) + len(state.names) > MAX_FORESEEN:
                return 0
            members = [self._member(state, name) for name in state.names]
            for inner in (*members, *self._places(state), self._other(state), self._rest(state)):
                if id(inner) not in seen:
                    seen.add(id(inner))
                    pending.append(inner)
        return units + text + 1


def _is_inexact(value: object) -> bool:
    return isinstance(value, int | float) and not -EXACT < value < EXACT


def _of_member(name: str, node: _Node) -> list[int]:
    return [node.props[name], *node.patterns] if name in node.props else [*node.others, *node.patterns]


def _of_place(place: int, node: _Node) -> list[int]:
    return [node.prefix[place], *node.rest] if place < len(node.prefix) else node.rest


def read_plan(schema: object, size_of: Callable[[str], int | None]) -> Plan:
    """Read a tool's inputSchema. `size_of` gives the bytes of a compiled regular expression, None where it is not
    linear or too large. Raises Unusable."""
    if not isinstance(schema, dict):
        raise Unusable(Flaw.ABSENT)
    reader = _Reader(schema, size_of)
    root = reader.number(schema)
    while reader.pending:
        reader.read(*reader.pending.pop())
    return Plan(reader.nodes, _within(reader.nodes), root, frozenset(reader.names))


class _Reader:
    def __init__(self, root: dict[str, object], size_of: Callable[[str], int | None]) -> None:
        self._root = root
        self._size_of = size_of
        self._numbers: dict[int, int] = {}
        self._patterns: dict[str, int] = {}
        self.nodes = [_Node()]
        self.names: set[str] = set()
        self.pending: list[tuple[_Node, dict[str, object]]] = []
        dialect = root.get("$schema", "https://json-schema.org/draft/2020-12/schema")
        if not isinstance(dialect, str) or dialect.removesuffix("#") not in _DIALECTS:
            raise Unusable(Flaw.DIALECT)
        self._is_draft4 = "draft-04" in dialect

    def number(self, schema: object) -> int:
        if isinstance(schema, bool):
            return _ANY
        if not isinstance(schema, dict):
            raise Unusable(Flaw.INVALID)
        # Objects of one parsed text: the root keeps all of them, so that no id is used twice.
        known = self._numbers.get(id(schema))
        if known is None:
            if len(self.nodes) >= MAX_SUBSCHEMAS:
                raise Unusable(Flaw.TOO_LARGE)
            known = self._numbers[id(schema)] = len(self.nodes)
            node = _Node()
            self.nodes.append(node)
            self.pending.append((node, schema))
        return known

    def read(self, node: _Node, schema: dict[str, object]) -> None:
        if _PLAIN.issuperset(schema):
            return
        if schema is not self._root and (
            "$schema" in schema or "$id" in schema or (self._is_draft4 and "id" in schema)
        ):
            raise Unusable(Flaw.REFERENCE)
        if "$dynamicRef" in schema or "$recursiveRef" in schema:
            raise Unusable(Flaw.REFERENCE)
        node.own += sum(_weight(schema.get(keyword)) for keyword in ("const", "enum"))
        node.own += len(_list(schema, "required")) // 4 if isinstance(schema.get("required"), list) else 0
        node.unique = schema.get("uniqueItems") is True
        self._read_beside(node, schema)
        self._read_members(node, schema)
        self._read_places(node, schema)
        if isinstance(schema.get("pattern"), str):
            node.text += self._units(str(schema["pattern"]))

    def _read_beside(self, node: _Node, schema: dict[str, object]) -> None:
        if "$ref" in schema:
            node.beside.append(self.number(self._target(schema["$ref"])))
        node.beside.extend(self.number(schema[keyword]) for keyword in _ONE_BESIDE if keyword in schema)
        for keyword in _LIST_BESIDE:
            node.beside.extend(map(self.number, _list(schema, keyword)))
        for keyword in _MAP_BESIDE:
            for inner in _map(schema, keyword).values():
                if isinstance(inner, list):
                    node.own += len(inner)
                else:
                    node.own += 1
                    node.beside.append(self.number(inner))
        node.own += sum(
            1 + len(inner) for inner in _map(schema, "dependentRequired").values() if isinstance(inner, list)
        )
        node.times = EVALUATED_AGAIN if any(keyword in schema for keyword in _UNEVALUATED) else 1

    def _read_members(self, node: _Node, schema: dict[str, object]) -> None:
        for name, inner in _map(schema, "properties").items():
            self.names.add(name)
            node.props[name] = self.number(inner)
        for pattern, inner in _map(schema, "patternProperties").items():
            node.key_text += self._units(pattern)
            node.patterns.append(self.number(inner))
        for keyword in ("additionalProperties", "unevaluatedProperties"):
            if keyword in schema:
                node.others.append(self.number(schema[keyword]))
        if "propertyNames" in schema:
            node.names.append(self.number(schema["propertyNames"]))

    def _read_places(self, node: _Node, schema: dict[str, object]) -> None:
        node.prefix.extend(map(self.number, _list(schema, "prefixItems")))
        items = schema.get("items", True)
        if isinstance(items, list):
            node.prefix.extend(map(self.number, items))
        else:
            node.rest.append(self.number(items))
        for keyword in ("additionalItems", "contains", "unevaluatedItems"):
            if keyword in schema:
                node.rest.append(self.number(schema[keyword]))

    def _units(self, pattern: str) -> int:
        size = self._patterns.get(pattern)
        if size is None:
            found = self._size_of(pattern)
            if found is None:
                raise Unusable(Flaw.REGEX)
            size = self._patterns[pattern] = found
            if sum(self._patterns.values()) > MAX_PATTERN_BYTES:
                raise Unusable(Flaw.REGEX)
        return 1 + size // BYTES_PER_UNIT

    def _target(self, reference: object) -> object:
        if not isinstance(reference, str):
            raise Unusable(Flaw.INVALID)
        if not reference.startswith("#"):
            raise Unusable(Flaw.REMOTE)
        found: object = self._root
        if reference == "#":
            return found
        if not reference.startswith("#/"):
            raise Unusable(Flaw.REFERENCE)
        for part in unquote(reference[2:]).split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict) and name in found:
                found = found[name]
            elif isinstance(found, list) and name.isdecimal() and len(name) < 5 and int(name) < len(found):
                found = found[int(name)]
            else:
                raise Unusable(Flaw.REFERENCE)
        return found


def _within(nodes: list[_Node]) -> list[_Seeds]:
    """For each subschema, which ones look at the same value, itself included, and how many times each.

    Raises Unusable for one that looks at its own value without end.
    """
    within: list[_Seeds | None] = [None] * len(nodes)
    entered: set[int] = set()
    pairs = 0
    for start in range(len(nodes)):
        path = [start]
        while path:
            number = path[-1]
            if within[number] is not None:
                path.pop()
                continue
            node = nodes[number]
            missing = [inner for inner in node.beside if within[inner] is None]
            if missing:
                if number in entered:
                    raise Unusable(Flaw.COSTLY)
                entered.add(number)
                path.extend(missing)
                continue
            counts: _Seeds = Counter({number: 1})
            for inner in node.beside:
                for far, count in (within[inner] or {}).items():
                    counts[far] += count * node.times
            pairs += len(counts)
            if pairs > MAX_WITHIN or sum(counts.values()) > MAX_UNITS:
                raise Unusable(Flaw.COSTLY)
            within[number] = counts
            path.pop()
    return [counts or Counter() for counts in within]


def _weight(value: object) -> int:
    """Values inside of containers: texts and numbers are found by their hash, containers are compared."""
    weight = 0
    pending = (
        [inner for inner in value if isinstance(inner, list | dict)] if isinstance(value, list) else [value]
    )
    while pending:
        inner = pending.pop()
        weight += 1
        if isinstance(inner, dict):
            pending.extend(inner.values())
        elif isinstance(inner, list):
            pending.extend(inner)
    return weight if value is not None else 0


def _list(schema: Mapping[str, object], keyword: str) -> list[object]:
    value = schema.get(keyword, [])
    if not isinstance(value, list):
        raise Unusable(Flaw.INVALID)
    return value


def _map(schema: Mapping[str, object], keyword: str) -> dict[str, object]:
    value = schema.get(keyword, {})
    if not isinstance(value, dict):
        raise Unusable(Flaw.INVALID)
    return value
