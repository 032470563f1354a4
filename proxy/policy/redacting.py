"""Which redaction holds for which message of the server? A stage before upstream, and an ear for its streams.

In: a `Permit`, and what the server says to it. Out: the same with what must not leave masked, or our own answer in
its place. Keeps, while an HTTP+SSE stream is open, which redaction its unanswered requests have.

Whole bodies are the stage's, events the ear's. What belongs to no request that is known, as on a stream somebody came
back to, is held to all redactions there are. Bodies that would pass piece by piece (above 256 KiB) are held here up to
`MAX_SEARCHED_BYTES`, and withheld beyond it; where a redaction only counts, they pass unsearched.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from msgspec import structs

from ..model import (
    Broken,
    Call,
    Ear,
    Ending,
    FirstHeld,
    Headers,
    IdKey,
    Kind,
    Permit,
    Principal,
    Reason,
    Refused,
    Reply,
    RequestId,
    Stage,
    Stream,
    id_key,
)
from ..protocol.answers import Malformed, read_tree
from ..protocol.batch import join_array, split_array
from ..protocol.headers import media_type
from ..refusals import Form, message
from .redaction import MAX_SEARCHED_BYTES, UNSEARCHED, Blocked, Redaction, Tell, withheld

Find: TypeAlias = Callable[[Call, Principal], Redaction | None]
"""The redaction of the rule that decides a call; None where it has none."""

REDACTED: Final = "redacted"
"""What a journey is told."""
MAX_UNANSWERED: Final = 2_048
"""Requests of one HTTP+SSE session whose redaction is remembered; those before are held to all."""

_Asked: TypeAlias = tuple[Call, Redaction | None]
_Table: TypeAlias = OrderedDict[IdKey, _Asked]


class Redactions:
    """All that is redacted, for one server."""

    def __init__(self, find: Find, every: Redaction, tell: Tell, *, form: Form) -> None:
        """`every` is `Redaction.joined` of all that `find` may return."""
        self._find = find
        self.every = every
        self.tell = tell
        self.form = form
        self._open: dict[str, _Table] = {}

    def find(self, call: Call, principal: Principal) -> Redaction | None:
        """What holds for the answer to `call`. A task's result is that of a tool nobody names here."""
        return self.every if call.method.startswith("tasks/") else self._find(call, principal)

    def guarded(self, next: Stage) -> Stage:
        return _Guarded(next, self)

    def listen(self, permit: Permit, key: str | None) -> Ear | None:
        """Fulfils `Listen`."""
        call = permit.call
        asked: _Table = OrderedDict()
        if call.kind is Kind.LISTEN:
            if not call.revision.answers_elsewhere or key is None:
                return _Listener(self, call, self.every, asked)
            self._open[key] = asked
            return _Listener(self, call, self.every, asked, ended=lambda: self._close(key, asked))
        several = [(each, self.find(each, permit.principal)) for each in call.parts or (call,)]
        wanted = [redaction for _, redaction in several if redaction is not None]
        if not wanted:
            return None
        if len(several) == 1:
            return _Listener(self, call, wanted[0], asked)
        asked.update((id_key(each.id), (each, it)) for each, it in several if each.id is not None)
        return _Listener(self, call, self.every, asked)

    def _close(self, key: str, asked: _Table) -> None:
        if self._open.get(key) is asked:
            del self._open[key]

    def expect(self, permit: Permit) -> Callable[[], None]:
        """The answer to an HTTP+SSE request will come elsewhere. What is returned takes that back."""
        call = permit.call
        asked = self._open.get(call.query) if call.kind is Kind.REQUEST else None
        key = None if call.id is None else id_key(call.id)
        if asked is None or key is None or key in asked:
            return _nothing  # a second one of the same id is refused upstream
        asked[key] = (call.without_payload(), self.find(call, permit.principal))
        while len(asked) > MAX_UNANSWERED:
            asked.popitem(last=False)
        return lambda: _forget(asked, key)


def _nothing() -> None:
    return None


def _forget(asked: _Table, key: IdKey) -> None:
    asked.pop(key, None)


