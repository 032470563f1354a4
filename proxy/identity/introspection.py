"""What does the authorization server say of an opaque token? `Credential` → `Principal`, or `Refused`.

In: Bearer tokens, and the answers of an introspection endpoint. Out: a proven principal. Keeps answers for a
while, bounded, and the questions under way, one a token however many calls bring it. Source: RFC 7662.

Two things an endpoint may leave out are not made up here:
- `sub`. Without it neither `client_id` nor `username` stands in: RFC 7662 calls `sub` optional, so its absence
  does not say that the client acts for itself, and all users of one client would become one principal. Servers
  that follow RFC 9068 (section 2.2) name the client in `sub` where there is no user.
- A verdict. What is not an answer by the RFC is a failure of the endpoint: never a yes, and no 401 either.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, Protocol

from aiolimiter import AsyncLimiter
from cachetools import TLRUCache
from yarl import URL

from ..model import Principal, Refused
from ..protocol.jsonrpc import read_json
from ..secret import Secret
from .claims import Expected, moment_of, principal_of
from .credential import BEARER, Credential, bad, unavailable
from .provider import Unavailable
from .settings import IntrospectionSettings
from .token import issuers_named

MAX_KEPT: Final = 10_000
"""Answers of each kind. Good and bad ones lie apart, so that guesses cannot push proven tokens out."""
MAX_BAD_S: Final = 10.0
"""How long a no is believed. Shorter than a yes may be: a token can be asked about before it is known everywhere."""
MAX_QUESTIONS: Final = 1_000
"""Questions under way; each holds a connection."""

_ENTRY_BYTES: Final = 1_024
_ASKABLE: Final = re.compile(r"[\x21-\x7e]{1,16384}", re.ASCII)


class Asks(Protocol):
    """The part of `Provider` that is needed here."""

    async def ask(
        self, url: str, form: Mapping[str, str], *, user: str, secret: Secret, timeout_s: float
    ) -> bytes:
        """Raises Unavailable."""
        ...


class Introspection:
    """Fulfils `Authenticator`. Build it anywhere, use it inside one running loop, close it."""

    def __init__(
        self,
        settings: IntrospectionSettings,
        audiences: frozenset[str],
        provider: Asks,
        *,
        known_issuers: frozenset[str] = frozenset(),
        max_kept: int = MAX_KEPT,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float],
    ) -> None:
        """`known_issuers`: whose tokens are verified by their signature, and never asked about."""
        self._settings = settings
        self.issuer = settings.issuer or str(URL(settings.url).origin())
        self._expected = Expected(
            issuer=self.issuer,
            issuer_required=False,
            audiences=audiences,
            audience_required=settings.audience_required,
            tenant=settings.tenant,
            tenant_claim=settings.tenant_claim,
            roles_claim=settings.roles_claim,
            required_scopes=settings.required_scopes,
        )
        self._provider = provider
        self._secret = settings.client_secret
        self._known_issuers = known_issuers
        self._now = now
        self._wall = wall
        # A tenth of a second's questions may come at once: timers are too coarse to space thousands a second.
        at_once = max(1.0, settings.max_per_s / 10)
        self._turns = AsyncLimiter(at_once, at_once / settings.max_per_s)
        # More than these would not get their turn in time.
        self._most_questions = min(MAX_QUESTIONS, math.ceil(settings.max_per_s * settings.timeout_s))
        self._good: TLRUCache[bytes, tuple[float, Principal]] = TLRUCache(
            max_kept * _ENTRY_BYTES, _until, timer=now, getsizeof=_size_bytes
        )
        self._bad: TLRUCache[bytes, tuple[float, Refused]] = TLRUCache(max_kept, _until, timer=now)
        self._questions: dict[bytes, asyncio.Task[Principal | Refused]] = {}
        self._failure: str | None = None
        self._is_closed = False

    def known(self, credential: Credential) -> Principal | None:
        try:
            # By index: get() looks twice, and this is asked for every call.
            return self._good[credential.digest][1]
        except KeyError:
            return None

    async def __call__(self, credential: Credential) -> Principal | None:
        if credential.header != BEARER:
            return None
        known = self.known(credential)
        if known is not None:
            return known
        kept = self._bad.get(credential.digest)
        if kept is not None:
            raise _anew(kept[1])
        if not self._may_ask(credential.text):
            return None
        said = await self._answer(credential)
        if isinstance(said, Refused):
            raise _anew(said)
        return said

    def why_degraded(self) -> str | None:
        """Why the last question got no answer, in fixed words; None when it got one."""
        return f"no introspection: {self._failure}" if self._failure is not None else None

    def renew_secret(self) -> None:
        """Read our own secret again. Raises Unfit, and keeps the old one, when its file holds none."""
        self._secret = self._secret.renewed()

    async def close(self) -> None:
        """Give up the questions under way; whoever waits for one is refused."""
        self._is_closed = True
        questions = tuple(self._questions.values())
        for question in questions:
            question.cancel()
        if questions:
            await asyncio.wait(questions)

    def _may_ask(self, token: str) -> bool:
        """Whether the endpoint is to hear of it: not of forgeries that a signature tells from the real ones.

        Raises Refused for a JWT that may be of anybody.
        """
        if not _ASKABLE.fullmatch(token):
            return False
        issuers = issuers_named(token) if self._known_issuers else None
        return issuers is None or self._known_issuers.isdisjoint(issuers)

    async def _answer(self, credential: Credential) -> Principal | Refused:
        """The answer to the question about this token, whoever asked it first.

        It is asked by a task of its own: the caller that came first may leave, and the others still wait.
        """
        digest = credential.digest
        question = self._questions.get(digest)
        if question is None:
            if self._is_closed or len(self._questions) >= self._most_questions:
                return unavailable("Too many tokens wait to be checked. Try again in a second.")
            question = asyncio.get_running_loop().create_task(self._ask(credential))
            self._questions[digest] = question
            question.add_done_callback(lambda _: self._questions.pop(digest))
        # Unlike awaiting the task, this neither cancels it with the caller nor is it cancelled with the task.
        await asyncio.wait((question,))
        return unavailable("The proxy is closing.") if question.cancelled() else question.result()

    async def _ask(self, credential: Credential) -> Principal | Refused:
        settings = self._settings
        asked_at: float | None = None
        try:
            async with asyncio.timeout(settings.timeout_s):
                await self._turns.acquire()
                # An answer is as old as its question: a token revoked meanwhile must not live longer for it.
                asked_at, wall = self._now(), self._wall()
                body = await self._provider.ask(
                    settings.url,
                    {"token": credential.text, "token_type_hint": "access_token"},
                    user=settings.client_id,
                    secret=self._secret,
                    timeout_s=settings.timeout_s,
                )
            answer = _read(body)
        except (TimeoutError, Unavailable) as error:
            # Who did not even get a turn has learnt nothing about the endpoint.
            if asked_at is not None:
                self._failure = str(error) or "timeout"
            return unavailable("The authorization server does not say whether the token is valid.")
        self._failure = None
        try:
            principal = _principal(answer, self._expected, credential.fingerprint, asked_at, wall)
        except Refused as refused:
            no = _anew(refused)
            self._bad[credential.digest] = asked_at + min(settings.cache_ttl_s, MAX_BAD_S), no
            return no
        until = min(asked_at + settings.cache_ttl_s, principal.valid_until)
        with suppress(ValueError):  # larger than the whole table
            self._good[credential.digest] = until, principal
        return principal


def _read(body: bytes) -> Mapping[str, object]:
    """An answer by RFC 7662. Raises Unavailable for anything else."""
    try:
        answer = read_json(body)
    except Refused:
        raise Unavailable("no JSON") from None
    if not isinstance(answer, dict) or not isinstance(answer.get("active"), bool):
        raise Unavailable("no introspection answer")
    return answer


def _principal(
    answer: Mapping[str, object], expected: Expected, fingerprint: str, now: float, wall: float
) -> Principal:
    """Who the answer names. Raises Refused: bad_credential or scope_missing."""
    if answer["active"] is not True:
        raise bad("The token is not active.")
    _check_use(answer)
    # Whether it is valid already (nbf) the server knows better than our clock: it was asked just now.
    expires = moment_of(answer, "exp")
    if expires is not None and expires <= wall:
        raise bad("The token has expired.", expired=True)
    return principal_of(
        answer,
        expected,
        fingerprint=fingerprint,
        valid_until=math.inf if expires is None else now + (expires - wall),
    )


def _check_use(answer: Mapping[str, object]) -> None:
    """Raise Refused unless this is an access token that whoever bears it may use.

    Endpoints call refresh tokens and ID tokens active too (RFC 7662, 2.1); a client keeps those elsewhere and
    longer. `token_use` is Hydra's word for it, `typ` Keycloak's.
    """
    if not _says(answer, "token_type", "bearer"):
        raise bad("The token is not a bearer token.")
    if not _says(answer, "token_use", "access_token", "access") or not _says(
        answer, "typ", "bearer", "at+jwt", "jwt"
    ):
        raise bad("The token is not an access token.")


def _says(answer: Mapping[str, object], member: str, *words: str) -> bool:
    """Whether the member is absent or one of the words, in any case."""
    said = answer.get(member, words[0])
    return isinstance(said, str) and said.lower() in words


def _anew(refused: Refused) -> Refused:
    """The same no, without the traceback: kept ones would hold tokens and answers in its frames."""
    return Refused(
        refused.reason,
        refused.why,
        data=refused.data,
        retry_after_s=refused.retry_after_s,
        scopes=refused.scopes,
    )


def _until(_digest: bytes, kept: tuple[float, object], _now: float) -> float:
    return kept[0]


def _size_bytes(kept: tuple[float, Principal]) -> int:
    """At least a kibibyte, so that there are never more than MAX_KEPT; more where many names were granted."""
    principal = kept[1]
    return max(_ENTRY_BYTES, sum(len(name) + 64 for name in (*principal.roles, *principal.scopes)))
