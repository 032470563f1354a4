"""Whose is it? Sessions, tasks, events and questions belong to the identity that the server first gave them to.

In: calls with who makes them, and what the server hands out. Out: nothing, or `Refused`, the same for what is
somebody else's, what has ended and what never was. Keeps what was handed out, by identity and not by credential, so
that a renewed token finds it again; bounded. Pure: no clock, no IO.
Source: basic/security_best_practices ("Session Hijacking"), basic/transports ("Session Management", "Resumability
and Redelivery") and basic/utilities/tasks of 2025-11-25; the tasks extension of 2026-07-28.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, TypeAlias

from ..model import Call, Identity, Kind, Permit, Principal, Reason, Refused, RequestId
from ..protocol.jsonrpc import INVALID_REQUEST
from ..shelf import Shelf
from .digests import Digester, Digests
from .exchange import Exchange

SESSIONS_EACH: Final = 1_000
MAX_SESSIONS: Final = 100_000
TASKS_EACH: Final = 10_000
MAX_TASKS: Final = 100_000
TRACE_BYTES_EACH: Final = 4_194_304
MAX_TRACE_BYTES: Final = 67_108_864

OPEN_EVENTS: Final = 2_048
"""Of an open stream: the last ones, because clients come back with the last one that reached them."""
LEFT_EVENTS: Final = 256
"""Of a stream that has ended."""
PAST_EVENTS: Final = 4_096
"""Of all ended streams of a session."""
QUESTIONS: Final = 1_024
"""Requests of the server in a session, answered ones too: clients post an answer again when a connection broke."""

_ANSWER: Final = Kind.ANSWER

Key: TypeAlias = str | bytes
Place: TypeAlias = Key | Identity
"""A session or message endpoint; or the identity itself, for what it received outside of any."""

_SHORT: Final = 128
"""Characters up to which an id stands for itself; a longer one is kept as its digest."""


class _Session:
    """What must be found when a session is used or ends."""

    __slots__ = ("streams", "tasks")

    def __init__(self) -> None:
        # Most sessions have neither: empty sets would be half of what a session costs.
        self.streams: dict[Exchange, Digests] | None = None
        """Open streams that have event ids."""
        self.tasks: set[Key] | None = None


class _Trace:
    """What streams left behind."""

    __slots__ = ("events", "questions")

    def __init__(self) -> None:
        self.events = Digests(PAST_EVENTS)
        self.questions = Digests(QUESTIONS)

    @staticmethod
    def weigh(trace: _Trace) -> int:
        return 512 + trace.events.size_bytes + trace.questions.size_bytes


class Ownership:
    """What upstream handed out to whom."""

    def __init__(self, *, trace_bytes_each: int = TRACE_BYTES_EACH) -> None:
        self._digester = Digester()
        self._sessions: Shelf[Place, _Session] = Shelf(
            share=SESSIONS_EACH, total=MAX_SESSIONS, dropped=self._session_dropped
        )
        self._traces: Shelf[Place, _Trace] = Shelf(
            share=trace_bytes_each, total=MAX_TRACE_BYTES, weigh=_Trace.weigh
        )
        self._tasks: Shelf[Key, Place] = Shelf(share=TASKS_EACH, total=MAX_TASKS, dropped=self._task_dropped)

    # What a caller claims.

    def check(self, call: Call, principal: Principal) -> None:
        """Whatever the call names must be its caller's. Raises Refused: session_unknown, task_unknown, or
        malformed for an answer nobody asked for."""
        identity = principal.identity
        place: Place = identity
        if call.session is not None:
            place = self._claimed(call, identity, call.session)
        # Only a GET comes back for events; on a POST the claim means nothing, and does not go upstream.
        if (
            call.last_event_id is not None
            and call.kind is Kind.LISTEN
            and not self._was_heard(identity, place, call.last_event_id)
        ):
            raise _unknown_session(call)
        if call.revision.answers_elsewhere and call.kind is not Kind.LISTEN:
            place = self._claimed(call, identity, call.query)
        for each in call.parts or (call,):
            if each.kind is _ANSWER:
                if not self._was_asked(identity, place, each.id):
                    why = "Nobody asked for this answer."
                    raise Refused(Reason.MALFORMED, why, code=INVALID_REQUEST, id=each.id)
            elif not self._owns_tasks(each, identity):
                raise Refused(Reason.TASK_UNKNOWN, id=each.id)

    def _owns_tasks(self, call: Call, identity: Identity) -> bool:
        """All that it names."""
        method = call.method
        if not method.startswith("tasks/") and method != _LISTEN:
            return True
        return all(self.owns_task(identity, id) for id in _named_tasks(call))

    def _claimed(self, call: Call, identity: Identity, session: str) -> Key:
        key = _key(session)
        if self._sessions.get(identity, key) is None:
            raise _unknown_session(call)
        return key

    def _was_heard(self, identity: Identity, place: Place, event_id: str) -> bool:
        digest = self._digester.of_bytes(event_id.encode("utf-8", "surrogateescape"))
        trace = self._traces.get(identity, place)
        if trace is not None and digest in trace.events:
            return True
        session = self._sessions.get(identity, place)
        streams = None if session is None else session.streams
        return streams is not None and any(digest in each for each in streams.values())

    def _was_asked(self, identity: Identity, place: Place, id: RequestId | None) -> bool:
        trace = self._traces.get(identity, place)
        return trace is not None and id is not None and self._digester.of_id(id) in trace.questions

    def owns_task(self, identity: Identity, id: object) -> bool:
        return isinstance(id, str) and self._tasks.get(identity, _key(id)) is not None

    # What the server hands out.

    def listen(self, permit: Permit, handed_out: str | None) -> Exchange:
        """An ear for one exchange; fulfils `Listen`. Raises Refused (upstream_nonsense)."""
        call = permit.call
        identity = permit.principal.identity
        place: Place = identity if call.session is None else _key(call.session)
        # Servers repeat what the call named: that gives nobody anything, least of all a session that has ended.
        if handed_out is not None and handed_out != call.session:
            given = self._give_session(identity, _key(handed_out))
            place = given if call.session is None else place
        return Exchange(self, call, identity, place)

    def _give_session(self, identity: Identity, key: Key) -> Key:
        owner = self._sessions.owner(key)
        if owner is None:
            self._sessions.put(identity, key, _Session())
        elif owner != identity:
            raise nonsense("It handed out a session that it gave to somebody else before.")
        return key

    def give_task(self, identity: Identity, place: Place, id: str) -> None:
        """A task was created for this identity. Raises Refused when somebody else has one of that name."""
        key = _key(id)
        owner = self._tasks.owner(key)
        if owner is None:
            self._tasks.put(identity, key, place)
            session = self._sessions.get(identity, place)
            if session is not None and place != identity:
                session.tasks = session.tasks or set()
                session.tasks.add(key)
        elif owner != identity:
            raise nonsense("It handed out a task that it gave to somebody else before.")

    def asked(self, identity: Identity, place: Place, id: RequestId) -> None:
        """The server asked something of this identity."""
        if self._session(identity, place) is not None:
            trace = self._traces.take(identity, place) or _Trace()
            trace.questions.add(self._digester.of_id(id))
            self._traces.put(identity, place, trace)

    def heard(self, stream: Exchange, identity: Identity, place: Place, event_id: bytes) -> None:
        """An event of an open stream had this id."""
        session = self._session(identity, place)
        if session is None:
            return
        if session.streams is None:
            session.streams = {}
        events = session.streams.get(stream)
        if events is None:
            events = session.streams[stream] = Digests(OPEN_EVENTS)
        events.add(self._digester.of_bytes(event_id))

    def stream_ended(self, stream: Exchange, identity: Identity, place: Place) -> None:
        """Clients come back for what they missed, so the last events of a stream outlive it."""
        session = self._sessions.get(identity, place)
        events = None if session is None or session.streams is None else session.streams.pop(stream, None)
        if events is not None:
            trace = self._traces.take(identity, place) or _Trace()
            trace.events.add(events.last(LEFT_EVENTS))
            self._traces.put(identity, place, trace)

    def forget(self, principal: Principal, session: str) -> None:
        """A session that this caller named has ended, and everything below it."""
        self.forget_place(principal.identity, _key(session))

    def forget_place(self, identity: Identity, place: Place) -> None:
        ended = self._sessions.take(identity, place)
        if ended is not None:
            self._traces.take(identity, place)
            for task in ended.tasks or ():
                self._tasks.take(identity, task)

    def _session(self, identity: Identity, place: Place) -> _Session | None:
        """The session of a place, used now. What is outside of any begins when something is to be kept of it."""
        session = self._sessions.get(identity, place)
        if session is None and place == identity:
            session = _Session()
            self._sessions.put(identity, place, session)
        return session

    def _session_dropped(self, identity: Identity, place: Place, session: _Session) -> None:
        # There was no room for it any more. It has not ended, so its tasks go on; they have a bound of their own.
        self._traces.take(identity, place)

    def _task_dropped(self, identity: Identity, task: Key, place: Place) -> None:
        session = self._sessions.get(identity, place)
        if session is not None and session.tasks is not None:
            session.tasks.discard(task)


_LISTEN: Final = "subscriptions/listen"


def _key(id: str) -> Key:
    return id if len(id) <= _SHORT else hashlib.sha256(id.encode("utf-8", "surrogatepass")).digest()


def _named_tasks(call: Call) -> Sequence[object]:
    """The task ids a call names, whatever their type; what is no id is nobody's."""
    if call.method != _LISTEN:
        return [call.params["taskId"]] if "taskId" in call.params else ()
    # The extension puts them into `params.notifications`; servers in Go fold the case of keys.
    named: list[object] = []
    for within in (call.params, *call.params.values()):
        for key, value in within.items() if isinstance(within, dict) else ():
            if key.casefold() == "taskids":
                named.extend(value if isinstance(value, list) else [value])
    return named


def _unknown_session(call: Call) -> Refused:
    return Refused(Reason.SESSION_UNKNOWN, id=call.id)


def nonsense(why: str) -> Refused:
    return Refused(Reason.UPSTREAM_NONSENSE, why)
