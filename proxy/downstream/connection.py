"""One client connection: aiohttp's parser and keep-alive, plus what aiohttp does not enforce.

Head deadline, cap on a head, cap on chunk framing, half-closed clients, refusals of our own for what cannot be
parsed. Leans on the inner methods of aiohttp's RequestHandler; pyproject.toml holds aiohttp to one minor version,
and tests/integration/test_slow_clients.py and the corpus go red when they move.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler, _ErrInfo
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from ..model import NOBODY, Peer, Reason, Refused
from ..protocol.known_heads import KnownHead

if TYPE_CHECKING:
    from .settings import ListenSettings

MAX_LINE_BYTES: Final = 8_190
MAX_FIELD_BYTES: Final = 32_768
"""Mirrored headers carry URIs and base64; aiohttp's 8,190 is too short for them."""
MAX_FIELDS: Final = 128
MAX_REMEMBERED_BYTES: Final = 2_048
"""Of a head that is known when it comes again. Connections that wait for their next request must stay small."""
MAX_HEAD_BYTES: Final = 131_072
MAX_FRAMING_BYTES: Final = 131_072
"""Chunk sizes, line ends and extensions of one body. A million chunks of one byte would block the loop."""
MAX_UNSENT_BYTES: Final = 65_536
"""What waits to be sent before a reader is slow; asyncio's own figure for plain connections."""
SLICE_BYTES: Final = 32_768
"""Fed to the parser at a time, so that a flood of tiny chunks is noticed after milliseconds."""
KEEP_ALIVE_S: Final = 75.0
LINGER_S: Final = 1.0
"""How long the rest of a refused body is read and thrown away, so that the refusal is not lost in a reset."""
HALF_CLOSE_GRACE_S: Final = 1.0
"""A legacy client may close its half and wait for the answer; a FIN does not tell that from leaving. After this
it has left."""
TCP_CLOSE_WAIT: Final = 8
"""The peer has sent a FIN; <netinet/tcp.h>."""

_SLOW_HEAD: Final = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class Incoming:
    """One HTTP request whose head has arrived: what aiohttp parsed, and nothing it would guess."""

    __slots__ = ("_whole", "body", "connection", "head", "is_read", "message")

    def __init__(
        self,
        message: RawRequestMessage,
        body: StreamReader,
        connection: Connection,
        head: bytes = b"",
        whole: bytes | None = None,
    ) -> None:
        self.message = message
        self.body = body
        self.connection = connection
        self.head = head
        """The bytes of the head, where no other bytes belong to the message but those of a body as long as it says."""
        self._whole = whole
        self.is_read = False
        """The body has arrived whole: what follows on the connection is another request."""

    def at_hand(self, length: int | None) -> bytes | None:
        """The body, where all `length` bytes of it have come: with the head, as nearly all do. Given once."""
        whole, self._whole = self._whole, None
        if whole is None:
            if not self.body.is_eof() or self.body.total_bytes != length:
                return None
            whole = self.body.read_nowait(-1)
        self.is_read = True
        return whole

    def _cancel(self, error: BaseException) -> None:
        """Called by aiohttp when the connection is lost."""
        self.body.set_exception(error)

    def _finish(self) -> None:
        """Called by aiohttp when the request asked for another protocol."""


class Known(KnownHead, frozen=True, kw_only=True, eq=False):
    """A head that may come again, as the parser read it."""

    message: RawRequestMessage


_NO_FIELDS: Final = CIMultiDictProxy(CIMultiDict[str]())
_NO_URL: Final = URL()


def slim(message: RawRequestMessage) -> RawRequestMessage:
    """The same without what aiohttp makes of a head and nobody here reads: what is remembered must stay small."""
    return message._replace(headers=_NO_FIELDS, url=_NO_URL)


class Done:
    """What the handler hands back when it has written the answer itself; aiohttp takes it for a response."""

    __slots__ = ("keep_alive",)

    def __init__(self, keep_alive: bool) -> None:
        self.keep_alive = keep_alive

    async def prepare(self, request: object) -> None: ...

    async def write_eof(self) -> None: ...


KEEP: Final = Done(True)
CLOSE: Final = Done(False)

Handler = Callable[[Incoming], Awaitable[Done]]
RefuseUnparsed = Callable[["Connection", Refused], Done]


