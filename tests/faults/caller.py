"""Callers that know the only right answer, and write down what they were told instead.

In: a port and calls. Out: a `Told` per call, always: who is not answered leaves after `patience_s`.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, Final, cast

import msgspec
from msgspec import Struct

from .http import dechunked, head_end, whole_length
from .messages import LEGACY, answer_body, call, text_for

FIRST_ID: Final = 1_000_000
"""All ids are equally long, so that all answers are: else a sweep over their places would skip some."""
META_KEY: Final = "dev.mcp-sidecar/refusal"
RIGHT: Final = "right"
DAMAGED: Final = "damaged"
"""The right answer but for one bit: no proxy can know."""
WRONG: Final = "wrong"
UNENDED: Final = "unended"
"""A stream came to its proper end, and the blank line behind the answer was missing: clients drop such an event."""
BEHIND: Final = "cut behind the answer"
CUT: Final = "cut"
"""The connection ended before the answer did."""
LEFT: Final = "left"
"""The caller lost patience."""
UNCONNECTED: Final = "unconnected"
GONE: Final = "gone"
"""The caller left on purpose."""


class Told(Struct, frozen=True, kw_only=True):
    """What one caller was told of one call."""

    nonce: str
    how: str
    """One of the words above, "http 503" for a status of the server, "error" for its JSON-RPC error, or the reason of
    the sidecar's refusal."""
    took_s: float
    sent_ns: int
    """Monotonic."""
    detail: str = ""


