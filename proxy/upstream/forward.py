"""One permitted call to one reply: the last stage, for streamable HTTP.

In: a `Permit`. Out: the server's answer with its own status, fields and bytes, or `Refused`
(upstream_unreachable, outcome_unknown, upstream_broke, upstream_nonsense). Keeps nothing.
What goes out is the body as it was inspected; what comes back is released when it has been judged: a whole body
at once, a stream event by event, a large body as it comes but for its last bytes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

from ..model import (
    Attempt,
    Call,
    Ending,
    Headers,
    Kind,
    Listen,
    Permit,
    Reason,
    Refused,
    Reply,
    Stream,
    Verdict,
)
from ..protocol.answers import HELD_BYTES, Malformed, read_tree
from ..protocol.headers import media_type
from ..refusals import Form
from .cancelling import cancellation
from .carrying import carrying
from .catalog import Catalog
from .credentials import Stops
from .judge import Foreign, Judge
from .origin import Origin
from .outgoing import Outgoing
from .passing import Passing, Places, nonsense
from .progress import tokens_of
from .settings import UpstreamSettings
from .streaming import Streaming, lost
from .transport import Answer, Lost, NoRoom, Transport, Unreached

_LISTEN: Final = Kind.LISTEN
_END: Final = Kind.END
_UTF_8: Final = (None, "utf-8", "utf8")
NO_CONTENT: Final = 204
"""No body follows, whatever its fields say (RFC 9110 section 15.3.5)."""
MAX_REDIRECTS: Final = 3
NO_ROOM_S: Final = 1.0
"""When to come back where we have no descriptors: connections end all the time."""

_SAME_METHOD: Final = frozenset({307, 308})


class Forward:
    """Fulfils `Stage`."""

    def __init__(
        self,
        settings: UpstreamSettings,
        transport: Transport,
        form: Form,
        *,
        origin: Origin | None = None,
        stops: Stops | None = None,
        listen: Listen | None = None,
        catalog: Catalog | None = None,
        injects_meta: bool = False,
    ) -> None:
        """`stops` says which fields of a request end here; by default those that end here whoever calls. `listen`
        hears what becomes the caller's; absent where callers are not told apart. `catalog` is what lists taught
        before. `injects_meta`: what attempts carry is written into their messages, too."""
        self._settings = settings
        self._catalog = catalog or Catalog()
        self._transport = transport
        self._streaming = Streaming(settings, form)
        self._listen = listen
        self._injects_meta = injects_meta
        self.passing = Passing(settings.hide_headers)
        """The fields of an answer that the client gets."""
        self._origin = origin or Origin(settings)
        forwards = settings.forward_client_authorization
        self._outgoing = Outgoing(
            self._origin,
            stops
            or Stops(replaced=(name for name, _ in self._origin.own.fields), forward_authorization=forwards),
            knows_callers=listen is not None,
            forwards=forwards,
        )

    async def __call__(self, permit: Permit) -> Reply:
        call = permit.call
        self._catalog.check(permit.principal, call)
        answer = await self.send(call, self._origin.with_query(call.query))
        try:
            reply = self._judged(permit, answer)
            return reply if isinstance(reply, Reply) else await reply
        except BaseException:
            answer.close()
            raise

    async def cancel(self, permit: Permit) -> None:
        """Tell the server that nobody waits for a call any more. Raises Refused."""
        call = permit.call
        (await self.send(cancellation(call), self._origin.with_query(call.query))).close()

    def retell(self, permit: Permit, text: bytes) -> None:
        """Let whoever listens to answers hear a result (its JSON text) that this caller gets without asking the server
        now. Raises Refused."""
        result = read_tree(text)
        ear = None if self._listen is None else self._listen(permit, None)
        if ear is not None:
            try:
                ear.result(permit.call.method, result)
            finally:
                ear.ended(Ending.COMPLETE)
        self._catalog.heard(permit.principal, permit.call, result)

    async def send(self, call: Call, target: str) -> Answer:
        """The answer to the call's own bytes at `target`, redirects within the origin followed."""
        kind = call.kind
        method = "GET" if kind is _LISTEN else "DELETE" if kind is _END else "POST"
        body = call.body if method == "POST" else None
        attempts = [each.journey.attempted() for each in call.parts] or [call.journey.attempted()]
        carried = attempts[0].carries
        try:
            fields = self._outgoing(call, carried)
            if carried and self._injects_meta and body is not None:
                body = carrying(call, attempts)
            for _ in range(MAX_REDIRECTS):
                answer = await self._transport.send(method, target, fields, body)
                if answer.status not in _SAME_METHOD:
                    break
                answer.close()
                target = self._redirected(target, answer.headers.get("location"))
                call.journey.altered("redirect")
            else:
                raise nonsense(f"It redirected more than {MAX_REDIRECTS} times.")
        except BaseException as error:
            refused = _failed(call, error)
            for each in attempts:
                if isinstance(error, Unreached):
                    each.unreached()
                each.ended(refused)
            if refused is None or refused is error:
                raise
            raise refused from (None if isinstance(error, NoRoom) else error)
        for each in attempts:
            each.answered(answer.status)
        answer.close = partial(_closed, answer.close, attempts)
        return answer

    def _redirected(self, target: str, location: str | None) -> str:
        """Path and query of a redirect within the origin: SDK clients would not follow it for a POST."""
        try:
            within = self._origin.resolve(target, location or "")
        except ValueError:
            raise nonsense("It redirected to what is no URL.") from None
        if not location or within is None:
            raise nonsense("It redirected to another origin.")
        return within

    def _judged(self, permit: Permit, answer: Answer) -> Reply | Awaitable[Reply]:
        """At once where there is nothing to wait for."""
        call = permit.call
        places = self.passing.check(answer)
        pairs = answer.headers.pairs
        kind, charset = media_type(_text(pairs[places.type][1]) if places.type >= 0 else None)
        fields = self.passing.passed(answer, places, call)
        judge = Judge(
            call.parts or (call,),
            any_answer=call.kind is _LISTEN and call.last_event_id is not None,
            heard=self._catalog.pupil(permit.principal, call),
            ear=None if self._listen is None else self._listen(permit, _handed_out(call, answer, places)),
        )
        if kind == "text/event-stream" and not _has_no_body(answer):
            return self._streamed(call, answer, fields, judge)
        if answer.status < 300 and call.wants_answer:
            if kind != "application/json" and kind != "":
                raise nonsense("It was neither JSON nor a stream of events.")
            if charset not in _UTF_8:
                raise nonsense("It was not UTF-8.")
        most = self._settings.max_answer_bytes
        if places.length >= 0:
            length = pairs[places.length][1]
            if length.isdigit() and int(length) > most:
                raise self._too_long()
        body = answer.whole
        if body is None or len(body) > HELD_BYTES or len(body) > most:
            return self._gathered(call, answer, fields, judge)
        return self._whole(call, answer, fields, judge, body)

    async def _gathered(self, call: Call, answer: Answer, fields: Headers, judge: Judge) -> Reply:
        """What is still to come, or large."""
        held = bytearray()
        chunks = aiter(answer.chunks)
        try:
            async for chunk in chunks:
                held += chunk
                if len(held) > self._settings.max_answer_bytes:
                    raise self._too_long()
                if len(held) > HELD_BYTES:
                    rest = self._streaming.watched(
                        call, bytes(held), chunks, judge, checked=answer.status < 300
                    )
                    return Reply(answer.status, fields, Stream(rest, answer.close))
        except Lost as error:
            raise lost(call) from error
        return self._whole(call, answer, fields, judge, bytes(held))

    def _whole(self, call: Call, answer: Answer, fields: Headers, judge: Judge, body: bytes) -> Reply:
        self._check_whole(call, answer.status, body, judge)
        if answer.status >= 500:
            for each in judge.waiting.values():
                each.journey.answered(Verdict.UPSTREAM_ERROR)
        answer.close()
        return Reply(answer.status, fields, body)

    def _too_long(self) -> Refused:
        return nonsense(f"It was longer than {self._settings.max_answer_bytes} bytes.")

    def _check_whole(self, call: Call, status: int, body: bytes, judge: Judge) -> None:
        try:
            judge.whole(body)
        except Malformed:
            # An HTTP error need not be JSON-RPC (Express answers HTML); a success must be.
            if status < 300 and call.wants_answer:
                raise nonsense("It was not JSON-RPC.") from None
            return
        except Foreign as foreign:
            # An HTTP error ends the request whatever its body says, and servers put odd ids there: null where
            # they read none, "server-error" in the Python SDK. A result has no business in one.
            is_error = foreign.said.verdict is Verdict.RPC_ERROR
            if status >= 400 and (is_error or foreign.said.id is None):
                return
            raise nonsense("It answered another request.") from None
        if status >= 300 or not call.wants_answer:
            return
        if judge.waiting or judge.saw_more:
            raise nonsense("It did not answer the request.")
        if not call.parts and body.lstrip()[:1] == b"[":
            raise nonsense("It was an array although one request was sent.")

    def _streamed(self, call: Call, answer: Answer, fields: Headers, judge: Judge) -> Reply:
        # Open for hours: what the look-ups of its head built is not kept beside it.
        call.headers.forget_index()
        judge.tokens = tokens_of(call)
        events = Stream(self._streaming.events(call, answer.chunks, judge), answer.close)
        reply = Reply(answer.status, without_length(fields), events)
        if judge.ear is not None:
            reply.when_done(judge.ear.ended)
        return reply


