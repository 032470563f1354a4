"""Where the server asks for tokens itself, clients see one resource: the URL they use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.client import Client
from tests.integration.conftest import Connect, OpenSidecar
from tests.integration.house import Sidecar
from tests.integration.upstream import Upstream
from tests.integration.wire import LEGACY, MODERN, Fields, listen, post, request, result, tool_call

PUBLIC = "https://tools.example.com"
RESOURCE = f"identity.resource={PUBLIC}/mcp"
FORWARDS = "upstream.forward_client_authorization=true"
WELL_KNOWN = "/.well-known/oauth-protected-resource"
ISSUER = "/.well-known/oauth-authorization-server"
FORM: Fields = [("Content-Type", "application/x-www-form-urlencoded")]


@pytest.fixture
async def side(open_sidecar: OpenSidecar) -> Sidecar:
    return await open_sidecar(FORWARDS, RESOURCE)


def origin(upstream: Upstream) -> str:
    """As servers write it that listen on their own machine."""
    return f"http://localhost:{upstream.port}"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (post(tool_call()), "401 Unauthorized"),
        (post(tool_call(MODERN), MODERN), "403 Forbidden"),
        (listen(), "401 Unauthorized"),
        (request("DELETE"), "401 Unauthorized"),
    ],
)
async def test_a_challenge_of_the_server_leads_to_us(
    side: Sidecar, client: Client, upstream: Upstream, sent: bytes, status: str
) -> None:
    """Discovery begins at `resource_metadata`, whatever was asked (basic/authorization)."""
    client.send(sent)
    said = 'Bearer error="x", resource_metadata="{}", scope="a b"'
    there = said.format(f"{origin(upstream)}{WELL_KNOWN}/mcp")
    (await upstream.next()).answer(b'{"error": "x"}', f"WWW-Authenticate: {there}", status=status)
    answer = await client.answer()
    assert answer.status == int(status[:3])
    assert answer.get("www-authenticate") == said.format(f"{PUBLIC}{WELL_KNOWN}/mcp")
    assert answer.body == b'{"error": "x"}'
    assert (await side.lines.next_calls())[0]["altered"] == ["challenge"]


async def test_a_client_finds_its_way_from_the_challenge_to_the_call(
    client: Client, upstream: Upstream
) -> None:
    """The document at a path of the server's choice, a token from elsewhere, the call that carries it."""
    client.send(post(tool_call()))
    announced = f'Bearer resource_metadata="{origin(upstream)}/custom/prm.json"'
    (await upstream.next()).answer(b"{}", f"WWW-Authenticate: {announced}", status="401 Unauthorized")
    seen = (await client.answer()).get("www-authenticate")
    assert seen == f'Bearer resource_metadata="{PUBLIC}/custom/prm.json"'

    client.send(request("GET", "/custom/prm.json"))
    asked = await upstream.next()
    document = {"resource": f"{origin(upstream)}/mcp", "authorization_servers": ["https://login.example.com"]}
    asked.answer(json.dumps(document).encode())
    assert (asked.request.method, asked.request.target) == ("GET", "/custom/prm.json")
    assert (await client.answer()).json == {**document, "resource": f"{PUBLIC}/mcp"}

    client.send(post(tool_call(), LEGACY, ("Authorization", "Bearer token")))
    call = await upstream.next()
    call.answer(result())
    assert (await client.answer()).body == result()
    assert call.request.all("authorization") == ["Bearer token"]


async def test_a_server_that_is_its_own_authorization_server(client: Client, upstream: Upstream) -> None:
    """2025-03-26: metadata at the root of the origin, then its endpoints; RFC 9207: the issuer is the same."""
    client.send(request("GET", ISSUER))
    document = {
        "issuer": origin(upstream),
        "authorization_endpoint": f"{origin(upstream)}/oauth/authorize",
        "token_endpoint": f"{origin(upstream)}/oauth/token",
    }
    (await upstream.next()).answer(json.dumps(document).encode())
    assert (await client.answer()).json == {
        "issuer": PUBLIC,
        "authorization_endpoint": f"{PUBLIC}/oauth/authorize",
        "token_endpoint": f"{PUBLIC}/oauth/token",
    }

    client.send(request("GET", "/oauth/authorize?state=s"))
    asked = await upstream.next()
    back = f"http://localhost:3030/cb?code=c&iss=http%3A%2F%2Flocalhost%3A{upstream.port}&state=s"
    asked.answer(b"", f"Location: {back}", status="302 Found", kind="")
    assert asked.request.target == "/oauth/authorize?state=s"
    answer = await client.answer()
    seen = "http://localhost:3030/cb?code=c&iss=https%3A%2F%2Ftools.example.com&state=s"
    assert (answer.status, answer.get("location")) == (302, seen)

    client.send(request("POST", "/oauth/token", [*FORM, ("Authorization", "Basic eDp5")], b"code=c"))
    asked = await upstream.next()
    asked.answer(b'{"access_token": "t"}', "Cache-Control: no-store")
    assert (asked.request.method, asked.request.body) == ("POST", b"code=c")
    assert asked.request.all("authorization") == ["Basic eDp5"]
    assert asked.request.all("content-type") == ["application/x-www-form-urlencoded"]
    assert (await client.answer()).json == {"access_token": "t"}


