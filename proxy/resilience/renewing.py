"""A session that the server has lost is begun anew, and its client does not notice: a stage around attempts.

In: a `Permit` that may name a session. Out: the `Reply` of the next stage, in the session that stands behind the one
its client knows. Keeps renewals that are under way; `Handshakes` keeps the rest.

Only a call whose rule says `reinitialise` begins one, and only when the server says by the book that the session is no
more: 404 to a request that named it, which speaks of a session or says nothing, and does not answer the request. Such
a call has not run, so it is sent again, once, also where doing it twice would not be as good as once. What else comes
back is passed on: 400, with which some servers say it too, may mean anything.

Nothing is pretended: the 404 goes to the client, who begins anew by itself, where the session held more than its
handshake, where the server answers the handshake otherwise than the first time, or not at all. Everybody who finds the
session lost at once waits for one renewal.

    to the server     Mcp-Session-Id of the new session, on whatever its client sends in the old one
    to the client     the old one, where the server names the new one
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Final

from msgspec import structs

from ..model import (
    TIMEOUT_HEADER,
    Broken,
    Call,
    Deadline,
    Ending,
    Headers,
    Kind,
    Permit,
    Refused,
    Reply,
    RequestId,
    Stage,
    Stream,
    Verdict,
    id_key,
)
from ..protocol.answers import Malformed, read_answers
from ..protocol.headers import PARAM_PREFIX
from .attempts import closed
from .handshakes import METHOD, Handshakes, Session, is_id

HEADER: Final = "mcp-session-id"
ALTERED: Final = "session"
"""What a journey is told whose session has another name at the server."""
GONE: Final = 404
INITIALIZED: Final = "notifications/initialized"
GOODBYE_S: Final = 5.0
"""How long it may take to end a session that nobody will use."""

_TOLD: Final = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'
_WORD: Final = b"session"
_OF_ONE_CALL: Final = frozenset(
    {HEADER, "idempotency-key", "last-event-id", "mcp-method", "mcp-name", TIMEOUT_HEADER}
)
_VERSION: Final = "mcp-protocol-version"
_REPEATED: Final = frozenset({Kind.REQUEST, Kind.NOTIFICATION})


class Renewing:
    """Fulfils `Stage`. Used inside one running loop."""

    def __init__(
        self,
        serve: Stage,
        handshakes: Handshakes,
        *,
        deadline: Deadline,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`serve` serves single attempts; `now` is monotonic, in seconds."""
        self._serve = serve
        self._handshakes = handshakes
        self._deadline = deadline
        self._now = now
        self._renewals: dict[Session, asyncio.Task[bool]] = {}
        self._goodbyes: set[asyncio.Task[None]] = set()
        self.renewed = 0
        """Sessions that were begun anew since the start."""
        self.given_up = 0
        """Sessions that could not be."""

    async def __call__(self, permit: Permit) -> Reply:
        session = self._handshakes.of(permit)
        if session is None:
            return await self._serve(permit)
        call = permit.call
        session.takes(call)
        sent_in = session.current
        reply = await self._sent(permit, session)
        if self._may_go_on(permit, session, sent_in, reply):
            reply = closed(reply)
            if await self._goes_on(permit, session, sent_in):
                sent_in = session.current
                reply = await self._sent(permit, session)
        # 404 to a GET need not be about the session: servers without a stream of their own say so.
        is_over = reply.status == GONE and call.kind is not Kind.LISTEN
        if is_over or (call.kind is Kind.END and reply.status < 300):
            self._is_over(permit, session, sent_in)
        return reply

    async def close(self) -> None:
        """Begin nothing any more."""
        tasks = [*self._renewals.values(), *self._goodbyes]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _sent(self, permit: Permit, session: Session) -> Reply:
        """The reply to a call in the session as the server knows it now."""
        current = session.current
        if current == session.id:
            return await self._serve(permit)
        call = permit.call
        call.journey.altered(ALTERED)
        headers = _in_session(call.headers.pairs, current)
        reply = await self._serve(structs.replace(permit, call=structs.replace(call, headers=headers)))
        reply.headers = _as_known(reply.headers, current, session.id)
        return reply

    def _may_go_on(self, permit: Permit, session: Session, sent_in: str, reply: Reply) -> bool:
        """Whether the call may be sent again, in a new session. Who finds that there is one, or will be, need not be
        allowed to begin it."""
        call = permit.call
        if call.kind not in _REPEATED or not _says_gone(reply, call.id):
            return False
        if session.current != sent_in or session in self._renewals:
            return True
        asks = call.kind is Kind.REQUEST and call.method == "tools/call" and permit.rule.reinitialise
        return asks and session.is_bare and self._handshakes.of(permit) is session

    async def _goes_on(self, permit: Permit, session: Session, sent_in: str) -> bool:
        """Whether there is a new session, before the call is over."""
        if session.current != sent_in:
            return True
        task = self._renewals.get(session)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._renew(permit, session))
            self._renewals[session] = task
            task.add_done_callback(lambda _: self._renewals.pop(session, None))
        try:
            async with asyncio.timeout(self._left_s(permit)) as limit:
                # Who leaves takes nothing from those who wait too.
                return await asyncio.shield(task)
        except TimeoutError:
            if not limit.expired():
                raise
            return False

    def _left_s(self, permit: Permit) -> float | None:
        left_s = self._deadline(permit) - self._now()
        return None if left_s == math.inf else left_s

    async def _renew(self, permit: Permit, session: Session) -> bool:
        """Begin a session like this one. Whether that worked."""
        begun: list[str] = []
        is_alike = False
        handshake = _handshake(permit, session)
        try:
            # As long as the rule allows: a caller in a hurry must not end it for those who wait too.
            async with asyncio.timeout(self._left_s(handshake)):
                is_alike = await self._begin(permit, handshake, session, begun)
        except (Refused, Broken, TimeoutError):
            pass  # nobody is told: it is the 404 that goes to the client
        # Its client may have ended it, or been told that it is over, meanwhile.
        if is_alike and self._handshakes.of(permit) is session:
            session.current = begun[0]
            self.renewed += 1
            return True
        self.given_up += 1
        self._forget(permit, session)
        for id in begun:
            self._say_goodbye(permit, id)
        return False

    async def _begin(self, permit: Permit, handshake: Permit, session: Session, begun: list[str]) -> bool:
        """The handshake, as the client did it. Whether the server answered as it did then; `begun` gets the session
        that it opened. Raises Refused or Broken."""
        identity = permit.principal.identity
        reply = await self._serve(handshake)
        async with reply:
            ids = reply.headers.all(HEADER)
            if reply.status >= 300 or len(ids) != 1 or not is_id(ids[0]):
                return False
            begun.append(ids[0])
            if isinstance(reply.body, Stream):
                async for _ in reply.body:
                    if self._handshakes.get(identity, ids[0]) not in (None, session):
                        break
        fresh = self._handshakes.take(identity, ids[0])
        if ids[0] == session.id:
            self._handshakes.put(identity, session)
        if fresh is None or fresh is session or not fresh.is_bare or fresh.said != session.said:
            return False
        told = await self._serve(_initialized(permit, ids[0]))
        told.done(Ending.COMPLETE)
        return told.status < 300

    def _say_goodbye(self, permit: Permit, id: str) -> None:
        """Nobody waits for it."""
        task = asyncio.get_running_loop().create_task(self._end(permit, id))
        self._goodbyes.add(task)
        task.add_done_callback(self._goodbyes.discard)

    async def _end(self, permit: Permit, id: str) -> None:
        """Tell the server that nobody uses a session: it keeps 10,000 of them, and then takes no more."""
        try:
            async with asyncio.timeout(GOODBYE_S):
                reply = await self._serve(_goodbye(permit, id))
            reply.done(Ending.COMPLETE)
        except (Refused, TimeoutError):
            return  # then the server ends it, when nobody has used it for long enough

    def _is_over(self, permit: Permit, session: Session, ended: str) -> None:
        """The client was told that its session is over; `ended` is what the server called it."""
        if self._forget(permit, session) and session.current != ended:
            # It was begun anew while the call was under way, and its client will not use it.
            self._say_goodbye(permit, session.current)

    def _forget(self, permit: Permit, session: Session) -> bool:
        """Whether it was known."""
        if self._handshakes.of(permit) is not session:
            return False
        self._handshakes.take(permit.principal.identity, session.id)
        return True


