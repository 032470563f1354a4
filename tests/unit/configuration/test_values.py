"""Texts that become addresses, hosts, origins, paths and URLs; each hostile spelling is refused with its reason."""

import copy
import pickle
from collections.abc import Callable

import pytest

from proxy.configuration.mistakes import Unfit
from proxy.configuration.values import (
    Address,
    check_host_name,
    check_http_url,
    check_origin,
    check_path,
    may_meet,
    url_host_and_port,
    url_path,
)


def refusal(check: Callable[[str], object], text: str) -> str | None:
    """Why the check refuses, or None where it does not."""
    try:
        check(text)
    except Unfit as unfit:
        return unfit.why
    return None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "the host is missing"),
        (":8080", "the host is missing"),
        ("8080", "a host that ends in a number must be an IPv4 address"),
        ("localhost", "the port is missing"),
        ("127.0.0.1", "the port is missing"),
        ("[::1]", "the port is missing"),
        ("127.0.0.1:", "the port must be a number from 0 to 65535"),
        ("127.0.0.1:65536", "the port must be a number from 0 to 65535"),
        ("127.0.0.1:99999999999999999999", "the port must be a number from 0 to 65535"),
        ("127.0.0.1:-1", "the port must be a number from 0 to 65535"),
        ("127.0.0.1:+80", "the port must be a number from 0 to 65535"),
        ("127.0.0.1:080", "the port must be a number from 0 to 65535"),
        ("127.0.0.1:8_0", "the port must be a number from 0 to 65535"),
        ("127.0.0.1:８０", "the port must be a number from 0 to 65535"),
        ("127.0.0.1:http", "the port must be a number from 0 to 65535"),
        ("127.0.0.1:80 ", "the port must be a number from 0 to 65535"),
        ("127.0.0.1:80\n", "the port must be a number from 0 to 65535"),
        (" 127.0.0.1:80", "a host that ends in a number must be an IPv4 address"),
        ("127.1:80", "a host that ends in a number must be an IPv4 address"),
        ("0:80", "a host that ends in a number must be an IPv4 address"),
        ("2130706433:80", "a host that ends in a number must be an IPv4 address"),
        ("0x7f000001:80", "a host that ends in a number must be an IPv4 address"),
        ("0x7f.1:80", "a host that ends in a number must be an IPv4 address"),
        ("127.0.0.01:80", "a host that ends in a number must be an IPv4 address"),
        ("127.0.0.1.:80", "a host that ends in a number must be an IPv4 address"),
        ("256.0.0.1:80", "a host that ends in a number must be an IPv4 address"),
        ("::1:8080", "an IPv6 address needs brackets"),
        ("[::1:8080", "the brackets of an IPv6 address are not closed"),
        ("[::1]8080", "the brackets of an IPv6 address are not closed"),
        ("[::1]]:8080", "the brackets of an IPv6 address are not closed"),
        ("[127.0.0.1]:80", "the text in brackets is not an IPv6 address"),
        ("[fe80::1%eth0]:80", "the text in brackets is not an IPv6 address"),
        ("[]:80", "the text in brackets is not an IPv6 address"),
        ("*:80", "* is no host"),
        ("a b:80", "the host is neither a name nor an IP address"),
        ("-a:80", "the host is neither a name nor an IP address"),
        ("a..b:80", "the host is neither a name nor an IP address"),
        ("bücher.example:80", "the host is neither a name nor an IP address"),
        ("http://a:80", "an IPv6 address needs brackets"),
        ("a" * 64 + ":80", "the host is neither a name nor an IP address"),
        ("a." * 127 + "a:80", "the host is neither a name nor an IP address"),
    ],
)
def test_an_address_is_host_and_port_and_nothing_else(text: str, why: str) -> None:
    """A spelling that two readers take for two addresses is refused (WHATWG URL, "ends in a number")."""
    assert refusal(Address.parse, text) == why


