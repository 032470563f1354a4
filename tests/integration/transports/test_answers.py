"""What comes back: an answer is what the server wrote, however it is cut; what is no HTTP is lost, and nothing of it
is told."""

from __future__ import annotations

import pytest

from proxy.upstream.transport import Lost, Transport
from proxy.upstream.transport_lean import LeanTransport
from tests.integration.transports.conftest import ask, body_of
from tests.integration.upstream import Exchange, Upstream
from tests.integration.waiting import turns, within

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
LENGTH_3 = b"Content-Length: 3\r\n\r\nabc"
TE = (b"Transfer-Encoding", b"chunked")
CL = (b"Content-Length", b"3")

WHOLE = {
    "length": (OK + LENGTH_3, 200, (CL,), b"abc"),
    "fields in order, twice, as written": (
        OK + b"X-b: 1\r\nx-B:2 \t\r\nA: \xff\xe9\r\nEmpty:\r\n" + LENGTH_3,
        200,
        ((b"X-b", b"1"), (b"x-B", b"2"), (b"A", b"\xff\xe9"), (b"Empty", b""), CL),
        b"abc",
    ),
    "chunked": (CHUNKED + b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", 200, (TE,), b"abc"),
    "chunk extensions and trailers": (
        CHUNKED + b"3;x=y\r\nabc\r\n0\r\nT: 1\r\nX-Other: 2\r\n\r\n",
        200,
        (TE,),
        b"abc",
    ),
    "until the end": (OK + b"A: 1\r\n\r\nabc", 200, ((b"A", b"1"),), b"abc"),
    "until the end, coded": (
        OK + b"Transfer-Encoding: gzip\r\n\r\nabc",
        200,
        ((b"Transfer-Encoding", b"gzip"),),
        b"abc",
    ),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n" + LENGTH_3, 200, (CL,), b"abc"),
    "no reason": (b"HTTP/1.1 202\r\nContent-Length: 0\r\n\r\n", 202, ((b"Content-Length", b"0"),), b""),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, (), b""),
    "304 with the length of what it did not send": (
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n",
        304,
        (CL,),
        b"",
    ),
    "after interim answers": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: 1\r\n\r\n" + OK + LENGTH_3,
        200,
        (CL,),
        b"abc",
    ),
    "after a thousand interim answers": (
        b"HTTP/1.1 100 Go\r\n\r\n" * 1_000 + OK + LENGTH_3,
        200,
        (CL,),
        b"abc",
    ),
    "line feeds alone": (b"HTTP/1.1 200 OK\nContent-Length: 3\n\nabc", 200, (CL,), b"abc"),
    "compressed, which is not ours to undo": (
        OK + b"Content-Encoding: gzip\r\n" + LENGTH_3,
        200,
        ((b"Content-Encoding", b"gzip"), CL),
        b"abc",
    ),
    "another protocol, which forward refuses": (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nabc",
        101,
        ((b"Upgrade", b"x"), (b"Connection", b"upgrade")),
        b"",
    ),
    "the longest reason": (b"HTTP/1.1 200 " + b"x" * 8190 + b"\r\n" + LENGTH_3, 200, (CL,), b"abc"),
    "the longest field": (
        OK + b"A: " + b"x" * 32_767 + b"\r\n" + LENGTH_3,
        200,
        ((b"A", b"x" * 32_767), CL),
        b"abc",
    ),
    "as many fields as may be": (
        OK + b"A: x\r\n" * 255 + LENGTH_3,
        200,
        (*[(b"A", b"x")] * 255, CL),
        b"abc",
    ),
}

