"""The hall: the way of one call through the rooms. Which rooms, and in which order, is decided here and nowhere
else.

In: a `Call`. Out: a `Reply`, always: a no becomes one, an unexpected exception becomes a refusal. The journey of
the call is told every step and, once, how it ended. Rooms that are off are not in the chain.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeAlias

from msgspec import Struct, structs

from .model import (
    Authorise,
    Call,
    Ending,
    Identify,
    Kind,
    Lease,
    Limit,
    Permit,
    Principal,
    Reason,
    Refused,
    Reply,
    Stage,
)

_BATCH: Final = Kind.BATCH

Explain: TypeAlias = Callable[[Refused, Call], Reply]
Merge: TypeAlias = Callable[[Reply | None, list[tuple[Call, Refused]]], Reply]


class Disguised(Protocol):
    """A permit to ask about nothing, and the way back."""

    @property
    def permit(self) -> Permit: ...
    async def undo(self, reply: Reply) -> Reply: ...


Disguises: TypeAlias = Callable[[Call, Principal], Disguised | None]


class Pipeline(Struct, frozen=True, kw_only=True):
    """The rooms, in order. `limit` is None where nothing is limited."""

    identify: Identify
    authorise: Authorise
    limit: Limit | None
    serve: Stage
    explain: Explain
    merge: Merge
    """Puts our own refusals of single messages into the answer to the rest of their batch."""
    is_whole: Callable[[Refused], bool]
    """Whether a refusal of one message of a batch refuses the whole request."""
    disguise: Disguises | None = None
    """Asks the server about nothing, where what is asked for is hidden."""
    without: Callable[[Call, list[Call]], Call]
    """The batch that is left when some of its messages are refused."""

    async def __call__(self, call: Call) -> Reply:
        try:
            if call.kind is _BATCH:
                reply = await self._admit_batch(call)
            else:
                known = self.identify(call)
                principal = known if isinstance(known, Principal) else await known
                call.journey.identified(principal)
                reply = await self._judged(call, principal)
        except Exception as error:
            refused = error if isinstance(error, Refused) else _closed(error, call)
            for each in call.parts or (call,):
                each.journey.refused(refused)
            reply = self.explain(refused, call)
        except BaseException as error:
            # Cancelled: the client left, or the house comes down.
            ending = Ending.of(error)
            for each in call.parts or (call,):
                each.journey.ended(ending)
            raise
        for each in call.parts or (call,):
            reply.when_done(each.journey.ended)
        return reply

    def _judged(self, call: Call, principal: Principal) -> Awaitable[Reply]:
        """What becomes of a call when it is known who makes it."""
        try:
            permit = self.authorise(call, principal)
        except Refused as refused:
            return self._denied(call, principal, refused)
        call.journey.permitted(permit)
        return self._limited(permit, permit)

    def _limited(self, permit: Permit, counted: Permit) -> Awaitable[Reply]:
        """`counted` is what limits see of what is served."""
        limit = self.limit
        lease = None if limit is None else limit(counted)
        return self.serve(permit) if lease is None else self._leased(permit, lease)

    async def _leased(self, permit: Permit, granted: Lease | Awaitable[Lease | None]) -> Reply:
        lease = await granted if isinstance(granted, Awaitable) else granted
        if lease is None:
            return await self.serve(permit)
        try:
            reply = await self.serve(permit)
        except BaseException as error:
            lease.release(Ending.of(error))
            raise
        reply.when_done(lease.release)
        return reply

    async def _denied(self, call: Call, principal: Principal, refused: Refused) -> Reply:
        """What is hidden is answered as the server answers what it does not have; every other no is raised."""
        disguise = self.disguise if refused.reason is Reason.NOT_VISIBLE else None
        disguised = None if disguise is None else disguise(call, principal)
        if disguised is None:
            await self._count_denied(call, principal)
            raise refused
        call.journey.refused(refused)
        # By the name it was asked by: one that nobody has would have a bucket of its own each time.
        reply = await self._limited(disguised.permit, structs.replace(disguised.permit, call=call))
        try:
            return await disguised.undo(reply)
        except BaseException as error:
            reply.done(Ending.of(error))
            raise

    async def _admit_batch(self, batch: Call) -> Reply:
        """Each message is judged, leased and journalled by itself; what may pass is forwarded together."""
        known = self.identify(batch)
        principal = known if isinstance(known, Principal) else await known
        refusals: list[tuple[Call, Refused]] = []
        allowed: list[Call] = []
        leases: list[Lease] = []
        try:
            for call in batch.parts:
                call.journey.identified(principal)
                try:
                    await self._judge(call, principal, leases)
                    allowed.append(call)
                except Refused as refused:
                    if self.is_whole(refused):
                        raise
                    call.journey.refused(refused)
                    refusals.append((call, refused))
            if not allowed:
                return self.merge(None, refusals)
            rest = self.without(batch, allowed) if refusals else batch
            # The envelope of several permitted calls: every one of them was judged above.
            permit = self.authorise(rest, principal)
        except BaseException as error:
            _release(leases, Ending.of(error))
            raise
        try:
            reply = await self.serve(permit)
        except BaseException as error:
            _release(leases, Ending.of(error))
            raise
        for lease in leases:
            reply.when_done(lease.release)
        try:
            return self.merge(reply, refusals) if refusals else reply
        except BaseException as error:
            reply.done(Ending.of(error))
            raise

    async def _count_denied(self, call: Call, principal: Principal) -> None:
        """Whoever tries what is not allowed, over and over, is slowed down like everybody else. Raises Refused."""
        if self.limit is not None:
            await self.limit.denied(call, principal)

    async def _judge(self, call: Call, principal: Principal, leases: list[Lease]) -> None:
        try:
            permit = self.authorise(call, principal)
        except Refused:
            await self._count_denied(call, principal)
            raise
        call.journey.permitted(permit)
        granted = None if self.limit is None else self.limit(permit)
        lease = await granted if isinstance(granted, Awaitable) else granted
        if lease is not None:
            leases.append(lease)


def _release(leases: list[Lease], ending: Ending) -> None:
    for lease in reversed(leases):
        lease.release(ending)


def _closed(error: Exception, call: Call) -> Refused:
    """An unexpected exception on a deciding path refuses. What it says goes to our log, not to the client."""
    # Of a batch the first message is named: the batch itself has no line in the log.
    request_id = (call.parts or (call,))[0].journey.request_id
    data = {"requestId": request_id}
    if any(each.method == "tools/call" and each.was_sent for each in call.parts or (call,)):
        # It is our failure, and all the same nobody knows what the server did.
        why = f"The proxy failed behind it. The operator finds it in the log as {request_id}."
        refused = Refused(Reason.OUTCOME_UNKNOWN, why, data=data)
    else:
        why = f"If it keeps happening, tell the operator the id of this request: {request_id}."
        refused = Refused(Reason.INTERNAL, why, data=data)
    refused.__cause__ = error
    return refused
