"""Who listens to an exchange with the server? Several rooms may want to, and each may change what the caller sees.

In: what makes the ear of each room. Out: one `Listen`, or None where nobody wants to: then nothing is asked at all.
Keeps nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..model import Ear, Ending, Listen, Permit, RequestId


def listening(*rooms: Listen | None) -> Listen | None:
    """What makes the ears of all `rooms` that listen. The first hears first, the next one gets what it left."""
    listens = [each for each in rooms if each is not None]
    if len(listens) < 2:
        return listens[0] if listens else None

    def listen(permit: Permit, handed_out: str | None) -> Ear | None:
        first: Ear | None = None
        several: list[Ear] = []
        for each in listens:
            ear = each(permit, handed_out)
            if ear is None:
                continue
            if first is None:
                first = ear  # most exchanges have one
            else:
                several = [*several, ear] if several else [first, ear]
        return _Several(several) if several else first

    return listen


class _Several:
    """Fulfils `Ear`."""

    __slots__ = ("_ears",)

    def __init__(self, ears: Sequence[Ear]) -> None:
        self._ears = ears

    def event_id(self, id: bytes) -> None:
        for ear in self._ears:
            ear.event_id(id)

    def request(self, id: RequestId, method: str, params: object) -> None:
        for ear in self._ears:
            ear.request(id, method, params)

    def notification(self, method: str, params: object) -> None:
        for ear in self._ears:
            ear.notification(method, params)

    def result(self, method: str | None, result: object) -> None:
        for ear in self._ears:
            ear.result(method, result)

    def passed_on(self, data: bytes) -> bytes:
        for ear in self._ears:
            data = ear.passed_on(data)
        return data

    def ended(self, ending: Ending) -> None:
        failure: Exception | None = None
        for ear in self._ears:
            try:
                ear.ended(ending)
            except Exception as error:  # one that fails must not keep the others waiting
                failure = failure or error
        if failure is not None:
            raise failure
