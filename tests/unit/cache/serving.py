"""A server behind the cache that does what a test says, and calls to it; for tests of the room's stages."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from proxy.cache.entry import Entry
from proxy.cache.memory import Memory
from proxy.cache.store import Counts, Forget, Mark
from proxy.model import (
    Broken,
    Ending,
    Headers,
    Job,
    Keep,
    Permit,
    Principal,
    Reply,
    RequestId,
    Revision,
    Rule,
    Stream,
)
from proxy.protocol.revisions import BY_NAME
from tests.fakes import FakeJourney, make_call

from .entries import Clock

LEGACY = BY_NAME["2025-11-25"]
MODERN = BY_NAME["2026-07-28"]
ANN = Principal(issuer="i", subject="ann", tenant="acme")
BOB = Principal(issuer="i", subject="bob", tenant="acme")
EVE = Principal(issuer="i", subject="eve", tenant="umbrella")
JSON = ("Content-Type", "application/json")
EVENTS = ("Content-Type", "text/event-stream")


def make_permit(
    id: RequestId | None = 1,
    who: Principal = ANN,
    *,
    keep: Keep | None = None,
    tool: str | None = "read",
    tool_class: str = "read",
    forget: tuple[str, ...] = (),
    method: str = "tools/call",
    arguments: Mapping[str, object] | None = None,
    revision: Revision = MODERN,
    headers: Mapping[str, str] | None = None,
    meta: Mapping[str, object] | None = None,
) -> Permit:
    """A permitted call, by default of a tool whose answers are kept for a minute."""
    params: dict[str, object] = {}
    if tool is not None:
        params = {"name": tool, "arguments": dict(arguments or {})}
    if meta is not None:
        params["_meta"] = dict(meta)
    call = make_call(
        id=id,
        method=method,
        target=tool,
        params=params,
        revision=revision,
        headers=Headers((name.encode(), value.encode()) for name, value in (headers or {}).items()),
        journey=FakeJourney(),
    )
    rule = Rule(id="r", tool_class=tool_class, keep=keep or Keep(ttl_s=60), forget=forget)
    return Permit(call=call, principal=who, rule=rule)


def hows(permit: Permit) -> list[str]:
    """Where its answer came from, as its journey was told."""
    journey = permit.call.journey
    assert isinstance(journey, FakeJourney)
    return [str(getattr(words[2], "value", "")) for words in journey.diary if words[1] == "cached"]


def result(text: str, id: RequestId | None = 1, **more: object) -> bytes:
    said = {"content": [{"type": "text", "text": text}], **more}
    return json.dumps({"jsonrpc": "2.0", "id": id, "result": said}).encode()


def error(code: int, id: RequestId | None = 1) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": "no"}}).encode()


def event(data: bytes) -> bytes:
    return b"event: message\ndata: " + data + b"\n\n"


class Wire:
    """The bytes of an answer that come when a test sends them."""

    def __init__(self) -> None:
        self._sent: asyncio.Queue[bytes | Broken | None] = asyncio.Queue()
        self.closed = 0
        self.taken: list[bytes] = []

    def send(self, *chunks: bytes) -> None:
        for chunk in chunks:
            self._sent.put_nowait(chunk)

    def end(self) -> None:
        self._sent.put_nowait(None)

    def break_off(self, *, told: bool = False) -> None:
        self._sent.put_nowait(Broken(told=told))

    @property
    def stream(self) -> Stream:
        return Stream(self._chunks(), self._close)

    def _close(self) -> None:
        self.closed += 1

    async def _chunks(self) -> AsyncIterator[bytes]:
        while (chunk := await self._sent.get()) is not None:
            await asyncio.sleep(0)
            if isinstance(chunk, Broken):
                raise chunk
            self.taken.append(chunk)
            yield chunk


class Exchange:
    """One call that reached the server."""

    def __init__(self, permit: Permit, endings: list[Ending]) -> None:
        self.permit = permit
        self.lands: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.is_cancelled = False
        self.endings = endings
        """Of its reply."""
        self.wires: list[Wire] = []

    @property
    def id(self) -> RequestId | None:
        return self.permit.call.id

    def wire(self) -> Wire:
        """For an answer that comes in pieces."""
        self.wires.append(Wire())
        return self.wires[-1]

    def answer(self, body: bytes | Stream, status: int = 200, *fields: tuple[str, str]) -> Reply:
        named = fields or (JSON if isinstance(body, bytes) else EVENTS,)
        reply = Reply(status, Headers((name.encode(), value.encode()) for name, value in named), body)
        reply.when_done(self.endings.append)
        self.lands.set_result(reply)
        return reply

    def say(self, text: str, **more: object) -> None:
        """A good answer."""
        self.answer(result(text, self.id, **more))

    def fail(self, error: BaseException) -> None:
        self.lands.set_exception(error)


class Server:
    """Fulfils `Stage`. Every call waits until a test answers it, or is answered by the script."""

    def __init__(self, script: Callable[[Exchange], Awaitable[None]] | None = None) -> None:
        self.seen: list[Exchange] = []
        self.script = script

    async def __call__(self, permit: Permit) -> Reply:
        exchange = Exchange(permit, [])
        self.seen.append(exchange)
        try:
            if self.script is not None:
                await self.script(exchange)
            return await exchange.lands
        except asyncio.CancelledError:
            exchange.is_cancelled = True
            raise


class SlowStore:
    """Fulfils `Store`: a memory that takes a turn of the loop for everything, as one behind a socket does."""

    def __init__(self, clock: Clock) -> None:
        self.memory = make_memory(clock)
        self.forgotten: list[Forget] = []
        """What it was told to forget, when it is done with it."""
        self.gate: asyncio.Event | None = None
        """Where a test sets one, forgetting waits for it."""
        self.is_closed = False

    @property
    def counts(self) -> Counts:
        return Counter(self.memory.counts)

    @property
    def jobs(self) -> tuple[Job, ...]:
        return ()

    def mark(self) -> Mark:
        return self.memory.mark()

    def look(self, digest: bytes) -> Awaitable[Entry | None]:
        return self.get(digest)

    async def get(self, digest: bytes) -> Entry | None:
        await asyncio.sleep(0)
        return await self.memory.get(digest)

    async def put(self, digest: bytes, entry: Entry, asked: Mark) -> None:
        await asyncio.sleep(0)
        await self.memory.put(digest, entry, asked)
        await asyncio.sleep(0)

    async def forget(self, what: Forget) -> None:
        await self.memory.forget(what)
        await asyncio.sleep(0)
        if self.gate is not None:
            await self.gate.wait()
        assert not self.is_closed
        self.forgotten.append(what)

    async def flush(self) -> None:
        await self.memory.flush()

    async def close(self) -> None:
        self.is_closed = True


def make_memory(clock: Clock, max_entry_bytes: int = 100_000) -> Memory:
    return Memory(max_bytes=10_000_000, max_entry_bytes=max_entry_bytes, per_tenant_share=0.5, wall=clock)


async def turns(count: int = 8) -> None:
    """Let every task that can go on do so."""
    for _ in range(count):
        await asyncio.sleep(0)


async def read(reply: Reply) -> bytes:
    """The whole body, as the listener writes it."""
    chunks: list[bytes] = []
    await read_into(chunks, reply)
    return b"".join(chunks)


async def read_into(chunks: list[bytes], reply: Reply) -> None:
    """The same, for bodies that break."""
    async with reply:
        if isinstance(reply.body, bytes):
            chunks.append(reply.body)
        else:
            async for chunk in reply.body:
                chunks.append(chunk)


async def text_of(reply: Reply) -> Any:
    """The text of a tool's answer; its id beside it."""
    said = json.loads(await read(reply))
    return said["id"], said["result"]["content"][0]["text"]


def others() -> set[asyncio.Task[Any]]:
    """Tasks that run beside the test."""
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
