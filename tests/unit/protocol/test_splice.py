"""Members and elements are found byte for byte, wherever they stand and however they are spelt."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.protocol.splice import elements, member, members, spliced, with_meta


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


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"id":1}', b'{"params":{"_meta":{"t":"new"}},"id":1}'),
        (b" { } ", b' {"params":{"_meta":{"t":"new"}} } '),
        (b'{"params": { }}', b'{"params": {"_meta":{"t":"new"} }}'),
        (b'{"params":{"a":1}}', b'{"params":{"_meta":{"t":"new"},"a":1}}'),
        (b'{"params":{"_meta":{}}}', b'{"params":{"_meta":{"t":"new"}}}'),
        (b'{"params":{"_meta":{ "a":[1.0e1]}}}', b'{"params":{"_meta":{"t":"new", "a":[1.0e1]}}}'),
        (b'{"params":{"_meta":{"a":1 ,"t" : {"x":1} }}}', b'{"params":{"_meta":{"a":1 ,"t" : "new" }}}'),
        (b'{"params":{"_meta":{"\\u0074":0}}}', b'{"params":{"_meta":{"\\u0074":"new"}}}'),
    ],
)
def test_a_member_of_meta_is_put_in_or_replaced(body: bytes, expected: bytes) -> None:
    """Issue 8: by splicing bytes, never by writing the text anew."""
    assert with_meta(body, {"t": "new"}) == expected


@pytest.mark.parametrize(
    "body", [b"[]", b"1", b'{"params":[]}', b'{"params":{"_meta":[]}}', b'{"params":null}']
)
def test_what_has_no_place_for_meta_is_left_to_the_caller(body: bytes) -> None:
    """Own promise: whoever splices decides what becomes of a text without a place."""
    with pytest.raises(ValueError, match="object"):
        with_meta(body, {"t": "new"})


BLANKS = st.text(alphabet=" \t\r\n", max_size=3)
TEXTS = st.builds(lambda value, plain: json.dumps(value, ensure_ascii=not plain), JSON, st.booleans())


@st.composite
def objects(draw: st.DrawFn, /, **inside: str | None) -> str:
    """The text of an object, oddly spaced, with these members among others; a value of None is no member."""
    names = draw(st.lists(st.text(max_size=3).map("x".__add__), unique=True, max_size=3))
    pairs = [(json.dumps(name), draw(TEXTS)) for name in names]
    pairs += [(json.dumps(name), text) for name, text in inside.items() if text is not None]
    texts = [
        f"{draw(BLANKS)}{name}{draw(BLANKS)}:{draw(BLANKS)}{text}{draw(BLANKS)}"
        for name, text in draw(st.permutations(pairs))
    ]
    return "{%s}" % (",".join(texts) or draw(BLANKS))


HOLE = "\N{REPLACEMENT CHARACTER}hole"


@given(st.data())
def test_every_other_byte_stays(data: st.DataObject) -> None:
    """Issue 8: the rest of the body stays byte-identical, whatever is replaced or put in."""
    values = {"traceparent": "00-1-2-01", "tracestate": 'a="1'}
    there = data.draw(st.sets(st.sampled_from(sorted(values))))
    # A text with holes where the values stand: filled with the old ones it goes in, with the new ones it comes out.
    holes = {name: f'"{HOLE}{name}"' if name in there else None for name in values}
    meta = data.draw(objects(**holes)) if there else data.draw(st.none() | objects())
    params = data.draw(objects(_meta=meta)) if meta is not None else data.draw(st.none() | objects())
    text = data.draw(objects(params=params))
    old = new = text
    for name in there:
        old = old.replace(f'"{HOLE}{name}"', data.draw(TEXTS))
        new = new.replace(f'"{HOLE}{name}"', json.dumps(values[name]))
    spliced_in = with_meta(old.encode("utf-8", "surrogatepass"), values)

    expected = new.encode("utf-8", "surrogatepass")
    put_in = len(spliced_in) - len(expected)
    if there == set(values):
        assert spliced_in == expected
        return
    # One piece was put in, and without it everything is as it was.
    at = next(
        at for at in range(len(expected) + 1) if spliced_in[:at] + spliced_in[at + put_in :] == expected
    )
    assert put_in > 0
    assert at < len(expected)
    seen = json.loads(spliced_in.decode("utf-8", "surrogatepass"))
    assert values.items() <= seen["params"]["_meta"].items()
