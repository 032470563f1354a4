"""What is remembered of how sessions began: whose, how much, and when it is of no use any more.

Source: issue 7, item 5; promise 3 of design.md; basic/transports, "Session Management", of 2025-11-25.
"""

from __future__ import annotations

from typing import Any, Final

import pytest
from msgspec import structs

from proxy.model import Call, Ending, Kind, Permit, Rule
from proxy.protocol.revisions import BY_NAME, REGISTER, TWO_ENDPOINTS
from proxy.resilience.handshakes import LONGEST_BYTES, Handshakes, Session
from tests.fakes import PRINCIPAL, make_batch, make_call

LEGACY: Final = BY_NAME["2025-11-25"]
SAID: Final[dict[str, object]] = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}}
OTHER: Final = structs.replace(PRINCIPAL, subject="bob")


def permit(call: Call, who: Any = PRINCIPAL) -> Permit:
    return Permit(call=call, principal=who, rule=Rule(id="r"))


def hello(body: bytes = b"{}", **other: Any) -> Call:
    return make_call(**{"method": "initialize", "id": 0, "revision": LEGACY, "body": body, **other})


def begun(
    handshakes: Handshakes, id: str | None = "s", said: object = SAID, who: Any = PRINCIPAL, **call: Any
) -> Session | None:
    """A handshake passes."""
    ear = handshakes.listen(permit(hello(**call), who), id)
    if ear is not None:
        ear.result("initialize", said)
        ear.ended(Ending.COMPLETE)
    return None if id is None else handshakes.get(who.identity, id)


def of(handshakes: Handshakes, who: Any = PRINCIPAL, **call: Any) -> Session | None:
    return handshakes.of(permit(make_call(**{"revision": LEGACY, "session": "s", **call}), who))


def test_a_session_is_known_to_whoever_began_it() -> None:
    """Promise 3; both ways round, because one name may have been given twice."""
    handshakes = Handshakes()
    session = begun(handshakes, body=b"mine")
    assert session is not None
    assert (session.id, session.current, session.body, session.request_id) == ("s", "s", b"mine", 0)
    assert of(handshakes) is session
    assert of(handshakes, OTHER) is None
    others = begun(handshakes, body=b"theirs", who=OTHER)
    assert of(handshakes, OTHER) is others is not session
    assert of(handshakes) is session


@pytest.mark.parametrize("revision", REGISTER)
def test_only_where_there_are_sessions(revision: Any) -> None:
    """Neither HTTP+SSE nor 2026-07-28 has any that a header names."""
    handshakes = Handshakes()
    assert (begun(handshakes, revision=revision) is not None) == revision.has_sessions
    begun(handshakes)
    assert (of(handshakes, revision=revision) is not None) == revision.has_sessions


@pytest.mark.parametrize(
    ("id", "call"),
    [
        (None, {}),
        ("", {}),
        ("a b", {}),
        ("ü", {}),
        ("a" * 1_025, {}),
        ("s", {"session": "before"}),
        ("s", {"kind": Kind.NOTIFICATION}),
        ("s", {"body": b"x" * (LONGEST_BYTES + 1)}),
        ("s", {"method": "tools/call"}),
        ("s", {"revision": TWO_ENDPOINTS}),
    ],
)
def test_what_cannot_be_repeated_is_not_kept(id: str | None, call: dict[str, Any]) -> None:
    handshakes = Handshakes()
    begun(handshakes, id, **call)
    assert len(handshakes) == 0


@pytest.mark.parametrize(
    ("method", "said"), [("initialize", None), ("initialize", "x"), ("ping", {}), (None, {})]
)
def test_only_an_answer_to_the_handshake_counts(method: str | None, said: object) -> None:
    handshakes = Handshakes()
    ear = handshakes.listen(permit(hello()), "s")
    assert ear is not None
    ear.result(method, said)
    assert len(handshakes) == 0


def test_a_handshake_that_calls_itself_one_of_an_old_session_is_not_in_it() -> None:
    """A client that begins anew may still name the old one."""
    handshakes = Handshakes()
    begun(handshakes)
    assert of(handshakes, method="initialize") is None


