"""YAML text → nodes with positions; hostile files end in a mistake at an exact line and column."""

import json

import pytest

from proxy.configuration.mistakes import Report
from proxy.configuration.tree import MOST_EVENTS, MOST_LEVELS, Items, Node, Scalar, Table, read_tree


def read(data: str | bytes) -> tuple[object, list[str]]:
    """The tree as plain values, and each mistake as `line:column: path: what`."""
    report = Report()
    node = read_tree(data if isinstance(data, bytes) else data.encode(), "F", report)
    found = [f"{one.line}:{one.column}: {one.path}: {one.what}" for one in report.mistakes]
    return (None if node is None else plain(node)), found


def plain(node: Node) -> object:
    if isinstance(node, Scalar):
        return node.value
    if isinstance(node, Items):
        return [plain(item) for item in node.items]
    if isinstance(node, Table):
        return {key: plain(entry.node) for key, entry in node.entries.items()}
    return "BROKEN"


BILLION_LAUGHS = """\
a: &a ["x","x"]
b: &b [*a,*a]
c: [*b]
"""


@pytest.mark.parametrize(
    ("data", "mistakes"),
    [
        # CFG-001: the line where reading stopped, inside the section that was left open.
        (
            'upstream: {url: "u"\n  tools: [ ',
            ["2:3: upstream: is broken YAML (did not find expected ',' or '}')"],
        ),
        # CFG-002: every anchor and every alias; nothing is multiplied.
        (
            BILLION_LAUGHS,
            [
                "1:4: a: has the anchor &a",
                "2:4: b: has the anchor &b",
                "2:8: b[0]: is an alias",
                "2:11: b[1]: is an alias",
                "3:5: c[0]: is an alias",
            ],
        ),
        # CFG-006 and CFG-007: words that YAML 1.1 reads differently, as keys and as values.
        ("tenants: {no: {rate: 1}}", ["1:11: tenants.no: can be read two ways"]),
        (
            "limits: {rate: 1:30, port: 010}",
            ["1:16: limits.rate: can be read two ways", "1:28: limits.port: can be read two ways"],
        ),
        ("a: 1\nb: 2\na: 3\n", ["3:1: a: is there twice"]),
        ('{"a": 1, "b": 2, "a": 3}', ["1:18: a: is there twice"]),
        ('x:\n  a: 1\n  "a": 2\n', ["3:3: x.a: is there twice"]),
        (
            "a: &x\n  <<: *y\n",
            ["1:4: a: has the anchor &x", '2:3: a."<<": is a merge key', "2:7: a: is an alias"],
        ),
        ("*x : 1\n", ["1:1: : is an alias"]),
        ("&k a: 1\n", ["1:1: : has the anchor &k"]),
        ("a: !!str 012\n", ["1:4: a: has the tag tag:yaml.org,2002:str"]),
        ("a: ! x\n", ["1:4: a: has the tag !"]),
        (
            "a: !!python/object/apply:os.system [x]\n",
            ["1:4: a: has the tag tag:yaml.org,2002:python/object/apply:os.system"],
        ),
        ("!!map {a: 1}\n", ["1:1: : has the tag tag:yaml.org,2002:map"]),
        ("8080: x\n", ["1:1: 8080: is not a text"]),
        ("true: x\n", ["1:1: true: is not a text"]),
        ("~: x\n", ['1:1: "~": is not a text']),
        ("? [a, b]\n: x\n", ["1:3: : is not a text"]),
        ("{{a: 1}: x}\n", ["1:2: : is not a text"]),
        ("a: 1\n---\nb: 2\n", ["2:1: : is a second document"]),
        ("%YAML 1.1\n---\na: 1\n", ["1:1: : asks for YAML 1.1"]),
        ("a: 1\n b: 2\n", ["2:3: : is broken YAML (mapping values are not allowed in this context)"]),
        ("a:\n\t- 1\n", ["2:1: a: is broken YAML (found character that cannot start any token)"]),
        ("a: 'open\n", ["2:1: a: is broken YAML (found unexpected end of stream)"]),
        ("a: [1, 2\n", ["2:1: a[2]: is broken YAML (did not find expected ',' or ']')"]),
        ("a: %x\n", ["1:4: a: is broken YAML (found character that cannot start any token)"]),
        # Bytes that are no text.
        (b"\xef\xbb\xbfa: 1\n", ["1:1: : begins with a byte order mark"]),
        ("a: 1\n".encode("utf-16"), ["1:1: : begins with a byte order mark"]),
        (b"a: 1\nb: \xff\n", ["2:4: : is not UTF-8"]),
        (b"a: \xc3\xa9\xed\xa0\x80", ["1:5: : is not UTF-8"]),
        (b"a: \xc0\xae\n", ["1:4: : is not UTF-8"]),
        # Characters that hide a key from people or end a line for some readers only.
        ("a: 1\nb: x\x00y\n", ["2:5: : holds the character U+0000"]),
        ("a: x\x1b[2J\n", ["1:5: : holds the character U+001B"]),
        ("a: x\u2028b: 2\n", ["1:5: : holds the character U+2028"]),
        ("a: x\x85b: 2\n", ["1:5: : holds the character U+0085"]),
        ("a: 1\r\nb: \ufeff2\r\n", ["2:4: : holds the character U+FEFF"]),
        ("a: 1\rb: \x7f\n", ["2:4: : holds the character U+007F"]),
    ],
)
def test_hostile_text_is_a_mistake_at_its_place(data: str | bytes, mistakes: list[str]) -> None:
    """Own promise: file:line:column for everything that is refused (design section 3; corpus CFG)."""
    assert read(data)[1] == mistakes