BROKEN = {
    "nothing": b"",
    "half a status line": b"HTTP/1.1 20",
    "half a head": OK + b"A: 1\r\n",
    "less than announced": OK + b"Content-Length: 5\r\n\r\nabc",
    "no last chunk": CHUNKED + b"3\r\nabc\r\n",
    "half a chunk": CHUNKED + b"5\r\nabc",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "a relative of HTTP": b"RTSP/1.0 200 OK\r\n" + LENGTH_3,
    "an empty line first": b"\r\n" + OK + LENGTH_3,
    "no such version": b"HTTP/3.0 200 OK\r\n" + LENGTH_3,
    "a long status": b"HTTP/1.1 1000 OK\r\n" + LENGTH_3,
    "two lengths": OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    "twice the same length": OK + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "lengths in one field": OK + b"Content-Length: 3, 3\r\n\r\nabc",
    "a signed length": OK + b"Content-Length: +3\r\n\r\nabc",
    "a negative length": OK + b"Content-Length: -3\r\n\r\nabc",
    "a length of nothing": OK + b"Content-Length:\r\n\r\nabc",
    "an endless length": OK + b"Content-Length: 99999999999999999999999\r\n\r\nabc",
    "chunked and a length": OK
    + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "a length and chunked": OK
    + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "no chunk size": CHUNKED + b"zz\r\n",
    "a chunk size with 0x": CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n",
    "a huge chunk size": CHUNKED + b"fffffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "more than the chunk size": CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n",
    "line feeds in chunks": CHUNKED + b"3\nabc\n0\n\n",
    "a name with a space": OK + b"A b: 1\r\n" + LENGTH_3,
    "a space before the colon": OK + b"A : 1\r\n" + LENGTH_3,
    "no name": OK + b": 1\r\n" + LENGTH_3,
    "no colon": OK + b"A\r\n" + LENGTH_3,
    "NUL in a value": OK + b"A: 1\x002\r\n" + LENGTH_3,
    "CR in a value": OK + b"A: 1\r2\r\n" + LENGTH_3,
    "a long reason": b"HTTP/1.1 200 " + b"x" * 8191 + b"\r\n" + LENGTH_3,
    "a long field": OK + b"A: " + b"x" * 32_768 + b"\r\n" + LENGTH_3,
    "many fields": OK + b"A: x\r\n" * 256 + LENGTH_3,
    "many trailers": CHUNKED + b"3\r\nabc\r\n0\r\n" + b"T: x\r\n" * 300 + b"\r\n",
    "an interim answer that closes": b"HTTP/1.1 100 Go\r\nConnection: close\r\n\r\n" + OK + LENGTH_3,
}

ONLY_LEAN = {
    "a folded field": OK + b"A: b\r\n c\r\n" + LENGTH_3,
    "a control character": OK + b"A: b\x01\r\n" + LENGTH_3,
    "DEL": OK + b"A: b\x7f\r\n" + LENGTH_3,
    "interim answers without an end": b"HTTP/1.1 103 Hints\r\n\r\n" * 30_000 + OK + LENGTH_3,
    "a head of many long fields": OK + (b"A: " + b"x" * 30_000 + b"\r\n") * 5 + LENGTH_3,
    "an endless chunk extension": CHUNKED + b"3;" + b"x" * 600_000 + b"\r\nabc\r\n0\r\n\r\n",
    "an endless trailer": CHUNKED + b"3\r\nabc\r\n0\r\nT: " + b"x" * 600_000 + b"\r\n\r\n",
}

PIECES = [0, 1]
"""How long they are; 0 is all at once. Long answers are cut into 300."""