class Nonces:
    """Sixteen hexadecimal digits each, the same for the same seed."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def __next__(self) -> str:
        return f"{self._random.getrandbits(64):016x}"


def read_answer(nonce: str, id: int, raw: bytes, *, is_over: bool) -> tuple[str, str] | None:
    """What an answer says, and what was odd about it; None while it is not whole."""
    start = head_end(raw)
    if start < 0:
        return (CUT, "no head") if is_over else None
    is_chunked = b"transfer-encoding: chunked" in raw[:start].lower()
    length = whole_length(raw)
    if length is None and not is_over:
        return None
    if length is None and not is_chunked and b"\r\ncontent-length:" not in raw[:start].lower():
        length = len(raw)  # the end of the connection is the end of the body
    if length is None:
        # A client reads every whole event, however the stream ends.
        events = _data(dechunked(raw[start:])) if is_chunked else []
        for data in events:
            if (said := _said(nonce, id, data)) is not None:
                return said[0], BEHIND
        return CUT, f"{len(raw) - start} bytes of a body"
    status = raw[9:12].decode("latin-1")
    body = dechunked(raw[start:length]) if is_chunked else raw[start:length]
    if b"text/event-stream" in raw[:start].lower():
        for data in _data(body):
            if data[:1] not in (b"{", b"["):
                continue  # no message: events may say other things
            if (said := _said(nonce, id, data)) is not None:
                return said
        unended = [
            line[6:] for line in body.rpartition(b"\n\n")[2].split(b"\n") if line.startswith(b"data: ")
        ]
        if any(answer_body(id, nonce) in data for data in unended):
            return UNENDED, ""
        return WRONG, "a stream without an answer"
    said = _said(nonce, id, body)
    if said is not None and (said[0] != WRONG or status.startswith("2")):
        return said
    return (f"http {status}", "") if not status.startswith("2") else (WRONG, "nothing that answers")


def _data(stream: bytes) -> list[bytes]:
    blocks = stream.split(b"\n\n")[:-1]
    return [line[6:] for block in blocks for line in block.split(b"\n") if line.startswith(b"data: ")]


def _said(nonce: str, id: int, data: bytes) -> tuple[str, str] | None:
    """What one JSON-RPC message says to us; None for one that is no answer."""
    expected = answer_body(id, nonce)
    if data == expected:
        return RIGHT, ""
    try:
        said: Any = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        said = None
    if isinstance(said, dict) and "method" in said and "id" not in said:
        return None
    if _bits_between(data, expected) == 1:
        return DAMAGED, ""
    if not isinstance(said, dict):
        return WRONG, "no JSON"
    return _read(nonce, id, said)


def _read(nonce: str, id: int, said: dict[str, Any]) -> tuple[str, str]:
    error, result = said.get("error"), said.get("result")
    if isinstance(error, dict):
        facts = error.get("data")
        if isinstance(facts, dict) and facts.get("origin") == "proxy":
            return str(facts["reason"]), "" if said.get("id") == id else "with another id"
        return "error", ""
    if said.get("id") != id:
        return WRONG, f"for {said.get('id')!r}"
    if not isinstance(result, dict):
        return WRONG, "no result"
    refusal = result.get("_meta", {}).get(META_KEY)
    if refusal is not None:
        return str(refusal["reason"]), ""
    text = result.get("content", [{}])[0].get("text", "")
    # Padding follows the words of long answers.
    if text.startswith(text_for(nonce)) and not text[len(text_for(nonce)) :].strip(" x"):
        return RIGHT, ""
    return WRONG, text[:60]


def _bits_between(one: bytes, other: bytes) -> int:
    if len(one) != len(other):
        return -1
    return sum((a ^ b).bit_count() for a, b in zip(one, other, strict=True) if a != b)


class Connection(asyncio.Protocol):
    """One connection; one call at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._waiter: asyncio.Future[None] | None = None
        self.is_over = False
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._tell()

    def eof_received(self) -> bool:
        self.is_over = True
        self._tell()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_over = True
        if not self.lost.done():
            self.lost.set_result(None)
        self._tell()

    def _tell(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def ask(self, nonce: str, id: int, request: bytes) -> tuple[str, str]:
        """Send a call and wait for what comes of it."""
        self._buffer.clear()
        self.write(request)
        while True:
            said = read_answer(nonce, id, bytes(self._buffer), is_over=self.is_over)
            if said is not None:
                return said
            await self.news()

    async def begun(self, size: int = 1) -> bool:
        """Wait until so many bytes have come; whether they have."""
        while len(self._buffer) < size and not self.is_over:
            await self.news()
        return len(self._buffer) >= size

    async def news(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    @property
    def got(self) -> bytes:
        return bytes(self._buffer)

    def pause(self) -> None:
        """Take nothing any more."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            own = self._transport.get_extra_info("socket")
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            self._transport.abort()


async def connect(port: int, *, receive_bytes: int | None = None) -> Connection:
    """Raises OSError."""
    raw = socket.socket()
    raw.setblocking(False)
    if receive_bytes is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_connect(raw, ("127.0.0.1", port))
    except OSError:
        raw.close()
        raise
    _, connection = await loop.create_connection(Connection, sock=raw)
    return connection


class Crowd:
    """Many callers of one sidecar. Keeps everything they were told."""

    def __init__(self, port: int, random: Random) -> None:
        self.port = port
        self.nonces = Nonces(random)
        self.random = random
        self.told: list[Told] = []
        self._ids: Iterator[int] = itertools.count(FIRST_ID)

    async def call(
        self,
        tool: str,
        arguments: dict[str, object] | None = None,
        *,
        patience_s: float = 10.0,
        revision: str = LEGACY,
        token: str = "",
        connection: Connection | None = None,
        leaves_after_s: float | None = None,
    ) -> Told:
        """One call, on a connection of its own unless one is given."""
        nonce, id = next(self.nonces), next(self._ids)
        request = call(f"{tool}-{nonce}", id, arguments, revision=revision, token=token)
        sent = time.monotonic_ns()
        own = connection is None
        how, detail = UNCONNECTED, ""
        try:
            connection = connection or await connect(self.port)
        except OSError:
            return self._note(nonce, how, sent, detail)
        try:
            async with asyncio.timeout(patience_s if leaves_after_s is None else leaves_after_s):
                how, detail = await connection.ask(nonce, id, request)
        except TimeoutError:
            how = LEFT if leaves_after_s is None else GONE
            late = read_answer(nonce, id, connection.got, is_over=True)
            if late == (RIGHT, BEHIND):
                how, detail = late  # a client takes an event as it comes, whatever becomes of its stream
            connection.reset() if leaves_after_s is not None and id % 2 else connection.close()
        finally:
            if own:
                connection.close()
        return self._note(nonce, how, sent, detail)

    def _note(self, nonce: str, how: str, sent: int, detail: str) -> Told:
        told = Told(
            nonce=nonce, how=how, took_s=(time.monotonic_ns() - sent) / 1e9, sent_ns=sent, detail=detail
        )
        self.told.append(told)
        return told

    async def calls(
        self,
        tool: str,
        *,
        count: int,
        at_once: int,
        goes_on: Callable[[], bool] = lambda: True,
        arguments: dict[str, object] | None = None,
        patience_s: float = 10.0,
        revision: str = LEGACY,
        token: str = "",
        leaves: Callable[[], float | None] = lambda: None,
        pause_s: float = 0.0,
    ) -> list[Told]:
        """`count` calls, `at_once` at a time, each caller on a connection that is kept as long as it lasts.

        `goes_on` is asked before each; `leaves` says after how long a caller leaves on purpose.
        """
        left = itertools.count()
        before = len(self.told)

        async def caller() -> None:
            connection: Connection | None = None
            try:
                while next(left) < count and goes_on():
                    if connection is None or connection.is_over:
                        connection = await self._connected()
                    told = await self.call(
                        tool,
                        arguments,
                        patience_s=patience_s,
                        revision=revision,
                        token=token,
                        connection=connection,
                        leaves_after_s=leaves(),
                    )
                    if told.detail == BEHIND or told.how in (LEFT, GONE, UNCONNECTED, CUT):
                        connection = None
                    if pause_s:
                        await asyncio.sleep(pause_s)
            finally:
                if connection is not None:
                    connection.close()

        async with asyncio.TaskGroup() as crowd:
            for _ in range(min(at_once, count)):
                crowd.create_task(caller())
        return self.told[before:]

    async def _connected(self) -> Connection | None:
        try:
            return await connect(self.port)
        except OSError:
            return None
