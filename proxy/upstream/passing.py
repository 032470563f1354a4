"""Which fields of an answer does the client get? All but those of one connection, cookies, and what settings hide.

In: an answer of the server, and the call whose record says what was hidden. Out: its fields, in their order. Keeps
nothing of them. Source: RFC 9110 section 7.6.1 (hop-by-hop fields).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..configuration.globs import Globs
from ..model import Call, Headers
from ..protocol.headers import end_to_end
from .transport import Answer

HIDDEN: Final = "header hidden"
"""What a journey is told, of each."""
_NEVER_DOWN: Final = frozenset({b"set-cookie", b"set-cookie2"})
_OF_THE_PROTOCOL: Final = b"mcp-"


class Passing:
    """What passes of the fields of answers. `hide` are names, or patterns of them, in any case."""

    __slots__ = ("_hidden",)

    def __init__(self, hide: Sequence[str] = ()) -> None:
        self._hidden = Globs([each.lower() for each in hide]) if hide else None

    def __call__(self, answer: Answer, call: Call | None = None) -> Headers:
        pairs = end_to_end(answer.headers, _NEVER_DOWN.__contains__)
        if self._hidden is None:
            return Headers(pairs)
        kept = [pair for pair in pairs if not self._hides(self._hidden, pair[0].lower())]
        if call is not None:
            for _ in range(len(pairs) - len(kept)):
                call.journey.altered(HIDDEN)
        return Headers(kept)

    @staticmethod
    def _hides(hidden: Globs, name: bytes) -> bool:
        # Whatever a pattern fits by chance: clients need what the protocol has.
        return not name.startswith(_OF_THE_PROTOCOL) and bool(hidden.fitting(name.decode("latin-1")))
