"""The operations page: what it names exists, and each alert has a section that says what to do (issue 8, point 6)."""

import contextlib
import io
import json
import re
import shlex
from collections.abc import Iterator, Mapping

import pytest

from proxy.__main__ import main
from proxy.lifecycle.probes import Health, operations
from proxy.model import Ending, Kind, Reason, Refused, Rule
from proxy.telemetry.families import STATUSES
from proxy.telemetry.journey import Journeys, Observers
from proxy.telemetry.logs import Log
from tests.fakes import PRINCIPAL, make_call
from tests.unit.monitoring.names import OURS, find
from tests.unit.monitoring.rules import PAGE, alerts

TEXT = PAGE.read_text(encoding="utf-8")
NAMES = [str(each["alert"]) for each in alerts()]


def sections(level: int, text: str = TEXT) -> Mapping[str, str]:
    """Heading → what stands below it."""
    parts = re.split(rf"(?m)^{'#' * level} (.+)\n", text)
    return {title.strip(): body for title, body in zip(parts[1::2], parts[2::2], strict=True)}


RUNBOOK = sections(3, sections(2)["Runbook"])


def blocks(text: str) -> list[str]:
    """What stands between fences."""
    return re.findall(r"(?ms)^```\w*\n(.*?)^```$", text)


def rows(title: str) -> list[list[str]]:
    """The cells of the tables of a section, but for the heads of the tables."""
    lines = [line for line in sections(2)[title].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "---" not in line]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_every_alert_has_its_section_and_every_section_an_alert() -> None:
    assert sorted(RUNBOOK) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_section_says_what_it_is_what_to_run_and_when_to_wake_somebody(name: str) -> None:
    section = RUNBOOK[name]
    parts = re.findall(r"(?m)^\*\*([\w ]+)\.\*\*", section)
    assert parts == ["Means", "Callers see", "First", "Causes", "Escalate"]
    (block,) = blocks(section)
    assert len(re.findall(r"(?m)^\$ ", block)) == 3
    assert re.search(r"(?m)^\$ .*\n[^$]", block), "a command shows what comes of it"
    causes = section.partition("**Causes.**")[2].partition("**Escalate.**")[0]
    assert len(re.findall(r"(?m)^- ", causes)) >= 3


@pytest.mark.parametrize("alert", alerts(), ids=lambda each: str(each["alert"]))
def test_an_alert_leads_to_its_section(alert: Mapping[str, dict[str, str]]) -> None:
    """By the anchor that Markdown makes of a heading."""
    file, _, anchor = alert["annotations"]["runbook"].partition("#")
    assert PAGE.match(f"*/{file}")
    assert anchor in {title.lower() for title in RUNBOOK}


