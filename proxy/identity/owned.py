"""What becomes of sessions that end, and of lists that name everybody's tasks? A stage before upstream.

In: a `Permit`. Out: the `Reply` of the next stage, without tasks of others, or `Refused` (upstream_nonsense) where it
is not known whose they are. Keeps nothing; `Ownership` does. Events of streams have been looked at already.
"""

from __future__ import annotations

from collections.abc import Awaitable, Container
from typing import Final

from ..model import Call, Ending, Headers, Identity, IdKey, Kind, Permit, Reply, Stage, Stream
from ..protocol.answers import Malformed
from ..protocol.headers import media_type
from .exchange import FILTERED, not_understood
from .listed_tasks import LIST, asked_for, without_foreign
from .ownership import Ownership

_UNKNOWN: Final = 404


class Owned:
    """Fulfils `Stage`."""

    def __init__(self, next: Stage, ownership: Ownership) -> None:
        self._next = next
        self._ownership = ownership

    def __call__(self, permit: Permit) -> Awaitable[Reply]:
        call = permit.call
        has_something = call.session is not None or call.method == LIST or call.parts
        return self._looked_at(permit) if has_something else self._next(permit)

    async def _looked_at(self, permit: Permit) -> Reply:
        reply = await self._next(permit)
        call = permit.call
        if call.session is not None and _has_ended(call, reply.status):
            self._ownership.forget(permit.principal, call.session)
        if (call.method == LIST or call.parts) and (lists := asked_for(call)):
            try:
                self._filter(call, permit.principal.identity, reply, lists)
            except BaseException as error:
                reply.done(Ending.of(error))
                raise
        return reply

    def _filter(self, call: Call, identity: Identity, reply: Reply, lists: Container[IdKey]) -> None:
        if isinstance(reply.body, Stream):
            kind, _ = media_type(reply.headers.get("content-type"))
            if kind != "text/event-stream":
                raise not_understood()  # too large to be held, so nobody has read it
            return

        def passes(entry: object) -> bool:
            return isinstance(entry, dict) and self._ownership.owns_task(identity, entry.get("taskId"))

        try:
            body = without_foreign(reply.body, passes, lists)
        except Malformed:
            # Words for people, as HTTP errors and acknowledgements have them, are no list.
            if reply.body.lstrip()[:1] in (b"{", b"["):
                raise not_understood() from None
            return
        if body is not reply.body:
            reply.body = body
            reply.headers = Headers(
                each for each in reply.headers.pairs if each[0].lower() != b"content-length"
            )
            call.journey.altered(FILTERED)


def _has_ended(call: Call, status: int) -> bool:
    """Whether the answer says that the session is no more.

    404 to a GET does not: servers without a stream of their own say so, although they SHOULD say 405.
    """
    if not call.revision.has_sessions:
        return False
    if call.kind is Kind.END:
        return status < 300 or status == _UNKNOWN
    return status == _UNKNOWN and call.kind is not Kind.LISTEN
