"""What does a signed token say? Text → `Token`, read in one way only and not yet believed. Pure.

In: the text of a Bearer token. Out: its parts, or `Refused` (bad_credential). Keeps nothing.
Two texts never stand for one token: base64url has to be canonical, so that a padded or bit-flipped twin is refused
instead of passing a list of revoked ones or a cache. `issuers_named` reads as leniently as anybody might, for one
question only: whose token does this claim to be?
Sources: RFC 7515 (JWS, compact form), RFC 7519, RFC 8725 (best practice), RFC 7797 (`b64`).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from typing import Final, TypeGuard

from msgspec import Struct

from ..model import Refused
from ..protocol.jsonrpc import read_json
from .credential import bad

MAX_CHARACTERS: Final = 16_384
"""Of a whole token. Real ones stay below 4,096."""
MAX_KID_CHARACTERS: Final = 256
_MAX_DEPTH: Final = 16
"""Nesting of header and claims. The deepest in the wild are the roles per client of Keycloak: 4."""
_MAX_STRUCTURE: Final = 4_096
_NOT_BASE64: Final = re.compile(r"[^A-Za-z0-9_-]", re.ASCII)


class Token(Struct, frozen=True, kw_only=True):
    """The parts of a token. Only the signature says whether any of it is true."""

    alg: str
    kid: str | None
    typ: str | None
    claims: Mapping[str, object]
    signed: bytes
    """The bytes the signature was made over."""
    signature: bytes


def read_token(text: str) -> Token:
    """The one token that `text` stands for. Raises Refused.

    What the header says of keys (jwk, jku, x5c, x5u, x5t) is not even read: keys come from our settings.
    """
    if len(text) > MAX_CHARACTERS:
        raise bad(f"A token may have {MAX_CHARACTERS} characters.")
    parts = text.split(".")
    if len(parts) != 3:
        raise bad("A signed token has three parts.")
    header = _object(_decoded(parts[0]))
    if "crit" in header or "b64" in header:
        # Extensions that change what is signed or how it is checked; we know none (RFC 7515 4.1.11).
        raise bad("The token's header asks for an extension (crit, b64) that is not supported here.")
    claims = _object(_decoded(parts[1]))
    return Token(
        alg=_alg(header),
        kid=_kid(header),
        typ=_typ(header),
        claims=claims,
        signed=text[: text.rindex(".")].encode(),
        signature=_decoded(parts[2]),
    )


def issuers_named(text: str) -> frozenset[str] | None:
    """Whose token this claims to be; None: it is no JWT.

    Read more leniently than by any reader we know, and every `iss` counts where there are several: what one of
    them takes for a token of a known issuer must not pass as an opaque token. An opaque token with two dots in it
    has no header that is a JSON object. Raises Refused for one that has, and no payload that can be read.
    """
    first, dot, rest = text.partition(".")
    if not dot or not _pairs(first):
        return None
    payload, *others = rest.split(".")
    claims = _pairs(payload)
    if claims is None:
        if len(others) == 1:
            raise bad("The claims of the token cannot be read.")
        return None  # an encrypted token, of five parts, is opaque to us
    return frozenset(_issuers(claims))


def _alg(header: Mapping[str, object]) -> str:
    alg = header.get("alg")
    if not isinstance(alg, str):
        raise bad("The token's header names no algorithm.")
    return alg


def _kid(header: Mapping[str, object]) -> str | None:
    if "kid" not in header:
        return None
    kid = header["kid"]
    if not is_kid(kid):
        raise bad(f"The token's kid is not a printable name of at most {MAX_KID_CHARACTERS} characters.")
    return kid


def is_kid(kid: object) -> TypeGuard[str]:
    """Whether this may name a key, in a token or in a key set."""
    return isinstance(kid, str) and 0 < len(kid) <= MAX_KID_CHARACTERS and kid.isprintable()


def _typ(header: Mapping[str, object]) -> str | None:
    if "typ" not in header:
        return None
    typ = header["typ"]
    if not isinstance(typ, str):
        raise bad("The token's typ is not a string.")
    return typ


def _decoded(part: str) -> bytes:
    """The bytes of a part. Raises Refused unless it is the only way to write them."""
    try:
        decoded = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError:
        decoded = b""
    if not decoded or base64.urlsafe_b64encode(decoded).decode().rstrip("=") != part:
        # Decoders skip foreign characters and ignore trailing bits; what comes out does not tell.
        raise bad("A part of the token is empty, or is not base64url without padding.")
    return decoded


def _object(text: bytes) -> dict[str, object]:
    try:
        value = read_json(text, max_depth=_MAX_DEPTH, max_structure=_MAX_STRUCTURE)
    except Refused:
        # Its words are about the message's body, and its status is 400.
        raise bad("Header or claims of the token are not acceptable JSON.") from None
    if not isinstance(value, dict):
        raise bad("Header and claims of a token are JSON objects.")
    return value


class _Pairs(list[tuple[str, object]]):
    """A JSON object with all its members, also those of equal names."""


_LENIENT: Final = json.JSONDecoder(
    object_pairs_hook=_Pairs,
    strict=False,  # line breaks inside strings
    # Digits are counted by Python's int, and nobody asks for numbers here.
    parse_int=str,
    parse_float=str,
)


def _pairs(part: str) -> _Pairs | None:
    """The members of a JSON object, however it is spelt: in either base64 alphabet, with padding, blanks, a byte
    order mark, something behind it, or bytes that are no UTF-8. None where there is no such object."""
    letters = _NOT_BASE64.sub("", part.translate(_TO_URLSAFE))
    # One letter too many is dropped, as lenient decoders do.
    letters = letters[: len(letters) - (len(letters) % 4 == 1)]
    raw = base64.urlsafe_b64decode(letters + "=" * (-len(letters) % 4))
    try:
        text = raw.decode(json.detect_encoding(raw), "replace")
        value, _ = _LENIENT.raw_decode(text.lstrip("\ufeff\x00 \t\r\n"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, _Pairs) else None


_TO_URLSAFE: Final = str.maketrans("+/", "-_")


def _issuers(claims: _Pairs) -> Iterator[str]:
    for name, value in claims:
        # Some readers fold names (Go) or trim them; some take a list of issuers.
        if name.strip().casefold() == "iss":
            if isinstance(value, str):
                yield value
            elif isinstance(value, list):
                yield from (each for each in value if isinstance(each, str))
