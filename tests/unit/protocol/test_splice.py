"""Members and elements are found byte for byte, wherever they stand and however they are spelt."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.protocol.splice import elements, member, members, spliced


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


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"{}", {}),
        (b" { } ", {}),
        (
            b' {\n "a" : [1 , {"a": "]}"}] ,"\\u0062":"\\"x" , "c":-1.0e1 } ',
            {"a": b'[1 , {"a": "]}"}]', "b": b'"\\"x"', "c": b"-1.0e1"},
        ),
        (
            b'{"\xc3\xa9":"\xc3\xa9","x":"\\ud800","y":"\\\\ud800 \\n\\u00e9"}',
            {"é": b'"\xc3\xa9"', "x": b'"\\ud800"', "y": b'"\\\\ud800 \\n\\u00e9"'},
        ),
    ],
)
def test_all_members_are_found(text: bytes, found: dict[str, bytes]) -> None:
    """design section 2: what is not changed stays byte for byte; texts cut inside an emoji are odd, but JSON."""
    assert {name: text[place] for name, place in members(text).items()} == found


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b'{"a":1',
        b'{"a":1}}',
        b'{"a":1} {}',
        b'{"a":1,"a":2}',
        b'{"a":1,"b":3,"a":2}',
        b'{"a":1,"a":1}',
        b'{"a":1,"b":2,"a":1}',
        # Whoever steps over the last `a` where the first one stands arrives at something that looks right.
        b'{"a":1,"b":22,"a":{      "q":1}}',
        b'{"a":1,"\\u0061":2}',
        b'{"a":01}',
        b'{"a":"\n"}',
        b'{"a":"\\ud80"}',
        b'{"\xff":1}',
        b'{"a":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    ],
)
def test_what_is_no_object_has_no_members(text: bytes) -> None:
    """Where one of two equal keys stands is a question with two answers."""
    with pytest.raises(ValueError, match="this is no"):
        members(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"[]", []),
        (b" [ ]\n", []),
        (b'[ 1 ,\t{"a": [","]} ,"]" ,[ ] ] ', [b"1", b'{"a": [","]}', b'"]"', b"[ ]"]),
        (b'["\\udc00","\\ud83d\\ude00"]', [b'"\\udc00"', b'"\\ud83d\\ude00"']),
    ],
)
def test_all_elements_are_found(text: bytes, found: list[bytes]) -> None:
    assert [text[place] for place in elements(text, 4)] == found


@pytest.mark.parametrize("text", [b"", b"{}", b"[1", b"[1]]", b"[1,]", b"[1 2]", b"[1,2,3,4,5]"])
def test_what_is_no_array_has_no_elements(text: bytes) -> None:
    """Nor does one with more of them than somebody wants to look at."""
    with pytest.raises(ValueError, match=r"this is no|too many"):
        elements(text, 4)


@given(value=st.dictionaries(st.text() | st.sampled_from(["a", "b"]), JSON), ascii_only=st.booleans())
@pytest.mark.parametrize("indent", [None, 1])
def test_they_are_what_a_reader_sees(value: dict[str, object], ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    assert [json.loads(text[place]) for place in members(text).values()] == list(value.values())
    text = json.dumps(list(value.values()), indent=indent).encode()
    assert [json.loads(text[place]) for place in elements(text, 1_000)] == list(value.values())


def test_places_get_other_bytes() -> None:
    assert spliced(b"abcdef", [(slice(1, 2), b"XX"), (slice(2, 2), b"Y"), (slice(5, 6), b"")]) == b"aXXYcde"
    text = b"abc"
    assert spliced(text, []) is text
