"""The record of one call: what it is told, and that the sinks hear of it once, at the end."""

from collections.abc import Callable

import pytest

from proxy.model import Cached, Ending, Kind, Outcome, Permit, Reason, Refused, Verdict
from proxy.telemetry.journey import Fields, Journeys, Observers, Record, Sink, Try
from tests.fakes import PRINCIPAL, RULE, make_call

STATUSES = {
    "ok",
    "tool_error",
    "rpc_error",
    "denied",
    "unauthenticated",
    "rate_limited",
    "overloaded",
    "invalid",
    "timeout",
    "circuit_open",
    "upstream_error",
    "outcome_unknown",
    "cancelled",
}
"""design section 6."""


def opened(*sinks: Sink, received: float = 10.0, now: float = 12.5) -> Record:
    return Journeys(Observers(ended=sinks), lambda: now).open(received)


def test_sinks_hear_of_a_journey_once_and_in_their_order() -> None:
    """Own promise: at the end, when everything is known; a second ending is not heard."""
    heard: list[tuple[str, Record]] = []
    record = opened(
        lambda record: heard.append(("first", record)), lambda record: heard.append(("second", record))
    )
    assert heard == []
    record.ended(Ending.CLIENT_GONE)
    record.ended(Ending.COMPLETE)
    assert heard == [("first", record), ("second", record)]
    assert (record.ending, record.duration_s) == (Ending.CLIENT_GONE, 2.5)


def test_what_ends_in_the_same_turn_is_told_together() -> None:
    """Own promise: in the next turn, in their order, and whoever was cut off at once, with those before."""
    heard: list[Record] = []
    turns: list[Callable[[], object]] = []
    house = Journeys(Observers(ended=[heard.append]), lambda: 0.0)
    house.soon = turns.append
    one, two, three, four = records = [house.open(0.0) for _ in range(4)]
    one.ended(Ending.COMPLETE)
    two.ended(Ending.COMPLETE)
    assert (heard, len(turns)) == ([], 1)
    turns.pop()()
    assert heard == [one, two]
    three.ended(Ending.COMPLETE)
    four.ended(Ending.CLIENT_GONE)
    assert heard == records
    turns.pop()()
    assert (heard, turns) == (records, [])


def test_whoever_raises_keeps_nobody_from_hearing_of_the_others() -> None:
    """Own promise: a call is worth more than what is said of it, also of those that are told of together."""
    heard: list[Record] = []
    failures: list[Exception] = []

    def fails(record: Record) -> None:
        raise KeyError(record.request_id)

    turns: list[Callable[[], object]] = []
    house = Journeys(Observers(ended=[fails, heard.append]), lambda: 0.0, failures.append)
    house.soon = turns.append
    records = [house.open(0.0) for _ in range(2)]
    for record in records:
        record.ended(Ending.COMPLETE)
    turns.pop()()
    assert (heard, len(failures)) == (records, 2)


def test_a_record_keeps_what_the_rooms_said() -> None:
    """Style guide 3: the journey hears everything, refusals and retries included."""
    record = opened()
    call = make_call()
    refused = Refused(Reason.MODE)
    permit = Permit(call=call, principal=PRINCIPAL, rule=RULE)
    record.read(call)
    record.identified(PRINCIPAL)
    record.permitted(permit)
    record.attempted()
    record.attempted()
    record.altered("redirect")
    record.altered("accept-encoding")
    record.answered(Verdict.OK)
    record.refused(refused)
    assert (record.call, record.principal, record.permit, record.refusal) == (
        call,
        PRINCIPAL,
        permit,
        refused,
    )
    assert (record.attempts, record.altered_by, record.verdict) == (
        2,
        ["redirect", "accept-encoding"],
        Verdict.OK,
    )


def test_a_journey_lets_go_of_its_call_when_it_has_ended() -> None:
    """Own promise: calls hold their journeys, and must not wait for the collector of cycles when they are over."""
    record = opened()
    call = make_call(journey=record)
    record.read(call)
    record.permitted(Permit(call=call, principal=PRINCIPAL, rule=RULE))
    record.ended(Ending.COMPLETE)
    assert (record.call, record.permit) == (None, None)


def test_every_journey_has_an_id_of_its_own() -> None:
    """Own promise: unique in the process and across restarts; a sibling came with the same bytes."""
    house = Journeys(Observers(), lambda: 0.0)
    record = house.open(7.0)
    sibling = record.sibling()
    ids = {
        record.request_id,
        sibling.request_id,
        house.open(7.0).request_id,
        Journeys(Observers()).open(7.0).request_id,
    }
    assert len(ids) == 4
    assert all(id.replace("-", "").isalnum() for id in ids)
    assert (sibling.received, sibling.call) == (7.0, None)