@pytest.mark.parametrize(
    ("data", "line", "column"),
    [
        ("[" * 100_000, 1, MOST_LEVELS + 1),
        ("{a: " * 50_000, 1, MOST_LEVELS * 4 + 1),
        ("\n".join(" " * level + "a:" for level in range(100)), MOST_LEVELS + 1, MOST_LEVELS + 1),
    ],
)
def test_depth_is_bounded(data: str, line: int, column: int) -> None:
    """Deep nesting is refused where it begins to be too deep, before it costs anything."""
    tree, found = read(data)
    assert tree is None
    assert found[-1].startswith(f"{line}:{column}: ")
    assert found[-1].endswith(": is too deep")


def test_a_tree_of_the_greatest_depth_is_read() -> None:
    """The bound is exact: one level less than the refused one."""
    assert read("[" * MOST_LEVELS + "]" * MOST_LEVELS)[1] == []


def test_the_number_of_values_is_bounded() -> None:
    """A small file of many values would cost a hundred times its size in memory."""
    most = MOST_EVENTS - 6  # the stream, the document and the list begin and end
    assert read("[" + "a," * most + "]")[1] == []
    tree, found = read("[" + "a," * (most + 1) + "]")
    assert tree is None
    assert [one.rpartition(": ")[2] for one in found] == ["is too long"]


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ("a: 1\nb: [x, {c: 'no'}]\n", {"a": 1, "b": ["x", {"c": "no"}]}),
        ('{"a":1,"b":[true,null,"012"],\n\t"c":"\\u00e9\\/"}', {"a": 1, "b": [True, None, "012"], "c": "é/"}),
        (
            json.dumps({"a": {"b": [1, 2.5, "x\n", False, None]}}, indent=1),
            {"a": {"b": [1, 2.5, "x\n", False, None]}},
        ),
        ("a: |\n  two\n  lines\nb: >-\n  folded\n  text\n", {"a": "two\nlines\n", "b": "folded text"}),
        ("%YAML 1.2\n---\na: 1\n...\n", {"a": 1}),
        ("# nothing but a comment\n", None),
        ("", None),
        ("a:\n", {"a": None}),
        ("? a\n: 1\n", {"a": 1}),
        ("url: http://127.0.0.1:8000/mcp # why\n", {"url": "http://127.0.0.1:8000/mcp"}),
        ("{address: 127.0.0.1:8080}", {"address": "127.0.0.1:8080"}),
        ("a: ${X}\n", {"a": "${X}"}),
    ],
)
def test_yaml_and_json_are_read(data: str, value: object) -> None:
    """What people write is read without mistakes; JSON is a subset (design section 3)."""
    tree, found = read(data)
    assert found == []
    assert json.dumps(tree) == json.dumps(value)


def test_positions_count_characters_from_one() -> None:
    """A column is what an editor shows, so letters beyond ASCII count once."""
    report = Report()
    root = read_tree("é: {ü: 1, list: [a,\n  b]}\n".encode(), "F", report)
    assert isinstance(root, Table)
    inner = root.entries["é"]
    assert (inner.key_at.line, inner.key_at.column) == (1, 1)
    assert isinstance(inner.node, Table)
    assert (inner.node.entries["list"].key_at.line, inner.node.entries["list"].key_at.column) == (1, 11)
    items = inner.node.entries["list"].node
    assert isinstance(items, Items)
    assert [(item.at.line, item.at.column) for item in items.items] == [(1, 18), (2, 3)]
