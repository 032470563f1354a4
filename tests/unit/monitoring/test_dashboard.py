"""The dashboard as Grafana would read it (issue 8). There is no Grafana here: its JSON is checked by its structure."""

import itertools
import json
import re
from collections import Counter
from typing import Any

import pytest

from deploy.monitoring import dashboard
from deploy.monitoring.rows import COLOURS
from proxy.telemetry.families import STATUSES
from tests.unit.monitoring.expressions import groups, mistakes, selectors

SHOWN: dict[str, Any] = json.loads(dashboard.FILE.read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = [each for each in SHOWN["panels"] if each["type"] != "row"]
TARGETS: list[tuple[str, dict[str, Any]]] = [
    (panel["title"], target) for panel in PANELS for target in panel["targets"]
]
BUILT_IN = {"__rate_interval"}
"""Variables that Grafana has by itself."""
UNITS = {"short", "s", "bytes", "percentunit", "reqps"}


def title(panel: dict[str, Any]) -> str:
    return str(panel["title"])


def test_what_is_committed_is_what_is_written() -> None:
    """Issue 8, point 6: generated in code, JSON committed. After a change: `make monitoring`."""
    assert dashboard.FILE.read_text(encoding="utf-8") == dashboard.text()


def test_no_two_panels_have_one_id() -> None:
    ids = Counter(panel["id"] for panel in SHOWN["panels"])
    assert [id for id, times in ids.items() if times > 1] == []


def test_no_two_panels_have_one_title() -> None:
    """Links and people name panels by it."""
    titles = Counter(map(title, SHOWN["panels"]))
    assert [each for each, times in titles.items() if times > 1] == ["Breaker"], (
        "once at a glance, once in time"
    )


def test_no_two_panels_lie_on_each_other_and_all_lie_on_the_grid() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in SHOWN["panels"]:
        at = panel["gridPos"]
        assert at["w"] > 0 < at["h"], title(panel)
        assert 0 <= at["x"] <= 24 - at["w"], title(panel)
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert (x, y) not in taken, f"{title(panel)} lies on {taken[x, y]}"
                taken[x, y] = title(panel)


def test_rows_stand_in_order_and_none_is_empty() -> None:
    """A row holds what stands behind it in the list, and below it on the grid."""
    kinds = [each["type"] for each in SHOWN["panels"]]
    assert kinds[0] == "row"
    assert kinds[-1] != "row"
    assert ("row", "row") not in itertools.pairwise(kinds)
    heights = [each["gridPos"]["y"] for each in SHOWN["panels"]]
    assert heights == sorted(heights)


@pytest.mark.parametrize("panel", PANELS, ids=title)
def test_a_panel_says_what_it_shows_and_what_to_do(panel: dict[str, Any]) -> None:
    assert len(panel["description"]) > 40
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["targets"]
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
    assert all(each == {"type": "prometheus", "uid": "${datasource}"} for each in sources)


@pytest.mark.parametrize(("panel", "target"), TARGETS)
def test_a_target_asks_for_what_there_is(panel: str, target: dict[str, Any]) -> None:
    """Names and labels of the product, and words it has; a misspelt one is empty for ever, which looks like peace."""
    assert target["expr"]
    assert list(mistakes(target["expr"])) == []


@pytest.mark.parametrize(("panel", "target"), TARGETS)
def test_a_legend_names_labels_that_the_lines_have(panel: str, target: dict[str, Any]) -> None:
    """One that is missing would show as its own name in braces; two lines that share a legend cannot be told apart."""
    named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
    grouped = set(groups(target["expr"])) - {"le"}
    is_summed = re.search(r"\b(sum|count|max|min|histogram_quantile)\b", target["expr"]) is not None
    assert target["legendFormat"].strip()
    assert named == (grouped if is_summed else {"pod", "instance"})


@pytest.mark.parametrize(("panel", "target"), TARGETS)
def test_a_target_is_about_the_sidecars_that_were_chosen(panel: str, target: dict[str, Any]) -> None:
    """Every selector, or a share would be of somebody else's calls."""
    for selector in selectors(target["expr"]):
        chosen = {"job": "$job", "namespace": "$namespace", "pod": "$pod"}
        assert chosen.items() <= selector.matchers.items()


@pytest.mark.parametrize(("panel", "target"), TARGETS)
def test_a_rate_is_over_an_interval_that_fits_the_scrapes(panel: str, target: dict[str, Any]) -> None:
    """A fixed one is empty where scrapes are farther apart."""
    assert set(re.findall(r"\[([^\]]+)\]", target["expr"])) <= {"$__rate_interval"}


def test_variables_that_are_used_exist_and_those_that_exist_are_used() -> None:
    variables = {each["name"] for each in SHOWN["templating"]["list"]}
    text = json.dumps({**SHOWN, "templating": [each.get("query") for each in SHOWN["templating"]["list"]]})
    used = set(re.findall(r"\$\{?(\w+)", text)) - BUILT_IN
    assert used == variables
    assert variables == {"datasource", "job", "namespace", "pod", "tool", "tenant"}


def test_a_variable_asks_for_a_label_that_there_is_and_only_for_variables_before_it() -> None:
    """Grafana fills them from left to right."""
    before = {"datasource"}
    for each in SHOWN["templating"]["list"][1:]:
        found = re.fullmatch(r"label_values\((.+), (\w+)\)", each["query"]["query"])
        assert found is not None
        expression, label = found.groups()
        assert label == each["name"]
        assert list(mistakes(f"sum by ({label}) ({expression})")) == []
        assert set(re.findall(r"\$(\w+)", expression)) <= before
        assert each["allValue"] == ".*", "labels that are not there must fit"
        before.add(label)


def test_every_outcome_has_a_colour() -> None:
    """One without would take any, also that of harm."""
    assert set(COLOURS) == set(STATUSES)


def test_alerts_are_marked_on_all_panels() -> None:
    (marked,) = SHOWN["annotations"]["list"]
    assert list(mistakes(marked["expr"])) == []
