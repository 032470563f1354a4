"""Is this answer ours? A machine that knows which requests of an exchange still wait.

In: what the server said. Out: nothing, or `Foreign`. Tells each call's journey what its answer was. No IO and no
clock; all it ever awaits is that other calls have their turn while something large is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import structs

from ..model import Call, Ear, Ending, IdKey, Kind, Reason, Refused, RequestId, id_key
from ..protocol.answers import HELD_BYTES, Malformed, Said, Tail, read_answers
from ..protocol.batch import join_array, split_array
from ..protocol.sse import Event, with_data
from .progress import DROPPED, Token, is_foreign

SLICE_BYTES: Final = 16_384
"""Of a large answer looked at before other calls have their turn: 10 ms at the worst, of brackets alone."""

_REQUEST: Final = Kind.REQUEST
_BLANK_LINE: Final = b"\n"


async def look(tail: Tail, piece: bytes) -> None:
    """Feed `tail` in slices. Raises Malformed."""
    for at in range(0, len(piece), SLICE_BYTES):
        if at:
            await asyncio.sleep(0)
        tail.feed(piece[at : at + SLICE_BYTES])


def speaks(data: bytes) -> bool:
    """Whether the data of an event is JSON-RPC's business: a priming event or a ping is none."""
    return data.lstrip(b" \t\r\n")[:1] in (b"{", b"[")


def _read(data: bytes | None) -> list[Said]:
    return [] if data is None or not speaks(data) else read_answers(data)


async def messages_of(event: Event) -> list[Said]:
    """The messages of one event; other calls have their turns while a large one is read. Raises Malformed."""
    data = event.data
    if data is None or len(data) <= HELD_BYTES or not speaks(data):
        return _read(data)
    tail = Tail()
    await look(tail, data)
    return tail.ended()


def heard_by(ear: Ear, event: Event) -> bytes:
    """What the client gets of an event whose messages `ear` has heard. Raises Refused."""
    if event.data is None:
        return event.raw
    data = ear.passed_on(event.data)
    return event.raw if data is event.data else with_data(event, data)


def tell_ear(ear: Ear, said: Said, id: RequestId | None) -> None:
    """A request of the server, or a notification. Raises Refused."""
    if id is not None:
        ear.request(id, said.method, said.params)
    elif said.id is None:
        ear.notification(said.method, said.params)


def _without(event: Event, said: Sequence[Said], ours: Sequence[Said]) -> Event:
    """The event with `ours` of the messages of its array. Raises Refused where it is too large to be taken apart."""
    assert event.data is not None
    if len(event.data) > HELD_BYTES:
        raise Refused(Reason.UPSTREAM_NONSENSE, "Among many messages it told of another request.")
    kept = {id(each) for each in ours}
    texts = zip(split_array(event.data), said, strict=True)
    data = join_array(text for text, each in texts if id(each) in kept)
    return structs.replace(event, raw=with_data(event, data), data=data)


class Foreign(Exception):
    """An answer to a request that this exchange did not carry, or a second one to the same."""

    def __init__(self, said: Said) -> None:
        super().__init__()
        self.said = said


class Judge:
    """`waiting` are the requests that have no answer yet, by id and its type: 1 and "1" are two ids."""

    def __init__(
        self,
        calls: Sequence[Call],
        *,
        any_answer: bool = False,
        tokens: frozenset[Token] | None = None,
        heard: Callable[[Call, object], None] | None = None,
        ear: Ear | None = None,
    ) -> None:
        self._calls = calls
        self._heard = heard
        """Learns from results that are ours."""
        self.ear = ear
        """Hears what becomes the caller's; may refuse what is somebody else's."""
        self.waiting: dict[IdKey, Call] = {}
        for call in calls:
            if call.kind is _REQUEST and call.id is not None:
                self.waiting[id_key(call.id)] = call
        self._any_answer = any_answer
        """A resumed stream brings answers to requests that other connections carried."""
        self.tokens = tokens
        """Whose progress may pass on the stream; None: anybody's."""
        self._has_dropped = False
        self._is_at_start = True
        self.saw_more = False
        """The server has said something that is no answer."""
        self.saw_event_id = False
        """The client can come back for the rest, where the revision is resumable."""

    def whole(self, body: bytes) -> list[Said]:
        """Judge a whole JSON body. Raises Malformed, Foreign or Refused."""
        said = read_answers(body)
        for each in said:
            self.see(each)
        return said

    def event(self, event: Event) -> list[Said]:
        """Judge one event, whatever its name: a client might not look at it. Raises Malformed, Foreign or
        Refused."""
        said = _read(event.data)
        self._hear(event, said)
        return said

    async def event_in_turns(self, event: Event) -> bytes:
        """The same, and other calls have their turns while a large one is read. What the client gets of it: nothing
        where it is about another's request."""
        waiting = None if self.ear is None else self.waiting.copy()
        is_first, self._is_at_start = self._is_at_start, False
        data = event.data
        said = _read(data) if data is None or len(data) <= HELD_BYTES else await messages_of(event)
        tokens = self.tokens
        if tokens is not None:
            ours = [each for each in said if each.is_answer or not is_foreign(each, tokens)]
            if len(ours) < len(said):
                self._tell_dropped()
                if not ours:
                    # With its id: the client does not see that, and cannot come back to it. Nothing may become the
                    # start of the stream that was not: there a mark of order would be none.
                    return _BLANK_LINE if is_first else b""
                event, said = _without(event, said, ours), ours
        self._hear(event, said)
        if self.ear is None or waiting is None:
            return event.raw
        try:
            return heard_by(self.ear, event)
        except Refused:
            # It goes nowhere, so whoever waited for it still does, and can be told.
            self.waiting = waiting
            raise

    def _hear(self, event: Event, said: Sequence[Said]) -> None:
        if event.id:
            self.saw_event_id = True
            if self.ear is not None:
                self.ear.event_id(event.id)
        for each in said:
            self.see(each)

    def _tell_dropped(self) -> None:
        if not self._has_dropped:
            self._has_dropped = True  # once: a server could fill the record with the same word
            for call in self._calls:
                call.journey.altered(DROPPED)

    def see(self, said: Said) -> None:
        """Judge one message. Raises Foreign, or Refused when it is somebody else's."""
        id = said.id if isinstance(said.id, int | str) else None
        if not said.is_answer:
            self.saw_more = True
            if self.ear is not None:
                tell_ear(self.ear, said, id)
            return
        key = None if id is None else id_key(id)
        call = None if key is None else self.waiting.get(key)
        if call is None and not self._any_answer:
            raise Foreign(said)
        if self.ear is not None and said.result is not None:
            self.ear.result(call.method if call is not None else None, said.result)
        if call is None or key is None:
            return
        del self.waiting[key]
        if said.verdict is not None:
            call.journey.answered(said.verdict, said.code)
        if self._heard is not None and said.result is not None:
            self._heard(call, said.result)
        if len(self._calls) > 1:
            # One of several ends with its own answer, wherever the exchange goes from here.
            call.journey.ended(Ending.COMPLETE)


__all__ = ["Foreign", "Judge", "Malformed", "heard_by", "look", "messages_of", "tell_ear"]
