"""Does a credential ever leave us? One run of good and bad requests, and then a look through all that came of it.

Looked through: every log line, every byte that clients got, every byte that the server got, what the operations
port said, and what the process printed. Looked for: every token (whole, its parts, and how those begin), every
key, and every secret of the settings.
"""

from __future__ import annotations

import base64
import hmac
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.authorization_server import AuthorizationServer, authorization_server
from tests.integration.client import Cut, connected
from tests.integration.house import Sidecar, sidecar
from tests.integration.upstream import Exchange, Upstream
from tests.integration.waiting import within
from tests.integration.wire import LEGACY, MODERN, Answer, fields_for, message, request, result, tool_call

RESOURCE = "http://127.0.0.1:1/mcp"

BEGINS = 12
"""Characters that are no coincidence: 72 bits of base64."""

BREAKS = "break"
"""A tool whose server leaves in the middle of its answer."""


class World:
    """Who issues, what callers hold, and what the settings hide."""

    def __init__(self, directory: Path, reads: AuthorizationServer, asked: AuthorizationServer) -> None:
        self._directory = directory
        self._reads, self._asked = reads, asked
        self._us = asked.add_client()
        self._pepper = secrets.token_bytes(32)
        self._key_secret = secrets.token_urlsafe(32)
        asked.is_opaque = True
        self.ours = secrets.token_urlsafe(32)
        """What we present to the server: seen there and nowhere else."""
        self.good = {
            "jwt": self._reads.mint(resource=RESOURCE).text,
            "opaque": self._asked.mint(resource=RESOURCE, scopes=("read",)).text,
            "key": f"billing.{self._key_secret}",
        }
        self.unanswered = secrets.token_urlsafe(32)
        """Presented when nobody can tell whether it is good."""
        self.bad = {**self._bad_jwts(), **self._bad_opaques(), **self._bad_keys()}

    def _bad_jwts(self) -> dict[str, str]:
        reads, gone = self._reads, ec.generate_private_key(ec.SECP256R1())
        head, claims, signature = reads.mint(resource=RESOURCE).text.split(".")
        _, other_claims, _ = reads.mint("bob", resource=RESOURCE).text.split(".")
        padded = f"{head}.{claims}.{signature}=="
        past = int(time.time()) - 86_400
        return {
            "expired": reads.mint(resource=RESOURCE, iat=past, exp=past + 60).text,
            "for another": reads.mint(resource="http://127.0.0.1:2/mcp").text,
            "without tenant": reads.mint(resource=RESOURCE, tenant=None).text,
            "of no string": reads.mint(resource=RESOURCE, sub=["alice"]).text,
            "forged": f"{head}.{other_claims}.{signature}",
            "padded": padded,
            "unsigned": f"{jwt.encode({'iss': reads.issuer}, '', algorithm='none')}{signature}",
            "of whom nobody knows the keys": jwt.encode(
                {"iss": "https://gone.example", "sub": "alice", "tenant": "acme"}, gone, "ES256", {"kid": "k"}
            ),
            "of a stranger": jwt.encode({"iss": "https://stranger.example", "sub": "alice"}, gone, "ES256"),
        }

    def _bad_opaques(self) -> dict[str, str]:
        revoked = self._asked.mint(resource=RESOURCE, scopes=("read",)).text
        self._asked.revoke(revoked)
        return {
            "revoked": revoked,
            "guessed": secrets.token_urlsafe(32),
            "too little": self._asked.mint(resource=RESOURCE, scopes=("write",)).text,
            "asked for another": self._asked.mint(resource="http://127.0.0.1:2/mcp", scopes=("read",)).text,
        }

    def _bad_keys(self) -> dict[str, str]:
        return {
            "wrong key": f"billing.{secrets.token_urlsafe(32)}",
            "unknown key": f"nobody.{secrets.token_urlsafe(32)}",
            "no key": secrets.token_urlsafe(32),
        }

    def settings(self) -> list[str]:
        ways: list[dict[str, object]] = [
            {"kind": "jwt", "issuer": self._reads.issuer, "jwks_url": self._reads.jwks_url},
            # Its keys cannot be had: with every token of this issuer something goes wrong on our side.
            {"kind": "jwt", "issuer": "https://gone.example", "jwks_url": "http://127.0.0.1:1/jwks"},
            {
                "kind": "introspection",
                "url": self._asked.introspection_url,
                "issuer": self._asked.issuer,
                "client_id": self._us.id,
                "client_secret": self._file("client_secret", self._us.secret or ""),
                "required_scopes": ["read"],
            },
            {"kind": "api_key", "keys_file": str(self._directory / "keys.yaml")},
        ]
        entry = {"id": "billing", "hash": f"hmac-sha256:{self._hash}", "tenant": "acme", "subject": "billing"}
        self._file("keys.yaml", json.dumps({"version": 1, "pepper": self._shown_pepper, "keys": [entry]}))
        return [
            f"identity.resource={RESOURCE}",
            f"identity.authenticators={json.dumps(ways)}",
            "identity.failed_attempts.most=100000",
            f"upstream.headers.X-Upstream-Key={self._file('upstream_key', self.ours)}",
        ]

    def _file(self, name: str, text: str) -> str:
        path = self._directory / name
        path.write_text(text, encoding="utf-8")
        return f"${{file:{path}}}"

    @property
    def _hash(self) -> str:
        return hmac.new(self._pepper, self._key_secret.encode(), "sha256").hexdigest()

    @property
    def _shown_pepper(self) -> str:
        return base64.urlsafe_b64encode(self._pepper).decode().rstrip("=")

    @property
    def kept(self) -> dict[str, str]:
        """What the settings hide, in every form it has on a wire."""
        basic = base64.b64encode(f"{self._us.id}:{self._us.secret}".encode()).decode()
        return {
            "client_secret": self._us.secret or "",
            "client_secret as Basic": basic,
            "pepper": self._shown_pepper,
            "hash of a key": self._hash,
        }


