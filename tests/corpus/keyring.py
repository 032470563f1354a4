"""Which keys sign the tokens of a run, and how are they published? Names → private keys and JWKs, made once a run."""

import base64
import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

ATTACKER = "attacker"


class Keyring:
    """RSA keys of 2048 bits and P-256 keys, each made when it is first asked for."""

    def __init__(self) -> None:
        self._rsa: dict[str, rsa.RSAPrivateKey] = {}
        self._ec: dict[str, ec.EllipticCurvePrivateKey] = {}

    def rsa(self, name: str) -> rsa.RSAPrivateKey:
        if name not in self._rsa:
            self._rsa[name] = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        return self._rsa[name]

    def ec(self, name: str) -> ec.EllipticCurvePrivateKey:
        if name not in self._ec:
            self._ec[name] = ec.generate_private_key(ec.SECP256R1())
        return self._ec[name]

    def public_pem(self, name: str) -> bytes:
        """The public half of an RSA key as it is published in PEM."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.rsa(name).public_key().public_bytes(serialization.Encoding.PEM, form)

    def modulus(self, name: str) -> bytes:
        """The modulus of an RSA key, big-endian."""
        return number(self.rsa(name).public_key().public_numbers().n)

    def rsa_jwk(self, name: str, **changes: Any) -> dict[str, Any]:
        """The public half as a JWK (RFC 7517) with `kid`, `use` and `alg`, or with `changes`."""
        numbers = self.rsa(name).public_key().public_numbers()
        return {
            "kty": "RSA",
            "n": text(number(numbers.n)),
            "e": text(number(numbers.e)),
            "kid": name,
            "use": "sig",
            "alg": "RS256",
            **changes,
        }

    def ec_jwk(self, name: str, **changes: Any) -> dict[str, Any]:
        """The same for a P-256 key."""
        numbers = self.ec(name).public_key().public_numbers()
        return {
            "kty": "EC",
            "crv": "P-256",
            "x": text(numbers.x.to_bytes(32, "big")),
            "y": text(numbers.y.to_bytes(32, "big")),
            "kid": name,
            "use": "sig",
            "alg": "ES256",
            **changes,
        }

    def certificate(self, name: str) -> str:
        """A certificate of the RSA key, signed by itself, as `x5c` wants it: base64 of DER."""
        key = self.rsa(name)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "idp.test")])
        today = datetime.datetime.now(datetime.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(today - datetime.timedelta(days=1))
            .not_valid_after(today + datetime.timedelta(days=1))
            .sign(key, hashes.SHA256())
        )
        return base64.b64encode(made.public_bytes(serialization.Encoding.DER)).decode()


def text(value: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def number(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")
