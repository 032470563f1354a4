"""What does policy cost? `python -m tests.bench.policy_cost` prints it: processor time of this process, nothing else.

In: nothing. Out: figures, each the median of several rounds. Keeps nothing. Time on the clock would tell how busy the
machine is; processor time says nearly the same on a busy one.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec

from proxy.model import Call, Headers, Kind, Permit, Principal, Reply, Rule, Stage
from proxy.policy.approvals import Approvals
from proxy.policy.definitions import define
from proxy.policy.guard_settings import ModeSettings, RepetitionSettings
from proxy.policy.guards import Guarded
from proxy.policy.listing import Listing, VisibleOnly
from proxy.policy.modes import Modes
from proxy.policy.pin_file import PinFile, entry_of
from proxy.policy.pin_settings import PinSettings
from proxy.policy.pins import Pins
from proxy.policy.redaction import Blocked, Redaction, RedactRule
from proxy.policy.repetition import Repetition
from proxy.policy.rules import Allow, Rules
from proxy.policy.settings import PolicySettings
from proxy.policy.tool_classes import HintTable
from proxy.protocol.revisions import BY_NAME
from proxy.telemetry.journey import Journeys, Observers

from .report import Figure, table, this_machine

ROUNDS: Final = 9
ROUND_S: Final = 0.03
"""Processor time of one round, at least."""
TOOLS: Final = 500
TOOL_BYTES: Final = 700
MODERN: Final = BY_NAME["2026-07-28"]
ANN: Final = Principal(
    issuer="https://idp.test",
    subject="ann",
    tenant="acme",
    roles=frozenset({"editor", "staff"}),
    scopes=frozenset({"tools"}),
)
ROLES: Final = {"viewer": {}, "editor": {"inherits": ["viewer"]}, "admin": {"inherits": ["editor"]}}
ARGUMENTS: Final = {
    "owner": "acme",
    "repository": "sidecar",
    "url": "https://api.example.com/v1/items?page=2",
    "limit": 50,
    "dry_run": True,
}
_JOURNEYS: Final = Journeys(Observers())


def main() -> int:
    print(table(this_machine(), figures()))
    return 0


def figures() -> list[Figure]:
    """Every figure of this file. Takes about ten seconds."""
    return [*_decisions(), *_lists(), *_guards(), *_redactions()]


# Decisions


def _decisions() -> list[Figure]:
    ten, thousand = _with_rules(10), _with_rules(1_000)
    last = _call("last_tool")
    checked = _rules({"match": "last_*", "allow": ["viewer"], "arguments": ARGUMENT_RULES})
    conditional = _rules({"match": "last_*", "allow": ["viewer"], "when": CONDITION})
    all_fit = _rules(*({"match": f"last_{'?' * each}*", "allow": ["viewer"]} for each in range(10)))
    names = (f"last_{number}" for number in range(10**9))
    for rules in (ten, thousand, checked, conditional, all_fit):
        assert isinstance(rules.decide(last, ANN), Allow)
    of_ten = _us("decide: 10 rules, the last fits", lambda: ten.decide(last, ANN), at_most=5)
    of_thousand = _us("decide: 1,000 rules, the last fits", lambda: thousand.decide(last, ANN), at_most=5)
    return [
        of_ten,
        of_thousand,
        _ratio("decide: 1,000 rules beside 10", of_thousand, of_ten, at_most=1.2),
        _us("decide: 10 rules that all fit", lambda: all_fit.decide(last, ANN), at_most=5),
        _us("decide: rules for five arguments", lambda: checked.decide(last, ANN)),
        _us("decide: one CEL expression", lambda: conditional.decide(last, ANN), at_most=15),
        _us("may use: a name of a list", lambda: ten.may_use("tools/call", "last_tool", ANN)),
        _us("may use: 1,000 rules, a new name", lambda: thousand.may_use("tools/call", next(names), ANN)),
    ]


ARGUMENT_RULES: Final = {
    "owner": {"one_of": ["acme", "umbrella"], "required": True},
    "repository": {"pattern": "side*", "max_length": 100},
    "url": {"hosts": ["*.example.com"], "schemes": ["https"]},
    "limit": {"min": 1, "max": 100},
    "dry_run": {"equals": True},
}
CONDITION: Final = "args.limit <= 100 && args.owner == principal.tenant"


def _rules(*tools: Mapping[str, object]) -> Rules:
    return Rules(msgspec.convert({"roles": ROLES, "tools": tools}, PolicySettings))


def _with_rules(count: int) -> Rules:
    """The last of so many fits; each has a wildcard, which costs more than a name."""
    before = [{"match": f"service_{number}_*", "allow": ["viewer"]} for number in range(count - 1)]
    return _rules(*before, {"match": "last_*", "deny": ["guest"], "allow": ["viewer"], "scopes": ["tools"]})


# Lists


def _lists() -> list[Figure]:
    tools = [_tool(number) for number in range(TOOLS)]
    page = _answer(tools)
    hides = _listing(
        _rules(*_TEN_FOR_LISTS, {"match": "*_delete_*", "hidden": True}, {"match": "*", "allow": ["viewer"]})
    )
    shows = _listing(_rules(*_TEN_FOR_LISTS, {"match": "*", "allow": ["viewer"]}))
    permit = _permit("tools/list")
    for listing, left in ((hides, TOOLS - len(range(0, TOOLS, 3))), (shows, TOOLS)):
        assert len(json.loads(listing.shown(permit, page, lambda _: "tools/list"))["result"]["tools"]) == left

    async def answer(permit: Permit) -> Reply:
        return Reply(200, _JSON, page)

    stage = VisibleOnly(answer, hides)
    approved = PinFile(version=1, tools=tuple(entry_of(define(tool)) for tool in tools))
    pins = Pins(_say_nothing, pinned=approved, settings=PinSettings(file="tools.lock"))
    hints = HintTable()
    listed = {"tools": tools}
    return [
        _ms(
            "list of 500: a third hidden",
            lambda: hides.shown(permit, page, lambda _: "tools/list"),
            at_most=2,
        ),
        _ms("list of 500: a third hidden, the whole stage", lambda: _run(stage(permit)), at_most=2),
        _ms(
            "list of 500: nothing hidden",
            lambda: shows.shown(permit, page, lambda _: "tools/list"),
            at_most=2,
        ),
        _ms("list of 500: hints learnt", lambda: hints.learn(ANN, permit.call, listed)),
        _ms(
            "list of 500: compared with pins",
            lambda: pins.heard(ANN.identity, tools, cursor=None, next_cursor=None),
        ),
    ]


_JSON: Final = Headers(((b"Content-Type", b"application/json"),))
_TEN_FOR_LISTS: Final = [{"match": f"service_{number}_*", "allow": ["admin"]} for number in range(8)]
_WORDS: Final = (
    "Looks for entries that fit the query and returns them, newest first, with the name of their author. "
)


def _listing(rules: Rules) -> Listing:
    return Listing(rules.may_use, rules.may_use_template, lists_differ=rules.tells_callers_apart)


def _tool(number: int) -> dict[str, Any]:
    """A definition as servers write them, of 700 bytes: every third would delete, every fourth has a parameter called
    `name`, every tenth says something in another alphabet."""
    verb = "search" if number % 3 else "delete"
    properties = {
        "query": {"type": "string", "description": "What to look for.", "minLength": 1},
        "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
        ("name" if number % 4 == 0 else "state"): {"type": "string", "description": "Of the entry."},
    }
    tool = {
        "name": f"tracker_{verb}_entries_{number}",
        "title": f"{verb.title()} the entries of shelf {number}",
        "description": "Caf\u00e9: " if number % 10 == 0 else "",
        "inputSchema": {"type": "object", "properties": properties, "required": ["query"]},
        "annotations": {"readOnlyHint": verb == "search", "openWorldHint": False},
    }
    room = TOOL_BYTES - len(json.dumps(tool))
    return {**tool, "description": str(tool["description"]) + (_WORDS * 9)[:room]}


def _answer(tools: list[dict[str, Any]]) -> bytes:
    result = {"tools": tools, "ttlMs": 60_000, "cacheScope": "public", "resultType": "complete"}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode()


# What stands before the server


def _guards() -> list[Figure]:
    rule = Rule(id="last_*", tool_class="read")
    permit = Permit(call=_call("last_tool"), principal=ANN, rule=rule)
    reply = Reply(200, _JSON, b"{}")

    async def answer(permit: Permit) -> Reply:
        return reply

    def token() -> str:
        return "0" * 22

    guards = {
        "modes": Guarded(answer, rule_of=lambda *_: rule, modes=Modes(ModeSettings(process="no-delete"))),
        "modes and approvals": Guarded(
            answer,
            rule_of=lambda *_: rule,
            modes=Modes(ModeSettings(process="no-delete")),
            approvals=Approvals(600.0, "g", token),
        ),
        # A window so short that no call of the measurement is one too many.
        "repetition": Guarded(
            answer,
            rule_of=lambda *_: rule,
            repetition=Repetition(RepetitionSettings(most=1_000, window_s=1.0), share=10, total=10),
            now=_clock(0.01),
        ),
    }
    return [_us(f"guards: {name}", _served_by(stage, permit)) for name, stage in guards.items()]


def _served_by(stage: Stage, permit: Permit) -> Callable[[], Reply]:
    return lambda: _run(stage(permit))


def _clock(step_s: float) -> Callable[[], float]:
    """A clock that goes on by so much whenever somebody looks at it."""
    now = 0.0

    def look() -> float:
        nonlocal now
        now += step_s
        return now

    return look


# Redaction


def _redactions() -> list[Figure]:
    rules = [RedactRule(pattern=name) for name in ("github_token", "aws_key", "email", "jwt")]
    redaction = Redaction(rules, _say_nothing)
    clean, leaking = _said(_WORDS * 9), _said(f"{_WORDS * 8} ask ann@example.com {_WORDS}")
    assert redaction.apply(clean) is clean
    masked = redaction.apply(leaking)
    assert not isinstance(masked, Blocked)
    assert b"[redacted: email]" in masked
    return [
        _us("redaction: 1 KB, four patterns, nothing found", lambda: redaction.apply(clean)),
        _us("redaction: 1 KB, four patterns, one masked", lambda: redaction.apply(leaking)),
    ]


def _said(text: str) -> bytes:
    """An answer of 1 KB."""
    empty = len(
        json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": ""}]}})
    )
    content = [{"type": "text", "text": text[: 1_024 - empty]}]
    return json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"content": content}}).encode()


# How it is measured


def _call(target: str | None, method: str = "tools/call") -> Call:
    params = {"name": target, "arguments": ARGUMENTS} if target else {}
    return Call(
        revision=MODERN,
        kind=Kind.REQUEST,
        id=1,
        method=method,
        target=target,
        params=params,
        headers=Headers(),
        received=0.0,
        journey=_JOURNEYS.open(0.0),
    )


def _permit(method: str) -> Permit:
    return Permit(call=_call(None, method), principal=ANN, rule=Rule(id="protocol", tool_class="read"))


def _run(served: Awaitable[Reply]) -> Reply:
    """What somebody who waits for nothing returns."""
    try:
        served.__await__().send(None)
    except StopIteration as ended:
        reply: Reply = ended.value
        return reply
    raise AssertionError("it waits")


def _say_nothing(*told: object) -> None:
    pass


def _us(name: str, act: Callable[[], object], at_most: float | None = None) -> Figure:
    return _figure(name, act, 1e6, "us", at_most)


def _ms(name: str, act: Callable[[], object], at_most: float | None = None) -> Figure:
    return _figure(name, act, 1e3, "ms", at_most)


def _ratio(name: str, one: Figure, other: Figure, at_most: float) -> Figure:
    return Figure(name=name, value=one.value / other.value, unit="x", at_most=at_most)


def _figure(name: str, act: Callable[[], object], scale: float, unit: str, at_most: float | None) -> Figure:
    runs = tuple(scale * seconds for seconds in _seconds(act))
    return Figure(name=name, value=statistics.median(runs), unit=unit, at_most=at_most, runs=runs)


def _seconds(act: Callable[[], object]) -> list[float]:
    """Processor time of one `act`, by rounds; the first one, in which caches fill, is left out."""
    return [_round(act) for _ in range(ROUNDS + 1)][1:]


def _round(act: Callable[[], object]) -> float:
    times = 1
    while True:
        began = time.process_time()
        for _ in range(times):
            act()
        spent = time.process_time() - began
        if spent >= ROUND_S:
            return spent / times
        times *= 2 if spent < ROUND_S / 20 else max(2, int(1.2 * ROUND_S / max(spent, 1e-9)))


if __name__ == "__main__":
    sys.exit(main())
