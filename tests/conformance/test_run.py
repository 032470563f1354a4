"""When a conformance run counts as good."""

from __future__ import annotations

import pytest

from tests.conformance.compare import Difference, Totals
from tests.conformance.run import Comparison
from tests.conformance.suite import CHECKS, QUICK

PASSED, FAILED = Totals(1, 3, 0), Totals(1, 2, 1)


@pytest.mark.parametrize(
    ("direct", "found", "missing", "clean"),
    [
        pytest.param(PASSED, (), 0, True, id="all passed, nothing differs"),
        pytest.param(PASSED, (Difference("s", "c", "SUCCESS", 1, 0),), 0, False, id="a difference"),
        pytest.param(FAILED, (), 0, False, id="the same failure both ways"),
        pytest.param(PASSED, (), 1, False, id="fewer checks than the suite has"),
        pytest.param(Totals(0, 0, 0), (), 0, False, id="nothing was checked"),
    ],
)
def test_a_run_is_clean_only_if_all_passed_and_nothing_differs(
    direct: Totals, found: tuple[Difference, ...], missing: int, clean: bool
) -> None:
    assert Comparison("2025-11-25", direct, direct, found, missing).is_clean is clean


def test_every_revision_has_a_quick_part() -> None:
    assert list(QUICK) == list(CHECKS)
    assert all(QUICK.values())
