"""What the server said, read whole or watched while it passes."""

import itertools
import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.model import Verdict
from proxy.protocol.answers import HELD_BYTES, MAX_ANSWER_DEPTH, Malformed, Said, Tail, read_answers
from tests.unit.protocol.patience import processor_seconds


def watched(chunks: list[bytes]) -> Said:
    tail = Tail()
    for chunk in chunks:
        tail.feed(chunk)
    [said] = tail.ended()
    return said


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"1",
        b'"x"',
        b"<html>",
        b"{}",
        b"{",
        b'{"id":1}',
        b'{"id":1,"result":{}}x',
        b'{"id":1,"result":{}}{"id":2,"result":{}}',
        b'\xef\xbb\xbf{"id":1,"result":{}}',
        b'{"id":1,"id":2,"result":{}}',
        b'{"id":1,"result":{"a":1,"a":2}}',
        b'{"id":1,"result":NaN}',
        b'{"id":1,"result":[Infinity]}',
        b'{"id":1,"result":"\xff"}',
        b'{"id":1,"result":"\xed\xa0\x80"}',
        b'{"id":1,"result":"a\nb"}',
        b'{"id":true,"result":{}}',
        b'{"id":[1],"result":{}}',
        b'{"id":{},"result":{}}',
        b'{"id":1,"method":1}',
        b'{"id":1,"method":{},"result":{}}',
        b"[1]",
        b"[[]]",
        b'[{"id":1,"result":{}},null]',
        b'{"id":"\\ud800","result":{"a":1,"a":2}}',
        b'{"id":"\\ud800","result":1e999}',
        b'{"id":"\\ud800","result":NaN}',
    ],
)
def test_what_is_not_json_rpc_is_malformed(body: bytes) -> None:
    """design section 4: answers are checked, well-formed; both readers refuse alike."""
    with pytest.raises(Malformed):
        read_answers(body)


OK, TOOL_ERROR, RPC_ERROR = Verdict.OK, Verdict.TOOL_ERROR, Verdict.RPC_ERROR


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"id":0,"result":{}}', Said(id=0, is_answer=True, verdict=OK, result={})),
        ('{"id":"","result":null}', Said(id="", is_answer=True, verdict=OK)),
        ('{"result":{}}', Said(id=None, is_answer=True, verdict=OK, result={})),
        ('{"id":1.5,"result":{}}', Said(id=1.5, is_answer=True, verdict=OK, result={})),
        (
            '{"id":1,"result":{"isError":true}}',
            Said(id=1, is_answer=True, verdict=TOOL_ERROR, result={"isError": True}),
        ),
        ('{"id":1,"result":{"isError":1}}', Said(id=1, is_answer=True, verdict=OK, result={"isError": 1})),
        ('{"id":1,"error":{"code":1}}', Said(id=1, is_answer=True, verdict=RPC_ERROR, code=1)),
        ('{"id":1,"error":{"code":-32602}}', Said(id=1, is_answer=True, verdict=RPC_ERROR, code=-32602)),
        ('{"id":1,"error":{"code":true}}', Said(id=1, is_answer=True, verdict=RPC_ERROR)),
        ('{"id":1,"error":{"code":2147483648}}', Said(id=1, is_answer=True, verdict=RPC_ERROR)),
        ('{"id":1,"error":{"code":"x"}}', Said(id=1, is_answer=True, verdict=RPC_ERROR)),
        ('{"id":1,"error":7}', Said(id=1, is_answer=True, verdict=RPC_ERROR)),
        ('{"id":null,"error":{"code":1}}', Said(id=None, is_answer=True, verdict=RPC_ERROR, code=1)),
        ('{"id":1,"result":null,"error":{}}', Said(id=1, is_answer=True, verdict=RPC_ERROR)),
        ('{"id":1,"result":{},"error":null}', Said(id=1, is_answer=True, verdict=OK, result={})),
        (
            '{"id":7,"method":"sampling/createMessage"}',
            Said(id=7, is_answer=False, method="sampling/createMessage"),
        ),
        (
            '{"method":"notifications/resources/updated","params":{"uri":"file:///a"}}',
            Said(
                id=None,
                is_answer=False,
                method="notifications/resources/updated",
                params={"uri": "file:///a"},
            ),
        ),
        (
            '{"method":"notifications/progress"}',
            Said(id=None, is_answer=False, method="notifications/progress"),
        ),
        ('{"id":1,"method":null,"result":{}}', Said(id=1, is_answer=True, verdict=OK, result={})),
        (
            '{"id":1,"result":{"t":"\\ud83d"}}',
            Said(id=1, is_answer=True, verdict=OK, result={"t": "\ud83d"}),
        ),
    ],
)
def test_a_message_of_the_server_is_what_it_says(body: str, said: Said) -> None:
    """JSON-RPC 2.0 section 5; protocol.md 3.1 and section 5; a text cut inside an emoji is odd, but JSON."""
    assert read_answers(body.encode()) == [said]


