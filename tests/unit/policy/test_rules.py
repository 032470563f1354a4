"""The rule set without rules: everybody who is known may do everything, and nothing is trusted for it."""

import pytest

from proxy.model import Call, Kind, Permit, Principal
from proxy.policy.rules import EVERYTHING, Allow, Rules
from tests.fakes import make_batch, make_call

ALICE = Principal(issuer="i", subject="alice", tenant="a")
CALLS = [
    make_call(method="tools/call", target="delete_everything"),
    make_call(method="nobody/knows"),
    make_call(method="notifications/initialized", kind=Kind.NOTIFICATION, id=None),
    make_call(method="", kind=Kind.ANSWER),
    make_call(method="", kind=Kind.LISTEN, id=None),
    make_call(method="", kind=Kind.END, id=None),
    make_batch(make_call(id=1), make_call(id=2)),
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call.kind.value}-{call.method}")
def test_without_a_policy_section_everything_is_allowed(call: Call) -> None:
    """design section 3, defaults: no policy section = every authenticated principal may do everything."""
    assert Rules().decide(call, ALICE) == Allow(EVERYTHING)
    permit = Rules()(call, ALICE)
    assert isinstance(permit, Permit)
    assert (permit.call, permit.principal, permit.rule) == (call, ALICE, EVERYTHING)


def test_what_no_rule_names_counts_as_dangerous() -> None:
    """design section 3, `default: {class: dangerous}`: nothing is cached or repeated on the strength of it."""
    assert EVERYTHING.tool_class == "dangerous"
