"""The way from `mcp-sidecar pin` to the server: settings and a wish in, the exit code out.

Goes to the server as the sidecar does: same URL, same fields of our own, no redirects. Keeps nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final, TextIO

from .model import Headers
from .policy.pin_command import PinWish, pin
from .policy.server_tools import Answer, Listing, Silent, listings
from .upstream.origin import Origin
from .upstream.settings import UpstreamSettings
from .upstream.transport import Answer as Sent
from .upstream.transport import Lost, Transport, Unreached
from .upstream.transport_aiohttp import AiohttpTransport

PATIENCE_S: Final = 60.0
"""For everything that is asked: four handshakes and their pages."""


async def pin_tools(
    upstream: UpstreamSettings, wish: PinWish, out: TextIO, err: TextIO, *, patience_s: float = PATIENCE_S
) -> int:
    """Write or check the lock file of the server's tools. IO: asks the server."""

    async def ask() -> list[Listing]:
        transport = AiohttpTransport(upstream.url, connect_timeout_s=upstream.connect_timeout_s)
        try:
            async with asyncio.timeout(patience_s):
                return await listings(Way(transport, Origin(upstream)), is_http_sse=upstream.is_http_sse)
        except TimeoutError:
            raise Silent(f"it took longer than {patience_s:g} seconds") from None
        finally:
            await transport.close()

    return await pin(wish, ask, out, err)


class Way:
    """Fulfils `server_tools.Send`."""

    def __init__(self, transport: Transport, origin: Origin) -> None:
        self._transport = transport
        self._origin = origin

    async def __call__(
        self, method: str, target: str | None, headers: Sequence[tuple[bytes, bytes]], body: bytes | None
    ) -> Answer:
        where = self._origin.target if target is None else self._resolved(target)
        fields = [(b"Host", self._origin.host), *headers, *self._origin.own.fields]
        try:
            answer = await self._transport.send(method, where, fields, body)
        except Unreached:
            raise Silent("it cannot be reached") from None
        except Lost:
            raise Silent("the connection broke") from None
        return _Whole(answer)

    def _resolved(self, target: str) -> str:
        try:
            where = self._origin.resolve(self._origin.target, target)
        except ValueError:
            where = None
        if where is None:
            raise Silent("it names an endpoint elsewhere")
        return where


class _Whole:
    """Fulfils `server_tools.Answer`: what breaks on the way is Silent."""

    def __init__(self, answer: Sent) -> None:
        self.status = answer.status
        self.headers: Headers = answer.headers
        self.close = answer.close
        self.chunks = _until_lost(answer.chunks)


async def _until_lost(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        async for chunk in chunks:
            yield chunk
    except Lost:
        raise Silent("the connection broke") from None
