"""Each reply belongs to the oldest command without one, or the connection ends."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator

import pytest

from proxy.limits.valkey_wire import LOST, MAX_REPLY_BYTES, Error, Wire
from tests.integration.waiting import turns, within


class Peer:
    """The other end: what it got, and what it sends."""

    def __init__(self) -> None:
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None
        self.came = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.came.set()

    def send(self, data: bytes) -> None:
        assert self.writer is not None
        self.writer.write(data)

    async def got(self, data: bytes) -> None:
        assert self.reader is not None
        async with within():
            assert await self.reader.readexactly(len(data)) == data


@pytest.fixture
async def peer() -> Peer:
    return Peer()


@pytest.fixture
async def wire(peer: Peer) -> AsyncIterator[Wire]:
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    _, wire = await asyncio.get_running_loop().create_connection(Wire, "127.0.0.1", port)
    async with within():
        await peer.came.wait()
    yield wire
    wire.abort()
    assert peer.writer is not None
    peer.writer.close()
    server.close()
    async with within():
        await wire.gone
        await server.wait_closed()


async def test_replies_come_in_the_order_of_commands(wire: Wire, peer: Peer) -> None:
    heard: list[tuple[str, object]] = []

    def tell(name: str, reply: object) -> None:
        heard.append((name, reply))

    for name in "abcd":
        wire.send(name.encode(), functools.partial(tell, name))
    await peer.got(b"abcd")
    done = asyncio.get_running_loop().create_future()
    wire.send(b"e", done.set_result)
    for byte in b":1\r\n$3\r\nfoo\r\n*2\r\n:1\r\n$-1\r\n+OK\r\n:5\r\n":
        peer.send(bytes((byte,)))
    async with within():
        assert await done == 5
    assert heard == [("a", 1), ("b", b"foo"), ("c", [1, None]), ("d", b"OK")]
    assert (len(wire), wire.heard) == (0, 5)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (b"NOSCRIPT No matching script.", "NOSCRIPT"),
        (b"ERR ACL failure in script: No permissions to access a key", "NOPERM"),
        (b"ERR Error running script (call to f_1): @user_script:1: @user_script: 1: -OOM command not", "OOM"),
        (b"OOM", "OOM"),
        (b"correct horse battery", "ERR"),
        ("Ünfug".encode(), "ERR"),
        (b"\xff\xfe", "ERR"),
        (b"X" * 50, "ERR"),
    ],
)
async def test_an_error_is_known_by_one_word(wire: Wire, peer: Peer, text: bytes, word: str) -> None:
    """The rest may quote a key or a password, and is kept by nobody."""
    told: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    wire.send(b"a", told.set_result)
    peer.send(b"-" + text + b"\r\n")
    async with within():
        error = await told
    assert isinstance(error, Error)
    assert error.args == (word,)


@pytest.mark.parametrize(
    "bytes_",
    [
        *(b":1\r\n:2\r\n:3\r\n", b":1\r\n\x00", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        *(b"$100000000\r\n" + b"x" * (MAX_REPLY_BYTES + 10), b">2\r\n+a\r\n+b\r\n"),
    ],
)
async def test_what_is_no_reply_ends_the_connection(wire: Wire, peer: Peer, bytes_: bytes) -> None:
    """Unasked, not RESP, endless, pushed: nothing that comes after it could be believed."""
    heard: list[object] = []
    for _ in range(2):
        wire.send(b"a", heard.append)
    peer.send(bytes_)
    async with within():
        await wire.lost
    assert len(heard) == 2
    assert heard[-1] is LOST or heard == [1, 2]
    wire.send(b"b", heard.append)
    assert heard[-1] is LOST


async def test_a_connection_that_ends_tells_everybody_once(wire: Wire, peer: Peer) -> None:
    heard: list[object] = []
    for _ in range(3):
        wire.send(b"a", heard.append)
    await peer.got(b"aaa")
    peer.send(b":1\r\n")
    assert peer.writer is not None
    peer.writer.close()
    async with within():
        await wire.gone
    wire.abort()
    assert heard == [1, LOST, LOST]


async def test_what_was_sent_goes_out_before_it_closes(wire: Wire, peer: Peer) -> None:
    wire.send(b"last words", lambda reply: None)
    wire.close()
    await peer.got(b"last words")
    assert peer.reader is not None
    async with within():
        assert await peer.reader.read() == b""


async def test_commands_of_one_turn_are_one_piece(wire: Wire, peer: Peer) -> None:
    """The first reply, even of all, comes after the turn: nothing is written inside of `send`."""
    wire.send(b"a", lambda reply: None)
    wire.send(b"b", lambda reply: None)
    assert wire._transport is not None
    assert wire._unsent == [b"a", b"b"]
    await turns(2)
    assert wire._unsent == []
