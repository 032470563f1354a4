"""What does the server say of its tools and of itself, and to whom? Answers as they pass → whoever wants to know.

In: results of tools/list, instructions, `list_changed`. Out: the same, told once. Keeps nothing. Lists may differ by
caller, so each is told with the principal that got it.

What is too large to be read whole while it passes is told by whoever looks at lists later (`Lessons.tools`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from msgspec import Struct

from ..model import Call, Ear, Ending, Kind, Permit, Principal, RequestId

_LISTEN: Final = Kind.LISTEN
LIST: Final = "tools/list"
CHANGED: Final = "notifications/tools/list_changed"
INTRODUCTIONS: Final = frozenset({"initialize", "server/discover"})
"""The methods whose results hold the server's instructions."""

Learn: TypeAlias = Callable[[Principal, Call, Mapping[str, object]], None]
"""Told of one page: `tools` is a list in it. Raises Refused where the page must not pass."""
LearnText: TypeAlias = Callable[[Principal, str], None]


class Lessons(Struct, frozen=True, kw_only=True):
    """Who wants to know what."""

    tools: tuple[Learn, ...] = ()
    instructions: tuple[LearnText, ...] = ()
    """Of the server to its clients."""
    changed: tuple[Callable[[], None], ...] = ()
    """The tools are not those of the last list; told by any exchange."""

    def learn(self, principal: Principal, call: Call, page: Mapping[str, object]) -> None:
        """Tell one page of tools/list. Raises Refused."""
        for learn in self.tools:
            learn(principal, call, page)


class Learning:
    """Fulfils `Listen` where somebody wants to know."""

    def __init__(self, lessons: Lessons) -> None:
        self._lessons = lessons
        self._hears_all = bool(lessons.changed)
        """Any stream may say that the tools have changed."""
        introductions = INTRODUCTIONS if lessons.instructions else frozenset()
        self._methods = frozenset({LIST, *introductions})

    def __call__(self, permit: Permit, handed_out: str | None) -> Ear | None:
        call = permit.call
        if call.parts:
            may_teach = any(each.method in self._methods for each in call.parts)
        else:
            # A stream of server messages may bring the answer to a request that another connection carried.
            may_teach = call.method in self._methods or call.kind is _LISTEN
        return _Pupil(self._lessons, permit.principal, call) if may_teach or self._hears_all else None


class _Pupil:
    """Fulfils `Ear`."""

    __slots__ = ("_call", "_lessons", "_principal")

    def __init__(self, lessons: Lessons, principal: Principal, call: Call) -> None:
        self._lessons = lessons
        self._principal = principal
        self._call = call

    def event_id(self, id: bytes) -> None:
        """Nothing to learn."""

    def request(self, id: RequestId, method: str, params: object) -> None:
        """Nothing to learn."""

    def notification(self, method: str, params: object) -> None:
        if method == CHANGED:
            for tell in self._lessons.changed:
                tell()

    def result(self, method: str | None, result: object) -> None:
        if not isinstance(result, dict):
            return
        if method in (None, LIST) and isinstance(result.get("tools"), list):
            self._lessons.learn(self._principal, self._call, result)
        if method is None or method in INTRODUCTIONS:
            self._introduced(result.get("instructions"))

    def _introduced(self, text: object) -> None:
        if isinstance(text, str):
            for learn in self._lessons.instructions:
                learn(self._principal, text)

    def passed_on(self, data: bytes) -> bytes:
        return data

    def ended(self, ending: Ending) -> None:
        """Nothing is kept."""
