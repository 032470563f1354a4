"""One value, one text: what a digest of JSON depends on, and what not."""

import itertools
import json
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.protocol.canonical import canonical, digest
from proxy.protocol.jsonrpc import read_json
from tests.fuzz.bounded import FUZZ

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'{"a":1,"b":2}', b'{ "b" : 2,\n"a" : 1 }'),
        (b'{"a":{"y":[],"x":{}}}', b'{"a":{"x":{},"y":[]}}'),
        (b'"\xc3\xa9/"', rb'"\u00E9\/"'),
        (b'"\xf0\x9f\x98\x80"', rb'"\ud83d\ude00"'),
        (b"100.0", b"1E2"),
        (b"0", b"-0"),
    ],
)
def test_spelling_does_not_count(one: bytes, other: bytes) -> None:
    """Own promise: whoever writes the same value otherwise has said the same."""
    assert canonical(read_json(one)) == canonical(read_json(other))


DIFFERENT = [
    *(b"1", b"1.0", b'"1"', b"true", b"[1]", b"null", b"0", b"0.0", b"-0.0", b"false", b'"null"'),
    *(b"[]", b"{}", b'""', b"[[]]", b"[null]", b'{"":null}', b'{"a":null}', b'"{}"', b"[1,2]", b"[2,1]"),
    *(b"[[1],2]", b"[[1,2]]", b"[12]", b'["1,2"]', b'["1","2"]', b'["1\\",\\"2"]'),
    *(b'"\xc3\xa9"', '"e\u0301"'.encode(), b'"\\u0000"', b'"\\\\u0000"', b'"A"', b'"a"'),
    *(b"9007199254740993", b"9007199254740992", b"9007199254740992.0", b"1" + b"0" * 30, b"1e30"),
]


def test_types_and_everything_else_count() -> None:
    """Issue 4: an approval of 1 is none of "1"; no two of these values have one text."""
    texts = {canonical(read_json(each)): each for each in DIFFERENT}
    assert len(texts) == len(DIFFERENT)


def test_half_an_emoji_is_no_emoji() -> None:
    """Lone surrogates come from servers that cut texts: they are bytes too, and not those of the whole."""
    texts = [canonical(each) for each in ("\ud83d", "\ude00", "\ud83d\ude00", "\U0001f600", "\\ud83d")]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1: 2, "1": 2}, object(), b"1"])
def test_what_is_no_json_value_is_not_guessed(value: object) -> None:
    """Style guide 7: deciding code that meets the unexpected refuses."""
    with pytest.raises((ValueError, TypeError)):
        canonical(value)


def test_the_digest_is_sha_256_of_the_text() -> None:
    """Files that hold digests can be checked by other tools."""
    assert digest({"b": 1, "a": "é"}) == sha256('{"a":"é","b":1}'.encode()).digest()


@FUZZ
@given(st.lists(VALUES, min_size=2, max_size=5))
def test_equal_texts_are_equal_values(values: list[object]) -> None:
    """Injective: the text can be read back, types included, so two values never share one."""
    for value in values:
        back = json.loads(canonical(value).decode("utf-8", "surrogatepass"))
        assert repr(_sorted(back)) == repr(_sorted(value))
    for one, other in itertools.combinations(values, 2):
        assert (canonical(one) == canonical(other)) == (repr(_sorted(one)) == repr(_sorted(other)))


def _sorted(value: object) -> object:
    """The value with its keys in order, so that `repr` tells all there is to tell."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(each) for each in value] if isinstance(value, list) else value
