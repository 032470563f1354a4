"""What stands where the corpus says {{NAME}}? Bytes with placeholders → bytes with freshly minted values.

Tokens are signed from the corpus' `tokens` section, keys and nonces are random, so that no constant of the file can
open anything and a value found in a log can only have come from us. Session ids and the like cannot be minted: they
are what the server handed out through the sidecar, and are given to the mint (belongings.py).
"""

import hashlib
import hmac
import itertools
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Any

from tests import ledger
from tests.corpus.cases import CorpusError
from tests.corpus.keyring import Keyring
from tests.corpus.tokens import Tokens

_PLACEHOLDER = re.compile(rb"\{\{([A-Z][A-Z0-9_]*)(\+\d+)?(?:\|([a-z]+))?\}\}")
_LONG_AGO = "2020-01-01T00:00:00Z"

EVENT_OF_BOB = "corpus-event-of-bob"
"""Text in every event of Bob that the fake upstream sends or replays."""


class Mint:
    """Values for one run; `renew` begins another case. `nonce` marks what this run made."""

    def __init__(self, fixture: Mapping[str, Any], tokens: Mapping[str, Mapping[str, Any]]) -> None:
        self.nonce = secrets.token_hex(6)
        self.keys = Keyring()
        self._tokens = Tokens(tokens, self.keys, self.fill_text)
        self._principals = fixture["principals"]
        self._count = itertools.count(1)
        self._made: dict[str, str] = {}
        self._api_keys: dict[str, str] = {}
        self._constants: dict[bytes, bytes] = {}
        self._given: dict[str, str] = {}
        for name, key in fixture["api_keys"].items():
            # The product's keys are `id.secret`; same length, because some are inside a counted body.
            stem = key[: key.rindex("-")]
            minted = f"{stem}.{secrets.token_hex(16)}"[: len(key)]
            self._api_keys[name] = minted
            self._constants[key.encode()] = minted.encode()

    def renew(self) -> None:
        """Forget what was minted and given, except API keys: tokens age, and no case reuses another's."""
        self._made.clear()
        self._given.clear()

    def give(self, name: str, value: str) -> None:
        """`value` is real and stands for `name` until `renew`."""
        self._given[name] = value

    def fill(self, text: bytes) -> bytes:
        """`text` with every placeholder and fixture key replaced. Raises CorpusError for an unknown name."""
        for key, minted in self._constants.items():
            text = text.replace(key, minted)
        return _PLACEHOLDER.sub(self._value, text) if b"{{" in text else text

    def fill_text(self, text: str) -> str:
        """`fill` for text."""
        return self.fill(text.encode("utf-8")).decode("utf-8")

    def value(self, name: str) -> str:
        """The value of a placeholder, the same until `renew`. Raises CorpusError for an unknown name."""
        if name == "N":
            return str(next(self._count))
        found = self._given.get(name) or self._api_keys.get(name) or self._made.get(name)
        if found is None:
            found = self._made[name] = self._mint(name)
        return ledger.secret(found, "corpus token") if name.startswith(("TOK_", "KEY_")) else found

    def token(self, name: str, **claims: Any) -> str:
        """A token of its own by a recipe, with further claims."""
        return self._tokens.mint(name, alice=lambda: self.value("TOK_ALICE"), **claims)

    def keys_file(self) -> str:
        """The sidecar's file of API keys, in YAML: hashes only. KEY_REVOKED has expired, ADMIN_KEY is not in it."""
        pepper = secrets.token_bytes(32)
        lines = ["version: 1", f"pepper: {urlsafe_b64encode(pepper).decode().rstrip('=')}", "keys:"]
        for name, key in self._api_keys.items():
            who = name.removeprefix("KEY_").lower()
            if who != "revoked" and who not in self._principals:
                continue
            id, _, secret = key.partition(".")
            tenant = self._principals.get(who, {"tenant": "a"})["tenant"]
            lines += [
                f"  - id: {id}",
                f"    hash: hmac-sha256:{hmac.digest(pepper, secret.encode(), hashlib.sha256).hex()}",
                f"    tenant: {tenant}",
                f"    subject: {who}",
            ]
            if who == "revoked":
                lines.append(f'    expires: "{_LONG_AGO}"')
        return "\n".join(lines) + "\n"

    def _value(self, match: re.Match[bytes]) -> bytes:
        name, plus, change = match[1].decode(), match[2], match[3]
        value = self.value(name)
        if plus:
            value = _plus(value, int(plus))
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
            return self.token(name)
        if name in {"NONCE", "RANDOM"}:
            return f"{name.lower()}-{secrets.token_hex(16)}"
        raise CorpusError(f"nothing stands for {{{{{name}}}}}: it was neither minted nor obtained")


def _plus(value: str, more: int) -> str:
    """The next one of a row: the number at the end counted on, or the last character moved."""
    match = re.search(r"\d+$", value)
    if match is None:
        return f"{value[:-1]}{chr(ord(value[-1]) + more)}"
    return value[: match.start()] + str(int(match[0]) + more).zfill(len(match[0]))
