"""What a client is told that has no good credential, byte for byte."""

import re

import pytest

from proxy.identity.challenges import Challenges
from proxy.identity.settings import (
    ApiKeySettings,
    AuthenticatorSettings,
    IdentitySettings,
    JwtSettings,
    MtlsSettings,
)
from proxy.model import Reason, Refused

RESOURCE = "https://tools.example.com/mcp"
METADATA = "https://tools.example.com/.well-known/oauth-protected-resource/mcp"
JWT = JwtSettings(issuer="i", jwks_url="https://i/jwks")


def challenge(
    refused: Refused, *authenticators: AuthenticatorSettings, resource: str | None = RESOURCE
) -> str:
    challenges = Challenges(IdentitySettings(resource=resource, authenticators=authenticators))
    [(name, value)] = challenges(refused).headers
    assert name == b"WWW-Authenticate"
    return value.decode("ascii")


def test_whoever_presents_nothing_learns_where_the_document_is() -> None:
    """RFC 9728 section 5.1; RFC 6750 section 3.1: no error code for a request without a token."""
    assert challenge(Refused(Reason.NO_CREDENTIAL), JWT) == f'Bearer resource_metadata="{METADATA}"'


def test_whoever_presented_a_token_learns_that_it_is_invalid() -> None:
    """RFC 6750 section 3.1."""
    refused = Refused(Reason.BAD_CREDENTIAL, "The token has expired.")
    assert challenge(refused, JWT) == (
        f'Bearer resource_metadata="{METADATA}", error="invalid_token", '
        'error_description="The token has expired."'
    )


def test_a_missing_scope_is_asked_for() -> None:
    """MCP 2025-11-25 basic/authorization, "Runtime Insufficient Scope Errors"."""
    refused = Refused(Reason.SCOPE_MISSING, scopes=["mcp:call", "tools.admin"])
    assert challenge(refused, JWT) == (
        f'Bearer resource_metadata="{METADATA}", scope="mcp:call tools.admin", error="insufficient_scope"'
    )


def test_scopes_every_token_needs_are_asked_for_at_once() -> None:
    """2025-11-25: the first challenge SHOULD name the scopes."""
    jwt = JwtSettings(issuer="i", jwks_url="https://i/jwks", required_scopes=("a", "b"))
    other = JwtSettings(issuer="j", jwks_url="https://j/jwks", required_scopes=("b", "c"))
    assert 'scope="a b c"' in challenge(Refused(Reason.NO_CREDENTIAL), jwt, other)


@pytest.mark.parametrize("reason", [Reason.NO_CREDENTIAL, Reason.BAD_CREDENTIAL])
@pytest.mark.parametrize(
    ("authenticator", "expected"),
    [
        (ApiKeySettings(keys_file="k"), 'ApiKey realm="mcp-sidecar", header="X-API-Key"'),
        (ApiKeySettings(keys_file="k", header="Authorization"), 'Bearer realm="mcp-sidecar"'),
        (MtlsSettings(tenant="t"), 'TLS-Client-Certificate realm="mcp-sidecar"'),
    ],
)
def test_without_oauth_nothing_points_to_a_document(
    reason: Reason, authenticator: AuthenticatorSettings, expected: str
) -> None:
    """protocol.md 6.2: whatever looks like OAuth starts a bogus flow."""
    assert challenge(Refused(reason), authenticator) == expected


@pytest.mark.parametrize("reason", [Reason.IDP_UNAVAILABLE, Reason.NOT_ALLOWED, Reason.SESSION_UNKNOWN])
def test_other_refusals_carry_no_challenge(reason: Reason) -> None:
    """IdP trouble is 503: a challenge would send the client for a new token."""
    challenges = Challenges(IdentitySettings(resource=RESOURCE, authenticators=(JWT,)))
    assert challenges(Refused(reason)).headers == ()


@pytest.mark.parametrize(
    ("resource", "document"),
    [
        ("https://h/mcp", "https://h/.well-known/oauth-protected-resource/mcp"),
        ("https://h/p/mcp/", "https://h/.well-known/oauth-protected-resource/p/mcp"),
        ("https://h", "https://h/.well-known/oauth-protected-resource"),
        ("http://127.0.0.1:8080/sse", "http://127.0.0.1:8080/.well-known/oauth-protected-resource/sse"),
    ],
)
def test_the_document_lies_between_host_and_path(resource: str, document: str) -> None:
    """RFC 9728 section 3.1."""
    assert f'"{document}"' in challenge(Refused(Reason.NO_CREDENTIAL), JWT, resource=resource)


def test_a_text_cannot_add_a_parameter() -> None:
    """SDK clients search the header with regular expressions (protocol.md 6.2)."""
    refused = Refused(Reason.BAD_CREDENTIAL, 'a" scope="x\\')
    assert re.findall(r'scope="', challenge(refused, JWT)) == []
