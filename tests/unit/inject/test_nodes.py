"""Where does each node of a text begin and end? The text between both is the node itself, and nothing else."""

from collections.abc import Iterator

import pytest

from proxy.inject.nodes import Alias, Document, Items, Node, Scalar, Table, read

TEXT = """\
# a comment
plain: some words   # behind it
quoted: 'it''s'
double: "🙂 \\u00e4"
wide: 🙂🙂
empty:
tilde: ~
folded: >-
  one
  two

# between
kept: |+
  three

clipped: |
  four

list:
- x
-   y
flow: {a: [1, 2], b: }   # c
anchored: &it
  deep: value
alias: *it
last: end
"""


def spans(node: Node, text: str, path: str = "") -> Iterator[tuple[str, str]]:
    yield path, text[node.place.start : node.place.end]
    if isinstance(node, Table):
        for key, value in node.entries:
            assert isinstance(key, Scalar)
            yield from spans(value, text, f"{path}.{key.text}")
    elif isinstance(node, Items):
        for index, value in enumerate(node.items):
            yield from spans(value, text, f"{path}[{index}]")


def one(text: str) -> Document:
    (document,) = read(text, "file")
    return document


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_every_node_is_the_text_between_its_ends(line_end: str) -> None:
    """Positions are in characters: also behind characters of four bytes, and with line ends of two."""
    text = TEXT.replace("\n", line_end)
    found = dict(spans(one(text).root, text))
    whole = found.pop("")
    assert whole == text[text.index("plain") : text.index("end") + 3]
    expected = {
        ".plain": "some words",
        ".quoted": "'it''s'",
        ".double": '"🙂 \\u00e4"',
        ".wide": "🙂🙂",
        ".empty": "",
        ".tilde": "~",
        ".folded": ">-\n  one\n  two",
        ".kept": "|+\n  three\n",
        ".clipped": "|\n  four",
        ".list": "- x\n-   y",
        ".list[0]": "x",
        ".list[1]": "y",
        ".flow": "{a: [1, 2], b: }",
        ".flow.a": "[1, 2]",
        ".flow.a[0]": "1",
        ".flow.a[1]": "2",
        ".flow.b": "",
        ".anchored": "&it\n  deep: value",
        ".anchored.deep": "value",
        ".alias": "*it",
        ".last": "end",
    }
    assert found == {path: span.replace("\n", line_end) for path, span in expected.items()}


def test_an_alias_knows_what_it_stands_for_and_that_is_marked_as_shared() -> None:
    document = one(TEXT)
    assert isinstance(document.root, Table)
    values = {key.text: value for key, value in document.root.entries if isinstance(key, Scalar)}
    alias = values["alias"]
    assert isinstance(alias, Alias)
    assert alias.node == values["anchored"]
    assert document.shared == {values["anchored"].place.start}


def test_names_of_one_document_are_not_those_of_the_next() -> None:
    """YAML 1.2.2 section 3.2.2.2: an alias refers to its own document."""
    first, second = read("a: &x 1\n---\na: &x 2\nb: *x\n", "file")
    assert (len(first.shared), len(second.shared)) == (0, 1)


def test_an_alias_inside_of_what_it_stands_for_ends() -> None:
    """A text of four characters that a careless walk would follow for ever."""
    assert isinstance(one("&a [*a]").root, Items)


def test_a_bomb_of_aliases_costs_what_it_weighs() -> None:
    """Nothing is written out: nine lines that stand for a billion are nine lines."""
    lines = ["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10))]
    assert isinstance(one("\n".join(lines)).root, Table)
