"""Which fields stop here, media types, and the value coding of mirrored headers."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.model import Headers
from proxy.protocol.headers import decode_value, end_to_end, media_type, named_by_connection


def fields(*pairs: tuple[str, str]) -> Headers:
    return Headers((name.encode(), value.encode()) for name, value in pairs)


@pytest.mark.parametrize(
    "value",
    [
        "authorization",
        "X-A, Authorization",
        "cookie",
        "HOST",
        "content-type",
        "Content-Anything",
        "accept",
        "accept-encoding",
        "origin",
        "mcp-session-id",
        "Mcp-Param-X",
        "last-event-id",
        "x-tenant",
        "X-Principal",
        "close, mcp-name, keep-alive",
        "a b",
        "a;b",
        '"close"',
        "close\u00e9",
        "coo\u212aie",
    ],
)
def test_a_connection_field_that_removes_what_must_arrive_is_known(value: str) -> None:
    """RFC 9110 7.6.1: what Connection names is removed, so it may not name who calls or what is asked."""
    assert named_by_connection(fields(("Connection", value))) is None


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ([], set()),
        ([""], set()),
        ([" , ,"], set()),
        (["close"], {b"close"}),
        (["Keep-Alive, X-Hop", "te,X-OTHER"], {b"keep-alive", b"x-hop", b"te", b"x-other"}),
        (["x-accept"], {b"x-accept"}),
        (["xcookie, my-origin"], {b"xcookie", b"my-origin"}),
    ],
)
def test_what_connection_names_is_collected(values: list[str], named: set[bytes]) -> None:
    """RFC 9110 7.6.1: a list, in any case, over several lines."""
    assert named_by_connection(fields(*(("connection", value) for value in values))) == frozenset(named)


def test_fields_about_one_connection_stop_here() -> None:
    """RFC 9110 7.6.1; everything else goes on in its order and spelling, duplicates included."""
    kept = [
        ("X-One", "1"),
        ("mcp-name", "a"),
        ("X-ONE", "2"),
        ("Via", "x"),
        ("Keep-Alives", "y"),
        ("Traceparent", "z"),
    ]
    gone = [
        ("Connection", "x-hop, close"),
        ("X-Hop", "1"),
        ("x-HOP", "2"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Authenticate", "Basic"),
        ("Proxy-Authorization", "Basic x"),
        ("Proxy-Authentication-Info", "x"),
        ("Proxy-Connection", "close"),
        ("TE", "trailers"),
        ("Trailer", "X-T"),
        ("Transfer-Encoding", "chunked"),
        ("Upgrade", "websocket"),
        ("HTTP2-Settings", "x"),
        ("Cookie", "stopped by the caller"),
    ]
    mixed = [pair for both in zip(kept, gone, strict=False) for pair in both] + gone[len(kept) :]
    left = end_to_end(fields(*mixed), lambda name: name == b"cookie")
    assert left == [(name.encode(), value.encode()) for name, value in kept]


def test_a_server_cannot_use_connection_to_remove_what_must_arrive() -> None:
    """Own promise: where Connection overreaches, nothing it names is removed."""
    answer = fields(("Content-Type", "application/json"), ("Connection", "content-type, x-a"), ("X-A", "1"))
    left = end_to_end(answer, lambda _: False)
    assert left == [(b"Content-Type", b"application/json"), (b"X-A", b"1")]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ("", None)),
        ("", ("", None)),
        ("application/json", ("application/json", None)),
        (" Application/JSON ; Charset=UTF-8", ("application/json", "utf-8")),
        ('application/json;charset="utf-8"', ("application/json", "utf-8")),
        ("application/json; charset=latin1", ("application/json", "latin1")),
        ("application/json; profile=x", ("application/json", None)),
        ("application/json, text/plain", ("application/json, text/plain", None)),
        ("application/json+x", ("application/json+x", None)),
        ("text/event-stream;charset", ("text/event-stream", "")),
        (";charset=utf-8", ("", "utf-8")),
    ],
)
def test_a_media_type_is_taken_apart(value: str | None, expected: tuple[str, str | None]) -> None:
    """RFC 9110 8.3.1: type and parameter names in any case, values perhaps quoted."""
    assert media_type(value) == expected


@pytest.mark.parametrize(
    ("value", "decoded"),
    [
        ("", ""),
        ("echo", "echo"),
        (" \techo\t ", "echo"),
        ("a b", "a b"),
        ("\u00a0echo", "\u00a0echo"),
        ("=?base64?ZWNobw==?=", "echo"),
        (" =?base64?ZWNobw==?= ", "echo"),
        ("=?base64??=", ""),
        ("=?base64?w6k=?=", "\u00e9"),
        ("=?base64?PT9iYXNlNjQ/eD89?=", "=?base64?x?="),
        # Without the exact prefix and suffix a value is a literal.
        ("=?base64?ZWNobw==", "=?base64?ZWNobw=="),
        ("ZWNobw==?=", "ZWNobw==?="),
        ("=?Base64?ZWNobw==?=", "=?Base64?ZWNobw==?="),
        ("=?utf-8?b?ZWNobw==?=", "=?utf-8?b?ZWNobw==?="),
        ("x=?base64?ZWNobw==?=", "x=?base64?ZWNobw==?="),
        # With both it is a sentinel, and a malformed one is a mismatch.
        ("=?base64?ZWNobw?=", None),
        ("=?base64?ZWNobw=?=", None),
        ("=?base64?ZWNobw===?=", None),
        ("=?base64?ZWNo\nbw==?=", None),
        ("=?base64? ZWNobw==?=", None),
        ("=?base64?ZW==ZWNo?=", None),
        ("=?base64?_-==?=", None),
        ("=?base64?=?=", None),
        ("=?base64?\u00e9?=", None),
        ("=?base64?/w==?=", None),
        ("=?base64?wK8=?=", None),
        ("=?base64?7aCA?=", None),
    ],
)
def test_a_mirrored_value_is_decoded_once_or_not_at_all(value: str, decoded: str | None) -> None:
    """2026-07-28 streamable-http, value encoding (protocol.md 2.2): markers exact, base64 and UTF-8 strict."""
    assert decode_value(value) == decoded


@given(st.text(max_size=30))
@settings(max_examples=100, deadline=None)
def test_whatever_a_client_wraps_is_read_back(text: str) -> None:
    """2026-07-28: anything that is not visible ASCII, and what looks like a sentinel, travels wrapped."""
    assert decode_value(f"=?base64?{base64.b64encode(text.encode()).decode()}?=") == text