def _says_gone(reply: Reply, id: RequestId | None) -> bool:
    """Whether a 404 is about the session, and the call has not run. The SDKs say so in a JSON-RPC error with the id
    null, none, or "server-error"; others in words; the specification asks for no words."""
    body = reply.body
    if reply.status != GONE or not isinstance(body, bytes):
        return False
    if not body.strip():
        return True
    if _WORD not in body.lower():
        return False
    try:
        said = read_answers(body)
    except Malformed:
        return True
    return all(each.verdict is Verdict.RPC_ERROR and not _is_same(each.id, id) for each in said)


def _is_same(said: RequestId | float | None, id: RequestId | None) -> bool:
    return isinstance(said, int | str) and id is not None and id_key(said) == id_key(id)


def _in_session(pairs: tuple[tuple[bytes, bytes], ...], id: str) -> Headers:
    rest = [pair for pair in pairs if pair[0].lower() != HEADER.encode()]
    return Headers([*rest, (b"Mcp-Session-Id", id.encode("ascii"))])


def _as_known(headers: Headers, current: str, id: str) -> Headers:
    """The fields of a reply, with the session as its client knows it: some clients adopt what any answer names."""
    if headers.get(HEADER) != current:
        return headers
    return _in_session(headers.pairs, id)


def _of_all_calls(headers: Headers) -> tuple[tuple[bytes, bytes], ...]:
    """The fields that say who calls, and what the client can read; not what it calls now."""
    return tuple(pair for pair in headers.pairs if not _is_of_one_call(pair[0].decode("latin-1").lower()))


