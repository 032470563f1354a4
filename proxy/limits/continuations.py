"""Which calls go on where another stopped to ask? Results as they pass → who may continue once, free of quota.

A server of 2026-07-28 may answer `input_required`, and the client asks again with what it wanted to know: one call for
its caller, two requests for us. That a request says that it continues something proves nothing, so what counts is that
this caller really was given such a result of this tool, and has not used it yet. Bounded: who has many loses the
oldest.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, TypeAlias

from ..model import Call, Ear, Ending, Identity, Permit, RequestId

MAY_ASK: Final = frozenset({"tools/call", "prompts/get", "resources/read"})
"""Methods whose results may be input_required (multi-round-trip requests)."""
MOST_OF_TENANT: Final = 1_000
MOST: Final = 10_000
MOST_OF_ONE: Final = 16
"""Of one tool, for one caller: several calls at once."""
LONGEST_NAME: Final = 1_024

Open: TypeAlias = tuple[Identity, str, str]
"""Who, the method, and what it names."""


class Continuations:
    """The questions that callers were given and have not answered."""

    def __init__(self, *, most: int = MOST, most_of_tenant: int = MOST_OF_TENANT) -> None:
        self._most = most
        self._most_of_tenant = most_of_tenant
        self._open: OrderedDict[Open, int] = OrderedDict()
        self._of_tenant: dict[str, OrderedDict[Open, None]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def listen(self, permit: Permit, handed_out: str | None) -> Ear | None:
        """Fulfils `model.Listen`."""
        what = _what(permit)
        return None if what is None else _Listener(self, what)

    def use(self, permit: Permit) -> Open | None:
        """What this call continues, which is spent by it; None where it continues nothing."""
        what = _what(permit) if says_continues(permit.call) else None
        count = 0 if what is None else self._open.get(what, 0)
        if what is None or not count:
            return None
        if count > 1:
            self._open[what] = count - 1
        else:
            self._forget(what)
        return what

    def give(self, what: Open) -> None:
        """A question was put, or what was spent on its answer is there again."""
        self._open[what] = min(self._open.get(what, 0) + 1, MOST_OF_ONE)
        self._open.move_to_end(what)
        mine = self._of_tenant.setdefault(_tenant(what), OrderedDict())
        mine[what] = None
        mine.move_to_end(what)
        if len(mine) > self._most_of_tenant or (len(self._open) > self._most and len(mine) > 1):
            self._forget(next(iter(mine)))
        elif len(self._open) > self._most:
            self._forget(next(iter(self._open)))

    def _forget(self, what: Open) -> None:
        del self._open[what]
        mine = self._of_tenant[_tenant(what)]
        del mine[what]
        if not mine:
            del self._of_tenant[_tenant(what)]


class _Listener:
    """Fulfils `Ear`."""

    __slots__ = ("_continuations", "_what")

    def __init__(self, continuations: Continuations, what: Open) -> None:
        self._continuations = continuations
        self._what: Open | None = what

    def event_id(self, id: bytes) -> None:
        """Nothing to learn."""

    def request(self, id: RequestId, method: str, params: object) -> None:
        """Nothing to learn."""

    def notification(self, method: str, params: object) -> None:
        """Nothing to learn."""

    def result(self, method: str | None, result: object) -> None:
        if self._what is None or method != self._what[1]:
            return
        if isinstance(result, dict) and result.get("resultType") == "input_required":
            self._continuations.give(self._what)
            # One request, one question.
            self._what = None

    def passed_on(self, data: bytes) -> bytes:
        return data

    def ended(self, ending: Ending) -> None:
        """Nothing is kept."""


def says_continues(call: Call) -> bool:
    """Whether a request claims to continue another: it holds what only those hold."""
    return "inputResponses" in call.params or "requestState" in call.params


def _what(permit: Permit) -> Open | None:
    call = permit.call
    if not _may_ask(call) or call.target is None or len(call.target) > LONGEST_NAME:
        return None
    return permit.principal.identity, call.method, call.target


def _may_ask(call: Call) -> bool:
    return call.revision.has_result_type and not call.parts and call.method in MAY_ASK


def _tenant(what: Open) -> str:
    return what[0][2]
