"""Does the server accept us? A stage for where callers prove themselves to us and not to the server.

In: a `Permit`. Out: the `Reply` of the next stage, without a challenge; `Refused` (upstream_broke) where the server, or
a proxy before it, says 401 or 407. Keeps whether it did so last, and how often since somebody was told.

Such a no is about our own credential: the caller's never went there. Passed on, its `WWW-Authenticate` sends SDK
clients into an OAuth flow with whatever the server names: an address inside the network, or an authorization server of
somebody's own. Source: RFC 9728 section 7.7 (server-side request forgery). A 403 may carry a challenge as well
(`insufficient_scope`): it passes without. What a challenge names is never fetched by us.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from ..model import Ending, Headers, Permit, Reason, Refused, Reply, Stage

TELL_EVERY_S: Final = 60.0
CHALLENGE: Final = "challenge"
"""What a journey is told."""

_REFUSED: Final = frozenset({401, 407})
_WHY: Final = "It does not accept the sidecar's own credential; an operator has to look after that."
_DEGRADED: Final = "the server does not accept the sidecar's own credential"


class OwnCredential:
    """Fulfils `Stage`, and what probes ask of a part."""

    def __init__(
        self, serve: Stage, *, refused: Callable[[int], None], now: Callable[[], float] = time.monotonic
    ) -> None:
        """`refused` is told that the server does not accept us, and how many calls met that since it was told last: at
        once, and then at most once a minute. `now` is monotonic, in seconds."""
        self._serve = serve
        self._refused = refused
        self._now = now
        self._is_refused = False
        self._untold = 0
        self._tell_again_s = float("-inf")

    async def __call__(self, permit: Permit) -> Reply:
        reply = await self._serve(permit)
        if reply.status < 400:
            self._is_refused = False
            return reply
        for each in permit.call.parts or (permit.call,):
            if reply.status in _REFUSED or "www-authenticate" in reply.headers:
                each.journey.altered(CHALLENGE)
        if reply.status in _REFUSED:
            self._tell()
            reply.done(Ending.COMPLETE)
            raise Refused(Reason.UPSTREAM_BROKE, _WHY)
        reply.headers = Headers(
            pair for pair in reply.headers.pairs if pair[0].lower() != b"www-authenticate"
        )
        return reply

    def why_unready(self) -> str | None:
        """None: the caller is told, and there may be tools that ask for no credential."""
        return None

    def why_degraded(self) -> Sequence[str]:
        return [_DEGRADED] if self._is_refused else []

    def _tell(self) -> None:
        self._is_refused = True
        self._untold += 1
        now = self._now()
        if now >= self._tell_again_s:
            self._tell_again_s = now + TELL_EVERY_S
            untold, self._untold = self._untold, 0
            self._refused(untold)
