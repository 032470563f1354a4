"""Do the arguments of a call fit the schema its tool was listed with? Call and principal → why not, or None.

Schemas are learnt from the lists that pass, for each identity by itself: what a server told one says nothing of what
it tells another. An identity whose list has not passed is asked to list first: if its calls passed unchecked, whoever
never lists would never be checked. Nothing is fetched: a schema that refers to another document is flagged, and its
tool cannot be called where a rule says `validate`.
Schemas are JSON Schema 2020-12 unless `$schema` says otherwise (MCP server/tools), `format` is not asserted (its
default there). The validator is jsonschema-rs, which the extra `validate` brings, with its linear engine for regular
expressions. Keeps schemas, bounded by identities, tools and bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache
from importlib import import_module
from typing import Annotated, Any, Final, Protocol, TypeAlias

import msgspec
from msgspec import Meta, Struct

from ..configuration.mistakes import Unfit
from ..model import Call, Identity, Principal
from .schema_cost import Flaw, Plan, Unusable, read_plan
from .schema_words import Words

MAX_SCHEMA_BYTES: Final = 131_072
ENTRY_BYTES: Final = 200
"""What keeping a tool costs beside its name and schema."""
MAX_ERROR_WORK: Final = 100_000
"""Copies of values (0.4 µs each) that the validator's errors may hold: 40 ms."""
ERROR_WORK: Final = 50
"""What an error costs beside its copy (20 µs)."""
MAX_ERROR_VALUES: Final = 2_000
"""Values of arguments in which a problem is looked for."""

UNKNOWN: Final = (
    "The arguments of this tool are checked against its inputSchema, which has not passed this proxy since it started "
    "or since the tools changed. List the tools (tools/list), then call again."
)
COSTLY: Final = (
    "The arguments are too large or too deeply nested to be checked against the inputSchema of this tool. Send less "
    "in one call."
)
TOO_LARGE_TO_SAY: Final = (
    "The arguments do not fit the inputSchema of this tool, and are too large to say where. Compare them with the "
    "schema, correct them and call again."
)
_BEGIN: Final = "The inputSchema of this tool cannot be used to check its arguments"
_END: Final = "Use another tool, or ask the operator of this proxy."
UNUSABLE: Final[Mapping[Flaw, str]] = {
    Flaw.ABSENT: f"{_BEGIN}: it is missing. {_END}",
    Flaw.AMBIGUOUS: f"{_BEGIN}: the tool was listed twice, with different schemas. {_END}",
    Flaw.TOO_LARGE: f"{_BEGIN}: it is too large. {_END}",
    Flaw.DIALECT: f"{_BEGIN}: its $schema is not known here. {_END}",
    Flaw.REMOTE: f"{_BEGIN}: it refers to another document. {_END}",
    Flaw.REFERENCE: f"{_BEGIN}: one of its references is not followed here. {_END}",
    Flaw.COSTLY: f"{_BEGIN}: checking would take too long. {_END}",
    Flaw.REGEX: f"{_BEGIN}: one of its regular expressions is not of the linear kind, or too large. {_END}",
    Flaw.INVALID: f"{_BEGIN}: it is no valid JSON Schema. {_END}",
}

_PATTERN_SIZES: Final = tuple(1 << exponent for exponent in range(10, 21))
_DFA_BYTES: Final = 262_144


class Bounds(Struct, frozen=True, kw_only=True):
    """How much is kept. Of identities the least used is forgotten, and asked to list again."""

    identities: int = 10_000
    tools: int = 2_000
    """Tools that a rule validates, for each identity."""
    bytes: int = 33_554_432
    """Of all schemas and names; lists that are the same for many are kept once."""
    ready: int = 256
    ready_bytes: int = 4_194_304
    """Of the schemas that are compiled; others are compiled again when they are needed (0.2 ms, at most 20)."""


DEFAULTS: Final = Bounds()


