"""What does a message carry in `params._meta` of the attempt it is sent by?

In: a call, and the attempts of its messages. Out: the body with what each attempt carries, every other byte as it was.
Keeps nothing. HTTP has one context for a whole batch; in here each message has its own (SEP-414).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..model import Attempt, Call
from ..protocol.splice import elements, spliced, with_meta

ALTERED: Final = "trace context"
"""What a journey is told."""


def carrying(call: Call, attempts: Sequence[Attempt]) -> bytes:
    """The body as it is sent. Attempts come in the order of the messages."""
    if not call.parts:
        return _one(call, attempts[0], call.body)
    places = elements(call.body, len(call.parts))
    changes = [
        (place, _one(part, attempt, call.body[place]))
        for place, part, attempt in zip(places, call.parts, attempts, strict=True)
    ]
    return spliced(call.body, changes)


def _one(call: Call, attempt: Attempt, body: bytes) -> bytes:
    if not call.method:
        return body  # an answer of the client has no params
    meta = call.params.get("_meta")
    there = meta if isinstance(meta, dict) else {}
    carried = {name.decode("ascii"): value.decode("ascii") for name, value in attempt.carries}
    # Without a value it takes the place of what belongs to another context.
    values = {name: value for name, value in carried.items() if value or name in there}
    if not values:
        return body
    call.journey.altered(ALTERED)
    return with_meta(body, values)
