"""Where the server lives, and which of its references stay within its origin."""

import pytest

from proxy.secret import Secret
from proxy.upstream.origin import Origin
from proxy.upstream.settings import UpstreamSettings


def origin(url: str = "http://127.0.0.1:8000/deep/mcp") -> Origin:
    return Origin(UpstreamSettings(url=url, headers={"X-Key": Secret("k")}))


@pytest.mark.parametrize(
    ("reference", "target"),
    [
        ("//example.com/mcp", None),
        ("https://127.0.0.1:8000/mcp", None),
        ("http://127.0.0.1:8001/mcp", None),
        ("http://user@127.0.0.1:8000/mcp", None),
        ("http://127.0.0.1:8000.example.com/", None),
        ("file:///etc/passwd", None),
        ("http://127.0.0.1:8000", "/"),
        ("/mcp/", "/mcp/"),
        ("messages?s=1", "/deep/messages?s=1"),
        ("?s=1", "/deep/mcp?s=1"),
        ("../x#fragment", "/x"),
    ],
)
def test_only_what_stays_within_the_origin_is_a_target(reference: str, target: str | None) -> None:
    """design section 4, upstream: no redirects across origins; trap 12: nor endpoints."""
    assert origin().resolve("/deep/mcp", reference) == target


@pytest.mark.parametrize(
    ("reference", "target"),
    [
        ("http://localhost/messages?s=1", "/messages?s=1"),
        ("messages?s=1", "/deep/messages?s=1"),
        ("http://127.0.0.1/messages", None),
        ("http://localhost:80/messages", "/messages"),
        ("http://localhost:81/messages", None),
        ("https://localhost/messages", None),
        ("http+unix://%2Frun%2Fmcp.sock/messages", None),
        ("http+unix://%2Frun%2Fother.sock/messages", None),
    ],
)
def test_a_server_on_a_file_is_called_localhost(reference: str, target: str | None) -> None:
    """issue 10, 2. The server's references are made of the Host that it was asked by."""
    where = origin("http+unix://%2Frun%2Fmcp.sock/deep/mcp?b=2")
    assert (where.host, where.target) == (b"localhost:80", "/deep/mcp?b=2")
    assert where.resolve("/deep/mcp", reference) == target


def test_what_is_no_url_is_told_apart() -> None:
    """RFC 3986: an unclosed bracket is no host."""
    with pytest.raises(ValueError, match="IPv6"):
        origin().resolve("/mcp", "http://[")


@pytest.mark.parametrize(
    ("url", "query", "target"),
    [
        ("http://h:1", "", "/"),
        ("http://h:1/mcp", "a=1", "/mcp?a=1"),
        ("http://h:1/mcp?b=2", "a=1&a=2", "/mcp?b=2&a=1&a=2"),
        ("http://h:1/mcp?b=2", "", "/mcp?b=2"),
    ],
)
def test_a_clients_query_goes_behind_our_own(url: str, query: str, target: str) -> None:
    """Own promise: the query is forwarded as it came, and cannot replace what the operator wrote."""
    where = origin(url)
    assert where.with_query(query) == target
    assert (where.host, where.own.fields.pairs) == (b"h:1", ((b"X-Key", b"k"),))