OUTCOMES = {
    Reason.MALFORMED: "invalid",
    Reason.HEADER_MISMATCH: "invalid",
    Reason.VERSION_UNSUPPORTED: "invalid",
    Reason.NO_CREDENTIAL: "unauthenticated",
    Reason.BAD_CREDENTIAL: "unauthenticated",
    Reason.SCOPE_MISSING: "denied",
    Reason.NOT_ALLOWED: "denied",
    Reason.NOT_VISIBLE: "denied",
    Reason.APPROVAL_REQUIRED: "denied",
    Reason.ARGUMENT_INVALID: "invalid",
    Reason.RATE_LIMITED: "rate_limited",
    Reason.QUOTA_SPENT: "rate_limited",
    Reason.OVERLOADED: "overloaded",
    Reason.BREAKER_OPEN: "circuit_open",
    Reason.QUARANTINED: "circuit_open",
    Reason.MODE: "denied",
    Reason.IDP_UNAVAILABLE: "unauthenticated",
    Reason.TOO_MANY_FAILURES: "unauthenticated",
    Reason.TASK_UNKNOWN: "denied",
    Reason.UPSTREAM_UNREACHABLE: "upstream_error",
    Reason.UPSTREAM_BROKE: "upstream_error",
    Reason.UPSTREAM_NONSENSE: "upstream_error",
    Reason.OUTCOME_UNKNOWN: "outcome_unknown",
    Reason.DEADLINE: "timeout",
    Reason.DRAINING: "overloaded",
    Reason.INTERNAL: "upstream_error",
    Reason.AUDIT_UNAVAILABLE: "overloaded",
    Reason.ORIGIN_NOT_ALLOWED: "denied",
    Reason.HOST_NOT_ALLOWED: "denied",
    Reason.PATH_UNKNOWN: "invalid",
    Reason.METHOD_NOT_ALLOWED: "invalid",
    Reason.MEDIA_TYPE: "invalid",
    Reason.EXPECTATION_FAILED: "invalid",
    Reason.TOO_LARGE: "invalid",
    Reason.TOO_SLOW: "timeout",
    Reason.SESSION_UNKNOWN: "denied",
}


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_counts_as_one_status(reason: Reason) -> None:
    """design section 6: a closed set, whatever ended the call and whatever the server said before."""
    record = opened()
    record.answered(Verdict.OK)
    record.refused(Refused(reason))
    record.ended(Ending.CLIENT_GONE)
    assert record.outcome == OUTCOMES[reason]
    assert record.outcome in STATUSES


@pytest.mark.parametrize(
    ("verdict", "ending", "kind", "outcome"),
    [
        (Verdict.OK, Ending.COMPLETE, Kind.REQUEST, "ok"),
        (Verdict.TOOL_ERROR, Ending.COMPLETE, Kind.REQUEST, "tool_error"),
        (Verdict.RPC_ERROR, Ending.CLIENT_GONE, Kind.REQUEST, "rpc_error"),
        (None, Ending.COMPLETE, Kind.NOTIFICATION, "ok"),
        (None, Ending.CLIENT_GONE, Kind.REQUEST, "cancelled"),
        (None, Ending.CLIENT_GONE, Kind.LISTEN, "ok"),
        (None, Ending.CLIENT_GONE, None, "cancelled"),
        (None, Ending.UPSTREAM_BROKE, Kind.LISTEN, "upstream_error"),
        (None, Ending.PROXY_FAILED, Kind.REQUEST, "upstream_error"),
        (None, None, Kind.REQUEST, "ok"),
    ],
)
def test_what_was_not_refused_counts_as_it_was_answered_or_ended(
    verdict: Verdict | None, ending: Ending | None, kind: Kind | None, outcome: str
) -> None:
    """design section 6; a client that has heard enough of a stream of messages has cancelled nothing."""
    heard: list[str] = []
    record = opened(lambda ended: heard.append(ended.outcome))
    if kind is not None:
        record.read(make_call(kind=kind))
    if verdict is not None:
        record.answered(verdict)
    if ending is not None:
        record.ended(ending)
    assert (heard or [record.outcome]) == [outcome]
    assert outcome in STATUSES


def test_a_sink_that_fails_harms_neither_the_call_nor_the_other_sinks() -> None:
    """Own promise (telemetry/__init__.py): one that fails harms no call."""
    heard: list[Record] = []

    def fail(_: Record) -> None:
        raise OSError("disk full")

    record = opened(fail, heard.append)
    record.ended(Ending.COMPLETE)
    assert heard == [record]


