"""Which fields of an answer does the client get? All but those of one connection, cookies, and what settings hide.

In: an answer of the server, and the call whose record says what was hidden. Out: its fields, in their order, or
`Refused` (upstream_nonsense) where no answer may have such a head. Keeps what names say, because servers say the same
ones again and again, and no values but the last of `Connection`. Source: RFC 9110 section 7.6.1 (hop-by-hop fields).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Final, TypeAlias, cast

from msgspec import Struct

from ..configuration.globs import Globs
from ..model import Call, Headers, Reason, Refused
from ..protocol.headers import end_to_end
from .fields import Field
from .transport import Answer

HIDDEN: Final = "header hidden"
"""What a journey is told, of each."""
MAX_KNOWN: Final = 64
"""Lists of names; when there are more, all begin anew."""
MAX_KNOWN_BYTES: Final = 2_048
"""Of the names of one list."""
_NEVER_DOWN: Final = frozenset({b"set-cookie", b"set-cookie2"})
_OF_THE_PROTOCOL: Final = b"mcp-"
_UNCODED: Final = frozenset({b"", b"identity"})
_SPLITS_LINES: Final = re.compile(rb"[\x00\r\n]")

Pairs: TypeAlias = tuple[Field, ...]
_NOTE: Final = object()


class Places(Struct, frozen=True, kw_only=True, eq=False):
    """Where what we look for stands among the fields of an answer: from their names, and from what `Connection` says.
    -1 is nowhere; of several the first counts."""

    connection: int
    named: bytes
    """What `Connection` says."""
    type: int
    codings: tuple[int, ...]
    length: int
    session: int
    has_several_types: bool
    kept: Callable[[Pairs], Pairs] | None
    """Those of the fields that pass; None: all."""
    kept_length: int
    """Where `length` stands among those."""
    hidden: int
    """How many settings hide."""


class _Found:
    """What one of us has found out from a head. The transport, and with it a head that comes again, may outlive a
    reload: then another one of us takes the place of this, and nothing heaps up."""

    __slots__ = ("by", "passed", "places")

    def __init__(self, by: Passing, places: Places) -> None:
        self.by = by
        self.places = places
        self.passed: Headers | None = None
        """What the client gets, but for the length; None: nobody has asked yet."""


class Passing:
    """What passes of the fields of answers. `hide` are names, or patterns of them, in any case."""

    __slots__ = ("_hidden", "_known")

    def __init__(self, hide: Sequence[str] = ()) -> None:
        self._hidden = Globs([each.lower() for each in hide]) if hide else None
        self._known: dict[tuple[bytes, ...], Places] = {}

    def __call__(self, answer: Answer, call: Call | None = None) -> Headers:
        """Whatever the answer is."""
        return self.passed(answer, self._places(answer.headers), call)

    def passed(self, answer: Answer, places: Places, call: Call | None) -> Headers:
        """The same, where places are known."""
        if places.hidden and call is not None:
            for _ in range(places.hidden):
                call.journey.altered(HIDDEN)
        headers, kept = answer.headers, places.kept
        if kept is None:
            return headers
        found = self._found_before(headers)
        passed = None if found is None else found.passed
        if passed is None:
            passed = Headers(kept(headers.pairs))
            if found is not None:
                found.passed = passed
        elif (at := places.kept_length) >= 0:
            digits = headers.pairs[places.length][1]
            if passed.pairs[at][1] != digits:
                passed = passed.of_length(at, digits)
        return passed

    def check(self, answer: Answer) -> Places:
        """Raise Refused (upstream_nonsense) unless status and fields may be passed on."""
        status = answer.status
        # 206 is a part of something, and nobody asked for a part.
        if not 200 <= status <= 599 or 300 <= status <= 399 or status == 206:
            raise nonsense(f"Its HTTP status was {status}.")
        found = self._found_before(answer.headers)
        if found is not None:
            return found.places
        pairs = answer.headers.pairs
        places = self._places(answer.headers)
        for at in places.codings:
            if pairs[at][1] not in _UNCODED:
                raise nonsense("It compressed an answer although it was asked not to.")
        if places.has_several_types:
            # Clients that take another one than we do would read other messages than were judged.
            raise nonsense("It has several types.")
        if _SPLITS_LINES.search(b"".join([value for _, value in pairs])):
            raise nonsense("One of its header fields holds control characters.")
        answer.headers.note(_NOTE, _Found(self, places))
        return places

    def _found_before(self, headers: Headers) -> _Found | None:
        found: _Found | None = headers.notes.get(_NOTE)
        return found if found is not None and found.by is self else None

    def _places(self, headers: Headers) -> Places:
        pairs = headers.pairs
        names = tuple([name for name, _ in pairs])
        places = self._known.get(names)
        if places is not None and (places.connection < 0 or pairs[places.connection][1] == places.named):
            return places
        places = self._found(headers)
        if len(headers.all("connection")) <= 1 and sum(map(len, names)) <= MAX_KNOWN_BYTES:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[names] = places
        return places

    def _found(self, headers: Headers) -> Places:
        pairs = headers.pairs
        names = [name.lower() for name, _ in pairs]
        # Whether a field passes hangs on its name, and on nothing else of it.
        passing = {name.lower() for name, _ in end_to_end(headers, _NEVER_DOWN.__contains__)}
        down = [at for at, name in enumerate(names) if name in passing]
        hidden = self._hidden
        kept = down if hidden is None else [at for at in down if not self._hides(hidden, names[at])]
        connection, length = _first(names, b"connection"), _first(names, b"content-length")
        return Places(
            connection=connection,
            named=pairs[connection][1] if connection >= 0 else b"",
            type=_first(names, b"content-type"),
            codings=tuple([at for at, name in enumerate(names) if name == b"content-encoding"]),
            length=length,
            session=_first(names, b"mcp-session-id"),
            has_several_types=names.count(b"content-type") > 1,
            kept=None if len(kept) == len(pairs) else _taking(kept),
            kept_length=kept.index(length) if length in kept else -1,
            hidden=len(down) - len(kept),
        )

    @staticmethod
    def _hides(hidden: Globs, name: bytes) -> bool:
        # Whatever a pattern fits by chance: clients need what the protocol has.
        return not name.startswith(_OF_THE_PROTOCOL) and bool(hidden.fitting(name.decode("latin-1")))


def nonsense(why: str) -> Refused:
    return Refused(Reason.UPSTREAM_NONSENSE, why)


def _first(names: Sequence[bytes], name: bytes) -> int:
    return names.index(name) if name in names else -1


def _taking(places: Sequence[int]) -> Callable[[Pairs], Pairs]:
    """What takes these out of fields."""
    if len(places) < 2:
        return lambda pairs: tuple([pairs[at] for at in places])  # of one place itemgetter makes no tuple
    return cast(Callable[[Pairs], Pairs], itemgetter(*places))
