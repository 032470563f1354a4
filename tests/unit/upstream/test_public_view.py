"""What lies at the server's address lies at ours, for clients; what lies elsewhere stays there."""

from __future__ import annotations

import pytest

from proxy.upstream.public_view import PublicView, is_about_issuer

SERVER = "http://127.0.0.1:8000/v1/mcp"
PUBLIC = "https://tools.example.com/mcp"
WELL_KNOWN = "/.well-known/oauth-protected-resource"


@pytest.fixture
def view() -> PublicView:
    return PublicView(SERVER, PUBLIC)


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("http://127.0.0.1:8000/token", "https://tools.example.com/token"),
        ("http://localhost:8000", "https://tools.example.com"),
        ("http://[::1]:8000/", "https://tools.example.com/"),
        ("HTTP://LocalHost:8000/a?b#c", "https://tools.example.com/a?b#c"),
    ],
)
def test_the_servers_own_urls_are_ours(view: PublicView, url: str, seen: str) -> None:
    """A server beside us calls itself by any of the names of its machine."""
    assert view.url(url) == seen


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1:8000/token",
        "http://127.0.0.1:8001/token",
        "http://127.0.0.1/token",
        "http://127.0.0.2:8000/token",
        "http://login.example.com/token",
        "http://user@127.0.0.1:8000/token",
        "http://127.0.0.1:8000@evil.example/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:8000\\@evil.example/",
        "http://127.0.0.1:8000/ with a space",
        "http://[::1",
        "ftp://127.0.0.1:8000/",
        "//127.0.0.1:8000/",
        "/token",
        "",
        "http://",
        PUBLIC,
    ],
)
def test_everybody_elses_stay(view: PublicView, url: str) -> None:
    assert view.url(url) == url
    assert view.metadata_url(url) == url


def test_the_port_of_a_scheme_need_not_be_written() -> None:
    view = PublicView("http://server:80/mcp", PUBLIC)
    assert view.url("http://server/token") == "https://tools.example.com/token"


def test_other_loopback_addresses_are_other_servers() -> None:
    view = PublicView("http://127.0.0.2:8000/mcp", PUBLIC)
    assert view.url("http://localhost:8000/token") == "http://localhost:8000/token"


@pytest.mark.parametrize(
    ("there", "here"),
    [
        (f"{WELL_KNOWN}/v1/mcp", f"{WELL_KNOWN}/mcp"),
        (WELL_KNOWN, WELL_KNOWN),
        ("/custom/document.json", "/custom/document.json"),
        ("/.well-known/oauth-authorization-server/v1/mcp", "/.well-known/oauth-authorization-server/mcp"),
        ("/.well-known/openid-configuration/v1/mcp", "/.well-known/openid-configuration/mcp"),
        ("/v1/mcp/.well-known/openid-configuration", "/mcp/.well-known/openid-configuration"),
    ],
)
def test_well_known_paths_follow_the_endpoint(view: PublicView, there: str, here: str) -> None:
    """RFC 9728 and 8414, 3.1: clients put the well-known part before the path they were given."""
    assert view.path_here(there) == here
    assert view.path_there(here) == there
    assert view.metadata_url(f"http://localhost:8000{there}?a=b") == f"https://tools.example.com{here}?a=b"


def test_clients_look_in_two_places(view: PublicView) -> None:
    assert view.resource_paths == {WELL_KNOWN, f"{WELL_KNOWN}/mcp"}


@pytest.mark.parametrize(
    ("resource", "seen"),
    [
        ("http://127.0.0.1:8000/v1/mcp", PUBLIC),
        ("http://localhost:8000/v1/mcp/", PUBLIC),
        ("http://localhost:8000/v1", PUBLIC),
        ("http://localhost:8000", PUBLIC),
        ("http://localhost:8000/v1/mc", "http://localhost:8000/v1/mc"),
        ("http://localhost:8000/other", "http://localhost:8000/other"),
        ("https://evil.example.com/v1/mcp", "https://evil.example.com/v1/mcp"),
        ("https://tools.example.com/", "https://tools.example.com/"),
        (None, None),
        (["http://localhost:8000"], ["http://localhost:8000"]),
    ],
)
def test_a_resource_is_ours_only_where_clients_of_the_server_would_take_it(
    view: PublicView, resource: object, seen: object
) -> None:
    """Else we would hide from our clients that the document speaks of another resource (RFC 9728, 3.3)."""
    assert view.document({"resource": resource}) == {"resource": seen}


def test_a_document_names_us_wherever_it_named_the_server(view: PublicView) -> None:
    document: dict[str, object] = {
        "resource": "http://127.0.0.1:8000/v1/mcp",
        "authorization_servers": ["http://localhost:8000/oauth", "https://login.example.com", 7],
        "jwks_uri": "http://127.0.0.1:8000/keys",
        "scopes_supported": ["a", "b"],
        "tls_client_certificate_bound_access_tokens": False,
        "resource_name": "http://127.0.0.1:8000 is my address",
    }
    assert view.document(document) == {
        **document,
        "resource": PUBLIC,
        "authorization_servers": ["https://tools.example.com/oauth", "https://login.example.com", 7],
        "jwks_uri": "https://tools.example.com/keys",
    }


def test_signed_metadata_goes_where_something_changed(view: PublicView) -> None:
    """RFC 9728, 2.2: its claims take precedence, and they name the server."""
    assert "signed_metadata" not in view.document(
        {"issuer": "http://localhost:8000", "signed_metadata": "e30"}
    )
    kept = {"issuer": "https://login.example.com", "signed_metadata": "e30"}
    assert view.document(kept) == kept


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/.well-known/oauth-authorization-server", True),
        ("/.well-known/oauth-authorization-server/tenant/a", True),
        ("/.well-known/openid-configuration", True),
        ("/.well-known/openid-configuration/tenant", True),
        ("/tenant/.well-known/openid-configuration", True),
        ("/.well-known/oauth-authorization-servers", False),
        ("/.well-known/openid-configuration-2", False),
        ("/.well-known/oauth-protected-resource", False),
        ("/.well-known/jwks.json", False),
        ("/", False),
    ],
)
def test_where_authorization_servers_describe_themselves(path: str, answer: bool) -> None:
    assert is_about_issuer(path) is answer
