"""How is a socket file connected to? Its path in; a connected socket, or a connection, out. Keeps nothing.

Not by the loops' own functions: a server whose queue is full makes connect(2) say EAGAIN at once (unix(7)), which
asyncio takes for a connection that is under way, and uvloop for a failure. Over TCP such a client waits; so do we.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final, TypeVar

AGAIN_S: Final = 0.005
"""Between two attempts while the server's queue is full."""

Made = TypeVar("Made", bound=asyncio.Protocol)


async def connected(file: str) -> socket.socket:
    """A socket that is connected, and does not block. Waits while the server takes nobody: bound it. Raises OSError."""
    while True:
        # Of a file, this takes no time: the other side need not do anything.
        one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            one.setblocking(False)
            one.connect(file)
        except BlockingIOError:
            one.close()
        except BaseException:
            one.close()
            raise
        else:
            return one
        await asyncio.sleep(AGAIN_S)


async def connection(make: Callable[[], Made], file: str) -> tuple[asyncio.BaseTransport, Made]:
    """As `loop.create_unix_connection`. Raises OSError."""
    one = await connected(file)
    try:
        return await asyncio.get_running_loop().create_unix_connection(make, sock=one)
    except BaseException:
        one.close()
        raise


async def knocks(file: str) -> None:
    """Connect, and leave. Raises OSError."""
    (await connected(file)).close()
