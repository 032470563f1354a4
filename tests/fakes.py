"""Hand-written fakes that fulfil the Protocols of `proxy.model`: each writes into a diary what it was told.

A diary is one list that several fakes share, so that a test can compare a whole story, order included.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import pytest

from proxy.model import (
    NOBODY,
    Cached,
    Call,
    Ending,
    Headers,
    Journey,
    Kind,
    Outcome,
    Peer,
    Permit,
    Principal,
    Reason,
    Refused,
    Reply,
    RequestId,
    Revision,
    Rule,
    Verdict,
)
from proxy.protocol.revisions import UNNAMED

Diary: TypeAlias = list[tuple[object, ...]]
_Said = TypeVar("_Said")

PRINCIPAL = Principal(issuer="test", subject="ann", tenant="acme")
RULE = Rule(id="r-1")


async def awaited(said: _Said | Awaitable[_Said]) -> _Said:
    """What a room says, at once or when it is awaited."""
    return await said if isinstance(said, Awaitable) else said


class FakeAttempt:
    """Fulfils `Attempt`."""

    def __init__(self, journey: FakeJourney) -> None:
        self._journey = journey
        self._is_over = False
        self.carries: Sequence[tuple[bytes, bytes]] = ()

    def unreached(self) -> None:
        self._journey.write("unreached")

    def answered(self, status: int) -> None:
        self._journey.write("answered", status)

    def ended(self, refused: Refused | None = None) -> None:
        if not self._is_over:
            self._journey.write("attempt ended", *(() if refused is None else (refused.reason,)))
        self._is_over = True


class FakeJourney:
    """Fulfils `Journey`. Siblings share the diary and count on."""

    def __init__(
        self, diary: Diary | None = None, name: str = "j1", count: itertools.count[int] | None = None
    ) -> None:
        self.request_id = name
        self.diary: Diary = [] if diary is None else diary
        self.calls: list[Call] = []
        self._count = count or itertools.count(2)
        self.outcome_at_server = Outcome.NOT_REACHED
        """What limits are told; a test says what it wants them to hear."""

    def write(self, *words: object) -> None:
        self.diary.append((self.request_id, *words))

    def named(self, client_request_id: str) -> None:
        self.write("named", client_request_id)

    def read(self, call: Call) -> None:
        self.calls.append(call)

    def identified(self, principal: Principal) -> None:
        self.write("identified", principal.subject)

    def permitted(self, permit: Permit) -> None:
        self.write("permitted", permit.rule.id)

    def denied(self, rule: Rule) -> None:
        self.write("denied", rule.id)

    def waited(self, seconds: float) -> None:
        self.write("waited", seconds)

    def attempted(self) -> FakeAttempt:
        self.write("attempted")
        return FakeAttempt(self)

    def answered(self, verdict: Verdict, code: int | None = None) -> None:
        self.write("answered", verdict)

    def would_refuse(self, rule: Rule, reason: Reason) -> None:
        self.write("would refuse", rule.id, reason)

    def altered(self, what: str) -> None:
        self.write("altered", what)

    def cached(self, how: Cached) -> None:
        self.write("cached", how)

    def refused(self, refused: Refused) -> None:
        self.write("refused", refused.reason)

    def ended(self, ending: Ending) -> None:
        self.write("ended", ending)

    def forget_payload(self) -> None:
        self.write("forgot the payload")

    def known_as(self, approval: str = "", idempotency_key: str = "") -> None:
        self.write("known as", approval or idempotency_key)

    def sibling(self) -> FakeJourney:
        return FakeJourney(self.diary, f"j{next(self._count)}", self._count)


class FakeLease:
    """Fulfils `Lease`."""

    def __init__(self, diary: Diary, name: object) -> None:
        self._diary = diary
        self._name = name

    def release(self, ending: Ending) -> None:
        self._diary.append(("lease", self._name, ending))


class FakeIdentify:
    """Fulfils `Identify`: names the caller, or raises what it was given."""

    def __init__(self, diary: Diary, error: BaseException | None = None, *, at_once: bool = False) -> None:
        self._diary = diary
        self._error = error
        self._at_once = at_once

    def __call__(self, call: Call) -> Principal | Awaitable[Principal]:
        return self._said(call) if self._at_once else self._asked(call)

    async def _asked(self, call: Call) -> Principal:
        return self._said(call)

    def _said(self, call: Call) -> Principal:
        self._diary.append(("identify", call.id))
        if self._error is not None:
            raise self._error
        return PRINCIPAL


class FakeAuthorise:
    """Fulfils `Authorise`: permits, or raises what it was given for the id of a call."""

    def __init__(self, diary: Diary, errors: Mapping[object, BaseException] | None = None) -> None:
        self._diary = diary
        self._errors = errors or {}

    def __call__(self, call: Call, principal: Principal) -> Permit:
        self._diary.append(("authorise", call.id))
        if call.id in self._errors:
            raise self._errors[call.id]
        return Permit(call=call, principal=principal, rule=RULE)


class FakeLimit:
    """Fulfils `Limit`: hands out leases, if any, or raises what it was given for the id of a call."""

    def __init__(
        self,
        diary: Diary,
        errors: Mapping[object, BaseException] | None = None,
        *,
        leases: bool = True,
        at_once: bool = False,
    ) -> None:
        self._diary = diary
        self._errors = errors or {}
        self._leases = leases
        self._at_once = at_once

    def __call__(self, permit: Permit) -> FakeLease | Awaitable[FakeLease | None] | None:
        return self._said(permit) if self._at_once else self._asked(permit)

    async def _asked(self, permit: Permit) -> FakeLease | None:
        return self._said(permit)

    def _said(self, permit: Permit) -> FakeLease | None:
        id = permit.call.id
        self._diary.append(("limit", id))
        if id in self._errors:
            raise self._errors[id]
        return FakeLease(self._diary, id) if self._leases else None

    async def denied(self, call: Call, principal: Principal) -> None:
        self._diary.append(("denied", call.id))
        if call.id in self._errors:
            raise self._errors[call.id]


class FakeStage:
    """Fulfils `Stage`: answers what it was given, raises it, or does it."""

    def __init__(self, diary: Diary, answer: Reply | BaseException | Callable[[], Awaitable[Reply]]) -> None:
        self._diary = diary
        self._answer = answer

    async def __call__(self, permit: Permit) -> Reply:
        self._diary.append(("serve", *(part.id for part in permit.call.parts or (permit.call,))))
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer if isinstance(self._answer, Reply) else await self._answer()


def make_call(
    *,
    method: str = "tools/call",
    id: RequestId | None = 1,
    kind: Kind = Kind.REQUEST,
    revision: Revision = UNNAMED,
    target: str | None = None,
    params: Mapping[str, object] | None = None,
    parts: tuple[Call, ...] = (),
    body: bytes = b"",
    headers: Headers | None = None,
    session: str | None = None,
    last_event_id: str | None = None,
    query: str = "",
    peer: Peer = NOBODY,
    journey: Journey | None = None,
) -> Call:
    """A call as the reader would have made it; a tools/call of 2025-03-26 unless told otherwise."""
    return Call(
        revision=revision,
        kind=kind,
        id=id,
        method=method,
        target=target,
        params=params or {},
        headers=headers if headers is not None else Headers(),
        body=body,
        query=query,
        session=session,
        last_event_id=last_event_id,
        parts=parts,
        received=0.0,
        peer=peer,
        journey=journey or FakeJourney(),
    )


def make_batch(*parts: Call, body: bytes = b"[]") -> Call:
    """The call that carries `parts`; its journey is that of the first."""
    return make_call(method="", id=None, kind=Kind.BATCH, parts=parts, body=body, journey=parts[0].journey)


def make_headers(**fields: str | bytes) -> Headers:
    """Header fields from Python names: `mcp_name="x"` is `mcp-name: x`."""
    return Headers(
        (name.replace("_", "-").encode(), value if isinstance(value, bytes) else value.encode())
        for name, value in fields.items()
    )


def no(act: Callable[[], Any]) -> Refused:
    """The refusal that `act` raises."""
    with pytest.raises(Refused) as caught:
        act()
    return caught.value


class FakeEar:
    """Fulfils `Ear`: hears everything, changes what it is told to change, and refuses where it is told to."""

    def __init__(
        self,
        diary: Diary,
        *,
        error: Refused | None = None,
        changes: Mapping[bytes, bytes] | None = None,
        refuses: frozenset[bytes] = frozenset(),
    ) -> None:
        """`error` is what it says to every result, `changes` and `refuses` are about the data of events."""
        self._diary = diary
        self._error = error
        self._refuses = refuses
        self._changes = changes or {}

    def event_id(self, id: bytes) -> None:
        self._diary.append(("event id", id))

    def request(self, id: RequestId, method: str, params: object) -> None:
        self._diary.append(("request", id))

    def notification(self, method: str, params: object) -> None:
        self._diary.append(("notification", method, params))

    def result(self, method: str | None, result: object) -> None:
        self._diary.append(("result", method, result))
        if self._error is not None:
            raise self._error

    def passed_on(self, data: bytes) -> bytes:
        if data in self._refuses:
            raise Refused(Reason.UPSTREAM_NONSENSE)
        return self._changes.get(data, data)

    def ended(self, ending: Ending) -> None:
        self._diary.append(("ear", ending))