class Schemas:
    """Learns while it listens; asks the server nothing."""

    def __init__(
        self,
        validates: Callable[[str], bool],
        flagged: Callable[[str, Flaw], None] = lambda tool, flaw: None,
        bounds: Bounds = DEFAULTS,
    ) -> None:
        """`validates` tells of a tool's name whether a rule may want its arguments checked: only these are kept.
        `flagged` hears of tools whose schema cannot be used, when they are first called."""
        self._validates = validates
        self._flagged = flagged
        self._bounds = bounds
        self._known: OrderedDict[Identity, _Table] = OrderedDict()
        self._tables: dict[_Contents, _Table] = {}
        self._bytes = 0
        self._ready: OrderedDict[_Definition, None] = OrderedDict()
        self._ready_bytes = 0

    def follow(self, validates: Callable[[str], bool]) -> None:
        """Other rules are in force. What they validate and others did not is known after the next list."""
        self._validates = validates

    def heard(self, principal: Principal, call: Call, result: object) -> None:
        """A list of tools has passed on its way to this principal; `call` asked for it, or opened the stream on which
        it came."""
        tools = result.get("tools") if isinstance(result, dict) else None
        if not isinstance(result, dict) or not isinstance(tools, list):
            return
        before = self._known.get(principal.identity)
        # Whoever asked on another connection may have asked for any page.
        is_first = call.method == "tools/list" and call.params.get("cursor") is None
        is_whole = is_first and result.get("nextCursor") is None
        kept: dict[str, _Definition] = {} if is_whole or before is None else before.tools
        learnt = kept | dict(self._read(tools, before.tools if before else {}))
        if before is None or learnt != before.tools:
            self._keep(principal.identity, learnt)

    def changed(self) -> None:
        """The server says that its tools changed (list_changed): nothing that was learnt is known any more."""
        self._known.clear()
        self._tables.clear()
        self._ready.clear()
        self._bytes = self._ready_bytes = 0

    def why_not(self, principal: Principal, call: Call) -> str | None:
        """Why the arguments do not fit, for ARGUMENT_INVALID; None where they do. Never raises."""
        table = self._known.get(principal.identity)
        definition = table.tools.get(call.target) if table is not None and call.target is not None else None
        if definition is None or call.target is None:
            return UNKNOWN
        self._known.move_to_end(principal.identity)
        self._make_ready(definition, call.target)
        return definition.why_not(call.arguments, len(call.body))

    def _read(
        self, tools: list[object], before: Mapping[str, _Definition]
    ) -> Iterator[tuple[str, _Definition]]:
        page: dict[str, bytes | Flaw] = {}
        for tool in tools:
            name = tool.get("name") if isinstance(tool, dict) else None
            if not isinstance(tool, dict) or not isinstance(name, str) or not self._validates(name):
                continue
            text = _text_of(tool.get("inputSchema"))
            page[name] = text if page.get(name, text) == text else Flaw.AMBIGUOUS
        for name, text in page.items():
            known = before.get(name)
            # What is the same stays ready.
            yield name, known if known is not None and known.text == text else _Definition(text)

    def _keep(self, identity: Identity, tools: dict[str, _Definition]) -> None:
        self._drop(identity)
        names = list(tools)[: self._bounds.tools]
        contents = tuple((name, tools[name].text) for name in sorted(names))
        table = self._tables.get(contents)
        if table is None:
            table = self._tables[contents] = _Table({name: tools[name] for name in names}, contents)
            self._bytes += table.bytes
        table.users += 1
        self._known[identity] = table
        while len(self._known) > self._bounds.identities or self._bytes > self._bounds.bytes:
            self._drop(next(iter(self._known)))

    def _drop(self, identity: Identity) -> None:
        table = self._known.pop(identity, None)
        if table is None:
            return
        table.users -= 1
        if not table.users:
            self._bytes -= table.bytes
            del self._tables[table.contents]

    def _make_ready(self, definition: _Definition, name: str) -> None:
        if definition in self._ready:
            self._ready.move_to_end(definition)
            return
        flaw = definition.make_ready()
        if flaw is not None:
            self._flagged(name, flaw)
        self._ready[definition] = None
        self._ready_bytes += definition.bytes
        bounds = self._bounds
        while len(self._ready) > bounds.ready or (
            self._ready_bytes > bounds.ready_bytes and len(self._ready) > 1
        ):
            oldest, _ = self._ready.popitem(last=False)
            self._ready_bytes -= oldest.bytes
            oldest.make_unready()


class _Definition:
    """The inputSchema of a tool, ready or not."""

    __slots__ = ("_checks", "bytes", "text")

    def __init__(self, text: bytes | Flaw) -> None:
        self.text = text
        """As JSON, or why there is none."""
        self.bytes = 0 if isinstance(text, Flaw) else len(text)
        self._checks: _Checks | Flaw | None = None

    def make_ready(self) -> Flaw | None:
        try:
            if isinstance(self.text, Flaw):
                raise Unusable(self.text)
            self._checks = _Checks(self.text)
        except Unusable as unusable:
            self._checks = unusable.flaw
            return unusable.flaw
        return None

    def make_unready(self) -> None:
        self._checks = None

    def why_not(self, arguments: Mapping[str, object], body_bytes: int) -> str | None:
        checks = self._checks
        assert checks is not None, "made ready before"
        return UNUSABLE[checks] if isinstance(checks, Flaw) else checks.why_not(arguments, body_bytes)


