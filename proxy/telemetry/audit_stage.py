"""Nothing happens before it is written down: a stage that waits for the disk.

In: a `Permit`. Out: the `Reply` of the next stage, when what became of its calls is on the disk; of a stream, the piece
that carries an answer waits. `Refused` (audit_unavailable) where the intent cannot be written: nothing was sent;
(outcome_unknown) where the result cannot: the answer is withheld. Keeps nothing.

It stands behind places and before attempts, so that it is asked once for each call that will be sent. A refusal that
comes back from there is passed on at once: an intent without a result already says that nobody knows.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, Protocol, TypeAlias

from ..model import (
    Broken,
    Call,
    Deadline,
    Ending,
    Kind,
    Outcome,
    Permit,
    Reason,
    Refused,
    Reply,
    Stage,
    Stream,
)
from ..protocol.headers import media_type
from ..protocol.sse import message as as_event
from ..refusals import Form, message
from .audit_log import Open

Asked: TypeAlias = Sequence[tuple[Call, Open]]

LATE: Final = "Its time was over before it could be recorded. Nothing was sent to the server."


class Records(Protocol):
    """Where calls are recorded."""

    @property
    def timeout_s(self) -> float: ...
    def asked(self, call: Call) -> Open | None: ...
    async def intent(self, opened: Sequence[Open], timeout_s: float) -> None: ...
    async def result(self, calls: Asked, timeout_s: float) -> Refused | None: ...


class Witnessed:
    """Fulfils `Stage`."""

    def __init__(
        self,
        serve: Stage,
        records: Records,
        *,
        deadline: Deadline,
        form: Form,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`form` is that of our own last word on a stream."""
        self._serve = serve
        self._records = records
        self._deadline = deadline
        self._form = form
        self._now = now

    async def __call__(self, permit: Permit) -> Reply:
        call = permit.call
        asked = [
            (each, opened)
            for each in call.parts or (call,)
            if (opened := self._records.asked(each)) is not None
        ]
        if not asked:
            return await self._serve(permit)
        left_s = self._left_s(permit)
        if left_s <= 0:
            raise Refused(Reason.OVERLOADED, LATE)
        await self._records.intent([opened for _, opened in asked], left_s)
        reply = await self._serve(permit)
        if isinstance(reply.body, Stream):
            self._witness(reply, reply.body, asked)
        elif not _is_answered_elsewhere(call, reply):
            await self._recorded(permit, reply, asked)
        return reply

    def _left_s(self, permit: Permit) -> float:
        return min(self._records.timeout_s, self._deadline(permit) - self._now())

    async def _recorded(self, permit: Permit, reply: Reply, asked: Asked) -> None:
        """Raises Refused; then nobody gets the reply."""
        try:
            refused = await self._records.result(asked, max(0.0, self._left_s(permit)))
        except BaseException as error:
            reply.done(Ending.of(error))
            raise
        if refused is not None:
            reply.done(Ending.PROXY_FAILED)
            raise refused

    def _witness(self, reply: Reply, body: Stream, asked: Asked) -> None:
        speaks = media_type(reply.headers.get("content-type"))[0] == "text/event-stream"
        # It may last for hours, and what the calls carried is not needed for that.
        kept = [(each.without_payload(), opened) for each, opened in asked]
        released = _Released(aiter(body), self._records, kept, self._form if speaks else None, body.close)
        reply.body = Stream(released, body.close)


def _is_answered_elsewhere(call: Call, reply: Reply) -> bool:
    """Its answer comes on another connection, where it waits for its record."""
    return call.revision.answers_elsewhere and call.kind is Kind.REQUEST and reply.status < 300


class _Released:
    """Pieces of a stream, each when the answers in it are recorded."""

    __slots__ = ("_asked", "_close", "_end", "_form", "_records", "_released", "_source")

    def __init__(
        self,
        source: AsyncIterator[bytes],
        records: Records,
        asked: Asked,
        form: Form | None,
        close: Callable[[], None],
    ) -> None:
        """`form` is None where the stream is no stream of events: nothing can be said on it."""
        self._source = source
        self._records = records
        self._asked = asked
        self._form = form
        self._close = close
        self._end: Exception | None = None
        self._released: set[str] = set()
        """The request ids of those whose answer was passed on."""

    def __aiter__(self) -> _Released:
        return self

    async def __anext__(self) -> bytes:
        if self._end is not None:
            raise self._end
        piece = await anext(self._source)
        # Also those that were answered before: by an attempt that was repeated, and now by another one.
        answered = [each for each in self._asked if _is_answered(*each)]
        refused = await self._records.result(answered, self._records.timeout_s) if answered else None
        if refused is None:
            self._released.update(call.journey.request_id for call, _ in answered)
            return piece
        return self._last_word(refused)

    def _last_word(self, refused: Refused) -> bytes:
        """What is told instead of answers that must not be, to whoever has none."""
        waiting = [call for call, _ in self._asked if call.journey.request_id not in self._released]
        for call in waiting:
            call.journey.refused(refused)
        self._close()
        form = self._form
        if form is None:
            raise Broken(told=False)
        self._end = Broken(told=True)
        return b"".join(as_event(message(refused, call, form)) for call in waiting if call.wants_answer)


def _is_answered(call: Call, opened: Open) -> bool:
    """Whether its answer is in what was read: the judge tells its journey before the piece is passed on."""
    return opened.said is not None or call.journey.outcome_at_server is Outcome.ANSWERED
