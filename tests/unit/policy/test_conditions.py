"""Conditions: only what is true of a call lets it in, and no expression can cost more than its bounds."""

import subprocess
import sys
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from proxy.configuration.mistakes import Unfit
from proxy.model import Call, Principal
from proxy.policy.conditions import Condition, Failure, check_condition
from tests.fakes import make_call
from tests.fuzz.bounded import FUZZ

ALICE = Principal(
    issuer="https://idp.test/",
    subject="alice",
    tenant="acme",
    roles=frozenset({"editor"}),
    scopes=frozenset({"tools.read"}),
)


def call_of(arguments: Mapping[str, object]) -> Call:
    return make_call(target="export_all", params={"name": "export_all", "arguments": arguments})


def ask(text: str, **arguments: object) -> bool | Failure:
    """What the condition says; where it cannot say, the failure that was counted."""
    failures: list[Failure] = []
    answer = Condition(text, failures.append).holds(call_of(arguments), ALICE)
    assert not (answer and failures)
    return failures[0] if failures else answer


@pytest.mark.parametrize(
    ("text", "arguments", "answer"),
    [
        ("size(args.query) < 500", {"query": "a" * 499}, True),
        ("size(args.query) < 500", {"query": "a" * 500}, False),
        ("tool == 'export_all' && method == 'tools/call'", {}, True),
        ("principal.subject == 'alice' && principal.tenant == 'acme'", {}, True),
        ("principal.issuer == 'https://idp.test/'", {}, True),
        ("'editor' in principal.roles && 'tools.read' in principal.scopes", {}, True),
        ("'admin' in principal.roles", {}, False),
        ("has(args.force) && args.force == true", {}, False),
        ("args.limit <= 10", {"limit": 10.0}, True),
        ("args.force == true", {"force": 1}, False),
        ("args.paths.all(path, path.startsWith('/public/'))", {"paths": ["/public/a", "/public/b"]}, True),
        ("args.paths.all(path, path.startsWith('/public/'))", {"paths": ["/public/a", "/etc"]}, False),
        ("args.a.all(x, x.matches('^[a-z]+$')) && args.b.matches('^a{1,9}$')", {"a": ["b"], "b": "aa"}, True),
        ("args.name.matches('^(a+)+$')", {"name": "a" * 100_000 + "b"}, False),
    ],
)
def test_an_expression_is_asked(text: str, arguments: dict[str, object], answer: bool) -> None:
    assert ask(text, **arguments) is answer


@pytest.mark.parametrize(
    ("text", "arguments", "failure"),
    [
        ("size(args.query) < 500", {}, "error"),
        ("size(args.query) < 500", {"query": 5}, "error"),
        ("!(args.query == 'a')", {}, "error"),
        ("args.a ? true : false", {"a": "true"}, "error"),
        ("args.n == 1", {"n": 2**80}, "error"),
        ("args.n > 0", {"n": -(2**63) - 1}, "error"),
        ("args.a == 'a'", {"a": "\ud800"}, "error"),
        ("int(args.a) > 0", {"a": "one"}, "error"),
        ("args.a / args.b == 1", {"a": 1, "b": 0}, "error"),
        ("args.a.matches('[')", {"a": "a"}, "error"),
        ("dyn(args.a) == true || args.missing == 1", {"a": False}, "error"),
    ],
)
def test_an_expression_that_fails_lets_nobody_in(
    text: str, arguments: dict[str, object], failure: Failure
) -> None:
    """The library's errors are truthy texts; negated or not, they are a no, and are counted."""
    assert ask(text, **arguments) == failure


@pytest.mark.parametrize(
    "arguments", [{"role": "admin\0x"}, {"role": "admin", "a": [{"b\0": 1}]}, {"role": "admin", "a\0": 1}]
)
def test_texts_are_not_cut_at_nul(arguments: dict[str, object]) -> None:
    """cel-expr-python 0.1.3 reads texts up to the first NUL: the server would see another value."""
    assert ask("args.role == 'admin'", role="admin") is True
    assert ask("args.role == 'admin'", **arguments) == "nul"


def test_names_are_not_cut_at_nul_either() -> None:
    mallory = structs.replace(ALICE, subject="alice\0mallory")
    assert not Condition("principal.subject == 'alice'").holds(call_of({}), mallory)


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("args.a == args.b", {"a": [0] * 20_000, "b": []}),
        ("args.a.exists(x, x == 1)", {"a": [0] * 1_001}),
        ("args.a.exists(x, x == '')", {"a": ["a" * 70_000]}),
        ("args.a.exists(x, args.b.exists(y, x == y))", {"a": [0] * 60, "b": [0] * 60}),
    ],
)
def test_arguments_beyond_what_an_expression_may_cost_are_refused(
    text: str, arguments: dict[str, object]
) -> None:
    assert ask(text, **arguments) == "too_large"
    assert ask(text, **{name: ["1"] for name in arguments}) in (True, False)


