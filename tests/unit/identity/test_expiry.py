"""A stream ends with the credential it was opened with; whole answers and streams of others do not care."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator

import pytest

from proxy.identity.expiry import Expiring
from proxy.model import Call, Ending, Headers, Kind, Permit, Principal, Reply, Revision, Stream
from proxy.protocol.revisions import NEWEST, TWO_ENDPOINTS, UNNAMED
from tests.fakes import RULE, FakeJourney, make_call


def permit(valid_until: float, call: Call) -> Permit:
    principal = Principal(issuer="i", subject="s", tenant="t", valid_until=valid_until)
    return Permit(call=call, principal=principal, rule=RULE)


class Source:
    """A stream that goes on until it is closed."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self.stream = Stream(self._chunks(), self.closed.set)

    async def _chunks(self) -> AsyncIterator[bytes]:
        yield b": begun\n\n"
        await self.closed.wait()

    async def serve(self, permit: Permit) -> Reply:
        return Reply(200, Headers(), self.stream)


async def test_a_listening_stream_ends_when_the_credential_has_ended() -> None:
    """Corpus SES-021; not the server's failure, so it is COMPLETE."""
    source, journey = Source(), FakeJourney()
    call = make_call(kind=Kind.LISTEN, method="", id=None, journey=journey)
    now = asyncio.get_running_loop().time()
    reply = await Expiring(source.serve, 0.01)(permit(now + 0.01, call))
    async with asyncio.timeout(5), reply:
        assert isinstance(reply.body, Stream)
        assert [chunk async for chunk in reply.body] == [b": begun\n\n"]
    assert reply.body.is_ending
    assert journey.diary == [
        ("j1", "altered", "ended with its credential"),
        ("j1", "ended", Ending.COMPLETE),
    ]


async def test_a_stream_of_a_lasting_proof_has_no_timer() -> None:
    """API keys without expiry, anonymous callers: nothing to wait for, nothing to pay."""
    source = Source()
    reply = await Expiring(source.serve, 0.0)(permit(math.inf, make_call()))
    await asyncio.sleep(0)
    assert not source.closed.is_set()
    reply.done(Ending.COMPLETE)


async def test_the_timer_goes_with_the_reply() -> None:
    """A stream that ended before must not be spoken to afterwards."""
    source, journey = Source(), FakeJourney()
    now = asyncio.get_running_loop().time()
    reply = await Expiring(source.serve, 0.0)(permit(now + 0.01, make_call(journey=journey)))
    reply.done(Ending.CLIENT_GONE)
    later = asyncio.Event()
    asyncio.get_running_loop().call_at(now + 0.02, later.set)
    async with asyncio.timeout(5):
        await later.wait()
    assert journey.diary == []


@pytest.mark.parametrize(
    ("revision", "opened_in", "proven_in", "is_kept"),
    [
        (UNNAMED, "s", "s", True),
        (UNNAMED, "s", "another", False),
        (UNNAMED, None, None, False),
        (NEWEST, None, None, False),
        (TWO_ENDPOINTS, None, None, True),
    ],
)
async def test_whoever_proves_itself_anew_keeps_the_streams_of_its_session(
    revision: Revision, opened_in: str | None, proven_in: str | None, is_kept: bool
) -> None:
    """A renewed token is the same caller; a session of HTTP+SSE lives as long as its stream. A thief's own stream
    must not live on because its victim is at work."""
    source, other = Source(), Source()
    sources = iter((source, other))

    async def serve(permit: Permit) -> Reply:
        return await next(sources).serve(permit)

    expiring = Expiring(serve, 0.0)
    now = asyncio.get_running_loop().time()
    listening = make_call(kind=Kind.LISTEN, method="", id=None, revision=revision, session=opened_in)
    reply = await expiring(permit(now + 0.01, listening))
    again = await expiring(permit(now + 0.03, make_call(revision=revision, session=proven_in)))
    again.done(Ending.COMPLETE)
    later = asyncio.Event()
    asyncio.get_running_loop().call_at(now + 0.02, later.set)
    async with asyncio.timeout(5):
        await later.wait()
        assert source.closed.is_set() is not is_kept
        await source.closed.wait()
    reply.done(Ending.COMPLETE)
    assert expiring._callers == {}


async def test_a_whole_answer_is_left_alone() -> None:
    """It is over before anything can expire."""

    async def serve(permit: Permit) -> Reply:
        return Reply(200, Headers(), b"{}")

    reply = await Expiring(serve, 0.0)(permit(0.0, make_call()))
    assert reply.body == b"{}"
