"""Whatever a client sends, a context is put into it without changing anything else, or it is read as garbage."""

import json

from hypothesis import example, given
from hypothesis import strategies as st

from proxy.model import Call, Headers, Kind, Refused
from proxy.protocol.reading import read_post
from proxy.telemetry.trace_context import received
from proxy.upstream.carrying import carrying
from tests.fakes import FakeAttempt, FakeJourney
from tests.fuzz.bounded import FUZZ
from tests.fuzz.hostile import bodies, fields

TOLD = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def read(pairs: list[tuple[bytes, bytes]], body: bytes) -> Call | None:
    try:
        return read_post(Headers(pairs), body, received=0.0, journey=FakeJourney())
    except Refused:
        return None


def attempt(number: int) -> FakeAttempt:
    made = FakeAttempt(FakeJourney())
    made.carries = ((b"traceparent", f"{TOLD[:-2]}{number:02x}".encode()), (b"tracestate", b""))
    return made


@given(pairs=fields, body=bodies)
@example(pairs=[], body=b'{"jsonrpc":"2.0","id":1,"method":"ping"}')
@example(pairs=[], body=b'[{"jsonrpc":"2.0","id":1,"method":"ping"} , {"jsonrpc":"2.0","id":2,"result":{}}]')
@example(pairs=[], body=b'{"jsonrpc":"2.0","method":"x","params":{"_meta":{"tracestate":"a=1"}}}')
@FUZZ
def test_a_context_is_put_into_any_call(pairs: list[tuple[bytes, bytes]], body: bytes) -> None:
    """Issue 8: what was read is what is forwarded, but for the context."""
    call = read(pairs, body)
    if call is None:
        return
    messages = call.parts or (call,)
    sent = json.loads(carrying(call, [attempt(at) for at in range(len(messages))]))
    expected = json.loads(body)
    for at, (message, each) in enumerate(zip(messages, expected if call.parts else [expected], strict=True)):
        if message.kind is Kind.ANSWER:
            continue
        meta = each.setdefault("params", {}).setdefault("_meta", {})
        meta["traceparent"] = f"{TOLD[:-2]}{at:02x}"
        if "tracestate" in meta:
            meta["tracestate"] = ""
    assert sent == expected


@given(
    told=st.dictionaries(
        st.sampled_from(["traceparent", "tracestate", "baggage"]),
        st.one_of(st.none(), st.integers(), st.text(max_size=60), st.just(TOLD), st.lists(st.just(TOLD))),
    ),
    pairs=st.lists(
        st.tuples(st.sampled_from([b"traceparent", b"Tracestate", b"baggage"]), st.binary(max_size=60))
    ),
)
@FUZZ
def test_any_context_is_read_or_ignored(told: dict[str, object], pairs: list[tuple[bytes, bytes]]) -> None:
    """Corpus TEL-015: never an error."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"_meta": told}}).encode()
    call = read(pairs, body)
    if call is not None:
        said = received(call)
        assert f"{said.state}{said.baggage}".isascii()
