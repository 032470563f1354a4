"""promtool judges the alert rules and all that the dashboard asks, as Prometheus itself would."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from deploy.monitoring import dashboard
from deploy.monitoring.prometheus_rule import RULES
from tests.system import tools
from tests.unit.monitoring.rules import TRIALS

pytestmark = pytest.mark.system("promtool")


def promtool(*words: str | Path) -> str:
    """What it says, where it finds nothing wrong."""
    done = subprocess.run(
        [tools.path("promtool"), *words], capture_output=True, text=True, timeout=60, cwd=RULES.parent
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_rules_are_rules() -> None:
    """Issue 8, point 6."""
    assert re.search(r"SUCCESS: \d+ rules found", promtool("check", "rules", RULES))


def test_each_alert_fires_on_what_is_bad_and_not_on_what_is_well() -> None:
    assert "SUCCESS" in promtool("test", "rules", TRIALS)


def test_everything_the_dashboard_asks_can_be_read(tmp_path: Path) -> None:
    """Each expression as the rule of a file, with variables replaced as Grafana does."""
    shown = json.loads(dashboard.FILE.read_text(encoding="utf-8"))
    asked = [target["expr"] for panel in shown["panels"] for target in panel.get("targets", ())]
    rules = [
        {"record": f"asked:{index}", "expr": expression.replace("$__rate_interval", "5m")}
        for index, expression in enumerate(asked)
    ]
    file = tmp_path / "dashboard.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8")
    assert f"SUCCESS: {len(asked)} rules found" in promtool("check", "rules", file)