_Contents: TypeAlias = tuple[tuple[str, bytes | Flaw], ...]


class _Table:
    """The tools of one list, and how many were told it."""

    __slots__ = ("bytes", "contents", "tools", "users")

    def __init__(self, tools: dict[str, _Definition], contents: _Contents) -> None:
        self.tools = tools
        self.contents = contents
        self.users = 0
        self.bytes = sum(len(name) + definition.bytes + ENTRY_BYTES for name, definition in tools.items())


class _Validator(Protocol):
    def is_valid(self, instance: object) -> bool: ...
    def iter_errors(self, instance: object) -> Iterator[Any]: ...


class _Checks:
    """One schema, compiled."""

    def __init__(self, text: bytes) -> None:
        """Raises Unusable."""
        schema = msgspec.json.decode(text)
        self._plan: Plan = read_plan(schema, _pattern_size)
        self._words = Words(schema, self._plan.names)
        self._validator = _compiled(text.decode())

    def why_not(self, arguments: Mapping[str, object], body_bytes: int) -> str | None:
        if not self._plan.is_small(body_bytes) and self._plan.cost(arguments) is None:
            return COSTLY
        try:
            return None if self._validator.is_valid(arguments) else self._explain(arguments)
        except BaseException as error:
            _pass_on(error)
            return TOO_LARGE_TO_SAY

    def _explain(self, arguments: Mapping[str, object]) -> str:
        cost = self._plan.cost(arguments, MAX_ERROR_VALUES)
        if cost is None or cost.copies + cost.checks * ERROR_WORK > MAX_ERROR_WORK:
            return TOO_LARGE_TO_SAY
        problems = self._words.problems(self._validator.iter_errors(arguments))
        return (
            f"The arguments do not fit the inputSchema of this tool. {problems}. Correct them and call again."
        )


def _text_of(schema: object) -> bytes | Flaw:
    if not isinstance(schema, dict):
        return Flaw.ABSENT
    try:
        text = msgspec.json.encode(schema)
    except (ValueError, TypeError, RecursionError, OverflowError):
        return Flaw.INVALID
    return text if len(text) <= MAX_SCHEMA_BYTES else Flaw.TOO_LARGE


def check_validate(wanted: bool) -> None:
    """Raise Unfit where `validate: true` is said and what it needs is not installed."""
    if wanted:
        _engine()


Validate = Annotated[bool, Meta(extra={"fit": check_validate})]
"""A `validate:` in the settings."""


@cache
def _engine() -> Any:
    """Raises Unfit where it is not installed."""
    try:
        return import_module("jsonschema_rs")
    except ImportError:
        raise Unfit(
            "needs an extra that is not installed",
            "arguments are checked by jsonschema-rs",
            "run pip install 'mcp-sidecar[validate]', or remove `validate`",
        ) from None


def _compiled(text: str, pattern_bytes: int = _PATTERN_SIZES[-1]) -> _Validator:
    """Raises Unusable for what is no JSON Schema, or none that is complete in itself."""
    engine = _engine()
    try:
        validator: _Validator = engine.validator_for(
            text,
            validate_formats=False,
            retriever=_refuse,
            pattern_options=engine.RegexOptions(size_limit=pattern_bytes, dfa_size_limit=_DFA_BYTES),
        )
    except BaseException as error:
        _pass_on(error)
        raise Unusable(Flaw.INVALID) from None
    return validator


def _refuse(uri: str) -> object:
    raise LookupError("schemas are not fetched")


@lru_cache(maxsize=1024)
def _pattern_size(pattern: str) -> int | None:
    """Bytes a regular expression is compiled to, rounded up; None where it is not linear, or too large."""
    text = msgspec.json.encode({"pattern": pattern}).decode()
    for size in _PATTERN_SIZES:
        try:
            _compiled(text, size)
        except Unusable:
            continue
        return size
    return None


def _pass_on(error: BaseException) -> None:
    """A panic of the validator is no Exception; what ends the process or the task is no panic."""
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error
