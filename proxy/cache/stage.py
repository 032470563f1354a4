"""Is the answer here already, or on its way? A permitted call → a kept answer, that of somebody who asks the same at
this moment, or the server's own.

In: a `Permit`, behind identity, policy and limits. Out: a `Reply`. Keeps nothing but who waits for whom; answers are
the store's. Whatever is not certain to be safe passes as if there were no cache: `worth.py` decides.

An event stream is held until its first message: if that is the answer, it is kept and told to whoever waits for the
same; if the server says something else first, the stream passes as it is, because it may ask its client something.
"""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeAlias

from msgspec import Struct

from ..model import (
    OWN_WISH,
    UPSTREAM_FAULTS,
    Broken,
    Cached,
    Deadline,
    Ending,
    FirstHeld,
    Headers,
    Permit,
    Reason,
    Refused,
    Reply,
    RequestId,
    Stage,
    Stream,
    Verdict,
    never_ends,
)
from ..protocol.headers import media_type
from ..protocol.sse import Splitter, TooLong
from ..refusals import META_KEY
from .entry import Entry, age, is_fresh, is_over, may_follow_error, may_revalidate, served
from .flight import Flights
from .key import Key, Keys
from .store import Mark, Store
from .worth import Asked, Worth, is_answer

_LEFT_ALONE: Final = frozenset({Reason.BREAKER_OPEN, Reason.QUARANTINED})
FAILURES: Final = UPSTREAM_FAULTS | _LEFT_ALONE | {Reason.DEADLINE, Reason.OVERLOADED}
"""The server's troubles, after which an old answer is better than none where the rule says so."""
TAUGHT: Final = frozenset({"tools/list", "server/discover", "initialize"})
"""Methods whose results other rooms learn from, also where they come from here."""

Teach: TypeAlias = Callable[[Permit, bytes], None]
"""Tells the other rooms the JSON text of a result that its caller gets from here. Raises Refused."""
Refresh: TypeAlias = Callable[[Permit, Callable[[Permit], Awaitable[Reply | None]]], None]
"""Does something for a permit beside the calls, with a journey of its own, and ends the reply."""
Name: TypeAlias = tuple[bytes, Mark]
"""Under which equal calls wait for each other. What was forgotten since one of them asked was true when it did: whoever
asks later must not be told that."""


class Landed(Struct):
    """What a call to the server brought."""

    reply: Reply | None
    """The server's own, for whoever asked; None once it was taken."""
    kept: tuple[Key, Entry] | None
    has_failed: bool = False

    def take(self) -> Reply:
        reply, self.reply = self.reply, None
        assert reply is not None
        return reply

    def left(self) -> None:
        """Nobody waits any more: what nobody took is closed."""
        if self.reply is not None:
            self.take().done(Ending.CLIENT_GONE)


