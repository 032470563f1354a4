"""What does a web server say? One question without credentials of anybody, within a time; a bounded answer.

In: a URL of the settings, or an address of the command line. Out: status, fields and the beginning of the body. Keeps
what time servers think it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp
from msgspec import Struct
from yarl import URL

from ..authorities import system_authorities
from ..model import Headers
from ..upstream.transport import Answer, Transport

MOST_BYTES: Final = 65_536


class Said(Struct, frozen=True, kw_only=True):
    """An answer; `body` ends after `MOST_BYTES`."""

    status: int
    body: bytes


class Clocks:
    """What time others think it is, in seconds ahead of us."""

    def __init__(self, wall: Callable[[], float]) -> None:
        """`wall` counts seconds from 1970."""
        self._wall = wall
        self.ahead_s: dict[str, float] = {}
        """By who said so."""

    def heard(self, who: str, date: str | None) -> None:
        """The field Date of an answer (RFC 9110 section 6.6.1), which may hold anything."""
        if date is None or len(date) > 64:
            return
        try:
            # The field has no fractions: on average it is half a second late.
            self.told(who, parsedate_to_datetime(date).timestamp() + 0.5)
        except (ValueError, OverflowError, OSError, TypeError):
            return

    def told(self, who: str, moment: float) -> None:
        """`moment`: seconds from 1970, as somebody else has them now."""
        self.ahead_s[who] = moment - self._wall()


async def get(url: str, who: str, clocks: Clocks) -> Said:
    """GET, without redirects. Raises OSError, aiohttp.ClientError."""
    async with _session() as session, session.get(URL(url, encoded=True), allow_redirects=False) as response:
        clocks.heard(who, response.headers.get("Date"))
        return Said(status=response.status, body=await response.content.read(MOST_BYTES))


@asynccontextmanager
async def _session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=system_authorities()),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
    ) as session:
        yield session


async def connects(host: str, port: int) -> bool:
    """Whether somebody takes a connection there. Sends nothing."""
    try:
        _, writer = await asyncio.open_connection(host, port)
    except (OSError, UnicodeError):
        return False
    writer.close()
    return True


class Dated:
    """Fulfils `Transport`: another one, whose answers tell the time."""

    def __init__(self, transport: Transport, who: str, clocks: Clocks) -> None:
        self._transport = transport
        self._who = who
        self._clocks = clocks

    async def send(
        self, method: str, target: str, headers: Sequence[tuple[bytes, bytes]], body: bytes | None
    ) -> Answer:
        answer = await self._transport.send(method, target, headers, body)
        told: Headers = answer.headers
        self._clocks.heard(self._who, told.get("date"))
        return answer

    async def close(self) -> None:
        await self._transport.close()


def words_of(document: object, name: str) -> Mapping[str, object] | list[object] | str | None:
    """A member of a JSON object that may be anything."""
    value = document.get(name) if isinstance(document, dict) else None
    return value if isinstance(value, str | list | dict) else None
