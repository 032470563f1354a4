"""The transport that works everywhere: aiohttp's client, without everything it does by itself."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from typing import Any, Final

import aiohttp
from aiohttp.client_proto import ResponseHandler
from multidict import CIMultiDict
from yarl import URL

from ..authorities import system_authorities
from ..configuration.socket_urls import as_http, socket_of
from ..model import Headers
from . import unix_socket
from .transport import (
    EXHAUSTED,
    HTTP,
    KEEP_ALIVE_S,
    MAX_FIELD_BYTES,
    MAX_FIELDS,
    MAX_LINE_BYTES,
    Answer,
    Lost,
    NoRoom,
    Unreached,
    always,
)

_NOT_BY_ITSELF: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


class _Listening(ResponseHandler):
    """A connection that hears nothing between two requests.

    aiohttp keeps bytes that arrive on an idle connection and takes them for the answer to the next request
    (its issue 13656): a server could answer Bob with what it prepared during Alice's call.
    """

    awaits_answer = False
    _begin = b""
    """How the answer begins, as far as it came: aiohttp takes any word for that of HTTP."""

    def set_response_params(self, **params: Any) -> None:
        self.awaits_answer = True
        self._begin = b""
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        if self.awaits_answer:
            if len(self._begin) < len(HTTP):
                self._begin += data[: len(HTTP) - len(self._begin)]
                if not HTTP.startswith(self._begin) and self.transport is not None:
                    self.transport.abort()
                    return
            super().data_received(data)
            self._tell_broken()
            # The end of a body gives the connection back while bytes behind it are still being parsed.
            planted = self._is_idle() and self.should_close
        else:
            # Without data it is aiohttp itself that looks for more, having read the last of a body.
            planted = bool(data)
        if planted and self.transport is not None:
            self.transport.abort()

    def _tell_broken(self) -> None:
        """Whoever waits for the rest of a body whose framing broke would wait for ever: aiohttp tells them only where
        it broke in the piece that brought the head."""
        broken = self.exception()
        if broken is not None and self._payload is not None and not self._payload.is_eof():
            self._payload.set_exception(aiohttp.ClientPayloadError("its framing broke"), broken)

    def _is_idle(self) -> bool:
        return not self.awaits_answer


class _TakesBack(aiohttp.BaseConnector):
    """Takes back `_Listening` connections."""

    def _release(self, key: Any, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        if isinstance(protocol, _Listening):
            protocol.awaits_answer = False
        super()._release(key, protocol, should_close=should_close)


class _Connector(_TakesBack, aiohttp.TCPConnector):
    """Makes connections to a host."""

    def __init__(self, may_connect: Callable[[], bool], **params: Any) -> None:
        super().__init__(**params)
        self._may_connect = may_connect
        self._factory: Any = functools.partial(_Listening, loop=self._loop)

    async def _create_connection(self, *params: Any, **named: Any) -> Any:
        if not self._may_connect():
            # Before a name is looked up: what fails there does not say that it lacked a descriptor.
            raise NoRoom
        return await super()._create_connection(*params, **named)


class _FileConnector(_TakesBack):
    """Makes connections to a socket file. Not aiohttp's own, which knows nothing of a queue that is full."""

    def __init__(self, may_connect: Callable[[], bool], file: str, **params: Any) -> None:
        super().__init__(**params)
        self._may_connect = may_connect
        self._file = file

    async def _create_connection(self, req: Any, traces: Any, timeout: aiohttp.ClientTimeout) -> Any:
        if not self._may_connect():
            raise NoRoom
        try:
            async with asyncio.timeout(timeout.sock_connect):
                made = functools.partial(_Listening, loop=self._loop)
                _, protocol = await unix_socket.connection(made, self._file)
        except OSError as error:  # also when it took too long
            raise (NoRoom if error.errno in EXHAUSTED else Unreached) from error
        return protocol


class AiohttpTransport:
    """Fulfils `Transport`. Build it inside a running loop."""

    def __init__(
        self, url: str, *, connect_timeout_s: float, may_connect: Callable[[], bool] = always
    ) -> None:
        """`may_connect` is asked before each new connection whether there are descriptors for it."""
        self._origin = URL(as_http(url), encoded=True).origin()
        self._last_target, self._last_url = "", self._origin
        file = socket_of(url)
        trusted = system_authorities() if self._origin.scheme == "https" else True
        # No limit: how many calls may be under way is a question of capacity, not of sockets.
        pool: dict[str, Any] = {"limit": 0, "keepalive_timeout": KEEP_ALIVE_S}
        self._session = aiohttp.ClientSession(
            connector=_Connector(may_connect, ssl=trusted, **pool)
            if file is None
            else _FileConnector(may_connect, file, **pool),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s),
            skip_auto_headers=_NOT_BY_ITSELF,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_FIELD_BYTES,
            max_headers=MAX_FIELDS,
        )

    async def send(
        self, method: str, target: str, headers: Sequence[tuple[bytes, bytes]], body: bytes | None
    ) -> Answer:
        fields = CIMultiDict((name.decode("ascii"), value.decode("utf-8")) for name, value in headers)
        try:
            response = await self._session.request(
                method,
                self._url(target),
                headers=fields,
                data=body,
                allow_redirects=False,
            )
        except aiohttp.ClientConnectorError as error:
            raise (NoRoom if error.errno in EXHAUSTED else Unreached) from error
        except aiohttp.ConnectionTimeoutError as error:
            raise Unreached from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Lost from error
        return Answer(
            status=response.status,
            headers=Headers(response.raw_headers),
            chunks=_Chunks(response),
            close=functools.partial(_finish, response),
        )

    def _url(self, target: str) -> URL:
        # Nearly every request has the same target.
        if target != self._last_target:
            self._last_target, self._last_url = target, URL(f"{self._origin}{target}", encoded=True)
        return self._last_url

    async def close(self) -> None:
        await self._session.close()


class _Chunks:
    """The body as it arrives. A class, because an open stream holds it: a generator costs twice as much."""

    __slots__ = ("_content",)

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._content = response.content

    def __aiter__(self) -> _Chunks:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = await self._content.readany()
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Lost from error
        if not chunk:
            raise StopAsyncIteration
        return chunk


def _finish(response: aiohttp.ClientResponse) -> None:
    # Closing while the body is under way is how a modern client cancels.
    if response.content.is_eof():
        response.release()
    else:
        response.close()