def _is_of_one_call(name: str) -> bool:
    return name in _OF_ONE_CALL or name.startswith(PARAM_PREFIX)


def _message(permit: Permit, call: Call) -> Permit:
    """A message of ours for whoever makes this call, with a journey that nobody hears of."""
    journey = permit.call.journey.sibling()
    ours = structs.replace(call, target=None, params={}, parts=(), last_event_id=None, journey=journey)
    return structs.replace(permit, call=ours)


def _handshake(permit: Permit, session: Session) -> Permit:
    """What the client said to begin the session, byte for byte. It named no version in a header then."""
    fields = _of_all_calls(permit.call.headers)
    call = structs.replace(
        permit.call,
        kind=Kind.REQUEST,
        id=session.request_id,
        method=METHOD,
        revision=session.revision,
        headers=Headers(pair for pair in fields if pair[0].decode("latin-1").lower() != _VERSION),
        body=session.body,
        session=None,
    )
    return _message(permit, call)


def _initialized(permit: Permit, id: str) -> Permit:
    return _within(permit, id, Kind.NOTIFICATION, INITIALIZED, _TOLD)


def _goodbye(permit: Permit, id: str) -> Permit:
    return _within(permit, id, Kind.END, "", b"")


def _within(permit: Permit, id: str, kind: Kind, method: str, body: bytes) -> Permit:
    headers = _in_session(_of_all_calls(permit.call.headers), id)
    call = structs.replace(
        permit.call, kind=kind, id=None, method=method, headers=headers, body=body, session=id
    )
    return _message(permit, call)