def traces(credential: str) -> Iterator[str]:
    """What a credential would be recognised by."""
    for part in {credential, *credential.split(".")}:
        if len(part) >= BEGINS:
            yield part
            yield part[:BEGINS]


def found(credentials: dict[str, str], where: str, text: str) -> list[str]:
    """Each credential of which there is a trace."""
    return [
        f"{name}: in {where}"
        for name, credential in credentials.items()
        if any(trace in text for trace in traces(credential))
    ]


def called(*extra: tuple[str, str], target: str = "/mcp", tool: str = "echo") -> bytes:
    body = tool_call(tool=tool)
    return request("POST", target, [*fields_for(body, LEGACY), *extra], body)


def bearer(token: str) -> tuple[str, str]:
    return "Authorization", f"Bearer {token}"


def where_it_belongs(name: str, credential: str) -> tuple[str, str]:
    return ("X-API-Key", credential) if "key" in name else bearer(credential)


def everywhere(name: str, credential: str) -> Iterator[bytes]:
    """Requests that present one credential, rightly and in wrong ways."""
    own = where_it_belongs(name, credential)
    body = message("tools/call", MODERN, name="echo", arguments={})
    basic = base64.b64encode(credential.encode()).decode()
    for extra in (
        [own],
        [own, own],
        [bearer(credential), ("X-API-Key", credential)],
        [("Authorization", credential)],
        [("Authorization", f"Bearer {credential}, Bearer {credential}")],
        [("Authorization", f"Token {credential}")],
        [("Authorization", f"Basic {basic}")],
        [("X-API-Key", f"Bearer {credential}")],
        [("Authorization", f"Bearer {credential}\xe9")],
        [("Authorization ", f"Bearer {credential}")],
        [("Authorization", f"Bearer\x01{credential}")],
        [("Authorization", f"Bearer {credential}{'x' * 20_000}")],
        [("Authorization", f"Bearer {credential}{'x' * 200_000}")],
    ):
        yield called(*extra)
    yield called(own, tool=BREAKS)
    yield request("GET", fields=[("Accept", "text/event-stream"), own])
    yield request("DELETE", fields=[own, ("Mcp-Session-Id", "unknown")])
    yield request("PUT", fields=[own], body=b"{}")
    yield request("POST", fields=[own, ("Content-Type", "application/json")], body=b"{")
    yield request("POST", fields=[own, *fields_for(body, MODERN)], body=body)
    yield request("POST", fields=[own, ("Transfer-Encoding", "gzip")])
    for target in (
        f"/mcp?access_token={credential}",
        f"/mcp/{credential}",
        f"http://alice:{credential}@127.0.0.1/mcp",
        f"/.well-known/oauth-protected-resource?access_token={credential}",
    ):
        yield called(own, target=target)
        yield request("GET", target, [own])
    yield called(target=f"/mcp?api_key={credential}")
    yield called(own).replace(b"HTTP/1.1", f"HTTP/1.1 {credential}".encode())