async def say(exchange: Exchange, text: bytes, size: int) -> None:
    """Write in pieces that arrive one by one, and hang up."""
    size = len(text) + 1 if not size else max(size, len(text) // 300)
    for at in range(0, len(text), size):
        if not exchange.link.is_open:
            return
        exchange.write(text[at : at + size])
        await turns(2)
    exchange.link.close()


@pytest.mark.parametrize("size", PIECES)
@pytest.mark.parametrize("name", WHOLE)
async def test_an_answer_is_what_the_server_wrote(
    transport: Transport, upstream: Upstream, name: str, size: int
) -> None:
    """RFC 9112 section 6.3, RFC 9110 section 15.2; the same however it is cut into pieces."""
    text, status, pairs, body = WHOLE[name]
    asked = ask(transport)
    await say(await upstream.next(), text, size)
    answer = await asked.answer()
    assert answer.whole in (None, body)
    assert (answer.status, answer.headers.pairs, await body_of(answer)) == (status, pairs, body)


async def lost(transport: Transport, upstream: Upstream, text: bytes, size: int) -> None:
    asked = ask(transport)
    exchange = await upstream.next()
    await say(exchange, text, size)
    with pytest.raises(Lost):
        await body_of(await asked.answer())
    await exchange.left()
    assert len(upstream.seen) == 1


@pytest.mark.parametrize("size", PIECES)
@pytest.mark.parametrize("name", BROKEN)
async def test_what_is_no_answer_is_lost(
    transport: Transport, upstream: Upstream, name: str, size: int
) -> None:
    """RFC 9112 sections 2.2, 5.1, 6.3 and 7.1: whoever reads such messages differently can be deceived."""
    await lost(transport, upstream, BROKEN[name], size)


@pytest.mark.parametrize("size", [0, 977])
@pytest.mark.parametrize("name", ONLY_LEAN)
async def test_what_only_the_lean_transport_refuses(
    open_transport: object, upstream: Upstream, name: str, size: int
) -> None:
    """RFC 9112 section 5.2, RFC 9110 section 5.5; and what would never end."""
    transport: Transport = open_transport(LeanTransport)  # type: ignore[operator]
    await lost(transport, upstream, ONLY_LEAN[name], size)


async def test_what_came_with_the_head_is_whole_at_once(open_transport: object, upstream: Upstream) -> None:
    """transport.Answer.whole: nobody waits for what is here, and whoever reads piece by piece gets it all the same."""
    transport: Transport = open_transport(LeanTransport)  # type: ignore[operator]
    for end in (LENGTH_3, b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"):
        asked = ask(transport)
        (await upstream.next()).write(OK + end)
        answer = await asked.answer()
        assert (answer.whole, await body_of(answer)) == (b"abc", b"abc")


async def test_an_event_passes_at_once(transport: Transport, upstream: Upstream) -> None:
    """design section 1: streams are released event by event."""
    asked = ask(transport)
    exchange = await upstream.next()
    exchange.begin()
    answer = await asked.answer()
    for number in range(5):
        text = b"data: %d\n\n" % number
        exchange.chunk(text)
        async with within():
            assert await anext(answer.chunks) == text
    exchange.end()
    async with within():
        assert await anext(answer.chunks, None) is None
        assert await anext(answer.chunks, None) is None


async def test_a_server_waits_while_nobody_takes_the_body(transport: Transport, upstream: Upstream) -> None:
    """Back-pressure: of 64 MB little is held here, and all of it arrives in the end."""
    asked = ask(transport)
    exchange = await upstream.next()
    exchange.begin(kind="application/json")
    answer = await asked.answer()
    piece = bytes(range(256)) * 256
    written = 0
    while exchange.link.may_write and written < 1_000:
        exchange.chunk(piece)
        written += 1
        await turns(3)
    assert written < 1_000  # of 64 KB; some megabytes are the kernel's
    exchange.end()
    assert await body_of(answer) == piece * written


async def test_a_reader_who_was_interrupted_misses_nothing(transport: Transport, upstream: Upstream) -> None:
    """Whoever waits for a piece may be cancelled, and come back."""
    asked = ask(transport)
    exchange = await upstream.next()
    exchange.begin()
    answer = await asked.answer()
    with pytest.raises(TimeoutError):
        async with within(0):
            await anext(answer.chunks)
    exchange.chunk(b"a")
    async with within():
        assert await anext(answer.chunks) == b"a"
    answer.close()


async def test_whoever_closes_an_answer_gets_no_more_of_it(transport: Transport, upstream: Upstream) -> None:
    """Closing while the body is under way is how a modern client cancels."""
    asked = ask(transport)
    exchange = await upstream.next()
    exchange.begin()
    answer = await asked.answer()
    answer.close()
    answer.close()
    await exchange.left()
    with pytest.raises(Lost):
        await body_of(answer)
