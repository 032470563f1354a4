"""Read, write or dangerous: whose word counts."""

import pytest

from proxy.model import Principal
from proxy.policy import tool_classes
from proxy.policy.settings import ToolClass
from proxy.policy.tool_classes import Hints, HintTable, class_of, hints_in
from tests.fakes import make_call

ANN = Principal(issuer="i", subject="ann", tenant="t")
BOB = Principal(issuer="i", subject="bob", tenant="t")
READS, WRITES, DESTROYS = Hints(True, True), Hints(False, False), Hints(False, True)


@pytest.mark.parametrize(
    ("default", "hints", "untrusted", "trusted"),
    [
        ("dangerous", None, "dangerous", "dangerous"),
        ("read", None, "read", "read"),
        ("dangerous", READS, "dangerous", "read"),
        ("dangerous", WRITES, "dangerous", "write"),
        ("write", READS, "write", "read"),
        ("write", DESTROYS, "dangerous", "dangerous"),
        ("read", WRITES, "write", "write"),
        ("read", DESTROYS, "dangerous", "dangerous"),
        ("read", READS, "read", "read"),
    ],
)
def test_untrusted_hints_may_only_tighten(
    default: ToolClass, hints: Hints | None, untrusted: str, trusted: str
) -> None:
    """Issue 4, 2; protocol.md 5: hints may narrow what the operator allows, never widen."""
    assert class_of(default, hints, are_trusted=False) == untrusted
    assert class_of(default, hints, are_trusted=True) == trusted


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        (None, None),
        ({}, None),
        ({"title": "x"}, None),
        ({"readOnlyHint": True}, READS),
        ({"readOnlyHint": "true"}, None),
        ({"readOnlyHint": 1, "destructiveHint": False}, WRITES),
        ({"destructiveHint": None, "readOnlyHint": False}, DESTROYS),
        ({"destructiveHint": False}, WRITES),
        ([], None),
    ],
)
def test_what_is_no_boolean_says_nothing(annotations: object, expected: Hints | None) -> None:
    """The specification's defaults: not read-only, destructive."""
    assert hints_in({"name": "t", "annotations": annotations}) == expected


def test_what_one_was_told_decides_nothing_for_another() -> None:
    """Lists may differ by caller."""
    table = HintTable()
    table.learn(ANN, make_call(), {"tools": [{"name": "t", "annotations": {"readOnlyHint": True}}]})
    assert (table.of(ANN, "t"), table.of(BOB, "t"), table.of(ANN, "u")) == (READS, None, None)


def test_a_new_list_replaces_what_was_said() -> None:
    """A downgrade counts at once; hints that are gone say nothing."""
    table = HintTable()
    table.learn(ANN, make_call(), {"tools": [{"name": "t", "annotations": {"readOnlyHint": True}}]})
    table.learn(ANN, make_call(), {"tools": [{"name": "t", "annotations": {"destructiveHint": True}}]})
    assert table.of(ANN, "t") == DESTROYS
    table.learn(ANN, make_call(), {"tools": [{"name": "t"}]})
    assert table.of(ANN, "t") is None


@pytest.mark.parametrize("order", [[READS, DESTROYS], [DESTROYS, READS]])
def test_of_two_tools_of_one_name_the_stricter_counts(order: list[Hints]) -> None:
    """Which of them a call runs is the server's secret."""
    table = HintTable()
    tools = [
        {"name": "t", "annotations": {"readOnlyHint": each.read_only, "destructiveHint": each.destructive}}
        for each in order
    ]
    table.learn(ANN, make_call(), {"tools": [*tools, "no tool", {"name": 7}]})
    assert table.of(ANN, "t") == DESTROYS


def test_tables_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Style guide 8."""
    monkeypatch.setattr(tool_classes, "MAX_IDENTITIES", 2)
    monkeypatch.setattr(tool_classes, "MAX_TOOLS", 3)
    table = HintTable()
    listed = [{"name": f"t{n}", "annotations": {"readOnlyHint": True}} for n in range(5)]
    for subject in ("a", "b", "c"):
        table.learn(Principal(issuer="i", subject=subject, tenant="t"), make_call(), {"tools": listed})
    assert len(table._hints) == 2
    assert all(len(known) == 3 for known in table._hints.values())
