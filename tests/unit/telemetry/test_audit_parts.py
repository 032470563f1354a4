"""What comes again in records is encoded once: it must say of each call what is so of this call, and no secret."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as some

from proxy.model import Peer, Principal, Rule
from proxy.secret import Secret
from proxy.telemetry.audit_parts import LONGEST, MOST, Parts, session_digest
from proxy.telemetry.redaction import HIDDEN, Redactor
from tests.fakes import make_call

ANN = Principal(issuer="https://login", subject="ann", tenant="acme", client="agent", fingerprint="jwt:0a1b")
RULE = Rule(id="delete_*", tool_class="dangerous")


def parts() -> Parts:
    return Parts(Redactor(list, lambda: 0))


def said(
    made: Parts,
    principal: Principal = ANN,
    tool: str | None = "drop",
    rule: Rule = RULE,
    address: str = "192.0.2.7",
    session: str | None = "s-1",
    instance: str = "pod-1",
    trace_id: str = "4b" * 16,
) -> dict[str, Any]:
    call = make_call(target=tool, peer=Peer(address), session=session)
    who, where, trace_id = made.of_call(principal, call, rule, instance, trace_id)
    line = json.loads("{" + f"{who}{where}".removeprefix(",") + "}")
    assert isinstance(line, dict)
    return line | {"trace_id": trace_id}


_NAMES = some.text(some.characters(codec=None), max_size=12)
_PRINCIPALS = some.builds(
    Principal, issuer=_NAMES, subject=_NAMES, tenant=_NAMES, client=_NAMES, fingerprint=_NAMES
)


_SESSIONS = some.text(some.characters(codec="utf-8"), max_size=3)
_CALLS = some.tuples(_PRINCIPALS, _NAMES, _NAMES, _NAMES, _SESSIONS, _NAMES)


@given(some.lists(_CALLS, min_size=2, max_size=4))
@settings(deadline=None)
def test_what_is_remembered_is_what_is_so(
    calls: list[tuple[Principal, str, str, str, str, str]],
) -> None:
    """Own promise: no two calls share a part that differ in one of its fields, however often they come."""
    made = parts()
    for principal, tool, rule, address, session, instance in calls * 2:
        more: dict[str, Any] = {
            "tool": tool,
            "rule": Rule(id=rule, tool_class=tool),
            "address": address,
            "session": session,
            "instance": instance,
        }
        assert said(made, principal, **more) == said(parts(), principal, **more)


def test_a_secret_that_comes_later_is_taken_out_of_what_was_remembered() -> None:
    """Issue 8, logs: every known secret, by its value, in this sink too."""
    made = Parts(Redactor())
    ours = Principal(issuer="i", subject="hunter2-hunter2", tenant="t")
    assert said(made, ours, address="hunter2-hunter2")["subject"] == "hunter2-hunter2"
    secrets = Secret("hunter2-hunter2"), Secret("4b" * 16)
    now = said(made, ours, address="hunter2-hunter2")
    assert (now["subject"], now["peer"], now["trace_id"]) == (HIDDEN, HIDDEN, HIDDEN)
    assert all(each.reveal() for each in secrets)


def test_names_that_nobody_has_twice_take_no_memory() -> None:
    """Own promise: every table that a client can grow is bounded, in number and in length."""
    made = parts()
    for number in range(MOST + 10):
        said(made, tool=f"tool-{number}", session=f"session-{number}")
    assert 0 < len(made._asked) <= MOST
    assert 0 < len(made._places) <= MOST
    before = len(made._asked), len(made._places)
    assert said(made, tool="t" * LONGEST, session="s" * (LONGEST + 1))["session"] == session_digest(
        "s" * (LONGEST + 1)
    )
    assert (len(made._asked), len(made._places)) == before
