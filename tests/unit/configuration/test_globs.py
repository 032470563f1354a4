"""Which names fit which patterns, and at what cost."""

import re
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.configuration.globs import MAX_KNOWN, Globs, fits, regex_of
from tests.fuzz.bounded import FUZZ


@pytest.mark.parametrize(
    ("glob", "name", "expected"),
    [
        ("search_*", "search_docs", True),
        ("search_*", "search_", True),
        ("search_*", "Search_docs", False),
        ("search_*", "xsearch_docs", False),
        ("*", "", True),
        ("*", "a\nb", True),
        ("a?c", "abc", True),
        ("a?c", "a\nc", True),
        ("a?c", "ac", False),
        ("a*b*c", "a-b-b-c", True),
        ("a*b*c", "a-c-b", False),
        ("a**c", "abc", True),
        ("[ab]", "a", False),
        ("[ab]", "[ab]", True),
        ("a.c", "abc", False),
        ("caf\u00e9", "cafe\u0301", False),
        ("file:///public/*", "file:///public/../secret", True),
        ("*aa", "aaa", True),
        ("*ab*ab", "abab", True),
        ("*ab*ab", "ab", False),
    ],
)
def test_what_fits(glob: str, name: str, expected: bool) -> None:
    """Issue 4, 1: code point by code point, case-sensitive, `*` and `?` only."""
    assert fits(glob, name) is expected


@given(glob=st.text("ab*?", max_size=8), name=st.text("ab", max_size=10))
@FUZZ
def test_it_is_the_matching_everybody_knows(glob: str, name: str) -> None:
    """Against the standard library's, where the alphabet has no brackets."""
    assert fits(glob, name) is fnmatchcase(name, glob)


def test_many_stars_and_a_long_name_cost_little() -> None:
    """A pattern that goes back would not end: this test would."""
    assert re.fullmatch(regex_of("*a*a*a*a*a*a*a*a*b"), "a" * 8_192, re.DOTALL) is None


def test_the_order_of_the_patterns_is_kept() -> None:
    """The first that fits decides, exact or not."""
    globs = Globs(["del_*", "get", "*", "get", "g?t"])
    assert globs.fitting("get") == (1, 2, 3, 4)
    assert globs.fitting("del_x") == (0, 2)
    assert globs.fitting("get") == (1, 2, 3, 4)


def test_names_that_callers_invent_are_bounded() -> None:
    """Style guide 8."""
    globs = Globs(["a*"])
    for number in range(MAX_KNOWN * 2 + 1):
        globs.fitting(f"n{number}")
    assert len(globs._known) <= MAX_KNOWN
    globs.fitting("x" * 1_000_000)
    assert max(map(len, globs._known)) <= 256
