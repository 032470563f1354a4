"""Any bytes become a Call or a Refused, nothing else; and two other readers would have read the same call."""

import json

from hypothesis import example, given
from hypothesis import strategies as st

from proxy.model import Call, Headers, Kind, Refused, Reply
from proxy.protocol.reading import read_bodiless, read_post
from proxy.refusals import ROWS, explain
from tests.fakes import FakeJourney
from tests.fuzz.bounded import FUZZ
from tests.fuzz.hostile import bodies, fields

Pairs = list[tuple[bytes, bytes]]


def read(pairs: Pairs, body: bytes) -> Call | Refused:
    try:
        return read_post(Headers(pairs), body, received=0.0, journey=FakeJourney())
    except Refused as refused:
        return refused


def first_wins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    return dict(reversed(pairs))


def lenient(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """As old Go SDKs read: case and control characters do not matter, the last one wins."""
    known = {"method", "params", "id", "name", "uri", "arguments", "_meta", "jsonrpc", "result", "error"}
    return {
        (folded if (folded := key.replace("\0", "").strip().casefold()) in known else key): value
        for key, value in pairs
    }


def assert_all_read_the_same(call: Call) -> None:
    """Design promise 2: a denied tool can be reached by no encoding of the request."""
    for hook in (dict, first_wins, lenient):
        value = json.loads(call.body.decode("utf-8"), object_pairs_hook=hook)
        assert value["jsonrpc"] == "2.0"
        assert (type(value.get("id")), value.get("id")) == (type(call.id), call.id)
        assert value.get("method", "") == call.method
        assert ("id" in value) == (call.kind is not Kind.NOTIFICATION)
        assert ("method" in value) == (call.kind is not Kind.ANSWER)
        if call.kind is Kind.ANSWER:
            continue  # whatever stands in `params` without a method names nothing
        params = value.get("params", {})
        for member in ("name", "uri"):
            assert isinstance(params.get(member), str) == isinstance(call.params.get(member), str)
            if isinstance(params.get(member), str):
                assert params[member] == call.params[member]
        if call.method in ("tools/call", "prompts/get"):
            assert params["name"] == call.target
        if call.method == "resources/read":
            assert params["uri"] == call.target


@given(pairs=fields, body=bodies)
@example(pairs=[], body=b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo"}}')
@example(pairs=[], body=b'{"jsonrpc":"2.0","id":1,"params":{"name":"echo"},"result":{}}')
@example(pairs=[], body=b'[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","method":"x"}]')
@FUZZ
def test_any_body_becomes_a_call_or_a_refusal(pairs: Pairs, body: bytes) -> None:
    """Design promise 2: judged = forwarded, for every reader behind us."""
    read_ = read(pairs, body)
    if isinstance(read_, Refused):
        assert read_.reason in ROWS
        return
    assert read_.body == body
    assert read_.headers.pairs == tuple(pairs)
    if read_.kind is Kind.BATCH:
        assert [json.loads(part.body) for part in read_.parts] == json.loads(body)
    for call in read_.parts or (read_,):
        assert_all_read_the_same(call)


@given(pairs=fields, body=bodies, form=st.sampled_from(["result", "http"]))
@FUZZ
def test_any_refusal_becomes_a_reply(pairs: Pairs, body: bytes, form: str) -> None:
    """Style guide 7: whatever was sent, the answer is one of ours, whole and readable."""
    decodable = [(name, value) for name, value in pairs if value.decode("utf-8", "ignore").encode() == value]
    refused = read(decodable, body)
    if isinstance(refused, Refused):
        reply = explain(refused, None, form)  # type: ignore[arg-type]  # a `Form` drawn by chance
        assert isinstance(reply, Reply)
        assert 400 <= reply.status < 500
        assert isinstance(reply.body, bytes)
        if reply.headers.get("content-type") == "application/json":
            answer = json.loads(reply.body)
            assert (type(answer["id"]), answer["id"]) == (type(refused.id), refused.id)


@given(pairs=fields, kind=st.sampled_from([Kind.LISTEN, Kind.END]))
@FUZZ
def test_any_get_becomes_a_call_or_a_refusal(pairs: Pairs, kind: Kind) -> None:
    """Design section 4: what nobody can read is not forwarded."""
    try:
        call = read_bodiless(kind, Headers(pairs), received=0.0, journey=FakeJourney())
    except Refused:
        return
    assert (call.kind, call.body, call.id) == (kind, b"", None)
    assert not call.revision.is_modern
