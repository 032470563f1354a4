"""Do clients that sign in by themselves notice us? Every test runs against the SDK's own resource server first.

What fails on the route `direct` is a client's doing or the fixture's; what fails on `sidecar` only is ours.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import fastmcp
import httpx2
import pytest
from fastmcp.utilities.tests import HeadlessOAuth
from mcp.client import Client
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.client.streamable_http import streamable_http_client

from proxy.demo.ports import free_address
from tests.authorization_server import Access, AuthorizationServer, authorization_server
from tests.clients.callers import Connect, Mcp1, Storage, Token, mcp2_auto, mcp2_legacy
from tests.clients.guarded import Notes, Served, everything
from tests.integration.house import Sidecar, sidecar
from tests.tools.python_env import mcp1_python

pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")

SIMPLE = "This is a simple text response for testing."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene:
    """A resource, and who issues tokens for it."""

    url: str
    issuer: AuthorizationServer
    upstream: Notes
    """What got through to the server."""
    sidecar: Sidecar | None

    @property
    def origin(self) -> str:
        return self.url.rpartition("/")[0]


def reading(issuer: AuthorizationServer) -> dict[str, object]:
    return {"kind": "jwt", "jwks_url": issuer.jwks_url}


def asking(issuer: AuthorizationServer, directory: str) -> dict[str, object]:
    us = issuer.add_client()
    secret = Path(directory, "client_secret")
    secret.write_text(us.secret or "", encoding="utf-8")
    return {
        "kind": "introspection",
        "url": issuer.introspection_url,
        "client_id": us.id,
        "client_secret": f"${{file:{secret}}}",
        "cache_ttl_s": 0,
    }


@asynccontextmanager
async def scene(
    route: str, served: Served, *more: str, scopes: Sequence[str] = (), asks: bool = False
) -> AsyncIterator[Scene]:
    """With `asks` the resource asks about every token, so that a revoked one is worth nothing at once. `more` are
    settings of the sidecar."""
    async with authorization_server() as issuer:
        if route == "direct":
            async with everything(served, issuer, scopes) as (url, notes):
                yield Scene(url=url, issuer=issuer, upstream=notes, sidecar=None)
            return
        with tempfile.TemporaryDirectory() as directory:
            async with everything(served) as (behind, notes):
                listen = free_address("127.0.0.1:0")
                url = f"http://{listen}{served}"
                overrides = [f"listen.address={listen}", f"identity.resource={url}"]
                way = asking(issuer, directory) if asks else reading(issuer)
                ways = json.dumps([{**way, "issuer": issuer.issuer, "required_scopes": scopes}])
                async with sidecar(behind, *overrides, *more, f"identity.authenticators={ways}") as house:
                    async with asyncio.timeout(5):
                        while (await house.probe("/readyz")).status != 200:  # until it has the issuer's keys
                            pass
                    yield Scene(url=url, issuer=issuer, upstream=notes, sidecar=house)


@pytest.fixture(scope="module")
def mcp1() -> Iterator[Mcp1]:
    caller = Mcp1(mcp1_python())
    yield caller
    caller.stop()


@pytest.fixture(params=["mcp2 auto", "mcp2 legacy", "mcp2 sse", "mcp1 http", "mcp1 sse"])
def client(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def connect(client: str, request: pytest.FixtureRequest) -> Connect:
    if client.startswith("mcp1"):
        mcp1: Mcp1 = request.getfixturevalue("mcp1")
        return mcp1.connected
    return mcp2_auto if client == "mcp2 auto" else mcp2_legacy


@pytest.fixture
def served(client: str) -> Served:
    """Where the client's transport is served."""
    return "/sse" if client.endswith("sse") else "/mcp"


