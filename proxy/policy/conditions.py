"""Does a rule's `when:` hold for this call? Expression, call and principal → yes or no.

Expressions are CEL (https://github.com/google/cel-spec), evaluated by cel-expr-python, which the extra `cel` brings.
They are parsed and type-checked when the settings are read. Only a real True is a yes: that library hands run-time
errors back as truthy texts. Whatever goes wrong is a no, and is counted. Keeps nothing but compiled expressions.

What an expression may cost is bounded before it runs, since the library's own budget (10,000 iterations) says
nothing of what one iteration costs: measured, 331 ms within it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Annotated, Any, Final, Literal, Protocol, TypeAlias

from msgspec import Meta

from ..configuration.mistakes import Unfit
from ..configuration.values import fit
from ..model import Call, Principal

MAX_CHARACTERS: Final = 2_000
MAX_REFERENCES: Final = 16
"""Times `args` may stand in one expression: each converts what it names anew (4 ms for 60,000 values)."""
MAX_COMPREHENSIONS: Final = 4
MAX_VALUES: Final = (20_000, 1_000, 100)
"""Values in the arguments, by how deep `all`, `exists`, `map` and `filter` stand inside each other: an iteration may
look at all of them again. Deeper than the last is refused when the settings are read."""
MAX_ITERATED_CHARACTERS: Final = 65_536
"""Characters in the arguments of an expression that iterates."""

MAX_ITERATED_PATTERN: Final = 64
"""Characters of a pattern that is matched in a loop (7 µs; `{1,100}` in it makes that 200)."""

Failure: TypeAlias = Literal["error", "not_boolean", "too_large", "nul"]
"""Why an expression could not say yes or no. `error` is a missing key, a wrong type, an overflow or a budget spent."""


class Condition:
    """One expression, ready to be asked."""

    def __init__(self, text: str, failed: Callable[[Failure], None] = lambda failure: None) -> None:
        """`failed` hears of every evaluation that did not end in true or false. Raises Unfit."""
        self._expression, iterations = _compiled(text)
        self._failed = failed
        self._max_values = MAX_VALUES[iterations]
        self._max_characters = MAX_ITERATED_CHARACTERS if iterations else None

    def holds(self, call: Call, principal: Principal) -> bool:
        """Whether the expression is True of this call. Never raises."""
        data: dict[str, object] = {
            "args": call.arguments,
            "tool": call.target or "",
            "method": call.method,
            "principal.subject": principal.subject,
            "principal.tenant": principal.tenant,
            "principal.issuer": principal.issuer,
            "principal.roles": list(principal.roles),
            "principal.scopes": list(principal.scopes),
        }
        # How many roles somebody has is not the caller's choice.
        failure = self._unfit(data, self._max_values + len(principal.roles) + len(principal.scopes))
        if failure is None:
            try:
                value = self._expression.eval(data=data).value()
            except Exception:  # a budget spent, a text that is no UTF-8: whatever it is, it is no yes
                value = None
                failure = "error"
            if value is True or value is False:
                return value
            failure = failure or ("error" if isinstance(value, str) else "not_boolean")
        self._failed(failure)
        return False

    def _unfit(self, data: Mapping[str, object], left: int) -> Failure | None:
        """Why these values, of which `left` may be, are not shown to the expression."""
        characters = 0
        pending = list(data.values())
        while pending:
            value = pending.pop()
            if isinstance(value, str):
                # The library reads texts up to the first NUL: "admin\0" would be equal to "admin".
                if "\0" in value:
                    return "nul"
                characters += len(value)
            elif isinstance(value, dict):
                left -= len(value)
                pending.extend(value)
                pending.extend(value.values())
            elif isinstance(value, list):
                left -= len(value)
                pending.extend(value)
            if left < 0:
                return "too_large"
        return "too_large" if self._max_characters is not None and characters > self._max_characters else None


def check_condition(text: str) -> None:
    """Raise Unfit unless this is a CEL expression that is true or false, within our bounds."""
    _compiled(text)


When = Annotated[str, Meta(min_length=1, max_length=MAX_CHARACTERS), fit(check_condition)]
"""A `when:` in the settings."""


class _Value(Protocol):
    def value(self) -> object: ...


class _Expression(Protocol):
    def eval(self, *, data: Mapping[str, object]) -> _Value: ...
    def return_type(self) -> object: ...
    def serialize(self) -> bytes: ...


def _compiled(text: str) -> tuple[_Expression, int]:
    """The expression, and how deep its iterations are nested. Raises Unfit."""
    cel, environment = _environment()
    if len(text) > MAX_CHARACTERS or "\0" in text:
        raise Unfit(
            "is no condition", f"it is too long ({MAX_CHARACTERS} characters) or holds NUL", "shorten it"
        )
    try:
        expression: _Expression = environment.compile(text)
    except Exception as error:
        raise Unfit("is no CEL expression", _what_is_wrong(str(error)), _REMEDY) from None
    if expression.return_type() != cel.Type.BOOL:
        raise Unfit(
            "is no condition",
            "its result is not known to be true or false, and only true allows",
            "compare it, for example args.dry_run == true",
        )
    try:
        tree = _tree(expression.serialize())
    except ValueError:
        raise Unfit(
            "cannot be judged",
            "this version of cel-expr-python writes expressions in a form of its own",
            "run pip install 'mcp-sidecar[cel]'",
        ) from None
    if tree.references > MAX_REFERENCES:
        why = f"args stands in it {tree.references} times, and every time costs"
        raise Unfit("costs too much", why, f"write args at most {MAX_REFERENCES} times")
    if tree.comprehensions > MAX_COMPREHENSIONS or tree.depth >= len(MAX_VALUES):
        raise Unfit(
            "costs too much",
            "all, exists, map and filter go through the arguments again and again",
            f"use at most {MAX_COMPREHENSIONS}, and not more than {len(MAX_VALUES) - 1} inside each other",
        )
    if tree.has_open_pattern:
        raise Unfit(
            "costs too much",
            "a regular expression is built anew every time it is used",
            "give matches() a literal pattern, and inside of all, exists, map and filter one of at most "
            f"{MAX_ITERATED_PATTERN} characters without braces",
        )
    return expression, tree.depth


_REMEDY: Final = "variables are args, tool, method and principal.{subject,tenant,issuer,roles,scopes}"


@cache
def _environment() -> tuple[Any, Any]:
    """The library, and what expressions know. Raises Unfit where it is not installed."""
    try:
        cel: Any = import_module("cel_expr_python.cel")
    except ImportError:
        raise Unfit(
            "needs an extra that is not installed",
            "conditions are CEL expressions, evaluated by cel-expr-python",
            "run pip install 'mcp-sidecar[cel]', or remove `when`",
        ) from None
    kind = cel.Type
    variables = {
        "args": kind.Map(kind.STRING, kind.DYN),
        "tool": kind.STRING,
        "method": kind.STRING,
        # One variable for each: as a map, principal.tennant would be found missing only by the calls it refuses.
        "principal.subject": kind.STRING,
        "principal.tenant": kind.STRING,
        "principal.issuer": kind.STRING,
        "principal.roles": kind.List(kind.STRING),
        "principal.scopes": kind.List(kind.STRING),
    }
    return cel, cel.NewEnv(variables=variables)


_PLACE: Final = re.compile(r"<input>:(\d+):(\d+): (.*)")
_NAMED: Final = re.compile(
    r"undeclared reference to '[\w.]{1,80}'|found no matching overload for '[\w.!@<>=&|?:+*/%\[\]-]{1,40}' applied to "
    r"'[\w(), .<>*]{1,120}'",
    re.ASCII,
)


def _what_is_wrong(message: str) -> str:
    """Position and kind of the first mistake; of the expression only names and types, for it may quote values."""
    place = _PLACE.search(message)
    if place is None:
        return "it is too long or too deeply nested"
    line, column, text = place.groups()
    named = _NAMED.match(text)
    return f"line {line}, column {int(column)} of it: {named[0] if named else 'syntax error'}"


class _Tree:
    """What an expression costs, read from its checked form."""

    def __init__(self) -> None:
        self.references = 0
        self.comprehensions = 0
        self.depth = 0
        self.has_open_pattern = False
        """A regular expression comes from the call, or a large one is built in a loop."""


# The fields of cel.expr.CheckedExpr and Expr (checked.proto, syntax.proto of the CEL specification).
_ANY_VALUE: Final = 2
_CHECKED_EXPR: Final = 4
_CONST, _IDENT, _SELECT, _CALL, _LIST, _STRUCT, _COMPREHENSION = 3, 4, 5, 6, 7, 8, 9
_CHILDREN: Final = {_SELECT: (1,), _CALL: (1, 3), _LIST: (1,)}


def _tree(serialized: bytes) -> _Tree:
    """Raises ValueError where the library has changed what it writes: then nothing may be assumed of costs."""
    tree = _Tree()
    checked = _only(serialized, _ANY_VALUE)
    pending = [(_only(checked, _CHECKED_EXPR), 0)]
    while pending:
        expression, depth = pending.pop()
        for kind, body in _fields(expression):
            if kind == _IDENT:
                tree.references += _only(body, 1) == b"args"
            elif kind == _COMPREHENSION:
                tree.comprehensions += 1
                tree.depth = max(tree.depth, depth + 1)
                # Only the range is evaluated once; start, condition, step and result belong to the loop.
                pending.extend(
                    (part, depth + (field != 2)) for field, part in _fields(body) if field not in (1, 3)
                )
            elif kind == _STRUCT:
                entries = [entry for field, entry in _fields(body) if field == 2]
                pending.extend(
                    (part, depth) for entry in entries for field, part in _fields(entry) if field != 2
                )
            else:
                if kind == _CALL and _only(body, 2) == b"matches":
                    tree.has_open_pattern |= not _is_cheap_pattern(list(_fields(body))[-1][1], depth)
                children = _CHILDREN.get(kind, ())
                pending.extend((part, depth) for field, part in _fields(body) if field in children)
    return tree


def _is_cheap_pattern(expression: bytes, depth: int) -> bool:
    texts = [text for kind, constant in _fields(expression) if kind == _CONST for text in _fields(constant)]
    if len(texts) != 1:
        return False
    pattern = texts[0][1]
    return not depth or (len(pattern) <= MAX_ITERATED_PATTERN and b"{" not in pattern)


def _only(message: bytes, wanted: int) -> bytes:
    found = [body for field, body in _fields(message) if field == wanted]
    if len(found) != 1:
        raise ValueError("the checked form of an expression is not what it was")
    return found[0]


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The length-delimited fields of a protobuf message; numbers are passed over."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        wire = key & 7
        if wire == 0:
            _, at = _varint(message, at)
        elif wire == 2:
            length, at = _varint(message, at)
            if at + length > len(message):
                raise ValueError("a field is longer than its message")
            yield key >> 3, message[at : at + length]
            at += length
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise ValueError("a wire type that protobuf has given up")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message):
            raise ValueError("a number does not end")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
