"""Which fields does a call go out with? The client's that do not end here, and our own.

In: a call, and the fields its attempt carries. Out: the fields in the order they are sent; the call's journey hears
what was altered. Keeps nothing itself: what follows from a client's head alone stays with that head, for when it comes
again. Nothing that ends here is kept so, nor what we add: our credential may change meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from ..model import Call, Kind
from ..protocol.headers import end_to_end
from .credentials import Stops
from .fields import Field, Fields
from .origin import Origin

_LISTEN = Kind.LISTEN


class _Onward(Struct, frozen=True, eq=False):
    """What a head becomes."""

    fields: Fields
    altered: tuple[str, ...]


class Outgoing:
    """`stops` says which fields end here. `knows_callers`: whose an event is was asked for where streams are resumed.
    `forwards`: the client's credential is meant for the server."""

    __slots__ = ("_forwards", "_knows_callers", "_listen_note", "_note", "_origin", "_stops")

    def __init__(self, origin: Origin, stops: Stops, *, knows_callers: bool, forwards: bool) -> None:
        self._origin = origin
        self._stops = stops
        self._knows_callers = knows_callers
        self._forwards = forwards
        # Keys of our own: after a reload another one writes them down, and nothing holds us any more.
        self._note = object()
        self._listen_note = object()

    def __call__(self, call: Call, carried: Sequence[Field] = ()) -> Fields:
        """`carried` take the place of those of the same names (in lower case), or take them out where they have no
        value."""
        key = self._listen_note if call.kind is _LISTEN else self._note
        onward: _Onward | None = call.headers.notes.get(key)
        if onward is None:
            onward = self._onward(call)
            call.headers.note(key, onward)
        for what in onward.altered:
            call.journey.altered(what)
        if not carried:
            return onward.fields + self._origin.own.fields
        names = tuple([name for name, _ in carried])
        fields = onward.fields.without(names) + self._origin.own.fields.without(names)
        return fields.and_also(tuple([field for field in carried if field[1]]))

    def _onward(self, call: Call) -> _Onward:
        altered = []
        fields = [(b"Host", self._origin.host), *end_to_end(call.headers, self._stops)]
        is_listen = call.kind is _LISTEN
        if self._knows_callers and not is_listen and "last-event-id" in call.headers:
            # Only a GET resumes, and only there it was asked whose the event is.
            fields = [field for field in fields if field[0].lower() != b"last-event-id"]
            altered.append("last-event-id")
        if "accept-encoding" in call.headers:
            fields.append((b"Accept-Encoding", b"identity"))
            altered.append("accept-encoding")
        if self._forwards and "authorization" in call.headers:
            altered.append("client authorization forwarded")
        return _Onward(Fields(fields), tuple(altered))
