"""How is a request sent, and what came back? Bytes and a `send` text → Exchange, on raw sockets."""

import asyncio
import re
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress

from msgspec import Struct

from tests.corpus.cases import CorpusError, Request
from tests.corpus.evidence import Limits
from tests.corpus.wire import Message, announced_bytes, read_answers

_PATIENCE_S = 8.0
_QUIET_S = 0.12
_CLOSE_S = 2.5
_SMALL_BUFFER_BYTES = 32768


class Sending(Struct, frozen=True, kw_only=True):
    """One way to send. `amount` is seconds, bytes, lines or connections, as the kind says."""

    kind: str
    amount: int = 0


_WAYS: tuple[tuple[str, str], ...] = (
    (r"hold (\d+) s", "hold"),
    (r"(\d+) lines?/s", "lines"),
    (r"(\d+) bytes?/s", "bytes"),
    (r"(\d+) bytes? per segment", "segments"),
    (r"([\d ]+) connections", "connections"),
    (r"(\d+)/s SO_LINGER 0", "resets"),
    (r"close", "close"),
    (r"shutdown_wr", "shutdown_wr"),
    (r"no_read", "no_read"),
)


def read_sending(text: str | None) -> Sending:
    """The way a `send` text names. Raises CorpusError for one the runner does not have."""
    if text is None:
        return Sending(kind="whole")
    for pattern, kind in _WAYS:
        if match := re.fullmatch(pattern, text):
            return Sending(kind=kind, amount=int(match[1].replace(" ", "")) if match.groups() else 0)
    raise CorpusError(f"no way to send {text!r}")


def request_bytes(request: Request, host: str, fill: Callable[[bytes], bytes] = bytes) -> bytes:
    """A request as it goes on the wire; Host and Content-Length are added where the case leaves them out.

    `fill` replaces placeholders, before what they stand for is counted.
    """
    if request.raw is not None:
        return fill(request.raw)
    names = {name.lower() for name in request.headers}
    lines = [f"{request.method} {request.path} HTTP/1.1"]
    if "host" not in names:
        lines.append(f"Host: {host}")
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    framed = bool(names & {"content-length", "transfer-encoding"})
    body = None if request.content is None else fill(request.content)
    if body is not None and not framed:
        lines.append(f"Content-Length: {len(body)}")
    return fill("\r\n".join(lines).encode("utf-8")) + b"\r\n\r\n" + (body or b"")


class Exchange(Struct, frozen=True, kw_only=True):
    """What one connection brought."""

    received: bytes
    answers: tuple[Message, ...]
    interim: tuple[Message, ...]
    closed: bool
    held_s: float
    first_answer_s: float | None
    answered_at: float | None = None
    """When the first answer had come: seconds, monotonic."""


