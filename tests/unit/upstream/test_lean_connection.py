"""What has come when somebody looks for it, whatever the order in which a socket says things."""

from __future__ import annotations

import asyncio
import socket

import pytest

from proxy.upstream.lean_connection import Connection, Incoming
from proxy.upstream.transport import Lost

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"


class Wire(asyncio.Transport):
    """One end of a connection without a kernel; the socket is for whoever asks whether anything has come."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__({"socket": sock})
        self.sent = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += bytes(data)

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        """Nobody is there."""


def asked() -> tuple[Connection, Incoming]:
    connection = Connection(asyncio.get_running_loop(), lambda _: None, lambda _: None)
    ours, theirs = socket.socketpair()
    with ours, theirs:  # nobody asks any more whether it is quiet
        connection.connection_made(Wire(ours))
    return connection, connection.ask(b"GET / HTTP/1.1\r\n\r\n", b"")


async def rest(incoming: Incoming) -> bytes:
    return b"".join([piece async for piece in incoming])


async def test_what_is_whole_is_whole_at_once() -> None:
    """transport.Answer.whole; in one piece or in several."""
    for pieces in [[HEAD + b"abc"], [HEAD, b"a", b"b", b"c"], [HEAD[:5], HEAD[5:] + b"ab", b"c"]]:
        connection, incoming = asked()
        for at, piece in enumerate(pieces):
            assert incoming.whole is None, at
            connection.data_received(piece)
        assert (await incoming.head()).get("content-length") == "3"
        assert (incoming.whole, await rest(incoming)) == (b"abc", b"abc")


async def test_what_broke_is_not_whole() -> None:
    """RFC 9112 section 8: less than was announced is no answer, also where nobody has looked meanwhile."""
    connection, incoming = asked()
    connection.data_received(HEAD + b"ab")
    connection.connection_lost(None)
    await incoming.head()
    assert incoming.whole is None
    with pytest.raises(Lost):
        await rest(incoming)


async def test_what_was_given_up_is_not_whole() -> None:
    """Closing while the body is under way is how a modern client cancels."""
    connection, incoming = asked()
    connection.data_received(HEAD + b"ab")
    incoming.close()
    assert incoming.whole is None


async def test_whoever_waits_is_told_once_and_whoever_left_is_not() -> None:
    """A reader who was interrupted may come back; nothing is told to the one who does not wait any more."""
    connection, incoming = asked()
    first = asyncio.ensure_future(anext(incoming))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    connection.data_received(HEAD + b"a")
    second = asyncio.ensure_future(anext(incoming))
    assert await second == b"a"
    third = asyncio.ensure_future(anext(incoming))
    await asyncio.sleep(0)
    connection.data_received(b"b")
    connection.data_received(b"c")
    assert await third == b"bc"
