"""Lists teach whoever wants to know, once a page, with the caller they were told to."""

from collections.abc import Mapping

from proxy.model import Call, Kind, Permit, Principal
from proxy.policy.learning import Learning
from tests.fakes import PRINCIPAL, RULE, make_batch, make_call

TOOLS: list[object] = [{"name": "t"}]


def learned(call: Call, method: str | None, result: object) -> list[tuple[str, object]]:
    told: list[tuple[str, object]] = []

    def learn(principal: Principal, heard: Call, page: Mapping[str, object]) -> None:
        assert heard is call
        told.append((principal.subject, page["tools"]))

    ear = Learning([learn])(Permit(call=call, principal=PRINCIPAL, rule=RULE), None)
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