class _Guarded:
    """Fulfils `Stage`."""

    def __init__(self, next: Stage, redactions: Redactions) -> None:
        self._next = next
        self._redactions = redactions

    def __call__(self, permit: Permit) -> Awaitable[Reply]:
        call = permit.call
        if call.revision.answers_elsewhere and call.kind is not Kind.LISTEN:
            return self._expected(permit)
        several = [(each, self._redactions.find(each, permit.principal)) for each in call.parts or (call,)]
        is_redacted = any(redaction is not None for _, redaction in several)
        return self._redacted(permit, several) if is_redacted else self._next(permit)

    async def _expected(self, permit: Permit) -> Reply:
        take_back = self._redactions.expect(permit)
        try:
            return await self._next(permit)
        except Refused as refused:
            if refused.reason is Reason.UPSTREAM_UNREACHABLE:
                take_back()
            raise

    async def _redacted(self, permit: Permit, several: list[_Asked]) -> Reply:
        reply = await self._next(permit)
        if not _is_stream_of_events(reply):
            try:
                await self._redact(permit.call, several, reply)
            except BaseException as error:
                reply.done(Ending.of(error))
                raise
        return reply

    async def _redact(self, call: Call, several: list[_Asked], reply: Reply) -> None:
        may_change = any(it is not None and it.may_change for _, it in several)
        if isinstance(reply.body, Stream) and not await self._held(call, reply, reply.body, may_change):
            return
        body = reply.body
        if isinstance(body, Stream) or not body:
            return
        if body.lstrip()[:1] == b"[" and call.parts:
            changed = self._batch(body, several)
        elif call.parts:
            changed = self._one(call, self._redactions.every, body)
        else:
            changed = self._one(call, several[0][1], body)
        if changed is not body:
            reply.body = changed
            reply.headers = Headers(
                each for each in reply.headers.pairs if each[0].lower() != b"content-length"
            )

    async def _held(self, call: Call, reply: Reply, stream: Stream, may_change: bool) -> bool:
        """Whether the whole body is there now. Raises Refused where it is too long to be searched."""
        held: list[bytes] = []
        size = 0
        chunks = aiter(stream)
        try:
            async for chunk in chunks:
                held.append(chunk)
                size += len(chunk)
                if size > MAX_SEARCHED_BYTES:
                    break
        except Broken:
            # Its journey was told why; nothing of it has left.
            may_have_run = any(each.method == "tools/call" for each in call.parts or (call,))
            raise Refused(Reason.OUTCOME_UNKNOWN if may_have_run else Reason.UPSTREAM_BROKE) from None
        if size <= MAX_SEARCHED_BYTES:
            stream.close()
            reply.body = b"".join(held)
            return True
        self._redactions.tell(UNSEARCHED, "block" if may_change else "log", 1)
        if may_change:
            raise withheld()
        reply.body = Stream(FirstHeld(held, chunks), stream.close)
        return False

    def _one(self, call: Call, redaction: Redaction | None, body: bytes) -> bytes:
        out = body if redaction is None else redaction.apply(body)
        if isinstance(out, Blocked):
            raise withheld()
        if out is not body:
            call.journey.altered(REDACTED)
        return out

    def _batch(self, body: bytes, several: list[_Asked]) -> bytes:
        if not self._redactions.every.finds(body) and len(body) <= MAX_SEARCHED_BYTES:
            return body
        asked = {id_key(call.id): (call, it) for call, it in several if call.id is not None}
        unknown = several[0][0], self._redactions.every
        texts = split_array(body)
        out: list[bytes] = []
        for text in texts:
            id = _answered(_read(text))
            call, redaction = unknown if id is None else asked.get(id_key(id), unknown)
            try:
                out.append(self._one(call, redaction, text))
            except Refused as refused:
                call.journey.refused(refused)
                if id is not None:
                    out.append(message(refused, call, self._redactions.form))
        return body if out == texts else join_array(out)


class _Listener:
    """Fulfils `Ear`: one exchange, or one stream of several."""

    __slots__ = ("_asked", "_call", "_ended", "_otherwise", "_redactions")

    def __init__(
        self,
        redactions: Redactions,
        call: Call,
        otherwise: Redaction,
        asked: _Table,
        *,
        ended: Callable[[], None] = _nothing,
    ) -> None:
        """`asked`: whose answers are told apart here; `otherwise` holds for all that is none of them."""
        self._redactions = redactions
        self._call = call
        self._otherwise = otherwise
        self._asked = asked
        self._ended = ended

    def event_id(self, id: bytes) -> None:
        pass

    def request(self, id: RequestId, method: str, params: object) -> None:
        pass

    def notification(self, method: str, params: object) -> None:
        """Holds no result."""

    def result(self, method: str | None, result: object) -> None:
        pass

    def ended(self, ending: Ending) -> None:
        self._ended()

    def passed_on(self, data: bytes) -> bytes:
        value = _read(data) if self._asked or data.lstrip()[:1] == b"[" else None
        if not isinstance(value, list):
            return self._message(data, value)
        texts = split_array(data)
        passing = [self._message(text, each) for text, each in zip(texts, value, strict=True)]
        return data if passing == texts else join_array(passing)

    def _message(self, text: bytes, value: object) -> bytes:
        """What may pass of one message; `value` is None where it was not read yet. Raises Refused."""
        id = _answered(value)
        asked = None if id is None else self._asked.pop(id_key(id), None)
        call, redaction = asked or (self._call, self._otherwise)
        out = text if redaction is None else redaction.apply(text)
        if isinstance(out, Blocked) and redaction is not None:
            return self._instead(call, redaction, text)
        if isinstance(out, Blocked):
            raise withheld()
        if out is not text:
            call.journey.altered(REDACTED)
        return out

    def _instead(self, call: Call, redaction: Redaction, text: bytes) -> bytes:
        """What takes the place of a message that must not leave. Only answers can be refused: somebody waits for the
        answer to a request of the server, and nobody is told that a notification is missing. Those are masked."""
        refused = withheld()
        id = _answered(_read(text))
        if id is not None:
            call.journey.refused(refused)
            # On a stream somebody came back to, it answers a call of another connection.
            return message(
                refused, call if call.id == id else structs.replace(call, id=id), self._redactions.form
            )
        out = redaction.apply(text, blocks=False)
        if isinstance(out, Blocked):
            raise refused
        call.journey.altered(REDACTED)
        return out


def _read(text: bytes) -> object:
    try:
        return read_tree(text)
    except Malformed:
        return None


def _answered(value: object) -> RequestId | None:
    """The id of the request that a message answers; None where it is no answer to one."""
    if not isinstance(value, dict) or "method" in value:
        return None
    id = value.get("id")
    return id if isinstance(id, int | str) and not isinstance(id, bool) else None


def _is_stream_of_events(reply: Reply) -> bool:
    kind, _ = media_type(reply.headers.get("content-type"))
    return kind == "text/event-stream"
