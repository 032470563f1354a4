"""The alert rules: what each must have, whatever it is about. That they fire is tried by promtool (tests/system)."""

import re
from typing import Any

import pytest
import yaml

from deploy.monitoring import prometheus_rule
from proxy.telemetry.families import BY_NAME
from tests.unit.monitoring.expressions import mistakes, selectors
from tests.unit.monitoring.rules import TRIALS, alerts, read

ALERTS = alerts()
NAMES = [each["alert"] for each in ALERTS]
TOPICS = {
    "error rate": "McpSidecarErrors",
    "p95": "McpSidecarSlow",
    "in flight": "McpSidecarInFlight",
    "queue": "McpSidecarQueue",
    "loop lag": "McpSidecarLoopLag",
    "denied spike": "McpSidecarDeniedSpike",
    "budget exceeded": "McpSidecarBudgetExceeded",
    "breaker open": "McpSidecarBreakerOpen",
    "drift": "McpSidecarDrift",
    "audit failures": "McpSidecarAuditFailures",
    "reload failed": "McpSidecarReloadFailed",
    "outcome unknown": "McpSidecarOutcomeUnknown",
    "auth failures": "McpSidecarAuthFailures",
    "target down": "McpSidecarDown",
    "no metrics": "McpSidecarAbsent",
}
"""What issue 8 asks to be told of."""


def name(alert: dict[str, Any]) -> str:
    return str(alert["alert"])


def test_everything_that_is_to_be_told_has_an_alert() -> None:
    assert set(TOPICS.values()) <= set(NAMES)
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("alert", ALERTS, ids=name)
def test_an_alert_waits_and_says_how_bad_it_is_and_where_to_read_on(alert: dict[str, Any]) -> None:
    assert re.fullmatch(r"[1-9]\d*m", alert["for"])
    assert alert["labels"] in ({"severity": each} for each in ("critical", "warning", "info"))
    notes = alert["annotations"]
    assert set(notes) == {"summary", "description", "runbook"}
    assert "{{" not in notes["summary"], "a summary groups"
    assert notes["runbook"] == f"deploy/OPERATIONS.md#{name(alert).lower()}"


@pytest.mark.parametrize("alert", ALERTS, ids=name)
def test_an_alert_says_its_numbers_and_only_labels_that_it_has(alert: dict[str, Any]) -> None:
    """A label that is not there is an empty place in a message at night."""
    text = alert["annotations"]["description"]
    used = set(re.findall(r"\$labels\.(\w+)", text))
    grouped = re.findall(r"sum by \(([^)]*)\)", alert["expr"])
    for group in grouped:
        assert used <= {label.strip() for label in group.split(",")}
    if not grouped:
        assert used <= {"job", "namespace", "pod", "instance"}
    says_a_share = "$value" in text
    is_yes_or_no = re.search(r"(==|absent|breaker_state)", alert["expr"]) is not None
    assert says_a_share != is_yes_or_no


@pytest.mark.parametrize("alert", ALERTS, ids=name)
def test_an_alert_asks_for_what_there_is(alert: dict[str, Any]) -> None:
    """Names and labels of the product, and words it has; a misspelt one never fires, which looks like peace."""
    assert list(mistakes(alert["expr"])) == []


@pytest.mark.parametrize("alert", ALERTS, ids=name)
def test_an_alert_is_about_sidecars_only(alert: dict[str, Any]) -> None:
    """queue_depth and breaker_state are names that others have too."""
    for selector in selectors(alert["expr"]):
        assert selector.matchers["job"] == ".*mcp-sidecar.*"


@pytest.mark.parametrize("alert", [each for each in ALERTS if "histogram_quantile" in each["expr"]], ids=name)
def test_a_quantile_is_compared_with_a_bound_of_its_histogram(alert: dict[str, Any]) -> None:
    """Between two bounds it is a guess, and beyond the last it is never reached."""
    (metric,) = {
        each.name.removesuffix("_bucket") for each in selectors(alert["expr"]) if "_bucket" in each.name
    }
    threshold = re.findall(r"\)\s*> ([\d.]+)", alert["expr"])[0]
    assert float(threshold) in BY_NAME[metric].bounds[:-1]


@pytest.mark.parametrize("name", NAMES)
def test_an_alert_is_tried_both_ways(name: str) -> None:
    """On a series that is bad, with all that it says, and on one that is well."""
    tried = [
        trial
        for test in read(TRIALS)["tests"]
        for trial in test["alert_rule_test"]
        if trial["alertname"] == name
    ]
    assert any(each["exp_alerts"] for each in tried)
    assert any(not each["exp_alerts"] for each in tried)


def test_the_object_for_the_operator_is_what_is_written() -> None:
    """After a change of alerts.yaml: `make monitoring`."""
    assert prometheus_rule.FILE.read_text(encoding="utf-8") == prometheus_rule.text()


def test_the_object_for_the_operator_holds_the_same_rules() -> None:
    """As data, so that indenting broke nothing."""
    whole = yaml.safe_load(prometheus_rule.FILE.read_text(encoding="utf-8"))
    assert (whole["apiVersion"], whole["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert whole["spec"] == read(prometheus_rule.RULES)
