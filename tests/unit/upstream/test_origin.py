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
