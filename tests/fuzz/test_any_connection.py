"""Whatever a client sends, in whatever pieces: a connection that knows a head again does what one does that asks the
parser each time, no more and no less."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeAlias

import pytest
import uvloop
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.downstream.connection import Connection
from tests.fuzz.bounded import FUZZ
from tests.fuzz.hostile import damaged
from tests.unit.downstream.client_side import (
    LATER,
    ONE,
    OTHER,
    PART,
    Asking,
    ClientSide,
    Counting,
    Standing,
    behind,
    call,
    chunked,
    posted,
)

Loop: TypeAlias = Callable[[], asyncio.AbstractEventLoop]
Step: TypeAlias = bytes | str
"""Bytes that come in one piece, or what else happens."""


LINES: Final = b"a\r\nb\r\nc\r\n\r\n".ljust(len(call()))
"""With the last byte of a head before it, a body of as many lines as that head."""
SPLIT: Final = posted(LINES).removesuffix(b"\n" + LINES)
ASKS: Final = (b"Origin: http://localhost", b"Access-Control-Request-Method: POST")
LONGER: Final = posted(call(text="longer by two digits".ljust(1_000)))
PREFLIGHT: Final = posted(call(), *ASKS, line=b"OPTIONS /mcp HTTP/1.1")
AS_HEAD: Final = posted(call(text=ONE.decode()))
ENDS: Final = posted(b"\r\n\r\n" + call() + b"\r\n\r\n")

messages = st.sampled_from(
    [
        *(
            ONE,
            ONE,
            ONE,
            ONE,
            OTHER,
            OTHER,
            LATER,
            posted(call(text="longer")),
            posted(call(text="x" * 40_000)),
        ),
        *(
            posted(call(text="a little longer")),
            behind(ONE, b"A: b"),
            behind(LONGER, b"A: b"),
            behind(LONGER, b"A: c"),
            behind(ONE, b"Transfer-Encoding: chunked"),
            posted(call(text="x" * 1_000)),
            ONE.replace(b"Content-Length: ", b"Content-Length: 0"),
            ONE.replace(b"Content-Length: ", b"Content-Length:"),
            ONE.replace(b"Content-Length: ", b"Content-Length: +"),
            posted(call(), b"Content-Length: 7"),
            AS_HEAD,
            ENDS,
            posted(ONE),
            posted(b""),
            posted(b"{"),
            posted(call(), length=7),
            posted(call(), length=990),
        ),
        *(
            posted(call(), b"X: 1"),
            posted(call(), b"X:  1"),
            posted(call(), b"X: 1 "),
            posted(call(), b"x: 1"),
        ),
        *(
            posted(call(), b"A: b\r\n c"),
            posted(call(), b"Big: " + b"b" * 3_000),
            posted(call(), b"Connection: close"),
        ),
        *(
            posted(call(), b"Expect: 100-continue"),
            posted(call(), b"Expect: x"),
            posted(call(), b"Upgrade: h2c"),
        ),
        *(
            posted(call(), b"Connection: upgrade", b"Upgrade: websocket"),
            posted(call(), b"Origin: http://localhost"),
        ),
        *(
            posted(call(), line=b"POST /mcp HTTP/1.0"),
            posted(call(), b"Connection: keep-alive", line=b"POST /mcp HTTP/1.0"),
        ),
        *(
            posted(call(), line=b"POST /mcp?a=b HTTP/1.1"),
            posted(call(), line=b"PUT /mcp HTTP/1.1"),
            posted(call(), line=b"DELETE /mcp HTTP/1.1"),
        ),
        *(
            posted(b"", line=b"DELETE /mcp HTTP/1.1"),
            posted(b"", line=b"GET /page HTTP/1.1"),
            posted(b"x", line=b"POST /page HTTP/1.1"),
        ),
        *(posted(call(), line=b"OPTIONS /mcp HTTP/1.1"), posted(call(), line=b"HEAD /mcp HTTP/1.1")),
        *(
            chunked(call()),
            chunked(ONE),
            b"\r\n" + ONE,
            b"\r\n\r\n" + ONE,
            ONE + b"\r\n",
            b"\r\n\r\n",
            PART,
            ONE + PART,
            PREFLIGHT,
            ONE[:-4],
        ),
        *(b"\x16\x03\x01", ONE.replace(b"\r\n", b"\n"), ONE.replace(b"localhost", b"evil.example")),
    ]
)
steps = (
    st.sampled_from(["reload", "go", "turn", "FIN", "RST"])
    | messages
    | messages
    | messages
    | st.tuples(messages, messages).map(b"".join)
    | damaged(st.just(ONE))
)


@st.composite
def stories(draw: st.DrawFn) -> list[Step]:
    """Steps; bytes of some of them cut into pieces, and pieces with or without a moment between them."""
    said: list[Step] = []
    for step in draw(st.lists(steps, min_size=1, max_size=8)):
        if isinstance(step, bytes) and len(step) > 1 and draw(st.integers(0, 3)) == 0:
            at = sorted(draw(st.sets(st.integers(1, len(step) - 1), max_size=3)))
            said += [step[begin:end] for begin, end in zip([0, *at], [*at, len(step)], strict=True)]
        else:
            said.append(step)
        if draw(st.integers(0, 3)):
            said.append("turn")
    return said


async def told(kind: type[Connection], story: list[Step]) -> list[Standing]:
    """How it stands after each step, and at the end."""
    side = ClientSide(kind)
    seen = []
    for step in story:
        if isinstance(step, bytes):
            side.wire.bring(step)
        elif step == "reload":
            side.reload()
        elif step == "go":
            side.go.set()
        elif step == "FIN":
            side.wire.stop()
        elif step == "RST":
            side.wire.reset()
        else:
            await side.settled()
        seen.append(side.standing)
    await side.close()
    return [*seen, side.standing]


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@given(story=stories())
@example(story=[ONE, "turn", ONE, "turn", ONE, "turn"])
@example(story=[ONE, "turn", ONE, ONE, "turn", ONE, "turn"])
@example(story=[ONE, "turn", LONGER, "turn", "reload", LONGER, "turn", ONE, "turn", OTHER, "turn"])
@example(story=[behind(ONE, b"A: b"), "turn", behind(LONGER, b"A: c"), "turn"])
@example(story=[ONE, "turn", LONGER + PART, "turn", ONE, "turn"])
@example(story=[ONE, "turn", LONGER[:-1], "turn", LONGER[-1:], "turn", LONGER, "turn"])
@example(story=[ONE, "turn", b"POST /other HTTP/1.1\r\nX: ", "turn", ONE, "turn", ONE, "turn"])
@example(story=[chunked(call()), "turn", ONE, "turn", ONE[:30], ONE, "turn"])
@example(story=[LATER, "turn", LATER, "turn", "go", "turn", LATER, "turn"])
@example(story=[LATER, "turn", "FIN", "turn", LATER, "turn"])
@example(story=[ONE, "turn", ONE, "FIN", "turn"])
@example(story=[ONE, "turn", ONE, "RST", "turn"])
@example(story=[ONE, "turn", "reload", ONE, "turn", ONE, "turn"])
@example(story=[ONE, "turn", ONE + PART, "turn", ONE, "turn"])
@example(story=[ONE, "turn", ONE[:-5], "turn", ONE[-5:] + PART, "turn", ONE, "turn"])
@example(story=[ONE, "turn", SPLIT, "turn", b"\n" + LINES + PART[:11], "turn", ONE, "turn"])
@example(story=[posted(call(), *ASKS), PREFLIGHT, "turn", PREFLIGHT, "turn"])
@example(story=[ONE, "turn", ONE, PART, "turn"])
@example(story=[ONE, "turn", ONE, "FIN", ONE])
@FUZZ
def test_any_connection_knows_a_head_as_the_parser_does(loop: Loop, story: list[Step]) -> None:
    """proxy/README.md, "A head that comes again is known": calls, answers and endings are those of the parser."""
    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(told(Counting, story)) == runner.run(told(Asking, story))
