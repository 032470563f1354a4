"""What do the server's own lists of tools say, and to whom? Results of tools/list → whoever wants to know.

In: answers as they pass. Out: the listed tools, told once a page. Keeps nothing. Lists may differ by caller, so each is
told with the principal that got it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

from ..model import Call, Ear, Ending, Kind, Permit, Principal, RequestId

LIST: Final = "tools/list"

Learn: TypeAlias = Callable[[Principal, Call, Mapping[str, object]], None]
"""Told of one page: `tools` is a list in it. Raises Refused where the page must not pass."""


class Learning:
    """Fulfils `Listen` where somebody wants to know."""

    def __init__(self, learners: Sequence[Learn]) -> None:
        self._learners = tuple(learners)

    def __call__(self, permit: Permit, handed_out: str | None) -> Ear | None:
        call = permit.call
        # A stream of server messages may bring the answer to a request that another connection carried.
        listens = call.kind is Kind.LISTEN or any(each.method == LIST for each in call.parts or (call,))
        return _Pupil(self._learners, permit.principal, call) if listens else None


class _Pupil:
    """Fulfils `Ear`."""

    __slots__ = ("_call", "_learners", "_principal")

    def __init__(self, learners: tuple[Learn, ...], principal: Principal, call: Call) -> None:
        self._learners = learners
        self._principal = principal
        self._call = call

    def event_id(self, id: bytes) -> None:
        """Nothing to learn."""

    def request(self, id: RequestId) -> None:
        """Nothing to learn."""

    def result(self, method: str | None, result: object) -> None:
        if method not in (None, LIST) or not isinstance(result, dict):
            return
        if isinstance(result.get("tools"), list):
            for learn in self._learners:
                learn(self._principal, self._call, result)

    def passed_on(self, data: bytes) -> bytes:
        return data

    def ended(self, ending: Ending) -> None:
        """Nothing is kept."""
