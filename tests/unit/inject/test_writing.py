"""What is written is read as what was meant: by kubectl's YAML (1.1), by YAML 1.2, and in flow style as JSON."""

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from proxy.configuration.mistakes import Unfit
from proxy.configuration.scalars import plain_value
from proxy.inject.writing import Style, as_json, entry_lines, scalar
from tests.fuzz.bounded import FUZZ

WORDS = [
    *(
        "no",
        "On",
        "y",
        "NULL",
        "true",
        "~",
        "",
        "1e3",
        "0x1f",
        "012",
        "1:30",
        "8080",
        "100m",
        "96Mi",
        ".5",
        "2024-01-01",
    ),
    *(
        "-",
        "a: b",
        "a #b",
        "--set",
        "run",
        "a=b",
        "x:",
        "=",
        "<<",
        "*a",
        "&a",
        "!a",
        "@a",
        "[a",
        "{a",
        "|",
        "?",
    ),
    *("'", '"', "'\"", "\t", "a\nb", "\u00a0", "\u2028", "🙂"),
]

texts = st.one_of(st.sampled_from(WORDS), st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=8))
scalars = st.one_of(texts, st.booleans(), st.integers(-9, 99999))
values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda it: st.one_of(
        st.dictionaries(texts, it, max_size=3), st.lists(scalars | st.dictionaries(texts, it), max_size=3)
    ),
    max_leaves=6,
)


@pytest.mark.parametrize("text", WORDS)
def test_a_text_stays_a_text(text: str) -> None:
    """A ConfigMap that is called `no` is no boolean."""
    written = scalar(text)
    assert yaml.load(f"key: {written}", Loader=yaml.CSafeLoader) == {"key": text}
    if written == text:
        try:
            assert plain_value(text) == text
        except Unfit:
            pytest.fail(f"readers disagree about {text!r}")


@given(values, st.sampled_from([Style(2, 2), Style(2, 0), Style(4, 4), Style(3, 0)]))
@FUZZ
def test_any_value_is_read_as_it_was_meant(value: Any, style: Style) -> None:
    block = "\n".join(entry_lines("key", value, style))
    assert yaml.load(block, Loader=yaml.CSafeLoader) == {"key": value}
    for indent, is_dense in ((None, False), (None, True), (4, False)):
        flow = as_json(value, indent=indent, is_dense=is_dense)
        assert json.loads(flow) == value
        assert yaml.load(f'{{"key": {flow}}}', Loader=yaml.CSafeLoader) == {"key": value}
