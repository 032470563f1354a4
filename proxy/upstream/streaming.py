"""What comes of an answer that is still arriving? Its bytes, released when they are judged, and a last word where they
stop.

In: chunks of the server's body, and who judges them. Out: what the caller gets of them. Keeps nothing. Raises Broken
behind the last byte that may pass. These are asynchronous generators, so this module stays Python where others are
compiled: Cython complains of one that nobody has started, and clients do leave before the first byte.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from ..model import Broken, Call, Reason, Refused
from ..protocol.answers import Malformed, Tail
from ..protocol.sse import Splitter, TooLong
from ..protocol.sse import message as as_event
from ..refusals import Form, message
from .judge import Foreign, Judge, look
from .passing import nonsense
from .settings import UpstreamSettings
from .transport import Lost


class Streaming:
    """One for all answers."""

    def __init__(self, settings: UpstreamSettings, form: Form) -> None:
        self._settings = settings
        self._form = form

    async def watched(
        self, call: Call, held: bytes, chunks: AsyncIterator[bytes], judge: Judge, *, checked: bool
    ) -> AsyncIterator[bytes]:
        """A body too large to hold, passed on but for its last piece, which comes when the id is known."""
        tail = Tail()
        size = 0
        pending = held
        try:
            while True:
                size += len(pending)
                if size > self._settings.max_answer_bytes:
                    raise Malformed
                if checked:
                    await look(tail, pending)
                chunk = await anext(chunks, None)
                if chunk is None:
                    break
                yield pending
                pending = chunk
            if checked and call.wants_answer:
                for each in tail.ended():
                    judge.see(each)
                if judge.waiting or judge.saw_more:
                    raise Malformed
        except (Malformed, Foreign, Refused):
            call.journey.refused(nonsense("It was too long, not JSON-RPC, or answered another request."))
            raise Broken(told=False) from None
        except Lost as error:
            call.journey.refused(lost(call))
            raise Broken(told=False) from error
        yield pending

    async def events(self, call: Call, chunks: AsyncIterator[bytes], judge: Judge) -> AsyncIterator[bytes]:
        """The server's events as they are, each released when it is whole and ours."""
        splitter = Splitter(self._settings.max_event_bytes)
        trouble: Refused | None = None
        try:
            async for chunk in chunks:
                released: list[bytes] = []
                try:
                    for event in splitter.feed(chunk):
                        if passed := await judge.event_in_turns(event):
                            released.append(passed)
                    if splitter.is_full:
                        raise TooLong
                except (Malformed, Foreign, TooLong, Refused) as error:
                    trouble = _trouble(error)
                if released:
                    yield b"".join(released)
                if trouble is not None:
                    break
            else:
                rest = splitter.rest()
                if rest is not None:
                    last_bytes = await judge.event_in_turns(rest)
                    if not judge.waiting:
                        yield last_bytes  # else it would run into our last word; clients drop it anyway
        except (Malformed, Foreign, Refused) as error:
            trouble = _trouble(error)
        except Lost:
            trouble = lost(call)
        async for last in self._last_word(call, judge, trouble):
            yield last

    async def _last_word(self, call: Call, judge: Judge, trouble: Refused | None) -> AsyncIterator[bytes]:
        """Whoever still waits is told why in vain, unless the client can come back for the answer."""
        for each in judge.waiting.values():
            if trouble is not None:
                each.journey.refused(trouble)
        if trouble is None and not judge.waiting:
            return
        nonsensical = trouble is not None and trouble.reason is Reason.UPSTREAM_NONSENSE
        if judge.saw_event_id and call.revision.is_resumable and not nonsensical:
            if trouble is not None:
                raise Broken(told=False)
            return
        why = trouble or Refused(
            Reason.UPSTREAM_BROKE if not _may_have_run(call) else Reason.OUTCOME_UNKNOWN,
            "The stream ended without an answer.",
        )
        if not judge.waiting:
            # Whoever has its answer has lost nothing.
            if trouble is not None and (nonsensical or not call.wants_answer):
                call.journey.refused(why)
            raise Broken(told=False)
        for each in judge.waiting.values():
            each.journey.refused(why)
            yield as_event(message(why, each, self._form))
        raise Broken(told=True)


_TROUBLE: Final[dict[type[Exception], str]] = {
    Malformed: "An event was not JSON-RPC.",
    Foreign: "It answered another request.",
    TooLong: "An event was too long.",
}


def _trouble(error: Exception) -> Refused:
    return error if isinstance(error, Refused) else nonsense(_TROUBLE[type(error)])


def lost(call: Call) -> Refused:
    """The connection broke after bytes were sent: a call with side effects may have happened."""
    return Refused(Reason.OUTCOME_UNKNOWN if _may_have_run(call) else Reason.UPSTREAM_BROKE)


def _may_have_run(call: Call) -> bool:
    return any(each.method == "tools/call" for each in (call.parts or (call,)))