def test_every_message_of_an_array_is_read() -> None:
    """protocol.md 3.4: answers to a batch may be an array, in any order."""
    assert read_answers(b'[{"id":2,"result":1},{"method":"m"},{"id":1,"error":{}}]') == [
        Said(id=2, is_answer=True, verdict=OK, result=1),
        Said(id=None, is_answer=False, method="m"),
        Said(id=1, is_answer=True, verdict=RPC_ERROR),
    ]
    assert read_answers(b"[]") == []


def large(head: str, tail: str = "}") -> bytes:
    """An answer beyond what is held: `head`, a long text inside a container, `tail`."""
    return (head + '"pad":{"text":"' + "x" * HELD_BYTES + '"}' + tail).encode()


def test_an_answer_too_large_to_hold_is_watched_instead() -> None:
    """Own promise: of a large answer we know its id and that it is whole; its inside stays unread."""
    assert read_answers(large('{"id":1,"result":{"isError":true},')) == [
        Said(id=1, is_answer=True, verdict=OK, result={})
    ]
    with pytest.raises(Malformed):
        read_answers(large('{"id":1,"result":{},')[:-1])


def nested(depth: int) -> bytes:
    return b'{"id":1,"result":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


@pytest.mark.parametrize("read", [read_answers, lambda body: watched([body])])
def test_nesting_stops_somewhere(read: Callable[[bytes], object]) -> None:
    """Own promise: 200 deep is read; what would exhaust a stack is malformed, not a crash."""
    read(nested(MAX_ANSWER_DEPTH))
    with pytest.raises(Malformed):
        read(nested(100_000))


def test_nesting_stops_at_the_same_depth_for_small_answers_and_large_ones() -> None:
    """Own promise: everything else the strict reader refuses is refused by the lenient one too."""
    with pytest.raises(Malformed):
        watched([nested(MAX_ANSWER_DEPTH + 1)])
    with pytest.raises(Malformed):
        read_answers(nested(MAX_ANSWER_DEPTH + 1))


texts = st.text(alphabet='{}[],:"\\ \n\u00e9\U0001f600az', max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
containers = st.lists(values, max_size=3) | st.dictionaries(texts, values, max_size=3)
ids = st.integers(-(2**70), 2**70) | texts
outcomes = st.fixed_dictionaries({"result": values | containers}) | st.fixed_dictionaries(
    {"error": containers}
)
others = st.dictionaries(texts.map("x".__add__), values, max_size=2)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    members = {"jsonrpc": "2.0", "id": draw(ids), **draw(outcomes), **draw(others)}
    order = draw(st.permutations(list(members.items())))
    text = json.dumps(
        dict(order), ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 0, 2]))
    )
    if draw(st.booleans()):
        text = text.replace('"id"', '"\\u0069d"', 1)
    return text.encode()


def cut(body: bytes, places: list[int]) -> list[bytes]:
    at = sorted({place % (len(body) + 1) for place in places} | {0, len(body)})
    return [body[a:b] for a, b in itertools.pairwise(at)]


@given(body=answers(), places=st.lists(st.integers(0, 500), max_size=8))
@settings(max_examples=250, deadline=None)
def test_the_watcher_agrees_with_the_reader_however_an_answer_is_cut(body: bytes, places: list[int]) -> None:
    """Own promise: whose answer it is does not depend on its size."""
    said = watched(cut(body, places))
    [read] = read_answers(body)
    assert (type(said.id), said.id, said.is_answer) == (type(read.id), read.id, read.is_answer)
    # Inside a container nothing is read, so a failed tool counts as an answered one.
    assert said.verdict == (OK if read.verdict is TOOL_ERROR else read.verdict)


