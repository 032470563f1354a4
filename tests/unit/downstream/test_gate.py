"""Who may come in: Host, Origin, request target, fields, and the framing of a body."""

from collections.abc import Iterable

import pytest

from proxy.downstream.gate import Gate, Target
from proxy.model import Headers, Reason
from tests.fakes import no

HTTP_1_1 = (1, 1)
MAX = 1_000


def gate(hosts: Iterable[str] = (), origins: Iterable[str] = (), address_host: str = "127.0.0.1") -> Gate:
    return Gate(hosts=hosts, origins=origins, address_host=address_host)


def body(headers: Headers, version: tuple[int, int]) -> int | None:
    """What the listener asks of a message's body, in its order."""
    length = gate().body(headers, version, MAX)
    gate().is_json(headers)
    return length


def tls_gate() -> Gate:
    return Gate(hosts=(), origins=(), address_host="127.0.0.1", is_tls=True)


def fields(*pairs: tuple[str, str], host: str | None = "127.0.0.1:8080") -> Headers:
    given = [] if host is None else [("Host", host)]
    return Headers((name.encode(), value.encode()) for name, value in (*given, *pairs))


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8080",
        "127.0.0.1",
        "localhost",
        "LocalHost:1",
        "localhost.",
        "[::1]",
        "[::1]:8080",
        "[::1]:",
    ],
)
def test_loopback_names_are_served_when_no_name_is_listed(host: str) -> None:
    """design section 3: default, loopback names and the listening address; RFC 9110 4.2.3: in any case."""
    assert gate().target("/mcp", fields(host=host), HTTP_1_1) == Target("/mcp", "")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:8080",
        "127.0.0.2",
        "127.1",
        "2130706433",
        "[::2]",
        "[0:0:0:0:0:0:0:1]",
        "\u24db\u24de\u24d2alhost",
    ],
)
@pytest.mark.parametrize("path", ["/mcp", "/nothing", "/mcp?access_token=x"])
def test_another_name_is_misdirected(host: str, path: str) -> None:
    """DNS rebinding; 421 as RFC 9110 15.5.20 has it, whatever the path."""
    refused = no(lambda: gate().target(path, fields(host=host), HTTP_1_1))
    assert refused.reason is Reason.HOST_NOT_ALLOWED


@pytest.mark.parametrize(
    "host",
    [
        "[::1",
        "",
        ":8080",
        "evil.example:127.0.0.1",
        "user@localhost",
        "localhost@evil.example",
        "localhost, evil.example",
        "localhost evil.example",
        "::1",
        "[::1]evil.example",
        "[::1].evil.example:8080",
        "localhost:evil",
        "localhost:80:80",
        "localhost]",
        "[[localhost",
        "localhost..",
    ],
)
def test_a_host_that_is_none_is_malformed(host: str) -> None:
    """RFC 9112 3.2: a server MUST answer 400 to an invalid Host; RFC 3986 3.2: a port is digits."""
    assert no(lambda: gate().target("/mcp", fields(host=host), HTTP_1_1)).reason is Reason.MALFORMED


@pytest.mark.parametrize(
    ("host", "served"),
    [
        ("tools.example.com", True),
        ("TOOLS.example.COM.:443", True),
        ("xtools.example.com", False),
        ("tools.example.com.evil.example", False),
        ("localhost", False),
        ("10.0.0.1", False),
    ],
)
def test_a_list_of_names_replaces_the_default(host: str, served: bool) -> None:
    """design section 3: `allowed_hosts` are names without port."""
    listed = gate(hosts=["Tools.Example.com"], address_host="10.0.0.1")
    if served:
        listed.target("/mcp", fields(host=host), HTTP_1_1)
    else:
        refused = no(lambda: listed.target("/mcp", fields(host=host), HTTP_1_1))
        assert refused.reason is Reason.HOST_NOT_ALLOWED


@pytest.mark.parametrize(("address", "host"), [("10.0.0.1", "10.0.0.1:8080"), ("::", "[::]:8080")])
def test_the_listening_address_is_a_name(address: str, host: str) -> None:
    """design section 3."""
    gate(address_host=address).target("/mcp", fields(host=host), HTTP_1_1)


