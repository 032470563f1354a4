"""The room between two readings of the settings: the same places, and nothing of the reading before."""

import gc
import weakref
from collections.abc import Callable

from proxy.capacity.building import Room
from proxy.capacity.settings import CapacitySettings
from proxy.model import Ending, Headers, Permit, Reply, Thing
from tests.fakes import PRINCIPAL, RULE, make_call

PERMIT = Permit(call=make_call(method="tools/call", target="search", id=1), principal=PRINCIPAL, rule=RULE)


class Answering:
    """A stage."""

    async def __call__(self, permit: Permit) -> Reply:
        return Reply(200, Headers())


class Shelf:
    """Fulfils `Shelve`."""

    def __init__(self) -> None:
        self._things: dict[str, object] = {}

    def __call__(self, name: str, made_of: object, make: Callable[[], Thing]) -> Thing:
        return self._things.setdefault(name, make())  # type: ignore[return-value]


async def test_places_outlive_a_reading_without_keeping_it_in_memory() -> None:
    """Regression: the first reading's stages, and so all its rooms, stayed for ever behind the places."""
    shelf = Shelf()
    first, stage = Room(CapacitySettings(max_in_flight=2), shelve=shelf), Answering()
    reply = await first.guarded(stage)(PERMIT)
    second = Room(CapacitySettings(max_in_flight=2), shelve=shelf)
    await second.guarded(Answering())(PERMIT)
    assert (first.in_flight, second.in_flight) == (2, 2)
    reply.done(Ending.COMPLETE)
    assert second.in_flight == 1
    gone = weakref.ref(stage)
    del first, stage, reply
    gc.collect()
    assert gone() is None
