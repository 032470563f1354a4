"""Settings → the cache room: the stage that answers from what is kept, the ears that hear what is true no more.

In: settings. Out: a `Caching`. Without a `cache` section there is no stage, nothing listens or
runs, and nothing more is imported.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from msgspec import structs

from ..model import Deadline, Ending, Listen, Permit, Refused, Reply, Stage, never_ends
from .settings import CacheSettings

if TYPE_CHECKING:
    from .forgetting import Definitions, RuleOf
    from .layered import Second
    from .memory import Memory
    from .stage import Teach
    from .store import Counts, Store

MAX_RENEWALS = 256
"""Answers that are fetched anew beside the calls at once; beyond it, whoever asks later asks the server."""

SHRINKS_AT_ONCE = 256
"""Entries, in one turn of the loop: about a millisecond."""


class Caching:
    """The cache room as the house uses it."""

    def __init__(
        self,
        settings: CacheSettings | None,
        *,
        upstream: str,
        generation: str,
        rule_of: RuleOf,
        stops: Callable[[bytes], bool],
        failed: Callable[[Exception], None],
        wall: Callable[[], float],
        store: Store | None = None,
        definitions: Definitions | None = None,
    ) -> None:
        """`upstream` is the server's URL, `generation` names the policy in force, `rule_of` the rule of one message of
        a batch. `stops` tells which headers do not reach the server. `failed` hears what went wrong beside the calls.
        `store` is what `store_of` made of these settings, whose jobs run and which is closed elsewhere; `definitions`
        are those that were seen before a reload."""
        self.listen: Listen | None = None
        """Ears for exchanges."""
        self.store = store
        self._memory = None if store is None else _memory_of(store)
        self._settings = settings
        self._failed = failed
        self._wall = wall
        self._renewals: set[asyncio.Task[None]] = set()
        if settings is None or store is None:
            return
        from .forgetting import Forgetting
        from .worth import Worth

        self._worth = Worth(settings, upstream=upstream, generation=generation, stops=stops)
        self._forgetting = Forgetting(store, rule_of, definitions)
        self.listen = self._forgetting.listen

    def guarded(self, serve: Stage, teach: Teach, deadline: Deadline = never_ends) -> Stage:
        """The stage that answers from what is kept, before `serve`. `teach` tells others of results from here,
        `deadline` when a call is over."""
        if self._settings is None or self.store is None:
            return serve
        from .stage import Cache

        forgetting = self._forgetting

        def retell(permit: Permit, text: bytes) -> None:
            with forgetting.retelling():
                teach(permit, text)

        return Cache(
            forgetting.guarded(serve),
            self._worth,
            self.store,
            max_entry_bytes=self._settings.max_entry_bytes,
            definition=forgetting.definition,
            teach=retell,
            refresh=self._renew,
            wall=self._wall,
            deadline=deadline,
        )

    @property
    def counts(self) -> Counts:
        """What happened to entries since the start."""
        return {} if self.store is None else self.store.counts

    @property
    def bytes_held(self) -> float:
        """Memory that kept answers take."""
        return 0 if self._memory is None else self._memory.bytes_held

    async def forget(self, tenant: str | None = None, *targets: str) -> None:
        """An operator's word: drop what is kept for a tenant (None: for everybody) of these tools (none: of all)."""
        if self.store is not None:
            from .store import Forget

            await self.store.forget(Forget(tenant, ("tools/call",) if targets else (), targets))

    async def shrink(self, share: float) -> None:
        """Memory is wanted elsewhere: keep so large a share of what this process holds, at most."""
        memory = self._memory
        to_bytes = 0.0 if memory is None else memory.bytes_held * share
        while memory is not None and memory.shrink(to_bytes, SHRINKS_AT_ONCE):  # noqa: ASYNC110  no event is awaited
            await asyncio.sleep(0)  # others have their turns

    async def close(self) -> None:
        """End what runs beside the calls."""
        for task in tuple(self._renewals):
            task.cancel()
        await asyncio.gather(*self._renewals, return_exceptions=True)
        if self.store is not None:
            await self._forgetting.close()

    def _renew(self, permit: Permit, ask: Callable[[Permit], Awaitable[Reply | None]]) -> None:
        if len(self._renewals) >= MAX_RENEWALS:
            return
        journey = permit.call.journey.sibling()
        call = structs.replace(permit.call, journey=journey)
        again = structs.replace(permit, call=call)
        task = asyncio.get_running_loop().create_task(self._renewed(again, ask))
        self._renewals.add(task)
        task.add_done_callback(self._renewals.discard)

    async def _renewed(self, permit: Permit, ask: Callable[[Permit], Awaitable[Reply | None]]) -> None:
        journey = permit.call.journey
        try:
            reply = await ask(permit)
        except Refused as refused:
            journey.refused(refused)
        except Exception as error:  # nobody waits for it
            self._failed(error)
        except BaseException as error:
            journey.ended(Ending.of(error))
            raise
        else:
            if reply is None:
                return  # somebody asks already: there was no call to tell of
            reply.done(Ending.COMPLETE)
        journey.ended(Ending.COMPLETE)


def store_of(settings: CacheSettings, *, wall: Callable[[], float], second: Second | None = None) -> Store:
    """Where answers lie, by the settings. `second` is the store that replicas share, where they do; `wall` counts
    seconds from 1970."""
    from .file import File
    from .layered import Layered
    from .memory import Memory
    from .store import Seal

    memory = Memory(
        max_bytes=settings.max_bytes,
        max_entry_bytes=settings.max_entry_bytes,
        per_tenant_share=settings.per_tenant_share,
        wall=wall,
        compress_above_bytes=settings.compress_above_bytes,
    )
    if settings.file is not None and settings.secret is not None:
        return File(
            memory,
            settings.file,
            Seal(settings.secret, "file", settings.compress_above_bytes),
            max_bytes=settings.max_bytes,
            max_entry_bytes=settings.max_entry_bytes,
        )
    return memory if second is None else Layered(memory, second)


def _memory_of(store: Store) -> Memory | None:
    """What this process holds of it."""
    from .file import File
    from .layered import Layered
    from .memory import Memory

    if isinstance(store, File | Layered):
        return store.memory
    return store if isinstance(store, Memory) else None
