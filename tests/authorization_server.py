"""An OAuth 2.1 authorization server for tests: real HTTP on 127.0.0.1, and a user who always agrees.

In: users, and what tests say about lifetimes. Out: metadata, clients, codes, tokens, keys, verdicts. Keeps
everything it gave out. Time is an argument, so that nothing here expires by waiting.

RFC 8414 (metadata), RFC 7591 (registration), RFC 7636 (PKCE), RFC 9207 (iss), RFC 8707 (resource), RFC 9068
(access tokens), RFC 7662 (introspection), RFC 7009 (revocation).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import dataclasses
import functools
import hashlib
import re
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Literal
from urllib.parse import unquote_plus, urlencode, urlsplit

import jwt
from aiohttp import web
from aiohttp.typedefs import Handler
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from tests import ledger

Algorithm = Literal["RS256", "ES256"]

CODE_S = 60.0
"""RFC 6749 section 4.1.2 recommends ten minutes at most; OAuth 2.1 says shortly after."""

_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}", re.ASCII)
_METHODS = ("client_secret_basic", "client_secret_post", "none")


@dataclasses.dataclass(frozen=True, kw_only=True)
class User:
    """Somebody who can agree."""

    tenant: str = "acme"
    scopes: frozenset[str] | None = None
    """What the user may give away; None: whatever is asked for."""
    roles: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Client:
    """An application that was registered."""

    id: str
    secret: str | None
    method: str
    redirect_uris: tuple[str, ...]
    grants: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grant:
    """What somebody agreed to: the same through code, access token and every refresh."""

    client_id: str
    subject: str
    tenant: str
    scopes: tuple[str, ...]
    resources: tuple[str, ...]
    roles: tuple[str, ...] = ()
    number: str = dataclasses.field(default_factory=lambda: secrets.token_hex(8))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Access:
    """An access token that was given out."""

    text: str
    claims: dict[str, Any]
    grant: Grant
    how: str
    """The grant type it was given for; empty when a test asked for it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Code:
    grant: Grant
    redirect_uri: str
    challenge: str
    until: float


class OAuthError(Exception):
    """A refusal in the form of RFC 6749 section 5.2."""

    def __init__(self, code: str, why: str, status: int = 400) -> None:
        super().__init__(code, why)
        self.code, self.why, self.status = code, why, status