def beside(good: tuple[str, str], credential: str) -> Iterator[bytes]:
    """Requests of a caller who is known, with a credential where none belongs."""
    for name in (
        "Cookie",
        "Proxy-Authorization",
        "X-Forwarded-Authorization",
        "X-Access-Token",
        "X-Auth-Token",
        "X_API_Key",
        "Mcp-Session-Id",
        "Origin",
        "Host",
        "Connection",
        "Content-Type",
        "Content-Encoding",
        "Expect",
        "Upgrade",
    ):
        yield called(good, (name, credential))
    yield request("GET", fields=[good, ("Accept", "text/event-stream"), ("Last-Event-ID", credential)])
    body = message("tools/call", MODERN, name="echo", arguments={})
    for name in ("Mcp-Method", "Mcp-Name"):
        fields = [(key, credential if key == name else value) for key, value in fields_for(body, MODERN)]
        yield request("POST", fields=[good, *fields], body=body)


async def served(exchange: Exchange) -> None:
    """Answers as the server would; leaves in the middle where the tool says so."""
    if exchange.request.method != "POST":
        exchange.answer(b"", status="405 Method Not Allowed", kind="")
        return
    said = json.loads(exchange.request.body)
    if said["params"].get("name") == BREAKS:
        exchange.begin(kind="application/json")
        exchange.chunk(result()[:9])
        exchange.link.close()
        return
    exchange.answer(result(said["id"]))


async def sent_to(port: int, sent: bytes) -> Answer:
    """What came back on a connection of its own; status 0 where it was closed without a word."""
    async with connected(port) as client:
        try:
            return await client.asked(sent)
        except Cut:
            return Answer(status=0, fields=[], body=b"")


@asynccontextmanager
async def started(
    directory: Path, upstream: Upstream
) -> AsyncIterator[tuple[World, Sidecar, AsyncExitStack]]:
    """A sidecar that has the issuer's keys. The stack closes the server that is asked about tokens."""
    async with authorization_server() as reads, AsyncExitStack() as asking:
        world = World(directory, reads, await asking.enter_async_context(authorization_server()))
        upstream.follow(served)
        async with sidecar(upstream.url, *world.settings()) as house:
            async with within():
                while (await sent_to(house.port, called(bearer(world.good["jwt"])))).status == 503:
                    pass
            yield world, house, asking


async def test_no_credential_is_seen_where_it_does_not_belong(
    upstream: Upstream, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Own promise: credentials stop here, and nothing we write or answer holds one."""
    caplog.set_level(logging.DEBUG)
    answers: list[Answer] = []
    async with started(tmp_path, upstream) as (world, house, asking):

        async def ask(sent: bytes) -> int:
            answers.append(await sent_to(house.port, sent))
            return answers[-1].status

        for name, credential in world.good.items():
            assert await ask(called(where_it_belongs(name, credential))) == 200
            for other in world.good.values():
                for sent in beside(where_it_belongs(name, credential), other):
                    await ask(sent)
        for name, credential in {**world.good, **world.bad}.items():
            for sent in everywhere(name, credential):
                await ask(sent)
        await asking.aclose()
        assert await ask(called(bearer(world.unanswered))) == 503
        probes = [(await house.probe(path)).body for path in ("/healthz", "/readyz", "/startupz")]
    out, err = capfd.readouterr()
    logged = json.dumps([house.lines.calls, house.lines.life])
    said = "\n".join([logged, out, err, caplog.text, *(probe.decode() for probe in probes)])
    came_back = "\n".join(f"{each.status} {each.fields} {each.body!r}" for each in answers)
    went_up = b"".join(bytes(link.received) for link in upstream.links).decode("latin-1")

    assert len(house.lines.calls) > len(answers) / 2
    assert world.ours in went_up
    hidden = {**world.good, **world.bad, "unanswered": world.unanswered, **world.kept}
    assert [
        *found(hidden, "what was written", said),
        *found(hidden, "an answer", came_back),
        *found(hidden, "what the server got", went_up),
        *found({"our own": world.ours}, "what was written", said),
        *found({"our own": world.ours}, "an answer", came_back),
    ] == []
