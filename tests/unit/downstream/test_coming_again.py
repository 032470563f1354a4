"""When is the parser not asked? Only for a whole message whose head has come before, between two messages."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from proxy.downstream.connection import MAX_REMEMBERED_BYTES
from tests.unit.downstream.client_side import (
    LATER,
    ONE,
    OTHER,
    PART,
    ClientSide,
    Counting,
    behind,
    chunked,
    posted,
)

HEAD, BODY = ONE.split(b"\r\n\r\n")
HEAD += b"\r\n\r\n"
LONG = posted(BODY, b"A: " + b"a" * MAX_REMEMBERED_BYTES)
LONGER = posted(BODY + b" " * 1_000)
LARGE = posted(BODY[:-2] + b" " * 70_000 + b"}}")


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop])
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[ClientSide], Awaitable[None]]], None]:
    def run_it(story: Callable[[ClientSide], Awaitable[None]]) -> None:
        async def told() -> None:
            side = ClientSide(Counting)
            await story(side)
            await side.close()

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(told())

    return run_it


Run = Callable[[Callable[[ClientSide], Awaitable[None]]], None]


@pytest.mark.parametrize(
    ("pieces", "unasked"),
    [
        ([ONE, ONE], [0, 1]),
        ([ONE, ONE, OTHER, ONE], [0, 1, 2, 3]),  # another id of the same length: the head is the same
        ([LARGE, LARGE], [0, 1]),
        ([HEAD, BODY, ONE], [0, 0, 1]),
        ([HEAD, BODY[:9], BODY[9:], ONE], [0, 0, 0, 1]),
        ([HEAD[:9], HEAD[9:] + BODY, ONE, ONE], [0, 0, 0, 0]),
        ([HEAD[:9], HEAD[9:], BODY, ONE, ONE], [0, 0, 0, 0, 1]),
        ([ONE, ONE[:-1], ONE[-1:], ONE], [0, 0, 0, 1]),
        ([ONE, posted(BODY, b"X: 1"), ONE, ONE], [0, 0, 0, 1]),
        # Another length, more digits and fewer of them; not the length of what has come, nor what is no plain number,
        # nor more than strangers may send before they are asked who they are.
        ([ONE, posted(BODY + b" "), ONE, LONGER, ONE], [0, 1, 2, 3, 4]),
        ([posted(BODY, b"A: b"), posted(BODY + b" ", b"A: b"), posted(BODY, b"A: b")], [0, 1, 2]),
        ([ONE, posted(BODY + b" ", length=len(BODY)), ONE], [0, 0, 0]),
        ([ONE, posted(BODY, length=len(BODY) + 1), b" ", ONE, LONGER], [0, 0, 0, 1, 2]),
        ([ONE, ONE.replace(b": %d" % len(BODY), b": 0%d" % len(BODY)), ONE], [0, 0, 0]),
        ([ONE, ONE.replace(b": %d" % len(BODY), b": +%d" % len(BODY)), ONE], [0, 0, 0]),
        ([ONE, ONE.replace(b": %d" % len(BODY), b": %d " % len(BODY)), ONE, ONE], [0, 0, 1, 2]),
        ([ONE, posted(BODY + b" ").replace(b"Content-Length", b"content-length"), ONE, ONE], [0, 0, 0, 1]),
        (
            [behind(ONE, b"A: b"), behind(LONGER, b"A: b"), behind(ONE, b"A: c"), behind(LONGER, b"A: c")],
            [0, 1, 1, 2],
        ),
        ([ONE, behind(ONE, b"A: b"), behind(ONE, b"Transfer-Encoding: chunked")], [0, 0, 0]),
        ([ONE, LARGE, LARGE, ONE, LONGER, LARGE], [0, 0, 1, 2, 3, 3]),
        ([ONE, posted(b"", line=b"DELETE /mcp HTTP/1.1"), ONE, ONE], [0, 0, 0, 1]),
        ([LONG, LONG], [0, 0]),
        ([ONE, ONE + b"\r\n", ONE], [0, 0, 0]),
        ([ONE, ONE + ONE, ONE], [0, 0, 0]),
        ([chunked(BODY), ONE, ONE], [0, 0, 0]),
        ([ONE, PART, ONE], [0, 0, 0]),
        ([b"\r\n" + ONE, ONE, ONE], [0, 0, 0]),
    ],
)
def test_the_parser_is_not_asked_twice(run: Run, pieces: list[bytes], unasked: list[int]) -> None:
    """proxy/README.md, "A head that comes again is known". What is asked without need is slow, not wrong."""

    async def story(side: ClientSide) -> None:
        counted = []
        for piece in pieces:
            await side.asked(piece)
            assert isinstance(side.connection, Counting)
            counted.append(side.connection.unasked)
        assert counted == unasked

    run(story)


def test_another_listener_judges_a_head_anew(run: Run) -> None:
    """Reload: what was let in by the settings of before is not let in by these."""

    async def story(side: ClientSide) -> None:
        await side.asked(ONE)
        known = side.connection.judged
        side.reload()
        assert (await side.asked(ONE)).startswith(b"HTTP/1.1 200 ")
        judged = side.connection.judged
        assert judged is not known
        assert (await side.asked(ONE)).startswith(b"HTTP/1.1 200 ")
        assert isinstance(side.connection, Counting)
        assert (side.connection.unasked, side.connection.judged) == (2, judged)

    run(story)


def test_a_request_under_way_is_seen(run: Run) -> None:
    """Drain closes who is idle, and only those."""

    async def story(side: ClientSide) -> None:
        side.go.set()
        await side.asked(LATER)
        side.go.clear()
        await side.asked(LATER)
        assert isinstance(side.connection, Counting)
        assert (side.connection.unasked, side.connection.is_idle) == (1, False)
        side.door.close_idle()
        assert side.wire.ending == ""
        side.go.set()
        await side.settled()
        assert side.connection.is_idle
        assert side.wire.written.count(b"HTTP/1.1 200 ") == 2

    run(story)


def test_who_leaves_cancels(run: Run) -> None:
    """Style guide 4: a client that leaves is noticed, whoever read its request."""

    async def story(side: ClientSide) -> None:
        side.go.set()
        await side.asked(LATER)
        side.go.clear()
        await side.asked(LATER)
        side.wire.reset()
        await side.settled()
        assert [entry[:2] for entry in side.diary if entry[0] == "answered"] == [("answered", 1)]
        assert ("j1", "ended") in [entry[:2] for entry in side.diary[-1:]]

    run(story)