@pytest.fixture(params=["direct", "sidecar"])
def route(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def stored(access: Access) -> Token:
    """What a client kept of an answer of the token endpoint."""
    scope = " ".join(access.grant.scopes)
    return {"access_token": access.text, "token_type": "Bearer", "expires_in": 3600, "scope": scope}


def nothing_leaked(there: Scene) -> bool:
    """No credential that was ever given out went on to the server, where a sidecar stands before it."""
    text = there.upstream.text()
    assert text
    return not [secret for secret in there.issuer.credentials if secret in text]


async def test_a_client_without_a_token_gets_one_and_calls(
    connect: Connect, served: Served, route: str
) -> None:
    """basic/authorization: 401, protected-resource document, authorization server, token, and the call again."""
    async with scene(route, served) as there, connect(there.url) as caller:
        assert await caller.call("test_simple_text") == SIMPLE
        trace = (await caller.trace()).at(there.origin)

    assert [status for _, _, status in trace[:2]] == [401, 200]
    assert trace[1][:2] == ("GET", f"/.well-known/oauth-protected-resource{served}")
    assert there.issuer.authorized == 1
    assert there.issuer.issued[0].claims["aud"] == there.url
    assert nothing_leaked(there) is (route == "sidecar")


async def test_a_refreshed_token_is_the_same_caller(
    connect: Connect, client: str, served: Served, route: str
) -> None:
    """Own promise: sessions, and the streams in them, belong to who calls and not to a token."""
    async with scene(route, served) as there, connect(there.url) as caller:
        await caller.watch()
        await caller.expire()
        assert await caller.call("test_simple_text") == SIMPLE
        await caller.call("test_trigger_resource_change")
        await caller.told()

    assert (there.issuer.authorized, there.issuer.refreshed) == (1, 1)
    assert there.upstream.said.count("initialize") == (0 if client == "mcp2 auto" else 1)
    assert len(there.upstream.sessions) == (1 if client in ("mcp2 legacy", "mcp1 http") else 0)
    assert nothing_leaked(there) is (route == "sidecar")


async def test_a_client_whose_token_is_refused_signs_in_again_and_goes_on(
    connect: Connect, client: str, served: Served, route: str
) -> None:
    """Own promise: a token that is good no more costs a visit to the authorization server, and no session."""
    async with scene(route, served, asks=True) as there, connect(there.url) as caller:
        await caller.watch()
        there.issuer.revoke(there.issuer.issued[0].text)
        assert await caller.call("test_simple_text") == SIMPLE
        await caller.call("test_trigger_resource_change")
        await caller.told()

    assert there.issuer.authorized == 2
    assert there.upstream.said.count("initialize") == (0 if client == "mcp2 auto" else 1)
    assert len(there.upstream.sessions) == (1 if client in ("mcp2 legacy", "mcp1 http") else 0)
    assert nothing_leaked(there) is (route == "sidecar")


@pytest.mark.parametrize("client", ["mcp2 legacy", "mcp1 http"], indirect=True)
async def test_a_stream_that_ends_with_its_token_is_opened_again(connect: Connect, served: Served) -> None:
    """Own promise: identity.stream_grace_s. The one test here that waits for a token to expire."""
    async with scene("sidecar", served, "identity.stream_grace_s=0") as there:
        there.issuer.lifetime_s = 1
        async with connect(there.url) as caller:
            await there.upstream.when(lambda notes: notes.streams == 1)
            there.issuer.lifetime_s = 3600
            await caller.watch()
            await there.upstream.when(lambda notes: notes.streams == 2)
            await caller.call("test_trigger_resource_change")
            await caller.told()

    assert there.issuer.authorized == 1
    assert there.issuer.refreshed >= 1
    assert there.upstream.said.count("initialize") == 1
    assert len(there.upstream.sessions) == 1


async def test_a_token_for_another_resource_makes_a_client_ask_anew(
    connect: Connect, served: Served, route: str
) -> None:
    """basic/authorization: only tokens issued for this resource count (RFC 8707)."""
    async with scene(route, served) as there:
        elsewhere = there.issuer.mint(resource=f"{there.origin}/other")
        async with connect(there.url, token=stored(elsewhere)) as caller:
            assert await caller.call("test_simple_text") == SIMPLE
            trace = (await caller.trace()).at(there.origin)

    assert trace[0][2] == 401
    assert [access.claims["aud"] for access in there.issuer.issued] == [f"{there.origin}/other", there.url]


ASKS_FOR: dict[str, set[str]] = {"mcp1": {"read", "write"}, "mcp2": {"read", "write", "admin"}}
"""By SDK, what a client with scopes read and admin asks for when it is told that read and write are needed:
1.x takes the challenge's words for everything, 2.x keeps what it had (2026-07-28 basic/authorization)."""


async def test_a_client_with_too_few_scopes_steps_up(
    connect: Connect, client: str, served: Served, route: str
) -> None:
    """2025-11-25 basic/authorization: 403 insufficient_scope names what is needed."""
    async with scene(route, served, scopes=("read", "write")) as there:
        little = there.issuer.mint(resource=there.url, scopes=("read", "admin"))
        async with connect(there.url, token=stored(little)) as caller:
            assert await caller.call("test_simple_text") == SIMPLE
            trace = (await caller.trace()).at(there.origin)

    assert trace[0][2] == 403
    assert set(there.issuer.issued[1].grant.scopes) == ASKS_FOR[client[:4]]
    assert len(there.issuer.issued) == 2


async def test_a_client_asks_for_the_scopes_that_are_needed(
    connect: Connect, served: Served, route: str
) -> None:
    """2025-11-25 basic/authorization: `scope` in the challenge or the document, so that nobody steps up at once."""
    async with scene(route, served, scopes=("read", "write")) as there, connect(there.url) as caller:
        assert await caller.call("test_simple_text") == SIMPLE
        trace = (await caller.trace()).at(there.origin)

    assert 403 not in [status for _, _, status in trace]
    assert [access.grant.scopes for access in there.issuer.issued] == [("read", "write")]


TOOLS_LIST = b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}'


