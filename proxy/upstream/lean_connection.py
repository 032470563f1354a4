"""One connection to the server, for one request after the other: bytes out, one answer in.

In: the bytes of a request, and what the socket brings. Out: an `Incoming`, whose head and body arrive. Keeps the answer
under way, and of its body at most `HIGH_BYTES` and what was received last. No task, no timer: everything happens when
the socket says something. llhttp parses as it does for aiohttp, and stricter: header fields are not folded, and hold
no control characters. A whole answer with the head of the last one is not parsed again. Source: RFC 9112.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import Final, Self, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from msgspec.structs import replace

from ..model import Headers
from ..protocol.known_heads import KnownHead, digits_in
from .transport import HTTP, MAX_FIELD_BYTES, MAX_FIELDS, MAX_LINE_BYTES, Lost

MAX_HEAD_BYTES: Final = 131_072
"""Of a head in all, with the interim answers before it, and of what may come between two pieces of a body: chunk
extensions, trailers."""
HIGH_BYTES: Final = 65_536
"""Of a body that nobody has taken, before the server has to wait."""
SLICE_BYTES: Final = 262_144
"""Of a large request that is given to the socket at a time; smaller ones go out in one piece."""
MAX_REMEMBERED_BYTES: Final = 2_048
"""Of a head that is known when it comes again."""
IN_VAIN: Final = 64
"""Heads that were remembered one after the other, and none came again: from then on only each 64th is. Some servers say
something new in each."""


class Unheard(Lost):
    """The connection was closed before a byte of the answer came."""


class Incoming:
    """An answer: its head once it has arrived, then the pieces of its body. Awaited by one task at a time."""

    __slots__ = ("_connection", "_error", "_held", "_is_over", "_loop", "_waiter", "headers", "status")

    def __init__(self, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        self.status = 0
        self.headers: Headers | None = None
        """None until the head has arrived, and when whoever asked has taken it."""
        self._connection: Connection | None = connection
        """None when the body is over, or given up: the connection belongs to somebody else."""
        self._loop = loop
        self._held: bytes | bytearray = b""
        self._is_over = False
        self._error: Lost | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def head(self) -> Headers:
        """Wait for the head. Raises Lost. Cancelling it closes the connection."""
        try:
            while self.headers is None and not self._is_over:
                await self._news()
        except BaseException:
            self.close()
            raise
        headers, self.headers = self.headers, None
        if headers is None:
            assert self._error is not None
            raise self._error
        return headers

    def __aiter__(self) -> Incoming:
        return self

    async def __anext__(self) -> bytes:
        while not self._held:
            if self._error is not None:
                raise self._error
            if self._is_over:
                raise StopAsyncIteration
            await self._news()
        held, self._held = self._held, b""
        if self._connection is not None:
            self._connection.taken()
        return held if isinstance(held, bytes) else bytes(held)

    @property
    def whole(self) -> bytes | None:
        """The body, where all of it is here."""
        return bytes(self._held) if self._is_over and self._error is None else None

    def _news(self) -> asyncio.Future[None]:
        """When something has arrived."""
        waiter = self._waiter = self._loop.create_future()
        return waiter

    def close(self) -> None:
        """Close the connection if the body is under way. May be called twice."""
        connection = self._connection
        if connection is not None:
            connection.give_up()
            self._held = b""
            self.end(Lost())

    # What the connection says.

    def came(self, data: bytes) -> None:
        """A piece of the body."""
        if not self._held:
            self._held = data
        elif isinstance(self._held, bytes):
            self._held = bytearray(self._held)
            self._held += data
        else:
            self._held += data

    @property
    def held_bytes(self) -> int:
        """Of the body, that nobody has taken."""
        return len(self._held)

    def wake(self) -> None:
        """Something has arrived."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def end(self, error: Lost | None) -> None:
        """Nothing more comes: the body is whole, or `error` is why not."""
        self._connection = None
        self._is_over = True
        self._error = error
        self.wake()


class Known(KnownHead, frozen=True, kw_only=True, eq=False):
    """A head that may come again."""

    status: int
    headers: Headers
    length: int
    """Which field says that of the body."""

    def of_length(self, digits: bytes, head: bytes) -> Self:
        return replace(
            self,
            head=head,
            whole_bytes=len(head) + int(digits),
            length_end=self.length_begin + len(digits),
            headers=self.headers.of_length(self.length, digits),
        )


class Seen:
    """What the connections to one server have seen."""

    __slots__ = ("in_vain", "last")

    def __init__(self) -> None:
        self.last: Known | None = None
        """The last head that may come again."""
        self.in_vain = 0
        """How many were remembered since one came again."""


