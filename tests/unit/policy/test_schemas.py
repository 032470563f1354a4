"""Arguments are checked against the schema the caller was shown, in bounded time, with words a model can use."""

import itertools
import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.model import Call, Principal
from proxy.policy.schema_cost import MAX_WORK, Flaw, read_plan
from proxy.policy.schemas import COSTLY, TOO_LARGE_TO_SAY, UNKNOWN, UNUSABLE, Bounds, Schemas
from tests.fakes import make_call
from tests.fuzz.bounded import FUZZ

ALICE = Principal(issuer="i", subject="alice", tenant="a")
BOB = Principal(issuer="i", subject="bob", tenant="a")
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "query": {"type": "string", "maxLength": 9, "pattern": "^[a-z]+$"},
        "limit": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]},
        "order": {"enum": ["up", "down"]},
        "parts": {"type": "array", "items": {"$ref": "#/$defs/part"}},
    },
    "required": ["query"],
    "additionalProperties": False,
    "$defs": {
        "part": {
            "type": "object",
            "properties": {"a/b": {"const": 3}},
            "additionalProperties": {"type": "null"},
        }
    },
}


def listing(cursor: str | None = None) -> Call:
    return make_call(method="tools/list", params={} if cursor is None else {"cursor": cursor})


def tool(schema: object, name: str = "search") -> dict[str, object]:
    return {"name": name, "inputSchema": schema}


def knowing(schema: object, flags: list[tuple[str, Flaw]] | None = None) -> Schemas:
    """What was learnt from one list with one tool, `search`."""
    told = Schemas(
        lambda name: True, lambda name, flaw: (flags if flags is not None else []).append((name, flaw))
    )
    told.heard(ALICE, listing(), {"tools": [tool(schema)]})
    return told


def calling(arguments: object, name: str = "search", *, sized: bool = True) -> Call:
    body = json.dumps(arguments).encode() if sized else b""
    return make_call(target=name, params={"name": name, "arguments": arguments}, body=body)


def why_not(schema: object, arguments: object, *, sized: bool = True) -> str | None:
    return knowing(schema).why_not(ALICE, calling(arguments, sized=sized))


def problems(schema: object, arguments: object) -> str:
    why = why_not(schema, arguments)
    begin, end = "The arguments do not fit the inputSchema of this tool. ", ". Correct them and call again."
    assert why is not None
    assert (why[: len(begin)], why[-len(end) :]) == (begin, end)
    return why[len(begin) : -len(end)]


# What fits.


@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize(
    "arguments",
    [
        {"query": "abc"},
        {"query": "abc", "limit": None, "order": "up"},
        {"query": "abc", "limit": 1.0},
        {"query": "abc", "limit": 2**80},
        {"query": "abc", "parts": [{"a/b": 3, "c": None}, {}]},
    ],
)
def test_arguments_that_fit_pass(arguments: object, sized: bool) -> None:
    assert why_not(SCHEMA, arguments, sized=sized) is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "/query: is missing (required)"),
        ({"query": 5}, "/query: must be string (type)"),
        ({"query": "abcdefghij"}, "/query: must have at most 9 characters (maxLength)"),
        ({"query": "A"}, '/query: must match "^[a-z]+$" (pattern)'),
        ({"query": "a", "limit": "1"}, "/limit: must be integer or null (anyOf)"),
        ({"query": "a", "limit": True}, "/limit: must be integer or null (anyOf)"),
        ({"query": "a", "limit": 1.5}, "/limit: must be integer or null (anyOf)"),
        (
            {"query": "a", "limit": 0},
            "/limit: fits none of the alternatives; of the nearest one: /limit: must be at least 1 (minimum) (anyOf)",
        ),
        ({"query": "a", "order": "sideways"}, '/order: must be one of "up", "down" (enum)'),
        ({"query": "a", "parts": [{}, {"a/b": 4}]}, "/parts/1/a~1b: must be 3 (const)"),
        ({"query": "a", "parts": [{"secret": 1}]}, "/parts/0/*: must be null (type)"),
        (
            {"query": "a", "secret": 1},
            "the arguments: has a member that is not allowed; allowed are query, limit, order, parts "
            "(additionalProperties)",
        ),
    ],
)
def test_problems_are_told_so_that_the_call_can_be_repaired(arguments: object, words: str) -> None:
    """A pointer, what is wanted and which keyword wants it; never what was sent."""
    assert problems(SCHEMA, arguments) == words