@pytest.mark.parametrize("there", ["/mcp", "/mcp/", "/MCP"])
async def test_no_document_opens_a_second_door_to_the_server(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, there: str
) -> None:
    """Attack: who can put a document on the server's origin names the server itself as an endpoint, and everybody
    could call it at a page, where nobody is asked for a credential."""
    side = await open_sidecar(FORWARDS, f"identity.resource={PUBLIC}/tools", "listen.path=/tools")
    client = await connect(side.port)
    client.send(request("GET", "/files/mallory/.well-known/openid-configuration"))
    document = {"issuer": "x", "token_endpoint": f"{origin(upstream)}{there}"}
    (await upstream.next()).answer(json.dumps(document).encode())
    assert (await client.answer()).status == 200
    client.send(post(tool_call(), target=there))
    assert (await client.answer()).status == 404
    assert upstream.is_quiet


async def test_what_the_server_has_not_is_not_here(client: Client, upstream: Upstream) -> None:
    """A clean 404 tells clients to look elsewhere; anything else begins a flow or aborts one."""
    client.send(request("GET", WELL_KNOWN))
    (await upstream.next()).answer(b"nothing", status="404 Not Found", kind="text/plain")
    answer = await client.answer()
    assert (answer.status, answer.body) == (404, b"nothing")
    client.send(request("GET", f"{WELL_KNOWN}/mcp"))
    (await upstream.next()).answer(b"<html>welcome", kind="text/html")
    assert (await client.answer()).status == 404


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (request("GET", "/nothing"), 404),
        (request("GET", "/secrets.json"), 404),
        (request("GET", "/.well-known/security.txt"), 404),
        (request("POST", WELL_KNOWN, FORM, b"x"), 405),
        (request("DELETE", "/register"), 405),
        (request("POST", "/token", FORM, b"x" * 70_000), 413),
    ],
)
async def test_nothing_else_of_the_server_is_reached(
    client: Client, upstream: Upstream, sent: bytes, status: int
) -> None:
    assert (await client.asked(sent)).status == status
    assert upstream.is_quiet


INTROSPECTION = (
    '[{{"kind": "introspection", "url": "https://login.example.com/i", "client_id": "x", "tenant": "acme",'
    ' "client_secret": "${{file:{}}}"}}, {{"kind": "anonymous", "tenant": "acme"}}]'
)


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param((RESOURCE,), id="tokens stop here"),
        pytest.param((FORWARDS,), id="no resource"),
        pytest.param(
            (FORWARDS, RESOURCE, f"identity.authenticators={INTROSPECTION}"), id="tokens are for us"
        ),
    ],
)
async def test_elsewhere_the_server_speaks_for_itself(
    open_sidecar: OpenSidecar,
    connect: Connect,
    upstream: Upstream,
    tmp_path: Path,
    overrides: tuple[str, ...],
) -> None:
    """Its challenge is then for us, or we do not know what clients call us."""
    secret = tmp_path / "secret"
    secret.write_text("z", encoding="utf-8")
    side = await open_sidecar(*(each.format(secret) for each in overrides))
    client = await connect(side.port)
    value = f'Bearer resource_metadata="{origin(upstream)}/custom"'
    client.send(post(tool_call()))
    (await upstream.next()).answer(b"{}", f"WWW-Authenticate: {value}", status="401 Unauthorized")
    assert (await client.answer()).get("www-authenticate") == value
    for path in ("/custom", ISSUER, "/token"):
        assert (await (await connect(side.port)).asked(request("GET", path))).status == 404
    assert upstream.is_quiet


async def test_the_server_may_be_gone(client: Client, upstream: Upstream) -> None:
    await upstream.close()
    answer = await client.asked(request("GET", WELL_KNOWN))
    assert answer.status == 502
    await upstream.open()
