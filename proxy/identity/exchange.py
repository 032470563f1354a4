"""What does one exchange with the server hand out, and what of it may its caller see?

In: what the judge hears of the answer. Out: the bytes of an event, fewer where it lists somebody else's tasks, or
`Refused` (upstream_nonsense). Keeps where what is heard belongs. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from ..model import Call, Ending, Identity, Kind, Reason, Refused, RequestId
from ..protocol.answers import HELD_BYTES, Malformed
from .listed_tasks import LIST, without_foreign

if TYPE_CHECKING:  # it makes us
    from .ownership import Ownership, Place


class Exchange:
    """Fulfils `Ear`."""

    __slots__ = (
        "_events_at",
        "_hides",
        "_identity",
        "_is_list",
        "_journey",
        "_kind",
        "_ownership",
        "_place",
    )

    def __init__(self, ownership: Ownership, call: Call, identity: Identity, place: Place) -> None:
        self._ownership = ownership
        self._identity = identity
        self._journey = call.journey
        self._kind = call.kind
        self._place = place
        # A session of HTTP+SSE ends with its stream, and whoever comes back begins another one.
        self._events_at = identity if call.revision.answers_elsewhere else place
        self._hides = False
        """The event being heard lists tasks that are not its caller's."""
        self._is_list = False
        """It answers a request for a list of tasks; else that is not known."""

    def event_id(self, id: bytes) -> None:
        self._ownership.heard(self, self._identity, self._events_at, id)

    def request(self, id: RequestId, method: str, params: object) -> None:
        self._ownership.asked(self._identity, self._place, id)

    def notification(self, method: str, params: object) -> None:
        """Nothing becomes the caller's by it."""

    def result(self, method: str | None, result: object) -> None:
        members: Mapping[object, object] = result if isinstance(result, dict) else _NOTHING
        if "task" in members or "taskId" in members:
            for id in _created(members):
                if isinstance(id, str):
                    self._ownership.give_task(self._identity, self._place, id)
        if method is None or method == LIST:
            self._look(members.get("tasks"), is_list=method == LIST)

    def _look(self, tasks: object, *, is_list: bool) -> None:
        # An event may hold several messages: what one of them needs, the event needs.
        self._is_list = self._is_list or is_list
        if isinstance(tasks, list):
            self._hides = self._hides or not all(map(self._passes, tasks))
        elif is_list:
            raise not_understood()

    def _passes(self, entry: object) -> bool:
        if isinstance(entry, dict) and "taskId" in entry:
            return self._ownership.owns_task(self._identity, entry["taskId"])
        # In a list of tasks it is nobody's; in another result of that shape it need not be a task.
        return not self._is_list

    def passed_on(self, data: bytes) -> bytes:
        if self._hides:
            data = self._filtered(data)
        elif self._kind is Kind.LISTEN and len(data) > HELD_BYTES and _may_list(data):
            raise not_understood()
        self._hides = self._is_list = False
        return data

    def _filtered(self, data: bytes) -> bytes:
        try:
            rest = without_foreign(data, self._passes)
        except Malformed:
            raise not_understood() from None
        self._journey.altered(FILTERED)
        return rest

    def ended(self, ending: Ending) -> None:
        self._ownership.stream_ended(self, self._identity, self._events_at)
        if self._events_at != self._place:
            self._ownership.forget_place(self._identity, self._place)


FILTERED: Final = "tasks filtered"
"""What a journey is told."""
_NOTHING: Final[Mapping[object, object]] = {}


def not_understood() -> Refused:
    """A list that may hold somebody else's tasks goes nowhere."""
    return Refused(Reason.UPSTREAM_NONSENSE, "Its list of tasks was not understood.")


def _created(result: Mapping[object, object]) -> tuple[object, object]:
    """The ids of tasks a result creates."""
    task = result.get("task")
    in_2025 = task.get("taskId") if isinstance(task, dict) else None
    in_extension = result.get("taskId") if result.get("resultType") == "task" else None
    return in_2025, in_extension


def _may_list(data: bytes) -> bool:
    """Whether the result of an unknown request, too large to be read, could be a list of tasks."""
    return b'"tasks"' in data and b'"taskId"' in data
