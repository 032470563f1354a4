"""What a rule may say of lost sessions, and where nobody may say it.

Source: issue 7, item 5 ("optional transparent re-initialise for rules that allow it").
"""

from pathlib import Path

import pytest

from proxy.policy.rules import Rules
from proxy.policy.settings import PackSettings, PolicySettings, ToolRule
from tests.fakes import PRINCIPAL, make_call
from tests.unit.configuration.reading import mistakes, read


def settings(upstream: str = "", rule: str = "reinitialise: true") -> str:
    return (
        f"version: 1\nupstream: {{url: http://127.0.0.1:8000/mcp{upstream}}}\n"
        f"policy: {{tools: [{{match: a, allow: ['*']}}, {{match: t, allow: ['*'], {rule}}}]}}\n"
    )


def test_what_is_said_reaches_the_call(tmp_path: Path) -> None:
    policy = read(tmp_path, settings()).policy
    assert isinstance(policy, PolicySettings)
    rules = Rules(policy)
    assert rules.reinitialises_any
    assert rules.decide(make_call(target="t"), PRINCIPAL).rule.reinitialise
    assert not rules.decide(make_call(target="a"), PRINCIPAL).rule.reinitialise


def test_nothing_is_remembered_unless_some_rule_asks() -> None:
    """Off is not in the chain; a rule of a pack asks too."""
    assert not Rules().reinitialises_any
    assert not Rules(PolicySettings(tools=(ToolRule(match="a"),))).reinitialises_any
    pack = PackSettings(version=1, tools=(ToolRule(match="a", reinitialise=True),))
    assert Rules(PolicySettings(), [pack]).reinitialises_any


@pytest.mark.parametrize("rule", ["reinitialise: 1", "reinitialise: yes", "reinitialize: true"])
def test_it_is_said_in_one_way(tmp_path: Path, rule: str) -> None:
    (found,) = mistakes(tmp_path, settings(rule=rule))
    assert "policy.tools[1].reinitiali" in found


def test_where_only_the_server_knows_whose_a_session_is_nobody_may(tmp_path: Path) -> None:
    """Such a server answers 404 for a foreign session; a new one would take its place for its owner."""
    text = settings(", forward_client_authorization: true")
    (found,) = mistakes(tmp_path, text)
    assert "policy.tools[1].reinitialise: begins sessions whose owner only the server knows" in found
    assert read(tmp_path, settings(", forward_client_authorization: true", "cost: 1")).policy is not None
