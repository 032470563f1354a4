"""One parameter of a challenge is changed, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.upstream.challenge import params, with_param


def found(text: str) -> list[tuple[str, str]] | None:
    read = params(text)
    return None if read is None else [(each.name, each.value) for each in read]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Bearer", []),
        ("Bearer, Basic", []),
        ('Bearer realm="x"', [("realm", "x")]),
        ("Bearer realm=x", [("realm", "x")]),
        ('bearer Realm = "x" , scope="a b"', [("realm", "x"), ("scope", "a b")]),
        (r'Bearer realm="a\"b\\c"', [("realm", 'a"b\\c')]),
        ('Bearer realm="a, Basic realm=b"', [("realm", "a, Basic realm=b")]),
        ('Bearer realm="a", Basic realm="b"', [("realm", "a"), ("realm", "b")]),
        ('Negotiate dG9rZW4=, Bearer realm="b"', [("realm", "b")]),
        ('Negotiate, Bearer realm="b"', [("realm", "b")]),
        ("Basic abc==", []),
        (', ,Bearer realm="x",, ,scope="y",', [("realm", "x"), ("scope", "y")]),
        ('Bearer realm=""', [("realm", "")]),
        ('Bearer realm="\xe9"', [("realm", "\xe9")]),
        ("", []),
    ],
)
def test_a_list_of_challenges_is_read(text: str, said: list[tuple[str, str]]) -> None:
    """RFC 9110, 11.6.1 and appendix A."""
    assert found(text) == said


@pytest.mark.parametrize(
    "text",
    [
        'realm="x"',
        'Bearer realm="x" scope="y"',
        'Bearer realm="x',
        "Bearer resource_metadata=http://server/x",
        'Bearer realm="x"y',
        'Bearer realm="a\x00b"',
        "Bearer \xe9",
        'Bearer "x"',
        "Bearer realm==x",
        'Bearer\trealm="x"',
    ],
)
def test_anything_else_is_none(text: str) -> None:
    assert found(text) is None
    assert with_param(text.encode("latin-1"), "realm", lambda _: "other") == text.encode("latin-1")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'Bearer a="1",  u="old"\t, z=3', b'Bearer a="1",  u="new"\t, z=3'),
        (b'Bearer U = "old", u=old', b'Bearer U = "new", u="new"'),
        (b'Bearer x="u=\\"old\\""', b'Bearer x="u=\\"old\\""'),
        (b'DPoP u="old", Bearer u="old", x="\xff"', b'DPoP u="new", Bearer u="new", x="\xff"'),
        (b'Bearer u="other", v="old"', b'Bearer u="other", v="old"'),
        (b"Bearer u=other", b"Bearer u=other"),
    ],
)
def test_only_the_parameter_changes(before: bytes, after: bytes) -> None:
    """What a look-alike inside another value says is text."""
    assert with_param(before, "u", lambda value: "new" if value == "old" else value) == after


@given(st.text(st.characters(max_codepoint=255), max_size=60) | st.text('Bearer ="\\,ab', max_size=40))
def test_any_text_comes_back_when_nothing_is_changed(text: str) -> None:
    raw = text.encode("latin-1")
    assert with_param(raw, "a", lambda value: value) == raw


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30))
def test_any_text_in_quotes_is_read_back(text: str) -> None:
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    assert found(f'Bearer realm="{quoted}", x=y') == [("realm", text), ("x", "y")]
