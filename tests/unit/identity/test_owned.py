"""The stage before upstream: sessions end, and lists lose what is somebody else's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from proxy.identity.exchange import FILTERED
from proxy.identity.owned import Owned
from proxy.identity.ownership import Ownership
from proxy.model import (
    Call,
    Ending,
    Headers,
    Kind,
    Permit,
    Principal,
    Reason,
    Refused,
    Reply,
    Revision,
    Stream,
)
from proxy.protocol.revisions import REGISTER, TWO_ENDPOINTS
from proxy.protocol.revisions.r2025_11_25 import R2025_11_25 as LEGACY
from proxy.protocol.revisions.r2026_07_28 import R2026_07_28 as MODERN
from tests.fakes import RULE, Diary, FakeJourney, FakeStage, make_batch, make_call, make_headers

ANN = Principal(issuer="iss", subject="ann", tenant="acme")
BOB = Principal(issuer="iss", subject="bob", tenant="acme")
JSON = make_headers(content_type="application/json", content_length="999", x_kept="1")


def permit(call: Call, who: Principal = ANN) -> Permit:
    return Permit(call=call, principal=who, rule=RULE)


def owning() -> Ownership:
    owns = Ownership()
    owns.listen(permit(make_call()), "s").result("tools/call", {"task": {"taskId": "mine"}})
    return owns


async def served(owns: Ownership, call: Call, reply: Reply | BaseException) -> Reply:
    return await Owned(FakeStage([], reply), owns)(permit(call))


async def asked(stage: Owned, call: Call) -> Reply:
    return await stage(permit(call))


def is_known(owns: Ownership) -> bool:
    try:
        owns.check(make_call(session="s"), ANN)
    except Refused:
        return False
    return True


POST = (Kind.REQUEST, "tools/call", 1)
NOTE = (Kind.NOTIFICATION, "notifications/x", None)
ANSWER = (Kind.ANSWER, "", 1)
GET = (Kind.LISTEN, "", None)
DELETE = (Kind.END, "", None)


@pytest.mark.parametrize(
    ("said", "revision", "status", "is_over"),
    [
        (DELETE, LEGACY, 200, True),
        (DELETE, LEGACY, 202, True),
        (DELETE, LEGACY, 204, True),
        (DELETE, LEGACY, 404, True),
        (DELETE, LEGACY, 405, False),
        (DELETE, LEGACY, 500, False),
        (POST, LEGACY, 404, True),
        (NOTE, LEGACY, 404, True),
        (ANSWER, LEGACY, 404, True),
        (POST, LEGACY, 200, False),
        (POST, LEGACY, 400, False),
        (POST, LEGACY, 410, False),
        (GET, LEGACY, 404, False),  # servers without streams say so, although they SHOULD say 405
        (GET, LEGACY, 200, False),
        (POST, MODERN, 404, False),  # an unknown method
        (POST, TWO_ENDPOINTS, 404, False),
    ],
)
async def test_when_a_session_is_over(
    said: tuple[Kind, str, int | None], revision: Revision, status: int, is_over: bool
) -> None:
    """basic/transports, "Session Management": DELETE, and 404 to a request that named the session."""
    kind, method, id = said
    owns = owning()
    call = make_call(kind=kind, method=method, id=id, revision=revision, session="s")
    reply = Reply(status, Headers())
    assert await served(owns, call, reply) is reply
    assert is_known(owns) != is_over


async def test_a_404_to_a_call_without_a_session_ends_none() -> None:
    owns = owning()
    await served(owns, make_call(revision=LEGACY), Reply(404, Headers()))
    assert is_known(owns)


async def test_what_never_arrived_ends_nothing() -> None:
    """Whoever could not say goodbye is still there."""
    owns = owning()
    call = make_call(kind=Kind.END, method="", id=None, revision=LEGACY, session="s")
    with pytest.raises(Refused):
        await served(owns, call, Refused(Reason.UPSTREAM_UNREACHABLE))
    assert is_known(owns)


def a_list(diary: Diary | None = None, revision: Revision = LEGACY) -> Call:
    return make_call(method="tasks/list", revision=revision, journey=FakeJourney(diary))


LISTED = b'{"id":1,"result":{"tasks":[{"taskId":"theirs"},{"taskId":"mine"}],"nextCursor":"c"}}'
LEFT = b'{"id":1,"result":{"tasks":[{"taskId":"mine"}],"nextCursor":"c"}}'


@pytest.mark.parametrize("status", [200, 202, 404, 500])
@pytest.mark.parametrize("revision", REGISTER)
async def test_a_list_loses_the_tasks_of_others(revision: Revision, status: int) -> None:
    """The server cannot tell our callers apart. Whatever status it puts on a list, a client may read it."""
    diary: Diary = []
    reply = await served(owning(), a_list(diary, revision), Reply(status, JSON, LISTED))
    assert (reply.status, reply.body) == (status, LEFT)
    assert reply.headers.pairs == ((b"content-type", b"application/json"), (b"x-kept", b"1"))
    assert diary == [("j1", "altered", FILTERED)]


@pytest.mark.parametrize(
    "body", [LEFT, b'{"id":1,"error":{"code":-32601,"message":"no tasks"}}', b"", b"Accepted", b"<html>"]
)
async def test_anything_else_stays_as_it_is(body: bytes) -> None:
    """Promise 1; errors and acknowledgements may be text for people."""
    diary: Diary = []
    reply = await served(owning(), a_list(diary), Reply(200, JSON, body))
    assert (reply.body, reply.headers, diary) == (body, JSON, [])


async def test_the_list_of_a_tool_is_none_of_ours() -> None:
    reply = await served(owning(), make_call(), Reply(200, JSON, LISTED))
    assert reply.body == LISTED


async def test_a_list_in_a_batch_is_looked_at_too() -> None:
    batch = make_batch(make_call(method="tasks/list", id=1), make_call(id=2))
    other = b'{"id":2,"result":{"tasks":[1]}}'
    reply = await served(owning(), batch, Reply(200, JSON, b"[" + other + b", " + LISTED + b"]"))
    assert reply.body == b"[" + other + b"," + LEFT + b"]"


async def nothing() -> AsyncIterator[bytes]:
    for chunk in (LISTED, LISTED):
        yield chunk


@pytest.mark.parametrize(
    "body",
    [
        b'{"id":1,"result":{"items":[]}}',
        b'{"id":1,"result":{"tasks":{}}}',
        b'{"id":1,"id":1,"result":{"tasks":[]}}',
        None,
    ],
)
async def test_a_list_that_is_not_understood_goes_nowhere(body: bytes | None) -> None:
    """Own promise: rather an outage than a leak; one that is streamed is too large to be read. The reply is done."""
    endings: list[Ending] = []
    closed: list[str] = []
    reply = Reply(200, JSON, body if body is not None else Stream(nothing(), lambda: closed.append("closed")))
    reply.when_done(endings.append)
    with pytest.raises(Refused) as refused:
        await served(owning(), a_list(), reply)
    assert refused.value.reason is Reason.UPSTREAM_NONSENSE
    assert endings == [Ending.UPSTREAM_BROKE]
    assert closed == ([] if body is not None else ["closed"])


async def test_events_were_looked_at_when_they_were_heard() -> None:
    """Each event passes the ear of its exchange; here only its stream passes."""
    stream = Stream(nothing(), lambda: None)
    reply = Reply(200, make_headers(content_type="text/event-stream; charset=utf-8"), stream)
    assert (await served(owning(), a_list(), reply)).body is stream


async def test_calls_that_race_with_the_end_of_their_session() -> None:
    """Attack corpus SES-027: each is answered as the server answers it, and then the session is unknown."""
    for ends_first in (True, False):
        owns = owning()
        may_end, may_answer = asyncio.Event(), asyncio.Event()

        async def end(may: asyncio.Event = may_end) -> Reply:
            await may.wait()
            return Reply(200, Headers())

        async def pay(may: asyncio.Event = may_answer, owns: Ownership = owns) -> Reply:
            await may.wait()
            # What the server's answer is heard to say, the id of the session repeated.
            owns.listen(permit(make_call(session="s")), "s")
            return Reply(200, Headers(), b"paid")

        goodbye = make_call(kind=Kind.END, method="", id=None, revision=LEGACY, session="s")
        async with asyncio.TaskGroup() as both:
            ending = both.create_task(asked(Owned(FakeStage([], end), owns), goodbye))
            paying = both.create_task(asked(Owned(FakeStage([], pay), owns), make_call(session="s")))
            first, then = (may_end, may_answer) if ends_first else (may_answer, may_end)
            first.set()
            await (ending if ends_first else paying)
            then.set()
        assert (paying.result().body, ending.result().status) == (b"paid", 200)
        assert not is_known(owns)
