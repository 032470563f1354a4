"""What does a recipe of the corpus' `tokens` section say? A recipe → a token, to the byte, or CorpusError.

A recipe is JSON with words in it ("drop the third segment text, keep the dot"). Every word known here is compared
exactly: one that is not known is refused, because a token without it would test something else. Sources: RFC 7515,
RFC 7516, RFC 7518.
"""

import hashlib
import hmac
import itertools
import json
import os
import re
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.corpus.cases import CorpusError
from tests.corpus.keyring import ATTACKER, Keyring, text

_PARTS = frozenset({"sign", "key", "header", "claims", "note", "post", "raw_header", "raw_claims"})
_RSA_KEYS = {
    "k1": "k1",
    "k2": "k2",
    "attacker RSA key": ATTACKER,
    "second trusted IdP key with kid k1": "idp2",
    "kps (JWK alg PS256 in the set, PS256 not in the allow list)": "kps",
}
_EC_KEYS = frozenset({"kec", "attacker EC key"})
_KEPT = "signature of the RS256 form kept"
_ZEROS = "signature is 64 zero bytes"
_TWIN = "same header segment as TOK_ALICE, other payload"
_NOTES = frozenset(
    {
        *("", _KEPT, _ZEROS, _TWIN),
        "had roles [admin] when the session was opened",  # so does the token the session is opened with
        "signed by idp2, claims iss of idp1",  # said by `key` already
    }
)
_MANY_DIGITS = 5000
_MANY_LEVELS = 5000


class Tokens:
    """Mints tokens. `fill` replaces the placeholders inside a recipe."""

    def __init__(
        self, recipes: Mapping[str, Mapping[str, Any]], keys: Keyring, fill: Callable[[str], str]
    ) -> None:
        self._recipes = recipes
        self._keys = keys
        self._fill = fill
        self._turn = itertools.count()

    def __contains__(self, name: str) -> bool:
        return name in self._recipes

    def mint(self, name: str, *, alice: Callable[[], str], **claims: Any) -> str:
        """The token a recipe describes, with further `claims`; `alice` gives the TOK_ALICE it may be a twin of.

        Raises CorpusError for a recipe with words nobody taught this module.
        """
        recipe = {**self._recipes[name], "claims": {**self._recipes[name]["claims"], **claims}}
        note = recipe.get("note", "")
        if unknown := sorted(set(recipe) - _PARTS):
            raise CorpusError(f"token {name}: {', '.join(unknown)} is not minted yet")
        if note not in _NOTES:
            raise CorpusError(f"token {name}: the note {note!r} is not understood")
        head = self._head(recipe)
        claimed = _twin(alice()) if note == _TWIN else self._claimed(name, recipe)
        if recipe["sign"] == "JWE":
            return self._encrypted(head, alice())
        segments = [text(head.encode()), text(claimed.encode())]
        signed = ".".join(segments)
        if note == _KEPT:
            signed = ".".join([text(_json({**recipe["header"], "alg": "RS256"}).encode()), segments[1]])
        signature = bytes(64) if note == _ZEROS else self._sign(name, recipe, signed.encode())
        return self._posted(name, recipe.get("post"), [*segments, text(signature)])

    def _head(self, recipe: Mapping[str, Any]) -> str:
        return str(recipe["raw_header"]) if "raw_header" in recipe else _json(self._value(recipe["header"]))

    def _claimed(self, name: str, recipe: Mapping[str, Any]) -> str:
        claims = self._value(recipe["claims"])
        words = recipe.get("raw_claims")
        if words is None:
            return _json(claims)
        if words not in _RAW_CLAIMS:
            raise CorpusError(f"token {name}: the claims {words!r} are not minted yet")
        member, value = _RAW_CLAIMS[words]
        if words.endswith("appended"):
            return f"{_json(claims)[:-1]},{json.dumps(member)}:{value}}}"
        return _json({**claims, member: "{RAW}"}).replace('"{RAW}"', value)

    def _value(self, value: Any) -> Any:
        """A value of a header or of claims, with what its words stand for."""
        if isinstance(value, dict):
            if set(value) == {"now"}:
                return int(time.time()) + int(value["now"])
            return {self._fill(key): self._value(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._value(each) for each in value]
        if not isinstance(value, str):
            return value
        if value == "{{ATTACKER_JWK}}":
            return self._keys.rsa_jwk(ATTACKER, kid="k1")
        if value == "{{ATTACKER_CERT}}":
            return self._keys.certificate(ATTACKER)
        if match := re.fullmatch(r"\{\{NOW\+(\d+)\}\} as a string", value):
            return str(int(time.time()) + int(match[1]))
        if value.startswith("one of "):
            choices = re.findall(r'"([^"]*)"', value)
            return choices[next(self._turn) % len(choices)]
        return self._fill(value)

    def _sign(self, name: str, recipe: Mapping[str, Any], signed: bytes) -> bytes:
        sign, key = recipe["sign"], recipe["key"]
        if sign == "none" and key is None:
            return b""
        if sign in {"RS256", "PS256"} and key in _RSA_KEYS:
            salted = padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256.digest_size)
            form = padding.PKCS1v15() if sign == "RS256" else salted
            return self._keys.rsa(_RSA_KEYS[key]).sign(signed, form, hashes.SHA256())
        if sign == "ES256" and key in _EC_KEYS:
            made = self._keys.ec(key).sign(signed, ec.ECDSA(hashes.SHA256()))
            r, s = utils.decode_dss_signature(made)
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")
        if sign == "HS256":
            shared = {
                "PEM text of k1 public key": self._keys.public_pem("k1"),
                "big-endian modulus bytes of k1": self._keys.modulus("k1"),
                "empty bytes": b"",
                "base64url AAAA": urlsafe_b64decode("AAAA"),
            }
            if key in shared:
                return hmac.digest(shared[key], signed, hashlib.sha256)
        raise CorpusError(f"token {name}: signing {sign} with {key} is not minted yet")

    def _posted(self, name: str, words: str | None, segments: list[str]) -> str:
        head, claims, signature = segments
        match words:
            case None:
                pass
            case "drop the third segment text, keep the dot":
                signature = ""
            case "flip one bit of the payload segment after signing":
                claims = text(_flipped(_bytes(claims)))
            case "append == to the third segment; jti of TOK_ALICE is revoked":
                signature += "=="
            case _:
                raise CorpusError(f"token {name}: {words!r} is not done yet")
        return f"{head}.{claims}.{signature}"

    def _encrypted(self, head: str, inner: str) -> str:
        """RFC 7516 compact form, with RSA-OAEP and A256GCM for k1, around a token that is good by itself."""
        key, nonce, protected = os.urandom(32), os.urandom(12), text(head.encode())
        oaep = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
        wrapped = self._keys.rsa("k1").public_key().encrypt(key, oaep)
        sealed = AESGCM(key).encrypt(nonce, inner.encode(), protected.encode())
        return ".".join([protected, *map(text, (wrapped, nonce, sealed[:-16], sealed[-16:]))])