@pytest.mark.parametrize(
    ("origin", "passes"),
    [
        ("https://a.example", True),
        ("http://127.0.0.1:8080", True),
        ("https://127.0.0.1:8080", True),
        ("", False),
        ("null", False),
        ("https://A.example", False),
        ("https://a.example/", False),
        ("https://a.example:443", False),
        ("http://a.example", False),
        ("https://a.example.evil.example", False),
        ("https://b.example", False),
        ("http://127.0.0.1", False),
        ("http://127.0.0.1:80", False),
        ("http://localhost:8080", False),
        ("ftp://127.0.0.1:8080", False),
        ("file://127.0.0.1:8080", False),
        ("127.0.0.1:8080", False),
        ("http://127.0.0.1:8080/", False),
        ("http://user@127.0.0.1:8080", False),
        ("https://a.example https://b.example", False),
    ],
)
def test_an_origin_is_listed_or_our_own(origin: str, passes: bool) -> None:
    """MCP transports: servers MUST validate Origin, 403; a browser sends it in one spelling (RFC 6454)."""
    headers = fields(("Origin", origin))
    door = gate(origins=["https://a.example"])
    if passes:
        door.target("/mcp", headers, HTTP_1_1)
    else:
        assert no(lambda: door.target("/any", headers, HTTP_1_1)).reason is Reason.ORIGIN_NOT_ALLOWED


@pytest.mark.parametrize(
    "name",
    ["Host", "content-length", "Content-Type", "content-encoding", "Transfer-Encoding", "expect", "ORIGIN"],
)
def test_a_field_that_frames_or_decides_comes_once(name: str) -> None:
    """RFC 9112 3.2 and 6.3; also two equal copies, which the next reader might join."""
    value = "127.0.0.1" if name == "Host" else "1"
    twice = fields((name, value), (name.lower(), value), host=None if name == "Host" else "127.0.0.1")
    assert no(lambda: gate().target("/mcp", twice, HTTP_1_1)).reason is Reason.MALFORMED


@pytest.mark.parametrize("version", [(0, 9), (1, 2), (2, 0), (3, 0)])
def test_only_http_1_is_spoken(version: tuple[int, int]) -> None:
    """RFC 9112 2.3."""
    assert no(lambda: gate().target("/mcp", fields(), version)).reason is Reason.MALFORMED


