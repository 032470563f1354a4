"""What did the caller present? Header fields and certificate → `Credential`, not yet believed. Pure."""

from __future__ import annotations

import hashlib
from typing import Protocol

from msgspec import Struct

from ..model import Principal, Reason, Refused

BEARER = "authorization"
"""The header of Bearer tokens, in lower case."""


class Credential(Struct, frozen=True, kw_only=True, eq=False):
    """One thing that is to prove who calls."""

    header: str = ""
    """Lower-case name of the header it stood in; empty for a certificate."""
    text: str = ""
    """The token without `Bearer `, or the key: printable ASCII without spaces. Empty for a certificate."""
    certificate: bytes = b""
    """A client certificate (DER) that TLS has verified."""
    digest: bytes
    """SHA-256 of all of it: the key of every cache. Two credentials that differ in one byte differ here."""

    @property
    def fingerprint(self) -> str:
        """Names the credential in records without being it."""
        return self.digest.hex()[:16]

    def __repr__(self) -> str:
        return f"Credential({self.header or 'certificate'}, {self.fingerprint})"


class Authenticator(Protocol):
    """One way to prove who calls."""

    def known(self, credential: Credential) -> Principal | None:
        """Who was proven by the very same credential a moment ago, without any work; None: ask."""
        ...

    async def __call__(self, credential: Credential) -> Principal | None:
        """Who is proven by the credential. None: not of this authenticator's kind, another may know it.

        Raises Refused: bad_credential for what is of its kind and wrong (nobody else is asked then),
        scope_missing, or idp_unavailable when nobody can tell at the moment.
        """
        ...


def of_header(header: str, text: str) -> Credential:
    return Credential(header=header, text=text, digest=hashlib.sha256(text.encode()).digest())


def of_certificate(der: bytes) -> Credential:
    return Credential(certificate=der, digest=hashlib.sha256(der).digest())


def bad(why: str, *, expired: bool = False) -> Refused:
    """A credential that proves nothing. `why` reaches the caller: fixed words, nothing of the credential.

    One that has merely expired is no guess, and does not count as a failed attempt.
    """
    return Refused(Reason.BAD_CREDENTIAL, why, data={"expired": True} if expired else None)


def unavailable(why: str) -> Refused:
    """Nobody can tell at the moment whether the credential is good: never a 401, never a yes."""
    return Refused(Reason.IDP_UNAVAILABLE, why, retry_after_s=1)
