"""Which keys does an issuer publish, and what may each of them sign? Bytes of a JWKS → `KeySet`. Pure.

In: the document. Out: the keys that can be used, or `NoKeySet`. Keeps nothing. Parsing of keys and checking of
signatures are PyJWT's, which is given only the members it needs; what a key is good for follows from its type,
never from the token. Keys that cannot be used are left out: issuers publish encryption keys beside the others.
Sources: RFC 7517 (JWK), RFC 7518 section 6 (key types), RFC 8037 (EdDSA), RFC 8725 section 3.1 (one key, one use).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final, TypeAlias

from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    SECP521R1,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import Algorithm, ECAlgorithm, OKPAlgorithm, RSAAlgorithm, RSAPSSAlgorithm
from msgspec import Struct

from ..model import Refused
from ..protocol.jsonrpc import read_json
from .token import is_kid

MAX_KEYS: Final = 100
RSA_BITS: Final = (2_048, 8_192)
"""RFC 7518 3.3 asks for 2,048 at least; a signature of more than 8,192 costs more than half a millisecond."""
_EXPONENTS: Final = (65_537, 2**32)
"""FIPS 186-5 asks for more than 2**16; small ones have been forged with, large ones cost time."""
_MAX_NUMBER_CHARACTERS: Final = 1_400
"""8,192 bits in base64url, and a little. Checked before a number is made of them."""
_MAX_DEPTH: Final = 16
_MAX_STRUCTURE: Final = 8_192

# The whole list: neither `none` nor a shared secret can be asked for, whatever a token or a key says.
_VERIFIERS: Final[Mapping[str, Algorithm]] = {
    "RS256": RSAAlgorithm(RSAAlgorithm.SHA256),
    "RS384": RSAAlgorithm(RSAAlgorithm.SHA384),
    "RS512": RSAAlgorithm(RSAAlgorithm.SHA512),
    "PS256": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA256),
    "PS384": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA384),
    "PS512": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA512),
    "ES256": ECAlgorithm(ECAlgorithm.SHA256, SECP256R1),
    "ES384": ECAlgorithm(ECAlgorithm.SHA384, SECP384R1),
    "ES512": ECAlgorithm(ECAlgorithm.SHA512, SECP521R1),
    "EdDSA": OKPAlgorithm(),
}
_FITS: Final[Mapping[tuple[str, str | None], frozenset[str]]] = {
    ("RSA", None): frozenset(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
    ("EC", "P-256"): frozenset(("ES256",)),
    ("EC", "P-384"): frozenset(("ES384",)),
    ("EC", "P-521"): frozenset(("ES512",)),
    ("OKP", "Ed25519"): frozenset(("EdDSA",)),
}
_NUMBERS: Final[Mapping[str, tuple[str, ...]]] = {"RSA": ("n", "e"), "EC": ("x", "y"), "OKP": ("x",)}

_Public: TypeAlias = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey


class NoKeySet(Exception):
    """The document is no key set. `args[0]`: why, in fixed words."""


class PublicKey(Struct, frozen=True, kw_only=True, eq=False):
    """One key, and the only algorithms it is used with."""

    kid: str | None
    algorithms: frozenset[str]
    material: bytes
    """The key itself (SubjectPublicKeyInfo): two keys are the same where this is."""
    key: object

    def verifies(self, alg: str, signed: bytes, signature: bytes) -> bool:
        """Whether the signature was made by this key over these bytes. No exception ever means yes."""
        if alg not in self.algorithms:
            return False
        try:
            return _VERIFIERS[alg].verify(signed, self.key, signature) is True
        except Exception:  # of the library below PyJWT, for signatures it cannot even take apart
            return False


class KeySet:
    """The usable keys of one document."""

    def __init__(self, keys: Iterable[PublicKey] = ()) -> None:
        """Raises NoKeySet when a kid names two keys that could both have signed a token."""
        self._by_kid: dict[tuple[str, str], PublicKey] = {}
        self._by_alg: dict[str, dict[bytes, PublicKey]] = {}
        uses: set[tuple[str | None, str, bytes]] = set()
        for key in keys:
            for alg in key.algorithms:
                uses.add((key.kid, alg, key.material))
                self._by_alg.setdefault(alg, {})[key.material] = key
                if key.kid is None:
                    continue
                if self._by_kid.setdefault((key.kid, alg), key).material != key.material:
                    # Which of the two would be a matter of order, and readers differ.
                    raise NoKeySet("one kid names two keys")
        self._uses = frozenset(uses)

    def find(self, kid: str | None, alg: str) -> PublicKey | None:
        """The key a token names; without a kid, the only one there is for its algorithm."""
        if kid is not None:
            return self._by_kid.get((kid, alg))
        fitting = self._by_alg.get(alg, {})
        return next(iter(fitting.values())) if len(fitting) == 1 else None

    def keeps(self, older: KeySet) -> bool:
        """Whether everything that could be verified with the older set still can, with the same keys."""
        return older._uses <= self._uses

    def __bool__(self) -> bool:
        return bool(self._by_alg)


def read_key_set(document: bytes, allowed: Collection[str]) -> KeySet:
    """The keys of a JWKS that can be used with an `allowed` algorithm; perhaps none. Raises NoKeySet."""
    try:
        value = read_json(document, max_depth=_MAX_DEPTH, max_structure=_MAX_STRUCTURE)
    except Refused:
        raise NoKeySet("not acceptable JSON") from None
    listed = value.get("keys") if isinstance(value, dict) else None
    if not isinstance(listed, list):
        raise NoKeySet("no list of keys")
    if len(listed) > MAX_KEYS:
        raise NoKeySet(f"more than {MAX_KEYS} keys")
    read = (_read_key(each, allowed) for each in listed)
    return KeySet([key for key in read if key is not None])


def _read_key(jwk: object, allowed: Collection[str]) -> PublicKey | None:
    """One key; None where it cannot be used. Certificates (x5c, x5u) are not looked at: what we trust is the
    document and where it came from."""
    if not isinstance(jwk, dict) or "d" in jwk or "k" in jwk:
        return None  # a private or shared key that got out: whoever reads it can sign
    kid = jwk.get("kid")
    if "kid" in jwk and not is_kid(kid):
        return None
    algorithms = _algorithms(jwk).intersection(allowed)
    public = _parsed(jwk) if algorithms else None
    if public is None:
        return None
    material = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(kid=kid, algorithms=algorithms, material=material, key=public)


def _algorithms(jwk: Mapping[str, object]) -> frozenset[str]:
    """What the key may sign: by its type, and by what its issuer says of it."""
    kty, crv = jwk.get("kty"), jwk.get("crv")
    if not isinstance(kty, str) or not isinstance(crv, str | None):
        return frozenset()
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return frozenset()
    fitting = _FITS.get((kty, crv), frozenset())
    return frozenset(each for each in fitting if jwk.get("alg", each) == each)


def _parsed(jwk: Mapping[str, object]) -> _Public | None:
    kty = str(jwk["kty"])
    numbers = {name: jwk.get(name) for name in _NUMBERS[kty]}
    if not all(isinstance(each, str) and len(each) <= _MAX_NUMBER_CHARACTERS for each in numbers.values()):
        return None
    try:
        return _public({"kty": kty, "crv": jwk.get("crv"), **numbers})
    except Exception:  # one odd key must not take the others down, whatever the libraries make of it
        return None


def _public(jwk: dict[str, object]) -> _Public | None:
    match jwk["kty"]:
        case "RSA":
            rsa = RSAAlgorithm.from_jwk(jwk)
            return rsa if isinstance(rsa, RSAPublicKey) and _is_sound(rsa) else None
        case "EC":
            ec = ECAlgorithm.from_jwk(jwk)
            return ec if isinstance(ec, EllipticCurvePublicKey) else None
        case _:
            okp = OKPAlgorithm.from_jwk(jwk)
            return okp if isinstance(okp, Ed25519PublicKey) else None


def _is_sound(key: RSAPublicKey) -> bool:
    exponent = key.public_numbers().e
    return RSA_BITS[0] <= key.key_size <= RSA_BITS[1] and _EXPONENTS[0] <= exponent <= _EXPONENTS[1]
