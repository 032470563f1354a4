"""What stands where the corpus says {{NAME}}? Bytes with placeholders → bytes with freshly minted values.

Tokens are signed from the corpus' `tokens` section; keys, session ids and the like are random per run, so
that no constant of the file can open anything and a value found in a log can only have come from us.
"""

import base64
import json
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from tests.corpus.cases import CorpusError

_PLACEHOLDER = re.compile(rb"\{\{([A-Z][A-Z0-9_]*)(\+\d+)?(?:\|([a-z]+))?\}\}")
_OPAQUE = frozenset(
    {
        *("NONCE", "RANDOM", "SID_ALICE", "SID_ALICE_ENDED", "SID_BOB", "SID_DEMOTED", "SSE_SID_BOB"),
        *("EVT_BOB", "EVT_ALICE_STREAM2", "TASK_BOB", "SRV_REQ_ID_BOB"),
    }
)
"""Ids that are opaque to the sidecar while no room binds them to an identity."""

EVENT_OF_BOB = "corpus-event-of-bob"
"""Text in every event of Bob that the fake upstream would replay."""


class Mint:
    """Values for one run. `nonce` marks what this run made."""

    def __init__(self, tokens: Mapping[str, Mapping[str, Any]], api_keys: Mapping[str, str]) -> None:
        self.nonce = secrets.token_hex(6)
        self._tokens = tokens
        self._made: dict[str, str] = {}
        self._rsa: dict[str, rsa.RSAPrivateKey] = {}
        self._ec: dict[str, ec.EllipticCurvePrivateKey] = {}
        self._keys: dict[bytes, bytes] = {}
        for name, key in api_keys.items():
            # The product's keys are `id.secret`; same length, because some are inside a counted body.
            stem = key[: key.rindex("-")]
            minted = f"{stem}.{secrets.token_hex(16)}"[: len(key)]
            self._made[name] = minted
            self._keys[key.encode()] = minted.encode()

    def fill(self, text: bytes) -> bytes:
        """`text` with every placeholder and fixture key replaced. Raises CorpusError for an unknown name."""
        for key, minted in self._keys.items():
            text = text.replace(key, minted)
        return _PLACEHOLDER.sub(self._value, text) if b"{{" in text else text

    def fill_text(self, text: str) -> str:
        """`fill` for text."""
        return self.fill(text.encode("utf-8")).decode("utf-8")

    def value(self, name: str) -> str:
        """The value of a placeholder, the same for the whole run. Raises CorpusError for an unknown name."""
        if name not in self._made:
            self._made[name] = self._mint(name)
        return self._made[name]

    def _value(self, match: re.Match[bytes]) -> bytes:
        name, plus, change = match[1].decode(), match[2], match[3]
        value = self.value(name)
        if plus:
            value = f"{value[:-1]}{chr(ord(value[-1]) + int(plus))}"
        if change == b"upper":
            value = value.upper()
        elif change == b"half":
            value = value[: len(value) // 2]
        elif change == b"lastchar":
            value = f"{value[:-1]}{chr(ord(value[-1]) + 1)}"
        elif change:
            raise CorpusError(f"no transformation {change.decode()} for placeholders")
        return value.encode()

    def _mint(self, name: str) -> str:
        if name in self._tokens:
            return self._token(name, self._tokens[name])
        if name in _OPAQUE:
            return f"{name.lower().replace('_', '-')}-{secrets.token_hex(8)}"
        raise CorpusError(f"nothing is minted for {{{{{name}}}}}")

    def _token(self, name: str, recipe: Mapping[str, Any]) -> str:
        # `note` is prose; anything else that changes the token must be done here or refused, never left out.
        if unknown := sorted(set(recipe) - {"sign", "key", "header", "claims", "note"}):
            raise CorpusError(f"token {name}: {', '.join(unknown)} is not minted yet")
        head = _segment({key: self._claim(value) for key, value in recipe["header"].items()})
        claims = _segment({key: self._claim(value) for key, value in recipe["claims"].items()})
        signed = head + b"." + claims
        return (signed + b"." + _b64(self._sign(name, recipe, signed))).decode()

    def _claim(self, value: Any) -> Any:
        if isinstance(value, dict) and set(value) == {"now"}:
            return int(time.time()) + int(value["now"])
        return self.fill_text(value) if isinstance(value, str) else value

    def _sign(self, name: str, recipe: Mapping[str, Any], signed: bytes) -> bytes:
        key = str(recipe["key"])
        if recipe["sign"] == "RS256" and re.fullmatch(r"k\d+|attacker RSA key", key):
            return self._rsa_key(key).sign(signed, padding.PKCS1v15(), hashes.SHA256())
        if recipe["sign"] == "ES256" and key in {"kec", "attacker EC key"}:
            r, s = utils.decode_dss_signature(self._ec_key(key).sign(signed, ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")
        if recipe["sign"] == "none":
            return b""
        raise CorpusError(f"token {name}: signing {recipe['sign']} with {key} is not minted yet")

    def _rsa_key(self, name: str) -> rsa.RSAPrivateKey:
        if name not in self._rsa:
            self._rsa[name] = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        return self._rsa[name]

    def _ec_key(self, name: str) -> ec.EllipticCurvePrivateKey:
        if name not in self._ec:
            self._ec[name] = ec.generate_private_key(ec.SECP256R1())
        return self._ec[name]


def _segment(value: Mapping[str, Any]) -> bytes:
    return _b64(json.dumps(value, separators=(",", ":")).encode())


def _b64(value: bytes) -> bytes:
    return base64.urlsafe_b64encode(value).rstrip(b"=")
