"""Request → Call → hall → reply on the wire.

In: `Incoming`. Out: bytes on the client's socket, the very ones of the reply. Keeps what is under way, so that a
drain can wait for it. Whatever happens, the journey of a request ends, and its reply is told how.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from itertools import chain
from typing import Final, Protocol, Self, TypeAlias

from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from msgspec import Struct
from msgspec.structs import replace

from ..model import (
    Broken,
    Call,
    Ending,
    FindPage,
    Headers,
    Journey,
    Kind,
    Page,
    PageRequest,
    Reason,
    Refused,
    Reply,
    Revision,
    Stream,
    Who,
)
from ..protocol.known_heads import digits_in
from ..protocol.reading import read_bodiless, read_post
from .connection import CLOSE, KEEP, MAX_REMEMBERED_BYTES, Connection, Done, Incoming, Known, slim
from .gate import Gate, Target, too_large
from .settings import ListenSettings

_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}".encode() for status in HTTPStatus
}
_COMPLETE: Final = Ending.COMPLETE  # to ask an enumeration for its members takes calls
_NOTE: Final = object()
_BODILESS: Final = frozenset({204, 304})
_NEVER: Final = frozenset({"CONNECT", "TRACE"})
"""Their targets are no paths, or their answers echo headers: not even the gate looks at them."""
BROKEN: Final = 400
TOO_SLOW: Final = 408
MAX_UNTAKEN_BYTES: Final = 1_048_576
"""Of our own words between a server's events. Nobody waits after these, so a client that takes nothing and goes
on provoking them is dropped."""
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Hall(Protocol):
    async def __call__(self, call: Call) -> Reply: ...


class Endpoint(Struct, frozen=True, kw_only=True):
    """One path, and what may be asked of it."""

    path: str
    methods: frozenset[str]
    revision: Revision | None = None
    """Set where the endpoint, not the message, decides the revision (HTTP+SSE)."""


NameRequest: TypeAlias = Callable[[Journey, Headers], tuple[bytes, bytes]]
"""The field by which a client knows the reply to its request."""
_KINDS: Final = {"GET": Kind.LISTEN, "DELETE": Kind.END}
MAX_PAGE_BODY_BYTES: Final = 65_536
"""Of a request for a page: a form at most."""

MAX_STRANGERS_BODY_BYTES: Final = 65_536
"""Read before it is asked who sends it. Most messages are shorter, and those are asked about once."""


class Judged(Known, frozen=True, kw_only=True, eq=False):
    """What a head asks for, and that it may come in: from the head and the settings, and nothing else."""

    gate: Gate
    """Who judged: after a reload another one does."""
    headers: Headers
    target: Target
    served: Endpoint | Page
    cors: Sequence[tuple[bytes, bytes]]
    """What the answer carries for the page that asks."""
    length: int | None = None
    """Of the body of what is posted to an endpoint, where it was announced."""
    is_plain: bool = False
    """Such a body is taken when it is there: nobody has to be asked or told anything before."""
    most: int = 0
    """Up to this length a body would be just as plain."""

    def of_length(self, digits: bytes, head: bytes) -> Self | None:
        length = int(digits)
        if length > self.most:
            return None
        at = next(at for at, pair in enumerate(self.headers.pairs) if pair[0].lower() == b"content-length")
        headers = self.headers.of_length(at, digits)
        return replace(
            self,
            message=self.message._replace(raw_headers=headers.pairs),
            head=head,
            whole_bytes=len(head) + length,
            length_end=self.length_begin + len(digits),
            headers=headers,
            length=length,
        )

    def is_of(self, message: RawRequestMessage) -> bool:
        """Whether another request has the very same head, but for its method."""
        own = self.message
        return (
            message.raw_headers == own.raw_headers
            and message.path == own.path
            and message.version == own.version
        )

    @property
    def size_bytes(self) -> int:
        return len(self.message.path) + sum(map(len, chain.from_iterable(self.headers.pairs)))


def no_pages(path: str) -> Page | None:
    return None


class Listener:
    """Answers requests by one reading of the settings."""

    def __init__(
        self,
        settings: ListenSettings,
        *,
        endpoints: Sequence[Endpoint],
        hall: Hall,
        open_journey: Callable[[float], Journey],
        explain: Callable[[Refused], Reply],
        report: Callable[[Exception], None],
        pages: FindPage = no_pages,
        keys: Sequence[str] = (),
        who: Who | None = None,
        name_request: NameRequest | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._max_structure = settings.max_structural_bytes
        self._endpoints = {endpoint.path: endpoint for endpoint in endpoints}
        self._pages = pages
        self._who = who
        self._name_request = name_request
        self._hall = hall
        self._open_journey = open_journey
        self._explain = explain
        self._report = report
        self._now = now
        self._gate = Gate(
            hosts=settings.allowed_hosts,
            origins=settings.allowed_origins,
            address_host=settings.address.host,
            is_tls=settings.tls is not None,
            keys=keys,
        )
        self._under_way: dict[Reply, Call | None] = {}
        self._opening: set[asyncio.Task[object]] = set()
        self._refuses_new = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._requests = 0

    async def __call__(self, incoming: Incoming) -> Done:
        received = self._now()
        journey = self._open_journey(received)
        if not self._requests:
            self._idle.clear()
        self._requests += 1
        try:
            return await self._answer(incoming, journey, received)
        except BaseException as error:
            journey.ended(Ending.of(error))
            raise
        finally:
            incoming.connection.request_ended()
            self._requests -= 1
            if not self._requests:
                self._idle.set()

    async def _answer(self, incoming: Incoming, journey: Journey, received: float) -> Done:
        message = incoming.message
        known = self._known(incoming)
        headers = Headers(message.raw_headers) if known is None else known.headers
        call: Call | None = None
        cors = self._gate.cors(headers) if known is None else known.cors
        named = None if self._name_request is None else self._name_request(journey, headers)
        try:
            judged = known or self._judged(incoming, headers, cors)
            read = await self._read(incoming, judged, journey, received)
            if isinstance(read, Call):
                call = read
                incoming.connection.must_stay(call.revision.disconnect_cancels)
                reply = await (self._opened(call) if call.is_open_ended else self._hall(call))
            else:
                reply = read
                if message.method == "OPTIONS":
                    cors = ()  # they are among what the preflight is told
                reply.when_done(journey.ended)
        except Refused as refused:
            journey.refused(refused)
            reply = self._explain(refused)
            reply.when_done(journey.ended)
        if named is not None:
            reply.headers = _with(reply.headers, named)
        return await self._write(incoming, reply, call, cors)

    async def _opened(self, call: Call) -> Reply:
        """The reply to a call whose stream a drain ends, even before it has begun."""
        task = asyncio.current_task()
        assert task is not None
        self._opening.add(task)
        try:
            return await self._hall(call)
        finally:
            self._opening.discard(task)

    def _known(self, incoming: Incoming) -> Judged | None:
        """What was thought of the very same head, if that was the last on this connection."""
        judged = incoming.connection.judged
        if not isinstance(judged, Judged) or judged.gate is not self._gate or self._refuses_new:
            return None
        message = incoming.message
        if message is judged.message:
            return judged
        if incoming.head and not judged.head:
            return None  # now its bytes are known, too
        return judged if judged.is_of(message) else None

    def _judged(self, incoming: Incoming, headers: Headers, cors: Sequence[tuple[bytes, bytes]]) -> Judged:
        """What a head asks for. Raises Refused."""
        message = incoming.message
        incoming.connection.judged = None
        if message.method in _NEVER:
            raise Refused(Reason.METHOD_NOT_ALLOWED, headers=((b"Allow", b"DELETE, GET, OPTIONS, POST"),))
        target = self._gate.target(message.path, headers, message.version)
        if self._refuses_new:
            raise Refused(Reason.DRAINING, retry_after_s=1)
        endpoint = self._endpoints.get(target.path)
        if endpoint is None or message.method != "POST" or "POST" not in endpoint.methods:
            served = endpoint or self._pages(target.path)
            if served is None:
                raise Refused(Reason.PATH_UNKNOWN)
            return Judged(
                message=message, gate=self._gate, headers=headers, target=target, served=served, cors=cors
            )
        length = self._gate.body(headers, message.version, self._settings.max_body_bytes)
        self._gate.is_json(headers)
        is_plain = (
            length is not None
            and (self._who is None or length <= MAX_STRANGERS_BODY_BYTES)
            and "expect" not in headers
        )
        begin, end = digits_in(incoming.head) if is_plain else (0, 0)
        judged = Judged(
            message=slim(message),
            head=incoming.head,
            whole_bytes=len(incoming.head) + length if incoming.head and length is not None else -1,
            gate=self._gate,
            headers=headers,
            target=target,
            served=endpoint,
            cors=cors,
            length_begin=begin,
            length_end=end,
            length=length,
            is_plain=is_plain,
            most=min(self._settings.max_body_bytes, MAX_STRANGERS_BODY_BYTES),
        )
        if judged.size_bytes <= MAX_REMEMBERED_BYTES:
            incoming.connection.judged = judged
        return judged

    async def _read(
        self, incoming: Incoming, judged: Judged, journey: Journey, received: float
    ) -> Call | Reply:
        """The call of a request, or the answer to a browser's preflight. Raises Refused."""
        message, headers, served = incoming.message, judged.headers, judged.served
        if message.method == "OPTIONS" or message.method not in served.methods:
            return self._not_called(served, incoming, headers)
        if isinstance(served, Page):
            return await self._page(served, incoming, headers, judged.target)
        kind, peer = _KINDS.get(message.method), incoming.connection.peer
        if kind is None:
            body = incoming.at_hand(judged.length) if judged.is_plain else None
            if body is None:
                body = await self._message(incoming, judged)
        else:
            self._bodiless(incoming, headers)
            body = b""
        try:
            if kind is not None:
                return read_bodiless(
                    kind,
                    headers,
                    received=received,
                    journey=journey,
                    query=judged.target.query,
                    spoken=served.revision,
                    peer=peer,
                )
            return read_post(
                headers,
                body,
                received=received,
                journey=journey,
                query=judged.target.query,
                spoken=served.revision,
                peer=peer,
                max_structure=self._max_structure,
            )
        except Refused:
            # What the reader thinks of it is for callers; a stranger is told that it is one.
            if self._who is not None:
                await self._who(headers, peer)
            raise

    def _not_called(self, served: Endpoint | Page, incoming: Incoming, headers: Headers) -> Reply:
        """The answer to a browser that asks first. Raises Refused for everybody else."""
        allow = ", ".join(sorted(served.methods)).encode()
        if incoming.message.method == "OPTIONS":
            fields = self._gate.preflight(headers, allow)
            if fields is not None:
                incoming.is_read = incoming.body.is_eof()
                return Reply(204, Headers(fields))
        raise Refused(Reason.METHOD_NOT_ALLOWED, headers=((b"Allow", allow),))

    async def _message(self, incoming: Incoming, judged: Judged) -> bytes:
        """The body of what is posted. Raises Refused."""
        headers, length = judged.headers, judged.length
        if self._who is not None and (length is None or length > MAX_STRANGERS_BODY_BYTES):
            # Else whoever connects often enough fills our memory without ever saying who it is.
            await self._who(headers, incoming.connection.peer)
        return await self._body(incoming, headers, length, self._settings.max_body_bytes)

    async def _page(self, page: Page, incoming: Incoming, headers: Headers, target: Target) -> Reply:
        """The answer of a page; who asks is not asked for a credential."""
        method = incoming.message.method
        self._gate.check_keys(headers)
        if method == "GET":
            self._bodiless(incoming, headers)
            body = b""
        else:
            length = self._gate.body(headers, incoming.message.version, MAX_PAGE_BODY_BYTES)
            body = await self._body(incoming, headers, length, MAX_PAGE_BODY_BYTES)
        asked = PageRequest(method=method, path=target.path, query=target.query, headers=headers, body=body)
        return await page.answer(asked)

    def _bodiless(self, incoming: Incoming, headers: Headers) -> None:
        self._gate.no_body(headers)
        # aiohttp holds what follows an Upgrade back, whatever we answer: the connection cannot go on.
        incoming.is_read = not incoming.message.upgrade

    async def _body(self, incoming: Incoming, headers: Headers, length: int | None, limit: int) -> bytes:
        """The whole body within its size and its time."""
        transport = incoming.connection.transport
        if "expect" in headers and incoming.message.version.minor == 1 and transport is not None:
            transport.write(_CONTINUE)
        body = incoming.at_hand(length)
        if body is None:
            body = await self._arrived(incoming.body, limit)
        incoming.is_read = True
        return body

    async def _arrived(self, reader: StreamReader, limit: int) -> bytes:
        pieces: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._settings.body_timeout_s):
                while piece := await reader.readany():
                    size += len(piece)
                    if size > limit:
                        raise too_large(limit)
                    pieces.append(piece)
        except TimeoutError:
            seconds = self._settings.body_timeout_s
            raise Refused(Reason.TOO_SLOW, f"A body has {seconds:g} s to arrive.") from None
        return b"".join(pieces)

    async def _write(
        self, incoming: Incoming, reply: Reply, call: Call | None, cors: Sequence[tuple[bytes, bytes]]
    ) -> Done:
        """The reply on the wire. Told how it ended, whatever happens."""
        connection = incoming.connection
        # A peer that breaks the rules of HTTP may mean another message by its next bytes than we do.
        keep = incoming.is_read and not incoming.message.should_close and not self._refuses_new
        if incoming.message.method == "HEAD":
            reply.body = b""  # the status is all it asked for
        try:
            try:
                head, is_chunked, keep = self._head(incoming, reply, cors, keep)
                if isinstance(reply.body, Stream):
                    self._under_way[reply] = call
                    connection.begin_stream()
                connection.send(head)
                del head  # streams are open for hours
                if isinstance(reply.body, Stream):
                    await self._stream(connection, reply.body, is_chunked)
                elif connection.is_slow:
                    await self._taken(connection)
            except BaseException as error:
                reply.done(Ending.of(error))
                raise
            reply.done(_COMPLETE)
        except Broken as broken:
            keep = keep and broken.told  # a last word was said, and the body has ended as it should
        except ConnectionError:
            keep = False
        except Exception as error:
            # Too late for a status: the head is out. What is broken must look broken.
            if connection.transport is not None:
                connection.transport.abort()
            self._report(error)
            keep = False
        finally:
            if connection.streams:
                self._under_way.pop(reply, None)
                connection.streams = False
        # What is known to have no body leaves nothing to throw away; broken framing may have anything behind it.
        leaves_rest = not incoming.is_read and (not incoming.body.is_eof() or reply.status == BROKEN)
        if leaves_rest and reply.status != TOO_SLOW:
            await connection.linger()
        return KEEP if keep and not connection.is_deaf else CLOSE

    def _head(
        self, incoming: Incoming, reply: Reply, cors: Sequence[tuple[bytes, bytes]], keep: bool
    ) -> tuple[bytes, bool, bool]:
        """The bytes of the head, with the body where it is whole; whether the body is chunked, and whether the
        connection may be kept."""
        minor = incoming.message.version.minor
        body = reply.body if isinstance(reply.body, bytes) else None
        is_chunked = False
        lines = _lines_of(reply.headers) if not cors else _lines(reply.headers.pairs, cors)
        pieces = [_STATUS_LINES.get(reply.status) or b"HTTP/1.1 %d " % reply.status, lines.before]
        if lines.length >= 0:
            pieces += (reply.headers.pairs[lines.length][1], lines.after)
        if not lines.has_date:
            pieces += (b"\r\nDate: ", rfc822_formatted_time().encode())
        if lines.length < 0 and reply.status not in _BODILESS:
            if body is not None:
                pieces.append(b"\r\nContent-Length: %d" % len(body))
            elif minor == 1:
                is_chunked = True
                pieces.append(b"\r\nTransfer-Encoding: chunked")
            else:
                keep = False  # HTTP/1.0: the end of the connection is the end of the body
        if not keep:
            pieces.append(b"\r\nConnection: close")
        elif minor == 0:
            pieces.append(b"\r\nConnection: keep-alive")
        pieces += (b"\r\n\r\n", body or b"")
        return b"".join(pieces), is_chunked, keep

    async def _stream(self, connection: Connection, body: Stream, is_chunked: bool) -> None:
        """Write a stream as it comes, and end it as it ended."""

        def write(chunk: bytes) -> None:
            if chunk:
                connection.send(b"%x\r\n%b\r\n" % (len(chunk), chunk) if is_chunked else chunk)

        untaken = 0

        def interject(chunk: bytes) -> None:
            nonlocal untaken
            transport = connection.transport
            if transport is None or connection.is_gone:
                return  # whoever would hear it has left
            untaken = untaken + len(chunk) if connection.is_slow else 0
            if untaken > MAX_UNTAKEN_BYTES:
                transport.abort()
            else:
                write(chunk)

        body.written_by(interject)
        try:
            async for chunk in body:
                write(chunk)
                if connection.is_slow:
                    await self._taken(connection)
        except Broken as broken:
            if broken.told or body.is_ending or self._refuses_new:
                self._end(connection, is_chunked)
            elif connection.transport is not None:
                # Cut off as the server cut it off: a proper end would make a whole of what is none.
                connection.transport.close()
            raise
        self._end(connection, is_chunked)

    def _end(self, connection: Connection, is_chunked: bool) -> None:
        if is_chunked:
            connection.send(b"0\r\n\r\n")

    async def _taken(self, connection: Connection) -> None:
        """Wait for a slow reader, and so let the server wait; not for one that takes nothing at all."""
        transport = connection.transport
        while transport is not None and connection.is_slow:
            waits = transport.get_write_buffer_size()
            try:
                async with asyncio.timeout(self._settings.write_idle_timeout_s):
                    await connection.taken()
            except TimeoutError:
                if transport.get_write_buffer_size() >= waits:
                    transport.abort()
                    raise ConnectionResetError("the client takes nothing") from None

    def refuse_unparsed(self, connection: Connection, refused: Refused) -> Done:
        """Answer what could not be parsed, or what nobody caught, and close."""
        journey = self._open_journey(self._now())
        if refused.reason is Reason.INTERNAL:
            refused.data = {**refused.data, "requestId": journey.request_id}
        journey.refused(refused)
        reply = self._explain(refused)
        head = _STATUS_LINES[reply.status] + b"\r\n"
        body = reply.body if isinstance(reply.body, bytes) else b""
        headers = reply.headers
        if self._name_request is not None:
            headers = _with(headers, self._name_request(journey, Headers()))
        fields = b"".join(name + b": " + value + b"\r\n" for name, value in headers.pairs)
        if connection.transport is not None:
            connection.transport.write(
                head + fields + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
        journey.ended(Ending.COMPLETE)
        return CLOSE

    def refuse_new(self) -> None:
        """From now on requests are refused."""
        self._refuses_new = True

    def end_listening(self) -> None:
        """End the streams that would never end by themselves; their clients come back elsewhere."""
        for task in self._opening:
            task.cancel()
        for reply, call in list(self._under_way.items()):
            if call is not None and call.is_open_ended and isinstance(reply.body, Stream):
                call.journey.ended(Ending.COMPLETE)  # our doing, not the server's failure
                reply.body.end()

    async def finished(self) -> None:
        """Wait until nothing is under way."""
        await self._idle.wait()

    @property
    def streams_open(self) -> int:
        """Answers that are being streamed."""
        return len(self._under_way)

    @property
    def requests_under_way(self) -> int:
        return self._requests


class _Lines(Struct, frozen=True):
    """Fields as they stand in a head, each with the end of the line before it."""

    before: bytes
    """Up to the digits of Content-Length; all of them where there is none."""
    after: bytes
    length: int
    """Which field is Content-Length; -1: there is none."""
    has_date: bool


def _lines_of(headers: Headers) -> _Lines:
    """Written once for fields that come again."""
    lines: _Lines | None = headers.notes.get(_NOTE)
    if lines is None:
        lines = _lines(headers.pairs, ())
        headers.note(_NOTE, lines)
    return lines


def _lines(fields: Sequence[tuple[bytes, bytes]], cors: Sequence[tuple[bytes, bytes]]) -> _Lines:
    before, length, has_date = b"", -1, False
    pieces: list[bytes] = []
    for at, (name, value) in enumerate(fields):
        lower = name.lower()
        if lower == b"content-length" and length < 0:
            before, length = b"".join([*pieces, b"\r\n", name, b": "]), at
            pieces = []
            continue
        if cors and lower.startswith(b"access-control-"):
            continue  # two sets of CORS fields cancel each other in browsers
        has_date = has_date or lower == b"date"
        pieces += (b"\r\n", name, b": ", value)
    for name, value in cors:
        pieces += (b"\r\n", name, b": ", value)
    rest = b"".join(pieces)
    return _Lines(rest, b"", length, has_date) if length < 0 else _Lines(before, rest, length, has_date)


def _with(headers: Headers, field: tuple[bytes, bytes]) -> Headers:
    """The same with this field, and no other of its name."""
    wanted = field[0].lower()
    return Headers((*(pair for pair in headers.pairs if pair[0].lower() != wanted), field))
