"""Whatever a server answers, in whatever pieces: a connection that knows a head again says what one does that asks the
parser each time, no more and no less."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Final, TypeAlias

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Struct

from proxy.model import Headers
from proxy.upstream.lean_connection import IN_VAIN, MAX_REMEMBERED_BYTES, Connection, Incoming, Seen
from tests.fuzz.bounded import FUZZ
from tests.fuzz.hostile import damaged

ASK: Final = b"POST /mcp HTTP/1.1\r\n\r\n"


def answer(
    body: bytes,
    *fields: bytes,
    line: bytes = b"HTTP/1.1 200 OK",
    said: bytes | None = None,
    behind: bytes = b"",
) -> bytes:
    length = b"%d" % len(body) if said is None else said
    head = [line, b"Content-Type: application/json", *fields, b"Content-Length: " + length]
    return b"\r\n".join([*head, behind] if behind else head) + b"\r\n\r\n" + body


ONE: Final = answer(b'{"a":1}')
LONGER: Final = answer(b'{"a":1}'.ljust(1_200))
EARLY: Final = answer(b"", line=b"HTTP/1.1 103 Early Hints", said=b"%d" % len(ONE))
"""It has no body, whatever it says; what follows is the answer."""
WITHIN: Final = b"x\r\nContent-Length: 3\r\n\r\nabc"
BARE: Final = b"HTTP/1.1 200 OK\r\nContent-Length: %d \r\n\n" % len(WITHIN) + WITHIN
"""A head that ends with a bare line feed; what its body holds looks like the end of one."""
CHUNKED: Final = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n" + b'{"a":1}' + b"\r\n0\r\n\r\n"

pieces = st.sampled_from(
    [
        *(ONE, ONE, ONE, LONGER, LONGER, answer(b""), answer(b"x" * 70_000), CHUNKED, ONE + ONE, ONE[:-1]),
        *(
            answer(b"abc", said=b"03"),
            answer(b"abc", said=b"+3"),
            answer(b"abc", said=b"3 "),
            answer(b"abc", said=b" 3"),
        ),
        *(
            answer(b"abc", said=b"7"),
            answer(b"abc", said=b"2"),
            answer(b"abc", said=b"3, 3"),
            answer(b"abc", said=b""),
        ),
        *(answer(b"abc", b"Content-Length: 3"), answer(b"abc", b"Transfer-Encoding: chunked")),
        answer(b"3\r\nabc\r\n0\r\n\r\n", behind=b"Transfer-Encoding: chunked"),
        *(
            answer(b"abc", behind=b"Date: a"),
            answer(b"abc", behind=b"Date: b"),
            answer(b"abcd", behind=b"Date: b"),
        ),
        *(
            answer(b"abc", b"Connection: close"),
            answer(b"abc", b"Connection: keep-alive"),
            answer(b"abc", b"Upgrade: h2c"),
        ),
        *(
            answer(b"abc", line=b"HTTP/1.0 200 OK"),
            answer(b"abc", line=b"HTTP/1.1 404 No"),
            answer(b"abc", line=b"HTTP/1.1 204 No"),
        ),
        *(b"HTTP/1.1 100 Continue\r\n\r\n" + ONE, b"\r\n" + ONE, ONE + b"\r\n", ONE.replace(b"\r\n", b"\n")),
        *(
            answer(b"abc", b"A: b\r\n c"),
            answer(b"abc", b"Big: " + b"b" * MAX_REMEMBERED_BYTES),
            b"HTTP/1.1 200 OK\r\n\r\nabc",
        ),
        *(answer(b"\r\n\r\n" + ONE), b"nonsense\r\n\r\n", b""),
    ]
)
Step: TypeAlias = tuple[bytes, tuple[int, ...], bool]
"""What comes behind a request, where it is cut, and whether the server closes then."""
steps = st.tuples(
    pieces | damaged(st.sampled_from([ONE, LONGER])),
    st.lists(st.integers(1, 120), max_size=2).map(tuple) | st.just(()) | st.just(()),
    st.sampled_from([False, False, False, True]),
)


class Told(Struct, frozen=True):
    status: int
    fields: tuple[tuple[bytes, bytes], ...] | None
    length: tuple[object, ...]
    whole: bytes | None
    is_over: bool
    error: type[Exception] | None
    is_free: bool
    is_closed: bool


class Wire(asyncio.Transport):
    def __init__(self, sock: socket.socket) -> None:
        super().__init__({"socket": sock})
        self.is_aborted = False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True


class Asking(Connection):
    """Asks the parser each time."""

    def _comes_again(self, incoming: Incoming, data: bytes) -> bool:
        return False


def told(kind: type[Connection], story: list[Step]) -> list[Told]:
    """What each answer was. A connection is used again where it may be."""
    loop = asyncio.new_event_loop()
    ours, theirs = socket.socketpair()
    seen, found = Seen(), list[Told]()
    free: list[Connection] = []
    wire: Wire | None = None
    try:
        for data, cuts, closes in story:
            if wire is None or wire.is_aborted or not free:
                connection = kind(loop, free.append, lambda _: None, seen)
                wire = Wire(ours)
                connection.connection_made(wire)
            free.clear()
            incoming = connection.ask(ASK, b"")
            at = sorted({each for each in cuts if each < len(data)})
            for begin, end in zip([0, *at], [*at, len(data)], strict=True):
                if data[begin:end] and not wire.is_aborted:
                    connection.data_received(data[begin:end])
            if closes and not wire.is_aborted:
                connection.eof_received()
            headers = incoming.headers or Headers()
            found.append(
                Told(
                    incoming.status,
                    headers.pairs,
                    (headers.get("content-length"), headers.all("content-length"), headers.get("date")),
                    incoming.whole,
                    incoming._is_over,
                    None if incoming._error is None else type(incoming._error),
                    bool(free),
                    wire.is_aborted,
                )
            )
            if closes:
                connection.connection_lost(None)
                wire = None
            elif not incoming._is_over:
                incoming.close()
    finally:
        ours.close()
        theirs.close()
        loop.close()
    return found


@given(story=st.lists(steps, min_size=1, max_size=8))
@example(story=[(ONE, (), False), (ONE, (), False), (LONGER, (), False), (ONE, (), False)])
@example(story=[(ONE, (), False), (ONE, (30,), False), (ONE + ONE, (), False), (ONE, (), False)])
@example(story=[(EARLY + ONE, (), False), (EARLY + answer(b'{"a":2}'), (), False)])
@example(story=[(BARE, (), False), (BARE, (), False)])
@example(story=[(ONE, (), False), (b"HTT" + ONE, (3,), False)])
@example(story=[(ONE, (), False), (answer(b'{"a":2}', said=b"07"), (), False)])
@example(
    story=[(answer(b"abc", behind=b"Date: a"), (), False), (answer(b"abcd", behind=b"Date: b"), (), False)]
)
@example(story=[(answer(b"3\r\nabc\r\n0\r\n\r\n", behind=b"Transfer-Encoding: chunked"), (), False)] * 2)
@FUZZ
def test_any_answer_is_what_the_parser_says(story: list[Step]) -> None:
    """proxy/README.md, "A head that comes again is known": status, fields, body and the connection's fate."""
    assert told(Connection, story) == told(Asking, story)


