"""Monitors and rules of deploy/, by the Prometheus operator's own definitions; and our reading of these, by them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml

from tests.manifests.kubernetes import OPERATOR, _operator, check
from tests.manifests.prometheus_operator import MADE_OF, Refused, fields_of, judge, source
from tests.tools.node import HERE

ROOT = HERE.parents[1]
FILES = (
    "podmonitor/podmonitor.yaml",
    "servicemonitor/servicemonitor.yaml",
    "monitoring/prometheus-rule.yaml",
)
KINDS = ("PodMonitor", "ServiceMonitor", "PrometheusRule")


def objects() -> Iterator[dict[str, Any]]:
    for name in FILES:
        for each in yaml.safe_load_all((ROOT / "deploy" / name).read_text(encoding="utf-8")):
            if each["apiVersion"] == OPERATOR:
                yield each


OBJECTS = {each["kind"]: each for each in objects()}


def test_there_is_one_of_each_kind() -> None:
    assert tuple(OBJECTS) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_the_operator_takes_what_is_in_deploy(kind: str) -> None:
    """Issue 9: manifests are checked by schemas. Values by the operator's definitions, names by our reading of them."""
    judge(OBJECTS[kind])
    check(OBJECTS[kind])


def _put(document: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    changed = copy.deepcopy(document)
    *way, last = path.split(".")
    at: Any = changed
    for key in way:
        at = at[int(key) if key.isdigit() else key]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return changed


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("PodMonitor", "spec.selector", None),
        ("PodMonitor", "spec.podMetricsEndpoints.0.interval", "15 s"),
        ("PodMonitor", "spec.podMetricsEndpoints.0.scheme", "ftp"),
        ("ServiceMonitor", "spec.endpoints", None),
        ("ServiceMonitor", "spec.endpoints.0.scrapeTimeout", "soon"),
        ("PrometheusRule", "spec.groups.0.name", ""),
        ("PrometheusRule", "spec.groups.0.rules.0.for", "5 minutes"),
        ("PrometheusRule", "spec.groups.0.rules.0.expr", None),
    ],
)
def test_what_the_operator_refuses_both_refuse(kind: str, path: str, value: object) -> None:
    """Else the first test would show nothing."""
    wrong = _put(OBJECTS[kind], path, value)
    with pytest.raises(Refused):
        judge(wrong)
    with pytest.raises(jsonschema.ValidationError):
        check(wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_our_reading_names_no_field_that_is_not_there(kind: str) -> None:
    """A field from memory would let a manifest pass that the API server drops it from."""
    assert _names(_operator()[kind], ("metadata",)) <= fields_of(kind)
    with pytest.raises(jsonschema.ValidationError):
        check(_put(OBJECTS[kind], "spec.invented", "x"))


def _names(schema: Any, skipped: tuple[str, ...] = ()) -> set[str]:
    """All names under `properties`, through references."""
    if "$ref" in schema:
        return _names(_operator()["$defs"][schema["$ref"].rpartition("/")[2]])
    found = set()
    for name, each in schema.get("properties", {}).items():
        found.add(name)
        found |= set() if name in skipped else _names(each)
    return found | (_names(schema["items"]) if "items" in schema else set())


def test_the_package_is_made_of_the_release_that_is_named() -> None:
    """Whoever renews it says of which."""
    assert source().endswith(MADE_OF)
