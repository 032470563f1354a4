"""One bucket a holder, whatever the spelling; and never one for two."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.configuration.folding import fold
from proxy.limits.keys import key_of
from tests.fuzz.bounded import FUZZ

NAMES = st.text(max_size=8) | st.sampled_from(
    ["", "/", "%", "#", "%2F", "a/b", "\ud800", "ﬁ", "İ", "ẞ", "\x00"]
)


@pytest.mark.parametrize(
    "variant", ["a", "A", "a ", "\ta\n", "\N{FULLWIDTH LATIN SMALL LETTER A}", "\xa0a\u2003"]
)
def test_spellings_of_one_name_share_a_bucket(variant: str) -> None:
    """LIM-017: no fresh quota for a variant of the same tenant."""
    assert fold(variant) == "a"


@given(name=NAMES)
@FUZZ
def test_folding_again_changes_nothing(name: str) -> None:
    assert fold(fold(name)) == fold(name)


@pytest.mark.parametrize(
    ("one", "other"), [("ẞ", "SS"), ("ﬁ", "FI"), ("Å", "å"), ("\u0130", "i\u0307"), ("ǅ", "ǆ")]
)
def test_letters_that_have_several_forms_are_one(one: str, other: str) -> None:
    assert fold(one) == fold(other)


@given(one=st.tuples(NAMES, NAMES), other=st.tuples(NAMES, NAMES))
@FUZZ
def test_different_holders_have_different_keys(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (key_of("l", one) == key_of("l", other)) == (one == other)


@given(parts=st.lists(st.text(max_size=300), max_size=7))
@FUZZ
def test_keys_are_printable_and_bounded(parts: list[str]) -> None:
    key = key_of("limit", parts)
    assert key.isascii()
    assert key.isprintable()
    assert " " not in key
    assert len(key) <= 126


def test_keys_can_be_read() -> None:
    assert key_of("user-tool", ("acme", "ann@example.com", "https://x y/ä")) == (
        "user-tool/acme/ann@example.com/https:%2F%2Fx%20y%2F%C3%A4"
    )


def test_what_is_long_is_hashed_as_a_whole() -> None:
    parts = "a" * 200, "b"
    digest = hashlib.sha256(b"a" * 200 + b"/b").hexdigest()
    assert key_of("l", parts) == f"l/#{digest}"
    assert key_of("l", ("a" * 200, "c")) != key_of("l", parts)
