"""Whatever is handed out, ended and claimed, by whom and in which order: a claim is let through if, and only if, it is
the caller's own."""

from __future__ import annotations

import itertools
from typing import TypeAlias

from hypothesis import given
from hypothesis import strategies as st

from proxy.identity.exchange import Exchange
from proxy.identity.ownership import Ownership
from proxy.model import Call, Ending, Kind, Permit, Principal, Refused
from proxy.protocol.revisions.r2025_11_25 import R2025_11_25 as LEGACY
from tests.fakes import RULE, make_call
from tests.fuzz.bounded import FUZZ

PEOPLE = [
    Principal(issuer="iss", subject="ann", tenant="acme"),
    Principal(issuer="iss", subject="bob", tenant="acme"),
    Principal(issuer="iss", subject="ann", tenant="other"),
]
SESSIONS = ["s-0", "s" * 300, "s" * 299 + "0", None]
NAMES = ["1", "x" * 300, "x" * 299 + "0"]

Who: TypeAlias = int
Where: TypeAlias = tuple[Who, str | None]


class Plain:
    """What is whose, written down as one would say it."""

    def __init__(self) -> None:
        self.sessions: dict[str, Who] = {}
        self.tasks: dict[str, tuple[Who, str | None]] = {}
        self.events: set[tuple[Who, str | None, str]] = set()
        self.questions: set[tuple[Who, str | None, str]] = set()

    def may(self, who: Who, session: str | None) -> bool:
        return session is None or self.sessions.get(session) == who

    def end(self, session: str) -> None:
        del self.sessions[session]
        self.tasks = {task: where for task, where in self.tasks.items() if where[1] != session}
        self.events = {each for each in self.events if each[1] != session}
        self.questions = {each for each in self.questions if each[1] != session}


def call_of(session: str | None, **more: object) -> Call:
    return make_call(revision=LEGACY, session=session, **more)  # type: ignore[arg-type]  # checked where it is made


def lets_through(owns: Ownership, who: Who, call: Call) -> bool:
    try:
        owns.check(call, PEOPLE[who])
    except Refused:
        return False
    return True


KINDS = ["give", "end", "task", "event", "question", "close"]
STEPS = list(itertools.product(KINDS, range(len(PEOPLE)), SESSIONS, NAMES))


@FUZZ
@given(story=st.binary(min_size=60, max_size=200))
def test_a_claim_passes_if_and_only_if_it_is_the_callers_own(story: bytes) -> None:
    """Each byte is a step."""
    owns, plain = Ownership(), Plain()
    streams: dict[Where, Exchange] = {}
    for what, who, session, name in (STEPS[step % len(STEPS)] for step in story):
        if not plain.may(who, session) and what != "give":
            continue  # check() comes first: a claim that is not the caller's own reaches no server
        ear = streams.get((who, session)) or listening(owns, who, session)
        if what == "give" and session is not None:
            is_refused = False
            try:
                owns.listen(Permit(call=call_of(None), principal=PEOPLE[who], rule=RULE), session)
            except Refused:
                is_refused = True
            assert is_refused == (plain.sessions.setdefault(session, who) != who)
        elif what == "end" and session is not None:
            owns.forget(PEOPLE[who], session)
            plain.end(session)
        elif what == "task":
            try:
                ear.result("tools/call", {"task": {"taskId": name}})
            except Refused:
                assert plain.tasks[name][0] != who
            else:
                assert plain.tasks.setdefault(name, (who, session))[0] == who
        elif what == "event":
            ear.event_id(name.encode())
            streams[who, session] = ear
            plain.events.add((who, session, name))
        elif what == "question":
            ear.request(name, "ping", {})
            plain.questions.add((who, session, name))
        elif what == "close" and (who, session) in streams:
            streams.pop((who, session)).ended(Ending.COMPLETE)
    for who in range(len(PEOPLE)):
        for session in SESSIONS:
            may = plain.may(who, session)
            assert lets_through(owns, who, call_of(session)) == may
            for name in NAMES:
                resume = call_of(session, kind=Kind.LISTEN, method="", id=None, last_event_id=name)
                assert lets_through(owns, who, resume) == (may and (who, session, name) in plain.events)
                answer = call_of(session, kind=Kind.ANSWER, method="", id=name)
                assert lets_through(owns, who, answer) == (may and (who, session, name) in plain.questions)
                task = call_of(session, method="tasks/get", params={"taskId": name})
                owner = plain.tasks.get(name, (None, None))[0]
                assert lets_through(owns, who, task) == (may and owner == who)


def listening(owns: Ownership, who: Who, session: str | None) -> Exchange:
    return owns.listen(Permit(call=call_of(session), principal=PEOPLE[who], rule=RULE), None)
