"""HTTP+SSE (2024-11-05): requests go to one endpoint, answers arrive on the other.

In: permits of GET and POST. Out: the stream of a session, and acknowledgements. Keeps the open sessions: which
message endpoint of ours stands for which of the server's, and which calls of it still wait. A session lives as
long as its stream. Source: 2024-11-05 basic/transports, "HTTP with SSE".
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, TypeAlias

from ..model import (
    Broken,
    Call,
    Ear,
    Ending,
    Headers,
    IdKey,
    Kind,
    Listen,
    Permit,
    Reason,
    Refused,
    Reply,
    Stream,
    id_key,
)
from ..protocol.answers import Malformed, Said, read_answers
from ..protocol.headers import media_type
from ..protocol.sse import Event, Splitter, TooLong
from ..protocol.sse import message as as_event
from ..refusals import Form, is_at_http, message
from .cancelling import cancellation
from .forward import Forward, without_length
from .judge import heard_by, messages_of, tell_ear
from .origin import Origin
from .passing import nonsense
from .settings import UpstreamSettings
from .streaming import lost
from .transport import Answer, Lost

MAX_WAITING: Final = 1_024
"""Calls of one session without an answer."""
MAX_ENDPOINT_BYTES: Final = 2_048
MAX_SAID_BYTES: Final = 16_384
"""Of an acknowledgement, or of the page that comes with an HTTP error."""

Recorded: TypeAlias = Callable[[Sequence[Call]], Awaitable[Refused | None]]
"""Waits until it is recorded how these calls were answered. The refusal that is told instead, where it cannot be."""


class Acknowledged(Reply):
    """The 202 of a message whose answer arrives elsewhere: whoever asked to be told hears of that one."""

    __slots__ = ("_awaited",)

    def __init__(self, status: int, headers: Headers, body: bytes | Stream = b"") -> None:
        super().__init__(status, headers, body)
        self._awaited = True

    def done(self, ending: Ending) -> None:
        if not self._awaited or ending is not Ending.COMPLETE:
            super().done(ending)

    def settle(self, ending: Ending) -> None:
        """The answer has passed, or never will."""
        self._awaited = False
        super().done(ending)


class Session:
    """One open stream and what was asked on it."""

    def __init__(self, form: Form, recorded: Recorded | None = None) -> None:
        self.endpoint: str | None = None
        """Path and query at the server; None until its `endpoint` event has come."""
        self.stream: Stream | None = None
        self.ear: Ear | None = None
        """Hears what becomes the caller's; None until the endpoint is known."""
        self._form = form
        self._recorded = recorded
        self._waiting: dict[IdKey, tuple[Call, Acknowledged | None]] = {}
        self._given_up: OrderedDict[IdKey, None] = OrderedDict()
        """Requests that wait no more and may still be answered: cancelled, or lost on their way."""

    def is_awaited(self) -> bool:
        """Whether answers are still to come on the stream."""
        return bool(self._waiting)

    def expect(self, call: Call) -> None:
        """A request is about to be sent. Raises Refused."""
        if call.kind is not Kind.REQUEST or call.id is None:
            return
        key = id_key(call.id)
        if key in self._waiting:
            raise Refused(Reason.MALFORMED, "A request with this id still waits for its answer.", id=call.id)
        if len(self._waiting) >= MAX_WAITING:
            raise Refused(Reason.OVERLOADED, f"More than {MAX_WAITING} requests of this session wait.")
        self._waiting[key] = (call, None)

    def acknowledge(self, call: Call, reply: Acknowledged) -> None:
        """The POST was taken; the answer may have been quicker."""
        key = id_key(call.id) if call.id is not None else None
        if key in self._waiting:
            # A thousand of them may wait, and nobody needs their bodies any more.
            call.journey.forget_payload()
            self._waiting[key] = (call.without_payload(), reply)
        else:
            reply.settle(Ending.COMPLETE)

    def forget(self, call: Call) -> None:
        """The request will have no answer. An answer the client posts has its id from the server's own count,
        and must not be taken for the request of the same number."""
        if call.kind is Kind.REQUEST and call.id is not None:
            self._take(id_key(call.id))

    def give_up(self, call: Call) -> None:
        """Nobody knows whether the request arrived. Its answer, should one come, is not foreign."""
        if call.kind is Kind.REQUEST and call.id is not None:
            self._give_up(id_key(call.id))

    def cancel(self, call: Call) -> None:
        """The client gives a request of its own up; what its server still says to it is not foreign."""
        id = call.params.get("requestId")
        if call.method != "notifications/cancelled" or not isinstance(id, int | str):
            return
        reply = self._give_up(id_key(id))
        if reply is not None:
            reply.settle(Ending.CLIENT_GONE)

    def overdue(self, call: Call, refused: Refused) -> None:
        """The answer did not come in time: its client hears so, and what may still come is not foreign."""
        if call.id is None:
            return
        self.say(refused, call)
        reply = self._give_up(id_key(call.id))
        if reply is not None:
            reply.settle(Ending.UPSTREAM_BROKE)  # what was late is the server's fault

    def _give_up(self, key: IdKey) -> Acknowledged | None:
        if key not in self._waiting:
            return None
        self._given_up[key] = None
        if len(self._given_up) > MAX_WAITING:
            self._given_up.popitem(last=False)
        return self._take(key)

    def _take(self, key: IdKey) -> Acknowledged | None:
        """Nothing waits under this key any more; a stream that is to end may have waited for just that."""
        _, reply = self._waiting.pop(key, (None, None))
        if self.stream is not None:
            self.stream.settled()
        return reply

    async def hear(self, event: Event) -> bytes:
        """Judge one event and settle what it answers. What the client gets of it. Raises Malformed, KeyError for
        a foreign answer, or Refused for what is somebody else's."""
        if event.id and self.ear is not None:
            self.ear.event_id(event.id)
        messages = await messages_of(event)
        if self._recorded is not None and (instead := await self._unrecorded(self._recorded, messages)):
            return instead
        for said in messages:
            self._settle(said)
        return event.raw if self.ear is None else heard_by(self.ear, event)

    async def _unrecorded(self, recorded: Recorded, messages: Sequence[Said]) -> bytes:
        """What the client is told instead of answers that cannot be recorded; nothing where they are."""
        calls = []
        for said in messages:
            key = id_key(said.id) if said.is_answer and isinstance(said.id, int | str) else None
            if key in self._waiting and said.verdict is not None:
                calls.append(self._waiting[key][0])
                calls[-1].journey.answered(said.verdict)
        refused = await recorded(calls) if calls else None
        if refused is None:
            return b""
        for call in calls:
            call.journey.refused(refused)
            reply = self._take(id_key(call.id)) if call.id is not None else None
            if reply is not None:
                reply.settle(Ending.PROXY_FAILED)
        return b"".join(as_event(message(refused, call, self._form)) for call in calls)

    def _settle(self, said: Said) -> None:
        id = said.id if isinstance(said.id, int | str) else None
        if not said.is_answer:
            if self.ear is not None:
                tell_ear(self.ear, said, id)
            return
        if id is None:
            raise KeyError
        key = id_key(id)
        is_given_up = key in self._given_up and key not in self._waiting
        call = None if is_given_up else self._waiting[key][0]
        if self.ear is not None and said.result is not None:
            self.ear.result(call.method if call is not None else None, said.result)
        if call is None:
            del self._given_up[key]
            return
        if said.verdict is not None:
            call.journey.answered(said.verdict, said.code)
        reply = self._take(key)
        if reply is not None:
            reply.settle(Ending.COMPLETE)

    def say(self, refused: Refused, call: Call) -> bool:
        """Our own no, on the stream where the client looks for answers. False when there is no stream."""
        if self.stream is None:
            return False
        self.stream.interject(as_event(message(refused, call, self._form)))
        return True

    def ended(self, ending: Ending) -> None:
        """The stream is over: nobody will hear an answer any more."""
        self.stream = None
        if self.ear is not None:
            self.ear.ended(ending)
        waiting, self._waiting = self._waiting, {}
        for _, reply in waiting.values():
            if reply is not None:
                reply.settle(ending if ending is not Ending.COMPLETE else Ending.UPSTREAM_BROKE)


