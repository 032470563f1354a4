"""Is the store there? One connection, kept up, and left alone while it fails.

In: where the store is, and how to see whether it can decide. Out: a `Wire` while it can, and one sentence while it
cannot. Keeps the connection, and how often the store was in trouble in a row. Who connects waits longer from try to
try, and never exactly as long as the other replicas.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn, TypeAlias

from .valkey_script import packed
from .valkey_url import Place
from .valkey_wire import LOST, MAX_REPLY_BYTES, Error, Wire

CONNECT_S: Final = 1.0
"""For one try, from the look-up of the name to the greeting."""
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 2.0
"""Between tries: a store that returns is used again within seconds."""
STEADY_S: Final = 5.0
"""A connection that lived so long was a good one; pauses begin anew."""
PING_S: Final = 2.0
"""Of silence; a second one without an answer ends the connection."""
CLOSE_S: Final = 1.0
"""For the last words."""
TROUBLES: Final = 5
"""So many in a row, and for so long, open the breaker."""
MOMENT_S: Final = 0.1
MOMENTS: Final = 10
LATELY_S: Final = 5.0
"""So do so many moments with more trouble than good answers, if they are most of late: a store that is mostly too slow
is of no use. Counted in moments, because one pause makes hundreds of takes late."""
PATIENCE_S: Final = 0.15
"""A pause of a store, or of a processor that many share, makes all takes of that moment late and is soon over."""

Greet: TypeAlias = Callable[["Ask"], Awaitable[None]]
"""Makes sure that the store can decide. Raises Unusable."""


class Unusable(Exception):
    """The store cannot be used. `args[0]`: why, in fixed words for an operator."""


_WORDS: Final = {
    "NOAUTH": "the store wants a password: put it into the URL",
    "WRONGPASS": "the store does not accept the user or password of the URL",
    "NOPERM": "the store's access list does not permit what is needed: "
    "+evalsha +script|load +getrange +exists +set +time +ping +select, and keys that begin with {mcp-sidecar:",
    "READONLY": "the store is a replica and read-only: name its primary",
    "OOM": "the store is full: raise its maxmemory",
    "LOADING": "the store is loading its data",
    "MASTERDOWN": "the store is a replica that lost its primary",
    "BUSY": "the store is busy with somebody's script",
    "MISCONF": "the store cannot write to its disk and takes nothing",
    "NOREPLICAS": "the store has too few replicas and takes nothing",
    "MOVED": "the store is part of a cluster and another node has our slot: name that node, or a proxy of the cluster",
    "CLUSTERDOWN": "the store's cluster is down",
}


def in_words(word: str) -> str:
    """What an error of the store means."""
    return _WORDS.get("MOVED" if word in ("ASK", "CROSSSLOT") else word, "the store answers with errors")


class Ask:
    """Sends a command and waits for the reply, on a connection that is being made."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def __call__(self, *commands: bytes) -> list[object]:
        """The replies, in order. Raises Unusable where one is an error or does not come."""
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[object]] = []
        for command in commands:
            future: asyncio.Future[object] = loop.create_future()
            futures.append(future)
            self._wire.send(command, _setter(future))
        replies = [await future for future in futures]
        for reply in replies:
            if isinstance(reply, Error):
                raise Unusable(in_words(reply.word)) from None
            if reply is LOST:
                raise Unusable("the store hung up")
        return replies


def _setter(future: asyncio.Future[object]) -> Callable[[object], None]:
    def tell(reply: object) -> None:
        if not future.done():
            future.set_result(reply)

    return tell


class _Lately:
    """Moments with more trouble than good answers, and the others, since a while ago."""

    __slots__ = ("_bad", "_balance", "_good", "_moment", "_since")

    def __init__(self) -> None:
        self._good = self._bad = 0
        self._moment = self._since = 0
        self._balance = 0

    def heard(self, now: float, *, is_good: bool) -> None:
        moment = int(now / MOMENT_S)
        if moment != self._moment:
            self._good += self._balance > 0
            self._bad += self._balance < 0
            if moment - self._since > LATELY_S / MOMENT_S:
                self._good = self._bad = 0
                self._since = moment
            self._moment, self._balance = moment, 0
        self._balance += 1 if is_good else -1

    @property
    def is_mostly_bad(self) -> bool:
        return self._bad >= max(MOMENTS, self._good)


