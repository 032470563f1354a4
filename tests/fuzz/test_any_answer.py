"""Any bytes from the server become events or Malformed; no answer to another request is ever released."""

import json

from hypothesis import example, given
from hypothesis import strategies as st

from proxy.model import Headers
from proxy.protocol.answers import Malformed, Said, Tail, read_answers
from proxy.protocol.batch import split_array
from proxy.protocol.headers import end_to_end, media_type
from proxy.protocol.sse import Splitter, TooLong
from proxy.upstream.judge import Foreign, Judge
from tests.fakes import make_call
from tests.fuzz.bounded import FUZZ
from tests.fuzz.hostile import bodies, damaged, fields

answers = st.sampled_from(
    [
        *(b'{"jsonrpc":"2.0","id":1,"result":{}}', b'{"id":"1","result":{}}', b'{"id":2,"error":{"code":1}}'),
        *(b'{"id":1.0,"result":{}}', b'{"id":null,"error":{}}', b'[{"id":1,"result":1},{"id":3,"result":1}]'),
        *(b'{"id":5,"method":"ping"}', b'{"id":2,"id":1,"result":{}}', b'{"method":"m"}', b"ping", b""),
        *(
            b'{"id":1,"result":{"t":"\\ud800"}}',
            b' \t{"id":9,"result":{}}',
            b'{"id":1,"result":{},"error":null}',
        ),
    ]
)
spoken = answers | answers | damaged(answers) | bodies
line_ends = st.sampled_from([b"\n", b"\r\n", b"\r"])


@st.composite
def events(draw: st.DrawFn) -> bytes:
    end = draw(line_ends)
    before = draw(
        st.sampled_from(
            [b"", b"event: message", b": ping", b"id: 7", b"retry: 5", b"event: x", b"\xef\xbb\xbf"]
        )
    )
    data = draw(spoken).replace(b"\n", b" ").replace(b"\r", b" ")
    cut = draw(st.integers(0, len(data)))
    split = draw(st.sampled_from([b"", end + b"data: "]))
    return (
        before
        + end
        + b"data: "
        + data[:cut]
        + split
        + data[cut:]
        + draw(st.sampled_from([end, end, b""]))
        + end
    )


streams = (
    st.lists(events(), max_size=4).map(b"".join)
    | st.lists(events(), max_size=3).map(b"".join).flatmap(lambda stream: damaged(st.just(stream)))
    | st.binary(max_size=100)
)
cuts = st.lists(st.integers(1, 40), max_size=8)


def pieces(stream: bytes, sizes: list[int]) -> list[bytes]:
    cut, at = [], 0
    for size in sizes:
        cut.append(stream[at : at + size])
        at += size
    return [*cut, stream[at:]]


def answered(text: bytes) -> list[object]:
    """The ids of all responses in one event, as a client of another make reads them."""
    try:
        value = json.loads(text.decode("utf-8", "replace"))
    except ValueError:
        return []
    messages = value if isinstance(value, list) else [value]
    return [
        each.get("id")
        for each in messages
        if isinstance(each, dict) and "method" not in each and ("result" in each or "error" in each)
    ]


@given(stream=streams, sizes=cuts)
@example(stream=b'data: {"id":1,"result":{}}\n\ndata: {"id":2,"result":{}}\n\n', sizes=[])
@FUZZ
def test_any_stream_becomes_events_or_malformed(stream: bytes, sizes: list[int]) -> None:
    """Design section 4: an answer that is not this request's ends the stream before it reaches the client."""
    splitter = Splitter(10_000)
    judge = Judge([make_call(id=1)])
    released: list[bytes] = []
    heard: list[object] = []
    try:
        for piece in pieces(stream, sizes):
            for event in splitter.feed(piece):
                judge.event(event)
                released.append(event.raw)
                heard += answered(event.data or b"")
    except (Malformed, Foreign, TooLong):
        pass
    else:
        rest = splitter.rest()
        assert b"".join(released) + (rest.raw if rest else b"") == stream
    assert stream.startswith(b"".join(released))
    assert heard in ([], [1])
    assert not any(isinstance(id, bool | float) for id in heard)


@given(body=spoken, sizes=cuts)
@FUZZ
def test_any_body_becomes_answers_or_malformed(body: bytes, sizes: list[int]) -> None:
    """Own promise: held or watched, well-formed or not, nothing but `Said` or Malformed comes out."""
    tail = Tail()
    try:
        for piece in pieces(body, sizes):
            tail.feed(piece)
        watched = tail.ended()
    except Malformed:
        watched = None
    try:
        said = read_answers(body)
    except Malformed:
        return
    assert all(isinstance(each, Said) for each in said)
    if body.lstrip()[:1] == b"[":
        assert len(split_array(body)) == len(said)
    if watched is not None:
        assert [(each.is_answer, type(each.id), each.id) for each in watched] == [
            (each.is_answer, type(each.id), each.id) for each in said
        ]


@given(pairs=fields)
@FUZZ
def test_any_fields_of_the_server_are_passed_on_or_left_out(pairs: list[tuple[bytes, bytes]]) -> None:
    """RFC 9110 7.6.1: what goes on is a part of what came, in its order, and judged without an exception."""
    headers = Headers(pairs)
    kept = end_to_end(headers, lambda name: name == b"set-cookie")
    remaining = iter(pairs)
    assert all(pair in remaining for pair in kept)
    kind, charset = media_type(headers.get("content-type"))
    assert kind == kind.lower()
    assert charset is None or charset == charset.lower()
