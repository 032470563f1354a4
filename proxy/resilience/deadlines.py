"""When is a call over? One deadline for all its attempts, and patience with streams.

In: a `Permit`. Out: a moment (`Deadlines`, pure); the `Reply` of the next stage, or `Refused` (deadline, or
outcome_unknown where the call may have happened) when it does not come in time (`Timed`, a stage). Keeps the goodbyes
that are on their way to the server, bounded. Source: MCP for intermediaries, section on timeouts.

What is timed, and from when:

    an answer until it is here      from when the call was received; queues and attempts included
    an answer in events             its head likewise. Then each silence is; and where a rule says how long its tool may
                                    take, also the time until the server has said something: servers of older revisions
                                    answer in events, and no rule would hold for them. A message is a sign of progress
    streams that listen             each silence, also before their head; then they end properly, and are opened again
    the stream of HTTP+SSE          nothing: it is the session, and ending it would end what its client has begun
    an answer on such a stream      until it is here, as said above

A caller's wish for less time is heard until the head of an answer is here. What has begun is not cut off for it: that
would look like a server that breaks off.

Only the time is counted in which we wait for the server: how long a client takes to read is no fault of the server's.
"""

from __future__ import annotations

import asyncio
import functools
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from math import inf
from typing import Final, TypeAlias

from msgspec import structs

