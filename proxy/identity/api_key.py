"""Is this a key of ours? `id.secret` in a header of its own, or as a Bearer token → `Principal`.

In: a `Credential`. Out: whom the keys file says it stands for; None for a Bearer token that is no key of ours, which
another authenticator may know; else `Refused`. Keeps the entries of the file, and which key has been right before.
Nothing here takes longer for a secret that is nearly right: what is compared is its HMAC under a pepper that the
caller does not know, in constant time, and an unknown id costs what a known one costs.
"""

from __future__ import annotations

import asyncio
import hmac
import math
import re
from collections.abc import Callable, Mapping
from typing import Final

from msgspec import Struct, structs

from ..configuration.documents import read_document
from ..configuration.moments import day_or_moment_of
from ..model import Principal
from .credential import BEARER, Credential, bad
from .keys_file import HASH_PREFIX, KeysFile, bytes_of
from .settings import ApiKeySettings

ISSUER: Final = "api_key"
LONGEST_SECRET: Final = 512
WRONG: Final = "Nobody here knows this credential."
"""One sentence for every wrong key, the same that follows where no authenticator knows a token: who guesses does not
learn whether the id exists."""

_KEY: Final = re.compile(rf"([A-Za-z0-9_-]+)\.([\x21-\x2d\x2f-\x7e]{{1,{LONGEST_SECRET}}})", re.ASCII)
_NO_HASH: Final = bytes(32)


def hash_of(pepper: bytes, secret: str) -> bytes:
    """The HMAC-SHA-256 of a key's part behind the dot."""
    return hmac.digest(pepper, secret.encode(), "sha256")


class _Key(Struct, frozen=True):
    hash: bytes
    principal: Principal
    ends_s: float
    """Seconds since 1970; infinite for one that does not expire."""


class _Keys(Struct, frozen=True):
    """The content of one keys file, ready to be asked."""

    pepper: bytes
    by_id: Mapping[str, _Key]
    proven: dict[bytes, _Key]
    """By the digest of the whole credential; at most one for each key."""


class ApiKeys:
    """Fulfils `Authenticator`."""

    def __init__(
        self,
        settings: ApiKeySettings,
        file: KeysFile,
        *,
        now: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        """`now` is monotonic, `wall` counts from 1970; both in seconds."""
        self.files = (settings.keys_file, *file.pepper.files)
        """What to watch: whichever of them is replaced last, all are read then."""
        self._settings = settings
        self._header = settings.header.lower()
        self._is_bearer = self._header == BEARER
        self._now = now
        self._wall = wall
        self.replace(file)

    def replace(self, file: KeysFile) -> None:
        """Let only the keys of this file count from now on."""
        by_id = {
            entry.id: _Key(
                bytes.fromhex(entry.hash.removeprefix(HASH_PREFIX)),
                Principal(
                    issuer=ISSUER,
                    subject=entry.subject,
                    tenant=entry.tenant,
                    roles=frozenset(entry.roles),
                    client=entry.id,
                    fingerprint=entry.id,
                ),
                math.inf if entry.expires is None else day_or_moment_of(entry.expires),
            )
            for entry in file.keys
        }
        # One assignment: a call sees the old file or the new one, never some of each.
        self._keys = _Keys(bytes_of(file.pepper), by_id, {})

    async def reload(self) -> None:
        """Read the file again. Raises SettingsError with its mistakes; the keys of before go on counting."""
        self.replace(await asyncio.to_thread(read_document, self._settings.keys_file, KeysFile))

    def known(self, credential: Credential) -> Principal | None:
        """Whom the very same credential has stood for before, unless it has ended since."""
        key = self._keys.proven.get(credential.digest) if credential.header == self._header else None
        return None if key is None or self._wall() >= key.ends_s else self._principal(key)

    async def __call__(self, credential: Credential) -> Principal | None:
        if credential.header != self._header:
            return None
        keys = self._keys
        key, is_right = _find(credential.text, keys)
        if key is None and self._is_bearer:
            return None  # a JWT or an opaque token; in a header of our own nobody else is asked
        if key is None or not is_right:
            raise bad(WRONG)
        if self._wall() >= key.ends_s:
            raise bad("This API key has expired.", expired=True)
        keys.proven[credential.digest] = key
        return self._principal(key)

    def _principal(self, key: _Key) -> Principal:
        if key.ends_s == math.inf:
            return key.principal
        return structs.replace(key.principal, valid_until=self._now() + key.ends_s - self._wall())


def _find(text: str, keys: _Keys) -> tuple[_Key | None, bool]:
    """The key that is named, and whether its secret is right. The same work whether there is such a key or not."""
    match = _KEY.fullmatch(text)
    if match is None:
        return None, False
    key = keys.by_id.get(match[1])
    presented = hash_of(keys.pepper, match[2])
    return key, hmac.compare_digest(presented, _NO_HASH if key is None else key.hash)