@pytest.mark.parametrize("version", [(1, 1), (1, 0)])
def test_a_request_without_host_is_malformed(version: tuple[int, int]) -> None:
    """RFC 9112 3.2, and for HTTP/1.0 our own promise: the list is asked before anything."""
    assert no(lambda: gate().target("/mcp", fields(host=None), version)).reason is Reason.MALFORMED


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/mcp", Target("/mcp", "")),
        ("/mcp?", Target("/mcp", "")),
        ("/mcp?a=b?c&d", Target("/mcp", "a=b?c&d")),
        ("/%6Dcp/../x;y//", Target("/%6Dcp/../x;y//", "")),
        ("//evil.example/mcp", Target("//evil.example/mcp", "")),
        ("http://127.0.0.1:8080/mcp?a=b", Target("/mcp", "a=b")),
        ("HTTP://127.0.0.1:8080", Target("/", "")),
        ("http://127.0.0.1:8080?a", Target("/", "a")),
        ("/mcp?xaccess_token=1&access_tokens=2", Target("/mcp", "xaccess_token=1&access_tokens=2")),
        ("/mcp?q=access_token", Target("/mcp", "q=access_token")),
    ],
)
def test_a_target_is_compared_as_it_came(target: str, expected: Target) -> None:
    """design section 4: exact path; RFC 9112 3.2.2: an absolute form names the same host."""
    assert gate().target(target, fields(), HTTP_1_1) == expected


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("*", Reason.HOST_NOT_ALLOWED),
        ("", Reason.HOST_NOT_ALLOWED),
        ("mcp", Reason.HOST_NOT_ALLOWED),
        ("evil.example:443", Reason.HOST_NOT_ALLOWED),
        ("http://evil.example/mcp", Reason.HOST_NOT_ALLOWED),
        ("https://127.0.0.1:8080/mcp", Reason.HOST_NOT_ALLOWED),
        ("http://127.0.0.1/mcp", Reason.HOST_NOT_ALLOWED),
        ("http://x@127.0.0.1:8080/mcp", Reason.HOST_NOT_ALLOWED),
        ("http://127.0.0.1:8080/mcp#f", Reason.HOST_NOT_ALLOWED),
        ("http://[127.0.0.1:8080/mcp", Reason.MALFORMED),
        ("/mcp#f", Reason.MALFORMED),
        ("/m cp", Reason.MALFORMED),
        ("/m\tcp", Reason.MALFORMED),
        ("/mcp\x00", Reason.MALFORMED),
        ("/mcp\n", Reason.MALFORMED),
        ("/m\\cp", Reason.MALFORMED),
        ('/"', Reason.MALFORMED),
        ("/<", Reason.MALFORMED),
        ("/^", Reason.MALFORMED),
        ("/`", Reason.MALFORMED),
        ("/{}", Reason.MALFORMED),
        ("/|", Reason.MALFORMED),
        ("/\x7f", Reason.MALFORMED),
        ("/caf\u00e9", Reason.MALFORMED),
        ("/\udc80", Reason.MALFORMED),
        ("/mcp?access_token=x", Reason.MALFORMED),
        ("/mcp?a=b&access_token", Reason.MALFORMED),
        ("/mcp?%61ccess%5Ftoken=x", Reason.MALFORMED),
        ("http://127.0.0.1:8080/mcp?access_token=x", Reason.MALFORMED),
    ],
)
def test_a_target_that_two_readers_would_read_differently_is_refused(target: str, expected: Reason) -> None:
    """RFC 3986 section 2; basic/authorization: tokens MUST NOT be in the query."""
    assert no(lambda: gate().target(target, fields(), HTTP_1_1)).reason is expected


@pytest.mark.parametrize(
    ("name", "value", "passes"),
    [
        (b"X-A", "caf\u00e9".encode(), True),
        (b"X-A", b"\x80", False),
        (b"X-A", b"\xc0\xaf", False),
        (b"X-A", b"\xed\xa0\x80", False),
        (b"X-\xc3\xa9", b"a", False),
        (b"Connection", b"keep-alive, X-Hop", True),
        (b"Connection", b"close, authorization", False),
        (b"connection", b"a b", False),
    ],
)
def test_a_field_that_two_readers_would_read_differently_is_refused(
    name: bytes, value: bytes, passes: bool
) -> None:
    """RFC 9110 5.5 and 7.6.1."""
    headers = Headers([(b"Host", b"127.0.0.1"), (name, value)])
    if passes:
        gate().target("/mcp", headers, HTTP_1_1)
    else:
        assert no(lambda: gate().target("/mcp", headers, HTTP_1_1)).reason is Reason.MALFORMED


JSON = ("Content-Type", "application/json")
CHUNKED = ("Transfer-Encoding", "chunked")


def length(text: str) -> tuple[str, str]:
    return ("Content-Length", text)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (fields(JSON, length("0")), 0),
        (fields(JSON, length("1000")), 1000),
        (fields(JSON, CHUNKED), None),
        (fields(JSON, ("Transfer-Encoding", " CHUNKED ")), None),
        (fields(("Content-Type", 'Application/Json; charset="UTF-8"'), length("5")), 5),
        (fields(("Content-Type", "application/json;charset=utf8"), length("5")), 5),
        (fields(JSON, length("5"), ("Content-Encoding", "identity")), 5),
        (fields(JSON, length("5"), ("Content-Encoding", "")), 5),
        (fields(JSON, length("5"), ("Expect", "100-Continue")), 5),
    ],
)
def test_a_body_announces_its_length_or_comes_in_chunks(headers: Headers, expected: int | None) -> None:
    """RFC 9112 section 6."""
    assert body(headers, HTTP_1_1) == expected


