"""How long may a stream outlive the credential it was opened with? A stage that ends it then.

In: a `Permit`. Out: the reply of the next stage. Keeps a timer for each open stream of a caller whose proof ends, and
until when that caller has proven itself since in the same session: whoever renews its token keeps the streams of its
session. A stream outside of any ends, or one that was opened with a stolen token would live as long as its victim is
at work; its client comes back with a fresh credential.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from math import inf
from typing import TypeAlias

from ..model import Ending, Identity, Permit, Reply, Stage, Stream

Session: TypeAlias = tuple[Identity, str | None]
"""None: the only session there is on a connection (HTTP+SSE)."""


class Expiring:
    """Fulfils `Stage`."""

    def __init__(self, serve: Stage, grace_s: float) -> None:
        self._serve = serve
        self._grace_s = grace_s
        self._callers: dict[Session, _Caller] = {}
        """Those with streams that end: as many as there are such streams, at most."""

    def __call__(self, permit: Permit) -> Awaitable[Reply]:
        valid_until = permit.principal.valid_until
        if self._callers and (session := _session(permit)) is not None:
            known = self._callers.get(session)
            if known is not None:
                known.valid_until = max(known.valid_until, valid_until)
        return self._serve(permit) if valid_until == inf else self._ending(permit)

    async def _ending(self, permit: Permit) -> Reply:
        reply = await self._serve(permit)
        if isinstance(reply.body, Stream):
            session = _session(permit)
            caller = _Caller(permit.principal.valid_until)
            if session is not None:
                caller = self._callers.setdefault(session, caller)
            caller.streams += 1
            open_ = _Open(permit, reply.body, caller, self._grace_s)
            reply.when_done(lambda ending: self._closed(open_, session))
        return reply

    def _closed(self, stream: _Open, session: Session | None) -> None:
        stream.timer.cancel()
        stream.caller.streams -= 1
        if session is not None and not stream.caller.streams:
            self._callers.pop(session, None)


def _session(permit: Permit) -> Session | None:
    """Where a later proof of the same caller counts; None: nowhere."""
    call = permit.call
    if call.session is None and not call.revision.answers_elsewhere:
        return None
    return permit.principal.identity, call.session


class _Caller:
    __slots__ = ("streams", "valid_until")

    def __init__(self, valid_until: float) -> None:
        self.valid_until = valid_until
        self.streams = 0


class _Open:
    """One open stream and its timer."""

    __slots__ = ("_grace_s", "_stream", "caller", "permit", "timer")

    def __init__(self, permit: Permit, stream: Stream, caller: _Caller, grace_s: float) -> None:
        self.permit = permit
        self.caller = caller
        self._stream = stream
        self._grace_s = grace_s
        self.timer = self._timer(permit.principal.valid_until)

    def _timer(self, valid_until: float) -> asyncio.TimerHandle:
        # The loop's clock is the monotonic one that `valid_until` is given in.
        return asyncio.get_running_loop().call_at(valid_until + self._grace_s, self._is_due, valid_until)

    def _is_due(self, believed: float) -> None:
        if self.caller.valid_until > believed:
            if self.caller.valid_until != inf:
                self.timer = self._timer(self.caller.valid_until)
            return
        call = self.permit.call
        call.journey.altered("ended with its credential")
        if call.is_open_ended:
            call.journey.ended(Ending.COMPLETE)  # our doing, not the server's failure
        self._stream.end()