@given(body=answers(), length=st.integers(0, 500))
@settings(max_examples=150, deadline=None)
def test_a_truncated_answer_never_passes(body: bytes, length: int) -> None:
    """design section 4: an answer is one only with its closing brace."""
    with pytest.raises(Malformed):
        watched([body[: length % len(body)]])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  ",
        b"x{",
        b'[{"id":1,"result":{}},]',
        b"[1]",
        b"[[]]",
        b'"x"',
        b"{}",
        b'{"id":1,"result":{}}x',
        b'{"id":1,"result":{}}{}',
        b'{"id":1,"result":{}}}',
        b'{"id":1,"id":1,"result":{}}',
        b'{"id":1,"\\u0069d":1,"result":{}}',
        b'{"result":{},"id":1,"result":{}}',
        b'{"id":1,"result":{},"error":{}}',
        b'{"id":1}',
        b'{"id":1,"result":}',
        b'{"id":1,"result":tru}',
        b'{"id":1 "result":{}}',
        b'{"id":1 2,"result":{}}',
        b'{"id":"\xff","result":{}}',
        b'{"id":true,"result":{}}',
        b'{"id":1,"method":5,"result":{}}',
        b'{id:1,"result":{}}',
        b'{"id":1,"result":' + b"[" * 201 + b"]" * 201 + b"}",
        b'{"id":1,"result":' + b"1" * 5_000 + b"}",
        b'{"id":"' + b"i" * 9_000 + b'","result":{}}',
        b'{"' + b"k" * 9_000 + b'":1,"id":1,"result":{}}',
    ],
)
@pytest.mark.parametrize("single", [False, True])
def test_the_watcher_refuses_what_is_no_single_answer(body: bytes, single: bool) -> None:
    """Own promise: one object, its members once, its id readable, its bytes all there."""
    with pytest.raises(Malformed):
        watched([bytes([byte]) for byte in body] if single else [body])


@pytest.mark.parametrize(
    "body",
    [
        b'{"id":1,"result":{}},',
        b'{"id":1,"result":{}}:',
        b'{"id":1,"result":{}}"x"',
        b'{"id":1,"result":"x"]',
        b'{"id":1,,"result":{}}',
        b'{junk"id":1,"result":{}}',
        b'{"id":1,"result":{}junk}',
        b'{"id":1,"result":{}{}}',
        b'{"id":1:2,"result":{}}',
    ],
)
def test_the_watcher_refuses_what_cannot_be_one_object(body: bytes) -> None:
    """Own promise: it checks the top level; who reads `id` otherwise than the client judges another answer."""
    with pytest.raises(Malformed):
        watched([body])


@pytest.mark.parametrize(
    "head",
    [
        '{"id":1,"error":null,"result":{},',
        '{"id":1,"result":null,"error":{"code":1},',
        '{"id":1,"result":{},"note":"' + "n" * 9_000 + '",',
    ],
)
def test_a_large_answer_is_read_like_a_small_one(head: str) -> None:
    """protocol.md 3.5: unknown members survive; an answer that passes when small passes when large."""
    small = read_answers((head[:-1] + "}").encode())
    assert [(each.id, each.verdict) for each in read_answers(large(head))] == [
        (each.id, each.verdict) for each in small
    ]


def test_a_large_answer_to_a_batch_is_read() -> None:
    """protocol.md 3.4: answers to a batch may be an array; two long tool lists are more than 256 KiB."""
    body = b"[" + large('{"id":1,"result":{},') + b"," + large('{"id":2,"result":{},') + b"]"
    assert [said.id for said in read_answers(body)] == [1, 2]


@pytest.mark.parametrize("item", [b"0.123", b'"a"', b'"\\n\\"]"'])
def test_many_small_values_cost_little(item: bytes) -> None:
    """design section 8: embeddings are long lists of numbers; 16 MiB of them took seconds, and take 0.1 s."""
    body = b'{"id":1,"result":[' + b",".join([item] * (16_000_000 // (len(item) + 1))) + b"]}"
    with processor_seconds(1):
        assert watched([body]).id == 1