def test_the_first_problems_are_told_and_the_others_counted() -> None:
    told = problems(SCHEMA, {"query": "A", "limit": "1", "order": "x", "parts": 1, "secret": 1}).split("; ")
    assert len(told) == 4
    assert told[3] == "and 2 more"
    assert len(set(told)) == 4


def test_tools_of_one_identity_are_bounded() -> None:
    told = Schemas(lambda name: True, bounds=Bounds(tools=2))
    told.heard(ALICE, listing(), {"tools": [tool({}, name) for name in "abc"]})
    assert [told.why_not(ALICE, calling({}, name)) for name in "abc"] == [None, None, UNKNOWN]


@pytest.mark.parametrize(
    ("schema", "value", "words"),
    [
        ({"exclusiveMinimum": 0}, 0, "must be more than 0 (exclusiveMinimum)"),
        ({"maximum": 2**70}, 2**70 + 1, f"must be at most {2**70} (maximum)"),
        ({"multipleOf": 0.5}, 0.3, "must be a multiple of 0.5 (multipleOf)"),
        ({"minItems": 1}, [], "must have at least 1 items (minItems)"),
        ({"uniqueItems": True}, [1, 1.0], "must not repeat an item (uniqueItems)"),
        ({"contains": {"type": "null"}}, [1], "lacks an item of the kind that is wanted (contains)"),
        (
            {"propertyNames": {"maxLength": 1}},
            {"abc": 1},
            "a member's name must have at most 1 characters (propertyNames)",
        ),
        ({"not": {"type": "string"}}, "s3cret", "is of a kind that is excluded (not)"),
        (False, "s3cret", "is not allowed (falseSchema)"),
        ({"oneOf": [{}, {}]}, 1, "fits more than one of the alternatives (oneOf)"),
        ({"const": {"a": 1}}, "s3cret", "must be a certain object (const)"),
        (
            {"enum": ["x" * 100, "\x1b[31m\u202ered"]},
            "s3cret",
            f'must be one of "{"x" * 63}…", "?[31m?red" (enum)',
        ),
        ({"if": {"minimum": 3}, "then": {"maximum": 5}}, 6, "must be at most 5 (maximum)"),
        ({"type": ["integer", "null"]}, "s3cret", "must be integer or null (type)"),
    ],
)
def test_every_kind_of_problem_has_words(schema: object, value: object, words: str) -> None:
    assert problems({"properties": {"x": schema}}, {"x": value}) == f"/x: {words}"


def test_a_schema_may_be_of_an_older_dialect() -> None:
    """The default is 2020-12 (MCP server/tools); `$schema` says otherwise."""
    for dialect in (
        "http://json-schema.org/draft-04/schema#",
        "http://json-schema.org/draft-06/schema",
        "http://json-schema.org/draft-07/schema#",
        "https://json-schema.org/draft/2019-09/schema",
    ):
        schema = {"$schema": dialect, "properties": {"a": {"items": [{"type": "integer"}]}}}
        assert why_not(schema, {"a": [1, "x"]}) is None
        assert why_not(schema, {"a": ["x"]}) is not None
    assert why_not({"properties": {"a": {"prefixItems": [{"type": "integer"}]}}}, {"a": ["x"]}) is not None


# Who was told what.


def test_calls_before_a_list_are_asked_to_list() -> None:
    """Were they passed, whoever never lists would never be checked."""
    told = Schemas(lambda name: True)
    assert told.why_not(ALICE, calling({})) == UNKNOWN
    told.heard(ALICE, listing(), {"tools": [tool(SCHEMA)]})
    assert told.why_not(ALICE, calling({"query": "a"})) is None
    assert told.why_not(ALICE, calling({"query": "a"}, "other")) == UNKNOWN


def test_what_one_was_told_decides_nothing_for_another() -> None:
    told = knowing({"properties": {"a": {"type": "integer"}}})
    assert told.why_not(BOB, calling({"a": 1})) == UNKNOWN
    told.heard(BOB, listing(), {"tools": [tool({"properties": {"a": {"type": "string"}}})]})
    assert told.why_not(ALICE, calling({"a": 1})) is None
    assert told.why_not(BOB, calling({"a": 1})) is not None
    assert told.why_not(BOB, calling({"a": "1"})) is None


