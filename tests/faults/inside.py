"""Faults that come from inside: a call is cancelled at each of its awaits, and a stage raises what nobody expects.

In: a house in this process with every room switched on. Out: a `Report` for each way to call. Nothing of the product is
replaced: awaits are counted where tasks are made, and exceptions come from the tracing that debuggers use.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import types
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from types import CodeType, FrameType
from typing import Any, Final, cast

from msgspec import Struct

from tests.idp import AUDIENCE, Idp
from tests.integration.house import Sidecar, sidecar

from .caller import CUT, RIGHT, Connection, Crowd, Told, connect
from .lab import Report
from .messages import LEGACY, MODERN, call
from .observed import Expected, Ran, Seen, endings, violations
from .scene import read_lines
from .server import Link, Server

MOST_AWAITS: Final = 60
"""Of one call; a call that is never done would be interrupted for ever."""
PATIENCE_S: Final = 5.0
INTERNAL: Final = "internal"
TASK: Final = "Connection.start"
"""What serves the requests of a connection; aiohttp cancels it when a client has left."""

SETTINGS: Final = (
    'policy.tools=[{"match":"keep-*","class":"read","allow":["*"],"cache":{"ttl_s":60}},{"match":"*","allow":["*"]}]',
    'limits=[{"name":"rate","key":["tenant"],"rate_per_s":100000,"burst":100000},'
    '{"name":"daily","key":["tenant"],"quota":1000000000,"window":"day"}]',
    "cache={}",
    "capacity.max_in_flight=1",
    "capacity.queue_depth=8",
    "capacity.max_wait_s=5",
    "capacity.pace.rate_per_s=100000",
)
"""Everything that can hold something while a call waits; one place, so that the second call must queue."""

STAGES: Final = (
    "proxy.downstream.listener:Listener._read",
    "proxy.protocol.reading:read_post",
    "proxy.identity.room:Room.__call__",
    "proxy.policy.rules:Rules.__call__",
    "proxy.limits.room:Limits.__call__",
    "proxy.policy.guards:Guarded.__call__",
    "proxy.identity.expiry:Expiring.__call__",
    "proxy.identity.owned:Owned.__call__",
    "proxy.policy.listing:VisibleOnly.__call__",
    "proxy.cache.stage:Cache.__call__",
    "proxy.capacity.stage:Roomy.__call__",
    "proxy.capacity.pace:Paced.__call__",
    "proxy.upstream.forward:Forward.__call__",
    "proxy.upstream.transport_lean:LeanTransport.send",
    "proxy.upstream.forward:Forward._judged",
    "proxy.upstream.judge:Judge.see",
    "proxy.downstream.listener:Listener._head",
    "proxy.telemetry.logs:Log.call",
)
"""Where each room begins, in the order of the way."""

Coro = Coroutine[Any, Any, Any]


class LabFault(RuntimeError):
    """What no stage expects."""


class Interrupter:
    """Makes tasks, and cancels the handling of a request when it waits for the so-manieth time."""

    def __init__(self) -> None:
        self.connections: Callable[[], Sequence[Any]] = tuple
        """Those of the house; asked for themselves, because frames of compiled coroutines show nothing."""
        self.at: int | None = None
        self.awaits = 0
        self.struck = 0

    def expect(self, at: int | None) -> None:
        """Count the awaits of the next request from one; cancel it at this one."""
        self.at, self.awaits = at, 0

    def factory(self, loop: asyncio.AbstractEventLoop, coro: Coro, **context: Any) -> asyncio.Task[Any]:
        is_connection = getattr(coro, "__qualname__", "") == TASK
        return asyncio.Task(self._stepping(coro) if is_connection else coro, loop=loop, **context)

    @types.coroutine
    def _stepping(self, coro: Coro) -> Generator[Any, Any, Any]:
        task = asyncio.current_task()
        assert task is not None
        connection: Any = None
        request: object = None
        is_counted = False
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                awaited = coro.send(value) if error is None else coro.throw(error)
            except StopIteration as done:
                return done.value
            if connection is None:
                connection = next((each for each in self.connections() if each._task_handler is task), None)
            if connection is not None and connection._current_request is not request:
                request = connection._current_request
                is_counted = request is not None and self.at is not None
            self.awaits += is_counted
            if is_counted and self.awaits == self.at:
                self.struck += 1
                # As aiohttp does it when the connection is lost.
                task.cancel()
            value, error = None, None
            try:
                value = yield awaited
            except BaseException as raised:
                error = raised


class Saboteur:
    """Raises once, in the first line of a function of the product."""

    def __init__(self, where: str) -> None:
        self._code = code_of(where)
        self.struck = 0

    def __enter__(self) -> Saboteur:
        self._before = sys.gettrace()
        sys.settrace(self._called)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _called(self, frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        return self._line if frame.f_code is self._code and not self.struck else None

    def _line(self, frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        if event == "line" and not self.struck:
            self.struck += 1
            raise LabFault
        return self._line


def code_of(where: str) -> CodeType:
    """The code of "module:Class.function"."""
    module, _, path = where.partition(":")
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    code: CodeType = found.__code__
    return code


class Way(Struct, frozen=True):
    """A way to call, with its own awaits."""

    name: str
    tool: str
    revision: str = LEGACY
    is_slow_to_say: bool = False
    """Its body comes in two pieces."""
    has_to_queue: bool = False
    """Somebody else holds the only place."""


WAYS: Final = (
    Way("whole answer", "do"),
    Way("stream", "sse", MODERN),
    Way("stream, older", "drip"),
    Way("kept answer", "keep"),
    Way("body in pieces", "do", is_slow_to_say=True),
    Way("in the queue", "do", has_to_queue=True),
)


class Indoors:
    """A house, its server and its callers, all in this process."""

    def __init__(
        self, side: Sidecar, server: Server, log: Path, random: Random, token: str, patience_s: float
    ) -> None:
        self._patience_s = patience_s
        self.side = side
        self.server = server
        self.crowd = Crowd(side.port, random)
        self.token = token
        self._log = log
        self.at_rest = self.gauges()

    def gauges(self) -> tuple[int, int, int, int]:
        """Places held, calls that wait, requests under way, connections."""
        house = self.side.house
        return (
            house.rooms.capacity.in_flight,
            house.rooms.capacity.waiting + house.rooms.capacity.held_back,
            house.requests_under_way,
            len(house.connections),
        )

    async def settled(self) -> list[str]:
        """What is not as at rest, once the loop has had its turns."""
        try:
            async with asyncio.timeout(self._patience_s):
                while self.gauges() != self.at_rest:  # noqa: ASYNC110  # a turn of the loop is all that it takes
                    await asyncio.sleep(0)
        except TimeoutError:
            return [f"(places, waiting, requests, connections) {self.gauges()}, at rest {self.at_rest}"]
        return []

    async def call(self, way: Way) -> Told:
        """One call this way."""
        arguments: dict[str, object] = {"s": 0.001, "notes": 2}
        if not way.is_slow_to_say:
            return await self._ask(way.tool, arguments, way.revision, None)
        connection = Pieces(await connect(self.side.port))
        try:
            return await self._ask(way.tool, arguments, way.revision, connection)
        finally:
            connection.close()

    async def _ask(
        self, tool: str, arguments: dict[str, object], revision: str, connection: Connection | None
    ) -> Told:
        return await self.crowd.call(
            tool,
            arguments,
            revision=revision,
            token=self.token,
            connection=connection,
            patience_s=self._patience_s,
        )

    def seen(self) -> Seen:
        lines = [line for line in self.side.lines.calls if "tool" in line]
        return Seen(told=self.crowd.told, ran=read_lines(self._log, Ran), struck=(), lines=lines)


class Pieces(Connection):
    """A connection that says the last byte of a request a few turns later."""

    def __init__(self, inner: Connection) -> None:
        super().__init__()
        self._inner = inner

    async def ask(self, nonce: str, id: int, request: bytes) -> tuple[str, str]:
        self._inner.write(request[:-1])
        for _ in range(20):
            await asyncio.sleep(0)
        return await self._inner.ask(nonce, id, request[-1:])

    def close(self) -> None:
        self._inner.close()


@asynccontextmanager
async def indoors(folder: Path, random: Random, patience_s: float = PATIENCE_S) -> AsyncIterator[Indoors]:
    """Everything open, and closed again."""
    log = folder / "server.jsonl"
    server = Server(log)
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: Link(server), "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with Idp() as idp:
        authenticators = (
            f'[{{"kind":"jwt","issuer":"{idp.issuer}","audience":"{AUDIENCE}","jwks_url":"{idp.jwks_url}",'
            f'"algorithms":["RS256"],"tenant_claim":"tenant"}}]'
        )
        async with sidecar(
            f"http://127.0.0.1:{port}/mcp",
            *SETTINGS,
            f"identity.resource={AUDIENCE}",
            f"identity.authenticators={authenticators}",
        ) as side:
            await idp.fetched(1)
            yield Indoors(side, server, log, random, idp.token(), patience_s)
    listening.close()
    for link in list(server.links):
        link.close()


async def cancelled(way: Way, folder: Path, random: Random) -> Report:
    """CancelledError at each await of a call, until one call comes through uninterrupted."""
    report = Report(fault=f"cancelled at each await: {way.name}")
    loop = asyncio.get_running_loop()
    interrupter = Interrupter()
    async with indoors(folder, random) as room:
        interrupter.connections = lambda: room.side.house.connections
        loop.set_task_factory(cast(Any, interrupter.factory))  # its protocol is not public
        try:
            if (before := await room.call(way)).how != RIGHT:
                report.broken.append(f"before any fault: {before}")
            for at in range(1, MOST_AWAITS):
                holder = await _holding(room) if way.has_to_queue else None
                interrupter.expect(at)
                asking = asyncio.ensure_future(room.call(way))
                if holder is not None:
                    await _queued(room, asking)
                    await room.server.do(b'{"release":true}')
                    # The interrupter must not count the awaits of whoever holds the place.
                    await holder
                await asking
                was_struck = interrupter.awaits >= at
                interrupter.expect(None)
                report.broken += [f"at await {at}: {each}" for each in await room.settled()]
                if not was_struck:
                    break
            else:
                report.broken.append(f"a call has more than {MOST_AWAITS} awaits")
            if (after := await room.call(way)).how != RIGHT:
                report.broken.append(f"after all faults: {after}")
        finally:
            loop.set_task_factory(None)
        report.injected = interrupter.struck
        report.broken += await room.settled()
        may = Expected(may=frozenset({CUT}))
        return _closed(room, report, may, at_most=f"{interrupter.struck} awaits")


async def _holding(room: Indoors) -> asyncio.Future[Told]:
    """A call that has the only place."""
    holder = asyncio.ensure_future(room._ask("hold", {}, LEGACY, None))
    await room.server.do(b'{"holding":1,"within_s":5}')
    return holder


async def _queued(room: Indoors, asking: asyncio.Future[Told]) -> None:
    """Wait until a call waits for its place, or is over."""
    async with asyncio.timeout(PATIENCE_S):
        while not room.side.house.rooms.capacity.waiting and not asking.done():  # noqa: ASYNC110  # as above
            await asyncio.sleep(0)


async def raised(
    folder: Path, random: Random, *, stages: Sequence[str] = STAGES, patience_s: float = PATIENCE_S
) -> Report:
    """An exception that nobody expects, where each stage begins, for each way to call."""
    report = Report(fault="an exception in each stage")
    async with indoors(folder, random, patience_s) as room:
        never = set(stages)
        for way in (WAYS[0], WAYS[1], WAYS[3]):
            await room.call(way)
            for where in stages:
                with Saboteur(where) as saboteur:
                    told = await room.call(way)
                report.injected += saboteur.struck
                if saboteur.struck:
                    never.discard(where)
                report.broken += [f"{where}, {way.name}: {each}" for each in await room.settled()]
                if (after := await room.call(way)).how != RIGHT:
                    report.broken.append(f"{where}, {way.name}: {told.how}, and then {after.how}")
        report.broken += [f"{where} never began" for where in sorted(never)]
        # Behind the server "internal" is the wrong word, and what is written down may be what raised.
        may = Expected(may=frozenset({CUT, INTERNAL, "outcome_unknown"}), is_audited=False)
        return _closed(room, report, may)


def _closed(room: Indoors, report: Report, may: Expected, at_most: str = "") -> Report:
    report.calls = len(room.crowd.told)
    report.broken += violations(room.seen(), may)
    report.figures = "; ".join(part for part in (endings(room.crowd.told), at_most) if part)
    return report


__all__ = ["STAGES", "WAYS", "Interrupter", "LabFault", "Saboteur", "call", "cancelled", "raised"]