@pytest.mark.parametrize(
    ("told", "outcome"),
    [
        ([], Outcome.NOT_REACHED),
        (["refused"], Outcome.NOT_REACHED),
        (["attempted", "unreached"], Outcome.NOT_REACHED),
        (["attempted"], Outcome.ATTEMPTED),
        (["attempted", "attempted", "unreached"], Outcome.ATTEMPTED),
        (["attempted", "unknown"], Outcome.UNKNOWN),
        (["attempted", "answered"], Outcome.ANSWERED),
        (["attempted", "answered", "refused"], Outcome.ANSWERED),
        (["missed", "attempted", "answered"], Outcome.ANSWERED),
        (["answered", "hit"], Outcome.NOT_REACHED),
        (["joined", "answered"], Outcome.NOT_REACHED),
        (["attempted", "stale", "answered"], Outcome.ATTEMPTED),
    ],
)
def test_what_became_of_a_call_at_the_server_is_known(told: list[str], outcome: Outcome) -> None:
    """Design section 4, capacity: what a limit settles on is an outcome, not how the stream ended."""
    record = opened()
    tell: dict[str, Callable[[], object]] = {
        "attempted": record.attempted,
        "unreached": record.unreached,
        "answered": lambda: record.answered(Verdict.OK),
        "refused": lambda: record.refused(Refused(Reason.MODE)),
        "unknown": lambda: record.refused(Refused(Reason.OUTCOME_UNKNOWN)),
        "missed": lambda: record.cached(Cached.MISS),
        "hit": lambda: record.cached(Cached.HIT),
        "joined": lambda: record.cached(Cached.JOINED),
        "stale": lambda: record.cached(Cached.STALE),
    }

    for word in told:
        tell[word]()

    assert record.outcome_at_server is outcome


class _Told:
    """A trace that writes down what it is told, or raises."""

    is_recorded = True
    trace_id = "0af7651916cd43dd8448eb211c80319c"

    def __init__(self, error: Exception | None = None) -> None:
        self.diary: list[tuple[object, ...]] = []
        self._error = error

    def _hear(self, *words: object) -> None:
        if self._error is not None:
            raise self._error
        self.diary.append(words)

    def attempted(self, attempt: Try) -> Fields:
        self._hear("attempted", attempt.number)
        return ((b"traceparent", b"00"),)

    def attempt_ended(self, attempt: Try) -> None:
        self._hear("attempt ended", attempt.number, attempt.status, attempt.refused)

    def ended(self, record: Record) -> None:
        self._hear("ended", record.outcome)


def _observed(trace: _Told, failures: list[Exception]) -> tuple[Record, list[tuple[object, ...]]]:
    seen: list[tuple[object, ...]] = []
    observers = Observers(
        trace=lambda _: trace,
        permitted=[lambda record: seen.append(("permitted", record.permit))],
        attempt_ended=[lambda attempt: seen.append(("attempt", attempt.number, attempt.duration_s))],
        ended=[lambda record: seen.append(("ended", record.waited_s))],
    )
    return Journeys(observers, lambda: 12.0, failures.append).open(10.0), seen


def test_observers_hear_of_every_step() -> None:
    """Issue "What happened", 1: the journey hears queueing, attempts and the end; each attempt ends once."""
    trace, failures = _Told(), list[Exception]()
    record, seen = _observed(trace, failures)
    permit = Permit(call=make_call(), principal=PRINCIPAL, rule=RULE)
    record.read(permit.call)
    record.permitted(permit)
    record.waited(0.25)
    first, second = record.attempted(), record.attempted()
    refused = Refused(Reason.UPSTREAM_UNREACHABLE)
    first.unreached()
    first.ended(refused)
    first.ended()
    second.answered(200)
    second.ended()
    record.ended(Ending.COMPLETE)
    assert seen == [("permitted", permit), ("attempt", 1, 0.0), ("attempt", 2, 0.0), ("ended", 0.25)]
    assert trace.diary == [
        ("attempted", 1),
        ("attempted", 2),
        ("attempt ended", 1, None, refused),
        ("attempt ended", 2, 200, None),
        ("ended", "ok"),
    ]
    assert (first.carries, failures) == (((b"traceparent", b"00"),), [])


def test_an_observer_that_fails_harms_no_call() -> None:
    """Own promise: what is said of a call is worth less than the call; those who fail are reported, each time."""
    error = RuntimeError("no more memory for spans")
    failures: list[Exception] = []
    record, seen = _observed(_Told(error), failures)
    record.read(make_call())
    attempt = record.attempted()
    attempt.ended()
    record.ended(Ending.COMPLETE)
    assert (attempt.carries, failures) == ((), [error, error, error])
    assert seen[-1] == ("ended", 0.0)


def test_a_denial_names_its_rule() -> None:
    """Design section 6, policy_denied_total{rule_id}."""
    record = opened()
    record.denied(RULE)
    assert record.denied_by is RULE
