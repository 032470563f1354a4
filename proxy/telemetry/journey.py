"""The record of one call: opened at its first byte, told by every room, heard by the sinks once, at the end."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeAlias

import msgspec
from msgspec import Struct

from ..model import Cached, Call, Ending, Kind, Outcome, Permit, Principal, Reason, Refused, Rule, Verdict

Sink: TypeAlias = Callable[["Record"], None]
Fields: TypeAlias = Sequence[tuple[bytes, bytes]]


class Trace(Protocol):
    """The part of one call in a trace."""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""
        ...

    @property
    def is_recorded(self) -> bool:
        """Whether it is to be found where traces are collected; if not, it is not told of endings."""
        ...

    def attempted(self, attempt: Try) -> Fields:
        """The call is about to be sent. The header fields that tell the server of the trace."""
        ...

    def attempt_ended(self, attempt: Try) -> None: ...
    def ended(self, record: Record) -> None: ...


class Observers(Struct, frozen=True, kw_only=True):
    """Who hears of journeys, and when. What nobody hears costs nothing."""

    trace: Callable[[Record], Trace | None] | None = None
    """Asked when a call was read; None where it belongs to no trace."""
    unread: Sink | None = None
    """Told at the end of a request that was never read as a call, before the others."""
    permitted: Sequence[Sink] = ()
    """Told when policy lets a call pass."""
    attempt_ended: Sequence[Callable[[Try], None]] = ()
    """Told of each attempt when nothing more comes of it."""
    ended: Sequence[Sink] = ()
    """Told once, at the end; in this order."""


OUTCOMES: Final = {
    Reason.MALFORMED: "invalid",
    Reason.HEADER_MISMATCH: "invalid",
    Reason.VERSION_UNSUPPORTED: "invalid",
    Reason.NO_CREDENTIAL: "unauthenticated",
    Reason.BAD_CREDENTIAL: "unauthenticated",
    Reason.IDP_UNAVAILABLE: "unauthenticated",
    Reason.TOO_MANY_FAILURES: "unauthenticated",
    Reason.RATE_LIMITED: "rate_limited",
    Reason.QUOTA_SPENT: "rate_limited",
    Reason.OVERLOADED: "overloaded",
    Reason.DRAINING: "overloaded",
    Reason.BREAKER_OPEN: "circuit_open",
    Reason.QUARANTINED: "circuit_open",
    Reason.UPSTREAM_UNREACHABLE: "upstream_error",
    Reason.UPSTREAM_BROKE: "upstream_error",
    Reason.UPSTREAM_NONSENSE: "upstream_error",
    Reason.OUTCOME_UNKNOWN: "outcome_unknown",
    Reason.DEADLINE: "timeout",
    Reason.TOO_SLOW: "timeout",
    Reason.ARGUMENT_INVALID: "invalid",
    Reason.MEDIA_TYPE: "invalid",
    Reason.EXPECTATION_FAILED: "invalid",
    Reason.TOO_LARGE: "invalid",
    Reason.PATH_UNKNOWN: "invalid",
    Reason.METHOD_NOT_ALLOWED: "invalid",
    Reason.INTERNAL: "upstream_error",
    Reason.AUDIT_UNAVAILABLE: "overloaded",
}
"""How a refusal counts; every other reason is "denied"."""

_COMPLETE: Final = Ending.COMPLETE  # to ask an enumeration for its members takes calls
_ENDINGS: Final = {
    Ending.COMPLETE: "ok",
    Ending.CLIENT_GONE: "cancelled",
    Ending.UPSTREAM_BROKE: "upstream_error",
    Ending.PROXY_FAILED: "upstream_error",
}


class Journeys:
    """Opens journeys. Ids are unique within the process and across restarts, and say nothing else."""

    def __init__(
        self,
        observers: Observers,
        now: Callable[[], float] = time.monotonic,
        failed: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        self._observers = observers
        self._now = now
        self.failed = failed
        """Told of an observer that raised."""
        self.soon: Callable[[Callable[[], object]], object] | None = None
        """Calls something in the next turn of a loop; None: there is none."""
        self._ended: list[Record] = []
        """Of this turn; nobody was told of them."""
        self._form = f"{secrets.token_hex(6)}-%x"
        self._count = itertools.count(1)

    def open(self, received: float) -> Record:
        return Record(self._form % next(self._count), received, self, self._observers, self._now)

    def ended(self, record: Record) -> None:
        """Tell of it: before its client can say anything more, and together with others that end in the same turn,
        because what tells of them is then still in the processor's caches. Of one that was cut off at once: those who
        had a part in it may have something to say, and it is over."""
        if not self._ended and self.soon is not None:
            self.soon(self.settle)
        self._ended.append(record)
        if self.soon is None or record.ending is not _COMPLETE:
            self.settle()

    def settle(self) -> None:
        """Tell of whatever has ended."""
        ended, self._ended = self._ended, []
        for record in ended:
            record.settle()


class Try:
    """One attempt. Fulfils `model.Attempt`; observers read its fields."""

    __slots__ = ("began", "carries", "duration_s", "number", "record", "refused", "status")

    def __init__(self, record: Record, number: int, began: float) -> None:
        self.record = record
        self.number = number
        """1 for the first."""
        self.began = began
        """Seconds, monotonic."""
        self.carries: Fields = ()
        self.status: int | None = None
        """HTTP status of its answer; None: none came."""
        self.refused: Refused | None = None
        self.duration_s: float | None = None
        """None until it has ended."""

    def unreached(self) -> None:
        self.record.unreached()

    def answered(self, status: int) -> None:
        self.status = status

    def ended(self, refused: Refused | None = None) -> None:
        if self.duration_s is None:
            self.refused = refused
            self.record.attempt_ended(self)


class Record:
    """One journey. Fulfils `model.Journey`; observers read its fields."""

    __slots__ = (
        "_house",
        "_now",
        "_observers",
        "_sent",
        "altered_by",
        "approval_id",
        "args_hash",
        "attempts",
        "cache",
        "call",
        "client_request_id",
        "code",
        "denied_by",
        "duration_s",
        "ending",
        "idempotency_key",
        "notes",
        "permit",
        "principal",
        "received",
        "refusal",
        "reported",
        "request_id",
        "trace",
        "verdict",
        "waited_s",
    )

    def __init__(
        self,
        request_id: str,
        received: float,
        house: Journeys,
        observers: Observers,
        now: Callable[[], float],
    ) -> None:
        self.request_id = request_id
        self.received = received
        self.call: Call | None = None
        self.principal: Principal | None = None
        self.permit: Permit | None = None
        self.refusal: Refused | None = None
        self.verdict: Verdict | None = None
        self.code: int | None = None
        """Of the JSON-RPC error that it was answered with."""
        self.ending: Ending | None = None
        self.attempts = 0
        self.cache: Cached | None = None
        self.altered_by: list[str] = []
        self.reported: tuple[str, Reason] | None = None
        self.denied_by: Rule | None = None
        """The rule by which policy said no."""
        self.approval_id = ""
        self.idempotency_key = ""
        self.trace: Trace | None = None
        self.client_request_id: str | None = None
        self.args_hash: str | None = None
        """Where somebody computes it."""
        self.notes: list[dict[str, object]] | None = None
        """Of whoever looks at this call closely; nobody does by default."""
        self.waited_s = 0.0
        """In the queue for a place at the server."""
        self.duration_s = 0.0
        self._sent = 0
        self._house = house
        self._observers = observers
        self._now = now

    def sibling(self) -> Record:
        """The journey of another message that came in the same request."""
        found = self._house.open(self.received)
        found.client_request_id = self.client_request_id
        return found

    def named(self, client_request_id: str) -> None:
        self.client_request_id = client_request_id

    def read(self, call: Call) -> None:
        self.call = call
        if self._observers.trace is not None:
            try:
                self.trace = self._observers.trace(self)
            except Exception as error:  # a call is worth more than its trace
                self._house.failed(error)

    def identified(self, principal: Principal) -> None:
        self.principal = principal

    def permitted(self, permit: Permit) -> None:
        self.permit = permit
        self._tell(self._observers.permitted)

    def denied(self, rule: Rule) -> None:
        self.denied_by = rule

    def waited(self, seconds: float) -> None:
        self.waited_s += seconds

    def attempted(self) -> Try:
        self.attempts += 1
        self._sent += 1
        attempt = Try(self, self.attempts, self._now())
        if self.trace is not None:
            try:
                attempt.carries = self.trace.attempted(attempt)
            except Exception as error:
                self._house.failed(error)
        return attempt

    def attempt_ended(self, attempt: Try) -> None:
        """Told by the attempt, once."""
        attempt.duration_s = self._now() - attempt.began
        try:
            if self.trace is not None and self.trace.is_recorded:
                self.trace.attempt_ended(attempt)
            for tell in self._observers.attempt_ended:
                tell(attempt)
        except Exception as error:
            self._house.failed(error)

    def unreached(self) -> None:
        """Told by an attempt: it never left."""
        self._sent -= 1

    def answered(self, verdict: Verdict, code: int | None = None) -> None:
        self.verdict, self.code = verdict, code

    def altered(self, what: str) -> None:
        """Something of the exchange was changed on its way; `what` is one of a closed set of words."""
        self.altered_by.append(what)

    def cached(self, how: Cached) -> None:
        self.cache = how

    def would_refuse(self, rule: Rule, reason: Reason) -> None:
        """A rule that only reports would have said no."""
        self.reported = (rule.id, reason)

    def refused(self, refused: Refused) -> None:
        self.refusal = refused

    def known_as(self, approval: str = "", idempotency_key: str = "") -> None:
        self.approval_id = approval or self.approval_id
        self.idempotency_key = idempotency_key or self.idempotency_key

    def forget_payload(self) -> None:
        """The call was forwarded and will be waited for: what it carried is not kept meanwhile."""
        if self.call is not None:
            self.call = self.call.without_payload()
        if self.permit is not None and self.call is not None:
            self.permit = msgspec.structs.replace(self.permit, call=self.call)

    def ended(self, ending: Ending) -> None:
        """The last word; later ones are not heard."""
        if self.ending is not None:
            return
        self.ending = ending
        self.duration_s = self._now() - self.received
        self._house.ended(self)

    def settle(self) -> None:
        """Told by the house, once it has ended."""
        observers = self._observers
        if self.trace is None:
            if observers.unread is not None and self.call is None:
                self._tell((observers.unread,))
        elif self.trace.is_recorded:
            self._tell((self.trace.ended,))
        self._tell(observers.ended)
        # The call holds its journey: together they would wait for the collector, with all that the call carried.
        self.call = self.permit = None

    def _tell(self, sinks: Sequence[Sink]) -> None:
        for tell in sinks:
            try:
                tell(self)
            except (
                Exception
            ) as error:  # a call is worth more than what is said of it, and other observers wait
                self._house.failed(error)

    @property
    def outcome_at_server(self) -> Outcome:
        if self.cache not in (None, Cached.MISS):
            return (
                Outcome.ATTEMPTED if self._sent else Outcome.NOT_REACHED
            )  # what it got was another's answer
        if self.verdict is not None:
            return Outcome.ANSWERED
        if not self._sent:
            return Outcome.NOT_REACHED
        is_unknown = self.refusal is not None and self.refusal.reason is Reason.OUTCOME_UNKNOWN
        return Outcome.UNKNOWN if is_unknown else Outcome.ATTEMPTED

    @property
    def outcome(self) -> str:
        """One word of a closed set: what an operator counts."""
        if self.refusal is not None:
            return OUTCOMES.get(self.refusal.reason, "denied")
        if self.verdict is not None:
            return self.verdict
        if self.ending is Ending.CLIENT_GONE and self.call is not None and self.call.kind is Kind.LISTEN:
            return "ok"  # a stream of server messages ends when the client has heard enough
        return _ENDINGS[self.ending] if self.ending is not None else "ok"
