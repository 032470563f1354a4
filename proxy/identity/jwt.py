"""Who is named by a signed token of one issuer? `Credential` → `Principal`, None or `Refused`.

In: Bearer tokens. Out: a proven principal; None for what does not claim to be of this issuer. Keeps the issuer's
keys and, for a minute, who was proven by which token. Nothing is read into a token that it does not say, and no
exception and no missing key ever means yes.
Sources: RFC 7519 section 7.2 (order of the checks), RFC 8725 (best practice), RFC 9068 (access tokens).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from random import random as by_chance  # noqa: TID251  # for the default of a constructor argument only

from ..model import Principal
from .claims import Expected, moment_of, principal_of
from .credential import BEARER, Credential, bad, unavailable
from .key_fetch import PATIENCE_S, Fetches, KeyFetch
from .key_set import PublicKey
from .keys import Keys, Miss
from .settings import JwtSettings
from .token import Token, issuers_named, read_token
from .verified import Verified


class Jwt:
    """Fulfils `Authenticator`. Build it anywhere, use it inside one running loop, beside its `run`."""

    def __init__(
        self,
        settings: JwtSettings,
        audiences: frozenset[str],
        provider: Fetches,
        *,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float],
        chance: Callable[[], float] = by_chance,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """`wall` counts seconds from 1970; `chance`, between 0 and 1, keeps replicas from asking in step. `patience_s`
        is how long a token with an unknown kid waits for the keys."""
        self._settings = settings
        self.issuer = settings.issuer
        self._expected = Expected(
            issuer=settings.issuer,
            audiences=audiences,
            tenant=settings.tenant,
            tenant_claim=settings.tenant_claim,
            roles_claim=settings.roles_claim,
            required_scopes=settings.required_scopes,
        )
        self._algorithms = frozenset[str](settings.algorithms)
        self._types = frozenset(map(_media_type, settings.types))
        self._now = now
        self._wall = wall
        self._verified = Verified()
        self._keys = Keys(refresh_s=settings.jwks_refresh_s, max_stale_s=settings.jwks_max_stale_s)
        self._fetch = KeyFetch(
            self._keys,
            settings.jwks_url,
            provider,
            algorithms=self._algorithms,
            forget=self._verified.clear,
            now=now,
            chance=chance,
            patience_s=patience_s,
        )

    def known(self, credential: Credential) -> Principal | None:
        return self._verified.get(credential.digest, self._now())

    async def __call__(self, credential: Credential) -> Principal | None:
        if credential.header != BEARER:
            return None
        known = self.known(credential)
        if known is not None:
            return known
        issuers = issuers_named(credential.text)
        if issuers is None or self._settings.issuer not in issuers:
            return None
        token = read_token(credential.text)
        self._check_header(token)
        key = await self._key(token)
        # No await from here on: a key that is withdrawn meanwhile could not take its tokens with it.
        if not key.verifies(token.alg, token.signed, token.signature):
            raise bad("The signature of the token is not valid.")
        now, wall = self._now(), self._wall()
        expiry = self._expiry(token.claims, wall)
        principal = principal_of(
            token.claims,
            self._expected,
            fingerprint=credential.fingerprint,
            valid_until=now + (expiry - wall),
        )
        until = min(principal.valid_until, self._keys.usable_until)
        self._verified.put(credential.digest, principal, now, until)
        return principal

    async def run(self) -> None:
        """Renew the keys for ever. Ends when it is cancelled."""
        await self._fetch.run()

    @property
    def was_loaded(self) -> bool:
        """Whether there has ever been a key."""
        return self._keys.was_loaded

    @property
    def is_usable(self) -> bool:
        """Whether tokens can be verified at the moment."""
        return self._keys.is_usable(self._now())

    def why_degraded(self) -> str | None:
        """What is wrong with the keys, in fixed words; None when the last fetch was good."""
        return self._keys.why_degraded(self._now())

    def _check_header(self, token: Token) -> None:
        """What costs nothing, before a key is looked for."""
        if token.alg not in self._algorithms:
            raise bad("The token is signed with an algorithm that is not allowed here.")
        if token.typ is not None and _media_type(token.typ) not in self._types:
            # Else an ID token, or any other JWT its issuer signs, could stand in for an access token.
            raise bad("The type of the token (typ) is not one that is accepted here.")

    async def _key(self, token: Token) -> PublicKey:
        found = await self._fetch.find(token.kid, token.alg)
        if isinstance(found, PublicKey):
            return found
        if found is Miss.UNKNOWN:
            raise bad("The token is signed with a key that its issuer does not publish.")
        raise unavailable(
            "The keys of the token's issuer cannot be had at the moment. Try again in a second."
        )

    def _expiry(self, claims: Mapping[str, object], wall: float) -> float:
        """When the token ends, by its issuer's clock. Raises Refused unless it is of now, and not of too long."""
        expiry = moment_of(claims, "exp")
        not_before, issued = moment_of(claims, "nbf"), moment_of(claims, "iat")
        if expiry is None:
            raise bad("The token never expires (exp is missing).")
        leeway_s = self._settings.leeway_s
        if expiry + leeway_s <= wall:
            raise bad("The token has expired.", expired=True)
        if max(not_before or 0.0, issued or 0.0) > wall + leeway_s:
            raise bad("The token is not valid yet (nbf, iat).")
        if expiry - (wall if issued is None else issued) > self._settings.max_token_lifetime_s:
            raise bad("The token is valid for longer than is accepted here.")
        return expiry


def _media_type(typ: str) -> str:
    """`application/at+jwt` and `at+JWT` are the same type (RFC 7515 4.1.9)."""
    return typ.lower().removeprefix("application/")
