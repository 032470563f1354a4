"""One connection to a store: commands go out in order, and each reply belongs to the oldest command without one.

In: bytes of commands, and whom to tell. Out: replies, each told exactly once; `LOST` for those that will not come.
Keeps the commands that are under way. Nobody can leave the queue: who no longer waits is told all the same, so that no
reply is ever taken for that of another command. Source: RESP2, "Redis serialization protocol specification".
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias, cast

import hiredis

MAX_REPLY_BYTES: Final = 65_536
"""Held for a reply that is not complete: ours have some hundred."""

_WORD: Final = re.compile(r"([A-Z]{2,20})(?: |$)")
_WRAPPED: Final = re.compile(r"ERR Error running script .*: -([A-Z]{2,20}) ")

Tell: TypeAlias = Callable[[object], None]
"""Told a reply: int, bytes, list, None, an `Error`, or LOST. Must not raise."""


class Error(Exception):
    """The store refuses a command. `args[0]` is the first word of what it says: the rest may quote anything."""

    @property
    def word(self) -> str:
        return str(self.args[0])


class Lost:
    """There will be no reply. The command may have been carried out."""


LOST: Final = Lost()
_MORE: Final = object()


class Wire(asyncio.Protocol):
    """Speaks while its transport lives."""

    def __init__(self, max_reply_bytes: int = MAX_REPLY_BYTES) -> None:
        self._max_reply_bytes = max_reply_bytes
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when nothing more will come."""
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when what was sent has gone out, and the socket is closed."""
        self.heard = 0
        """Replies until now."""
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(replyError=_error, notEnoughData=_MORE)
        self._waiting: deque[Tell] = deque()
        self._unsent: list[bytes] = []

    def __len__(self) -> int:
        """Commands under way."""
        return len(self._waiting)

    def send(self, command: bytes, tell: Tell) -> None:
        """Send a command behind all others. What is sent within one turn of the loop goes out as one piece."""
        if self.lost.done():
            tell(LOST)
            return
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(command)
        self._waiting.append(tell)

    def close(self) -> None:
        """Send what is to be sent, and hang up."""
        self._flush()
        if self._transport is not None:
            self._transport.close()
        self._end()

    def abort(self) -> None:
        """Hang up now."""
        if self._transport is not None:
            self._transport.abort()
        self._end()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are none by inheritance.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.lost.done():
            return
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _MORE:
                if not self._waiting or isinstance(reply, hiredis.PushNotification):
                    # Nobody asked: whatever comes now would be taken for the answer to something else.
                    self.abort()
                    return
                self.heard += 1
                self._waiting.popleft()(reply)
        except hiredis.ProtocolError:
            self.abort()
            return
        if self._reader.len() > self._max_reply_bytes:
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._end()
        if not self.gone.done():
            self.gone.set_result(None)

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if unsent and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(unsent))

    def _end(self) -> None:
        if self.lost.done():
            return
        self.lost.set_result(None)
        waiting, self._waiting = self._waiting, deque()
        for tell in waiting:
            tell(LOST)


def _error(text: str) -> Exception:
    if text.startswith("ERR ACL failure in script"):
        return Error("NOPERM")
    # Redis 6 wraps what went wrong inside a script: "ERR Error running script (…): …: -OOM command not …".
    found = _WRAPPED.match(text) or _WORD.match(text)
    return Error(found[1] if found else "ERR")
