"""What the stages of the room are tried on: permits, replies, and a next stage that does as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import pytest

from proxy.model import Call, Headers, Permit, Principal, Refused, Reply, Rule, Stage, Stream
from proxy.protocol.revisions import BY_NAME, NEWEST
from tests.fakes import make_call, make_headers

SECONDS: Final = 5.0
"""The bound of every wait of a test."""
LEGACY: Final = BY_NAME["2025-11-25"]
MODERN: Final = NEWEST
RESULT: Final = b'{"jsonrpc":"2.0","id":1,"result":{"content":[]}}'
INTERNAL_ERROR: Final = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"x"}}'


def permit(call: Call | None = None, rule: Rule | None = None) -> Permit:
    principal = Principal(issuer="test", subject="ann", tenant="acme")
    return Permit(call=call or tool("t"), principal=principal, rule=rule or Rule(id="r"))


def tool(name: str) -> Call:
    return make_call(revision=LEGACY, target=name)


def answer(status: int = 200, body: bytes = RESULT) -> Reply:
    return Reply(status, Headers(), body)


class Source:
    """The server's side of a stream: chunks as a test sends them."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue()
        self.closed = 0
        self.reads = 0

    def send(self, *chunks: bytes | BaseException | None) -> None:
        """None is the end, an exception is raised."""
        for chunk in chunks:
            self._queue.put_nowait(chunk)

    def close(self) -> None:
        self.closed += 1

    async def chunks(self) -> AsyncIterator[bytes]:
        while True:
            self.reads += 1
            chunk = await self._queue.get()
            if chunk is None:
                return
            if isinstance(chunk, BaseException):
                raise chunk
            yield chunk

    def reply(self, kind: str = "text/event-stream", status: int = 200) -> Reply:
        return Reply(status, make_headers(content_type=kind), Stream(self.chunks(), self.close))


class Server:
    """Fulfils `Stage`: answers as it was told, and says what it has seen."""

    def __init__(self, act: Callable[[Permit], Awaitable[Reply]] | None = None) -> None:
        self.seen: list[Permit] = []
        self.act = act
        self.now = 0
        """Calls that it has begun and not ended."""
        self.most = 0

    async def __call__(self, permit: Permit) -> Reply:
        self.seen.append(permit)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            return answer() if self.act is None else await self.act(permit)
        finally:
            self.now -= 1

    def says(self, outcome: Reply | BaseException) -> None:
        """Every answer from now on."""

        async def act(_: Permit) -> Reply:
            if isinstance(outcome, BaseException):
                raise outcome
            return Reply(outcome.status, outcome.headers, outcome.body)

        self.act = act

    def gives(self, reply: Reply) -> None:
        """This very reply."""

        async def act(_: Permit) -> Reply:
            return reply

        self.act = act

    def hangs(self) -> None:
        async def act(_: Permit) -> Reply:
            await asyncio.Event().wait()
            raise AssertionError

        self.act = act


async def bounded(stage: Stage, permit: Permit) -> Reply:
    async with asyncio.timeout(SECONDS):
        return await stage(permit)


async def refused(stage: Stage, permit: Permit) -> Refused:
    with pytest.raises(Refused) as caught:
        await bounded(stage, permit)
    return caught.value


async def until(happened: Callable[[], bool]) -> None:
    """Turns of the loop, a bounded number of them, until something has happened."""
    for _ in range(1_000):
        if happened():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never happened")


async def cancelled_after(turns: int, work: Awaitable[object]) -> bool:
    """Begin the work, cancel it after so many turns of the loop, and wait. Whether that came in time."""
    task = asyncio.ensure_future(work)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(SECONDS):
        await asyncio.wait([task])
    return task.cancelled()


async def read(reply: Reply) -> list[bytes]:
    """The chunks of a stream, as the listener takes them."""
    assert isinstance(reply.body, Stream)
    async with asyncio.timeout(SECONDS), reply:
        return [chunk async for chunk in reply.body]
