"""One member of an object is found byte for byte, wherever it stands and however it is spelt."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.protocol.splice import member


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b'{"a":1}', b"1"),
        (b' { "a" : [1, {"a": 2}] , "b":3 } ', b' [1, {"a": 2}] '),
        (b'{"b":{"a":1},"a":2}', b"2"),
        (b'{"b":"a","c":"\\"a\\":","a":"x,}"}', b'"x,}"'),
        (b'{"b":["a",1],"\\u0061":[]}', b"[]"),
        (b'{"a":{}}', b"{}"),
        (b'{"a":"","b":1}', b'""'),
        (b"{}", None),
        (b'{"b":{"a":1}}', None),
        (b'{"b":"a"}', None),
        (b'[{"a":1}]', None),
        (b'"a"', None),
    ],
)
def test_a_member_is_found(text: bytes, found: bytes | None) -> None:
    """design section 2: what is not cut out stays byte for byte."""
    where = member(text, "a")
    assert (None if where is None else text[where]) == found


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda below: st.lists(below) | st.dictionaries(st.text() | st.sampled_from(["a", "b"]), below),
    max_leaves=10,
)


@given(value=st.dictionaries(st.text() | st.sampled_from(["a", "b"]), JSON), ascii_only=st.booleans())
def test_it_is_the_member_a_reader_sees(value: dict[str, object], ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    for name in (*value, "a"):
        where = member(text, name)
        assert (where is not None) == (name in value)
        if where is not None:
            assert json.loads(text[where]) == value[name]