class AuthorizationServer:
    """What it has given out, and the routes that give."""

    def __init__(self, issuer: str, algorithm: Algorithm, now: Callable[[], float]) -> None:
        self.issuer = issuer
        self.users = {"alice": User(), "bob": User()}
        """By subject. `login_hint` in the authorization request says who sits there; else the first."""
        self.lifetime_s = 3600
        self.is_opaque = False
        """Access tokens are no JWTs: whoever wants to know has to ask."""
        self.issued: list[Access] = []
        self.refused: list[str] = []
        """Error codes, in order."""
        self.asked: list[str] = []
        """Method and path of every request."""
        self._now = now
        self._key = _Key(algorithm)
        self._clients: dict[str, Client] = {}
        self._codes: dict[str, _Code] = {}
        self._spent: dict[str, Grant] = {}
        """Codes and refresh tokens that were used: used again, they are in two hands."""
        self._refresh: dict[str, Grant] = {}
        self._revoked: set[str] = set()
        """Texts of access tokens, and numbers of grants."""
        self._credentials: list[str] = []
        self._news = asyncio.Event()

    @property
    def jwks_url(self) -> str:
        return f"{self.issuer}/jwks"

    @property
    def introspection_url(self) -> str:
        return f"{self.issuer}/introspect"

    @property
    def jwks(self) -> dict[str, Any]:
        """What is published: the key set."""
        return {"keys": [self._key.public]}

    @property
    def refreshed(self) -> int:
        """How often a refresh token was turned into an access token."""
        return sum(access.how == "refresh_token" for access in self.issued)

    @property
    def authorized(self) -> int:
        """How often a user's code was turned into an access token."""
        return sum(access.how == "authorization_code" for access in self.issued)

    @property
    def credentials(self) -> list[str]:
        """Every secret it ever gave out: client secrets, codes, access and refresh tokens."""
        return list(self._credentials)

    async def when(self, is_so: Callable[[AuthorizationServer], bool], *, timeout_s: float = 5.0) -> None:
        """Wait until what was issued or refused is so."""
        async with asyncio.timeout(timeout_s):
            while not is_so(self):
                self._news.clear()
                await self._news.wait()

    def add_client(
        self,
        *,
        redirect_uris: Iterable[str] = (),
        grants: Iterable[str] = ("client_credentials",),
        method: str = "client_secret_basic",
    ) -> Client:
        """Register an application without asking over HTTP."""
        secret = None if method == "none" else self._new_secret()
        client = Client(
            id=f"client-{len(self._clients) + 1}",
            secret=secret,
            method=method,
            redirect_uris=tuple(redirect_uris),
            grants=tuple(grants),
        )
        self._clients[client.id] = client
        return client

    def mint(
        self, subject: str = "alice", *, resource: str, scopes: Iterable[str] = (), **claims: object
    ) -> Access:
        """An access token without a client. A claim given by name replaces ours; None leaves it out."""
        user = self.users[subject]
        grant = Grant(
            client_id="test",
            subject=subject,
            tenant=user.tenant,
            scopes=tuple(scopes),
            resources=(resource,),
            roles=user.roles,
        )
        return self._give(grant, "", claims)

    def revoke(self, text: str) -> None:
        """An access token is worth nothing from now on; seen by those who ask, never in the token itself."""
        self._revoked.add(text)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/.well-known/oauth-authorization-server", self._metadata),
            web.get("/.well-known/openid-configuration", self._metadata),
            web.get("/jwks", self._jwks),
            web.post("/register", self._register),
            web.get("/authorize", self._authorize),
            web.post("/token", self._token),
            web.post("/introspect", self._introspect),
            web.post("/revoke", self._revoke),
        ]

    @web.middleware
    async def answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Note the request, and turn a refusal into its answer."""
        self.asked.append(f"{request.method} {request.path}")
        try:
            return await handler(request)
        except OAuthError as error:
            self.refused.append(error.code)
            headers = {"WWW-Authenticate": 'Basic realm="clients"'} if error.status == 401 else {}
            said = {"error": error.code, "error_description": error.why}
            return web.json_response(said, status=error.status, headers=headers)
        finally:
            self._news.set()

    # What anybody may read.

    async def _metadata(self, request: web.Request) -> web.Response:
        endpoints = {
            f"{name}_endpoint": f"{self.issuer}/{path}"
            for name, path in (
                ("authorization", "authorize"),
                ("token", "token"),
                ("registration", "register"),
                ("introspection", "introspect"),
                ("revocation", "revoke"),
            )
        }
        more = {
            "issuer": self.issuer,
            "jwks_uri": self.jwks_url,
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials"],
            "token_endpoint_auth_methods_supported": list(_METHODS),
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
        }
        if request.path.endswith("openid-configuration"):
            algorithms = [self._key.algorithm]
            more |= {"subject_types_supported": ["public"]}
            more |= {"id_token_signing_alg_values_supported": algorithms}
        return web.json_response(endpoints | more)

    async def _jwks(self, request: web.Request) -> web.Response:
        return web.json_response(self.jwks)

    # What a client does first.

    async def _register(self, request: web.Request) -> web.Response:
        wanted = await request.json()
        redirect_uris = wanted.get("redirect_uris") or []
        grants = wanted.get("grant_types") or ["authorization_code"]
        method = wanted.get("token_endpoint_auth_method") or "client_secret_basic"
        if method not in _METHODS:
            raise OAuthError("invalid_client_metadata", "token_endpoint_auth_method is not supported")
        if "authorization_code" in grants and not redirect_uris:
            raise OAuthError("invalid_redirect_uri", "a redirect URI is needed")
        if any(urlsplit(uri).fragment for uri in redirect_uris):
            raise OAuthError("invalid_redirect_uri", "a redirect URI has no fragment")
        client = self.add_client(redirect_uris=redirect_uris, grants=grants, method=method)
        said = {
            "client_id": client.id,
            "client_id_issued_at": int(self._now()),
            "redirect_uris": redirect_uris,
            "grant_types": grants,
            "response_types": ["code"],
            "token_endpoint_auth_method": method,
        }
        if client.secret is not None:
            said |= {"client_secret": client.secret, "client_secret_expires_at": 0}
        return web.json_response(said, status=201)

    async def _authorize(self, request: web.Request) -> web.Response:
        query = request.query
        client = self._clients.get(query.get("client_id", ""))
        redirect_uri = query.get("redirect_uri", "")
        # Never sent back: where to is exactly what is not known.
        if client is None:
            raise OAuthError("invalid_client", "no such client")
        if redirect_uri not in client.redirect_uris:
            raise OAuthError("invalid_redirect_uri", "not a redirect URI of this client")
        answer = {"iss": self.issuer}
        if "state" in query:
            answer["state"] = query["state"]
        try:
            answer["code"] = self._new_code(request, client, redirect_uri)
        except OAuthError as error:
            self.refused.append(error.code)
            answer |= {"error": error.code, "error_description": error.why}
        return web.Response(status=302, headers={"Location": f"{redirect_uri}?{urlencode(answer)}"})

    def _new_code(self, request: web.Request, client: Client, redirect_uri: str) -> str:
        query = request.query
        if query.get("response_type") != "code":
            raise OAuthError("unsupported_response_type", "only code")
        if "authorization_code" not in client.grants:
            raise OAuthError("unauthorized_client", "not registered for authorization_code")
        if query.get("code_challenge_method") != "S256" or not query.get("code_challenge"):
            raise OAuthError("invalid_request", "PKCE with S256 is needed")
        subject = query.get("login_hint") or next(iter(self.users))
        user = self.users.get(subject)
        if user is None:
            raise OAuthError("access_denied", "no such user")
        wanted = tuple(query.get("scope", "").split())
        grant = Grant(
            client_id=client.id,
            subject=subject,
            tenant=user.tenant,
            scopes=tuple(scope for scope in wanted if user.scopes is None or scope in user.scopes),
            resources=_resources(query.getall("resource", [])),
            roles=user.roles,
        )
        code = self._new_secret()
        self._codes[code] = _Code(
            grant=grant,
            redirect_uri=redirect_uri,
            challenge=query["code_challenge"],
            until=self._now() + CODE_S,
        )
        return code

    # What a client does with it.

    async def _token(self, request: web.Request) -> web.Response:
        form = _texts(await request.post())
        client = self._authenticated(request, form)
        how = form.get("grant_type", "")
        if how not in ("authorization_code", "refresh_token", "client_credentials"):
            raise OAuthError("unsupported_grant_type", "not supported")
        if how not in client.grants:
            raise OAuthError("unauthorized_client", f"not registered for {how}")
        asked = _resources((await request.post()).getall("resource", []))
        if how == "authorization_code":
            grant = self._exchanged(form, client)
        elif how == "refresh_token":
            grant = self._rotated(form, client)
        else:
            grant = Grant(
                client_id=client.id,
                subject=client.id,
                tenant=User().tenant,
                scopes=tuple(form.get("scope", "").split()),
                resources=asked,
            )
        if not set(asked) <= set(grant.resources):
            raise OAuthError("invalid_target", "nobody agreed to that resource")
        if asked:
            grant = dataclasses.replace(grant, resources=asked)
        access = self._give(grant, how, {})
        said = {"access_token": access.text, "token_type": "Bearer", "expires_in": self.lifetime_s}
        said["scope"] = " ".join(grant.scopes)
        if "refresh_token" in client.grants and how != "client_credentials":
            said["refresh_token"] = refresh = self._new_secret()
            self._refresh[refresh] = grant
        return web.json_response(said, headers={"Cache-Control": "no-store"})

    def _exchanged(self, form: dict[str, str], client: Client) -> Grant:
        text = form.get("code", "")
        code = self._codes.pop(text, None)
        if code is None:
            self._twice(text)
            raise OAuthError("invalid_grant", "no such code")
        self._spent[text] = code.grant
        if code.grant.client_id != client.id or code.redirect_uri != form.get("redirect_uri"):
            raise OAuthError("invalid_grant", "given to another client or redirect URI")
        if code.until < self._now():
            raise OAuthError("invalid_grant", "the code has expired")
        verifier = form.get("code_verifier", "")
        if not _VERIFIER.fullmatch(verifier) or challenge_of(verifier) != code.challenge:
            raise OAuthError("invalid_grant", "code_verifier does not fit")
        return code.grant

    def _rotated(self, form: dict[str, str], client: Client) -> Grant:
        text = form.get("refresh_token", "")
        grant = self._refresh.get(text)
        if grant is None or grant.client_id != client.id or grant.number in self._revoked:
            self._twice(text)
            raise OAuthError("invalid_grant", "no such refresh token")
        self._spent[text] = self._refresh.pop(text)
        return grant

    def _twice(self, text: str) -> None:
        """OAuth 2.1 sections 4.1.3 and 4.3.1: what was used twice ends everything that came of it."""
        if grant := self._spent.get(text):
            self._revoked.add(grant.number)

    def _authenticated(self, request: web.Request, form: dict[str, str]) -> Client:
        """RFC 6749 section 2.3: by the one method the client was registered with."""
        name, secret, method = form.get("client_id", ""), form.get("client_secret"), "none"
        if secret is not None:
            method = "client_secret_post"
        kind, _, basic = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "basic":
            try:
                name, _, secret = base64.b64decode(basic, validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                raise OAuthError("invalid_client", "no Basic credentials", 401) from None
            name, secret, method = unquote_plus(name), unquote_plus(secret), "client_secret_basic"
        client = self._clients.get(name)
        if client is None or client.method != method:
            raise OAuthError("invalid_client", "not known by this method", 401)
        if client.secret is not None and not secrets.compare_digest(client.secret, secret or ""):
            raise OAuthError("invalid_client", "wrong secret", 401)
        return client

    # What is known of a token afterwards.

    async def _introspect(self, request: web.Request) -> web.Response:
        form = _texts(await request.post())
        self._authenticated(request, form)
        text = form.get("token", "")
        if not self.is_active(text):
            return web.json_response({"active": False})
        found = next(access for access in self.issued if access.text == text)
        return web.json_response({"active": True, "token_type": "Bearer", **found.claims})

    def is_active(self, text: str) -> bool:
        """Whether this is an access token of ours that is still good."""
        for access in self.issued:
            if access.text == text:
                is_revoked = not self._revoked.isdisjoint((text, access.grant.number))
                return not is_revoked and bool(access.claims["exp"] > self._now())
        return False

    async def _revoke(self, request: web.Request) -> web.Response:
        form = _texts(await request.post())
        client = self._authenticated(request, form)
        text = form.get("token", "")
        if (grant := self._refresh.get(text)) and grant.client_id == client.id:
            self._revoked.add(grant.number)
        if any(access.text == text and access.grant.client_id == client.id for access in self.issued):
            self.revoke(text)
        return web.Response()

    def _give(self, grant: Grant, how: str, other: dict[str, object]) -> Access:
        began = int(self._now())
        said = {
            "iss": self.issuer,
            "sub": grant.subject,
            "aud": grant.resources[0] if len(grant.resources) == 1 else list(grant.resources) or self.issuer,
            "client_id": grant.client_id,
            "tenant": grant.tenant,
            "scope": " ".join(grant.scopes),
            "roles": list(grant.roles),
            "iat": began,
            "exp": began + self.lifetime_s,
            "jti": secrets.token_hex(16),
            **other,
        }
        claims = {name: value for name, value in said.items() if value is not None}
        text = self._new_secret() if self.is_opaque else self._key.sign(claims)
        if not self.is_opaque:
            self._credentials.append(ledger.secret(text, "token"))
        access = Access(text=text, claims=claims, grant=grant, how=how)
        self.issued.append(access)
        self._news.set()
        return access

    def _new_secret(self) -> str:
        secret = secrets.token_urlsafe(32)
        self._credentials.append(ledger.secret(secret, "secret of the authorization server"))
        return secret


class _Key:
    """What it signs with. Made once a process: an RSA key takes a tenth of a second."""

    def __init__(self, algorithm: Algorithm) -> None:
        self.algorithm = algorithm
        self._private = _private(algorithm)
        public = self._private.public_key()
        if isinstance(public, rsa.RSAPublicKey):
            jwk = RSAAlgorithm.to_jwk(public, as_dict=True)
        else:
            jwk = ECAlgorithm.to_jwk(public, as_dict=True)
        self.public = {**jwk, "kid": f"{algorithm}-1", "alg": algorithm, "use": "sig"}

    def sign(self, claims: dict[str, Any]) -> str:
        headers = {"typ": "at+jwt", "kid": self.public["kid"]}
        return jwt.encode(claims, self._private, algorithm=self.algorithm, headers=headers)


@functools.cache
def _private(algorithm: Algorithm) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    if algorithm == "RS256":
        return rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


def challenge_of(verifier: str) -> str:
    """RFC 7636 section 4.2, S256."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