@pytest.mark.parametrize(
    ("text", "host", "port", "is_loopback"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080, True),
        ("127.255.0.9:0", "127.255.0.9", 0, True),
        ("localhost:80", "localhost", 80, True),
        ("LOCALHOST.:80", "LOCALHOST.", 80, True),
        ("[::1]:8080", "::1", 8080, True),
        ("[0:0::1]:8080", "0:0::1", 8080, True),
        ("[::ffff:127.0.0.1]:8080", "::ffff:127.0.0.1", 8080, True),
        ("[::ffff:10.0.0.1]:8080", "::ffff:10.0.0.1", 8080, False),
        ("0.0.0.0:65535", "0.0.0.0", 65535, False),
        ("[::]:1", "::", 1, False),
        ("10.0.0.1:1", "10.0.0.1", 1, False),
        ("localhost.example.com:1", "localhost.example.com", 1, False),
        ("127.0.0.1.example.com:1", "127.0.0.1.example.com", 1, False),
        ("my_host-1:1", "my_host-1", 1, False),
        ("a." * 126 + "a:1", "a." * 126 + "a", 1, False),
    ],
)
def test_an_address_gives_its_text_back(text: str, host: str, port: int, is_loopback: bool) -> None:
    """Only what cannot leave the machine is loopback: it needs no authenticator."""
    address = Address.parse(text)
    assert (address.host, address.port, address.is_loopback) == (host, port, is_loopback)
    assert str(address) == text
    assert address == Address(host, port)
    assert {address, Address(host, port)} == {address}
    assert pickle.loads(pickle.dumps(address)) == copy.deepcopy(address) == address