_NO_ROOM: Final = (
    "There is no room for one more connection to it. Nothing was sent: the call can be repeated, later."
)


def _failed(call: Call, error: BaseException) -> Refused | None:
    """Why an attempt failed; None where the caller left, or we did."""
    if isinstance(error, Unreached):
        return _unreached(error)
    if isinstance(error, Lost):
        return lost(call)
    return error if isinstance(error, Refused) else None


def _unreached(error: Unreached) -> Refused:
    if isinstance(error, NoRoom):
        return Refused(Reason.OVERLOADED, _NO_ROOM, data={"limit": "descriptors"}, retry_after_s=NO_ROOM_S)
    return Refused(Reason.UPSTREAM_UNREACHABLE)


def _closed(close: Callable[[], None], attempts: Sequence[Attempt]) -> None:
    for each in attempts:
        each.ended()
    close()


def _handed_out(call: Call, answer: Answer, places: Places) -> str | None:
    """The session this answer gives the caller. What comes with an error, or with a goodbye, is no gift: Python
    servers put a throw-away id on the 400 of a call without a session."""
    if places.session < 0 or answer.status >= 300 or call.kind is _END:
        return None
    return _text(answer.headers.pairs[places.session][1]) or None


def _text(value: bytes) -> str:
    """As `Headers` reads it."""
    return value.decode("utf-8", "surrogateescape")


def _has_no_body(answer: Answer) -> bool:
    """Whether there is nothing to wait for, whatever type it is of. Behind a 204 nobody can say a last word."""
    is_empty_error = answer.status >= 400 and answer.headers.get("content-length") == "0"
    return is_empty_error or answer.status == NO_CONTENT


def without_length(fields: Headers) -> Headers:
    """For a body we may lengthen: a last word would not fit into a length the server announced."""
    return Headers(pair for pair in fields.pairs if pair[0].lower() != b"content-length")
