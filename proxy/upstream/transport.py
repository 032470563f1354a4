"""What any transport must do: send a request as it is, hand back the answer as it comes."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, Protocol

from msgspec import Struct

from ..model import Headers

EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE})
"""Errors that speak of us, not of the other side: no file descriptors are left."""

MAX_LINE_BYTES: Final = 8_190
MAX_FIELD_BYTES: Final = 32_768
MAX_FIELDS: Final = 256
KEEP_ALIVE_S: Final = 3.0
"""Shorter than the 5 s after which uvicorn and Node close an idle connection: whoever closes first must not
be the server, or a request meets the closing and nobody knows whether it arrived."""
HTTP: Final = b"HTTP/"
"""How every answer begins. Parsers take words of other protocols for it, too."""


def always() -> bool:
    return True


class Unreached(Exception):
    """No byte of the request left: the name did not resolve, the connection was refused or too slow."""


class NoRoom(Unreached):
    """No byte of the request left, because this process has no file descriptors: the server is not to blame."""


class Lost(Exception):
    """The connection broke, or the answer was no HTTP, after bytes of the request left."""


class Answer(Struct, kw_only=True, eq=False):
    """An answer whose head has arrived."""

    status: int
    headers: Headers
    chunks: AsyncIterator[bytes]
    """The body as it arrives, neither decoded nor decompressed. Raises Lost when it stops short."""
    close: Callable[[], None]
    """Give the connection back when the body has ended, close it otherwise. May be called twice."""
    whole: bytes | None = None
    """The body, where it came with the head and whoever asked need not wait for `chunks`."""


class Transport(Protocol):
    """One origin, a pool of connections. No redirects, no cookies, no total timeout. Nothing is
    sent twice, but for a GET or DELETE that met the closing of an idle connection."""

    async def send(
        self, method: str, target: str, headers: Sequence[tuple[bytes, bytes]], body: bytes | None
    ) -> Answer:
        """Send one request; `target` is path and query. Raises Unreached (NoRoom) or Lost. Cancelling it closes the
        connection."""
        ...

    async def close(self) -> None: ...