def test_an_address_never_changes() -> None:
    """It is a key and is shared by houses that outlive a reload."""
    address = Address("127.0.0.1", 1)
    with pytest.raises(AttributeError):
        address.port = 2
    with pytest.raises(AttributeError):
        del address.host
    assert address != Address("127.0.0.1", 2)
    assert address != "127.0.0.1:1"


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("127.0.0.1:80", "127.0.0.1:80", True),
        ("localhost:80", "127.0.0.1:80", True),
        ("[::1]:80", "[0:0::1]:80", True),
        ("0.0.0.0:80", "127.0.0.1:80", True),
        ("127.0.0.1:80", "[::]:80", True),
        ("A.example:80", "a.example.:80", True),
        ("127.0.0.1:80", "127.0.0.1:81", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
        ("127.0.0.1:80", "127.0.0.2:80", False),
        ("0.0.0.0:80", "tools.example:80", False),
    ],
)
def test_addresses_that_name_one_socket_meet(one: str, other: str, meet: bool) -> None:
    """Two listeners on one socket, or a proxy that calls itself, are found before they start."""
    assert may_meet(Address.parse(one), Address.parse(other)) is meet
    assert may_meet(Address.parse(other), Address.parse(one)) is meet


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("tools.example.com", None),
        ("localhost", None),
        ("10.0.0.1", None),
        ("::1", None),
        ("[::1]", None),
        ("", "the host is missing"),
        ("*", "* would let every name in, and DNS rebinding with it"),
        ("*.example.com", "the host is neither a name nor an IP address"),
        ("tools.example.com:443", "names are compared without their port"),
        ("[::1]:443", "names are compared without their port"),
        ("https://tools.example.com", "a Host header has neither scheme nor path"),
        ("tools.example.com/", "a Host header has neither scheme nor path"),
        ("127.1", "a host that ends in a number must be an IPv4 address"),
        ("a@b", "the host is neither a name nor an IP address"),
        ("a\r\nb", "the host is neither a name nor an IP address"),
    ],
)
def test_an_allowed_host_is_a_name_alone(text: str, why: str | None) -> None:
    """design section 3: `allowed_hosts` are names without port."""
    assert refusal(check_host_name, text) == why


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("https://tools.example.com", None),
        ("https://tools.example.com:8443", None),
        ("http://localhost:3000", None),
        ("http://127.0.0.1:80808", "the port must be a number from 0 to 65535"),
        ("http://[::1]:3000", None),
        ("vscode-webview://abc", None),
        ("*", "* would let every web page in"),
        ("null", "every sandboxed page sends null"),
        ("", "the scheme is missing"),
        ("tools.example.com", "the scheme is missing"),
        ("//tools.example.com", "the scheme is missing"),
        ("https:/tools.example.com", "the scheme is missing"),
        ("https://tools.example.com/", "an origin ends after the host or port"),
        ("https://tools.example.com?x", "an origin ends after the host or port"),
        ("https://tools.example.com#", "an origin ends after the host or port"),
        ("https://u:p@tools.example.com", "an origin holds no user"),
        ("https://Tools.example.com", "browsers send origins in lower case"),
        ("HTTPS://tools.example.com", "browsers send origins in lower case"),
        ("https://tools.example.com:443", "browsers leave :443 out for https"),
        ("http://tools.example.com:80", "browsers leave :80 out for http"),
        ("https://tools.example.com:", "the port must be a number from 0 to 65535"),
        ("https://*.example.com", "the host is neither a name nor an IP address"),
        ("https://", "the host is missing"),
        ("https://a b", "the host is neither a name nor an IP address"),
        ("https://a\n", "the host is neither a name nor an IP address"),
        (" https://a", "the scheme is missing"),
        ("https://a,https://b", "an origin ends after the host or port"),
    ],
)
def test_an_origin_is_what_a_browser_sends(text: str, why: str | None) -> None:
    """RFC 6454 section 6.1: an entry that no browser sends would only look like protection."""
    assert refusal(check_origin, text) == why


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("/mcp", None),
        ("/", None),
        ("/mcp/", None),
        ("/a.b/~c/@d:e;f=g,(h)!$&'*+_-", None),
        ("/..a/b..", None),
        ("", "it must begin with /"),
        ("mcp", "it must begin with /"),
        ("http://a/mcp", "it must begin with /"),
        ("/mcp?x", "a query or fragment is no part of it"),
        ("/mcp#x", "a query or fragment is no part of it"),
        ("//mcp", "// is read as / by some servers"),
        ("/mcp//", "// is read as / by some servers"),
        ("/./mcp", "dot segments are resolved away by clients"),
        ("/mcp/..", "dot segments are resolved away by clients"),
        ("/a/../mcp", "dot segments are resolved away by clients"),
        ("/%6dcp", "percent escapes give one path two spellings"),
        ("/%2e%2e/mcp", "percent escapes give one path two spellings"),
        ("/m cp", "only the characters of RFC 3986 paths may stand in it"),
        ("/mcp\n", "only the characters of RFC 3986 paths may stand in it"),
        ("/mcp\\", "only the characters of RFC 3986 paths may stand in it"),
        ("/{tail}", "only the characters of RFC 3986 paths may stand in it"),
        ("/mcp\x00", "only the characters of RFC 3986 paths may stand in it"),
        ("/mçp", "only the characters of RFC 3986 paths may stand in it"),
    ],
)
def test_a_path_has_one_spelling(text: str, why: str | None) -> None:
    """What is compared exactly must not be reachable by another spelling (RFC 3986 section 6.2.2)."""
    assert refusal(check_path, text) == why


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("http://127.0.0.1:8000/mcp", None),
        ("https://tools.example.com", None),
        ("http://[::1]:8000/mcp?x=%20y", None),
        ("", "it must begin with http:// or https://"),
        ("127.0.0.1:8000", "it must begin with http:// or https://"),
        ("/mcp", "it must begin with http:// or https://"),
        ("ftp://a/", "it must begin with http:// or https://"),
        ("file:///etc/passwd", "it must begin with http:// or https://"),
        ("HTTP://a/", "it must begin with http:// or https://"),
        ("http:a", "it must begin with http:// or https://"),
        (" http://a/", "it must begin with http:// or https://"),
        ("http:///mcp", "the host is missing"),
        ("http://:80/mcp", "the host is missing"),
        ("http://user:pass@a/", "credentials in a URL end up in logs"),
        ("http://token@a/", "credentials in a URL end up in logs"),
        ("http://a/#", "a fragment is never sent"),
        ("http://a/mcp#x", "a fragment is never sent"),
        ("http://a:0/", "nobody listens on port 0"),
        ("http://a:99999/", "the port must be a number from 0 to 65535"),
        ("http://a:/", "the port must be a number from 0 to 65535"),
        ("http://127.1/", "a host that ends in a number must be an IPv4 address"),
        ("http://::1/", "the host is missing"),
        ("http://a b/", "only the characters of RFC 3986 may stand in it"),
        ("http://a/\r\nX: y", "only the characters of RFC 3986 may stand in it"),
        ("http://a/\t", "only the characters of RFC 3986 may stand in it"),
        ("http://a\\@b/", "only the characters of RFC 3986 may stand in it"),
        ("http://bücher/", "only the characters of RFC 3986 may stand in it"),
    ],
)
def test_an_upstream_url_is_absolute_and_holds_no_credentials(text: str, why: str | None) -> None:
    """RFC 3986; design section 4: one origin, our credential in a header."""
    assert refusal(check_http_url, text) == why


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("http://127.0.0.1:8000/mcp", "127.0.0.1", 8000, "/mcp"),
        ("http://a", "a", 80, ""),
        ("https://a/sse?x=/y", "a", 443, "/sse"),
        ("https://[::1]/", "::1", 443, "/"),
    ],
)
def test_a_url_is_taken_apart(url: str, host: str, port: int, path: str) -> None:
    """The parts that other files ask for."""
    assert (*url_host_and_port(url), url_path(url)) == (host, port, path)
