"""Which spellings are one name."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.configuration.folding import fold
from tests.fuzz.bounded import FUZZ


@pytest.mark.parametrize(
    ("name", "folded"),
    [
        ("acme", "acme"),
        ("ACME", "acme"),
        (" Acme\t", "acme"),
        ("ａｃｍｅ", "acme"),
        ("\u3000acme\u00a0", "acme"),
        ("Straße", "strasse"),
        ("STRASSE", "strasse"),
        ("cafe\u0301", "caf\u00e9"),
        ("CAF\u00c9", "caf\u00e9"),
        ("\u212b", "\u00e5"),
        ("", ""),
        ("   ", ""),
        ("a b", "a b"),
        # Folding the first gives what composes again.
        ("\u03aa\u0301", "\u0390"),
    ],
)
def test_variants_are_one_name(name: str, folded: str) -> None:
    """Corpus LIM-017: "a", "A", "a " and full-width share a bucket."""
    assert fold(name) == folded


@pytest.mark.parametrize(
    ("one", "other"), [("acme", "acme2"), ("a b", "ab"), ("e", "\u00e9"), ("a.b", "a-b")]
)
def test_other_names_stay_others(one: str, other: str) -> None:
    """Promise 3: nobody meets another's bucket."""
    assert fold(one) != fold(other)


@given(name=st.text(max_size=12))
@FUZZ
def test_a_folded_name_stays_as_it_is(name: str) -> None:
    """Whatever was folded once, by settings or by a call, is the same key; so is its capital form."""
    assert fold(fold(name)) == fold(name)
    assert fold(f" {name} ") == fold(name)


@given(name=st.text(st.characters(max_codepoint=127), max_size=12))
@FUZZ
def test_the_short_way_for_ascii_is_the_long_one(name: str) -> None:
    assert fold(name) == unicodedata.normalize("NFKC", name).casefold().strip()