def test_whoever_floods_loses_its_own() -> None:
    handshakes = Handshakes(share_bytes=4_096, total_bytes=8_192)
    begun(handshakes, "theirs", who=OTHER)
    for number in range(100):
        begun(handshakes, f"s{number}", body=b"x" * 1_000)
    assert handshakes.get(OTHER.identity, "theirs") is not None
    assert len(handshakes) == 3
    assert handshakes.get(PRINCIPAL.identity, "s99") is not None


SAME: Final = {"capabilities": {"tools": {}}, "_meta": {"at": 2}, "protocolVersion": "2025-11-25"}


@pytest.mark.parametrize(
    ("said", "is_same"),
    [
        (SAME, True),
        ({**SAID, "capabilities": {"tools": {}, "logging": {}}}, False),
        ({**SAID, "protocolVersion": "2025-06-18"}, False),
        ({**SAID, "serverInfo": {"name": "x", "version": "2"}}, False),
        ({**SAID, "instructions": "be careful"}, False),
        ({}, False),
    ],
)
def test_two_answers_are_the_same_but_for_how_they_are_written(said: object, is_same: bool) -> None:
    """Issue 7: what may differ is not pretended away. A model reads the instructions, and a new version has others."""
    handshakes = Handshakes()
    first, second = begun(handshakes, "a"), begun(handshakes, "b", said)
    assert first is not None
    assert second is not None
    assert (first.said == second.said) == is_same


@pytest.mark.parametrize(
    "call",
    [
        make_call(method="resources/subscribe"),
        make_call(method="logging/setLevel"),
        make_call(params={"name": "t", "task": {}}),
        make_batch(make_call(method="ping"), make_call(method="resources/subscribe", id=2)),
    ],
)
def test_what_a_client_leaves_in_a_session_cannot_be_carried_over(call: Call) -> None:
    session = begun(Handshakes())
    assert session is not None
    session.takes(make_call(method="tools/call", params={"arguments": {"task": 1}}))
    session.takes(make_call(method="resources/unsubscribe"))
    assert session.is_bare
    session.takes(call)
    assert not session.is_bare


@pytest.mark.parametrize("kind", [Kind.REQUEST, Kind.LISTEN])
@pytest.mark.parametrize("heard", ["question", "event"])
def test_nor_what_the_server_did(kind: Kind, heard: str) -> None:
    """Ids begin anew: an answer to an old question would answer another one, and an old event id names others' events
    (servers replay by event id without asking whose it was)."""
    handshakes = Handshakes()
    session = begun(handshakes)
    assert session is not None
    ear = handshakes.listen(permit(make_call(revision=LEGACY, kind=kind, session="s")), "s")
    assert ear is not None
    ear.request(1, "ping", {})
    ear.notification("notifications/message", {})
    ear.result(None, {"x": 1})
    ear.ended(Ending.COMPLETE)
    assert session.is_bare
    assert ear.passed_on(data := b"data") is data
    if heard == "question":
        ear.request(2, "elicitation/create", {})
    else:
        ear.event_id(b"7")
    assert not session.is_bare


@pytest.mark.parametrize("is_before", [True, False])
def test_an_event_id_on_the_handshake_itself_counts(is_before: bool) -> None:
    """Servers with an event store begin each stream with one."""
    handshakes = Handshakes()
    ear = handshakes.listen(permit(hello()), "s")
    assert ear is not None
    if is_before:
        ear.event_id(b"1")
    ear.result("initialize", SAID)
    if not is_before:
        ear.event_id(b"1")
    session = handshakes.get(PRINCIPAL.identity, "s")
    assert session is not None
    assert not session.is_bare


def test_who_has_no_session_is_not_listened_to() -> None:
    handshakes = Handshakes()
    begun(handshakes)
    assert handshakes.listen(permit(make_call(revision=LEGACY)), None) is None
    assert handshakes.listen(permit(make_call(revision=LEGACY, session="unknown")), None) is None
