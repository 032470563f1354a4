"""Arrays taken apart and put together without touching what they hold."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.protocol.batch import join_array, split_array
from tests.unit.protocol.patience import peak_bytes

tricky = st.text(alphabet=',[]{}"\\: \n\u00e9\u2028', max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | tricky,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(tricky, inner, max_size=3),
    max_leaves=8,
)


@given(items=st.lists(values, max_size=6), indent=st.sampled_from([None, 1]), ascii_only=st.booleans())
@settings(max_examples=200, deadline=None)
def test_the_elements_are_those_json_reads(items: list[object], indent: int | None, ascii_only: bool) -> None:
    """RFC 8259 section 5, read by another reader."""
    texts = [json.dumps(item, indent=indent, ensure_ascii=ascii_only).encode() for item in items]
    body = b" \n[\t" + b" ,\r\n".join(texts) + b" ]\n"
    assert split_array(body) == texts
    assert json.loads(join_array(split_array(body))) == items


@pytest.mark.parametrize(
    ("body", "elements"),
    [
        (b"[]", []),
        (b" [ \n ] ", []),
        (b'[""]', [b'""']),
        (b"[[]]", [b"[]"]),
        (b"[ 1.0 , 1e3,-0 ]", [b"1.0", b"1e3", b"-0"]),
        (b'["\\\\","\\",[{"]', [b'"\\\\"', b'"\\",[{"']),
    ],
)
def test_elements_keep_their_bytes(body: bytes, elements: list[bytes]) -> None:
    """protocol.md 3.6: parse and serialise changes numbers, so nothing is serialised."""
    assert split_array(body) == elements
    assert split_array(join_array(elements)) == elements


def test_one_long_text_is_passed_over_without_memory_of_its_own() -> None:
    """design section 8: a sidecar of 64 MB; a batch of 4 MiB with one long argument took 500, and 1.4 s."""
    body = b'["' + b"x" * 500_000 + b'"]'
    assert peak_bytes(lambda: split_array(body)) < 8 * len(body)
