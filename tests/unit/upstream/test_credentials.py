"""What of a request ends at us, and what we add to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.configuration.mistakes import Unfit
from proxy.settings import load
from proxy.upstream.credentials import OwnFields, Stops

ALWAYS = [
    "authorization",
    "cookie",
    "host",
    "origin",
    "x-forwarded-for",
    "x-forwarded-email",
    "forwarded",
    "x_tenant",
]
SPOOFED = [
    *(
        "x-principal",
        "x-auth-request-email",
        "x-forwarded-email",
        "x-forwarded-for",
        "x-forwarded-client-cert",
    ),
    *(
        "x-mcp-authorized",
        "x-internal-request",
        "x-user-id",
        "remote-user",
        "x-tenant-id",
        "x-goog-iap-jwt-assertion",
    ),
    *(
        "x-ms-client-principal-id",
        "cf-access-jwt-assertion",
        "x-amzn-oidc-data",
        "ssl-client-cert",
        "x-roles",
    ),
]
PASSES = [
    "accept",
    "content-type",
    "mcp-session-id",
    "mcp-protocol-version",
    "traceparent",
    "user-agent",
    "x-mcp-readonly",
]


def stops(name: str, **words: object) -> bool:
    return Stops(replaced=[b"X-Own"], **words)(name.encode())  # type: ignore[arg-type]  # words of the test


@pytest.mark.parametrize("name", ALWAYS)
@pytest.mark.parametrize("is_authenticated", [True, False])
def test_these_end_here_whoever_calls(name: str, is_authenticated: bool) -> None:
    """MCP basic/authorization: tokens MUST NOT be passed on; protocol.md 8."""
    assert stops(name, is_authenticated=is_authenticated)


@pytest.mark.parametrize("name", SPOOFED)
def test_nobody_sends_the_name_of_a_verified_identity(name: str) -> None:
    """Corpus AUTH-117 to AUTH-125."""
    assert stops(name, is_authenticated=True)


@pytest.mark.parametrize("name", ["x-principal", "x-user-id", "x-auth-request-email"])
def test_where_nobody_proves_anything_a_gateway_before_us_may_have(name: str) -> None:
    """Design 1 (1): transparent unless a rule matched."""
    assert not stops(name, is_authenticated=False)


@pytest.mark.parametrize("name", PASSES)
def test_everything_else_passes(name: str) -> None:
    """Design 1 (1); x-mcp-readonly tells some servers to do less."""
    assert not stops(name, is_authenticated=True)


def test_keys_and_what_we_replace_end_here() -> None:
    """Issue 3, 7: the credential stops here, in whichever header it stands."""
    assert stops("x-api-key", keys=["X-API-Key"])
    assert not stops("x-api-key")
    assert stops("x-own")


def test_only_authorization_may_be_forwarded() -> None:
    """`forward_client_authorization` opens one door: not cookies, not keys."""
    assert not stops("authorization", forward_authorization=True)
    assert stops("cookie", forward_authorization=True)
    assert stops("x-api-key", forward_authorization=True, keys=["X-API-Key"])
    own = Stops(replaced=[b"Authorization"], forward_authorization=True)
    assert own(b"authorization")


def own_fields(path: Path) -> OwnFields:
    settings = load(
        None,
        overrides=[
            "upstream.url=http://127.0.0.1:9/mcp",
            f'upstream.headers={{"Authorization": "Bearer ${{file:{path}}}", "X-Kind": "plain"}}',
        ],
        environ={},
    )
    return OwnFields(settings.upstream.headers)


def test_our_credential_is_read_again_when_its_file_changes(tmp_path: Path) -> None:
    """Issue 3, 7: rotated secrets need no restart."""
    file = tmp_path / "token"
    file.write_text("one\n", encoding="utf-8")
    own = own_fields(file)
    assert own.files == {str(file)}
    assert own.fields.pairs == ((b"Authorization", b"Bearer one"), (b"X-Kind", b"plain"))
    file.write_text("two\n", encoding="utf-8")
    own.renew()
    assert own.fields.pairs == ((b"Authorization", b"Bearer two"), (b"X-Kind", b"plain"))


@pytest.mark.parametrize("content", ["a\nb", "ü", None])
def test_a_bad_new_credential_keeps_the_old_one(tmp_path: Path, content: str | None) -> None:
    """Bad input gets a clear error and loses nothing."""
    file = tmp_path / "token"
    file.write_text("one", encoding="utf-8")
    own = own_fields(file)
    file.unlink() if content is None else file.write_text(content, encoding="utf-8")
    with pytest.raises(Unfit):
        own.renew()
    assert own.fields[0] == (b"Authorization", b"Bearer one")
