"""Fields of a request and their lines are the same, however they were put together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.upstream.fields import Field, Fields

names = st.sampled_from([b"A", b"a", b"B", b"Traceparent", b"traceparent"])
pairs = st.lists(st.tuples(names, st.binary(max_size=5).filter(lambda it: not set(it) & set(b"\r\n\0"))))


def written(some: list[Field]) -> bytes:
    return b"".join(name + b": " + value + b"\r\n" for name, value in some)


@given(pairs, pairs, st.lists(st.sampled_from([b"a", b"b", b"traceparent", b"c"]), max_size=2))
def test_what_is_sent_is_what_was_said(one: list[Field], two: list[Field], taken: list[bytes]) -> None:
    """RFC 9112 section 5; the second time it is remembered."""
    fields = Fields(one)
    for _ in range(2):
        some = fields.without(tuple(taken)) + Fields(two)
        expected = [*(pair for pair in one if pair[0].lower() not in taken), *two]
        assert (list(some), some.lines, len(some)) == (expected, written(expected), len(expected))
    assert (list(fields.without(())), fields.lines) == (one, written(one))


@pytest.mark.parametrize("bad", [b"\r", b"\n", b"\0", b"\r\n", b"\r\nX: 1"])
def test_a_field_cannot_begin_another_line(bad: bytes) -> None:
    """RFC 9110 section 5.5."""
    for pair in [(b"A" + bad, b"1"), (b"A", bad + b"1")]:
        with pytest.raises(ValueError, match="end of a line"):
            Fields([(b"Host", b"a"), pair])