def test_a_new_list_replaces_the_old_one() -> None:
    told = knowing({"properties": {"a": {"type": "integer"}}})
    assert told.why_not(ALICE, calling({"a": "1"})) is not None
    told.heard(ALICE, listing(), {"tools": [tool({"properties": {"a": {"type": "string"}}})]})
    assert told.why_not(ALICE, calling({"a": "1"})) is None
    told.heard(ALICE, listing(), {"tools": []})
    assert told.why_not(ALICE, calling({"a": "1"})) == UNKNOWN


def test_pages_add_to_each_other() -> None:
    told = Schemas(lambda name: True)
    told.heard(ALICE, listing(), {"tools": [tool({}, "one")], "nextCursor": ""})
    told.heard(ALICE, listing(""), {"tools": [tool({}, "two")]})
    assert told.why_not(ALICE, calling({}, "one")) is None
    assert told.why_not(ALICE, calling({}, "two")) is None


def test_changed_tools_are_listed_again() -> None:
    told = knowing({})
    told.changed()
    assert told.why_not(ALICE, calling({})) == UNKNOWN
    told.heard(ALICE, listing(), {"tools": [tool({})]})
    assert told.why_not(ALICE, calling({})) is None


def test_only_lists_teach() -> None:
    told = Schemas(lambda name: True)
    told.heard(ALICE, make_call(method="prompts/list"), {"tools": [tool({})]})
    results: tuple[object, ...] = (None, [], {"tools": {}}, {"tools": [None, {}, {"name": 5}]})
    for result in results:
        told.heard(ALICE, listing(), result)
    assert told.why_not(ALICE, calling({})) == UNKNOWN


def test_only_tools_that_a_rule_validates_are_kept() -> None:
    told = Schemas(lambda name: name == "kept")
    told.heard(ALICE, listing(), {"tools": [tool({}, "kept"), tool({}, "other")]})
    assert told.why_not(ALICE, calling({}, "kept")) is None
    assert told.why_not(ALICE, calling({}, "other")) == UNKNOWN


def test_identities_are_bounded_and_the_least_used_is_forgotten() -> None:
    told = Schemas(lambda name: True, bounds=Bounds(identities=2))
    told.heard(ALICE, listing(), {"tools": [tool({})]})
    told.heard(BOB, listing(), {"tools": [tool({})]})
    assert told.why_not(ALICE, calling({})) is None
    carol = Principal(issuer="i", subject="carol", tenant="a")
    told.heard(carol, listing(), {"tools": [tool({})]})
    assert [told.why_not(who, calling({})) for who in (ALICE, BOB, carol)] == [None, UNKNOWN, None]


def test_bytes_are_bounded_and_lists_of_many_are_kept_once() -> None:
    told = Schemas(lambda name: True, bounds=Bounds(bytes=2_000))
    people = [Principal(issuer="i", subject=str(number), tenant="a") for number in range(50)]
    for person in people:
        told.heard(person, listing(), {"tools": [tool({"title": "t" * 1_000})]})
    assert all(told.why_not(person, calling({})) is None for person in people)
    for number, person in enumerate(people):
        told.heard(person, listing(), {"tools": [tool({"title": f"{number}" * 500})]})
    known = [person for person in people if told.why_not(person, calling({})) is None]
    assert known == people[-len(known) :]
    assert 1 <= len(known) <= 3


def test_what_is_forgotten_and_learnt_again_is_counted_again() -> None:
    told = Schemas(lambda name: True, bounds=Bounds(bytes=2_600))
    lists = {letter: {"tools": [tool({"title": letter * 1_000})]} for letter in "xyz"}
    told.heard(ALICE, listing(), lists["x"])
    told.heard(ALICE, listing(), lists["y"])
    told.heard(BOB, listing(), lists["x"])
    carol = Principal(issuer="i", subject="carol", tenant="a")
    told.heard(carol, listing(), lists["z"])
    assert [told.why_not(who, calling({})) for who in (ALICE, BOB, carol)] == [UNKNOWN, None, None]


def test_schemas_that_are_not_ready_are_made_ready_again() -> None:
    told = Schemas(lambda name: True, bounds=Bounds(ready=2))
    kinds = ["string", "integer", "boolean", "null"]
    told.heard(
        ALICE, listing(), {"tools": [tool({"properties": {"a": {"type": kind}}}, kind) for kind in kinds]}
    )
    for _ in range(2):
        for kind in kinds:
            why = told.why_not(ALICE, calling({"a": []}, kind))
            assert why is not None
            assert f"/a: must be {kind} (type)" in why


