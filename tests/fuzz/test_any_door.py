"""Any request line and header fields come through the gate or are refused, nothing else."""

import re
from urllib.parse import parse_qs

from hypothesis import example, given
from hypothesis import strategies as st

from proxy.downstream.gate import Gate
from proxy.model import Headers, Refused
from proxy.protocol.reading import read_post
from proxy.refusals import explain
from tests.fakes import FakeJourney
from tests.fuzz.bounded import FUZZ
from tests.fuzz.hostile import bodies, fields

Pairs = list[tuple[bytes, bytes]]
GATE = Gate(hosts=[], origins=["https://a.example"], address_host="127.0.0.1")

hosts = st.sampled_from(
    [
        *(
            b"127.0.0.1:8080",
            b"localhost",
            b"[::1]:1",
            b"LOCALHOST.",
            b"evil.example",
            b"",
            b"[",
            b"]:",
            b":",
        ),
        *(b"localhost:80@evil.example", b"127.0.0.1, evil.example", b"\xff", b"localhost\t"),
    ]
) | st.binary(max_size=12)
frames = st.lists(
    st.sampled_from(
        [
            *((b"Content-Type", b"application/json"), (b"Content-Length", b"5"), (b"Content-Length", b"+5")),
            *(
                (b"Transfer-Encoding", b"chunked"),
                (b"transfer-encoding", b"gzip"),
                (b"Expect", b"100-continue"),
            ),
            *((b"Origin", b"https://a.example"), (b"Origin", b"null"), (b"Content-Encoding", b"gzip")),
            *((b"Upgrade", b"websocket"), (b"Access-Control-Request-Method", b"POST")),
            (b"Access-Control-Request-Headers", b"mcp-param-a, \xc3\xa9, mcp-param-b"),
        ]
    ),
    max_size=5,
)
targets = st.sampled_from(
    [
        *(
            "/mcp",
            "/mcp?a=b",
            "*",
            "",
            "//",
            "http://localhost/mcp",
            "HTTP://127.0.0.1:8080",
            "http://[",
            "/%00",
        ),
        *(
            "/mcp?access_token=1",
            "/?%61ccess_token",
            "/\u00e9",
            "/\udcff",
            "http://localhost/mcp?access_token",
        ),
    ]
) | st.text(max_size=12).map("/".__add__)
versions = st.sampled_from([(1, 1), (1, 1), (1, 0), (2, 0), (0, 9)])


@given(target=targets, host=hosts, more=st.tuples(frames, fields), version=versions, body=bodies)
@example(target="/mcp", host=b"localhost", more=([], []), version=(1, 1), body=b"{}")
@FUZZ
def test_any_request_comes_in_or_is_refused(
    target: str, host: bytes, more: tuple[Pairs, Pairs], version: tuple[int, int], body: bytes
) -> None:
    """Design section 4: Host and Origin before anything; what came through can be answered and passed on."""
    frame, other = more
    headers = Headers([(b"Host", host), *frame, *other])
    try:
        meant = GATE.target(target, headers, version)
        assert re.fullmatch("/[!-~]*", meant.path)
        assert "access_token" not in parse_qs(meant.query, keep_blank_values=True)
        if not frame:
            GATE.no_body(headers)
        else:
            length = GATE.body(headers, version, 1_000)
            assert length is None or 0 <= length <= 1_000
        for name, value in GATE.cors(headers) + (GATE.preflight(headers, b"POST") or []):
            assert re.fullmatch(rb"[!-~]+", name)
            assert not re.search(rb"[\r\n\0]", value)
        read_post(headers, body, received=0.0, journey=FakeJourney())
    except Refused as error:
        refusal = error
    else:
        return
    assert 400 <= explain(refusal, None, "result").status < 500
