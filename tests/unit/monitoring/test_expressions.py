"""The reader of names in PromQL, by which dashboard and alerts are judged."""

import pytest

from tests.unit.monitoring.expressions import Selector, mistakes, selectors


def test_it_finds_what_is_selected() -> None:
    expression = (
        'histogram_quantile(0.95, sum by (le, tool) (rate(tool_latency_seconds_bucket{job=~"a|up"}[5m]))) > 1\n'
        'unless on (job) up{job="b"} == 0 or breaker_state offset 10m'
    )
    assert list(selectors(expression)) == [
        Selector("tool_latency_seconds_bucket", {"job": "a|up"}, "rate"),
        Selector("up", {"job": "b"}, None),
        Selector("breaker_state", {}, None),
    ]


@pytest.mark.parametrize(
    "expression",
    [
        'sum by (tool) (rate(tool_calls_total{status="ok",tenant=~"$tenant"}[$__rate_interval]))',
        "histogram_quantile(0.5, sum by (le) (rate(loop_lag_seconds_bucket[5m])))",
        "increase(tool_latency_seconds_count[5m])",
        "max_over_time(breaker_state[1m]) > 0",
        "process_open_fds / process_max_fds",
        'absent(up{job="x"})',
    ],
)
def test_what_is_right_is_left_alone(expression: str) -> None:
    assert list(mistakes(expression)) == []


@pytest.mark.parametrize(
    ("expression", "mistake"),
    [
        ("tool_call_total", "no metric is called tool_call_total"),
        ("tool_latency_seconds", "no metric is called tool_latency_seconds"),
        ("rate(tool_calls_bucket[5m])", "no metric is called tool_calls_bucket"),
        ('tool_calls_total{outcome="ok"}', "tool_calls_total has no label outcome"),
        ('cache_bytes{tool="x"}', "cache_bytes has no label tool"),
        ('tool_calls_total{status=~"ok|timed_out"}', "tool_calls_total has no status timed_out"),
        ("rate(queue_depth[5m])", "queue_depth is no counter: rate() of it means nothing"),
        (
            "max_over_time(tool_calls_total[5m])",
            "tool_calls_total is no gauge: max_over_time() of it means nothing",
        ),
        ("sum by (status) (breaker_state)", "nothing here has the label status"),
        (
            "sum by (le) (rate(tool_latency_seconds_count[5m]))",
            "nothing here has the label le",
        ),
        (
            "histogram_quantile(0.9, sum by (tool) (rate(tool_latency_seconds_bucket[5m])))",
            "a quantile needs le",
        ),
    ],
)
def test_what_is_wrong_is_told(expression: str, mistake: str) -> None:
    assert list(mistakes(expression)) == [mistake]
