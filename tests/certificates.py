"""Certificates for tests: authorities that sign whatever a test needs, also what no authority should sign."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

HOUR = datetime.timedelta(hours=1)
_serials = itertools.count(1)


class Issued:
    """A certificate and its key."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate = certificate
        self.key = key

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def ends(self) -> float:
        """Seconds since 1970."""
        return self.certificate.not_valid_after_utc.timestamp()

    def written(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Its files: certificate and key."""
        paths = folder / f"{name}.pem", folder / f"{name}.key"
        paths[0].write_bytes(self.pem)
        paths[1].write_bytes(self.key_pem)
        return paths


def a_name(**parts: str) -> x509.Name:
    """A subject from the short names of its parts, the last one leftmost in RFC 4514."""
    known = {
        "C": NameOID.COUNTRY_NAME,
        "O": NameOID.ORGANIZATION_NAME,
        "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
        "CN": NameOID.COMMON_NAME,
    }
    return x509.Name([x509.NameAttribute(known[key], value) for key, value in parts.items()])


class Authority(Issued):
    """Signs certificates. Of itself, unless another authority signs for it."""

    def __init__(self, name: str = "authority", signer: Authority | None = None) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = a_name(CN=name)
        super().__init__(
            _signed(
                subject=subject,
                key=key,
                issuer=subject if signer is None else signer.certificate.subject,
                signing_key=key if signer is None else signer.key,
                extensions=[
                    (x509.BasicConstraints(ca=True, path_length=None), True),
                    (key_usage(ca=True), True),
                ],
            ),
            key,
        )

    def issue(
        self,
        subject: x509.Name | None = None,
        *,
        names: Sequence[x509.GeneralName] = (),
        uris: Sequence[str] = (),
        uses: Sequence[ObjectIdentifier] = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH),
        is_ca: bool = False,
        may_sign: bool = False,
        lasts: datetime.timedelta = HOUR,
        extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
    ) -> Issued:
        """A certificate; valid since an hour ago, for as long as it `lasts` from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        extensions: list[tuple[x509.ExtensionType, bool]] = [
            (x509.BasicConstraints(ca=is_ca, path_length=None), True),
            (key_usage(ca=may_sign), True),
            (x509.ExtendedKeyUsage(list(uses)), False),
            *extra,
        ]
        alternatives = [*names, *(x509.UniformResourceIdentifier(uri) for uri in uris)]
        if alternatives:
            extensions.append((x509.SubjectAlternativeName(alternatives), False))
        return Issued(
            _signed(
                subject=a_name(CN="client") if subject is None else subject,
                key=key,
                issuer=self.certificate.subject,
                signing_key=self.key,
                extensions=extensions,
                lasts=lasts,
            ),
            key,
        )


def key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _signed(
    *,
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    signing_key: ec.EllipticCurvePrivateKey,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
    lasts: datetime.timedelta = HOUR,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(next(_serials))
        .not_valid_before(now - HOUR)
        .not_valid_after(now + lasts)
    )
    # Which of two authorities of one name has signed: without it OpenSSL tries the first one only.
    identifiers = (
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
        x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()),
    )
    for extension, is_critical in (*extensions, *((each, False) for each in identifiers)):
        builder = builder.add_extension(extension, critical=is_critical)
    return builder.sign(signing_key, hashes.SHA256())
