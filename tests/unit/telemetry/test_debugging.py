"""For a while the calls of one tenant are told in detail; values never are. Issue 8, 4."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import pytest

from proxy.model import Cached, Call, Ending, Headers, Permit, Principal, Reason, Refused, Rule
from proxy.telemetry.debugging import CLOSED, MOST_NAMES, OPENED, Debugging, shape
from proxy.telemetry.journey import Journeys, Observers
from proxy.telemetry.logs import Log
from proxy.telemetry.redaction import HIDDEN
from proxy.telemetry.settings import DebugWindow
from tests.fakes import make_call
from tests.integration.waiting import within

ANN = Principal(issuer="https://i", subject="ann", tenant="acme", roles=frozenset({"b", "a"}))
BOB = Principal(issuer="https://i", subject="bob", tenant="other")
RULE = Rule(id="r-1", tool_class="read")
NOW = 1_790_000_000.0


class Clock:
    def __init__(self) -> None:
        self.wall_s = NOW
        self.now_s = 10.0


def until(seconds: float) -> str:
    return datetime.fromtimestamp(NOW + seconds, UTC).isoformat()


class Scene:
    """Windows, journeys that they see, and what was said of them."""

    def __init__(self, *windows: DebugWindow) -> None:
        self.clock = Clock()
        self.closed = asyncio.Event()
        self.lines: list[bytes] = []
        self.events: list[tuple[str, Mapping[str, object]]] = []
        self.debugging = Debugging(
            Log(self.lines.append),
            lambda: self.clock.wall_s,
            self._hear,
            lambda: self.clock.now_s,
        )
        observers = Observers(
            permitted=[self.debugging.permitted],
            attempt_ended=[self.debugging.attempt_ended],
            ended=[self.debugging.ended],
        )
        self.journeys = Journeys(observers, lambda: self.clock.now_s)
        self.debugging.follow(windows)

    def _hear(self, what: str, **about: object) -> None:
        self.events.append((what, about))
        if what == CLOSED:
            self.closed.set()

    @property
    def said(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.lines]

    def details(self) -> list[dict[str, object]]:
        return [line for line in self.said if line["msg"] == "call in detail"]

    def call(
        self, principal: Principal = ANN, call: Call | None = None, refused: Refused | None = None
    ) -> None:
        record = self.journeys.open(10.0)
        call = call or make_call(target="echo", id=1, params={"arguments": {"a": "b"}}, journey=record)
        record.read(call)
        record.identified(principal)
        if refused is not None:
            record.denied(RULE)
            record.refused(refused)
        else:
            record.permitted(Permit(call=call, principal=principal, rule=RULE))
            self.clock.now_s = 10.5
            record.cached(Cached.MISS)
            record.waited(0.25)
            first = record.attempted()
            self.clock.now_s = 11.0
            first.ended(Refused(Reason.UPSTREAM_UNREACHABLE))
            second = record.attempted()
            second.answered(200)
            self.clock.now_s = 12.0
            second.ended()
            record.altered("redirect")
        record.ended(Ending.COMPLETE)
        self.clock.now_s = 10.0


async def test_a_call_is_told_step_by_step() -> None:
    """Identified, permitted by which rule, waited, each attempt, cache, altered, ended; whatever the lowest level."""
    scene = Scene(DebugWindow(tenant="acme", until=until(60)))
    scene.call()
    line = scene.details()[0]
    assert line["level"] == "debug"
    assert {name: line[name] for name in ("tenant", "principal", "roles", "tool", "arguments")} == {
        "tenant": "acme",
        "principal": "ann",
        "roles": ["a", "b"],
        "tool": "echo",
        "arguments": {"a": "string of 1"},
    }
    assert line["steps"] == [
        {"step": "identified", "issuer": "https://i"},
        {"step": "waited", "duration_s": 0.25},
        {"step": "cache", "how": "miss"},
        {"step": "permitted", "rule": "r-1", "class": "read", "at_s": 0.0},
        {"step": "attempt", "number": 1, "at_s": 0.5, "duration_s": 0.5, "reason": "upstream_unreachable"},
        {"step": "attempt", "number": 2, "at_s": 1.0, "duration_s": 1.0, "status": 200},
        {"step": "altered", "by": ["redirect"]},
        {"step": "ended", "at_s": 2.0, "outcome": "ok"},
    ]
    await scene.debugging.close()


async def test_a_call_that_was_refused_is_told_too() -> None:
    """And which rule denied it."""
    scene = Scene(DebugWindow(tenant="acme", until=until(60)))
    scene.call(refused=Refused(Reason.NOT_ALLOWED))
    assert scene.details()[0]["steps"] == [
        {"step": "identified", "issuer": "https://i"},
        {"step": "denied", "rule": "r-1"},
        {"step": "ended", "at_s": 0.0, "outcome": "denied", "reason": "not_allowed"},
    ]
    await scene.debugging.close()


async def test_nobody_else_is_told_of() -> None:
    """Own promise: one tenant, until its end, and not by anything a client says."""
    scene = Scene(DebugWindow(tenant="acme", until=until(60)))
    scene.call(BOB)
    assert scene.details() == []
    scene.clock.wall_s += 60
    scene.call()
    assert scene.details() == []
    await scene.debugging.close()


async def test_no_value_is_told() -> None:
    """Issue 8, 4: the shape of arguments and the names of headers, redacted by name; never a value of either."""
    scene = Scene(DebugWindow(tenant="acme", until=until(60)))
    secret = "hunter2 hunter2"
    arguments = {
        "query": secret,
        "password": {"nested": secret},
        "list": [{"token": secret, "n": 1}],
        secret: True,
        "deep": {"a": {"b": {"c": {"d": secret}}}},
        "none": None,
        "float": 1.5,
        **{f"k{number}": secret for number in range(100)},
    }
    headers = Headers(
        [(b"Authorization", secret.encode()), (b"X-Odd", secret.encode()), (secret.encode(), b"x")]
    )
    scene.call(
        call=make_call(
            target="echo", id=1, params={"arguments": arguments, "_meta": {"x": secret}}, headers=headers
        )
    )
    assert secret not in b"".join(scene.lines).decode()
    line = scene.details()[0]
    assert line["header_names"] == ["authorization", "x-odd", "name of 15"]
    shown = line["arguments"]
    assert isinstance(shown, dict)
    assert len(shown) == MOST_NAMES + 1
    assert {
        name: shown[name] for name in ("query", "password", "list", "name of 15", "deep", "none", "float")
    } == {
        "query": "string of 15",
        "password": HIDDEN,
        "list": {"array of 1": {"token": HIDDEN, "n": "integer"}},
        "name of 15": "boolean",
        "deep": {"a": {"b": {"c": "object of 1"}}},
        "none": "null",
        "float": "number",
    }
    await scene.debugging.close()


def test_a_shape_hides_what_names_itself_a_credential() -> None:
    """Also before a line is looked through."""
    assert shape({"password": [1], "deep": {"X-Api-Key": "a"}}) == {
        "password": HIDDEN,
        "deep": {"X-Api-Key": HIDDEN},
    }


@pytest.mark.parametrize(
    ("value", "shown"), [([], "array of 0"), ({}, {}), ("", "string of 0"), (10**99, "integer")]
)
def test_small_shapes(value: object, shown: object) -> None:
    assert shape(value) == shown


def told(scene: Scene) -> list[tuple[object, object]]:
    return [(line["msg"], line["tenant"]) for line in scene.said if line["msg"] in (OPENED, CLOSED)]


def windows(**seconds: float) -> Iterable[DebugWindow]:
    return [DebugWindow(tenant=tenant, until=until(length)) for tenant, length in seconds.items()]


async def test_who_opens_a_window_is_told_and_that_it_was_closed() -> None:
    """Issue 8, 4: its beginning and its end are life lines and audited; a reload that changes nothing is no news."""
    scene = Scene(*windows(acme=60, other=60))
    scene.debugging.follow(list(windows(acme=60, other=90)))
    scene.debugging.follow(list(windows(other=90, past=-1)))
    assert told(scene) == [(OPENED, "acme"), (OPENED, "other"), (OPENED, "other"), (CLOSED, "acme")]
    assert [(what, about["tenant"]) for what, about in scene.events] == told(scene)
    assert scene.events[0][1]["until"] == until(60)
    await scene.debugging.close()


async def test_a_window_ends_by_itself() -> None:
    """Issue 8, 4: without a reload, and it is said."""
    scene = Scene(*windows(acme=0.01))
    scene.clock.wall_s += 1
    async with within():
        await scene.closed.wait()
    scene.debugging.follow(())  # what has ended does not end again
    assert told(scene) == [(OPENED, "acme"), (CLOSED, "acme")]