class Counting(Connection):
    """Tells what the parser was not asked about."""

    unasked = 0

    def _comes_again(self, incoming: Incoming, data: bytes) -> bool:
        comes_again = super()._comes_again(incoming, data)
        Counting.unasked += comes_again
        return comes_again


DATED: Final = answer(b"abc", behind=b"Date: a")


@pytest.mark.parametrize(
    ("answers", "unasked"),
    [
        ([ONE, ONE], 1),
        ([ONE, LONGER, ONE, answer(b"1")], 3),
        ([DATED, DATED, answer(b"abc", behind=b"Date: b"), answer(b"abcd", behind=b"Date: b")], 2),
        ([answer(b""), answer(b"")], 0),
        ([CHUNKED, CHUNKED], 0),
        ([answer(b"abc", b"Big: " + b"b" * MAX_REMEMBERED_BYTES)] * 2, 0),
        ([answer(b"abc", line=b"HTTP/1.0 200 OK")] * 2, 0),
        ([answer(b"abc", b"Id: %d" % each) for each in range(IN_VAIN + 2)] + [ONE, ONE], 0),
    ],
)
def test_the_parser_is_not_asked_twice(answers: list[bytes], unasked: int) -> None:
    """Own promise, and that heads are not remembered for nothing all the time."""
    Counting.unasked = 0
    told(Counting, [(each, (), False) for each in answers])
    assert Counting.unasked == unasked
