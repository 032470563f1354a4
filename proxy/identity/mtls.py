"""Who is the client whose certificate TLS has verified? A certificate → `Principal`.

In: the certificate alone (DER): that its key was proven, its chain ends at an authority of ours and its time had
come is what the handshake said. Its time may have ended since. Keeps what certificates say, as long as there is
room. A SPIFFE ID names its trust domain as the issuer; everybody else is named by `mtls`.
Sources: RFC 5280, RFC 4514 (subjects as text), the X.509-SVID specification, sections 2 to 5.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Final

from cryptography import x509
from msgspec import Struct

from ..model import Principal
from .credential import Credential, bad
from .settings import MtlsSettings
from .spiffe import SCHEME, fits, trust_domain_of

MAX_KNOWN: Final = 1_024
MAX_SUBJECT_CHARACTERS: Final = 2_048
ISSUER: Final = "mtls"
UNREADABLE: Final = (
    ValueError,
    TypeError,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


class _Said(Struct, frozen=True):
    """What a certificate says."""

    subject: str
    """As RFC 4514 writes it; empty where it names nobody."""
    spiffe_id: str | None
    ends: float
    """Seconds since 1970."""


class Mtls:
    """Fulfils `Authenticator`."""

    def __init__(
        self,
        settings: MtlsSettings,
        *,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._roles = frozenset(settings.roles)
        self._now = now
        self._wall = wall
        self._said: dict[bytes, _Said] = {}

    def known(self, credential: Credential) -> Principal | None:
        said = self._said.get(credential.digest)
        if said is None:
            return None
        wall = self._wall()
        return self._principal(said, credential, wall) if wall < said.ends else None

    async def __call__(self, credential: Credential) -> Principal | None:
        if not credential.certificate:
            return None
        said = self._said.get(credential.digest) or self._remember(credential)
        wall = self._wall()
        principal = self._principal(said, credential, wall)
        if principal is not None and wall >= said.ends:
            raise bad("The client certificate has expired since the connection was made.", expired=True)
        return principal

    def _remember(self, credential: Credential) -> _Said:
        said = _said_by(credential.certificate)
        if len(self._said) >= MAX_KNOWN:
            del self._said[next(iter(self._said))]
        self._said[credential.digest] = said
        return said

    def _principal(self, said: _Said, credential: Credential, wall: float) -> Principal | None:
        """Who is named, where the settings mean them; None: another authenticator may know this certificate."""
        pattern, subject = self._settings.spiffe, self._settings.subject
        if pattern is not None and (said.spiffe_id is None or not fits(said.spiffe_id, pattern)):
            return None
        if subject is not None and said.subject != subject:
            return None
        issuer, name = ISSUER, said.subject
        if said.spiffe_id is not None and (pattern is not None or subject is None):
            issuer, name = f"{SCHEME}{trust_domain_of(said.spiffe_id)}", said.spiffe_id
        return Principal(
            issuer=issuer,
            subject=name,
            tenant=self._settings.tenant,
            roles=self._roles,
            fingerprint=credential.fingerprint,
            valid_until=self._now() + said.ends - wall,
        )


def _said_by(der: bytes) -> _Said:
    """What a certificate says. Raises Refused for one that two readers could understand differently."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about certificates that stretch their rules; not ours to tell
            certificate = x509.load_der_x509_certificate(der)
            extensions = certificate.extensions
            subject = certificate.subject
            written = subject.rfc4514_string()
    except UNREADABLE as error:
        raise bad("The client certificate cannot be read.") from error
    if _may_sign_others(extensions):
        raise bad("The client certificate is an authority's; it signs others, and calls nobody.")
    if len(written) > MAX_SUBJECT_CHARACTERS or not written.isprintable():
        raise bad("The subject of the client certificate is too long, or not printable.")
    if not any(str(each.value).strip() for each in subject):
        written = ""
    spiffe_id = _spiffe_id(extensions)
    if spiffe_id is None and not written:
        raise bad("The client certificate names nobody.")
    return _Said(written, spiffe_id, certificate.not_valid_after_utc.timestamp())


def _may_sign_others(extensions: x509.Extensions) -> bool:
    for each in extensions:
        if isinstance(each.value, x509.BasicConstraints) and each.value.ca:
            return True
        if isinstance(each.value, x509.KeyUsage) and (each.value.key_cert_sign or each.value.crl_sign):
            return True
    return False


def _spiffe_id(extensions: x509.Extensions) -> str | None:
    """The SPIFFE ID of a certificate, or None. Raises Refused: an SVID has one URI and no other (section 2)."""
    uris = [
        uri
        for each in extensions
        if isinstance(each.value, x509.SubjectAlternativeName)
        for uri in each.value.get_values_for_type(x509.UniformResourceIdentifier)
    ]
    if not any(uri.lower().startswith("spiffe:") for uri in uris):
        return None
    if len(uris) > 1:
        raise bad("The client certificate has a SPIFFE ID and other URIs beside it; it must have one.")
    if trust_domain_of(uris[0]) is None:
        raise bad("The SPIFFE ID in the client certificate is not spelled as the specification has it.")
    return uris[0]
