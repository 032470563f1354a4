"""Who may speak on the stream of a session: our own no does only when it is known whose session it is."""

from collections.abc import AsyncIterator, Sequence
from urllib.parse import urlsplit

import pytest

from proxy.model import Call, Ending, Headers, Kind, Permit, Reason, Refused, Reply, Stream
from proxy.protocol.revisions import TWO_ENDPOINTS
from proxy.refusals import ROWS, is_at_http
from proxy.upstream.forward import Forward
from proxy.upstream.http_sse import TwoEndpoints
from proxy.upstream.settings import UpstreamSettings
from proxy.upstream.transport import Answer
from tests.fakes import PRINCIPAL, RULE, Diary, FakeEar, make_call, make_headers

SETTINGS = UpstreamSettings(url="http://127.0.0.1:1/sse")


class OneStream:
    """Fulfils `Transport`: every request opens a stream that says what it was given."""

    def __init__(self, *chunks: bytes) -> None:
        self._chunks = chunks

    async def send(
        self, method: str, target: str, headers: Sequence[tuple[bytes, bytes]], body: bytes | None
    ) -> Answer:
        async def said() -> AsyncIterator[bytes]:
            for chunk in self._chunks:
                yield chunk

        fields = make_headers(content_type="text/event-stream")
        return Answer(status=200, headers=fields, chunks=said(), close=lambda: None)

    async def close(self) -> None: ...


ENDPOINT = b"event: endpoint\ndata: /messages?s=1\n\n"


async def opened(diary: Diary, *chunks: bytes) -> tuple[TwoEndpoints, Reply, str, list[bytes]]:
    """A session whose server has said its endpoint and more: its reply, our query, and what the client got."""
    transport = OneStream(ENDPOINT, *chunks)

    def listen(permit: Permit, handed_out: str | None) -> FakeEar:
        diary.append(("listens", permit.principal, handed_out))
        return FakeEar(diary)

    two = TwoEndpoints(SETTINGS, Forward(SETTINGS, transport, "result"), "/messages", "result", listen=listen)
    call = make_call(kind=Kind.LISTEN, method="", id=None, revision=TWO_ENDPOINTS)
    reply = await two(Permit(call=call, principal=PRINCIPAL, rule=RULE))
    assert isinstance(reply.body, Stream)
    got = [chunk async for chunk in reply.body]
    query = urlsplit(got[0].split(b"data: ")[1].split(b"\n")[0].decode()).query
    return two, reply, query, got


def to(query: str) -> Call:
    return make_call(revision=TWO_ENDPOINTS, query=query)


@pytest.mark.parametrize("reason", ROWS)
async def test_our_no_is_said_where_it_is_certain_whose_session_it_is(reason: Reason) -> None:
    """What is refused before ownership was looked up, or by a failure of ours at that very moment, is answered
    over HTTP: on the stream it would tell its owner of somebody else's call."""
    two, reply, query, _ = await opened([])
    speaks = not is_at_http(Refused(reason)) and reason is not Reason.INTERNAL
    refusal = two.refuse(Refused(reason), to(query))
    assert (refusal is not None) == speaks
    assert two.refuse(Refused(reason), to("another")) is None
    reply.done(Ending.COMPLETE)


async def test_an_ear_hears_a_session_from_its_endpoint_to_its_end() -> None:
    """design section 4, identity: events, questions and results of the session, as on streamable HTTP."""
    diary: Diary = []
    said = (b'id: 7\ndata: {"id":0,"method":"ping"}\n\n', b'data: {"method":"notifications/x"}\n\n')
    _, reply, query, got = await opened(diary, *said)
    assert got[1:] == list(said)
    reply.done(Ending.CLIENT_GONE)
    assert diary == [
        ("listens", PRINCIPAL, query),
        ("event id", b"7"),
        ("request", 0),
        ("notification", "notifications/x", None),
        ("ear", Ending.CLIENT_GONE),
    ]


async def test_without_an_ear_nothing_is_told() -> None:
    """A room that is off costs nothing."""
    two = TwoEndpoints(SETTINGS, Forward(SETTINGS, OneStream(ENDPOINT), "result"), "/messages", "result")
    call = make_call(kind=Kind.LISTEN, method="", id=None, revision=TWO_ENDPOINTS)
    reply = await two(Permit(call=call, principal=PRINCIPAL, rule=RULE))
    assert isinstance(reply.body, Stream)
    assert len([chunk async for chunk in reply.body]) == 1
    assert reply.headers == Headers([(b"content-type", b"text/event-stream")])
    reply.done(Ending.COMPLETE)
