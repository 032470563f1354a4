"""Two runs of the suite are told apart by what was checked and how it came out, and by nothing else."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.conformance.compare import Difference, Totals, differences, main, read, totals

Check = tuple[str, str]


def written(folder: Path, scenario: str, *checks: Check, time: str = "2026-11-21T11-26-55-471Z") -> Path:
    """Write what the suite writes for one scenario."""
    file = folder / f"server-{scenario}-{time}" / "checks.json"
    file.parent.mkdir(parents=True)
    entries = [
        {"id": name, "status": status, "timestamp": time, "details": {"when": time}}
        for name, status in checks
    ]
    file.write_text(json.dumps(entries), encoding="utf-8")
    return folder


def test_order_and_time_of_the_checks_do_not_matter(tmp_path: Path) -> None:
    direct = read(written(tmp_path / "a", "ping", ("one", "SUCCESS"), ("two", "FAILURE")))
    other_time = "2027-01-02T03-04-05-006Z"
    proxied = read(written(tmp_path / "b", "ping", ("two", "FAILURE"), ("one", "SUCCESS"), time=other_time))
    assert direct == {"server-ping": Counter({("one", "SUCCESS"): 1, ("two", "FAILURE"): 1})}
    assert differences(direct, proxied) == []


def test_remarks_are_not_results(tmp_path: Path) -> None:
    direct = read(written(tmp_path / "a", "ping", ("one", "SUCCESS"), ("event", "INFO")))
    proxied = read(written(tmp_path / "b", "ping", ("one", "SUCCESS")))
    assert differences(direct, proxied) == []


def test_a_scenario_name_that_ends_in_a_date_keeps_it(tmp_path: Path) -> None:
    assert list(read(written(tmp_path, "json-schema-2020-12", ("one", "SUCCESS")))) == [
        "server-json-schema-2020-12"
    ]


@pytest.mark.parametrize(
    ("direct", "proxied", "expected"),
    [
        pytest.param(
            {"s": Counter({("c", "SUCCESS"): 1})},
            {"s": Counter({("c", "FAILURE"): 1})},
            [Difference("s", "c", "FAILURE", 0, 1), Difference("s", "c", "SUCCESS", 1, 0)],
            id="another status",
        ),
        pytest.param(
            {"s": Counter({("c", "FAILURE"): 1})},
            {"s": Counter({("c", "SUCCESS"): 1})},
            [Difference("s", "c", "FAILURE", 1, 0), Difference("s", "c", "SUCCESS", 0, 1)],
            id="better is a difference too",
        ),
        pytest.param(
            {"s": Counter({("c", "SUCCESS"): 3})},
            {"s": Counter({("c", "SUCCESS"): 2})},
            [Difference("s", "c", "SUCCESS", 3, 2)],
            id="the same check less often",
        ),
        pytest.param(
            {"s": Counter({("c", "SUCCESS"): 1}), "t": Counter({("d", "SUCCESS"): 1})},
            {"s": Counter({("c", "SUCCESS"): 1})},
            [Difference("t", "d", "SUCCESS", 1, 0)],
            id="a scenario only directly",
        ),
        pytest.param(
            {},
            {"t": Counter()},
            [Difference("t", "(the scenario)", "RUN", 0, 1)],
            id="a scenario without checks, only through the sidecar",
        ),
        pytest.param({"s": Counter()}, {"s": Counter()}, [], id="nothing checked in both"),
    ],
)
def test_what_counts_as_a_difference(
    direct: dict[str, Counter[Check]], proxied: dict[str, Counter[Check]], expected: list[Difference]
) -> None:
    assert differences(direct, proxied) == expected


def test_a_folder_that_holds_two_runs_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "ping", ("one", "SUCCESS"))
    written(tmp_path, "ping", ("one", "SUCCESS"), time="2026-11-21T11-27-00-000Z")
    with pytest.raises(ValueError, match="server-ping was run twice"):
        read(tmp_path)


def test_warnings_count_as_failed_and_skipped_checks_as_neither() -> None:
    """The suite itself exits 1 on a warning."""
    checks = Counter({("a", "SUCCESS"): 4, ("b", "FAILURE"): 1, ("c", "WARNING"): 2, ("d", "SKIPPED"): 8})
    assert totals({"s": checks, "t": Counter()}) == Totals(scenarios=2, passed=4, failed=3)


@pytest.mark.parametrize(("status", "exit_code"), [("SUCCESS", 0), ("WARNING", 1)])
def test_the_command_exits_1_where_the_runs_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], status: str, exit_code: int
) -> None:
    direct = written(tmp_path / "a", "ping", ("one", "SUCCESS"))
    proxied = written(tmp_path / "b", "ping", ("one", status))
    assert main([str(direct), str(proxied)]) == exit_code
    assert ("one WARNING: 0x direct, 1x proxied" in capsys.readouterr().out) == (exit_code == 1)


def test_two_empty_runs_are_not_equal_but_nothing(tmp_path: Path) -> None:
    assert main([str(tmp_path), str(tmp_path)]) == 1