@pytest.mark.parametrize(
    ("headers", "version", "expected"),
    [
        (fields(JSON), (1, 1), Reason.MALFORMED),
        (fields(JSON, CHUNKED), (1, 0), Reason.MALFORMED),
        (fields(JSON, CHUNKED, length("5")), (1, 1), Reason.MALFORMED),
        (fields(JSON, ("Transfer-Encoding", "gzip, chunked")), (1, 1), Reason.MALFORMED),
        (fields(JSON, ("Transfer-Encoding", "chunked, chunked")), (1, 1), Reason.MALFORMED),
        (fields(JSON, ("Transfer-Encoding", "chunked;q=1")), (1, 1), Reason.MALFORMED),
        (fields(JSON, ("Transfer-Encoding", "identity")), (1, 1), Reason.MALFORMED),
        (fields(JSON, ("Transfer-Encoding", "xchunked")), (1, 1), Reason.MALFORMED),
        (fields(JSON, ("Transfer-Encoding", "")), (1, 1), Reason.MALFORMED),
        *(
            (fields(JSON, length(text)), (1, 1), Reason.MALFORMED)
            for text in (
                "",
                "-1",
                "+5",
                " 5",
                "5 ",
                "05",
                "0x5",
                "5,5",
                "5.0",
                "1_0",
                "\u0665",
                "9" * 20,
                "5\n",
            )
        ),
        (fields(JSON, length("1001")), (1, 1), Reason.TOO_LARGE),
        (fields(JSON, length("9" * 19)), (1, 1), Reason.TOO_LARGE),
        (fields(length("5")), (1, 1), Reason.MEDIA_TYPE),
        (fields(("Content-Type", ""), length("5")), (1, 1), Reason.MEDIA_TYPE),
        (fields(("Content-Type", "text/plain"), length("5")), (1, 1), Reason.MEDIA_TYPE),
        (fields(("Content-Type", "application/json, text/plain"), length("5")), (1, 1), Reason.MEDIA_TYPE),
        (fields(("Content-Type", "application/jsonp"), length("5")), (1, 1), Reason.MEDIA_TYPE),
        (
            fields(("Content-Type", "application/json; charset=utf-16"), length("5")),
            (1, 1),
            Reason.MEDIA_TYPE,
        ),
        (fields(("Content-Type", "application/json; charset="), length("5")), (1, 1), Reason.MEDIA_TYPE),
        (fields(JSON, length("5"), ("Content-Encoding", "gzip")), (1, 1), Reason.MEDIA_TYPE),
        (fields(JSON, length("5"), ("Content-Encoding", "identity, gzip")), (1, 1), Reason.MEDIA_TYPE),
        (fields(JSON, length("5"), ("Expect", "200-ok")), (1, 1), Reason.EXPECTATION_FAILED),
        (fields(JSON, length("5"), ("Expect", "")), (1, 1), Reason.EXPECTATION_FAILED),
    ],
)
def test_a_body_that_two_readers_would_frame_differently_is_refused(
    headers: Headers, version: tuple[int, int], expected: Reason
) -> None:
    """RFC 9112 6.1 to 6.3: request smuggling lives here; design section 4 for size, coding and type."""
    assert no(lambda: body(headers, version)).reason is expected


def test_a_body_has_one_charset() -> None:
    """RFC 9110 5.6.6: a parameter that comes twice is read differently by different readers."""
    twice = fields(("Content-Type", "application/json; charset=utf-16; charset=utf-8"), length("5"))
    assert no(lambda: body(twice, HTTP_1_1)).reason is Reason.MEDIA_TYPE


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        (fields(), True),
        (fields(length("0")), True),
        (fields(("Upgrade", "h2c")), True),
        (fields(length("1")), False),
        (fields(length("")), False),
        (fields(length("00")), False),
        (fields(CHUNKED), False),
        (fields(("Transfer-Encoding", "")), False),
        (fields(("Upgrade", "WebSocket")), False),
    ],
)
def test_what_nobody_reads_nobody_sends(headers: Headers, passes: bool) -> None:
    """RFC 9110 9.3.1: content in a GET has no meaning and is used to smuggle requests."""
    if passes:
        gate().no_body(headers)
    else:
        assert no(lambda: gate().no_body(headers)).reason is Reason.MALFORMED


