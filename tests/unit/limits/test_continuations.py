"""A call that stopped to ask goes on once, for whom it asked; saying so is not enough."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from proxy.limits.continuations import MOST_OF_ONE, Continuations
from proxy.model import Call, Permit, Principal, Rule
from proxy.protocol.revisions import BY_NAME
from tests.fakes import PRINCIPAL, make_batch, make_call

MODERN = BY_NAME["2026-07-28"]
ASKS = {"resultType": "input_required", "inputRequests": {}}
ANSWERS = {"inputResponses": {"q": {}}, "requestState": "s"}


def call(
    params: Mapping[str, object] | None = None, *, target: str | None = "book", method: str = "tools/call"
) -> Call:
    return make_call(method=method, target=target, params=params or {}, revision=MODERN)


def permit(asked: Call, principal: Principal = PRINCIPAL) -> Permit:
    return Permit(call=asked, principal=principal, rule=Rule(id="r"))


def hears(
    continuations: Continuations,
    result: object = ASKS,
    asked: Permit | None = None,
    *,
    method: str | None = "tools/call",
) -> None:
    ear = continuations.listen(asked or permit(call()), None)
    if ear is not None:
        ear.result(method, result)


def uses(continuations: Continuations, asked: Call | None = None, principal: Principal = PRINCIPAL) -> bool:
    return continuations.use(permit(asked or call(ANSWERS), principal)) is not None


@pytest.mark.parametrize("params", [{"inputResponses": {}}, {"requestState": "s"}, ANSWERS])
def test_what_was_asked_is_answered_once(params: dict[str, object]) -> None:
    """Contract: a continuation is one call with what it continues; single use."""
    continuations = Continuations()
    hears(continuations)
    assert [uses(continuations, call(params)) for _ in range(3)] == [True, False, False]
    assert len(continuations) == 0


def test_saying_that_one_continues_is_not_enough() -> None:
    """Own promise: else anybody could call for free by sending a requestState."""
    assert not uses(Continuations())


def test_a_call_that_continues_nothing_spends_nothing() -> None:
    continuations = Continuations()
    hears(continuations)
    assert not uses(continuations, call({"arguments": ANSWERS}))
    assert uses(continuations)


@pytest.mark.parametrize(
    "result",
    [{"resultType": "complete"}, {"content": [], "inputRequests": {}}, {}, [], None, "input_required"],
)
def test_other_results_ask_nothing(result: object) -> None:
    continuations = Continuations()
    hears(continuations, result)
    assert not uses(continuations)


@pytest.mark.parametrize(
    "asked", [call(ANSWERS, target="other"), call(ANSWERS, method="prompts/get"), call(ANSWERS, target=None)]
)
def test_another_thing_was_not_asked(asked: Call) -> None:
    continuations = Continuations()
    hears(continuations)
    assert not uses(continuations, asked)


@pytest.mark.parametrize(
    "principal",
    [
        Principal(issuer="test", subject="bob", tenant="acme"),
        Principal(issuer="test", subject="ann", tenant="b"),
        Principal(issuer="other", subject="ann", tenant="acme"),
    ],
)
def test_somebody_else_was_not_asked(principal: Principal) -> None:
    continuations = Continuations()
    hears(continuations)
    assert not uses(continuations, principal=principal)
    assert uses(continuations)


def test_prompts_and_resources_may_ask_too() -> None:
    continuations = Continuations()
    for method in ("prompts/get", "resources/read"):
        hears(continuations, asked=permit(call(method=method)), method=method)
        assert uses(continuations, call(ANSWERS, method=method))


@pytest.mark.parametrize(
    "asked",
    [
        make_call(target="book"),
        make_batch(call()),
        call(method="tools/list", target=None),
        call(target=None),
        call(target="x" * 1_025),
    ],
)
def test_nobody_listens_where_nothing_can_be_asked(asked: Call) -> None:
    """Older revisions do not know such results; a batch answers several at once."""
    assert Continuations().listen(permit(asked), None) is None


def test_a_result_of_another_request_asks_nothing() -> None:
    continuations = Continuations()
    for method in (None, "tools/list"):
        hears(continuations, method=method)
    assert not uses(continuations)


def test_one_request_asks_once_whatever_its_stream_says() -> None:
    continuations = Continuations()
    ear = continuations.listen(permit(call()), None)
    assert ear is not None
    for _ in range(5):
        ear.result("tools/call", ASKS)
    assert [uses(continuations) for _ in range(2)] == [True, False]
    assert ear.passed_on(b"data") == b"data"


def test_several_calls_at_once_are_each_answered_but_not_endlessly_many() -> None:
    continuations = Continuations()
    for _ in range(MOST_OF_ONE + 5):
        hears(continuations)
    assert sum(uses(continuations) for _ in range(50)) == MOST_OF_ONE


def test_what_was_spent_in_vain_is_there_again() -> None:
    continuations = Continuations()
    hears(continuations)
    spent = continuations.use(permit(call(ANSWERS)))
    assert spent is not None
    continuations.give(spent)
    assert uses(continuations)


def test_who_collects_questions_loses_the_oldest_and_nobody_elses() -> None:
    continuations = Continuations(most=6, most_of_tenant=4)
    quiet = Principal(issuer="i", subject="s", tenant="quiet")
    hears(continuations, asked=permit(call(), quiet))
    for number in range(20):
        hears(continuations, asked=permit(call(target=f"t{number}")))
    assert len(continuations) == 5
    assert [uses(continuations, call(ANSWERS, target=f"t{number}")) for number in (15, 16, 19)] == [
        False,
        True,
        True,
    ]
    assert uses(continuations, principal=quiet)


def test_questions_of_all_are_bounded() -> None:
    continuations = Continuations(most=6, most_of_tenant=4)
    for number in range(50):
        someone = Principal(issuer="i", subject="s", tenant=f"t{number}")
        hears(continuations, asked=permit(call(), someone))
    assert len(continuations) == 6
    assert uses(continuations, principal=Principal(issuer="i", subject="s", tenant="t49"))
