"""Who is calling? Every authenticator in order, and then whether what the call names is the caller's own.

In: a `Call`. Out: a proven `Principal`, or `Refused`: no_credential, bad_credential, too_many_failures,
scope_missing, idp_unavailable, and what `Owns` refuses. Keeps the counters of failed attempts. An unexpected
exception refuses: there is no default identity to fall back to.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import takewhile
from typing import Final, Protocol
from urllib.parse import unquote

from msgspec import Struct

from ..model import Call, Headers, Peer, Principal, Reason, Refused
from .attempts import Attempts, source_of
from .credential import BEARER, Authenticator, Credential, bad, of_certificate, of_header

MAX_CHARACTERS: Final = 16_384
"""Of a token or key. Real ones stay below 4,096; a head may have 131,072 bytes."""
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/=-]+", re.ASCII)
"""token68 of RFC 9110, section 11.2: what Bearer tokens are made of."""
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+", re.ASCII)

MAX_PROVEN: Final = 10_000
"""Credentials that are heard at addresses that are not; about 2 MB."""

CERTIFICATE: Final = ""
"""Where a certificate stands, in place of a header's name."""


class Way(Struct, frozen=True):
    """One way to prove who calls, and where its credential stands."""

    header: str
    """Lower-case name, or CERTIFICATE."""
    authenticate: Authenticator


class Presented(Struct, frozen=True):
    """What a caller presented."""

    credentials: Mapping[str, Credential]
    """By where each stood."""
    first: Sequence[tuple[Authenticator, Credential]]
    """Who may know the credential that comes first in order. Only that one: behind a certificate that is known could
    stand a token that is not valid."""

    def known(self) -> Principal | None:
        """Who was proven by it a moment ago."""
        for authenticator, credential in self.first:
            principal = authenticator.known(credential)
            if principal is not None:
                return principal
        return None


class Owns(Protocol):
    def check(self, call: Call, principal: Principal) -> None:
        """Raises Refused when the call names what was handed out to somebody else, or to nobody."""
        ...


class Room:
    """Fulfils `Identify`."""

    def __init__(
        self,
        ways: Sequence[Way],
        *,
        anonymous: Principal | None,
        attempts: Attempts,
        owns: Owns | None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`anonymous` is whoever presents nothing at all; None: nobody is."""
        self._ways = tuple(ways)
        self._headers = tuple(dict.fromkeys(way.header for way in ways if way.header != CERTIFICATE))
        self._reads_certificates = any(way.header == CERTIFICATE for way in ways)
        self._anonymous = anonymous
        self._attempts = attempts
        self._proven_before: OrderedDict[bytes, None] = OrderedDict()
        """What was good when it was last looked at. Everybody behind one gateway has one address: guesses from
        there must not shut out who was let in before."""
        self._owns = owns
        self._now = now
        self._note = object()

    def __call__(self, call: Call) -> Principal | Awaitable[Principal]:
        presented = self._presented(call.headers, call.peer, call.query)
        principal = presented.known()
        return self._proves(call, presented) if principal is None else self._owning(call, principal)

    async def who(self, headers: Headers, peer: Peer, query: str = "") -> Principal:
        """Who sent this, whatever it says. Raises Refused."""
        presented = self._presented(headers, peer, query)
        return presented.known() or await self._principal(peer, presented.credentials)

    async def _proves(self, call: Call, presented: Presented) -> Principal:
        return self._owning(call, await self._principal(call.peer, presented.credentials))

    def _owning(self, call: Call, principal: Principal) -> Principal:
        """Whoever calls, when what the call names is theirs. Raises Refused."""
        if self._owns is not None:
            self._owns.check(call, principal)
        return principal

    def _presented(self, headers: Headers, peer: Peer, query: str) -> Presented:
        """What the caller presented. Raises Refused for what nobody is asked about."""
        # What it is follows from the head. Whether it is still good does not, and is asked each time.
        presented: Presented | None = headers.notes.get(self._note)
        if presented is None:
            presented = self._in_order(self._in(headers))
            headers.note(self._note, presented)
        if self._reads_certificates and peer.certificate is not None:
            presented = self._in_order(
                {**presented.credentials, CERTIFICATE: of_certificate(peer.certificate)}
            )
        if query and any(
            each.text and each.text in unquote(query) for each in presented.credentials.values()
        ):
            # It would go upstream, and into the logs of everybody on the way.
            raise bad("A credential does not belong into the query.")
        return presented

    def _in(self, headers: Headers) -> dict[str, Credential]:
        """What stands in the headers. Two of them may name two callers: refused."""
        found: dict[str, Credential] = {}
        for header in self._headers:
            values = headers.all(header)
            if not values:
                continue
            if len(values) > 1 or found:
                raise bad("Present one credential, once.")
            found[header] = of_header(header, _text(header, values[0]))
        return found

    def _in_order(self, credentials: Mapping[str, Credential]) -> Presented:
        shown = [
            (way.authenticate, credentials[way.header]) for way in self._ways if way.header in credentials
        ]
        return Presented(credentials, tuple(takewhile(lambda each: each[1] is shown[0][1], shown)))

    async def _principal(self, peer: Peer, presented: Mapping[str, Credential]) -> Principal:
        if not presented:
            if self._anonymous is None:
                raise Refused(Reason.NO_CREDENTIAL)
            return self._anonymous
        source, now = source_of(peer.address), self._now()
        wait_s = self._attempts.wait_s(source, now)
        shown = b"".join(each.digest for each in presented.values())
        if wait_s > 0 and shown not in self._proven_before:
            raise Refused(Reason.TOO_MANY_FAILURES, retry_after_s=wait_s)
        try:
            principal = await self._proven(presented)
        except Refused as refused:
            if refused.reason is Reason.BAD_CREDENTIAL:
                self._proven_before.pop(shown, None)
                if not refused.data.get("expired"):
                    self._attempts.failed(source, self._now())
            raise
        self._attempts.succeeded(source)
        self._remember(shown)
        return principal

    def _remember(self, shown: bytes) -> None:
        self._proven_before[shown] = None
        self._proven_before.move_to_end(shown)
        if len(self._proven_before) > MAX_PROVEN:
            self._proven_before.popitem(last=False)

    async def _proven(self, presented: Mapping[str, Credential]) -> Principal:
        try:
            for way in self._ways:
                credential = presented.get(way.header)
                if credential is None:
                    continue
                principal = await way.authenticate(credential)
                if principal is not None:
                    return principal
        except Refused:
            raise
        except Exception as error:
            # Nobody knows who calls: that is our trouble, and never a yes.
            raise Refused(Reason.IDP_UNAVAILABLE, "The proxy could not check the credential.") from error
        raise bad("Nobody here knows this credential.")


def _text(header: str, value: str) -> str:
    """The credential in a field value. Raises Refused."""
    if len(value) > MAX_CHARACTERS:
        raise bad(f"A credential may have {MAX_CHARACTERS} characters.")
    value = value.strip(" \t")
    if header != BEARER:
        if not _VISIBLE.fullmatch(value):
            raise bad("A key is printable ASCII without spaces.")
        return value
    scheme, _, token = value.partition(" ")
    token = token.strip(" ")
    if scheme.lower() != "bearer" or not _TOKEN.fullmatch(token):
        raise bad("The Authorization header is `Bearer` and a token.")
    return token