def test_a_long_text_that_is_only_measured_is_no_cost() -> None:
    assert ask("args.path == 'a'", path="a", content="x" * 1_000_000) is True


@pytest.mark.parametrize(
    ("text", "what", "why"),
    [
        ("args.", "is no CEL expression", "line 1, column 6 of it: syntax error"),
        (
            "principal.tennant == 'a'",
            "is no CEL expression",
            "line 1, column 10 of it: undeclared reference to 'principal.tennant'",
        ),
        (
            "true ||\n now() > 1",
            "is no CEL expression",
            "line 2, column 5 of it: undeclared reference to 'now'",
        ),
        (
            "tool == 1",
            "is no CEL expression",
            "line 1, column 6 of it: found no matching overload for '_==_' applied to '(string, int)'",
        ),
        ("args.x", "is no condition", "its result is not known to be true or false, and only true allows"),
        (
            "size(tool)",
            "is no condition",
            "its result is not known to be true or false, and only true allows",
        ),
        ("true\0", "is no condition", "it is too long (2000 characters) or holds NUL"),
        ("(" * 200 + "true" + ")" * 200, "is no CEL expression", "it is too long or too deeply nested"),
        (
            " && ".join(["args.a == 1"] * 17),
            "costs too much",
            "args stands in it 17 times, and every time costs",
        ),
        (
            "args.a.all(x, args.a.all(y, args.a.all(z, x == y && y == z)))",
            "costs too much",
            "all, exists, map and filter go through the arguments again and again",
        ),
        (
            "[1].all(x, {'a': [1].filter(y, [x].map(z, z) == [y])} == {})",
            "costs too much",
            "all, exists, map and filter go through the arguments again and again",
        ),
        (
            "args.a.matches(args.b)",
            "costs too much",
            "a regular expression is built anew every time it is used",
        ),
        (
            "args.a.all(x, matches(x, '^[a-z]{1,100}$'))",
            "costs too much",
            "a regular expression is built anew every time it is used",
        ),
        (
            " && ".join(["args.a.all(x, x == 1)"] * 5),
            "costs too much",
            "all, exists, map and filter go through the arguments again and again",
        ),
    ],
)
def test_mistakes_are_found_when_the_settings_are_read(text: str, what: str, why: str) -> None:
    with pytest.raises(Unfit) as mistake:
        check_condition(text)
    assert (mistake.value.what, mistake.value.why) == (what, why)


@pytest.mark.parametrize(
    "text", ["'hunter2", "'hunter2' + 1 == 'x'", "hunter2 hunter2", "tool == 'hunter2' +"]
)
def test_mistakes_do_not_repeat_the_expression(text: str) -> None:
    """No message holds a value from the settings: a secret in the wrong line must not reach a log."""
    with pytest.raises(Unfit) as mistake:
        check_condition(text)
    assert "hunter2" not in str(mistake.value)


def test_loops_side_by_side_may_look_at_more_than_nested_ones() -> None:
    """Nesting is read from the checked form: a range is outside of its loop."""
    chained = "args.a.map(x, x).filter(y, y == 1).exists(z, z == 1)"
    assert ask(chained, a=[1] * 900) is True
    assert ask("args.a.exists(x, [x].exists(y, y == 1))", a=[1] * 99) is True
    assert ask("args.a.exists(x, [x].exists(y, y == 1))", a=[1] * 101) == "too_large"


def test_without_the_extra_the_remedy_is_named() -> None:
    """The product works without it; what needs it says how to get it."""
    program = (
        "import sys; sys.modules['cel_expr_python'] = None\n"
        "from proxy.policy.conditions import check_condition\n"
        "try: check_condition('true')\n"
        "except ValueError as unfit: print(unfit)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.startswith("needs an extra that is not installed")
    assert "run pip install 'mcp-sidecar[cel]'" in done.stdout


def test_nobody_pays_for_conditions_that_are_not_used() -> None:
    program = "import sys, proxy.policy.conditions\nprint('cel_expr_python' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "False\n"


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)
CONDITIONS = [
    Condition(text)
    for text in (
        "args.a == args.b",
        "size(args.a) > 1",
        "args.a.exists(x, x == args.b)",
        "args.a.matches('^a')",
        "args.a < args.b || !(args.b in args.a)",
    )
]


@given(arguments=st.dictionaries(st.sampled_from(["a", "b", "c"]), ANYTHING))
@FUZZ
def test_any_arguments_are_answered(arguments: dict[str, object]) -> None:
    """Never an exception, and never anything but a boolean."""
    for condition in CONDITIONS:
        assert condition.holds(call_of(arguments), ALICE) in (True, False)