A = ("Origin", "https://a.example")


def test_only_a_listed_origin_may_read_answers() -> None:
    """Trap 37: browsers need the fields exposed; a page of our own authority needs no CORS."""
    door = gate(origins=["https://a.example"])
    assert door.cors(fields(A)) == [
        (b"Access-Control-Allow-Origin", b"https://a.example"),
        (b"Access-Control-Expose-Headers", b"Mcp-Session-Id, WWW-Authenticate"),
        (b"Vary", b"Origin"),
    ]
    assert door.cors(fields()) == []
    assert door.cors(fields(("Origin", "http://127.0.0.1:8080"))) == []


def test_a_browser_that_asks_first_is_told_what_it_may_send() -> None:
    """Trap 37: preflight without credentials; `mcp-param-*` has no wildcard of its own, so it is echoed."""
    door = gate(origins=["https://a.example"])
    asking = fields(
        A,
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "content-type, Mcp-Param-City,x-evil, mcp-param-\u00e9z"),
    )
    assert door.preflight(asking, b"GET, POST") == [
        *door.cors(asking),
        (b"Access-Control-Allow-Methods", b"GET, POST"),
        (
            b"Access-Control-Allow-Headers",
            b"authorization, content-type, accept, mcp-protocol-version, mcp-method, mcp-name, mcp-session-id, "
            b"last-event-id, mcp-param-city",
        ),
        (b"Access-Control-Max-Age", b"600"),
    ]
    assert door.preflight(fields(A), b"POST") is None
    assert door.preflight(fields(("Access-Control-Request-Method", "POST")), b"POST") is None


@pytest.mark.parametrize(
    ("target", "passes"),
    [
        ("https://127.0.0.1:8080/mcp", True),
        ("HTTPS://127.0.0.1:8080/mcp", True),
        ("http://127.0.0.1:8080/mcp", False),
        ("https://127.0.0.1/mcp", False),
    ],
)
def test_a_whole_url_behind_tls_is_https(target: str, passes: bool) -> None:
    """RFC 9112 section 3.2.2 and RFC 9110 section 7.4: a request for another scheme's origin is misdirected."""
    if passes:
        assert tls_gate().target(target, fields(), HTTP_1_1) == Target("/mcp", "")
    else:
        refused = no(lambda: tls_gate().target(target, fields(), HTTP_1_1))
        assert refused.reason is Reason.HOST_NOT_ALLOWED


@pytest.mark.parametrize(
    ("origin", "passes"), [("https://127.0.0.1:8080", True), ("http://127.0.0.1:8080", False)]
)
def test_a_page_that_came_without_tls_is_another_origin(origin: str, passes: bool) -> None:
    """RFC 6454: whoever sits on the wire can write such a page."""
    if passes:
        tls_gate().target("/mcp", fields(("Origin", origin)), HTTP_1_1)
    else:
        refused = no(lambda: tls_gate().target("/mcp", fields(("Origin", origin)), HTTP_1_1))
        assert refused.reason is Reason.ORIGIN_NOT_ALLOWED


def test_odd_bytes_in_a_key_are_for_whoever_reads_keys() -> None:
    """Corpus AUTH-110: a bad credential is 401. Such a header ends here, so nobody else can read it differently."""
    headers = Headers([(b"Host", b"127.0.0.1"), (b"X-API-Key", b"\xff\xfe")])
    assert no(lambda: gate().target("/mcp", headers, HTTP_1_1)).reason is Reason.MALFORMED
    knowing = Gate(hosts=(), origins=(), address_host="127.0.0.1", keys=("X-API-Key",))
    assert knowing.target("/mcp", headers, HTTP_1_1).path == "/mcp"
