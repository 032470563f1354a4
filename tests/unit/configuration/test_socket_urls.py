"""URLs of servers that listen on a file: one spelling each, and what is told of every other."""

from __future__ import annotations

import pytest

from proxy.configuration.mistakes import Unfit
from proxy.configuration.socket_urls import LONGEST, as_http, check_server_url, socket_of, url_of_socket

LONG = "/" + "x" * (LONGEST - 1)


def refusal(text: str) -> str | None:
    try:
        check_server_url(text)
    except Unfit as unfit:
        return unfit.why
    return None


ENCODED = "the file's name is percent-encoded, but for letters, digits and ._~-"
STANDS = "the file stands where a host would, and its slashes are %2F"
SPELLINGS = "//, a slash at the end, . and .. give one file several spellings"
UNNEEDED = "letters, digits and ._~- are not percent-encoded"
ABSTRACT = "an abstract socket has no permissions, and is open to all containers of a pod"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("http://127.0.0.1:8000/mcp", None),
        ("https://tools.example.com", None),
        ("http+unix://%2Frun%2Fmcp.sock/mcp", None),
        ("http+unix://%2frun%2fmcp.sock/mcp", None),
        ("http+unix://%2Frun%2Fmcp.sock", None),
        ("http+unix://%2Frun%2Fmcp.sock?key=a", None),
        ("http+unix://%2Frun%2Fmy%20server%3A1.sock/sse", None),
        (url_of_socket(LONG, "/mcp"), None),
        (url_of_socket(LONG + "x", "/mcp"), f"the system takes at most {LONGEST} bytes"),
        # As others write it.
        ("unix:///run/mcp.sock", STANDS),
        ("unix:/run/mcp.sock", STANDS),
        ("http://unix:/run/mcp.sock:/mcp", STANDS),
        ("http+unix:///run/mcp.sock/mcp", STANDS),
        ("HTTP+UNIX://%2Frun%2Fmcp.sock/mcp", STANDS),
        ("http+unix://", STANDS),
        ("https+unix://%2Frun%2Fmcp.sock/mcp", "what is said over a file needs no TLS"),
        ("http+unix://run/mcp.sock", "it must begin with /"),
        ("http+unix://.%2Fmcp.sock/mcp", "it must begin with /"),
        # Other names for a file, or for none.
        ("http+unix://%2Frun%2F..%2Fmcp.sock/mcp", SPELLINGS),
        ("http+unix://%2Frun%2F.%2Fmcp.sock/mcp", SPELLINGS),
        ("http+unix://%2Frun%2F%2Fmcp.sock/mcp", SPELLINGS),
        ("http+unix://%2Frun%2F/mcp", SPELLINGS),
        ("http+unix://%2Frun%2Fm%63p.sock/mcp", UNNEEDED),
        ("http+unix://%00mcp/mcp", ABSTRACT),
        ("http+unix://%40mcp/mcp", ABSTRACT),
        ("http+unix://%2Frun%2Fmcp%00.sock/mcp", "only printable ASCII may stand in it"),
        ("http+unix://%2Frun%2Fmcp%0A.sock/mcp", "only printable ASCII may stand in it"),
        ("http+unix://%2Frun%2Fm%C3%A7p.sock/mcp", "only printable ASCII may stand in it"),
        ("http+unix://%2Frun%2Fm%FFp.sock/mcp", "only printable ASCII may stand in it"),
        # What is no part of it.
        ("http+unix://user:pass@%2Frun%2Fmcp.sock/mcp", ENCODED),
        ("http+unix://%2Frun%2Fmcp.sock:80/mcp", ENCODED),
        ("http+unix://%2Frun%2Fmcp.sock%/mcp", ENCODED),
        ("http+unix://%2Frun%2Fmcp.sock%2/mcp", ENCODED),
        ("http+unix://%2Frun%2Fmçp.sock/mcp", ENCODED),
        ("http+unix://%2Frun%2Fmcp sock/mcp", ENCODED),
        ("http+unix://%2Frun%2Fmcp.sock/mcp#x", "a fragment is never sent"),
        ("http+unix://%2Frun%2Fmcp.sock/m cp", "only the characters of RFC 3986 may stand in it"),
        ("http+unix://%2Frun%2Fmcp.sock/\r\nX: y", "only the characters of RFC 3986 may stand in it"),
        ("http+unix://%2Frun%2Fmcp.sock/mcp\n", "only the characters of RFC 3986 may stand in it"),
        (" http+unix://%2Frun%2Fmcp.sock/mcp", "it must begin with http:// or https://"),
        ("unix", "it must begin with http:// or https://"),
    ],
)
def test_a_file_is_named_in_one_way(text: str, why: str | None) -> None:
    """issue 10, 2: one form, strict; unix(7) for names, RFC 3986 sections 2.1 and 6.2.2 for spellings."""
    assert refusal(text) == why


@pytest.mark.parametrize("file", ["/run/mcp.sock", "/a b/%2F:@?#[x].sock", LONG])
def test_a_file_comes_out_as_it_went_in(file: str) -> None:
    url = url_of_socket(file, "/mcp?a=%20")
    check_server_url(url)
    assert socket_of(url) == file
    assert as_http(url) == "http://localhost:80/mcp?a=%20"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000/mcp", "https://unix/%2Frun", "http://a/http+unix://b/"]
)
def test_other_urls_name_no_file(url: str) -> None:
    assert socket_of(url) is None
    assert as_http(url) == url