def as_bearer(access: Access, **more: str) -> dict[str, str]:
    """What a 2025-11-25 client sends with a message."""
    return {
        "Authorization": f"Bearer {access.text}",
        "MCP-Protocol-Version": "2025-11-25",
        "Accept": "application/json, text/event-stream",
        "Content-Type": "application/json",
        **more,
    }


async def test_a_session_is_unknown_to_everybody_else(route: str) -> None:
    """basic/security_best_practices, session hijacking: an id that was overheard opens nothing, and tells nothing."""
    async with (
        scene(route, "/mcp") as there,
        mcp2_legacy(there.url, person="alice") as caller,
        httpx2.AsyncClient(verify=False) as http,
    ):
        await caller.call("test_simple_text")
        (session,) = there.upstream.sessions
        posted = there.upstream.posted
        bob = there.issuer.mint("bob", resource=there.url)
        foreign, made_up = [
            [
                await http.request(
                    method, there.url, headers=as_bearer(bob, **{"Mcp-Session-Id": id}), content=body
                )
                for method, body in (("POST", TOOLS_LIST), ("GET", b""), ("DELETE", b""))
            ]
            for id in (session, "0" * len(session))
        ]
        if route == "sidecar":
            assert there.upstream.posted == posted
        assert await caller.call("test_simple_text") == SIMPLE

    assert [answer.status_code for answer in foreign] == [404, 404, 404]
    assert [answer.content for answer in foreign] == [answer.content for answer in made_up]


async def test_a_message_address_is_unknown_to_everybody_else(route: str) -> None:
    """2024-11-05 basic/transports: the same for the URI that the endpoint event names."""
    async with (
        scene(route, "/sse") as there,
        mcp2_legacy(there.url, person="alice") as caller,
        httpx2.AsyncClient(verify=False) as http,
    ):
        await caller.call("test_simple_text")
        address = next(
            url for method, url, status in await caller.trace() if (method, status) == ("POST", 202)
        )
        posted = there.upstream.posted
        bob = there.issuer.mint("bob", resource=there.url)
        unknown = address[:-32] + secrets.token_hex(16)
        foreign, made_up = [
            await http.post(url, headers=as_bearer(bob), content=TOOLS_LIST) for url in (address, unknown)
        ]
        if route == "sidecar":
            assert there.upstream.posted == posted
        assert await caller.call("test_simple_text") == SIMPLE

    assert foreign.status_code == 404
    assert foreign.content == made_up.content


async def test_a_machine_signs_in_without_a_user(route: str) -> None:
    """Extension io.modelcontextprotocol/oauth-client-credentials, with the SDK's provider for it."""
    async with scene(route, "/mcp", scopes=("read",)) as there:
        machine = there.issuer.add_client()
        auth = ClientCredentialsOAuthProvider(
            there.url, Storage(), machine.id, machine.secret or "", issuer=there.issuer.issuer
        )
        async with (
            httpx2.AsyncClient(auth=auth, verify=False) as http,
            Client(streamable_http_client(there.url, http_client=http)) as client,
        ):
            result = await client.call_tool("test_simple_text", {})

    assert not result.is_error
    claims = there.issuer.issued[0].claims
    assert (claims["sub"], claims["aud"], claims["scope"]) == (machine.id, there.url, "read")
    assert nothing_leaked(there) is (route == "sidecar")


@pytest.mark.filterwarnings("ignore:Using in-memory token storage")
async def test_fastmcp_signs_in(route: str) -> None:
    """fastmcp.Client with its own provider, whose browser is a plain HTTP client."""
    async with (
        scene(route, "/mcp") as there,
        fastmcp.Client(there.url, auth=HeadlessOAuth(there.url)) as client,
    ):
        result = await client.call_tool("test_simple_text")

    assert not result.is_error
    assert there.issuer.authorized == 1
    assert nothing_leaked(there) is (route == "sidecar")
