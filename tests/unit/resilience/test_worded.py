"""Which errors of the server get words, and which. Source: UP-054, UP-055; design.md section 5."""

from __future__ import annotations

from typing import Final

import pytest

from proxy.model import Call, Ending, Headers, Kind, Outcome, Permit, Reason, Refused, Reply, Rule
from proxy.protocol.revisions import TWO_ENDPOINTS
from proxy.resilience.worded import WORDED, Worded
from tests.fakes import Diary, FakeJourney, make_batch, make_call
from tests.unit.resilience.scripted import LEGACY, Server, Source, bounded, permit, refused

NOON: Final = 1_800_000_000.0
IDEMPOTENT: Final = Rule(id="r", idempotent=True)


def stage(reply: Reply) -> Worded:
    server = Server()
    server.gives(reply)
    return Worded(server, wall=lambda: NOON)


def empty(status: int, *retry_after: str) -> Reply:
    return Reply(status, Headers((b"Retry-After", each.encode()) for each in retry_after))


def call(method: str = "tools/call", *, diary: Diary | None = None) -> Call:
    return make_call(method=method, revision=LEGACY, target="t", journey=FakeJourney(diary))


def facts(refusal: Refused) -> tuple[Reason, int | None, float | None]:
    return refusal.reason, refusal.status, refusal.retry_after_s


@pytest.mark.parametrize("status", [429, 500, 501, 502, 503, 504, 505, 511, 599])
@pytest.mark.parametrize("method", ["tools/call", "tools/list", "resources/read", "ping", "anything"])
async def test_nothing_becomes_a_no_with_the_servers_status(status: int, method: str) -> None:
    """Whoever waits is told, and what was held for the answer is given back."""
    diary: Diary = []
    reply = empty(status)
    reply.when_done(lambda ending: diary.append(("done", ending)))
    said = await refused(stage(reply), permit(call(method, diary=diary)))
    runs = method == "tools/call" and status not in (429, 501, 503, 505)
    assert facts(said) == (Reason.OUTCOME_UNKNOWN if runs else Reason.UPSTREAM_BROKE, status, None)
    assert said.why.startswith(f"It answered with HTTP {status} and nothing else.")
    assert diary == [("j1", "altered", WORDED), ("done", Ending.COMPLETE)]


@pytest.mark.parametrize("status", [429, 500, 502, 503])
async def test_what_can_be_done_twice_has_no_unknown_outcome(status: int) -> None:
    """signals.py: one truth about what may have run."""
    said = await refused(stage(empty(status)), permit(call(), IDEMPOTENT))
    assert said.reason is Reason.UPSTREAM_BROKE


@pytest.mark.parametrize(
    ("asked", "told_s", "words"),
    [
        (("7",), 7.0, "after 7 s."),
        (("0",), 0.0, "at once."),
        (("999999999",), 86_400.0, "after 86400 s."),
        (("9" * 500,), 86_400.0, "after 86400 s."),
        (("Fri, 15 Jan 2027 08:00:10 GMT",), 10.0, "after 10 s."),
        (("Wed, 01 Jan 2025 00:00:00 GMT",), 0.0, "at once."),
        (("3", "-1e9"), 3.0, "after 3 s."),
        *(
            ((each,), None, "after a while.")
            for each in ("-1e9", "-1", "1.5", "soon", "", "\u0663", "nan", "1e3")
        ),
        ((), None, "after a while."),
    ],
)
async def test_when_to_come_back_is_told_where_it_makes_sense(
    asked: tuple[str, ...], told_s: float | None, words: str
) -> None:
    """UP-054: 31 years become a day. UP-055: what says nothing says nothing."""
    said = await refused(stage(empty(503, *asked)), permit(call()))
    assert said.retry_after_s == told_s
    assert said.why.endswith(words)


async def test_nobody_is_told_when_to_repeat_what_may_have_happened() -> None:
    """Promise 4: a client that obeys by itself would do it twice."""
    assert facts(await refused(stage(empty(502, "7")), permit(call()))) == (Reason.OUTCOME_UNKNOWN, 502, None)


async def test_a_batch_is_told_as_one() -> None:
    """2025-03-26: any of its calls may have run."""
    diary: Diary = []
    parts = [
        make_call(method=each, id=id, journey=FakeJourney(diary, f"j{id}"))
        for id, each in enumerate(("tools/list", "tools/call"))
    ]
    said = await refused(stage(empty(500)), permit(make_batch(*parts)))
    assert facts(said) == (Reason.OUTCOME_UNKNOWN, 500, None)
    assert diary == [("j0", "altered", WORDED), ("j1", "altered", WORDED)]


def kinds() -> list[Permit]:
    note = make_call(method="notifications/initialized", kind=Kind.NOTIFICATION, id=None)
    return [
        *(permit(call(method)) for method in ("initialize", "server/discover")),
        *(permit(make_call(kind=kind, method="", id=None)) for kind in (Kind.LISTEN, Kind.END, Kind.ANSWER)),
        permit(note),
        permit(make_batch(note)),
    ]


@pytest.mark.parametrize("asked", kinds())
async def test_nobody_waits_for_words(asked: Permit) -> None:
    """And handshakes keep a plain status: design section 5."""
    reply = empty(503, "-1e9")
    assert await bounded(stage(reply), asked) is reply


@pytest.mark.parametrize(
    "reply",
    [
        *(empty(status) for status in (200, 202, 400, 401, 403, 404, 405, 410, 428, 430, 499)),
        *(Reply(503, Headers(), body) for body in (b" ", b"{}", b"busy")),
        Source().reply("text/event-stream", 503),
        Source().reply("text/plain", 503),
    ],
)
async def test_everything_else_passes_as_it_is(reply: Reply) -> None:
    """Promise 1."""
    assert await bounded(stage(reply), permit(call())) is reply


async def test_where_answers_arrive_elsewhere_the_same_holds() -> None:
    """2024-11-05: the POST was refused, so no answer will come on the stream."""
    asked = make_call(revision=TWO_ENDPOINTS, target="t")
    assert (await refused(stage(empty(503)), permit(asked))).reason is Reason.UPSTREAM_BROKE


async def test_whoever_has_its_answer_gets_no_second_one() -> None:
    """2024-11-05: the stream may be quicker than the POST."""
    journey = FakeJourney()
    journey.outcome_at_server = Outcome.ANSWERED
    reply = empty(503)
    asked = permit(make_call(revision=TWO_ENDPOINTS, target="t", journey=journey))
    assert await bounded(stage(reply), asked) is reply
    # Elsewhere the error itself is what it was answered.
    await refused(stage(reply), permit(make_call(revision=LEGACY, target="t", journey=journey)))
