"""What a rule may say of keeping answers: only of tools that read, and only what can be meant.

Source: issue 6, items 1 and 4; a lying server must gain nothing (its annotations never make an answer kept).
"""

from pathlib import Path

import pytest

from proxy.model import Keep
from proxy.policy.keep_settings import CacheRule, Vary
from proxy.policy.settings import PolicySettings
from tests.unit.configuration.reading import mistakes, read

UPSTREAM = "version: 1\nupstream: {url: http://127.0.0.1:8000/mcp}\ncache: {}\n"


def rule(text: str) -> str:
    return f"{UPSTREAM}policy:\n  tools:\n    - {{match: a, allow: ['*'], {text}}}\n"


@pytest.mark.parametrize("tool_class", ["", "class: write, ", "class: dangerous, "])
def test_only_tools_that_are_said_to_read_are_kept(tmp_path: Path, tool_class: str) -> None:
    found = mistakes(tmp_path, rule(f"{tool_class}cache: {{ttl_s: 60}}"))
    assert len(found) == 1
    assert "policy.tools[0].cache: keeps answers of tools that may do more than read" in found[0]
    assert "write class: read" in found[0]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("ttl_s: 0", "cache.ttl_s"),
        ("ttl_s: -1", "cache.ttl_s"),
        ("ttl_s: 1, share: everybody", "cache.share"),
        ("ttl_s: 1, vary: {ignore: [a], only: [b]}", "cache.vary: has both ignore and only"),
        ("ttl_s: 1, vary: {only: ['']}", "cache.vary.only[0]"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, text: str, what: str) -> None:
    found = mistakes(tmp_path, rule(f"class: read, cache: {{{text}}}"))
    assert len(found) == 1
    assert f"policy.tools[0].{what}" in found[0]


def test_all_of_it_reaches_the_call(tmp_path: Path) -> None:
    text = (
        "class: read, cache: {ttl_s: 60, stale_while_revalidate_s: 5, stale_if_error_s: 600, share: tenant, "
        "vary: {only: [q]}, negative_ttl_s: 2, any_session: true}"
    )
    settings = read(tmp_path, rule(text)).policy
    assert isinstance(settings, PolicySettings)
    cache = settings.tools[0].cache
    assert cache is not None
    assert cache.keep() == Keep(
        ttl_s=60,
        stale_while_revalidate_s=5,
        stale_if_error_s=600,
        share="tenant",
        only=("q",),
        negative_ttl_s=2,
        any_session=True,
    )
    assert CacheRule(ttl_s=1, vary=Vary(ignore=("n",))).keep() == Keep(ttl_s=1, ignore=("n",))


def test_a_rule_that_keeps_needs_somewhere_to_keep(tmp_path: Path) -> None:
    """Else an operator believes in a cache that is not there."""
    (found,) = mistakes(tmp_path, rule("class: read, cache: {ttl_s: 60}").replace("cache: {}\n", ""))
    assert "policy.tools[0].cache: keeps nothing" in found
    assert "write cache: {}" in found


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("cache: {shared: true, secret: '${S}'}\n", "cache.shared: needs shared_state"),
        ("shared_state: {url: 'redis://127.0.0.1/0'}\ncache: {}\n", "shared_state: has nothing to keep"),
        ("cache: {shared: true}\n", "cache.shared: needs a secret"),
    ],
)
def test_what_is_shared_has_somewhere_to_be_shared(tmp_path: Path, text: str, what: str) -> None:
    found = mistakes(tmp_path, UPSTREAM.replace("cache: {}\n", text), environ={"S": "s" * 32})
    assert [what in each for each in found] == [True]