class TwoEndpoints:
    """Fulfils `Stage` over a `Forward` that knows how to send."""

    def __init__(
        self,
        settings: UpstreamSettings,
        forward: Forward,
        messages_path: str,
        form: Form,
        *,
        listen: Listen | None = None,
        sessions: dict[str, Session] | None = None,
        recorded: Recorded | None = None,
    ) -> None:
        """`listen` hears what becomes the caller's; absent where callers are not told apart. `sessions` are those that
        are open since before a reload. No answer is passed on before `recorded` lets it; None: nobody is asked."""
        self._settings = settings
        self._forward = forward
        self._messages_path = messages_path
        self._form = form
        self._listen = listen
        self._sessions: dict[str, Session] = {} if sessions is None else sessions
        self._recorded = recorded
        self._origin = Origin(settings)

    async def __call__(self, permit: Permit) -> Reply:
        call = permit.call
        return await (self._open(permit) if call.kind is Kind.LISTEN else self._post(call))

    def refuse(self, refused: Refused, call: Call) -> Reply | None:
        """The 202 of a request whose refusal went out on its stream: an HTTP error on this endpoint ends the
        whole session of Python clients. None where HTTP is the place for it, and where it is not certain that
        the session is the caller's: every other refusal comes after that was looked up."""
        if call.kind is not Kind.REQUEST or is_at_http(refused) or refused.reason is Reason.INTERNAL:
            return None
        session = self._sessions.get(call.query)
        return Reply(202, Headers()) if session is not None and session.say(refused, call) else None

    async def cancel(self, permit: Permit) -> None:
        """Tell the server that nobody waits for a call any more. Raises Refused."""
        call = permit.call
        session = self._sessions.get(call.query)
        if session is not None and session.endpoint is not None:
            answer = await self._forward.send(cancellation(call), session.endpoint)
            try:
                await _short_body(call, answer)
            finally:
                answer.close()

    def overdue(self, permit: Permit, refused: Refused) -> None:
        """The answer to a request that was taken did not come in time."""
        session = self._sessions.get(permit.call.query)
        if session is not None:
            session.overdue(permit.call, refused)

    async def _open(self, permit: Permit) -> Reply:
        call = permit.call
        answer = await self._forward.send(call, self._origin.with_query(call.query))
        try:
            self._forward.passing.check(answer)
            if answer.status >= 400:
                # A challenge, for example: there is no session yet that an HTTP error could end.
                return Reply(
                    answer.status, self._forward.passing(answer, call), await _short_body(call, answer)
                )
            kind, _ = media_type(answer.headers.get("content-type"))
            if answer.status != 200 or kind != "text/event-stream":
                raise nonsense(f"Its HTTP status was {answer.status}, and no stream of events came.")
        except BaseException:
            answer.close()
            raise
        session = Session(self._form, self._recorded)
        call.headers.forget_index()
        stream = Stream(self._events(permit, answer.chunks, session), answer.close)
        stream.awaited = session.is_awaited
        session.stream = stream
        reply = Reply(200, without_length(self._forward.passing(answer, call)), stream)
        reply.when_done(lambda ending: self._close(session, ending))
        return reply

    def _close(self, session: Session, ending: Ending) -> None:
        for key in [key for key, each in self._sessions.items() if each is session]:
            del self._sessions[key]
        session.ended(ending)

    async def _events(
        self, permit: Permit, chunks: AsyncIterator[bytes], session: Session
    ) -> AsyncIterator[bytes]:
        call = permit.call
        splitter = Splitter(self._settings.max_event_bytes)
        try:
            async for chunk in chunks:
                for event in splitter.feed(chunk):
                    if event.name == "endpoint":
                        yield self._own_endpoint(permit, session, event)
                    else:
                        yield await session.hear(event)
                if splitter.is_full:
                    raise TooLong
            rest = splitter.rest()
            if rest is not None:
                yield await session.hear(rest)
        except (Malformed, KeyError, TooLong, Refused) as error:
            refused = error if isinstance(error, Refused) else nonsense("An event was not acceptable.")
            call.journey.refused(refused)
            raise Broken(told=False) from None
        except Lost as error:
            call.journey.refused(lost(call))
            raise Broken(told=False) from error

    def _own_endpoint(self, permit: Permit, session: Session, event: Event) -> bytes:
        """The endpoint event under our path. Clients refuse one on another origin, and so do we."""
        if session.endpoint is not None or event.data is None or len(event.data) > MAX_ENDPOINT_BYTES:
            raise nonsense("Its endpoint event was not acceptable.")
        try:
            reference = event.data.decode("ascii").strip()
            endpoint = self._origin.resolve(self._origin.target, reference)
        except ValueError:
            raise nonsense("Its endpoint event was not acceptable.") from None
        if endpoint is None:
            raise nonsense("Its endpoint lies on another origin.")
        session.endpoint = endpoint
        query = endpoint.partition("?")[2]
        # Whoever knows the endpoint speaks in the session, and the server's secret may stand in its path, which
        # is not ours: so ours has one of its own, behind the server's query.
        key = f"{query}{'&' if query else ''}sidecar_session={secrets.token_urlsafe(16)}"
        self._sessions[key] = session
        if self._listen is not None:
            session.ear = self._listen(permit, key)
        permit.call.journey.altered("endpoint")
        newline = b"\r\n" if b"\r\n" in event.raw else b"\n"
        uri = f"{self._messages_path}?{key}".encode("ascii")
        return b"event: endpoint" + newline + b"data: " + uri + newline + newline

    async def _post(self, call: Call) -> Reply:
        session = self._sessions.get(call.query)
        if session is None or session.endpoint is None:
            raise Refused(Reason.SESSION_UNKNOWN, id=call.id)
        session.expect(call)
        try:
            answer = await self._forward.send(call, session.endpoint)
        except Refused as refused:
            never_arrived = refused.reason is Reason.UPSTREAM_UNREACHABLE
            (session.forget if never_arrived else session.give_up)(call)
            raise
        except BaseException:
            # Leaving the POST is not leaving the session: the answer arrives on the other connection.
            session.give_up(call)
            raise
        try:
            return await self._acknowledged(call, session, answer)
        except BaseException:
            session.give_up(call)
            answer.close()
            raise

    async def _acknowledged(self, call: Call, session: Session, answer: Answer) -> Reply:
        body = await _short_body(call, answer)
        self._forward.passing.check(answer)
        _check_acknowledgement(call, body)
        fields = self._forward.passing(answer, call)
        session.cancel(call)
        if call.kind is not Kind.REQUEST or answer.status >= 300:
            # A gateway that lost the acknowledgement says 502: the answer may come all the same.
            (session.give_up if answer.status >= 500 else session.forget)(call)
            return Reply(answer.status, fields, body)
        reply = Acknowledged(answer.status, fields, body)
        session.acknowledge(call, reply)
        return reply


async def _short_body(call: Call, answer: Answer) -> bytes:
    """The body of an answer that says little; its connection is given back. Raises Refused."""
    body = bytearray()
    try:
        async for chunk in answer.chunks:
            body += chunk
            if len(body) > MAX_SAID_BYTES:
                raise nonsense(f"It said more than {MAX_SAID_BYTES} bytes where little is to be said.")
    except Lost as error:
        raise lost(call) from error
    answer.close()
    return bytes(body)


def _check_acknowledgement(call: Call, body: bytes) -> None:
    """Raise Refused where it answers another request; mostly it is empty, or a word like "Accepted"."""
    try:
        said = read_answers(body)
    except Malformed:
        return
    if any(each.is_answer and each.id not in (None, call.id) for each in said):
        raise nonsense("It answered another request.")
