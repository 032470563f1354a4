"""When do the keys come? Drives `Keys` with what the provider says; the only place where it is asked for keys.

In: a URL from the settings. Out: keys, and who waits for them waits here. Keeps one endless job, so that never two
fetches are under way. What fetching and reading raise is translated here, once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Final, NoReturn, Protocol

from .key_set import NoKeySet, PublicKey, read_key_set
from .keys import Keys, Miss
from .provider import Unavailable

PATIENCE_S: Final = 1.0
"""How long a call with an unknown kid waits for the fetch that may bring it: longer than fetches take, much shorter
than a provider may hang."""


class Fetches(Protocol):
    """The part of `Provider` that is needed here."""

    async def fetch(self, url: str) -> tuple[bytes, float | None]:
        """The document, and for how many seconds it is called fresh. Raises Unavailable."""
        ...


class KeyFetch:
    """Renews the keys of one issuer. Build it anywhere, use it inside one running loop."""

    def __init__(
        self,
        keys: Keys,
        url: str,
        provider: Fetches,
        *,
        algorithms: Collection[str],
        forget: Callable[[], None],
        now: Callable[[], float],
        chance: Callable[[], float],
        patience_s: float = PATIENCE_S,
    ) -> None:
        """`forget` is called as soon as a key is gone or another one; `chance` is between 0 and 1."""
        self._keys = keys
        self._url = url
        self._provider = provider
        self._algorithms = frozenset(algorithms)
        self._forget = forget
        self._now = now
        self._chance = chance
        self._patience_s = patience_s
        self._wanted = asyncio.Event()
        self._done = asyncio.Event()

    async def run(self) -> NoReturn:
        """Renew the keys for ever, each time they are due or wanted. Ends when it is cancelled."""
        while True:
            await self._until_due()
            await self._renew()

    async def find(self, kid: str | None, alg: str) -> PublicKey | Miss:
        """The key a token names. Waits only where it is not there and a fetch may bring it, and not for long."""
        found = self._keys.find(kid, alg, self._now())
        if found is not Miss.PENDING:
            return found
        try:
            async with asyncio.timeout(self._patience_s):
                # Twice round where a fetch was under way that had begun before the kid was asked for.
                while found is Miss.PENDING:
                    self._wanted.set()
                    await self._done.wait()
                    found = self._keys.find(kid, alg, self._now())
        except TimeoutError:
            return Miss.NOBODY_KNOWS
        return found

    async def _until_due(self) -> None:
        while (wait_s := self._keys.wait_s(self._now())) > 0:
            self._wanted.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self._wanted.wait()
            except TimeoutError:
                pass

    async def _renew(self) -> None:
        self._keys.began()
        try:
            document, max_age_s = await self._provider.fetch(self._url)
            key_set = read_key_set(document, self._algorithms)
        except (Unavailable, NoKeySet) as error:
            self._failed(str(error))
        except Exception as error:  # else the keys would never be renewed again
            self._failed(f"unexpected {type(error).__name__}")
        else:
            if not self._keys.renewed(key_set, max_age_s, self._now(), self._chance()):
                self._forget()
        finally:
            # Who waits from now on waits for another fetch.
            done, self._done = self._done, asyncio.Event()
            done.set()

    def _failed(self, why: str) -> None:
        self._keys.failed(why, self._now(), self._chance())