class Connection:
    """One client connection: a socket whose incoming bytes are collected while others are sent."""

    def __init__(self, *, receive_buffer_bytes: int | None = None, source: str | None = None) -> None:
        """`source` is the address of 127.0.0.0/8 to come from; failed credentials are counted by it."""
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        if source is not None:
            self.socket.bind((source, 0))
        self.received = bytearray()
        self.closed = False
        self.opened = 0.0
        self.first_byte: float | None = None
        self._news = asyncio.Event()

    async def open(self, port: int) -> None:
        """Connect to 127.0.0.1."""
        await asyncio.get_running_loop().sock_connect(self.socket, ("127.0.0.1", port))
        self.opened = time.monotonic()

    async def send(self, data: bytes) -> bool:
        """Send all of it; False when the other side does not take more."""
        try:
            await asyncio.get_running_loop().sock_sendall(self.socket, data)
        except OSError:
            return False
        return True

    async def collect(self) -> None:
        """Keep what arrives until the other side ends the connection."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                data = await loop.sock_recv(self.socket, 262144)
            except OSError:
                data = b""
            if data:
                self.received += data
                self.first_byte = self.first_byte or time.monotonic()
            else:
                self.closed = True
            self._news.set()
            if self.closed:
                return

    async def news(self, until: float) -> bool:
        """Wait for bytes or the end; False when `until` (monotonic) came first."""
        self._news.clear()
        try:
            async with asyncio.timeout(max(0.0, until - time.monotonic())):
                await self._news.wait()
        except TimeoutError:
            return False
        return True

    def close(self, *, reset: bool = False) -> None:
        """Close, with RST instead of FIN if asked."""
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


async def converse(
    data: bytes,
    port: int,
    *,
    sending: Sending,
    limits: Limits,
    raw: bool,
    wants_close: bool,
    source: str | None = None,
    enough: bytes | None = None,
) -> Exchange:
    """Send on one connection and gather what comes back, for as long as the case can need.

    After the first answer a raw request is given a moment for further ones, and a case that wants the
    connection closed is given 2.5 s for that. Of an answer that goes on for ever, the part with `enough` is enough.
    """
    connection = Connection(source=source)
    await connection.open(port)
    sent_at = connection.opened
    bodiless = data.startswith((b"HEAD ", b"CONNECT "))
    async with asyncio.TaskGroup() as tasks:
        reader = tasks.create_task(connection.collect())
        sender = tasks.create_task(_send(connection, data, sending, limits))
        patience = connection.opened + _patience_s(sending, limits)
        answered_at: float | None = None
        answered: tuple[Message, ...] = ()
        while not connection.closed:
            until = patience
            if answered and sending.kind not in {"hold", "lines", "bytes"}:
                quiet = _CLOSE_S if wants_close else _QUIET_S if raw else 0.0
                until = min(patience, time.monotonic() + quiet)
            elif answered:
                until = min(patience, (answered_at or 0.0) + _CLOSE_S)
            if not await connection.news(until) and (answered or time.monotonic() >= patience):
                break
            if enough is not None and enough in connection.received:
                break
            if not answered and len(connection.received) < announced_bytes(connection.received):
                continue  # else a long answer would be read from its beginning with each part of it
            found, _ = read_answers(bytes(connection.received), closed=False, bodiless=bodiless)
            answered = tuple(one for one in found if one.status >= 200)
            if answered and answered_at is None:
                answered_at = time.monotonic()
        ended_at = time.monotonic()
        if sender.done():
            sent_at = sender.result()
        sender.cancel()
        reader.cancel()
    connection.close()
    received = bytes(connection.received)
    is_cut = enough is not None and enough in received
    found, _ = read_answers(received, closed=connection.closed or is_cut, bodiless=bodiless)
    answers = tuple(one for one in found if one.status >= 200)
    if answers and answered_at is None:
        answered_at = ended_at
    return Exchange(
        received=received,
        answers=answers,
        interim=tuple(one for one in found if one.status < 200),
        closed=connection.closed,
        held_s=ended_at - connection.opened,
        first_answer_s=None if answered_at is None else max(0.0, answered_at - sent_at),
        answered_at=answered_at,
    )


def _patience_s(sending: Sending, limits: Limits) -> float:
    if sending.kind == "close":
        return _QUIET_S
    if sending.kind in {"hold", "lines", "bytes"}:
        # Longer than any check allows, so that "held too long" is seen and not cut off.
        return max(limits.head_timeout_s, limits.body_timeout_s) + limits.slack_s + 1.0
    return _PATIENCE_S


async def _send(connection: Connection, data: bytes, sending: Sending, limits: Limits) -> float:
    """Write `data` the way the case asks; the moment when the last of it was written."""
    match sending.kind:
        case "lines":
            pause_s = limits.head_timeout_s / limits.fixture_head_timeout_s / sending.amount
            for line in data.splitlines(keepends=True):
                if not await connection.send(line):
                    break
                await asyncio.sleep(pause_s)
        case "bytes":
            pause_s = limits.body_timeout_s / limits.fixture_body_timeout_s / sending.amount
            going = await connection.send(data)
            while going:
                await asyncio.sleep(pause_s)
                going = await connection.send(b" ")
        case "segments":
            for at in range(0, len(data), sending.amount):
                if not await connection.send(data[at : at + sending.amount]):
                    break
        case _:
            await connection.send(data)
            if sending.kind == "shutdown_wr":
                with suppress(OSError):
                    connection.socket.shutdown(socket.SHUT_WR)
    return time.monotonic()


async def occupy(port: int, count: int, data: bytes) -> list[Connection]:
    """Open many connections, each with the same unfinished request on it."""
    opened: list[Connection] = []
    for _ in range(count):
        connection = Connection()
        opened.append(connection)
        try:
            await connection.open(port)
        except OSError:
            continue
        await connection.send(data)
    return opened


async def reset_storm(port: int, per_second: int, data: bytes) -> float:
    """One second's worth of connections, each reset after its first bytes; how long it took, in seconds."""
    began = time.monotonic()
    for number in range(per_second):
        connection = Connection()
        try:
            await connection.open(port)
            await connection.send(data)
        except OSError:
            pass
        connection.close(reset=True)
        ahead_s = began + number / per_second - time.monotonic()
        if ahead_s > 0.005:
            await asyncio.sleep(ahead_s)
    return time.monotonic() - began


async def ask_and_never_read(port: int, data: bytes) -> Connection:
    """Send a request on a connection with a small receive buffer and read nothing of the answer."""
    connection = Connection(receive_buffer_bytes=_SMALL_BUFFER_BYTES)
    await connection.open(port)
    await connection.send(data)
    return connection
