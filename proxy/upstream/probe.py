"""Does the server answer at all? Asked rarely, remembered for a while.

In: nothing. Out: yes or no. Keeps the last answer and its time. First a connection; where the server speaks
streamable HTTP, now and then `server/discover`, to which any HTTP answer counts: a legacy server says 400.
Never `initialize`: it would leave an orphan session behind each time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import msgspec

from ..configuration.socket_urls import socket_of
from ..configuration.values import url_host_and_port
from ..protocol.jsonrpc import META_CAPABILITIES, META_PREFIX, META_VERSION
from ..protocol.revisions import NEWEST
from . import unix_socket
from .origin import Origin
from .settings import UpstreamSettings
from .transport import EXHAUSTED, Lost, NoRoom, Transport, Unreached

FRESH_S: Final = 2.0
"""How long an answer is remembered; probes of Kubernetes come every few seconds, from several sides."""
DISCOVER_EVERY_S: Final = 30.0
TIMEOUT_S: Final = 3.0

_BODY: Final = msgspec.json.encode(
    {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "server/discover",
        "params": {
            "_meta": {
                META_VERSION: NEWEST.name,
                META_CAPABILITIES: {},
                META_PREFIX + "clientInfo": {"name": "mcp-sidecar-probe", "version": "1"},
            }
        },
    }
)


class Probe:
    """Asks at most once at a time; whoever asks meanwhile waits for the same answer."""

    def __init__(
        self,
        settings: UpstreamSettings,
        transport: Transport,
        origin: Origin | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._origin = origin or Origin(settings)
        self._transport = transport
        self._now = now
        self._lock = asyncio.Lock()
        self._answers = False
        self._asked_at = float("-inf")
        self._discovered_at = float("-inf")

    async def __call__(self) -> bool:
        """Whether the server answered, now or within the last seconds."""
        async with self._lock:
            if self._now() - self._asked_at >= FRESH_S:
                self._answers = await self._ask()
                self._asked_at = self._now()
            return self._answers

    async def _ask(self) -> bool:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                if not await self.connects():
                    self._discovered_at = float("-inf")
                    return False
                if self._settings.is_http_sse or self._now() - self._discovered_at < DISCOVER_EVERY_S:
                    return True
                await self._discover()
        except NoRoom:
            return self._answers
        except (TimeoutError, Unreached, Lost):
            return False
        self._discovered_at = self._now()
        return True

    async def connects(self) -> bool:
        """Whether the server takes a connection now. Sends nothing."""
        file = socket_of(self._settings.url)
        try:
            if file is not None:
                await unix_socket.knocks(file)
                return True
            host, port = url_host_and_port(self._settings.url)
            _, writer = await asyncio.open_connection(host, port)
        except OSError as error:
            # Without descriptors nobody knows: what was so last is not changed by that.
            return self._answers and error.errno in EXHAUSTED
        writer.close()
        return True

    async def _discover(self) -> None:
        origin = self._origin
        answer = await self._transport.send(
            "POST",
            origin.target,
            [
                (b"Host", origin.host),
                (b"Content-Type", b"application/json"),
                (b"Accept", b"application/json, text/event-stream"),
                (b"MCP-Protocol-Version", NEWEST.name.encode()),
                (b"Mcp-Method", b"server/discover"),
                *origin.own.fields,
            ],
            _BODY,
        )
        answer.close()
