"""The alert rules, read as data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from deploy.monitoring.prometheus_rule import RULES

TRIALS = RULES.with_name("alerts.test.yaml")
PAGE = RULES.parents[1] / "OPERATIONS.md"


def read(file: Path) -> Any:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def alerts() -> list[dict[str, Any]]:
    """All of them, in the order of the file."""
    return [rule for group in read(RULES)["groups"] for rule in group["rules"]]
