"""How long may a stream outlive the credential it was opened with? A stage that ends it then.

In: a `Permit`. Out: the reply of the next stage. Keeps a timer for each open stream of a principal whose proof ends.
Clients come back with a fresh credential: a GET stream is resumed with `Last-Event-ID`.
"""

from __future__ import annotations

import asyncio
import math

from ..model import Ending, Permit, Reply, Stage, Stream


class Expiring:
    """Fulfils `Stage`."""

    def __init__(self, serve: Stage, grace_s: float) -> None:
        self._serve = serve
        self._grace_s = grace_s

    async def __call__(self, permit: Permit) -> Reply:
        reply = await self._serve(permit)
        until = permit.principal.valid_until
        if until != math.inf and isinstance(reply.body, Stream):
            # The loop's clock is the monotonic one that `valid_until` is given in.
            timer = asyncio.get_running_loop().call_at(until + self._grace_s, _end, permit, reply.body)
            reply.when_done(lambda ending: timer.cancel())
        return reply


def _end(permit: Permit, stream: Stream) -> None:
    call = permit.call
    call.journey.altered("ended with its credential")
    if call.is_open_ended:
        call.journey.ended(Ending.COMPLETE)  # our doing, not the server's failure
    stream.end()