# Schemas that cannot be used.


def doubled(levels: int, keyword: str) -> dict[str, object]:
    """Definitions that each name the next one twice: 2 ** levels checks."""
    steps = {f"a{n}": {keyword: [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(levels)}
    return {"$defs": {**steps, f"a{levels}": {"type": "object"}}, "$ref": "#/$defs/a0"}


def unevaluated(levels: int) -> dict[str, object]:
    schema: dict[str, object] = {"properties": {"a": True}}
    for _ in range(levels):
        schema = {"allOf": [schema], "unevaluatedProperties": {"type": "integer"}}
    return schema


@pytest.mark.parametrize(
    ("schema", "flaw"),
    [
        (None, Flaw.ABSENT),
        (True, Flaw.ABSENT),
        ({"title": "x" * 140_000}, Flaw.TOO_LARGE),
        ({"properties": {str(n): {} for n in range(2_100)}}, Flaw.TOO_LARGE),
        ({"$schema": "https://example.test/own"}, Flaw.DIALECT),
        ({"$schema": 5}, Flaw.DIALECT),
        ({"properties": {"a": {"$ref": "https://example.test/a.json"}}}, Flaw.REMOTE),
        ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, Flaw.REMOTE),
        ({"properties": {"a": {"$ref": "other.json#/a"}}}, Flaw.REMOTE),
        ({"$defs": {"unused": {"$ref": "https://example.test/a.json"}}}, Flaw.INVALID),
        ({"$ref": "#/$defs/nowhere"}, Flaw.REFERENCE),
        ({"$ref": "#anchor"}, Flaw.REFERENCE),
        ({"$dynamicRef": "#node"}, Flaw.REFERENCE),
        ({"properties": {"a": {"$id": "https://example.test/a", "$ref": "#"}}}, Flaw.REFERENCE),
        ({"$ref": 5}, Flaw.INVALID),
        ({"allOf": [{"$ref": "#"}]}, Flaw.COSTLY),
        (
            {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"not": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"},
            Flaw.COSTLY,
        ),
        (doubled(30, "allOf"), Flaw.COSTLY),
        (doubled(30, "anyOf"), Flaw.COSTLY),
        (doubled(30, "oneOf"), Flaw.COSTLY),
        (unevaluated(20), Flaw.COSTLY),
        (
            {
                "$defs": {str(n): {"$ref": f"#/$defs/{n + 1}"} for n in range(1_000)} | {"1000": {}},
                "$ref": "#/$defs/0",
            },
            Flaw.COSTLY,
        ),
        ({"properties": {"a": {"pattern": "(?=a)"}}}, Flaw.REGEX),
        ({"properties": {"a": {"pattern": r"(a)\1"}}}, Flaw.REGEX),
        ({"properties": {"a": {"pattern": "((a{1,100}){1,100}){1,100}"}}}, Flaw.REGEX),
        ({"patternProperties": {"(?!a)": {}}}, Flaw.REGEX),
        ({"properties": {f"a{n}": {"pattern": f"(x{n}?){{900}}y"} for n in range(60)}}, Flaw.REGEX),
        ({"type": "nonsense"}, Flaw.INVALID),
        ({"properties": []}, Flaw.INVALID),
        ({"properties": {"a": 5}}, Flaw.INVALID),
        ({"minimum": "1"}, Flaw.INVALID),
    ],
)
def test_a_schema_that_cannot_be_used_is_flagged_and_its_tool_refused(schema: object, flaw: Flaw) -> None:
    """No fetching, no backtracking, no bombs; what was not checked does not pass."""
    flags: list[tuple[str, Flaw]] = []
    told = knowing(schema, flags)
    assert told.why_not(ALICE, calling({"a": "a"})) == UNUSABLE[flaw]
    assert told.why_not(ALICE, calling({"a": "a"})) == UNUSABLE[flaw]
    assert flags == [("search", flaw)]


def test_a_tool_listed_twice_with_different_schemas_is_refused() -> None:
    """Which of them the model saw, and which the server means, nobody knows."""
    told = Schemas(lambda name: True)
    told.heard(ALICE, listing(), {"tools": [tool({}), tool({"type": "object"}), tool({})]})
    assert told.why_not(ALICE, calling({})) == UNUSABLE[Flaw.AMBIGUOUS]
    told.heard(ALICE, listing(), {"tools": [tool({}), tool({})]})
    assert told.why_not(ALICE, calling({})) is None


def test_every_flaw_has_its_words() -> None:
    assert set(UNUSABLE) == set(Flaw)


def test_references_are_pointers() -> None:
    """RFC 6901, percent-encoded in a fragment."""
    schema = {
        "$defs": {"a/b~ %": {"allOf": [{"type": "integer"}]}},
        "properties": {"x": {"$ref": "#/$defs/a~1b~0%20%25/allOf/0"}},
    }
    assert why_not(schema, {"x": 1}) is None
    assert problems(schema, {"x": ""}) == "/x: must be integer (type)"


def test_a_member_called_like_a_keyword_is_a_member() -> None:
    members = {name: {"type": "integer"} for name in ("$ref", "$id", "pattern", "allOf", "$dynamicRef")}
    schema = {"properties": {**members, "data": {"const": {"$ref": "https://example.test/"}}}}
    assert why_not(schema, {"$ref": 1, "pattern": 2, "data": {"$ref": "https://example.test/"}}) is None
    assert problems(schema, {"$id": "x"}) == "/$id: must be integer (type)"


# Arguments that cost too much.


def nested(member: str, levels: int, inner: object) -> object:
    for _ in range(levels):
        inner = {member: inner}
    return inner


TREE: dict[str, object] = {
    # Two alternatives that look into the same member, as unions of Python classes do: 2 ** depth checks.
    "$defs": {
        "node": {
            "anyOf": [
                {
                    "properties": {"of": {"$ref": "#/$defs/node"}, "kind": {"const": "all"}},
                    "required": ["kind"],
                },
                {"properties": {"of": {"$ref": "#/$defs/node"}}, "required": ["of"]},
                {"type": "string"},
            ]
        }
    },
    "properties": {"filter": {"$ref": "#/$defs/node"}},
}
EVERYWHERE_UNIQUE: dict[str, object] = {
    "$defs": {"a": {"uniqueItems": True, "items": {"$ref": "#/$defs/a"}}},
    "$ref": "#/$defs/a",
}


@pytest.mark.parametrize(
    ("schema", "light", "heavy"),
    [
        (TREE, {"filter": nested("of", 6, "x")}, {"filter": nested("of", 40, "x")}),
        (
            {"properties": {"a": {"uniqueItems": True}}},
            {"a": [*range(20_000), "b"]},
            {"a": [2**63 + n for n in range(300)]},
        ),
        (
            {"properties": {"a": {"uniqueItems": True}}},
            {"a": [[n] for n in range(2_000)]},
            {"a": [[-(2.0**60) - n] for n in range(300)]},
        ),
        (
            {"properties": {"a": {"items": {"enum": [[f"e{n}"] for n in range(1_000)]}}}},
            {"a": [["e7"]] * 100},
            {"a": [["e7"]] * 1_000},
        ),
        ({"properties": {"a": {"pattern": "^(x?){100}"}}}, {"a": "x" * 1_000}, {"a": "x" * 200_000}),
        ({"patternProperties": {"^(x?){1000}": {}}}, {"x": 1}, {"x" * 5_000: 1}),
        (
            {
                "properties": {"a": {"pattern": "^(x?){1000}"}},
                "patternProperties": {"^a": {"pattern": "^(x?){999}"}},
            },
            {"a": "x"},
            {"a": "x" * 1_000},
        ),
        ({"propertyNames": {"pattern": "^(x?){1000}"}}, {"x": 1}, {"x" * 5_000: 1}),
        (
            {
                "items": {},
                "properties": {"a": {"items": doubled(12, "allOf") | {"$defs": {}}}},
                "$defs": doubled(12, "allOf")["$defs"],
            },
            {"a": [{}] * 10},
            {"a": [{}] * 1_000},
        ),
    ],
)
@pytest.mark.parametrize("sized", [True, False])
def test_what_would_take_too_long_is_refused_before_it_begins(
    schema: object, light: object, heavy: object, sized: bool
) -> None:
    assert why_not(schema, light, sized=sized) is None
    assert why_not(schema, heavy, sized=sized) == COSTLY


def test_the_next_call_does_not_pay_for_one_that_cost_too_much() -> None:
    told = knowing(TREE)
    for _ in range(30):
        assert told.why_not(ALICE, calling({"filter": nested("of", 60, "x")})) == COSTLY
        assert told.why_not(ALICE, calling({"filter": nested("of", 3, "x")})) is None


def test_what_is_remembered_of_a_schema_is_bounded() -> None:
    """Each path through these definitions meets another set of them."""
    definitions = {
        f"n{n}": {
            "properties": {
                name: {"$ref": f"#/$defs/n{(n * by + 1) % 40}"}
                for name, by in (("a", 7), ("b", 11), ("c", 13))
            },
            "patternProperties": {"^q": {"$ref": f"#/$defs/n{n * 3 % 40}"}},
        }
        for n in range(40)
    }
    plan = read_plan({"$defs": definitions, "$ref": "#/$defs/n0"}, lambda pattern: 1_024)
    before = 0
    for path in itertools.product("abc", repeat=9):
        arguments: dict[str, object] = {}
        for name in path:
            arguments = {name: arguments}
        plan.cost(arguments)
        if plan.kept < before:
            break
        before = plan.kept
    assert 10 * MAX_WORK < before <= 11 * MAX_WORK
    assert plan.kept <= MAX_WORK


def test_linear_patterns_are_matched_whatever_they_look_like() -> None:
    """`^(a+)+$` takes minutes with a backtracking engine."""
    schema = {"properties": {"a": {"pattern": "^(a+)+$"}}}
    assert why_not(schema, {"a": "a" * 50_000}) is None
    assert problems(schema, {"a": "a" * 50_000 + "b"}) == '/a: must match "^(a+)+$" (pattern)'


def test_problems_of_large_arguments_are_not_looked_for() -> None:
    """Each error of the validator holds a copy of the value: 60,000 of them took half a second."""
    schema = {"properties": {"a": {"items": {"type": "string"}}}}
    assert why_not(schema, {"a": [1] * 20_000}) == TOO_LARGE_TO_SAY
    assert problems(schema, {"a": [1] * 20}).startswith("/a/0: must be string (type); ")


def test_without_the_extra_the_remedy_is_named() -> None:
    program = (
        "import sys; sys.modules['jsonschema_rs'] = None\n"
        "from proxy.policy.schemas import check_validate\n"
        "check_validate(False)\n"
        "try: check_validate(True)\n"
        "except ValueError as unfit: print(unfit)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.startswith("needs an extra that is not installed")
    assert "run pip install 'mcp-sidecar[validate]'" in done.stdout


def test_nobody_pays_for_a_validator_that_is_not_used() -> None:
    program = "import sys, proxy.policy.schemas\nprint('jsonschema_rs' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "False\n"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)
NAMES = st.sampled_from(["query", "limit", "order", "parts", "filter", "a", "secret"])
KNOWN = [knowing(schema) for schema in (SCHEMA, TREE, EVERYWHERE_UNIQUE, unevaluated(3), doubled(3, "oneOf"))]


@given(arguments=st.dictionaries(NAMES, VALUES, max_size=5))
@FUZZ
def test_any_arguments_are_answered(arguments: dict[str, object]) -> None:
    """Fits or why not, never an exception; and what was not allowed is never repeated."""
    for told in KNOWN:
        why = told.why_not(ALICE, calling(arguments))
        assert why is None or "secret" not in why


KEYWORDS = st.sampled_from(
    [
        "type",
        "properties",
        "items",
        "allOf",
        "anyOf",
        "$ref",
        "$defs",
        "pattern",
        "enum",
        "required",
        "not",
        "$schema",
        "if",
        "additionalProperties",
        "patternProperties",
        "dependentSchemas",
        "unevaluatedItems",
        "prefixItems",
        "$id",
    ]
)
SCHEMAS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(["#", "#/$defs/a", "object", "^a", "(", "", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYWORDS | st.just("a"), inner, max_size=4),
    max_leaves=20,
)


@given(schema=SCHEMAS, arguments=st.dictionaries(st.sampled_from(["a", "b"]), VALUES, max_size=2))
@FUZZ
def test_any_schema_is_answered(schema: object, arguments: dict[str, object]) -> None:
    """Whatever a server lists: an answer in words, or none."""
    why = why_not(schema, arguments)
    assert why is None or why.isprintable()