class Connection(RequestHandler):
    """A client."""

    __slots__ = (
        "_body",
        "_framing_bytes",
        "_grace",
        "_handler",
        "_head",
        "_head_bytes",
        "_head_deadline",
        "_head_timeout_s",
        "_is_between",
        "_is_tls",
        "_must_stay",
        "_peer_stopped",
        "_refuse_unparsed",
        "_stopped",
        "_take_timeout_s",
        "answered",
        "is_deaf",
        "judged",
        "peer",
        "streams",
    )
    # What the parser said, and in the same order what it was not asked about.
    _messages: deque[tuple[RawRequestMessage | _ErrInfo | Incoming, StreamReader]]  # type: ignore[assignment]

    def __init__(
        self,
        server: Server,
        settings: ListenSettings,
        handler: Handler,
        refuse_unparsed: RefuseUnparsed,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # None is how aiohttp switches it off
            keepalive_timeout=KEEP_ALIVE_S,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_FIELD_BYTES,
            max_headers=MAX_FIELDS,
            lingering_time=0,  # done by `linger`, which hears nothing
            auto_decompress=False,
        )
        self._head_timeout_s = settings.head_timeout_s
        self._take_timeout_s = settings.write_idle_timeout_s
        self._handler = handler
        self._refuse_unparsed = refuse_unparsed
        self._head_deadline: asyncio.TimerHandle | None = None
        self._grace: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._head = b""  # of the one message that waits, as `Incoming` has it
        self._is_between = True  # the parser has been given whole messages, and nothing of another one
        self._framing_bytes = 0
        self._body: StreamReader | None = None
        self.is_deaf = False
        self._must_stay = False
        self._is_tls = False
        self._peer_stopped = False
        self._stopped: asyncio.Future[None] | None = None
        self.peer = NOBODY
        self.judged: Known | None = None
        """What the listener thought of the last head: clients send the same again and again."""
        self.answered = 0
        """How many of the requests that arrived here have had their answer."""
        self.streams = False
        """A stream is being written: a client that closes its half has heard enough of it."""

    async def start(self) -> None:
        """Answer requests, one after the other: the task of the connection.

        Instead of aiohttp's, which makes a task and a writer for each request and looks for answers not yet written.
        """
        try:
            while not self._force_close:
                if not self._messages:
                    self._waiter = self._loop.create_future()
                    await self._waiter
                    self._waiter = None
                incoming = self._next()
                if isinstance(incoming, _ErrInfo):
                    self._refuse(_unparsed(incoming.exc))
                    break
                self._keepalive = await self._answered(incoming)
                if not incoming.body.is_eof():
                    self.close()  # what is left of it is no request
                if self._close or not self._keepalive:
                    break
                del incoming  # who waits for the next one must stay small
                self._await_next()
        except BaseException:
            self.force_close()
            raise
        if not self._force_close:
            self._task_handler = None
            if self.transport is not None:
                self.transport.close()

    def _next(self) -> Incoming | _ErrInfo:
        """What came first. If the parser was asked, it may go on."""
        message, body = self._messages.popleft()
        if isinstance(message, Incoming):
            return message
        head, self._head = self._head, b""
        if self._parser is not None:
            self._parser.message_consumed()
        if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
            self._resume_reading_if_drained()
        return message if isinstance(message, _ErrInfo) else Incoming(message, body, self, head)

    async def _answered(self, incoming: Incoming) -> bool:
        """Whether the connection may be kept after the answer, which has been written."""
        self._current_request = incoming  # type: ignore[assignment]  # `_cancel` is all aiohttp asks
        self._request_in_progress = True
        try:
            done = await self._handler(incoming)
        except Exception as error:
            refused = Refused(Reason.INTERNAL)
            refused.__cause__ = error
            done = self._refuse(refused)
        finally:
            self._current_request = None
            self._request_in_progress = False
            if self._handler_waiter is not None:
                self._handler_waiter.set_result(None)
        if self._upgraded:
            await self.finish_response(incoming, done, None)  # type: ignore[arg-type]  # as above
        return done.keep_alive

    def _await_next(self) -> None:
        """Close the connection when nothing has come for a while."""
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(
                self._next_keepalive_close_time, self._process_keepalive
            )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.peer = _peer(transport)
        self._is_tls = transport.get_extra_info("ssl_object") is not None
        if self._is_tls and self.transport is not None:
            # Eight times this is the default under TLS: a slow reader would hold half a megabyte before it is one.
            self.transport.set_write_buffer_limits(high=MAX_UNSENT_BYTES)
            _bound_taking(self.transport, self._take_timeout_s)
        self._await_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._head_arrived()
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
        self._peer_has_stopped()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._comes_again(data):
            return
        if len(data) <= SLICE_BYTES:
            self._feed(data)
            return
        for at in range(0, len(data), SLICE_BYTES):
            self._feed(data[at : at + SLICE_BYTES])

    def _comes_again(self, data: bytes) -> bool:
        """Whether this is a whole message with a known head: what the parser would say of it is known, too. It is not
        asked (12 µs), and stays where it is, between two messages. Anything else is a case for the parser."""
        known = None if self.judged is None else self.judged.said_by(data)
        if known is None:
            return False
        waiter = self._waiter
        # Who waits has nothing queued and answers nothing; who was told to close waits no more.
        if waiter is None or waiter.done() or not self._is_between or self.is_deaf:
            return False
        self.judged = known
        self._request_count += 1
        incoming = Incoming(known.message, EMPTY_PAYLOAD, self, known.head, whole=data[len(known.head) :])
        self._messages.append((incoming, EMPTY_PAYLOAD))
        waiter.set_result(None)
        return True

    def _feed(self, data: bytes) -> None:
        if self.is_deaf:
            return
        body = self._body
        heads, was_between = self._request_count, self._is_between
        self._is_between = was_between and not data
        if body is not None and not body.is_eof():
            before = body.total_bytes
            super().data_received(data)
            of_body = body.total_bytes - before
            self._count_framing(body, len(data) - of_body)
            self._is_between = of_body == len(data) > 0 and body.is_eof()
        else:
            self._head_bytes += len(data)
            super().data_received(data)
            body = None
        if len(self._messages):
            is_new = self._request_count > heads
            self._heads_arrived(body, is_new)
            if is_new and was_between:
                self._measure(data)
            return
        if body is None and self._head_deadline is None and data and not self._request_in_progress:
            self._await_head()
        if body is None and self._head_bytes > MAX_HEAD_BYTES:
            self._deafen()
            self._refuse_unparsed(self, Refused(Reason.TOO_LARGE, "The head is too long.", status=431))
            self.force_close()

    def _measure(self, data: bytes) -> None:
        """Is `data` the beginning of one message and nothing else, perhaps all of it? And where does its head end?"""
        message, body = self._messages[-1]
        if not isinstance(message, RawRequestMessage) or message.upgrade:
            return
        end = data.find(b"\r\n\r\n") + 4
        # The parser found the end there, too, if each line is one field: not where one is folded, or empty lines lead.
        if data.count(b"\n", 0, end) != len(message.raw_headers) + 2 or end + body.total_bytes != len(data):
            return
        self._is_between = body.is_eof()
        if len(self._messages) == 1 and end <= MAX_REMEMBERED_BYTES:
            self._head = data[:end]

    def _heads_arrived(self, body: StreamReader | None, is_new: bool) -> None:
        message, payload = self._messages[-1]
        if isinstance(message, _ErrInfo):
            if body is not None and not body.is_eof():
                # Broken framing inside a body: the request that waits for it is refused, not a second one.
                self._messages.pop()
                self.answered += 1
                body.set_exception(Refused(Reason.MALFORMED, "The framing of the body is broken."))
            self._deafen()
        elif is_new:  # not told by their bodies: where there is none, aiohttp has one object for all
            self._body = payload
            self._framing_bytes = 0
            self._head_bytes = 0
        self._head_arrived()

    def _count_framing(self, body: StreamReader, framing: int) -> None:
        self._framing_bytes += framing
        if self._framing_bytes > MAX_FRAMING_BYTES and not body.is_eof():
            body.set_exception(Refused(Reason.TOO_LARGE, "The body is cut into too many chunks."))
            self._deafen()

    def _deafen(self) -> None:
        """Hear nothing more; the connection is closed after the answer under way."""
        self.is_deaf = True
        self._head_arrived()

    def _await_head(self) -> None:
        self._head_deadline = self._loop.call_later(self._head_timeout_s, self._head_is_late)

    def _head_arrived(self) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None

    def _head_is_late(self) -> None:
        self._head_deadline = None
        if self.transport is None or self._request_in_progress:
            return
        if self._head_bytes:
            self.transport.write(_SLOW_HEAD)
        self.force_close()

    def eof_received(self) -> bool | None:  # type: ignore[override]  # asyncio allows True: keep our half open
        self._peer_has_stopped()
        body_is_under_way = self._body is not None and not self._body.is_eof()
        if self.is_idle or body_is_under_way or self.streams or self._must_stay or self._is_tls:
            return None  # under TLS nobody stays half open: both sides close at once, and so does asyncio
        # A FIN behind a whole request: the client may have left, or wait for the answer with its half closed.
        self.close()  # after this answer
        self._grace = self._loop.call_later(HALF_CLOSE_GRACE_S, self._has_left)
        return True

    def request_ended(self) -> None:
        """A request has had its answer. What has arrived of the next head has its own time from here."""
        self.answered += 1
        self._must_stay = False
        if self._head_bytes and self._head_deadline is None and self.transport is not None:
            self._await_head()

    def must_stay(self, must: bool) -> None:
        """Whether whoever asks cancels by closing, even one half: what the revision of the request says."""
        self._must_stay = must
        if must:
            self._keep_hearing()
            if self._peer_stopped:
                self._has_left()

    def begin_stream(self) -> None:
        """From here on only leaving matters: what is pipelined behind a stream must not hide it."""
        self.streams = True
        self._keep_hearing()

    def _keep_hearing(self) -> None:
        if self._buffer_paused or self._reading_paused:
            self._deafen()
            self._resume_transport_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """What was not paused goes on by itself: aiohttp asks at each body that was read, and parses nothing again."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def pause_reading(self) -> None:
        if self.streams or self._must_stay:
            self._deafen()
        else:
            super().pause_reading()

    def _pause_reading_for_buffer(self) -> None:
        if self.streams or self._must_stay:
            self._deafen()
        else:
            super()._pause_reading_for_buffer()

    def _has_left(self) -> None:
        self._grace = None
        if self.transport is not None:
            self.transport.abort()

    def _peer_has_stopped(self) -> None:
        self._peer_stopped = True
        if self._stopped is not None and not self._stopped.done():
            self._stopped.set_result(None)

    async def linger(self) -> None:
        """Throw away what still comes, until the peer stops sending or a moment has passed."""
        self._deafen()
        self._resume_transport_reading()
        if self._peer_stopped or self.transport is None:
            return
        self._stopped = self._loop.create_future()
        try:
            async with asyncio.timeout(LINGER_S):
                await self._stopped
        except TimeoutError:
            pass

    def _refuse(self, refused: Refused) -> Done:
        self.answered += 1
        return self._refuse_unparsed(self, refused)

    def log_exception(self, *words: object, **details: object) -> None:
        """Said by the listener, without the text of the exception."""

    @property
    def is_idle(self) -> bool:
        """No request is being read or served."""
        # Not aiohttp's own flag: that is unset while a request waits between its queue and its handler.
        return self._request_count == self.answered

    @property
    def is_gone(self) -> bool:
        """Nobody hears what is written any more."""
        if self.transport is None or self.transport.is_closing():
            return True
        return self._is_tls and self.streams and _peer_has_closed(self.transport)

    @property
    def is_slow(self) -> bool:
        """More waits to be written than the client takes."""
        return self._paused

    def send(self, data: bytes) -> None:
        """Write at once. Raises ConnectionResetError when nobody hears it."""
        transport = self.transport
        if transport is None or self.is_gone:
            raise ConnectionResetError("the client left")
        transport.write(data)

    async def taken(self) -> None:
        """Wait until the client has taken enough of what was written."""
        try:
            await self._drain_helper()
        except asyncio.CancelledError:
            self._drain_waiter = None  # whoever waits next must not meet a cancelled future
            raise


def _peer(transport: asyncio.BaseTransport) -> Peer:
    name = transport.get_extra_info("peername")
    tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    if not isinstance(name, tuple):
        return NOBODY
    return Peer(str(name[0]), None if tls is None else tls.getpeercert(binary_form=True))


def _bound_taking(transport: asyncio.Transport, seconds: float) -> None:
    """Let the kernel drop a peer that takes nothing. Under TLS we do not see all that waits to be sent, and who
    closes waits for it without an end."""
    if sys.platform == "linux":
        own = transport.get_extra_info("socket")
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, round(seconds * 1000)))


def _peer_has_closed(transport: asyncio.Transport) -> bool:
    """Whether a FIN has come. Under TLS uvloop tells nobody of one without a farewell until everything that was
    written has been taken, and meanwhile warns at every write. 2 µs."""
    if sys.platform != "linux":
        return False
    state: bytes = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    return state[0] == TCP_CLOSE_WAIT


def _unparsed(error: BaseException | None) -> Refused:
    if not isinstance(error, LineTooLong):
        return Refused(Reason.MALFORMED, "This is not HTTP/1.1 as RFC 9112 has it.")
    if MAX_LINE_BYTES in error.args:
        return Refused(Reason.TOO_LARGE, "The request target is too long.", status=414)
    return Refused(Reason.TOO_LARGE, "A header field is too long.", status=431)


class Server(web.Server):
    """Makes connections."""

    def __init__(self, settings: ListenSettings, handler: Handler, refuse_unparsed: RefuseUnparsed) -> None:
        super().__init__(
            handler,  # type: ignore[arg-type]  # our request and answer types, not aiohttp's
            handler_cancellation=True,
        )
        self.settings = settings
        """What connections are made with."""
        self._handler = handler
        self._refuse_unparsed = refuse_unparsed

    def __call__(self) -> Connection:
        return Connection(self, self.settings, self._handler, self._refuse_unparsed, self._loop)
