"""Lists teach whoever wants to know, once a page, with the caller they were told to."""

from collections.abc import Mapping

import pytest

from proxy.model import Call, Kind, Permit, Principal
from proxy.policy.learning import INTRODUCTIONS, Learning, Lessons
from tests.fakes import PRINCIPAL, RULE, make_batch, make_call

TOOLS: list[object] = [{"name": "t"}]


def learned(call: Call, method: str | None, result: object) -> list[tuple[str, object]]:
    told: list[tuple[str, object]] = []

    def learn(principal: Principal, heard: Call, page: Mapping[str, object]) -> None:
        assert heard is call
        told.append((principal.subject, page["tools"]))

    ear = Learning(Lessons(tools=(learn,)))(Permit(call=call, principal=PRINCIPAL, rule=RULE), None)
    if ear is not None:
        ear.result(method, result)
        assert ear.passed_on(b"{}") == b"{}"
    return told


def test_a_list_of_tools_is_told() -> None:
    """Also on resumed streams, where nobody knows which request it answers, and in batches."""
    listing = make_call(method="tools/list")
    assert learned(listing, "tools/list", {"tools": TOOLS}) == [("ann", TOOLS)]
    listening = make_call(kind=Kind.LISTEN, method="", id=None)
    assert learned(listening, None, {"tools": TOOLS}) == [("ann", TOOLS)]
    batch = make_batch(make_call(id=1), make_call(id=2, method="tools/list"))
    assert learned(batch, "tools/list", {"tools": TOOLS}) == [("ann", TOOLS)]


def test_what_is_no_list_teaches_nothing() -> None:
    """A tool's own result may have any shape."""
    listing = make_call(method="tools/list")
    assert learned(make_call(), "tools/call", {"tools": TOOLS}) == []
    assert learned(listing, "tools/call", {"tools": TOOLS}) == []
    shapes: list[object] = [None, [], {"tools": {}}, {"tools": None}, "tools"]
    for result in shapes:
        assert learned(listing, "tools/list", result) == []


@pytest.mark.parametrize("method", [*sorted(INTRODUCTIONS), None])
def test_instructions_are_told(method: str | None) -> None:
    """They reach the model like a definition does; in HTTP+SSE nobody knows which request they answer."""
    told: list[tuple[str, str]] = []
    lessons = Lessons(instructions=(lambda principal, text: told.append((principal.subject, text)),))
    call = make_call(method=method) if method else make_call(kind=Kind.LISTEN, method="", id=None)
    ear = Learning(lessons)(Permit(call=call, principal=PRINCIPAL, rule=RULE), None)
    assert ear is not None

    ear.result(method, {"instructions": "Be kind."})
    ear.result(method, {"instructions": ["Be kind."]})
    ear.result("tools/call", {"instructions": "of a tool"})

    assert told == [("ann", "Be kind.")]


def test_any_exchange_may_tell_that_the_tools_have_changed() -> None:
    """2025-11-25 server/tools, list changed notification: on any stream of the server."""
    told: list[str] = []
    learning = Learning(Lessons(changed=(lambda: told.append("changed"),)))
    ear = learning(Permit(call=make_call(method="prompts/get"), principal=PRINCIPAL, rule=RULE), None)
    assert ear is not None

    ear.notification("notifications/resources/list_changed", {})
    assert told == []
    ear.notification("notifications/tools/list_changed", {})
    assert told == ["changed"]


def test_who_wants_nothing_else_hears_lists_only() -> None:
    """A room that is off costs nothing."""
    call = make_call(method="prompts/get")
    permit = Permit(call=call, principal=PRINCIPAL, rule=RULE)
    assert Learning(Lessons(tools=(lambda principal, call, page: None,)))(permit, None) is None