class Link:
    """The connection to the store; `run` keeps it up. Used inside one running loop."""

    def __init__(
        self,
        place: Place,
        greet: Greet,
        *,
        told: Callable[[str | None], None],
        chance: Callable[[], float],
        now: Callable[[], float] = time.monotonic,
        tls: ssl.SSLContext | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        ping_s: float = PING_S,
        max_reply_bytes: int = MAX_REPLY_BYTES,
    ) -> None:
        """`told` hears why the store is not used, and None when it is again. `now` is monotonic seconds, `chance`
        from 0 to 1. `tls`: whom to trust; absent, the certificates the system trusts. `max_reply_bytes`: a
        longer reply ends the connection."""
        self.place = place
        """Used for the next connection."""
        self.tls = tls
        """So is this."""
        self.wire: Wire | None = None
        """None while the store is not used."""
        self.was_tried = False
        """Whether a first try has ended, well or not."""
        self.outages = 0
        """How often it was lost, or not there from the start."""
        self.why_down: str | None = None
        self._greet = greet
        self._told = told
        self._now = now
        self._chance = chance
        self._sleep = sleep
        self._ping_s = ping_s
        self._max_reply_bytes = max_reply_bytes
        self._troubles = 0
        self._trouble_since = 0.0
        self._lately = _Lately()
        self._is_closed = False
        self._is_lost = False
        self._leaving: Wire | None = None
        self._first: list[asyncio.Future[None]] = []

    async def first_try(self) -> None:
        """Wait until a first try has ended."""
        if not self.was_tried:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._first.append(future)
            await future

    def went_well(self) -> None:
        self._troubles = 0
        self._lately.heard(self._now(), is_good=True)

    def had_trouble(self, why: str) -> None:
        """The store was late, or refused. Again and again: it is left alone until it greets us properly."""
        now = self._now()
        if not self._troubles:
            self._trouble_since = now
        self._troubles += 1
        self._lately.heard(now, is_good=False)
        is_late_each_time = self._troubles >= TROUBLES and now - self._trouble_since >= PATIENCE_S
        if is_late_each_time or self._lately.is_mostly_bad:
            self.drop(why)

    def drop(self, why: str) -> None:
        """Use this connection no more."""
        wire, self.wire = self.wire, None
        if wire is not None:
            self._down(why)
            wire.abort()

    async def run(self) -> None:
        """Connect, and connect again, for ever."""
        loop = asyncio.get_running_loop()
        pause_s = FIRST_PAUSE_S
        try:
            while not self._is_closed:
                try:
                    wire = await self._connected()
                except Unusable as unusable:
                    self._down(str(unusable))
                else:
                    since = loop.time()
                    self._up(wire)
                    await self._watched(wire)
                    if loop.time() - since >= STEADY_S:
                        pause_s = FIRST_PAUSE_S
                # All replicas lose it at the same moment; they come back spread over the pause.
                await self._sleep(self._chance() * pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        finally:
            self._hang_up()
            self._tried()

    async def close(self) -> None:
        """Connect no more, and wait a little until what is under way has gone out."""
        self._is_closed = True
        self._hang_up()
        if self._leaving is not None:
            await asyncio.wait((self._leaving.gone,), timeout=CLOSE_S)

    def _hang_up(self) -> None:
        wire, self.wire = self.wire, None
        if wire is not None:
            self._leaving = wire
            wire.close()

    async def _watched(self, wire: Wire) -> None:
        """Until it is lost. Who says nothing is asked: an outage should be known before a call waits for it."""
        heard = -1
        is_asked = False
        while not wire.lost.done():
            is_silent = wire.heard == heard
            if is_silent and is_asked:
                self.drop("the store does not answer")
                break
            is_asked = is_silent
            if is_silent:
                wire.send(packed("PING"), _nobody)
            heard = wire.heard
            await asyncio.wait((wire.lost,), timeout=self._ping_s)
        if self.wire is wire:
            self.wire = None
            if not self._is_closed:
                self._down("the connection broke")

    async def _connected(self) -> Wire:
        """A connection on which the store can decide. Raises Unusable."""
        wire: Wire | None = None
        try:
            async with asyncio.timeout(CONNECT_S):
                wire = await self._opened()
                ask = Ask(wire)
                if commands := _introduction(self.place):
                    await ask(*commands)
                await self._greet(ask)
        except BaseException as error:
            if wire is not None:
                wire.abort()
            if isinstance(error, TimeoutError):
                raise Unusable(
                    "the store does not answer" if wire is not None else _unreached(self.place)
                ) from None
            raise
        return wire

    async def _opened(self) -> Wire:
        place = self.place
        try:
            _, wire = await asyncio.get_running_loop().create_connection(
                lambda: Wire(self._max_reply_bytes),
                place.host,
                place.port,
                ssl=(self.tls or True) if place.is_encrypted else None,
            )
        # The texts of these may quote what was given; the type says enough.
        except ssl.SSLCertVerificationError:
            _raise("the certificate of the store is not one that we trust for its name")
        except ssl.SSLError:
            _raise("the store does not speak TLS as we do: is the URL's scheme right?")
        except (OSError, UnicodeError):
            _raise(_unreached(place))
        return wire

    def _up(self, wire: Wire) -> None:
        self.wire = wire
        self._troubles = 0
        self._lately = _Lately()
        self._is_lost = False
        if self.why_down is not None:
            self.why_down = None
            self._told(None)
        self._tried()

    def _down(self, why: str) -> None:
        if not self._is_lost:
            self._is_lost = True
            self.outages += 1
        if why != self.why_down:
            self.why_down = why
            self._told(why)
        self._tried()

    def _tried(self) -> None:
        self.was_tried = True
        first, self._first = self._first, []
        for future in first:
            if not future.done():
                future.set_result(None)


def _unreached(place: Place) -> str:
    return f"the store cannot be reached{' with TLS' if place.is_encrypted else ''}"


def _raise(why: str) -> NoReturn:
    raise Unusable(why) from None


def _nobody(reply: object) -> None:
    """A reply that only shows that somebody is there."""


def _introduction(place: Place) -> list[bytes]:
    commands = []
    if place.password is not None:
        user = () if place.user is None else (place.user,)
        commands.append(packed("AUTH", *user, place.password.reveal()))
    if place.database:
        commands.append(packed("SELECT", place.database))
    return commands
