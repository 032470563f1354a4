"""What differs where the server listens on a file: nobody there, somebody else's file, and a queue that is full."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from proxy.configuration.socket_urls import url_of_socket
from proxy.upstream.transport import NoRoom, Transport, Unreached
from tests.integration.transports.conftest import CONNECT_S, Make, ask, body_of
from tests.integration.waiting import turns, within

Made = Callable[..., Transport]
FULL = 3
"""Connections that nobody takes, of a queue of one: Linux holds one more than it is told."""


@pytest.fixture
async def made(make: Make) -> AsyncIterator[Made]:
    """Makes transports to socket files that are closed at the end."""
    opened: list[Transport] = []

    def to(file: Path, *, connect_timeout_s: float = CONNECT_S) -> Transport:
        opened.append(make(url_of_socket(str(file), "/mcp"), connect_timeout_s=connect_timeout_s))
        return opened[-1]

    yield to
    for each in opened:
        await each.close()


def _missing(file: Path) -> None:
    """The server has not started."""


def _ended(file: Path) -> None:
    """The server was killed and left its file."""
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(file))


def _other(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("leave", [_missing, _ended, _other])
async def test_nobody_listens_on_the_file(made: Made, tmp_path: Path, leave: Callable[[Path], None]) -> None:
    """issue 10, 2: no byte left, as where a port refuses. The call may go out again."""
    file = tmp_path / "gone.sock"
    leave(file)
    with pytest.raises(Unreached) as caught:
        await ask(made(file)).answer()
    assert not isinstance(caught.value, NoRoom)


@contextmanager
def full_queue(file: Path) -> Iterator[Callable[[], socket.socket]]:
    """A server that has not taken anybody yet, and has no room for another one. What is given lets those leave who
    wait, and tells where the next one comes."""
    with socket.socket(socket.AF_UNIX) as listening, ExitStack() as waiting:
        listening.bind(str(file))
        listening.listen(0)
        listening.setblocking(False)
        for _ in range(FULL):
            each = waiting.enter_context(socket.socket(socket.AF_UNIX))
            each.setblocking(False)
            each.connect_ex(str(file))

        def make_room() -> socket.socket:
            waiting.close()
            return listening

        yield make_room


async def test_a_full_queue_is_waited_for(made: Made, tmp_path: Path) -> None:
    """unix(7): connect says EAGAIN at once. asyncio takes that for a connection, and the request would be lost; uvloop
    for a failure, and a burst would be refused that a server on a port serves."""
    file, loop = tmp_path / "busy.sock", asyncio.get_running_loop()
    async with within():
        with full_queue(file) as make_room:
            asked = ask(made(file))
            await turns()
            assert not asked.task.done()
            listening, said = make_room(), b""
            while not said:
                taken, _ = await loop.sock_accept(listening)
                with taken:
                    taken.setblocking(False)
                    if said := await loop.sock_recv(taken, 65_536):
                        await loop.sock_sendall(taken, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                        assert await body_of(await asked.answer()) == b"ok"


async def test_but_not_for_longer_than_a_connection_may_take(made: Made, tmp_path: Path) -> None:
    """connect_timeout_s: what is not taken in time has not been reached."""
    file = tmp_path / "busy.sock"
    with full_queue(file), pytest.raises(Unreached):
        await ask(made(file, connect_timeout_s=0.05)).answer()