class Connection(asyncio.Protocol):
    """`free` is told when it can be used again, `gone` when it is no more."""

    __slots__ = (
        "_expected",
        "_fields",
        "_free",
        "_gone",
        "_has_head",
        "_incoming",
        "_is_full",
        "_is_paused",
        "_is_whole",
        "_loop",
        "_may_keep",
        "_parser",
        "_poll",
        "_reason_bytes",
        "_seen",
        "_silent_bytes",
        "_transport",
        "_unsent",
        "_until_end",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        free: Callable[[Connection], None],
        gone: Callable[[Connection], None],
        seen: Seen | None = None,
    ) -> None:
        """`seen` is what the others to the same server have seen."""
        self._loop = loop
        self._free = free
        self._gone = gone
        self._seen = seen or Seen()
        self._transport: asyncio.Transport | None = None
        self._poll: select.poll | None = None
        self._parser: HttpResponseParser | None = None
        self._incoming: Incoming | None = None
        self._unsent: memoryview | None = None
        self._is_full = False
        """The socket takes no more of the request now."""
        self._is_paused = False
        """The server waits, because nobody takes the body."""
        self._fields: list[tuple[bytes, bytes]] = []
        self._reason_bytes = 0
        self._silent_bytes = 0
        """That came since the request went out, or since the last piece of a body."""
        self._expected = HTTP
        """What is left of the word that every answer begins with."""
        self._has_head = self._is_whole = self._may_keep = self._until_end = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._poll = select.poll()
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        self._parser = _parser(self)

    @property
    def is_open(self) -> bool:
        """Whether something may be sent."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def is_quiet(self) -> bool:
        """Whether it may be used again: it is open, and nothing has come that the loop has not seen yet: the server's
        farewell, or bytes that nobody asked for. 0.4 µs."""
        return self.is_open and self._poll is not None and not self._poll.poll(0)

    def ask(self, head: bytes, body: bytes) -> Incoming:
        """Send one request. The answer to the one before has come to its end."""
        incoming = self._incoming = Incoming(self, self._loop)
        transport = self._transport
        assert transport is not None
        self._expected = HTTP
        self._silent_bytes = 0
        self._has_head = self._is_whole = False
        if len(body) <= SLICE_BYTES:
            transport.write(head + body)
        else:
            self._unsent = memoryview(body)
            transport.write(head)
            self._send_more()
        return incoming

    def _send_more(self) -> None:
        transport = self._transport
        while self._unsent is not None and not self._is_full and transport is not None:
            piece, rest = self._unsent[:SLICE_BYTES], self._unsent[SLICE_BYTES:]
            self._unsent = rest or None
            transport.write(piece)

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self._send_more()

    def data_received(self, data: bytes) -> None:
        incoming, parser = self._incoming, self._parser
        if incoming is None or parser is None:
            self.drop()  # nobody asked for it
            return
        is_first = self._expected is HTTP
        if is_first and self._comes_again(incoming, data):
            return
        if self._expected:
            begin = data[: len(self._expected)]
            if not self._expected.startswith(begin):
                self._fail(Lost())
                return
            self._expected = self._expected[len(begin) :]
        self._silent_bytes += len(data)
        try:
            parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            if not self._is_whole:
                self._fail(Lost(), error)
                return
            self._may_keep = False  # it said more than it was asked
        if self._is_whole:
            if is_first and self._may_keep:
                self._remember(incoming, data)
            self._end(incoming)
        elif self._silent_bytes > MAX_HEAD_BYTES:
            self._fail(Lost())
        elif self._has_head:
            incoming.wake()
            if incoming.held_bytes > HIGH_BYTES and not self._is_paused and self.is_open:
                self._is_paused = True
                assert self._transport is not None
                self._transport.pause_reading()

    def _comes_again(self, incoming: Incoming, data: bytes) -> bool:
        """Whether this is a whole answer with a known head. The parser is not asked (6 µs), and stays where it is,
        between two answers."""
        seen = self._seen
        known = None if seen.last is None else seen.last.said_by(data)
        if known is None:
            return False
        seen.last, seen.in_vain = known, 0
        self._expected = b""
        self._has_head = self._is_whole = self._may_keep = True
        incoming.status = known.status
        incoming.headers = known.headers
        incoming.came(data[len(known.head) :])
        self._end(incoming)
        return True

    def _remember(self, incoming: Incoming, data: bytes) -> None:
        """The head of an answer that came in one piece, where it has as many bytes as it seems to have: each line is
        one field, and the body is as long as it says."""
        end = data.find(b"\r\n\r\n") + 4
        if end > MAX_REMEMBERED_BYTES or data.count(b"\n", 0, end) != len(self._fields) + 2:
            return
        seen = self._seen
        seen.in_vain += 1
        if seen.in_vain > IN_VAIN and seen.in_vain % IN_VAIN:
            return
        head, headers = data[:end], incoming.headers
        begin, stop = digits_in(head)
        # An interim answer has another status, and no body, whatever it says.
        is_own = head.startswith(b"HTTP/1.1 %d" % incoming.status)
        if not begin or not is_own or headers is None:
            return
        if end + int(head[begin:stop]) != len(data):
            return
        length = next(at for at, field in enumerate(self._fields) if field[0].lower() == b"content-length")
        seen.last = Known(
            head=head,
            whole_bytes=len(data),
            length_begin=begin,
            length_end=stop,
            status=incoming.status,
            headers=headers,
            length=length,
        )

    def taken(self) -> None:
        """What was held of the body has been taken."""
        if self._is_paused:
            self._is_paused = False
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()

    # What the parser says. Whatever these raise ends the connection.

    def on_message_begin(self) -> None:
        if self._is_whole:
            raise ValueError("bytes behind the answer")
        self._fields = []
        self._reason_bytes = 0

    def on_status(self, reason: bytes) -> None:
        self._reason_bytes += len(reason)
        if self._reason_bytes > MAX_LINE_BYTES:
            raise ValueError("the status line is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        fields = self._fields
        if len(fields) >= MAX_FIELDS or len(name) + len(value) > MAX_FIELD_BYTES:
            raise ValueError("too many fields, or a field that is too long")
        fields.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        incoming, parser = self._incoming, self._parser
        assert incoming is not None
        assert parser is not None
        status = parser.get_status_code()
        if 100 <= status < 200 and status != 101:
            return
        if self._silent_bytes > MAX_HEAD_BYTES:
            # What came in one piece with the body is looked at as if it had come alone.
            if sum(len(name) + len(value) for name, value in self._fields) > MAX_HEAD_BYTES:
                raise ValueError("the head is too long")
            self._silent_bytes = 0
        self._has_head = True
        self._may_keep = parser.should_keep_alive()
        incoming.status = status
        incoming.headers = Headers(self._fields)
        self._until_end = not self._may_keep and _is_until_end(incoming.headers)

    def on_body(self, data: bytes) -> None:
        self._silent_bytes = 0
        assert self._incoming is not None
        self._incoming.came(data)

    def on_message_complete(self) -> None:
        self._is_whole = self._has_head

    # How it ends.

    def _end(self, incoming: Incoming) -> None:
        """The answer is whole."""
        self._incoming = None
        self._fields = []
        if self._may_keep and self._unsent is None and not self._is_full and self.is_open:
            self._free(self)
        else:
            self.drop()
        incoming.end(None)

    def _fail(self, lost: Lost, cause: BaseException | None = None) -> None:
        incoming, self._incoming = self._incoming, None
        lost.__cause__ = cause
        self.drop()
        if incoming is not None:
            incoming.end(lost)

    def give_up(self) -> None:
        """Nobody wants the rest of the answer."""
        self._incoming = None
        self.drop()

    def drop(self) -> None:
        """Close it at once, whatever is still to be sent."""
        self._unsent = None
        if self._transport is not None:
            self._transport.abort()

    def eof_received(self) -> None:
        self._ended(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended(exc)
        # The parser and we hold each other: left to the collector of cycles, each would be garbage.
        self._parser = self._transport = self._poll = None
        self._gone(self)

    def _ended(self, exc: Exception | None) -> None:
        """The server has said its last word."""
        incoming = self._incoming
        if incoming is None:
            return
        if exc is None and self._has_head and self._until_end:
            self._incoming = None
            self.drop()
            incoming.end(None)
        else:
            self._fail(Unheard() if self._expected == HTTP else Lost(), exc)


def _parser(connection: Connection) -> HttpResponseParser:
    parser = HttpResponseParser(connection)
    # As aiohttp does: some servers end lines with LF alone, some fill chunk sizes up with spaces.
    parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True)
    return parser


def _is_until_end(headers: Headers) -> bool:
    """Whether the end of the connection is that of the body. RFC 9112 section 6.3."""
    codings = ",".join(headers.all("transfer-encoding")).rpartition(",")[2]
    return "content-length" not in headers and codings.strip().lower() != "chunked"
