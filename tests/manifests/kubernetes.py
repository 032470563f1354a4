"""Does Kubernetes take this object? Judged by the schemas of its own API, one for each version that is supported.

kubernetes-validate brings those of Kubernetes itself. What it has not, objects of the Prometheus operator, is judged by
monitoring.schema, which the operator's own definitions vouch for (prometheus_operator.py).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate  # type: ignore[import-untyped]
import yaml
from kubernetes_validate import utils

VERSIONS = tuple(f"1.{minor}" for minor in range(29, 38))
"""From the first with native sidecars on to the newest that kubernetes-validate 1.37.0 brings."""

OPERATOR = "monitoring.coreos.com/v1"

# It would read a megabyte of definitions again for each object and version.
utils.schema_contents = cache(utils.schema_contents)


@cache
def _operator() -> dict[str, Any]:
    text = Path(__file__).with_name("monitoring.schema").read_text(encoding="utf-8")
    schemas = yaml.safe_load(text)
    assert isinstance(schemas, dict)
    return schemas


def check(document: dict[str, Any], *versions: str) -> None:
    """Raises a ValidationError where some version would refuse the object, or drop a field of it without a word."""
    if document["apiVersion"] == OPERATOR:
        schema = {"$defs": _operator()["$defs"], **_operator()[document["kind"]]}
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.validate(document, schema, cls=jsonschema.Draft202012Validator)
        return
    for version in versions or VERSIONS:
        kubernetes_validate.validate(document, version, strict=True)
