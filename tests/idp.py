"""An identity provider for tests, on a real socket of 127.0.0.1: it issues tokens, publishes keys, answers
questions about opaque tokens, and fails as it is told.

    async with Idp() as idp:
        idp.publish("k2", alg="ES256")                 # k1, an RSA key, is published already
        token = idp.token(kid="k2", alg="ES256", sub="bob", tenant=None)
        idp.jwks_answer = Scripted(status=500)         # or held back by an event, or any bytes
        idp.grant("opaque", scope="read")              # known to the introspection endpoint

In: what a test tells it. Out: what came (`fetches`, `introspections`). Keys are made once per process and `kid`.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import functools
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias
from urllib.parse import unquote_plus

import jwt.algorithms
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tests import ledger

PrivateKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

AUDIENCE = "https://tools.example.com/mcp"
LIFETIME_S = 600
LONGEST_S = 5.0

_CURVES: Mapping[str, ec.EllipticCurve] = {
    "ES256": ec.SECP256R1(),
    "ES384": ec.SECP384R1(),
    "ES512": ec.SECP521R1(),
}


def key_for(kid: str, alg: str) -> PrivateKey:
    """A private key that `alg` can sign with, the same whenever `kid` is the same."""
    # RSA keys take a tenth of a second each; RS256 and PS512 share one.
    return _made(kid, alg if alg in _CURVES or alg == "EdDSA" else "RSA")


@functools.cache
def _made(kid: str, kind: str) -> PrivateKey:
    if kind == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if kind in _CURVES:
        return ec.generate_private_key(_CURVES[kind])
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def jwk_of(key: PrivateKey) -> dict[str, Any]:
    """The public half as RFC 7517 writes it, without kid, alg and use."""
    public = key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        said = jwt.algorithms.RSAAlgorithm.to_jwk(public, as_dict=True)
        return {name: said[name] for name in ("kty", "n", "e")}
    if isinstance(public, ec.EllipticCurvePublicKey):
        return dict(jwt.algorithms.ECAlgorithm.to_jwk(public, as_dict=True))
    return dict(jwt.algorithms.OKPAlgorithm.to_jwk(public, as_dict=True))


def b64(value: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def signed(header: bytes, payload: bytes, alg: str, key: PrivateKey | bytes) -> str:
    """A token of any bytes whatever. `none`: an empty signature; HS…: `key` is the shared secret."""
    text = f"{b64(header)}.{b64(payload)}"
    if alg == "none":
        return f"{text}."
    signature = jwt.get_algorithm_by_name(alg).sign(text.encode(), key)
    return f"{text}.{b64(signature)}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scripted:
    """An answer that a test has written; None: what the provider would say by itself."""

    status: int | None = None
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    body: bytes | None = None
    hold: asyncio.Event | None = None
    """The answer waits until this is set."""


class Idp:
    """Listens on a port of its own while inside `async with`."""

    def __init__(
        self,
        *,
        issuer: str | None = None,
        audience: str = AUDIENCE,
        client_id: str = "sidecar",
        client_secret: str = "s3cret: ü",  # not to be guessed right without RFC 6749's encoding
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.port = 0
        self.audience = audience
        self.client_id = client_id
        self.client_secret = client_secret
        self.jwks: dict[str, dict[str, Any]] = {}
        """The published keys by kid."""
        self.jwks_answer: Scripted | None = None
        self.fetches = 0
        """How often the keys were asked for, answered or not."""
        self.tokens: dict[str, dict[str, Any]] = {}
        """What is known of opaque tokens, beside `active: true`."""
        self.introspection_answer: Scripted | None = None
        self.introspections: list[str] = []
        """The tokens that were asked about, in order."""
        self._issuer = issuer
        self._wall = wall
        self._keys: dict[str, PrivateKey] = {}
        self._came = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self.publish("k1")

    async def __aenter__(self) -> Idp:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; on the port of the last time, where there was one."""
        app = web.Application()
        app.router.add_get("/jwks", self._answer_jwks)
        app.router.add_post("/introspect", self._answer_introspection)
        # Who goes down does not wait for who is being answered. (0 would mean for ever.)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Hang up, on everybody at once: nobody listens on the port any more."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def issuer(self) -> str:
        return self._issuer or self.url

    @property
    def jwks_url(self) -> str:
        return f"{self.url}/jwks"

    @property
    def introspection_url(self) -> str:
        return f"{self.url}/introspect"

    def publish(
        self, kid: str, key: PrivateKey | None = None, *, alg: str | None = None, **extra: Any
    ) -> None:
        """Publish a key: the given one, or one for `alg`, or an RSA key without `alg`.

        `extra` are members of the published key; None removes one.
        """
        key = key or key_for(kid, alg or "RS256")
        members = {**jwk_of(key), "kid": kid, "use": "sig", "alg": alg, **extra}
        self._keys[kid] = key
        self.jwks[kid] = _without_none(members)

    def withdraw(self, kid: str) -> None:
        del self.jwks[kid]

    def claims(self, **overrides: Any) -> dict[str, Any]:
        """The claims of alice at acme, for ten minutes; None removes one."""
        now = int(self._wall())
        said = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": "alice",
            "tenant": "acme",
            "iat": now,
            "exp": now + LIFETIME_S,
        }
        return _without_none({**said, **overrides})

    def token(
        self,
        *,
        kid: str = "k1",
        alg: str = "RS256",
        key: PrivateKey | bytes | None = None,
        claims: Mapping[str, Any] | None = None,
        header: Mapping[str, Any] | None = None,
        **overrides: Any,
    ) -> str:
        """A signed token: with `key`, else the one published as `kid` where it fits `alg`, else a stranger's.

        `claims` replaces all claims; keyword arguments and `header` change single ones; None removes one.
        HS… need the shared secret as `key`.
        """
        said = _without_none({**claims, **overrides}) if claims is not None else self.claims(**overrides)
        head = _without_none({"typ": "at+jwt", "alg": alg, "kid": kid, **(header or {})})
        if key is None:
            published = self._keys.get(kid)
            key = published if published and _fits(published, alg) else key_for(kid, alg)
        return ledger.secret(signed(json.dumps(head).encode(), json.dumps(said).encode(), alg, key), "token")

    def grant(self, token: str, **overrides: Any) -> dict[str, Any]:
        """Make an opaque token known, with the claims of `claims`; its members, to be changed at will."""
        self.tokens[ledger.secret(token, "opaque token")] = self.claims(**overrides)
        return self.tokens[token]

    def revoke(self, token: str) -> None:
        del self.tokens[token]

    async def fetched(self, count: int) -> None:
        """Wait until the keys have been asked for so often."""
        await self._until(lambda: self.fetches >= count)

    async def introspected(self, count: int) -> None:
        """Wait until so many questions about tokens have come."""
        await self._until(lambda: len(self.introspections) >= count)

    async def _until(self, is_true: Callable[[], bool]) -> None:
        async with asyncio.timeout(LONGEST_S), self._came:
            await self._came.wait_for(is_true)

    async def _answer_jwks(self, request: web.Request) -> web.Response:
        async with self._came:
            self.fetches += 1
            self._came.notify_all()
        document = json.dumps({"keys": list(self.jwks.values())}).encode()
        return await _scripted(self.jwks_answer, 200, document)

    async def _answer_introspection(self, request: web.Request) -> web.Response:
        form = await request.post()
        token = str(form.get("token", ""))
        async with self._came:
            self.introspections.append(token)
            self._came.notify_all()
        if not self._is_our_client(request):
            return await _scripted(self.introspection_answer, 401, b'{"error":"invalid_client"}')
        known = self.tokens.get(token)
        said = {"active": False} if known is None else {"active": True, **known}
        return await _scripted(self.introspection_answer, 200, json.dumps(said).encode())

    def _is_our_client(self, request: web.Request) -> bool:
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        try:
            user, _, secret = base64.b64decode(text, validate=True).decode().partition(":")
        except ValueError:
            return False
        pair = (unquote_plus(user), unquote_plus(secret))
        return scheme == "Basic" and pair == (self.client_id, self.client_secret)


def _fits(key: PrivateKey, alg: str) -> bool:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return alg in _CURVES and key.curve.name == _CURVES[alg].name
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return alg == "EdDSA"
    return alg[:2] in ("RS", "PS")


def _without_none(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


async def _scripted(script: Scripted | None, status: int, body: bytes) -> web.Response:
    if script is None:
        return web.Response(status=status, body=body, content_type="application/json")
    if script.hold is not None:
        await script.hold.wait()
    return web.Response(
        status=script.status or status,
        headers={"Content-Type": "application/json", **script.headers},
        body=body if script.body is None else script.body,
    )