def _resources(wanted: list[Any]) -> tuple[str, ...]:
    """RFC 8707 section 2: absolute URIs without a fragment."""
    for each in wanted:
        parts = urlsplit(each)
        if not parts.scheme or not parts.netloc or parts.fragment:
            raise OAuthError("invalid_target", "resource is an absolute URI without fragment")
    return tuple(wanted)


def _texts(form: Any) -> dict[str, str]:
    """A form with each parameter once (RFC 6749 section 3.2), but for `resource` (RFC 8707)."""
    for name in form:
        if name != "resource" and len(form.getall(name)) > 1:
            raise OAuthError("invalid_request", "a parameter was sent twice")
    return {name: str(value) for name, value in form.items()}


@asynccontextmanager
async def authorization_server(
    algorithm: Algorithm = "ES256", *, now: Callable[[], float] = time.time
) -> AsyncIterator[AuthorizationServer]:
    """Listen on a free port of 127.0.0.1 until the end of the block."""
    # The protocol is named, because asyncio turns off Nagle's algorithm only where it is: 40 ms an answer else.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        server = AuthorizationServer(f"http://127.0.0.1:{listener.getsockname()[1]}", algorithm, now)
        app = web.Application(middlewares=[server.answer])
        app.add_routes(server.routes())
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.SockSite(runner, listener).start()
            yield server
        finally:
            await runner.cleanup()