_RAW_CLAIMS: Mapping[str, tuple[str, str]] = {
    'base claims with ,"sub":"root" appended': ("sub", '"root"'),
    'base claims with "exp":NaN': ("exp", "NaN"),
    "base claims with exp of 5000 digits": ("exp", "1" * _MANY_DIGITS),
    'base claims with "sub":"\\ud800"': ("sub", '"\\ud800"'),
    'base claims with "x":[[...]] 5000 deep': ("x", "[" * _MANY_LEVELS + "]" * _MANY_LEVELS),
}
"""A recipe's words → the member of the claims, and the JSON text that stands for its value."""


def claims_of(token: str) -> dict[str, Any]:
    """The claims of a token that is ours: nothing is verified."""
    claims = json.loads(_bytes(token.split(".")[1]))
    assert isinstance(claims, dict)
    return claims


def _twin(alice: str) -> str:
    """Claims that begin as Alice's do for as long as possible: only the end of `jti`, the last one, differs."""
    claims = claims_of(alice)
    last = claims["jti"][-1]
    return _json({**claims, "jti": claims["jti"][:-1] + ("0" if last != "0" else "1")})


def _flipped(claims: bytes) -> bytes:
    """One bit of the subject's last letter: still JSON, so that nothing but the signature tells."""
    at = claims.index(b'"', claims.index(b'"sub":"') + 7) - 1
    return claims[:at] + bytes([claims[at] ^ 1]) + claims[at + 1 :]


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))


def _bytes(segment: str) -> bytes:
    return urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
