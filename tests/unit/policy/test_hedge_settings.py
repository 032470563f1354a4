"""What a rule may say of a second attempt: only of tools that read, and only what can be meant.

Source: issue 7, item 2 ("Optional hedging for modern, trusted read-only rules").
"""

from pathlib import Path

import pytest

from proxy.policy.rules import Rules
from proxy.policy.settings import PolicySettings
from tests.fakes import PRINCIPAL, make_call
from tests.unit.configuration.reading import mistakes, read

UPSTREAM = "version: 1\nupstream: {url: http://127.0.0.1:8000/mcp}\n"


def rule(text: str) -> str:
    return f"{UPSTREAM}policy:\n  tools:\n    - {{match: t, allow: ['*'], {text}}}\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "class: read, ",
        "idempotent: true, ",
        "class: write, idempotent: true, ",
        "class: dangerous, idempotent: true, ",
    ],
)
def test_only_what_reads_and_may_be_done_twice_is_sent_twice(tmp_path: Path, text: str) -> None:
    """In the very rule: neither a default nor what a server says of itself is enough."""
    found = mistakes(tmp_path, rule(f"{text}hedge_after_s: 0.5"))
    assert len(found) == 1
    assert "policy.tools[0].hedge_after_s: sends a call twice at once that may do something" in found[0]
    assert "write class: read and idempotent: true beside it" in found[0]


def test_a_default_class_does_not_stand_in_for_the_rule(tmp_path: Path) -> None:
    text = f"{UPSTREAM}policy: {{default: {{class: read}}, tools: [{{match: t, idempotent: true, hedge_after_s: 1}}]}}"
    assert len(mistakes(tmp_path, text)) == 1


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("hedge_after_s: 0", "hedge_after_s"),
        ("hedge_after_s: -1", "hedge_after_s"),
        ("hedge_after_s: true", "hedge_after_s"),
        ("timeout_s: 1, hedge_after_s: 1", "hedge_after_s: comes when the call is over"),
        ("timeout_s: 1, hedge_after_s: 2", "hedge_after_s: comes when the call is over"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, text: str, what: str) -> None:
    found = mistakes(tmp_path, rule(f"class: read, idempotent: true, {text}"))
    assert len(found) == 1
    assert f"policy.tools[0].{what}" in found[0]


def test_what_is_said_reaches_the_call(tmp_path: Path) -> None:
    settings = read(tmp_path, rule("class: read, idempotent: true, timeout_s: 1, hedge_after_s: 0.5")).policy
    assert isinstance(settings, PolicySettings)
    decided = Rules(settings).decide(make_call(target="t"), PRINCIPAL).rule
    assert (decided.tool_class, decided.idempotent, decided.hedge_after_s) == ("read", True, 0.5)
