"""What may a file of API keys hold? → `KeysFile`. Pure, and light: `mcp-sidecar check` reads it without a loop.

The file holds no key: of each it has the HMAC-SHA-256 (RFC 2104) of the secret part under the file's pepper. So
whoever reads the file can call nobody, and a list of it says nothing without the pepper. A slow hash would add
nothing: secrets are 32 random bytes, not words that people choose.
"""

import re
from base64 import urlsafe_b64decode
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from ..configuration.mistakes import Unfit
from ..configuration.moments import day_or_moment_of
from ..configuration.values import fit
from ..secret import Secret
from .settings import Label, Tenant

LONGEST_ID: Final = 64
HASH_PREFIX: Final = "hmac-sha256:"
SHORTEST_PEPPER_BYTES: Final = 16
"""128 bits: nobody guesses it."""

_ID: Final = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)
_HASH: Final = re.compile(rf"{HASH_PREFIX}[0-9a-f]{{64}}", re.ASCII)
_BASE64URL: Final = re.compile(r"([A-Za-z0-9_-]*)(={0,2})", re.ASCII)


def check_id(text: str) -> None:
    """Raise Unfit unless this can be the part of a key before its dot."""
    if not _ID.fullmatch(text):
        raise Unfit("is no id of a key", "it may hold letters, digits, _ and - only", "rename it")


def check_hash(text: str) -> None:
    """Raise Unfit unless this is what `hash-key` makes."""
    if not _HASH.fullmatch(text):
        why = "hmac-sha256: and 64 lower-case hex digits are needed"
        raise Unfit("is no hash of a key", why, "make one with mcp-sidecar hash-key")


def check_pepper(pepper: Secret) -> None:
    """Raise Unfit unless the pepper is base64url of enough random bytes."""
    remedy = "let mcp-sidecar hash-key make one"
    if _decoded(pepper.reveal()) is None:
        raise Unfit("is no base64url", "RFC 4648 section 5 allows letters, digits, - and _ only", remedy)
    if len(bytes_of(pepper)) < SHORTEST_PEPPER_BYTES:
        raise Unfit("is too short", f"at least {SHORTEST_PEPPER_BYTES} bytes are needed", remedy)


def check_moment(text: str) -> None:
    """Raise Unfit unless this is a date or date-time."""
    day_or_moment_of(text)


class KeyEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One key, and whom it stands for."""

    id: Annotated[str, Meta(min_length=1, max_length=LONGEST_ID), fit(check_id)]
    """The part of the key before its dot; names it in records."""

    hash: Annotated[str, fit(check_hash)]
    """hmac-sha256: and the HMAC of the part behind the dot, in hex."""

    tenant: Tenant
    """The tenant of whoever presents the key."""

    subject: Label
    """The name of whoever presents the key."""

    roles: tuple[Label, ...] = ()
    """The roles of whoever presents the key."""

    expires: Annotated[str, fit(check_moment)] | None = None
    """When the key ends: a date, which ends it as it begins in UTC, or a date-time. Absent: never."""


def check_ids(keys: tuple[KeyEntry, ...]) -> None:
    """Raise Unfit where two keys go by one id: nobody could tell which was meant."""
    seen: set[str] = set()
    for index, entry in enumerate(keys):
        if entry.id in seen:
            raise Unfit("has an id that is there twice", "a key is found by its id", "rename one", key=index)
        seen.add(entry.id)


Pepper = Annotated[Secret, Meta(extra={"fit": check_pepper, "may_be_clear": True})]


class KeysFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file that `keys_file` of an api_key authenticator names."""

    version: Literal[1]
    """The format of this file."""

    pepper: Pepper
    """base64url of at least 16 random bytes; of no use without the hashes, nor they without it."""

    keys: Annotated[tuple[KeyEntry, ...], Meta(extra={"fit": check_ids})] = ()
    """The keys that count. One that is not listed does not count any more."""


def bytes_of(pepper: Secret) -> bytes:
    """The bytes of a checked pepper."""
    return _decoded(pepper.reveal()) or b""


def _decoded(text: str) -> bytes | None:
    match = _BASE64URL.fullmatch(text)
    if match is None or len(match[1]) % 4 == 1 or (match[2] and len(text) % 4):
        return None
    return urlsafe_b64decode(match[1] + "=" * (-len(match[1]) % 4))
