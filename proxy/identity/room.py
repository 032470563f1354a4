"""Who is calling? Every authenticator in order, and then whether what the call names is the caller's own.

In: a `Call`. Out: a proven `Principal`, or `Refused`: no_credential, bad_credential, too_many_failures,
scope_missing, idp_unavailable, and what `Owns` refuses. Keeps the counters of failed attempts. An unexpected
exception refuses: there is no default identity to fall back to.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
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

    async def __call__(self, call: Call) -> Principal:
        principal = await self.who(call.headers, call.peer, call.query)
        if self._owns is not None:
            self._owns.check(call, principal)
        return principal

    async def who(self, headers: Headers, peer: Peer, query: str = "") -> Principal:
        """Who sent this, whatever it says. Raises Refused."""
        presented = self._presented(headers, peer)
        if query and any(each.text and each.text in unquote(query) for each in presented.values()):
            # It would go upstream, and into the logs of everybody on the way.
            raise bad("A credential does not belong into the query.")
        principal = await self._principal(peer, presented) if presented else self._anonymous
        if principal is None:
            raise Refused(Reason.NO_CREDENTIAL)
        return principal

    def _presented(self, headers: Headers, peer: Peer) -> dict[str, Credential]:
        """What the caller presented, by where it stood. Two headers may name two callers: refused."""
        presented: dict[str, Credential] = {}
        for header in self._headers:
            values = headers.all(header)
            if not values:
                continue
            if len(values) > 1 or presented:
                raise bad("Present one credential, once.")
            presented[header] = of_header(header, _text(header, values[0]))
        if self._reads_certificates and peer.certificate is not None:
            presented[CERTIFICATE] = of_certificate(peer.certificate)
        return presented

    def _known(self, presented: dict[str, Credential]) -> Principal | None:
        """Who was proven a moment ago by the credential that comes first in order. Only that one: behind a
        certificate that is known could stand a token that is not valid."""
        first: Credential | None = None
        for way in self._ways:
            credential = presented.get(way.header)
            if credential is None:
                continue
            first = first or credential
            if credential is not first:
                return None
            known = way.authenticate.known(credential)
            if known is not None:
                return known
        return None

    async def _principal(self, peer: Peer, presented: dict[str, Credential]) -> Principal:
        known = self._known(presented)
        if known is not None:
            return known
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

    async def _proven(self, presented: dict[str, Credential]) -> Principal:
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