from ..alarm import Alarm
from ..model import (
    OWN_WISH,
    TIMEOUT_HEADER,
    TIMEOUT_META_KEY,
    Broken,
    Call,
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
from .signals import may_have_run

TELL_S: Final = 5.0
"""How long it may take to tell the server that a call is over."""
MAX_TELLING: Final = 64
"""Calls that it is being told about at once. A server that takes that many and answers none has no ear for it."""

CALL: Final = "resilience.timeout_s"
SILENCE: Final = "resilience.stream_idle_timeout_s"
LONGEST: Final = "resilience.stream_max_s"
ENDED: Final = "ended in silence"
"""What the journey of a stream that listened is told."""

_LONGER_THAN_ANY: Final = 1e12
_MILLISECONDS: Final = re.compile(r"[0-9]{1,12}", re.ASCII)
_SAYS: Final = re.compile(rb"(?:^|[\r\n]|\xef\xbb\xbf)data:[ ]?[^\r\n]")
"""An event that says something: a comment does not, nor does one that only has an id."""

Cancel: TypeAlias = Callable[[Permit], Awaitable[None]]
"""Tells the server that the one request of this permit is over: `notifications/cancelled` with its id."""
Overdue: TypeAlias = Callable[[Permit, Refused], None]
"""Says a refusal on the stream where the answer to a request would have come, waits for that no more, and ends its
reply. Must not raise."""


class Deadlines:
    """Fulfils `Deadline` of the capacity room: when a call is over whatever happens."""

    def __init__(self, *, timeout_s: float, client_may_shorten: bool = True) -> None:
        self._timeout_s = timeout_s
        self._client_may_shorten = client_may_shorten

    def __call__(self, permit: Permit) -> float:
        """Seconds, monotonic; infinite where there is no end."""
        allowed_s, wished_s = self.both_s(permit)
        return permit.call.received + (wished_s if wished_s < allowed_s else allowed_s)

    def allowed_s(self, permit: Permit) -> float:
        """How long it may take, whatever its caller wishes."""
        return self.both_s(permit)[0]

    def both_s(self, permit: Permit) -> tuple[float, float]:
        """How long it may take: what its rule says goes before what is usual. And what its caller asked for; infinite
        where it asked for nothing that can be understood."""
        call = permit.call
        if call.is_open_ended:
            return inf, inf
        allowed_s = permit.rule.timeout_s
        if allowed_s is None:
            # It answers when the task is done, however long that takes.
            allowed_s = inf if call.method == "tasks/result" else self._timeout_s
        return allowed_s, self._wished_s(call) if self._client_may_shorten else inf

    @staticmethod
    def _wished_s(call: Call) -> float:
        wished_ms = inf
        meta = call.params.get("_meta")
        if isinstance(meta, dict) and TIMEOUT_META_KEY in meta:
            wished_ms = _milliseconds(meta[TIMEOUT_META_KEY])
        if TIMEOUT_HEADER in call.headers:
            wished_ms = min(wished_ms, *map(_spelt, call.headers.all(TIMEOUT_HEADER)))
        return wished_ms / 1000


def _milliseconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return inf
    # A whole number may have more digits than a float can hold.
    return float(value) if 0 <= value < _LONGER_THAN_ANY else inf


def _spelt(value: str) -> float:
    text = value.strip(" \t")
    return int(text) if _MILLISECONDS.fullmatch(text) else inf


_UNANSWERED: Final = "It was not answered within {:g} s."
_UNSENT: Final = (
    "Its {:g} s were over before its turn came. Nothing was sent to the server: the call can be repeated."
)


class Timed:
    """Fulfils `Stage`. Used inside one running loop."""

    def __init__(
        self,
        serve: Stage,
        deadlines: Deadlines,
        *,
        stream_idle_timeout_s: float,
        stream_max_s: float | None,
        form: Form,
        cancel: Cancel | None = None,
        overdue: Overdue | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`form` is that of our own last word on a stream. `cancel` is for revisions where leaving does not cancel,
        `overdue` for the one where answers arrive elsewhere. `now` is monotonic, in seconds."""
        self._serve = serve
        self._deadlines = deadlines
        self._idle_s = stream_idle_timeout_s
        self._max_s = inf if stream_max_s is None else stream_max_s
        self._form = form
        self._cancel = cancel
        self._overdue = overdue
        self._now = now
        self._telling: set[asyncio.Task[None]] = set()
        self.timed_out: Counter[str] = Counter()
        """How many calls and streams were ended, by the setting that ended them."""
        self.untold = 0
        """Calls of which the server could not be told that they are over."""

    async def __call__(self, permit: Permit) -> Reply:
        call = permit.call
        left_s = self._deadlines(permit) - self._now()
        if left_s == inf and call.is_open_ended:
            left_s = self._idle_s
        if left_s <= 0:
            raise self._late(permit)
        alarm = Alarm(left_s)
        try:
            reply = await self._serve(permit)
        except asyncio.CancelledError:
            if not alarm.off():
                raise
            refused = self._late(permit)
            if call.was_sent:
                self._tell_server(permit, call.parts or (call,))
            raise refused from None
        finally:
            alarm.off()
        if isinstance(reply.body, Stream):
            self._watch(permit, reply, reply.body)
        elif call.revision.answers_elsewhere and call.kind is Kind.REQUEST and self._overdue is not None:
            self._expect(permit, reply, self._overdue)
        return reply

    @property
    def telling(self) -> int:
        """Calls of which the server is being told that they are over."""
        return len(self._telling)

    async def close(self) -> None:
        """Tell nobody any more."""
        tasks = list(self._telling)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _late(self, permit: Permit) -> Refused:
        """The refusal of a call that has no answer."""
        call = permit.call
        if call.is_open_ended:
            return self._refused(SILENCE, f"Nothing came for {self._idle_s:g} s.", is_unknown=False)
        limit, seconds = self._limit(permit)
        if call.was_sent:
            is_unknown = may_have_run(call, permit.rule)
            return self._refused(limit, _UNANSWERED.format(seconds), is_unknown=is_unknown)
        self.timed_out[limit] += 1
        # It waited here, and the server had no part in it.
        reason = Reason.DEADLINE if limit == OWN_WISH else Reason.OVERLOADED
        return Refused(reason, _UNSENT.format(seconds), data={"limit": limit})

    def _limit(self, permit: Permit) -> tuple[str, float]:
        """Which setting says how long a call may take, and how long that is."""
        allowed_s, wished_s = self._deadlines.both_s(permit)
        return (OWN_WISH, wished_s) if wished_s < allowed_s else (CALL, allowed_s)

    def _refused(self, limit: str, words: str, *, is_unknown: bool) -> Refused:
        self.timed_out[limit] += 1
        # Whatever is not known, it is known that this took too long.
        reason = Reason.OUTCOME_UNKNOWN if is_unknown else Reason.DEADLINE
        return Refused(reason, words, status=504, data={"limit": limit})

    def _watch(self, permit: Permit, reply: Reply, body: Stream) -> None:
        """Have patience with a stream, but not without end."""
        call = permit.call
        if call.kind is Kind.LISTEN and call.revision.answers_elsewhere:
            return
        now = self._now()
        is_events = media_type(reply.headers.get("content-type"))[0] == "text/event-stream"
        left_s = call.received + self._deadlines.allowed_s(permit) - now
        if is_events and permit.rule.timeout_s is None:
            left_s = inf
        # An attempt before this one may have been answered, with an error after which it was repeated.
        before = [part for part in call.parts or (call,) if _is_answered(part)]
        patient = _Patient(
            aiter(body),
            idle_s=self._idle_s,
            left_s=left_s,
            until=inf if call.is_open_ended else now + self._max_s,
            speaks_up=is_events,
            give_up=functools.partial(self._give_up, permit, body.close, is_events, before),
            now=self._now,
        )
        reply.body = Stream(patient, body.close)

    def _give_up(
        self, permit: Permit, close: Callable[[], None], is_events: bool, before: Sequence[Call], limit: str
    ) -> tuple[bytes, Exception]:
        """The last word of a stream that took too long, and how it ends."""
        call = permit.call
        close()
        if call.is_open_ended and is_events:
            self.timed_out[limit] += 1
            call.journey.altered(ENDED)
            call.journey.ended(Ending.COMPLETE)  # our doing, not the server's failure
            return b"", StopAsyncIteration()
        waiting = [
            part
            for part in call.parts or (call,)
            if part.kind is Kind.REQUEST and (part in before or not _is_answered(part))
        ]
        if is_events and not waiting:
            self.timed_out[limit] += 1
            return b"", StopAsyncIteration()
        is_unknown = may_have_run(call, permit.rule)
        refused = self._refused(limit, self._words(permit, limit), is_unknown=is_unknown)
        for part in waiting:
            part.journey.refused(refused)
        self._tell_server(permit, waiting)
        if not is_events:
            return b"", Broken(told=False)
        return b"".join(as_event(message(refused, part, self._form)) for part in waiting), Broken(told=True)

    def _words(self, permit: Permit, limit: str) -> str:
        if limit == SILENCE:
            return f"It had begun to answer, and then nothing came for {self._idle_s:g} s."
        if limit == LONGEST:
            return f"It took longer than the {self._max_s:g} s that a stream may last."
        return f"It had begun to answer, and was not done within {self._deadlines.allowed_s(permit):g} s."

    def _expect(self, permit: Permit, reply: Reply, overdue: Overdue) -> None:
        """The answer arrives elsewhere, or its deadline does. What its caller wished for does not count any more: how
        that reply ends is told to whoever counts failures, and a caller in a hurry can cancel."""
        call = permit.call
        seconds = self._deadlines.allowed_s(permit)
        left_s = call.received + seconds - self._now()
        if left_s == inf:
            return
        is_unknown, is_told = may_have_run(call, permit.rule), _is_cancelled_by_a_word(call)
        # A thousand of them may wait, and what they said is needed no more.
        permit = structs.replace(permit, call=structs.replace(call, params={}, body=b""))

        def is_over() -> None:
            refused = self._refused(CALL, _UNANSWERED.format(seconds), is_unknown=is_unknown)
            permit.call.journey.refused(refused)
            overdue(permit, refused)
            self._tell_server(permit, (permit.call,) if is_told else ())

        timer = asyncio.get_running_loop().call_later(left_s, is_over)
        reply.when_done(lambda _: timer.cancel())

    def _tell_server(self, permit: Permit, calls: Sequence[Call]) -> None:
        """Nobody waits for these any more; where leaving is not cancelling, the server has to be told."""
        if self._cancel is None:
            return
        for call in filter(_is_cancelled_by_a_word, calls):
            if len(self._telling) >= MAX_TELLING:
                self.untold += 1
                continue
            told = permit if call is permit.call else structs.replace(permit, call=call)
            task = asyncio.get_running_loop().create_task(self._tell(self._cancel, told))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def _tell(self, cancel: Cancel, permit: Permit) -> None:
        try:
            async with asyncio.timeout(TELL_S):
                await cancel(permit)
        except Exception:  # nobody waits for it, and the call was refused long ago
            self.untold += 1


def _is_answered(call: Call) -> bool:
    return call.journey.outcome_at_server is Outcome.ANSWERED


def _is_cancelled_by_a_word(call: Call) -> bool:
    """Whether the server is told when nobody waits for it any more: never of `initialize`, and a task is not cancelled
    by the id of the request that began it."""
    is_open = call.kind is Kind.REQUEST and not call.revision.disconnect_cancels
    return is_open and call.method != "initialize" and "task" not in call.params


class _Patient:
    """Chunks as they come, none of them too late. A class, because an open stream holds it: a generator costs twice as
    much."""

    __slots__ = ("_end", "_give_up", "_idle_s", "_left_s", "_now", "_source", "_speaks_up", "_until")

    def __init__(
        self,
        source: AsyncIterator[bytes],
        *,
        idle_s: float,
        left_s: float,
        until: float,
        speaks_up: bool,
        give_up: Callable[[str], tuple[bytes, Exception]],
        now: Callable[[], float],
    ) -> None:
        """Each chunk has `idle_s`, and what is waited for all of them `left_s`, where it `speaks_up` until one says
        something. `until` is a moment. `give_up` is told which of these it was; what it returns ends the stream."""
        self._source = source
        self._idle_s = idle_s
        self._left_s = left_s
        self._until = until
        self._speaks_up = speaks_up
        self._give_up = give_up
        self._now = now
        self._end: Exception | None = None

    def __aiter__(self) -> _Patient:
        return self

    async def __anext__(self) -> bytes:
        if self._end is not None:
            raise self._end
        began = self._now()
        left_s, limit = min(
            (self._idle_s, SILENCE), (self._left_s, CALL), (self._until - began, LONGEST), key=_seconds
        )
        if left_s <= 0:
            return self._last_word(limit)
        alarm = Alarm(left_s)
        try:
            chunk = await anext(self._source)
        except asyncio.CancelledError:
            if not alarm.off():
                raise
            return self._last_word(limit)
        finally:
            alarm.off()
        if self._left_s != inf:
            self._left_s -= self._now() - began
            if self._speaks_up and _SAYS.search(chunk):
                self._left_s = inf
        return chunk

    def _last_word(self, limit: str) -> bytes:
        word, self._end = self._give_up(limit)
        if not word:
            raise self._end
        return word


def _seconds(patience: tuple[float, str]) -> float:
    return patience[0]
