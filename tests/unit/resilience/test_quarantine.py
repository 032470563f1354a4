"""When a tool is left alone, and when it is tried again. Source: issue 7, item 4."""

from __future__ import annotations

from proxy.resilience.breaker import ALIVE_S
from proxy.resilience.quarantine import UNKNOWN, Quarantine
from proxy.resilience.signals import Signal

GOOD, BAD, SILENT = Signal.GOOD, Signal.BAD, Signal.SILENT


def quarantine(*, min_calls: int = 4, max_tools: int = 1_000) -> Quarantine:
    return Quarantine(failure_ratio=0.5, min_calls=min_calls, window_s=60, for_s=30, max_tools=max_tools)


def alone(machine: Quarantine) -> list[str]:
    return list(machine.left_alone)


def attempt(machine: Quarantine, name: str, signal: Signal, now: float = 0.0) -> None:
    ticket = machine.admit(name, now)
    assert ticket is not None
    machine.heard(name, ticket, signal, now)


def with_one_left_alone(name: str = "broken", max_tools: int = 1_000) -> Quarantine:
    machine = quarantine(max_tools=max_tools)
    for _ in range(4):
        attempt(machine, name, BAD)
    assert alone(machine) == [name]
    return machine


def test_a_tool_that_keeps_failing_is_left_alone_and_the_others_are_not() -> None:
    machine = with_one_left_alone()
    assert machine.admit("broken", 29.9) is None
    assert machine.wait_s("broken", 10) == 20
    for _ in range(9):
        attempt(machine, "works", GOOD)
    assert machine.admit("works", 0) is not None
    assert alone(machine) == ["broken"]
    assert [machine.is_left_alone(name) for name in ("broken", "works", "nobody")] == [True, False, False]


def test_below_the_floor_nothing_is_left_alone() -> None:
    """A tool that is called twice a day and failed both times has told too little."""
    machine = quarantine()
    for _ in range(3):
        attempt(machine, "rare", BAD)
    assert alone(machine) == []
    assert [machine.wait_s(name, 0) for name in ("rare", "nobody")] == [0, 0]


def test_the_part_of_failures_decides_not_a_row() -> None:
    """Half of at least four, within a minute."""
    machine = quarantine()
    for signal in (BAD, GOOD, GOOD, GOOD, BAD, GOOD, GOOD, BAD, SILENT, SILENT):
        attempt(machine, "shaky", signal)
    assert alone(machine) == []
    for signal in (BAD, BAD):
        attempt(machine, "shaky", signal)
    assert alone(machine) == ["shaky"]


def test_one_call_tries_it_and_lifts_it() -> None:
    machine = with_one_left_alone()
    probe = machine.admit("broken", 30)
    assert probe is not None
    assert machine.admit("broken", 30) is None
    assert machine.wait_s("broken", 30) > 0
    assert alone(machine) == ["broken"]
    machine.heard("broken", probe, GOOD, 30)
    assert alone(machine) == []
    attempt(machine, "broken", GOOD, 30)


def test_one_that_fails_leaves_it_alone_for_as_long_as_before() -> None:
    """It does not double: the others work meanwhile."""
    machine = with_one_left_alone()
    attempt(machine, "broken", BAD, 30)
    assert machine.wait_s("broken", 30) == 30
    attempt(machine, "broken", SILENT, 60)
    attempt(machine, "broken", GOOD, 60)
    assert alone(machine) == []


def test_an_answer_that_keeps_coming_lifts_it() -> None:
    machine = with_one_left_alone()
    probe = machine.admit("broken", 30)
    assert probe is not None
    machine.begun("broken", probe, 30)
    machine.begun("nobody", probe, 30)
    assert machine.admit("broken", 30 + ALIVE_S) is not None


def test_an_operator_lifts_it() -> None:
    machine = with_one_left_alone()
    assert machine.lift("broken") is True
    assert machine.lift("broken") is False
    assert machine.lift("nobody") is False
    attempt(machine, "broken", BAD)
    assert alone(machine) == []


def test_nothing_is_kept_of_tools_that_never_failed() -> None:
    """Callers choose names."""
    machine = quarantine()
    for number in range(100):
        attempt(machine, f"tool-{number}", GOOD)
        attempt(machine, f"tool-{number}", SILENT)
    assert len(machine) == 0


def test_calls_sent_before_the_first_failure_count() -> None:
    """Twenty hung calls of one tool time out together: each of them was a failure."""
    machine = quarantine()
    tickets = [machine.admit("slow", 0) for _ in range(4)]
    assert tickets == [UNKNOWN] * 4
    for _ in tickets:
        machine.heard("slow", UNKNOWN, BAD, 60)
    assert alone(machine) == ["slow"]


def test_calls_sent_before_it_was_left_alone_say_nothing_afterwards() -> None:
    machine = quarantine()
    for _ in range(4):
        machine.heard("slow", UNKNOWN, BAD, 0)
    probe = machine.admit("slow", 30)
    assert probe is not None
    machine.heard("slow", UNKNOWN, GOOD, 30)
    assert alone(machine) == ["slow"]
    machine.heard("slow", probe, GOOD, 30)
    for _ in range(20):
        machine.heard("slow", UNKNOWN, BAD, 31)
    assert alone(machine) == []


def test_the_table_is_bounded_and_forgets_last_what_is_left_alone() -> None:
    """Whoever makes a thousand names fail must not set a broken tool free."""
    machine = with_one_left_alone(max_tools=3)
    for number in range(10):
        attempt(machine, f"tool-{number}", BAD)
        assert len(machine) <= 3
    assert alone(machine) == ["broken"]


def test_what_failed_longest_ago_is_forgotten_first() -> None:
    machine = quarantine(max_tools=2)
    for name in ("a", "b", "a", "a", "c", "a"):
        attempt(machine, name, BAD)
    assert alone(machine) == ["a"]


def test_a_success_does_not_keep_a_tool_from_being_forgotten() -> None:
    """What is kept of it is that it failed."""
    machine = quarantine(min_calls=2, max_tools=2)
    for name, signal in (("a", BAD), ("b", BAD), ("a", GOOD), ("c", BAD), ("b", BAD)):
        attempt(machine, name, signal)
    assert alone(machine) == ["b"]


def test_a_table_full_of_what_is_left_alone_forgets_the_oldest() -> None:
    machine = quarantine(min_calls=1, max_tools=2)
    for name in ("a", "b", "c"):
        attempt(machine, name, BAD)
    assert alone(machine) == ["b", "c"]


def test_a_call_of_a_tool_that_was_forgotten_is_not_one_of_its_namesake() -> None:
    """Its ticket is of a time that nobody remembers."""
    machine = quarantine(min_calls=1, max_tools=1)
    attempt(machine, "a", BAD)
    old = machine.admit("a", 30)
    assert old is not None
    attempt(machine, "b", BAD)
    machine.heard("a", old, BAD, 30)
    assert alone(machine) == ["b"]
    attempt(machine, "a", BAD)
    probe = machine.admit("a", 30)
    assert probe is not None
    machine.heard("a", old, GOOD, 30)
    assert alone(machine) == ["a"]
