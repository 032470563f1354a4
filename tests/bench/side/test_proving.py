"""Nobody counts who does less: refusals are no answers, whatever their status, and rules must be kept. Real sockets."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.bench.arrivals import PASSED, calling
from tests.bench.responder import Responder
from tests.bench.side.calls import Asked, body_of
from tests.bench.side.proving import ask, must_ask_who, must_forward, must_refuse
from tests.bench.side.speaker import Speaker
from tests.bench.side.streamer import EVENTS, Streamer
from tests.bench.side.wrk import Peer, load
from tests.bench.speaking import Speaking
from tests.conformance.processes import ProcessFailed

REFUSAL = '{"jsonrpc":"2.0","id":1,"result":{"content":[],"isError":true}}'
RPC_ERROR = '{"jsonrpc":"2.0","id":1,"error":{"code":429,"message":"no"}}'
RIGHT = body_of(1_024)
needs_wrk = pytest.mark.skipif(
    shutil.which("wrk") is None or shutil.which("taskset") is None, reason="wrk makes the load"
)


def saying(*answers: tuple[int, str]) -> Callable[[], Speaking]:
    """A server that gives these answers in turn, whatever it is asked."""
    number = iter(range(1_000_000_000))

    class Says(Speaking):
        def asked(self, head: bytes, body: bytes) -> None:
            status, said = answers[next(number) % len(answers)]
            self.transport.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(said)}\r\n\r\n{said}".encode())

    return Says


@asynccontextmanager
async def listening(make: Callable[[], Speaking]) -> AsyncIterator[int]:
    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
    try:
        async with asyncio.timeout(20):
            yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.mark.parametrize(("make", "events"), [(Speaker, 0), (Streamer, EVENTS), (saying((200, RIGHT)), 0)])
async def test_what_the_server_said_counts(make: Callable[[], Speaking], events: int) -> None:
    async with listening(make) as port:
        await must_forward(port, Asked(), events)


@pytest.mark.parametrize(
    ("make", "events"),
    [
        (saying((200, REFUSAL)), 0),
        (saying((200, RPC_ERROR)), 0),
        (saying((200, RIGHT.replace("false", "true"))), 0),
        (saying((429, RIGHT)), 0),
        (saying((200, body_of(90))), 0),
        (Speaker, EVENTS),
        (Streamer, EVENTS + 1),
        (Streamer, 0),
        (Responder, 0),
    ],
)
async def test_what_another_said_does_not(make: Callable[[], Speaking], events: int) -> None:
    """Issue "As fast as the best": answers with an error never count as calls."""
    async with listening(make) as port:
        with pytest.raises(ProcessFailed):
            await must_forward(port, Asked(), events)


async def test_a_server_that_leaves_answered_nothing() -> None:
    class Leaves(Speaking):
        def asked(self, head: bytes, body: bytes) -> None:
            self.transport.close()

    async with listening(Leaves) as port:
        with pytest.raises(ProcessFailed):
            await must_forward(port, Asked())


@pytest.mark.parametrize("answer", [(403, ""), (200, REFUSAL)])
async def test_a_forbidden_tool_that_is_refused_is_proof(answer: tuple[int, str]) -> None:
    async with listening(saying(answer)) as port:
        await must_refuse(port, Asked())


@pytest.mark.parametrize("answer", [(200, RIGHT), (401, REFUSAL), (500, REFUSAL), (200, RPC_ERROR)])
async def test_a_caller_who_is_unknown_proves_no_rule(answer: tuple[int, str]) -> None:
    """Issue "As fast as the best": before timing, every peer that claims policy must refuse one denied tool."""
    async with listening(saying(answer)) as port:
        with pytest.raises(ProcessFailed):
            await must_refuse(port, Asked())


async def test_a_caller_without_a_token_is_turned_away() -> None:
    asked = Asked(token="t")
    async with listening(saying((401, ""))) as port:
        await must_ask_who(port, asked)
    async with listening(saying((200, RIGHT))) as port:
        with pytest.raises(ProcessFailed):
            await must_ask_who(port, asked)


@pytest.mark.parametrize(
    "body", ['"initialize","params":{"protocolVersion":"x"}', '"tools/list"', '"tools/call"']
)
async def test_the_server_behind_sessions_answers_with_the_callers_id(body: str) -> None:
    """Peers ask in words of their own: only wrk's are recognised by their beginning."""

    class Asks(Asked, frozen=True):
        @property
        def one(self) -> str:
            return f'{{"id":"mine","jsonrpc":"2.0","method":{body}}}'

    async with listening(Speaker) as port:
        status, said = await ask(port, Asks())
    assert status == 200
    assert b'"id":"mine"' in said
    assert b'"result":{"' in said


async def test_requests_that_come_together_or_in_pieces_are_each_answered() -> None:
    async with listening(Speaker) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        request = Asked().request(port)
        writer.write(request + request[:100])
        first = await reader.readuntil(RIGHT.encode())
        writer.write(request[100:])
        assert await reader.readuntil(RIGHT.encode()) == first
        writer.close()


@needs_wrk
@pytest.mark.parametrize(
    ("answers", "failing"),
    [
        ([(200, RIGHT)], 0.0),
        ([(200, RIGHT), (200, REFUSAL)], 0.5),
        ([(200, RIGHT), (200, RPC_ERROR)], 0.5),
        ([(200, RIGHT), (503, RIGHT)], 0.5),
        ([(200, RIGHT), (302, RIGHT)], 0.5),
    ],
)
async def test_refusals_are_no_calls(answers: list[tuple[int, str]], failing: float, tmp_path: Path) -> None:
    """Issue "As fast as the best": answers with an error or non-200 never count as calls."""
    async with listening(saying(*answers)) as port:
        peer = Peer(port=port, pids=(), says_no_with_200=True)
        outcome = await load(peer, Asked(), connections=2, seconds=1, logs=tmp_path)
    assert outcome.rate > 0
    assert outcome.failed / (outcome.failed + outcome.rate) == pytest.approx(failing, abs=0.1)


@needs_wrk
async def test_a_peer_that_only_refuses_has_no_rate(tmp_path: Path) -> None:
    """Regression: a row said 0 calls a second, and a ratio was left out without a word."""
    async with listening(saying((200, REFUSAL))) as port:
        peer = Peer(port=port, pids=(), says_no_with_200=True)
        with pytest.raises(ProcessFailed, match="no call was answered"):
            await load(peer, Asked(), connections=2, seconds=1, logs=tmp_path)


@pytest.mark.parametrize("is_exact", [True, False])
async def test_calls_at_random_moments_carry_the_token_and_are_all_answered(
    is_exact: bool, tmp_path: Path
) -> None:
    heads: list[bytes] = []

    class Notes(Responder):
        def asked(self, head: bytes, body: bytes) -> None:
            heads.append(head)
            super().asked(head, body)

    async with (
        listening(Notes) as port,
        calling(
            port, per_s=200, seconds=0.3, connections=2, logs=tmp_path, token="t", is_exact=is_exact
        ) as calls,
    ):
        pass
    said = calls.ran().said
    assert said
    assert {each.what for each in said} == {PASSED}
    assert len(heads) == len(said)
    assert all(b"\r\nAuthorization: Bearer t\r\n" in head for head in heads)