class Cache:
    """Fulfils `Stage`."""

    def __init__(
        self,
        serve: Stage,
        worth: Worth,
        store: Store,
        *,
        max_entry_bytes: int,
        definition: Callable[[Permit], str],
        teach: Teach,
        refresh: Refresh,
        wall: Callable[[], float],
        deadline: Deadline = never_ends,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`definition` is the hash of what the server says of the tool, "" where it said nothing. `wall` counts seconds
        from 1970. `deadline` says when a call is over, in the monotonic seconds of `now`: who waits for another's
        answer has no less patience and no more than who asks for itself."""
        self._serve = serve
        self._worth = worth
        self._store = store
        self._max_entry_bytes = max_entry_bytes
        self._definition = definition
        self._teach = teach
        self._refresh = refresh
        self._wall = wall
        self._deadline = deadline
        self._now = now
        self._flights: Flights[Name, Landed] = Flights(Landed.left)

    def __call__(self, permit: Permit) -> Awaitable[Reply]:
        asked = self._worth.asked(permit)
        keys = None if asked is None else self._worth.keys(permit, asked, self._definition(permit))
        if asked is None or keys is None:
            return self._serve(permit)
        return self._answered(permit, asked, keys)

    @property
    def under_way(self) -> int:
        """Keys that somebody asks the server for at the moment."""
        return len(self._flights)

    async def _answered(self, permit: Permit, asked: Asked, keys: Keys) -> Reply:
        """What is kept of such a call, however old, or what the server says. What lies under another name by a chance
        of 2^-256, or by somebody's hand, is nothing. One coroutine, in which nothing waits where the store has it at
        hand."""
        permit.call.journey.cached(_MISS)
        if not asked.may_look:
            return (await self._fetch(permit, asked, keys)).take()
        old: Entry | None = None
        for key in (keys.own, keys.shared):
            if key is None:
                continue
            found = self._store.look(key.digest)
            if found is None:
                continue
            if not isinstance(found, Entry):
                found = await found
            if found is None or found.material != key.material:
                continue
            wall = self._wall()
            if is_fresh(found, wall):
                return self._told(permit, found, _HIT, wall)
            if old is None and not is_over(found, wall):
                old = found
        if old is not None and may_revalidate(old, wall := self._wall()):
            if not self._flights.has((_flight(asked, keys), self._store.mark())):
                self._refresh(permit, lambda again: self._renew(again, asked, keys))
            return self._told(permit, old, _STALE, wall)
        return await self._or_stale(permit, asked, keys, old)

    async def _or_stale(self, permit: Permit, asked: Asked, keys: Keys, old: Entry | None) -> Reply:
        """The server's answer; where the server fails, an old one that the rule allows."""
        try:
            reply, has_failed = await self._one_of_several(permit, asked, keys)
        except Refused as refused:
            wall = self._wall()
            if old is None or refused.reason not in FAILURES or not may_follow_error(old, wall):
                raise
            return self._told(permit, old, _STALE, wall)
        if old is None or not has_failed or not may_follow_error(old, wall := self._wall()):
            return reply
        reply.done(Ending.COMPLETE)
        return self._told(permit, old, _STALE, wall)

    async def _one_of_several(self, permit: Permit, asked: Asked, keys: Keys) -> tuple[Reply, bool]:
        """Wait for whoever asks the same, or ask for all who come meanwhile. Where that one failed, one of those who
        waited tries again, once for all of them; where the answer, or the no, was for that one alone, each asks for
        itself. Beside the answer: whether the server has failed."""
        if not asked.may_join:
            return _taken(await self._fetch(permit, asked, keys))
        digests = [_flight(asked, keys)]
        if digests[0] != keys.own.digest:
            digests.append(keys.own.digest)
        for digest in digests:
            name = digest, self._store.mark()
            for is_last in (False, True):
                if not self._flights.has(name):
                    return await self._lead(permit, asked, keys, name)
                try:
                    landed = await self._joined(permit, name)
                except Refused as refused:
                    is_over = self._deadline(permit) <= self._now()
                    if is_over or (is_last and _is_everybodys(refused)):
                        raise
                    continue
                kept = _meant(landed.kept, keys)
                if kept is not None:
                    return self._told(permit, kept, Cached.JOINED, self._wall()), False
                if not landed.has_failed:
                    break  # it came, and is for nobody else under this name
                if is_last:
                    raise Refused(Reason.UPSTREAM_BROKE, _FAILED_TWICE)
        return _taken(await self._fetch(permit, asked, keys))

    async def _joined(self, permit: Permit, name: Name) -> Landed:
        """What the flight of another brings. Raises Refused where that failed, or takes too long for this caller."""
        left_s = self._deadline(permit) - self._now()
        try:
            async with asyncio.timeout(None if left_s == math.inf else left_s) as limit:
                return await self._flights.join(name, _itself)
        except TimeoutError:
            if not limit.expired():
                raise
            raise Refused(Reason.DEADLINE, _STILL_ASKED, data={"limit": "resilience.timeout_s"}) from None

    async def _renew(self, permit: Permit, asked: Asked, keys: Keys) -> Reply | None:
        """A new answer for what is told meanwhile; None where somebody asks already."""
        name = _flight(asked, keys), self._store.mark()
        if self._flights.has(name):
            return None
        journey = permit.call.journey
        journey.read(permit.call)
        journey.identified(permit.principal)
        journey.permitted(permit)
        journey.cached(Cached.MISS)
        reply, _ = await self._lead(permit, asked, keys, name)
        return reply

    async def _lead(self, permit: Permit, asked: Asked, keys: Keys, name: Name) -> tuple[Reply, bool]:
        return await self._flights.lead(name, lambda: self._fetch(permit, asked, keys), _taken)

    async def _fetch(self, permit: Permit, asked: Asked, keys: Keys) -> Landed:
        mark = self._store.mark()
        reply = await self._serve(permit)
        try:
            text, is_broken = await _text_of(reply, permit.call.id, self._max_entry_bytes)
            made = None
            if text is not None:
                made = self._worth.entry(
                    permit,
                    asked,
                    keys,
                    status=reply.status,
                    headers=reply.headers,
                    text=text,
                    wall=self._wall(),
                )
            if made is not None:
                await self._store.put(made[0].digest, made[1], mark)
        except BaseException as error:
            reply.done(Ending.of(error))
            raise
        return Landed(reply, made, has_failed=is_broken or reply.status >= 500)

    def _told(self, permit: Permit, entry: Entry, how: Cached, wall: float) -> Reply:
        """A kept answer to this caller, at this moment. Raises Refused where another room does not let it pass."""
        call = permit.call
        assert call.id is not None
        if call.method in TAUGHT:
            self._teach(permit, entry.result)
        passed = age(entry, wall)
        body = served(entry, call.id, passed, "stale" if how is _STALE else "fresh")
        journey = call.journey
        journey.cached(how)
        journey.answered(_RPC_ERROR if entry.is_error else _OK)
        return Reply(entry.status, _fields(int(passed) if passed < _OLDEST_S else _OLDEST_S), body)


@functools.lru_cache(maxsize=1_024)
def _fields(age_s: int) -> Headers:
    """Those of a kept answer of this age. Nobody changes `Headers`, so that one object can be told to many."""
    return Headers((_JSON, (b"Age", b"%d" % age_s)))


_JSON: Final = (b"Content-Type", b"application/json")
# Members of an Enum are slow to look up.
_MISS: Final = Cached.MISS
_HIT: Final = Cached.HIT
_STALE: Final = Cached.STALE
_OK: Final = Verdict.OK
_RPC_ERROR: Final = Verdict.RPC_ERROR
_OUR_WORDS: Final = (b'"%b":{"reason":' % META_KEY.encode(), b'"data":{"origin":"proxy"')
"""What a refusal of ours has, as it is written; in a text of somebody's the quotation marks are escaped."""
_STILL_ASKED: Final = (
    "Somebody asked the same before, and that is not answered yet. The call can be repeated: it only reads."
)
_FAILED_TWICE: Final = "The server failed for others who asked the same at the same time, twice."
_OLDEST_S: Final = 2**31
"""RFC 9111 section 1.2.2: what does not fit is told as this."""


def _itself(landed: Landed) -> Landed:
    return landed


def _taken(landed: Landed) -> tuple[Reply, bool]:
    return landed.take(), landed.has_failed


def _is_everybodys(refused: Refused) -> bool:
    """Whether a no says something of the server. What it says of its caller, who was in a hurry or had no place, is no
    answer to others."""
    is_fault = refused.reason in UPSTREAM_FAULTS or refused.reason in _LEFT_ALONE
    return is_fault and refused.data.get("limit") != OWN_WISH


def _flight(asked: Asked, keys: Keys) -> bytes:
    """For which answer equal calls wait together. Only a rule says beforehand that others may have it."""
    if asked.by == "rule" and keys.shared is not None and keys.is_counted:
        return keys.shared.digest
    return keys.own.digest


def _meant(kept: tuple[Key, Entry] | None, keys: Keys) -> Entry | None:
    """What somebody else was answered, if it is also for the caller with these keys."""
    if kept is None:
        return None
    key, entry = kept
    return entry if key.material in (keys.own.material, keys.shared and keys.shared.material) else None


async def _text_of(reply: Reply, id: RequestId | None, most_bytes: int) -> tuple[bytes | None, bool]:
    """The whole JSON text of the answer, where there is no more than that; and whether the server broke off before it.
    The reply stays what it was."""
    body = reply.body
    if isinstance(body, bytes):
        return body, False
    kind, _ = media_type(reply.headers.get("content-type"))
    if reply.status != 200 or kind not in ("application/json", "text/event-stream"):
        return None, False
    source = aiter(body)
    held: list[bytes] = []
    broken: Broken | None = None
    text: bytes | None = None
    try:
        if kind == "text/event-stream":
            text = await _first_message(source, held, id, most_bytes)
            if text is not None and any(words in text for words in _OUR_WORDS):
                # Our own last word, behind which the stream breaks at once.
                async for chunk in source:
                    held.append(chunk)
                    break
        else:
            text = await _collected(source, held, most_bytes)
    except Broken as error:
        broken, text = error, None  # whoever reads on meets it where it was
    except BaseException:
        body.close()
        raise
    reply.body = Stream(FirstHeld(held, source, broken), body.close)
    return text, broken is not None


async def _collected(source: AsyncIterator[bytes], held: list[bytes], most_bytes: int) -> bytes | None:
    size = 0
    async for chunk in source:
        held.append(chunk)
        size += len(chunk)
        if size > most_bytes:
            return None
    return b"".join(held)


async def _first_message(
    source: AsyncIterator[bytes], held: list[bytes], id: RequestId | None, most_bytes: int
) -> bytes | None:
    """The answer, if that is the first thing the server says. Comments and events without data say nothing."""
    splitter = Splitter(most_bytes)
    size = 0
    async for chunk in source:
        held.append(chunk)
        size += len(chunk)
        try:
            events = splitter.feed(chunk)
        except TooLong:
            return None
        said = [event for event in events if event.data is not None and event.data.strip()]
        if said:
            only = said[0].data
            is_it = (
                len(said) == 1
                and only is not None
                and said[0].name in ("", "message")
                and is_answer(only, id)
            )
            return only if is_it else None
        if size > most_bytes:
            return None  # comments for ever would be held for ever
    return None
