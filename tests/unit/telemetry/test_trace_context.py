"""What callers say of traces: valid contexts are read, everything else is nothing, and nothing is an error."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from proxy.model import Headers
from proxy.telemetry.trace_context import (
    MAX_BAGGAGE_BYTES,
    MAX_STATE_BYTES,
    NOTHING,
    Received,
    Remote,
    read_baggage,
    read_traceparent,
    read_tracestate,
    received,
    trace_id_of,
    write_traceparent,
)
from tests.fakes import make_call, make_headers

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ONE = f"00-{TRACE}-{SPAN}-01"
OTHER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        (ONE, 1),
        (ONE[:-2] + "00", 0),
        (ONE[:-2] + "03", 3),
        (ONE[:-2] + "ff", 3),
        ("cc" + ONE[2:] + "-what.comes", 1),
    ],
)
def test_a_valid_traceparent_is_read(text: str, flags: int) -> None:
    """Trace Context 3.2.2 and 3.2.4: unknown flags are dropped, later versions may say more."""
    assert read_traceparent(text) == Remote(TRACE, SPAN, flags)


@pytest.mark.parametrize(
    "text",
    [
        "zz",  # corpus TEL-015
        "",
        None,
        7,
        [ONE],
        ONE.upper(),
        "ff" + ONE[2:],
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        ONE + "-",
        ONE + "-more",
        ONE + "\n",
        " " + ONE,
        ONE[:-1],
        ONE + "0",
        "cc" + ONE[2:] + "x",
        f"00-{TRACE[:-1]}g-{SPAN}-01",
        f"00-{TRACE[:-1]}\N{ARABIC-INDIC DIGIT ONE}-{SPAN}-01",
    ],
)
def test_garbage_is_no_traceparent(text: object) -> None:
    """Trace Context 3.2.2, corpus TEL-015."""
    assert read_traceparent(text) is None


@given(st.text(max_size=70) | st.from_regex(r"\A[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z"))
def test_we_read_no_more_than_opentelemetry_does(text: str) -> None:
    """Differential: what the SDK's propagator reads is what we read, where we read anything."""
    from opentelemetry.trace import get_current_span

    ours = read_traceparent(text)
    theirs = get_current_span(
        TraceContextTextMapPropagator().extract({"traceparent": text})
    ).get_span_context()
    if ours is not None:
        assert (f"{theirs.trace_id:032x}", f"{theirs.span_id:016x}") == ours[:2]
        assert theirs.trace_flags & 1 == ours.flags & 1


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.integers(0, 3))
def test_what_is_written_is_read(trace: int, span: int, flags: int) -> None:
    """Round trip."""
    remote = Remote(f"{trace:032x}", f"{span:016x}", flags)
    assert read_traceparent(write_traceparent(*remote).decode()) == remote


@pytest.mark.parametrize(
    ("values", "state"),
    [
        (("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",), "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
        (("rojo=1", " congo=2 ,, a@b=3"), "rojo=1,congo=2,a@b=3"),
        ((), ""),
        (("a=1,a=2",), ""),
        (("a=1,B=2",), ""),
        (("a=1\r\nEvil: 1",), ""),
        (("a",), ""),
        ((None,), ""),
        ((7,), ""),
    ],
)
def test_tracestate_is_whole_or_nothing(values: tuple[object, ...], state: str) -> None:
    """Trace Context 3.3.1.3: what cannot be parsed is discarded."""
    assert read_tracestate(values) == state


def test_tracestate_is_bounded() -> None:
    """Issue 8: 32 members, 512 bytes; whole members go, those above 128 bytes first (Trace Context 3.3.1.5)."""
    assert read_tracestate((",".join(f"k{at}=1" for at in range(40)),)) == ",".join(
        f"k{at}=1" for at in range(32)
    )
    long, short = f"long={'x' * 200}", [f"k{at:02}={'y' * 27}" for at in range(16)]
    assert read_tracestate((",".join([long, *short]),)) == ",".join(short)
    assert read_tracestate((",".join([*short, "last=1"]),)) == ",".join(short)
    assert read_tracestate(("a=" + "b" * 8_000,)) == ""  # corpus TEL-015


@given(st.lists(st.text(max_size=700), max_size=4))
def test_any_tracestate_and_baggage_fit_into_a_header(values: list[str]) -> None:
    """Corpus TEL-015: bounded, printable, never an exception."""
    state, baggage = read_tracestate(values), read_baggage(values)
    assert len(state) <= MAX_STATE_BYTES
    assert len(baggage) <= MAX_BAGGAGE_BYTES
    assert re.fullmatch(r"[\t -~]*", state + baggage)


@pytest.mark.parametrize(
    ("values", "baggage"),
    [
        (("userId=alice,serverNode=DF%2028",), "userId=alice,serverNode=DF%2028"),
        (("a=1", "b=2;p"), "a=1,b=2;p"),
        (("a=1\r\nEvil: 1",), ""),
        (("a=\N{SNOWMAN}",), ""),
        (("x" * 9_000,), ""),
        (("a=" + "x" * 8_000 + ",b=" + "y" * 500 + ",c=1",), "a=" + "x" * 8_000),
    ],
)
def test_baggage_is_bounded(values: tuple[object, ...], baggage: str) -> None:
    """W3C Baggage 3.3.2: 8192 bytes; whole members."""
    assert read_baggage(values) == baggage


@pytest.mark.parametrize(
    ("fields", "meta", "expected"),
    [
        ({}, {}, NOTHING),
        ({"traceparent": ONE}, {}, Received(Remote(TRACE, SPAN, 1))),
        ({}, {"traceparent": ONE}, Received(Remote(TRACE, SPAN, 1))),
        (
            {"traceparent": OTHER, "tracestate": "of=http", "baggage": "of=http"},
            {"traceparent": ONE, "tracestate": "of=meta"},
            Received(Remote(TRACE, SPAN, 1), read_traceparent(OTHER), "of=meta", "of=http"),
        ),
        (
            {"traceparent": ONE},
            {"traceparent": ONE, "baggage": "a=1"},
            Received(Remote(TRACE, SPAN, 1), None, "", "a=1"),
        ),
        (
            {"traceparent": ONE, "tracestate": "a=1"},
            {"traceparent": "zz"},
            Received(Remote(TRACE, SPAN, 1), None, "a=1"),
        ),
        ({"traceparent": "zz", "tracestate": "a=1"}, {}, NOTHING),
        ({"traceparent": ONE}, {"traceparent": {"a": ONE}}, Received(Remote(TRACE, SPAN, 1))),
        ({"baggage": "a=1"}, {}, Received(baggage="a=1")),
    ],
)
def test_the_parent_is_in_the_message_where_it_is_valid(
    fields: dict[str, str], meta: dict[str, Any], expected: Received
) -> None:
    """semantic-conventions-genai docs/gen-ai/mcp.md, context propagation: `_meta` first, the ambient context linked."""
    call = make_call(headers=make_headers(**fields), params={"_meta": meta})
    assert received(call) == expected
    assert trace_id_of(call) == (expected.parent.trace_id if expected.parent else None)


def test_of_two_traceparents_nobody_knows_which_is_meant() -> None:
    """Trace Context 3.2: the field comes once."""
    twice = Headers([(b"traceparent", ONE.encode()), (b"Traceparent", OTHER.encode())])
    assert received(make_call(headers=twice)) == NOTHING