def test_links_within_the_page_lead_somewhere() -> None:
    anchors = {
        re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-")
        for title in re.findall(r"(?m)^#+ (.+)$", TEXT)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= anchors


def commands() -> Iterator[list[str]]:
    """Every `mcp-sidecar …` of the page: in blocks, and between ticks."""
    inline = re.findall(r"`(mcp-sidecar [^`]+)`", re.sub(r"(?ms)^```.*?^```$", "", TEXT))
    shown = re.findall(r"(?m)^\$ (?:.* -- )?(mcp-sidecar [^|\n]+)", "\n".join(blocks(TEXT)))
    for each in (*inline, *shown):
        yield shlex.split(" ".join(each.split()))[1:]


def test_the_page_names_commands() -> None:
    """Else the next test would be about nothing."""
    assert {words[0] for words in commands()} >= {"run", "check", "explain", "pin", "healthcheck", "policy"}


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_a_command_exists_with_its_options(words: list[str]) -> None:
    """What somebody types at night is what the command line takes."""
    said = io.StringIO()
    name = words[:2] if words[0] == "policy" else words[:1]
    with contextlib.redirect_stdout(said):
        try:
            code = main([*name, "--help"])
        except SystemExit as left:
            code = int(left.code or 0)
    assert code == 0
    for option in (word for word in words if word.startswith("--")):
        assert re.search(rf"(?<![\w-]){option}\b", said.getvalue()), option


def test_the_tables_of_metrics_and_statuses_are_whole() -> None:
    """Every metric of the product with its labels, every status, and nothing else."""
    metrics: dict[str, set[str]] = {}
    statuses: set[str] = set()
    for first, second, *_ in rows("Metrics"):
        if first in ("metric", "and what else rooms count", "`status`"):
            table = first
        elif table != "`status`":
            metrics.update((name, set(quoted(second))) for name in quoted(first))
        else:
            statuses.update(quoted(first))
    assert metrics == {name: set(metric.labels) for name, metric in OURS.items()}
    assert statuses == set(STATUSES)


def test_numbers_that_are_shown_are_numbers_of_metrics_that_there_are() -> None:
    """Lines of /metrics in the page: names, labels and the way they are written."""
    lines = [
        line
        for block in blocks(TEXT)
        for line in block.splitlines()
        if re.match(r"[a-z_]+(\{[^}]*\})? \d+(\.\d+)?(e[+-]\d+)?$", line)
    ]
    assert len(lines) > 10
    for line in lines:
        name, labels = re.match(r"(\w+)(?:\{([^}]*)\})? ", line).groups()  # type: ignore[union-attr]
        metric = find(name)
        assert metric is not None, line
        assert set(re.findall(r'(\w+)="', labels or "")) == metric.labels, line


def documented_fields() -> set[str]:
    return {name for cells in rows("Log lines") for name in quoted(cells[0])}


def test_every_field_of_a_line_is_told() -> None:
    """A line with everything that can stand in one."""
    lines: list[bytes] = []
    log = Log(lines.append)
    record = Journeys(Observers()).open(0.0)
    record.read(make_call())
    record.identified(PRINCIPAL)
    record.altered("accept-encoding")
    record.would_refuse(Rule(id="x"), Reason.NOT_ALLOWED)
    refused = Refused(Reason.INTERNAL, "why")
    refused.__cause__ = ValueError()
    record.refused(refused)
    record.ended(Ending.COMPLETE)
    log.call(record)
    told = set(json.loads(lines[0]))
    assert {"outcome", "reason", "why", "error", "would_refuse", "altered"} <= told
    assert told <= documented_fields()


def test_fields_that_commands_select_are_fields() -> None:
    """A misspelt one selects nothing, and looks like peace."""
    of_the_process = {
        "mistakes",
        "lag_s",
        "cpu_s",
        "times",
        "where",
        "state",
        "changes",
        "flags",
        "action",
    } | {"used_bytes", "limit_bytes"}
    asked = {
        field
        for block in blocks(TEXT)
        for command in re.findall(r"(?m)^\$ sidecar-log \| jq (.*)$", block)
        for field in (
            *re.findall(r"(?<![\w])\.([a-z_]+)", command),
            *re.findall(r"[{,] *([a-z_]+)(?=[,}])", command),
        )
    }
    assert len(asked) > 10
    assert asked <= documented_fields() | of_the_process


def test_words_that_are_selected_by_are_words_of_lines() -> None:
    known = {
        "outcome": set(STATUSES),
        "reason": {each.value for each in Reason},
        "level": {"debug", "info", "warning", "error"},
    }
    found = re.findall(r'\.(outcome|reason|level)[!=]="(\w+)"', "\n".join(blocks(TEXT)))
    assert len(found) > 8
    assert [(field, word) for field, word in found if word not in known[field]] == []


def test_endings_and_kinds_are_told_by_their_words() -> None:
    text = sections(2)["Log lines"]
    assert all(f"`{each.value}`" in text for each in Ending)
    assert {"request", "notification", "answer"} <= {each.value for each in Kind}


async def test_every_page_of_the_operations_port_is_told() -> None:
    async def nobody() -> bool:
        return False

    served = {
        route.resource.canonical for route in operations(Health(nobody)).router.routes() if route.resource
    }
    told = {path for cells in rows("Ports and probes") for path in quoted(cells[0]) if path.startswith("/")}
    assert served <= told
    assert told <= served | {"/metrics"}
