"""Would a wrong client notice? The authorization server of the tests refuses what a real one refuses."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import jwt
import pytest

from tests.authorization_server import AuthorizationServer, User, authorization_server, challenge_of

HOME = "http://127.0.0.1:1/callback"
"""Where clients want to be redirected to. Nobody goes there."""

RESOURCE = "http://127.0.0.1:2/mcp"
VERIFIER = "v" * 43


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclasses.dataclass
class Agent:
    """A client by the book; what a test gives by name is sent instead, None leaves a parameter out."""

    http: aiohttp.ClientSession
    server: AuthorizationServer
    id: str = ""
    secret: str = ""

    async def registered(self, **other: object) -> dict[str, Any]:
        wanted = {
            "redirect_uris": [HOME],
            "grant_types": ["authorization_code", "refresh_token"],
            "token_endpoint_auth_method": "client_secret_post",
        }
        async with self.http.post(f"{self.server.issuer}/register", json=wanted | other) as answer:
            said: dict[str, Any] = await answer.json()
        self.id, self.secret = said.get("client_id", ""), said.get("client_secret", "")
        return said

    async def authorized(self, **other: str | None) -> dict[str, str]:
        """What came back on the redirect; {"status", "error"} when there was none."""
        query = {
            "response_type": "code",
            "client_id": self.id,
            "redirect_uri": HOME,
            "state": "where I was",
            "code_challenge": challenge_of(VERIFIER),
            "code_challenge_method": "S256",
            "scope": "read write",
            "resource": RESOURCE,
        }
        url = f"{self.server.issuer}/authorize"
        async with self.http.get(url, params=_without_none(query | other), allow_redirects=False) as answer:
            if answer.status != 302:
                return {"status": str(answer.status), "error": (await answer.json())["error"]}
            location = answer.headers["Location"]
        assert location.startswith(f"{HOME}?")
        return {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}

    async def token(self, grant: str = "authorization_code", /, **other: str | None) -> dict[str, Any]:
        form = {"grant_type": grant, "client_id": self.id, "client_secret": self.secret}
        if grant == "authorization_code":
            form |= {"redirect_uri": HOME, "code_verifier": VERIFIER, "resource": RESOURCE}
        return await self.posted("token", **(form | other))

    async def posted(self, path: str, **form: str | None) -> dict[str, Any]:
        async with self.http.post(f"{self.server.issuer}/{path}", data=_without_none(form)) as answer:
            said = await answer.json() if answer.content_type == "application/json" else {}
            return {"status": answer.status, **said}

    async def began(self) -> dict[str, Any]:
        """Everything once, by the book."""
        await self.registered()
        return await self.token(code=(await self.authorized())["code"])


def _without_none(values: dict[str, Any]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None}


@asynccontextmanager
async def started(algorithm: Any = "ES256", clock: Clock | None = None) -> AsyncIterator[Agent]:
    async with (
        authorization_server(algorithm, now=clock or Clock()) as server,
        aiohttp.ClientSession() as http,
    ):
        yield Agent(http, server)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def agent(clock: Clock) -> AsyncIterator[Agent]:
    async with started(clock=clock) as agent:
        yield agent


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
async def test_a_token_says_who_for_whom_and_how_long(algorithm: str) -> None:
    """RFC 9068 section 2.2; signed with what /jwks publishes."""
    async with started(algorithm) as agent:
        agent.server.users = {"alice": User(tenant="blue", roles=("reader",))}
        got = await agent.began()
        async with agent.http.get(agent.server.jwks_url) as answer:
            keys = jwt.PyJWKSet.from_dict(await answer.json())

    text = got["access_token"]
    head = jwt.get_unverified_header(text)
    claims = jwt.decode(
        text,
        keys[head["kid"]],
        algorithms=[algorithm],
        audience=RESOURCE,
        issuer=agent.server.issuer,
        options={"verify_exp": False},
    )
    assert head == {"typ": "at+jwt", "alg": algorithm, "kid": f"{algorithm}-1"}
    assert len(claims.pop("jti")) == 32
    assert claims == {
        "iss": agent.server.issuer,
        "sub": "alice",
        "aud": RESOURCE,
        "client_id": agent.id,
        "tenant": "blue",
        "scope": "read write",
        "roles": ["reader"],
        "iat": 1_700_000_000,
        "exp": 1_700_003_600,
    }
    assert (got["token_type"], got["expires_in"], got["scope"]) == ("Bearer", 3600, "read write")


@pytest.mark.parametrize("path", ["oauth-authorization-server", "openid-configuration"])
async def test_metadata_names_the_issuer_and_working_endpoints(agent: Agent, path: str) -> None:
    """RFC 8414 section 3.3, OpenID Connect Discovery 1.0."""
    async with agent.http.get(f"{agent.server.issuer}/.well-known/{path}") as answer:
        said = await answer.json()

    assert said["issuer"] == agent.server.issuer
    assert said["code_challenge_methods_supported"] == ["S256"]
    assert said["authorization_response_iss_parameter_supported"] is True
    named = {
        key: urlsplit(said[f"{key}_endpoint"]).path for key in ("authorization", "token", "registration")
    }
    assert named == {"authorization": "/authorize", "token": "/token", "registration": "/register"}
    async with agent.http.get(said["jwks_uri"]) as answer:
        assert [key["use"] for key in (await answer.json())["keys"]] == ["sig"]


async def test_the_redirect_says_state_and_issuer(agent: Agent) -> None:
    """RFC 6749 section 4.1.2 and RFC 9207."""
    await agent.registered()

    back = await agent.authorized()

    assert len(back.pop("code")) >= 32
    assert back == {"state": "where I was", "iss": agent.server.issuer}


async def test_whoever_sits_there_is_the_subject(agent: Agent) -> None:
    await agent.registered()

    await agent.token(code=(await agent.authorized(login_hint="bob"))["code"])

    assert agent.server.issued[-1].claims["sub"] == "bob"


async def test_nobody_gives_scopes_away_that_are_not_theirs(agent: Agent) -> None:
    agent.server.users["alice"] = User(scopes=frozenset({"read"}))

    assert (await agent.began())["scope"] == "read"


@pytest.mark.parametrize(
    ("other", "error"),
    [
        ({"client_id": "nobody"}, "invalid_client"),
        ({"redirect_uri": f"{HOME}/elsewhere"}, "invalid_redirect_uri"),
        ({"redirect_uri": None}, "invalid_redirect_uri"),
    ],
)
async def test_nothing_is_sent_to_an_unknown_redirect_uri(
    agent: Agent, other: dict[str, str | None], error: str
) -> None:
    """RFC 6749 section 4.1.2.1: an open redirector otherwise."""
    await agent.registered()

    assert await agent.authorized(**other) == {"status": "400", "error": error}


@pytest.mark.parametrize(
    ("other", "error"),
    [
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"login_hint": "eve"}, "access_denied"),
        ({"resource": "mcp"}, "invalid_target"),
        ({"resource": f"{RESOURCE}#part"}, "invalid_target"),
    ],
)
async def test_a_bad_question_gets_no_code(agent: Agent, other: dict[str, str | None], error: str) -> None:
    """OAuth 2.1 section 4.1.2.1 and RFC 8707 section 2."""
    await agent.registered()

    back = await agent.authorized(**other)

    assert (back["error"], back["state"], "code" in back) == (error, "where I was", False)


@pytest.mark.parametrize(
    ("other", "status", "error"),
    [
        ({"code_verifier": "w" * 43}, 400, "invalid_grant"),
        ({"code_verifier": None}, 400, "invalid_grant"),
        ({"redirect_uri": "http://127.0.0.1:1/other"}, 400, "invalid_grant"),
        ({"code": "guessed"}, 400, "invalid_grant"),
        ({"resource": "http://127.0.0.1:3/mcp"}, 400, "invalid_target"),
        ({"client_secret": "guessed"}, 401, "invalid_client"),
        ({"client_secret": None}, 401, "invalid_client"),
        ({"client_id": "nobody"}, 401, "invalid_client"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"grant_type": "client_credentials"}, 400, "unauthorized_client"),
    ],
)
async def test_a_code_alone_is_worth_nothing(
    agent: Agent, other: dict[str, str | None], status: int, error: str
) -> None:
    """OAuth 2.1 sections 4.1.3 and 3.2.4, RFC 8707 section 2."""
    await agent.registered()
    code = (await agent.authorized())["code"]

    got = await agent.token(**({"code": code} | other))

    assert (got["status"], got["error"], "access_token" in got) == (status, error, False)
    assert agent.server.issued == []


async def test_a_client_proves_itself_in_its_one_way(agent: Agent) -> None:
    """RFC 7591 section 2, token_endpoint_auth_method: the secret is right and in the wrong place."""
    await agent.registered(token_endpoint_auth_method="client_secret_basic")

    got = await agent.token(code=(await agent.authorized())["code"])

    assert (got["status"], got["error"]) == (401, "invalid_client")


async def test_a_code_belongs_to_one_client(agent: Agent) -> None:
    """OAuth 2.1 section 4.1.3."""
    await agent.registered()
    code = (await agent.authorized())["code"]
    await agent.registered()

    assert (await agent.token(code=code))["error"] == "invalid_grant"


async def test_a_code_is_good_for_a_minute(agent: Agent, clock: Clock) -> None:
    await agent.registered()
    code = (await agent.authorized())["code"]
    clock.now += 61

    assert (await agent.token(code=code))["error"] == "invalid_grant"


async def test_a_code_used_twice_ends_what_came_of_it(agent: Agent) -> None:
    """OAuth 2.1 section 4.1.3: then it is in two hands."""
    await agent.registered()
    code = (await agent.authorized())["code"]
    first = await agent.token(code=code)

    second = await agent.token(code=code)

    assert (first["status"], second["status"], second["error"]) == (200, 400, "invalid_grant")
    assert not agent.server.is_active(first["access_token"])
    assert (await agent.token("refresh_token", refresh_token=first["refresh_token"]))["status"] == 400


async def test_a_refresh_token_gives_the_same_grant_and_a_new_refresh_token(agent: Agent) -> None:
    first = await agent.began()

    second = await agent.token("refresh_token", refresh_token=first["refresh_token"])

    old, new = (access.claims for access in agent.server.issued)
    same = ("iss", "sub", "aud", "client_id", "tenant", "scope")
    assert [old[name] for name in same] == [new[name] for name in same]
    assert old["jti"] != new["jti"]
    assert second["refresh_token"] != first["refresh_token"]
    assert (agent.server.authorized, agent.server.refreshed) == (1, 1)


async def test_a_refresh_token_used_twice_ends_the_grant(agent: Agent) -> None:
    """OAuth 2.1 section 4.3.1."""
    first = await agent.began()
    second = await agent.token("refresh_token", refresh_token=first["refresh_token"])

    again = await agent.token("refresh_token", refresh_token=first["refresh_token"])
    after = await agent.token("refresh_token", refresh_token=second["refresh_token"])

    assert [again["error"], after["error"]] == ["invalid_grant", "invalid_grant"]


async def test_a_machine_gets_a_token_for_itself(agent: Agent) -> None:
    """OAuth 2.1 section 4.2, with HTTP Basic."""
    machine = agent.server.add_client()
    basic = {"Authorization": aiohttp.encode_basic_auth(machine.id, machine.secret or "")}
    form = {"grant_type": "client_credentials", "resource": RESOURCE, "scope": "read"}

    async with agent.http.post(f"{agent.server.issuer}/token", data=form, headers=basic) as answer:
        got = await answer.json()

    assert (answer.status, "refresh_token" in got) == (200, False)
    claims = agent.server.issued[-1].claims
    assert (claims["sub"], claims["aud"], claims["scope"]) == (machine.id, RESOURCE, "read")


async def test_tokens_live_as_long_as_tests_want(agent: Agent) -> None:
    agent.server.lifetime_s = 7

    got = await agent.began()

    claims = agent.server.issued[-1].claims
    assert (claims["exp"] - claims["iat"], got["expires_in"]) == (7, 7)


async def test_a_revoked_or_expired_token_is_not_active(agent: Agent, clock: Clock) -> None:
    """RFC 7662 section 2.2 and RFC 7009."""
    agent.server.is_opaque = True
    got = await agent.began()
    mine = {"client_id": agent.id, "client_secret": agent.secret, "token": got["access_token"]}

    alive = await agent.posted("introspect", **mine)
    assert (alive["active"], alive["sub"], alive["aud"]) == (True, "alice", RESOURCE)
    assert (await agent.posted("introspect", **(mine | {"token": "guessed"})))["active"] is False
    assert (await agent.posted("introspect", **(mine | {"client_secret": "x"})))["status"] == 401
    await agent.posted("revoke", **mine)
    assert (await agent.posted("introspect", **mine))["active"] is False

    other = agent.server.mint(resource=RESOURCE)
    assert (await agent.posted("introspect", **(mine | {"token": other.text})))["active"] is True
    clock.now += agent.server.lifetime_s
    assert (await agent.posted("introspect", **(mine | {"token": other.text})))["active"] is False


async def test_it_remembers_every_credential_it_gave_out(agent: Agent) -> None:
    """Own promise: leaks are looked for by this list."""
    got = await agent.began()

    kept = agent.server.credentials
    assert {got["access_token"], got["refresh_token"], agent.secret} <= set(kept)
    assert len(kept) == len(set(kept)) == 4  # the fourth is the code


async def test_tests_can_wait_for_a_refresh(agent: Agent) -> None:
    first = await agent.began()

    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(agent.server.when(lambda server: server.refreshed == 1))
        await asyncio.sleep(0)
        assert not waiting.done()
        await agent.token("refresh_token", refresh_token=first["refresh_token"])

    assert agent.server.refreshed == 1


@pytest.mark.parametrize(
    ("other", "error"),
    [
        ({"redirect_uris": []}, "invalid_redirect_uri"),
        ({"redirect_uris": [f"{HOME}#part"]}, "invalid_redirect_uri"),
        ({"token_endpoint_auth_method": "tls_client_auth"}, "invalid_client_metadata"),
    ],
)
async def test_a_client_that_could_not_work_is_not_registered(
    agent: Agent, other: dict[str, object], error: str
) -> None:
    """RFC 7591 section 3.2.2."""
    assert (await agent.registered(**other))["error"] == error


async def test_a_public_client_needs_no_secret(agent: Agent) -> None:
    """OAuth 2.1 section 2.4: PKCE is its proof."""
    said = await agent.registered(token_endpoint_auth_method="none")

    got = await agent.token(code=(await agent.authorized())["code"], client_secret=None)

    assert ("client_secret" in said, got["status"]) == (False, 200)


async def test_parameters_sent_twice_are_refused(agent: Agent) -> None:
    """RFC 6749 section 3.2."""
    await agent.registered()
    form = [("grant_type", "authorization_code"), ("grant_type", "refresh_token"), ("client_id", agent.id)]

    async with agent.http.post(f"{agent.server.issuer}/token", data=form) as answer:
        assert (answer.status, (await answer.json())["error"]) == (400, "invalid_request")
